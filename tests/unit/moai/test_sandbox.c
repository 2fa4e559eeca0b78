/* Forbidden calls do kill; allowed ones do not. Each case runs in a child of its own. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/secret.h"
#include "base/thread.h"
#include "moai/sandbox.h"
#include "moai/session.h"
#include "onnx_make.h"

static struct tg_err err;

/* Sanitizers have no list; valgrind knows no seccomp call. */
static bool no_seccomp_here(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return !tg_sandbox_is_real() || (preload != NULL && strstr(preload, "vgpreload") != NULL);
}

/* What a case returns: 0 went well. */
typedef int case_fn(void);

/* Exit status, or 1000 + signal. */
static int in_child(case_fn *fn)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void enter(enum tg_sandbox_phase upto)
{
    if (tg_sandbox_begin(&err) != TG_OK || tg_sandbox_enter(TG_SANDBOX_LOAD, &err) != TG_OK)
        _exit(99);
    if (upto != TG_SANDBOX_LOAD && tg_sandbox_enter(upto, &err) != TG_OK)
        _exit(98);
}

#define FORBIDDEN(name, phase, call)                                                               \
    static int name(void)                                                                          \
    {                                                                                              \
        enter(phase);                                                                              \
        (void)!(call);                                                                             \
        return 0;                                                                                  \
    }

static char *no_args[] = {NULL};

FORBIDDEN(do_open, TG_SANDBOX_LOAD, open("/dev/null", O_RDONLY))
FORBIDDEN(do_creat, TG_SANDBOX_LOAD, syscall(SYS_openat, AT_FDCWD, "x", O_CREAT | O_WRONLY, 0600))
FORBIDDEN(do_stat, TG_SANDBOX_LOAD, syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", NULL, 0))
FORBIDDEN(do_socket, TG_SANDBOX_LOAD, socket(AF_INET, SOCK_STREAM, 0))
FORBIDDEN(do_socketpair, TG_SANDBOX_LOAD, syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, NULL))
FORBIDDEN(do_connect, TG_SANDBOX_LOAD, connect(0, NULL, 0))
FORBIDDEN(do_exec, TG_SANDBOX_LOAD, execve("/bin/true", no_args, no_args))
FORBIDDEN(do_fork, TG_SANDBOX_LOAD, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
FORBIDDEN(do_vfork, TG_SANDBOX_LOAD, syscall(SYS_vfork))
FORBIDDEN(do_ptrace, TG_SANDBOX_LOAD, ptrace(PTRACE_TRACEME, 0, NULL, NULL))
FORBIDDEN(do_readv, TG_SANDBOX_LOAD, syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0))
FORBIDDEN(do_memfd, TG_SANDBOX_LOAD, syscall(SYS_memfd_create, "x", 0))
FORBIDDEN(do_dumpable, TG_SANDBOX_LOAD, prctl(PR_SET_DUMPABLE, 1))
FORBIDDEN(do_setuid, TG_SANDBOX_LOAD, syscall(SYS_setuid, 0))
FORBIDDEN(do_setlimit, TG_SANDBOX_LOAD, setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}))
FORBIDDEN(do_unlink, TG_SANDBOX_LOAD, unlink("x"))
FORBIDDEN(do_kill, TG_SANDBOX_LOAD, kill(getppid(), 0))
FORBIDDEN(do_bpf, TG_SANDBOX_LOAD, syscall(SYS_bpf, 0, NULL, 0))
FORBIDDEN(do_uring, TG_SANDBOX_LOAD, syscall(SYS_io_uring_setup, 1, NULL))
FORBIDDEN(do_exec_map, TG_SANDBOX_LOAD,
          mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == NULL)
