/* Multi-buffer SHA-256: mb_ipsec.c over libipsec-mb, mb_none.c where the build has none. */
#ifndef TG_CRYPTO_MB_INTERNAL_H
#define TG_CRYPTO_MB_INTERNAL_H

#include "crypto/sha256_many.h"

/* Most messages of one call. */
#define TG_MB_BATCH 32

struct tg_mb;
/* Messages side by side by this way; 0: this processor or build has it not. */
unsigned tg_mb_lanes(enum tg_sha256_way way);
/* @retval TG_E_NOMEM  @retval TG_E_UNSUPPORTED */
TG_RC tg_mb_new(enum tg_sha256_way way, struct tg_mb **out);
void tg_mb_free(struct tg_mb *mb);
/* n <= TG_MB_BATCH messages of 1 to TG_SHA256_MANY_LEN bytes; out[i] is where digest i goes. */
TG_RC tg_mb_hash(struct tg_mb *mb, const struct tg_bytes *in, size_t n, uint8_t *const out[]);

#endif
