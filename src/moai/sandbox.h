/* What the worker gives up, step by step, before it touches a package's bytes:
 *
 *     tg_sandbox_close_fds   every descriptor it was not told about
 *     tg_sandbox_begin       no core dumps, not dumpable (ptrace, /proc/PID/mem), no new privileges
 *     tg_sandbox_drop_user   groups, user, capabilities
 *     tg_sandbox_leave_network   the network, where it may
 *     tg_sandbox_limits      descriptors, threads, addresses
 *     tg_sandbox_landlock    files
 *     tg_sandbox_enter       a seccomp allow-list; anything else kills the process. First the list
 * for loading, later the shorter one for serving, on top of it
 *
 * On neither list: opening files, making sockets, connecting, executing, forking, ptrace, mapping
 * executable memory. The table of calls is in sandbox_seccomp.c. */
#ifndef TG_MOAI_SANDBOX_H
#define TG_MOAI_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Is this a build with AddressSanitizer? (gcc and clang say it in different ways.) */
#if defined(__SANITIZE_ADDRESS__)
#define TG_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TG_SANITIZED 1
#endif
#endif

/* Close every descriptor but 0, 1, 2 and the n in keep. */
TG_RC tg_sandbox_close_fds(const int *keep, size_t n, struct tg_err *err);

/* Core size limit 0, dumpable 0, no_new_privs, and as much RLIMIT_MEMLOCK as may be had. */
TG_RC tg_sandbox_begin(struct tg_err *err);

/* The last of these alone: before the heap is made. */
TG_RC tg_sandbox_raise_memlock(struct tg_err *err);

/* To be called before any thread is made. Become `user` (NULL: stay who we are) and give up every
 * capability, except CAP_IPC_LOCK where RLIMIT_MEMLOCK could not be raised without it. The C
 * library and NSS may read files: before _enter.
 * @retval TG_E_NOTFOUND no such user
 * @retval TG_E_DENIED   only root can change users; or `user` is root
 * @retval TG_E_IO       a step failed: never continued as someone else */
TG_RC tg_sandbox_drop_user(const char *user, struct tg_err *err);

/* Lock what lies outside the protected region too (data of libraries, the first stack), as it comes
 * into use. Only where there is no limit on locked memory: elsewhere growing memory would fail.
 * Returns whether it is so. */
bool tg_sandbox_lock_all(void);

/* A network namespace of its own, with nothing in it: inherited sockets go on, no other can reach
 * anything. Needs root; before threads are made. false: it could not (seccomp still forbids every
 * socket). */
bool tg_sandbox_leave_network(void);

#define TG_SANDBOX_THREADS_MAX 4096
#define TG_SANDBOX_MORE_MEMORY (UINT64_C(4) << 30) /* rings that clients hand over are mapped */

/* Limits on descriptors, threads and addresses (what is in use, the protected region's reserve
 * included, and TG_SANDBOX_MORE_MEMORY): so also on memory of its own, by what was reserved. Never
 * above what is set already. Reads /proc. */
TG_RC tg_sandbox_limits(size_t descriptors, struct tg_err *err);

/* Landlock without a single right: no file can be opened, made or removed by this thread and those
 * that it makes, no TCP port bound or connected to, no process outside signalled. Nothing where the
 * kernel has no Landlock. @retval TG_E_UNSUPPORTED it has, and refuses */
TG_RC tg_sandbox_landlock(struct tg_err *err);
int tg_sandbox_landlock_version(void); /* 0: none */

enum tg_sandbox_phase {
    TG_SANDBOX_LOAD = 1,  /* read descriptors, make threads and locked memory */
    TG_SANDBOX_SERVE = 2, /* accept, read, write, compute */
    /* As LOAD, and a path may be opened to be written anew: only inside Landlock, so that
     * it leads to descriptors of this process alone (/proc/self/fd/N of a pipe). */
    TG_SANDBOX_LOAD_BAKE = 5,
    /* As SERVE, and descriptors may be read at an offset: where files are handed over. */
    TG_SANDBOX_SERVE_FILES = 10
};

/* For all threads of the process. There is no way back.
 * @retval TG_E_UNSUPPORTED this kernel has no seccomp filters */
TG_RC tg_sandbox_enter(enum tg_sandbox_phase phase, struct tg_err *err);
/* false in builds with a sanitizer, whose own calls are on no list: _enter then does nothing. */
bool tg_sandbox_is_real(void);

#endif
