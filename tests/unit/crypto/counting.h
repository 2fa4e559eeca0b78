/* "Random" bytes that are known: the next ones of a count that ctx, a uint8_t, goes on with. */
#ifndef TG_TESTS_CRYPTO_COUNTING_H
#define TG_TESTS_CRYPTO_COUNTING_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

static inline enum tg_rc counting(void *ctx, uint8_t *out, size_t n)
{
    uint8_t *next = ctx;
    for (size_t i = 0; i < n; i++)
        out[i] = (*next)++;
    return TG_OK;
}

#endif
