#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* Sources are first moved above this number, so that placing one cannot overwrite another. */
#define SAFE_FD 64

enum step { S_GROUP, S_STDIO, S_LIMIT, S_USER, S_KEY, S_DIR, S_FDS, S_PARENT, S_EXEC };

static const char *const step_text[] = {
    [S_GROUP] = "make a process group",
    [S_STDIO] = "open /dev/null",
    [S_LIMIT] = "set limits",
    [S_USER] = "take the worker's user",
    [S_KEY] = "open the KEM key as the worker's user",
    [S_DIR] = "change directory",
    [S_FDS] = "place descriptors",
    [S_PARENT] = "tie its life to the agent's",
    [S_EXEC] = "execute",
};

/* What a child that failed before exec writes to its parent. */
struct failure {
    int step;
    int errnum;
};

TG_RC tg_user_find(const char *name, struct tg_user *out, struct tg_err *err)
{
    struct passwd pw, *found = NULL;
    char buf[4096];
    int e = getpwnam_r(name, &pw, buf, sizeof buf, &found);
    if (e) {
        errno = e;
        return TG_FAIL_ERRNO(err, TG_E_IO, "user '%s'", name);
    }
    if (!found || strlen(name) >= sizeof out->name)
        return TG_FAIL(err, TG_E_NOTFOUND, "user '%s': no such user on this machine", name);
    if (pw.pw_uid == 0)
        return TG_FAIL(err, TG_E_USAGE, "user '%s' is root: a worker must not be", name);
    *out = (struct tg_user){.set = true, .uid = pw.pw_uid, .gid = pw.pw_gid};
    memcpy(out->name, name, strlen(name) + 1);
    return TG_OK;
}

/* ---- between fork and exec: async-signal-safe calls only ---- */

_Noreturn static void child_fail(int report, enum step step)
{
    struct failure f = {.step = (int)step, .errnum = errno};
    ssize_t n = write(report, &f, sizeof f);
    (void)n;
    _exit(127);
}

static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        (void)sigaction(s, &dfl, NULL); /* SIGKILL and SIGSTOP refuse: fine */
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int place_stdio(int out, int words)
{
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0)
        return -1;
    return words >= 0 && dup2(words, 2) < 0 ? -1 : 0;
}

/* Locked memory is what the worker lives in: allow as much as we may. */
static int raise_memlock(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_MEMLOCK, &l) != 0)
        return -1;
    struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    if (geteuid() == 0 && setrlimit(RLIMIT_MEMLOCK, &all) == 0)
        return 0;
    l.rlim_cur = l.rlim_max;
    return setrlimit(RLIMIT_MEMLOCK, &l);
}

/* Where even root may not lift RLIMIT_MEMLOCK (a container), the worker keeps the one capability
 * that stands for it across the change of user and exec. It gives it up itself where it can. */
static int keep_lock_right(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    uint32_t bit = 1u << CAP_IPC_LOCK;
    if (syscall(SYS_capget, &head, data) != 0)
        return -1;
    if ((data[0].permitted & bit) == 0)
        return 0;
    data[0].effective = data[0].permitted = data[0].inheritable = bit;
    data[1] = (struct __user_cap_data_struct){0};
    if (syscall(SYS_capset, &head, data) != 0)
        return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_IPC_LOCK, 0, 0);
}

static int limit_files(uint64_t max)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct rlimit l = {.rlim_cur = max, .rlim_max = max};
    if (max == 0)
        return 0;
    return sigaction(SIGXFSZ, &ignore, NULL) != 0 ? -1 : setrlimit(RLIMIT_FSIZE, &l);
}

