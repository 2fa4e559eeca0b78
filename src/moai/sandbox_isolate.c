/* Network namespace, limits, Landlock. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "moai/sandbox.h"

#ifndef SYS_landlock_create_ruleset /* one number on all architectures */
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

/* As in linux/landlock.h, whose installed version may be older than the kernel. */
struct ruleset {
    uint64_t fs, net, scoped;
};

#define VERSION_FLAG 1U
#define ALL_BITS(n) ((UINT64_C(1) << (n)) - 1)

/* What each version of Landlock can deny: so many access rights to files (open for reading,
 * writing, executing; make, remove, link, cut, control), TCP, and what reaches out of the domain
 * (abstract Unix sockets, signals). */
static const struct {
    int version;
    unsigned fs, net, scoped; /* bits */
} abi[] = {
    {1, 13, 0, 0},
    {2, 14, 0, 0},
    {3, 15, 0, 0},
    {4, 15, 2, 0},
    {5, 16, 2, 0},
    {6, 16, 2, 2},
};

int tg_sandbox_landlock_version(void)
{
    long v = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);

    return v > 0 ? (int)v : 0;
}

enum tg_rc tg_sandbox_landlock(struct tg_err *err)
{
    int version = tg_sandbox_landlock_version(), fd;
    struct ruleset set = {0, 0, 0};
    long r;

    if (version == 0)
        return TG_OK;
    for (size_t i = 0; i < TG_ARRAY_LEN(abi); i++)
        if (abi[i].version <= version)
            set = (struct ruleset){ALL_BITS(abi[i].fs), ALL_BITS(abi[i].net),
                                   ALL_BITS(abi[i].scoped)};
    /* Everything is handled and no rule allows any of it. */
    fd = (int)syscall(SYS_landlock_create_ruleset, &set, sizeof(set), 0);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_UNSUPPORTED, "can't make a Landlock rule set");
    r = syscall(SYS_landlock_restrict_self, fd, 0);
    (void)close(fd);
    if (r != 0)
        return TG_FAIL_ERRNO(err, TG_E_UNSUPPORTED, "can't enter the Landlock rule set");
    return TG_OK;
}

bool tg_sandbox_leave_network(void)
{
    return unshare(CLONE_NEWNET) == 0;
}

/* Never upwards. */
static enum tg_rc lower(int resource, rlim_t n, const char *name, struct tg_err *err)
{
    struct rlimit lim;

    if (getrlimit((__rlimit_resource_t)resource, &lim) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't read the limit %s", name);
    if (lim.rlim_cur > n)
        lim.rlim_cur = n;
    lim.rlim_max = lim.rlim_cur;
    if (setrlimit((__rlimit_resource_t)resource, &lim) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't set the limit %s", name);
    return TG_OK;
}

/* Addresses in use, in bytes; 0: unknown. */
static uint64_t addresses_used(void)
{
    char text[64];
    uint64_t pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

    if (fd >= 0)
        (void)close(fd);
    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        pages = pages * 10 + (uint64_t)(text[i] - '0');
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

enum tg_rc tg_sandbox_limits(size_t descriptors, struct tg_err *err)
{
    uint64_t used = addresses_used();

    TG_TRY(lower(RLIMIT_NOFILE, descriptors, "NOFILE", err));
    TG_TRY(lower(RLIMIT_NPROC, TG_SANDBOX_THREADS_MAX, "NPROC", err));
    TG_TRY(lower(RLIMIT_MSGQUEUE, 0, "MSGQUEUE", err));
    TG_TRY(lower(RLIMIT_SIGPENDING, 1024, "SIGPENDING", err));
    if (used == 0 || !tg_sandbox_is_real()) /* a sanitizer maps terabytes */
        return TG_OK;
    return lower(RLIMIT_AS, used + TG_SANDBOX_MORE_MEMORY, "AS", err);
}
