#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "moai/sandbox.h"

enum check {
    ANY,         /* whatever the arguments */
    NO_EXEC,     /* argument 2 has no PROT_EXEC */
    ONLY_THREAD, /* argument 0 has CLONE_THREAD */
    NAME,        /* argument 0 is PR_SET_NAME: threads are named */
    READABLE,    /* argument 1 is FIONREAD */
    NO_MORE,     /* argument 1 is SHUT_WR, which does nothing to a socket that listens */
    ANEW,        /* argument 2 is what "wb" of the C library opens with: write, create, truncate */
    OWN_LIMIT,   /* arguments 0 and 2 are 0: getrlimit, of this process, changing nothing */
    SEALING,     /* argument 1 is F_ADD_SEALS */
    SEALABLE /* argument 1 is MFD_CLOEXEC | MFD_ALLOW_SEALING: no huge pages, nothing to execute */
};

#define BOTH (TG_SANDBOX_LOAD | TG_SANDBOX_SERVE)
#define BAKE (TG_SANDBOX_LOAD_BAKE & ~TG_SANDBOX_LOAD)
#define LOAD_FILES (TG_SANDBOX_LOAD | (TG_SANDBOX_SERVE_FILES & ~TG_SANDBOX_SERVE))

/* The whole list. A call that is on no row kills the process. Filters add up to what all of them
 * allow, so what is needed for serving stands on both lists. */
static const struct {
    int nr;
    unsigned phases;
    enum check check;
} calls[] = {
  /* descriptors we were handed */
    {SCMP_SYS(read),              BOTH,            ANY        },
    {SCMP_SYS(readv),             BOTH,            ANY        },
    {SCMP_SYS(write),             BOTH,            ANY        },
    {SCMP_SYS(writev),            BOTH,            ANY        },
    {SCMP_SYS(close),             BOTH,            ANY        },
    {SCMP_SYS(openat),            BAKE,            ANEW       },
    {SCMP_SYS(pread64),           LOAD_FILES,      ANY        },
    {SCMP_SYS(lseek),             TG_SANDBOX_LOAD, ANY        },
    {SCMP_SYS(fstat),             BOTH,            ANY        },
    {SCMP_SYS(ioctl),             BOTH,            READABLE   },
 /* sockets we were handed, and connections to them */
    {SCMP_SYS(sendto),            BOTH,            ANY        },
    {SCMP_SYS(recvfrom),          BOTH,            ANY        },
    {SCMP_SYS(accept4),           BOTH,            ANY        },
    {SCMP_SYS(sendmsg),           BOTH,            ANY        }, /* the native socket's, with shared memory */
    {SCMP_SYS(recvmsg),           BOTH,            ANY        },
    {SCMP_SYS(shutdown),          BOTH,            NO_MORE    },
    {SCMP_SYS(getsockopt),        BOTH,            ANY        },
    {SCMP_SYS(uname),             BOTH,            ANY        }, /* getnameinfo of Unix sockets */
    {SCMP_SYS(epoll_wait),        BOTH,            ANY        },
    {SCMP_SYS(epoll_pwait),       BOTH,            ANY        },
    {SCMP_SYS(epoll_pwait2),      BOTH,            ANY        },
    {SCMP_SYS(epoll_ctl),         BOTH,            ANY        },
 /* memory */
    {SCMP_SYS(mmap),              BOTH,            NO_EXEC    },
    {SCMP_SYS(mprotect),          BOTH,            NO_EXEC    },
    {SCMP_SYS(munmap),            BOTH,            ANY        },
    {SCMP_SYS(mremap),            BOTH,            ANY        },
    {SCMP_SYS(madvise),           BOTH,            ANY        },
    {SCMP_SYS(brk),               BOTH,            ANY        },
    {SCMP_SYS(mlock),             BOTH,            ANY        },
    {SCMP_SYS(mlock2),            BOTH,            ANY        },
    {SCMP_SYS(memfd_secret),      BOTH,            ANY        }, /* the region grows */
    {SCMP_SYS(ftruncate),         BOTH,            ANY        },
 /* memory shared with programs: made here, sealed */
    {SCMP_SYS(memfd_create),      BOTH,            SEALABLE   },
    {SCMP_SYS(fcntl),             BOTH,            SEALING    },
    {SCMP_SYS(munlock),           BOTH,            ANY        },
    {SCMP_SYS(prlimit64),         BOTH,            OWN_LIMIT  }, /* what the limit is, when locking fails */
  /* threads: the C library asks for clone3, is told there is none, and takes clone */
    {SCMP_SYS(clone),             TG_SANDBOX_LOAD, ONLY_THREAD},
 /* what a thread does first, which on a busy machine may be after the load */
    {SCMP_SYS(set_robust_list),   BOTH,            ANY        },
    {SCMP_SYS(rseq),              BOTH,            ANY        },
    {SCMP_SYS(prctl),             BOTH,            NAME       },
    {SCMP_SYS(futex),             BOTH,            ANY        },
    {SCMP_SYS(sched_yield),       BOTH,            ANY        },
    {SCMP_SYS(sched_getaffinity), BOTH,            ANY        },
    {SCMP_SYS(getpid),            BOTH,            ANY        },
    {SCMP_SYS(gettid),            BOTH,            ANY        },
    {SCMP_SYS(exit),              BOTH,            ANY        },
    {SCMP_SYS(exit_group),        BOTH,            ANY        },
 /* facts about the machine: which are asked for differs between library versions */
    {SCMP_SYS(getcpu),            BOTH,            ANY        },
    {SCMP_SYS(sysinfo),           BOTH,            ANY        },
    {SCMP_SYS(membarrier),        BOTH,            ANY        },
    {SCMP_SYS(clock_getres),      BOTH,            ANY        },
 /* time, chance, signals */
    {SCMP_SYS(clock_gettime),     BOTH,            ANY        },
    {SCMP_SYS(gettimeofday),      BOTH,            ANY        },
    {SCMP_SYS(clock_nanosleep),   BOTH,            ANY        },
    {SCMP_SYS(restart_syscall),   BOTH,            ANY        },
    {SCMP_SYS(getrandom),         BOTH,            ANY        },
    {SCMP_SYS(rt_sigaction),      BOTH,            ANY        },
    {SCMP_SYS(rt_sigprocmask),    BOTH,            ANY        },
    {SCMP_SYS(rt_sigreturn),      BOTH,            ANY        },
    {SCMP_SYS(getrusage),         BOTH,            ANY        },
 /* the second list is put on top of the first */
    {SCMP_SYS(seccomp),           TG_SANDBOX_LOAD, ANY        },
};

