/* SHA-256 (FIPS 180-4) of many short messages side by side: in vector lanes or interleaved SHA
 * instructions through libipsec-mb where the build and the processor have them, one after the other
 * through libcrypto elsewhere. The digests are the same. For public data only: libipsec-mb is not
 * asked to hide what it hashes. */
#ifndef TG_CRYPTO_SHA256_MANY_H
#define TG_CRYPTO_SHA256_MANY_H

#include <stddef.h>

#include "crypto/hash.h"

/* Longer messages (and empty ones) are hashed one at a time. */
#define TG_SHA256_MANY_LEN (UINT32_C(32) << 10)

/* Ways besides libcrypto, which is always there; a set of them is their sum. */
enum tg_sha256_way {
    TG_SHA256_WIDE = 1, /* 16 lanes of AVX-512, or 8 of AVX2 where there are no SHA instructions */
    TG_SHA256_NARROW = 2, /* two messages interleaved, with the SHA instructions */
    TG_SHA256_ANY = 3
};

/* One thread at a time. */
struct tg_sha256_many;
/* Use only these ways, of those there are; 0: libcrypto alone. @retval TG_E_NOMEM */
TG_RC tg_sha256_many_new(unsigned ways, struct tg_sha256_many **out);
void tg_sha256_many_free(struct tg_sha256_many *h);
TG_DEFINE_AUTO(struct tg_sha256_many, tg_sha256_many_freep, tg_sha256_many_free);
/* The ways this processor and build have, of those asked for. */
unsigned tg_sha256_many_ways(const struct tg_sha256_many *h);
/* How n messages of equal length would be hashed, for people: "libipsec-mb, 16 lanes". */
const char *tg_sha256_many_how(const struct tg_sha256_many *h, size_t n);

/* out[i] = SHA-256(in[i]) for i < n; messages may overlap each other, not out.
 * @retval TG_E_NOMEM  @retval TG_E_INTERNAL */
TG_RC tg_sha256_many(struct tg_sha256_many *h, const struct tg_bytes *in, size_t n,
                     uint8_t (*out)[TG_SHA256_LEN]);

#endif
