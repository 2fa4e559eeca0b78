/* Run independent pieces of work on several threads. */
#ifndef TG_BASE_THREAD_H
#define TG_BASE_THREAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Work item i of n; `worker` is 0..threads-1 and selects per-thread scratch.
 * Returning anything but TG_OK stops the others soon. */
typedef enum tg_rc tg_work_fn(void *ctx, uint64_t i, unsigned worker, struct tg_err *err);

/* Number of processors this process may use (affinity respected), at least 1. */
unsigned tg_thread_cpus(void);

/* Run fn for i = 0..n-1 on up to `threads` threads (the caller's is one). Items are handed out in
 * ascending order. The failure with the lowest i is returned, so results do not depend on timing.
 */
TG_RC tg_thread_run(unsigned threads, uint64_t n, tg_work_fn *fn, void *ctx, struct tg_err *err);

/* One thread. Where the process has a protected region (base/region.h) its stack, and with it its
 * thread-local memory, lies there, below it a page that nothing may touch; wiped when it ends. */
struct tg_thread;

#define TG_THREAD_STACK ((size_t)1 << 20)
#define TG_THREAD_STACK_LARGE ((size_t)8 << 20)

/* Start fn(arg) on a stack of `stack` bytes. *out is for tg_thread_join.
 * @retval TG_E_NOMEM no memory, or the system refuses another thread */
TG_RC tg_thread_start(void (*fn)(void *arg), void *arg, size_t stack, struct tg_thread **out,
                      struct tg_err *err);
/* Wait for its end and release it. NULL is fine. */
void tg_thread_join(struct tg_thread *t);

#endif