FORBIDDEN(do_exec_protect, TG_SANDBOX_LOAD, mprotect(NULL, 4096, PROT_EXEC))
FORBIDDEN(serve_pread, TG_SANDBOX_SERVE, pread(0, no_args, 0, 0))
FORBIDDEN(serve_seccomp, TG_SANDBOX_SERVE, syscall(SYS_seccomp, 0, 0, NULL))
FORBIDDEN(serve_thread, TG_SANDBOX_SERVE, syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0))
FORBIDDEN(serve_dup, TG_SANDBOX_SERVE, fcntl(2, F_DUPFD, 40))
FORBIDDEN(serve_shut, TG_SANDBOX_SERVE, shutdown(0, SHUT_RDWR))
FORBIDDEN(serve_memfd, TG_SANDBOX_SERVE, syscall(SYS_memfd_create, "x", MFD_HUGETLB))
FORBIDDEN(files_open, TG_SANDBOX_SERVE_FILES, open("/dev/null", O_RDONLY))
FORBIDDEN(files_seek, TG_SANDBOX_SERVE_FILES, lseek(0, 0, SEEK_CUR))
FORBIDDEN(files_seccomp, TG_SANDBOX_SERVE_FILES, syscall(SYS_seccomp, 0, 0, NULL))
FORBIDDEN(files_thread, TG_SANDBOX_SERVE_FILES, syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0))
FORBIDDEN(files_memfd, TG_SANDBOX_SERVE_FILES, syscall(SYS_memfd_create, "x", MFD_HUGETLB))

static void forbidden_calls_kill(void **state)
{
    static const struct {
        const char *name;
        case_fn *fn;
    } rows[] = {
        {"open",              do_open        },
        {"create",            do_creat       },
        {"stat",              do_stat        },
        {"socket",            do_socket      },
        {"socketpair",        do_socketpair  },
        {"connect",           do_connect     },
        {"execve",            do_exec        },
        {"fork",              do_fork        },
        {"vfork",             do_vfork       },
        {"ptrace",            do_ptrace      },
        {"process_vm_readv",  do_readv       },
        {"memfd_create",      do_memfd       },
        {"dumpable",          do_dumpable    },
        {"setuid",            do_setuid      },
        {"unlink",            do_unlink      },
        {"setrlimit",         do_setlimit    },
        {"kill",              do_kill        },
        {"bpf",               do_bpf         },
        {"io_uring",          do_uring       },
        {"mmap exec",         do_exec_map    },
        {"mprotect exec",     do_exec_protect},
        {"serving: pread64",  serve_pread    },
        {"serving: seccomp",  serve_seccomp  },
        {"serving: clone",    serve_thread   },
        {"serving: dup",      serve_dup      },
        {"serving: memfd",    serve_memfd    },
        {"serving: shutdown", serve_shut     },
        {"files: open",       files_open     },
        {"files: lseek",      files_seek     },
        {"files: seccomp",    files_seccomp  },
        {"files: clone",      files_thread   },
        {"files: memfd",      files_memfd    },
    };

    (void)state;
    if (no_seccomp_here())
        skip();
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        int got = in_child(rows[i].fn);

        if (got != 1000 + SIGSYS)
            fail_msg("%s: expected SIGSYS, got %d", rows[i].name, got);
    }
}

static enum tg_rc add_one(void *ctx, uint64_t i, unsigned worker, struct tg_err *e)
{
    (void)i;
    (void)worker;
    (void)e;
    __atomic_add_fetch((int *)ctx, 1, __ATOMIC_SEQ_CST);
    return TG_OK;
}

/* Threads, locked memory and plain memory while loading; memory and arithmetic while serving. */
static int honest_work(void)
{
    struct tg_secret *s = NULL;
    int count = 0;

    enter(TG_SANDBOX_LOAD);
    if (tg_thread_run(3, 16, add_one, &count, &err) != TG_OK || count != 16)
        return 1;
    if (tg_secret_new(100000, &s, &err) != TG_OK)
        return 2;
    memset(tg_secret_data(s), 7, 100000);
    if (tg_sandbox_enter(TG_SANDBOX_SERVE, &err) != TG_OK)
        return 3;
    tg_secret_free(s);
    for (size_t n = 16; n < (64u << 20); n *= 4) {
        void *p = malloc(n);

        if (p == NULL)
            return 4;
        memset(p, 1, n);
        free(p);
    }
    return 0;
}

/* Where files are handed over, the package is read at offsets. */
static int read_at_an_offset(void)
{
    int fds[2];
    char byte;

    if (pipe(fds) != 0)
        return 1;
    enter(TG_SANDBOX_SERVE_FILES);
    return pread(fds[0], &byte, 1, 0) == -1 && errno == ESPIPE ? 0 : 2;
}

