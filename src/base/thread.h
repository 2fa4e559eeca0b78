/* Run independent pieces of work on several threads. */
#ifndef TG_BASE_THREAD_H
#define TG_BASE_THREAD_H

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

#endif
