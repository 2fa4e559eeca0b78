/* SHA-256 (FIPS 180-4), HMAC-SHA256 (FIPS 198-1), HKDF-SHA256 (RFC 5869). */
#ifndef TG_CRYPTO_HASH_H
#define TG_CRYPTO_HASH_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_SHA256_LEN 32
#define TG_HKDF_MAX (255 * TG_SHA256_LEN)

/* One shot. @retval TG_E_NOMEM  @retval TG_E_INTERNAL */
TG_RC tg_sha256(struct tg_bytes in, uint8_t out[TG_SHA256_LEN]);

/* Incremental, and reusable: after _final the object hashes the next message. One thread at a time.
 */
struct tg_sha256_ctx;
TG_RC tg_sha256_new(struct tg_sha256_ctx **out);
TG_RC tg_sha256_update(struct tg_sha256_ctx *h, struct tg_bytes in);
TG_RC tg_sha256_final(struct tg_sha256_ctx *h, uint8_t out[TG_SHA256_LEN]);
/* Forget what was begun. */
TG_RC tg_sha256_restart(struct tg_sha256_ctx *h);
void tg_sha256_free(struct tg_sha256_ctx *h);
TG_DEFINE_AUTO(struct tg_sha256_ctx, tg_sha256_freep, tg_sha256_free);

/* key may be empty. */
TG_RC tg_hmac_sha256(struct tg_bytes key, struct tg_bytes data, uint8_t out[TG_SHA256_LEN]);

/* Extract and expand; an empty salt is the RFC's default (32 zero bytes). n is 1..TG_HKDF_MAX.
 * out is wiped on failure. @retval TG_E_LIMIT n */
TG_RC tg_hkdf_sha256(struct tg_bytes ikm, struct tg_bytes salt, struct tg_bytes info, uint8_t *out,
                     size_t n);

#endif