/* A descriptor's facts are had; those of a path are not, whatever flag stands beside it. */
static int facts(enum tg_sandbox_phase phase)
{
    struct stat st;
    int fds[2];

    if (pipe(fds) != 0)
        return 1;
    enter(phase);
    if (fstat(fds[0], &st) != 0 || !S_ISFIFO(st.st_mode))
        return 2;
    if (syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &st, AT_EMPTY_PATH) == 0 ||
        errno != ENOSYS)
        return 3;
    return syscall(SYS_newfstatat, fds[0], "", &st, AT_EMPTY_PATH) == -1 ? 0 : 4;
}

static int facts_loading(void)
{
    return facts(TG_SANDBOX_LOAD);
}

static int facts_serving(void)
{
    return facts(TG_SANDBOX_SERVE);
}

static void honest_work_goes_on(void **state)
{
    (void)state;
    if (no_seccomp_here())
        skip();
    assert_int_equal(in_child(honest_work), 0);
    assert_int_equal(in_child(read_at_an_offset), 0);
    assert_int_equal(in_child(facts_loading), 0);
    assert_int_equal(in_child(facts_serving), 0);
}

/* ONNX Runtime loads a model, and runs it with all its threads, without a single forbidden call. */
static int onnx_runtime(void)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct onnx_make m = {
        .type = 1, .dims = {"n", "1024"},
             .n_dims = 2, .op = "Exp"
    };
    struct tg_ort *ort = NULL;
    struct tg_session *s = NULL;
    struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    static float x[1024 * 1024];

    if (onnx_make(&m, &model) != TG_OK || tg_ort_new(4, &ort, &err) != TG_OK)
        return 1;
    enter(TG_SANDBOX_LOAD);
    if (tg_session_new(ort, tg_buf_view(&model), &s, &err) != TG_OK)
        return 2;
    if (tg_sandbox_enter(TG_SANDBOX_SERVE, &err) != TG_OK)
        return 3;
    in->n = 1;
    in->tensors[0] = (struct tg_oip_tensor){
        .name = "x", .dtype = TG_DT_FP32, .shape = {{1024, 1024}, 2},
                .data = TG_BYTES_OF(x)
    };
    for (int i = 0; i < 20; i++) {
        struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);

        if (tg_session_run(s, in, out, NULL, &err) != TG_OK || out->tensors[0].data.n != sizeof(x))
            return 4;
        tg_oip_free(out);
    }
    tg_oip_free(in);
    tg_session_free(s);
    tg_ort_free(ort);
    return 0;
}

static void onnx_runtime_lives_inside(void **state)
{
    (void)state;
    if (no_seccomp_here())
        skip();
    assert_int_equal(in_child(onnx_runtime), 0);
}

/* While baking a path may be opened to be written anew, and leads to no file: not one that is
 * there, nor a new one; only to what the process has open and is no file. */
static char bake_file[64];

