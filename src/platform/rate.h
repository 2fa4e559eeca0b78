/* Token buckets: how often one caller may ask. Fixed memory; the stalest bucket makes room.
 * Thread-safe. */
#ifndef TG_PLATFORM_RATE_H
#define TG_PLATFORM_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tg_rate;

struct tg_rate_limit {
    uint32_t per_s;
    uint32_t burst;
};

TG_RC tg_rate_new(struct tg_rate **out);
void tg_rate_free(struct tg_rate *r);
/* Take one from who's bucket at now_ns (monotonic). true: go on; false: *retry_s is when to come
 * back. */
bool tg_rate_take(struct tg_rate *r, const char *who, const struct tg_rate_limit *limit,
                  uint64_t now_ns, uint32_t *retry_s);

#endif
