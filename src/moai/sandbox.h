/* What the worker gives up, step by step, before it touches a package's bytes:
 *
 *     tg_sandbox_close_fds   every descriptor it was not told about
 *     tg_sandbox_begin       no core dumps, not dumpable (ptrace, /proc/PID/mem), no new privileges
 *     tg_sandbox_drop_user   groups, user, capabilities
 *     tg_sandbox_enter       a seccomp allow-list; anything else kills the process. First the list
 * for loading, later the shorter one for serving, on top of it
 *
 * On neither list: opening files, making sockets, connecting, executing, forking, ptrace, mapping
 * executable memory. The table of calls is in sandbox_seccomp.c. */
#ifndef TG_MOAI_SANDBOX_H
#define TG_MOAI_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

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

enum tg_sandbox_phase {
    TG_SANDBOX_LOAD = 1, /* read descriptors, make threads and locked memory */
    TG_SANDBOX_SERVE = 2 /* accept, read, write, compute */
};

/* For all threads of the process. There is no way back.
 * @retval TG_E_UNSUPPORTED this kernel has no seccomp filters */
TG_RC tg_sandbox_enter(enum tg_sandbox_phase phase, struct tg_err *err);
/* false in builds with a sanitizer, whose own calls are on no list: _enter then does nothing. */
bool tg_sandbox_is_real(void);

#endif