static int bake_opens(void)
{
    char fresh[128], way[64], got = 0;
    int fds[2], fd;

    (void)snprintf(fresh, sizeof(fresh), "%s.new", bake_file);
    if (pipe(fds) != 0)
        return 1;
    (void)snprintf(way, sizeof(way), "/proc/self/fd/%d", fds[1]);
    if (tg_sandbox_begin(&err) != TG_OK)
        return 2;
    if (tg_sandbox_landlock_version() == 0)
        return 77;
    if (tg_sandbox_landlock(&err) != TG_OK)
        return 9;
    if (unlink(bake_file) == 0 || rename(bake_file, fresh) == 0 || mkdir(fresh, 0700) == 0)
        return 3;
    if (tg_sandbox_enter(TG_SANDBOX_LOAD_BAKE, &err) != TG_OK)
        return 4;
    if (open(bake_file, O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0 || errno != EACCES)
        return 5;
    if (open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0 || errno != EACCES)
        return 6;
    fd = open(way, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1 || read(fds[0], &got, 1) != 1 || got != 'x')
        return 7;
    (void)open("/etc/hostname", O_RDONLY); /* kills */
    return 8;
}

static void baking_opens_no_file(void **state)
{
    int fd, got;

    (void)state;
    (void)snprintf(bake_file, sizeof(bake_file), "/tmp/tg-sandbox-XXXXXX");
    fd = mkstemp(bake_file);
    assert_true(fd >= 0);
    got = in_child(bake_opens);
    (void)close(fd);
    assert_int_equal(unlink(bake_file), 0); /* it is still there */
    if (got == 77 || no_seccomp_here())
        skip();
    assert_int_equal(got, 1000 + SIGSYS);
}

static int bake_serves(void)
{
    if (tg_sandbox_begin(&err) != TG_OK || tg_sandbox_landlock_version() == 0)
        return 77;
    if (tg_sandbox_landlock(&err) != TG_OK)
        return 4;
    if (tg_sandbox_enter(TG_SANDBOX_LOAD_BAKE, &err) != TG_OK ||
        tg_sandbox_enter(TG_SANDBOX_SERVE, &err) != TG_OK)
        return 1;
    return open("/proc/self/fd/1", O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0 ? 2 : 3;
}

static void serving_opens_nothing_at_all(void **state)
{
    int got = in_child(bake_serves);

    (void)state;
    if (got == 77 || no_seccomp_here())
        skip();
    assert_int_equal(got, 1000 + SIGSYS);
}

static void *open_in_thread(void *arg)
{
    volatile int *go = arg;

    while (__atomic_load_n(go, __ATOMIC_SEQ_CST) == 0)
        (void)sched_yield();
    return (void *)(intptr_t)open("/dev/null", O_RDONLY);
}

/* A thread that was there before is inside too. */
static int older_thread(void)
{
    pthread_t t;
    int go = 0;

    if (pthread_create(&t, NULL, open_in_thread, &go) != 0)
        return 1;
    enter(TG_SANDBOX_LOAD);
    __atomic_store_n(&go, 1, __ATOMIC_SEQ_CST);
    (void)pthread_join(t, NULL);
    return 0;
}

static void older_threads_are_inside_too(void **state)
{
    (void)state;
    if (no_seccomp_here())
        skip();
    assert_int_equal(in_child(older_thread), 1000 + SIGSYS);
}

static int hardened(void)
{
    struct rlimit core = {1, 1};

    if (tg_sandbox_begin(&err) != TG_OK)
        return 1;
    if (prctl(PR_GET_DUMPABLE) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 2;
    return getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0 ? 0 : 3;
}

static void begin_hardens_the_process(void **state)
{
    (void)state;
    assert_int_equal(in_child(hardened), 0);
}

/* Landlock alone, without the list of calls: nothing opens, nothing connects. */
static int landlocked(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(9)};
    int fd, version = tg_sandbox_landlock_version();

    if (version == 0)
        return 77;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (tg_sandbox_begin(&err) != TG_OK || tg_sandbox_landlock(&err) != TG_OK)
        return 1;
    if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
        return 2;
    if (open("/tmp", O_TMPFILE | O_RDWR, 0600) >= 0 || unlink("/tmp/none") == 0)
        return 3;
    if (mkdir("/tmp/tensorguard-landlock", 0700) == 0)
        return 4;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (version >= 4 && (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 || errno != EACCES))
        return 5;
    if (version >= 6 && (kill(getppid(), 0) == 0 || errno != EPERM))
        return 6;
    return 0;
}

static void landlock_leaves_no_file(void **state)
{
    int got = in_child(landlocked);

    (void)state;
    if (got == 77 || no_seccomp_here())
        skip();
    assert_int_equal(got, 0);
}

static int limited(void)
{
    struct rlimit lim = {0, 0};
    size_t most = (size_t)TG_SANDBOX_MORE_MEMORY + ((size_t)1 << 30);
    int fd = 0, last = 0;

    if (tg_sandbox_limits(100, &err) != TG_OK)
        return 1;
    while ((fd = dup(0)) >= 0)
        last = fd;
    if (last != 99 || errno != EMFILE)
        return 2;
    if (getrlimit(RLIMIT_NPROC, &lim) != 0 || lim.rlim_max > TG_SANDBOX_THREADS_MAX)
        return 3;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_max != 100)
        return 4;
    if (tg_sandbox_is_real() &&
        mmap(NULL, most, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) !=
            MAP_FAILED)
        return 5;
    return 0;
}

static void limits_hold(void **state)
{
    (void)state;
    assert_int_equal(in_child(limited), 0);
}

/* A listening socket of before goes on being one; nothing else can be reached, not even loopback.
 */
static int without_network(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);
    int listening = socket(AF_INET, SOCK_STREAM, 0), fd;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listening, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listening, 1) != 0 ||
        getsockname(listening, (struct sockaddr *)&at, &n) != 0)
        return 1;
    if (!tg_sandbox_leave_network())
        return geteuid() == 0 ? 78 : 77;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0 ? 0 : 2;
}