static int add(scmp_filter_ctx ctx, int nr, enum check check)
{
    switch (check) {
    case ANY:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
    case NO_EXEC:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    case ONLY_THREAD:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    case NAME:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
    case ANEW:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A2(SCMP_CMP_EQ, O_WRONLY | O_CREAT | O_TRUNC, 0));
    case READABLE:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD, 0));
    case NO_MORE:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, SCMP_A1(SCMP_CMP_EQ, SHUT_WR, 0));
    case OWN_LIMIT:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 2, SCMP_A0(SCMP_CMP_EQ, 0, 0),
                                SCMP_A2(SCMP_CMP_EQ, 0, 0));
    case SEALABLE:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A1(SCMP_CMP_EQ, MFD_CLOEXEC | MFD_ALLOW_SEALING, 0));
    case SEALING:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, SCMP_A1(SCMP_CMP_EQ, F_ADD_SEALS, 0));
    }
    return -EINVAL;
}

static int fill(scmp_filter_ctx ctx, enum tg_sandbox_phase phase)
{
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);

    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    /* begin() set it already; the library must not call prctl for it inside the first list */
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
    for (size_t i = 0; r == 0 && i < TG_ARRAY_LEN(calls); i++)
        if ((calls[i].phases & phase) != 0)
            r = add(ctx, calls[i].nr, calls[i].check);
    if (r == 0)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    /* How stdio asks for a descriptor's facts. Allowed it would be a look at any path (fstat.c). */
    if (r == 0)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(newfstatat), 1,
                             SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
    return r;
}

bool tg_sandbox_is_real(void)
{
#ifdef TG_SANITIZED
    return false;
#else
    return true;
#endif
}

enum tg_rc tg_sandbox_enter(enum tg_sandbox_phase phase, struct tg_err *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r;

    if (!tg_sandbox_is_real()) {
        seccomp_release(ctx);
        return TG_OK;
    }
    if (ctx == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "seccomp: out of memory");
    r = fill(ctx, phase);
    if (r == 0)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    if (r != 0) {
        errno = -r;
        return TG_FAIL_ERRNO(err, TG_E_UNSUPPORTED,
                             "can't enter the sandbox (seccomp filters are needed)");
    }
    return TG_OK;
}
