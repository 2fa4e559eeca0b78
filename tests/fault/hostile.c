/* An LD_PRELOAD library that makes a worker its attacker's: what it would do once it runs code of
 * his, in the real worker, inside the sandbox that the worker has put itself into.
 *
 *     TG_HOSTILE=WHEN:WHAT    WHEN is a word of the message to the agent before which it happens
 *                             ("verifying": before the first byte of the package,
 *                             "loading": in the first phase, "healthy": in the second)
 *
 * It says on standard error "hostile: reached WHAT" if what it tried worked, "hostile: denied WHAT"
 * if that failed; if it is killed it says nothing. tests/e2e/test_hostile_worker.py has what must
 * come of each. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static const char *when, *what;
static const char *secret; /* a file that the worker's user may read */
static int channel;        /* to the agent */
static pid_t agent;        /* getppid is not on the list */

static bool open_file(void)
{
    return syscall(SYS_openat, AT_FDCWD, secret, O_RDONLY) >= 0;
}

/* The flag with which the C library asks for a descriptor's facts, and a path all the same. */
static bool look_up(void)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, secret, &st, AT_EMPTY_PATH) == 0;
}

/* The very flags with which a bake leaves. */
static bool make_file(void)
{
    return syscall(SYS_openat, AT_FDCWD, "/tmp/hostile", O_WRONLY | O_CREAT | O_TRUNC, 0600) >= 0;
}

static bool list_folder(void)
{
    return syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY) >= 0;
}

static bool unix_socket(void)
{
    return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0) >= 0;
}

static bool inet_socket(void)
{
    return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) >= 0;
}

/* Another socket than the one it was made for: a handed descriptor, connected anew. */
static bool reconnect(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
    return syscall(SYS_connect, channel, &un, sizeof un) == 0 || errno == ENOENT;
}

static bool kill_agent(void)
{
    return syscall(SYS_kill, agent, SIGKILL) == 0;
}

static bool trace_agent(void)
{
    return syscall(SYS_ptrace, PTRACE_ATTACH, agent, NULL, NULL) == 0;
}

static bool read_agent(void)
{
    char byte;
    struct iovec to = {&byte, 1}, from = {(void *)(uintptr_t)0x400000, 1};
    return syscall(SYS_process_vm_readv, agent, &to, 1UL, &from, 1UL, 0UL) == 1;
}

static bool open_agent(void)
{
    return syscall(SYS_pidfd_open, agent, 0) >= 0;
}

static bool execute(void)
{
    static char sh[] = "sh", c[] = "-c", words[] = "echo hostile: reached execute >&2";
    char *const argv[] = {sh, c, words, NULL}, *const env[] = {NULL};
    return syscall(SYS_execve, "/bin/sh", argv, env) == 0;
}

static bool fork_off(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) >= 0;
}

static bool be_root(void)
{
    return syscall(SYS_setuid, 0) == 0;
}

static bool be_dumpable(void)
{
    return syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

static bool new_namespace(void)
{
    return syscall(SYS_unshare, CLONE_NEWUSER) == 0;
}

static bool new_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0) != MAP_FAILED;
}

static bool uring(void)
{
    char params[120] = {0};
    return syscall(SYS_io_uring_setup, 8, params) >= 0;
}

/* Is this one of the sockets that predictions come in by? */
static bool listens(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on != 0;
}

/* They are the agent's, and every worker's after this one: must not be shut for good. */
static bool shut_listeners(void)
{
    bool any = false;
    for (int fd = 3; fd < 200; fd++)
        any = (listens(fd) && syscall(SYS_shutdown, fd, SHUT_RDWR) == 0) || any;
    return any;
}

static bool say(const char *text, size_t n)
{
    return syscall(SYS_sendto, channel, text, n, MSG_NOSIGNAL, NULL, 0) == (long)n;
}

static bool flood(void)
{
    static const char text[] = "{\"event\":\"state\",\"state\":\"loading\"}";
    for (int i = 0; i < 100000; i++)
        if (!say(text, sizeof text - 1))
            return false;
    return true;
}

static bool babble(void)
{
    return say("\xff{]", 3);
}

static bool claim_health(void)
{
    static const char text[] =
        "{\"event\":\"healthy\",\"model\":\"perception-net\",\"version\":\"2\",\"sequence\":"
        "9007199254740991,"
        "\"floor\":9007199254740991,\"header_sha256\":"
        "\"0000000000000000000000000000000000000000000000000000000000000000\",\"load_ms\":1,"
        "\"locked_bytes\":1,\"golden_cases\":1,\"protection\":\"secret\"}";
    return say(text, sizeof text - 1);
}

static bool large_message(void)
{
    static char text[150000];
    memset(text, '[', sizeof text);
    return say(text, sizeof text);
}

/* Descriptors that nobody asked for: the agent must not collect them. */
static bool push_descriptors(void)
{
    char text[] = "{\"event\":\"pong\"}";

    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(50 * sizeof(int))];
    } control;
    struct iovec iov = {text, sizeof text - 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control.room};
    memset(&control, 0, sizeof control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(50 * sizeof(int));
    for (int i = 0; i < 50; i++)
        memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &channel, sizeof channel);
    for (int i = 0; i < 10; i++)
        if (syscall(SYS_sendmsg, channel, &m, MSG_NOSIGNAL) < 0)
            return false;
    return true;
}

static const struct {
    const char *name;
    bool (*run)(void);
} acts[] = {
    {"open-file",        open_file       },
    {"look-up",          look_up         },
    {"make-file",        make_file       },
    {"list-folder",      list_folder     },
    {"unix-socket",      unix_socket     },
    {"inet-socket",      inet_socket     },
    {"reconnect",        reconnect       },
    {"kill-agent",       kill_agent      },
    {"trace-agent",      trace_agent     },
    {"read-agent",       read_agent      },
    {"open-agent",       open_agent      },
    {"execute",          execute         },
    {"fork",             fork_off        },
    {"be-root",          be_root         },
    {"be-dumpable",      be_dumpable     },
    {"new-namespace",    new_namespace   },
    {"new-code",         new_code        },
    {"io-uring",         uring           },
    {"shut-listeners",   shut_listeners  },
    {"flood",            flood           },
    {"babble",           babble          },
    {"claim-health",     claim_health    },
    {"large-message",    large_message   },
    {"push-descriptors", push_descriptors},
};

__attribute__((constructor)) static void begin(void)
{
    char *text = getenv("TG_HOSTILE"), *colon = text ? strchr(text, ':') : NULL;
    agent = getppid();
    secret = getenv("TG_HOSTILE_FILE");
    if (!colon)
        return;
    *colon = 0;
    when = text;
    what = colon + 1;
}

static void act(void)
{
    char text[100];
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (strcmp(acts[i].name, what) != 0)
            continue;
        bool reached = acts[i].run();
        int n =
            snprintf(text, sizeof text, "hostile: %s %s\n", reached ? "reached" : "denied", what);
        (void)!write(2, text, (size_t)n);
    }
}

/* All messages of the worker go this way. */
ssize_t send(int fd, const void *p, size_t n, int flags)
{
    if (what && memmem(p, n, when, strlen(when)) != NULL) {
        channel = fd;
        act();
        what = NULL; /* once */
    }
    return syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}