static void the_network_is_left(void **state)
{
    int got = in_child(without_network);

    (void)state;
    if (got == 77 || got == 78) /* no right to: not root, or a container */
        skip();
    assert_int_equal(got, 0);
}

/* Where there is no limit, all memory: what is allocated later too. */
static int all_locked(void)
{
    char *volatile p; /* a compiler may leave out an allocation that nobody looks at */
    char line[256];
    FILE *f;
    int locked = 0;

    if (!tg_sandbox_lock_all())
        return 77;
    p = malloc(32 << 20);
    if (p == NULL)
        return 1;
    memset(p, 1, 32 << 20);
    f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "VmLck:", 6) == 0)
            locked = atoi(line + 6);
    return locked > 32 << 10 ? 0 : 2;
}

static void later_memory_is_locked_too(void **state)
{
    int got = in_child(all_locked);

    (void)state;
    if (got == 77 || no_seccomp_here())
        skip();
    assert_int_equal(got, 0);
}

static int closed(void)
{
    int fds[2], keep;

    if (pipe(fds) != 0)
        return 1;
    keep = fcntl(fds[0], F_DUPFD, 40);
    if (tg_sandbox_close_fds(&keep, 1, &err) != TG_OK)
        return 2;
    if (fcntl(keep, F_GETFD) < 0 || fcntl(2, F_GETFD) < 0)
        return 3;
    return fcntl(fds[0], F_GETFD) < 0 && fcntl(fds[1], F_GETFD) < 0 ? 0 : 4;
}

static void only_told_descriptors_stay(void **state)
{
    (void)state;
    assert_int_equal(in_child(closed), 0);
}

/* As root: the user changes for good and no capability is left. As anyone else: a clear refusal. */
static int dropped(void)
{
    if (geteuid() != 0)
        return tg_sandbox_drop_user("nobody", &err) == TG_E_DENIED ? 0 : 1;
    if (tg_sandbox_begin(&err) != TG_OK || tg_sandbox_drop_user("nobody", &err) != TG_OK)
        return 2;
    if (getuid() == 0 || getgid() == 0 || getgroups(0, NULL) != 0 || setuid(0) == 0)
        return 3;
    return prctl(PR_GET_DUMPABLE) == 0 ? 0 : 4;
}

static int refused_users(void)
{
    if (tg_sandbox_drop_user("no-such-user-here", &err) != TG_E_NOTFOUND)
        return 1;
    return tg_sandbox_drop_user("root", &err) == TG_E_DENIED ? 0 : 2;
}

static void users_change_for_good_or_not_at_all(void **state)
{
    (void)state;
    assert_int_equal(in_child(dropped), 0);
    assert_int_equal(in_child(refused_users), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forbidden_calls_kill),
        cmocka_unit_test(honest_work_goes_on),
        cmocka_unit_test(onnx_runtime_lives_inside),
        cmocka_unit_test(baking_opens_no_file),
        cmocka_unit_test(serving_opens_nothing_at_all),
        cmocka_unit_test(older_threads_are_inside_too),
        cmocka_unit_test(begin_hardens_the_process),
        cmocka_unit_test(landlock_leaves_no_file),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(the_network_is_left),
        cmocka_unit_test(later_memory_is_locked_too),
        cmocka_unit_test(only_told_descriptors_stay),
        cmocka_unit_test(users_change_for_good_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
