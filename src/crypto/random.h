/* Randomness. Code that needs random bytes takes a `const struct tg_rng *`; NULL is the system's
 * generator. Tests and fixed vectors hand in their own. */
#ifndef TG_CRYPTO_RANDOM_H
#define TG_CRYPTO_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tg_rng {
    enum tg_rc (*fill)(void *ctx, uint8_t *out, size_t n);
    void *ctx;
};

/* Fill out with n bytes from rng (NULL: RAND_priv_bytes). out is wiped on failure.
 * @retval TG_E_INTERNAL the generator failed (never weaker bytes) */
TG_RC tg_rng_fill(const struct tg_rng *rng, void *out, size_t n);

/* The system's generator: the same with rng NULL. */
TG_RC tg_random(void *out, size_t n);

#endif