static int take_user(const struct tg_user *u)
{
    struct rlimit l;
    if (!u->set)
        return 0;
    if (getrlimit(RLIMIT_MEMLOCK, &l) != 0)
        return -1;
    bool keep = l.rlim_cur != RLIM_INFINITY;
    if (keep && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
        return -1;
    if (setgroups(0, NULL) != 0 || setresgid(u->gid, u->gid, u->gid) != 0 ||
        setresuid(u->uid, u->uid, u->uid) != 0)
        return -1;
    if (keep && keep_lock_right() != 0)
        return -1;
    if (setuid(0) == 0) { /* must not be able to come back */
        errno = EPERM;
        return -1;
    }
    return 0;
}

static int place_fds(const int *fds, size_t n, int report)
{
    for (size_t i = 0; i < n; i++) {
        int at = TG_SPAWN_FD_FIRST + (int)i;
        if (fds[i] < 0)
            (void)close(at);
        else if (dup2(fds[i], at) < 0)
            return -1;
    }
    /* all but the placed ones, stdio and the report pipe (which closes itself at exec) */
    unsigned first = TG_SPAWN_FD_FIRST + (unsigned)n;
    if (first < (unsigned)report && close_range(first, (unsigned)report - 1, 0) != 0)
        return -1;
    return close_range((unsigned)report + 1, ~0U, 0);
}

_Noreturn static void child_run(const struct tg_spawn *s, int *fds, int report, pid_t parent)
{
    reset_signals();
    if (setpgid(0, 0) != 0)
        child_fail(report, S_GROUP);
    if (place_stdio(s->out, s->words) != 0)
        child_fail(report, S_STDIO);
    if (raise_memlock() != 0 || limit_files(s->file_max) != 0)
        child_fail(report, S_LIMIT);
    if (take_user(&s->user) != 0)
        child_fail(report, S_USER);
    if (s->key_at >= 0) {
        fds[s->key_at] =
            openat(s->key_dir, s->key_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fds[s->key_at] < 0)
            child_fail(report, S_KEY);
        fds[s->key_at] = fcntl(fds[s->key_at], F_DUPFD_CLOEXEC, SAFE_FD);
    }
    if ((s->work_dir >= 0 ? fchdir(s->work_dir) : chdir("/")) != 0)
        child_fail(report, S_DIR);
    if (place_fds(fds, s->n_fds, report) != 0)
        child_fail(report, S_FDS);
    /* after the change of user, which clears it */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        child_fail(report, S_PARENT);
    char *const env[] = {(char *)(uintptr_t) "LC_ALL=C", (char *)(uintptr_t) "PATH=/usr/bin:/bin",
                         NULL};
    execve(s->path, (char *const *)(uintptr_t)s->argv, env);
    child_fail(report, S_EXEC);
}

/* ---- the parent ---- */

static void close_all(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tg_fd_close(fds[i]);
}

static TG_RC read_report(int fd, const struct tg_spawn *s, pid_t pid, struct tg_err *err)
{
    struct failure f;
    ssize_t n;
    do
        n = read(fd, &f, sizeof f);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return TG_OK; /* closed by exec */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)sizeof f)
        return TG_FAIL(err, TG_E_INTERNAL, "%s: the child broke off before it ran", s->path);
    errno = f.errnum;
    enum tg_rc rc = f.step == S_USER ? TG_E_DENIED : TG_E_IO;
    if (f.step == S_KEY)
        return TG_FAIL_ERRNO(err, rc, "%s: cannot %s (%s)", s->path, step_text[f.step],
                             s->key_name);
    return TG_FAIL_ERRNO(err, rc, "%s: cannot %s", s->path, step_text[f.step]);
}

TG_RC tg_spawn(const struct tg_spawn *s, pid_t *pid, struct tg_err *err)
{
    if (s->n_fds > TG_SPAWN_FDS_MAX || s->key_at >= (int)s->n_fds)
        return TG_FAIL(err, TG_E_INTERNAL, "spawn: %zu descriptors", s->n_fds);
    int fds[TG_SPAWN_FDS_MAX];
    struct tg_spawn moved = *s;
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: pipe", s->path);
    TG_AUTO(tg_fd_closep) int from = pipe_fd[0];
    TG_AUTO(tg_fd_closep) int low = pipe_fd[1];
    TG_AUTO(tg_fd_closep) int report = fcntl(low, F_DUPFD_CLOEXEC, SAFE_FD);
    if (report < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: too many open files", s->path);
    tg_fd_close(low);
    low = -1;
    for (size_t i = 0; i < s->n_fds; i++) {
        fds[i] = s->fds[i] < 0 ? -1 : fcntl(s->fds[i], F_DUPFD_CLOEXEC, SAFE_FD);
        if (s->fds[i] >= 0 && fds[i] < 0) {
            int e = errno;
            close_all(fds, i);
            errno = e;
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: descriptor %zu", s->path, i);
        }
    }
    pid_t self = getpid();
    pid_t child = fork();
    if (child == 0)
        child_run(&moved, fds, report, self);
    int e = errno;
    close_all(fds, s->n_fds);
    tg_fd_close(report);
    report = -1;
    errno = e;
    if (child < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: fork", s->path);
    TG_TRY(read_report(from, s, child, err));
    *pid = child;
    return TG_OK;
}

void tg_wait_text(int status, char *out, size_t cap)
{
    if (WIFSIGNALED(status))
        (void)snprintf(out, cap, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(out, cap, "exit status %d", WEXITSTATUS(status));
}
