/* Hybrid signatures ed25519-ml-dsa-65 (docs/spec/tgsp-1.0.md §6; RFC 8032, FIPS 204).
 *
 * A public key is ed25519 (32) || ml-dsa-65 (1952). A signature is both halves, and valid only if
 * both are. ML-DSA is pure, with context "TGSP-1.0". Messages begin with a label ending in 00: the
 * callers in tgsp/ make them. Failures are silent and uniform. */
#ifndef TG_CRYPTO_SIGN_H
#define TG_CRYPTO_SIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/random.h"

#define TG_SIGN_ED25519_LEN 32
#define TG_SIGN_MLDSA_PK_LEN 1952
#define TG_SIGN_PK_LEN (TG_SIGN_ED25519_LEN + TG_SIGN_MLDSA_PK_LEN) /* 1984 */
#define TG_SIG_CLASSIC_LEN 64
#define TG_SIG_PQC_LEN 3309
#define TG_SIGN_ID_LEN 16
#define TG_SIGN_SEED_LEN 64 /* ed25519 seed (32) || ML-DSA xi (32) */

struct tg_sign_pk;
struct tg_sign_sk;

struct tg_sig {
    uint8_t classic[TG_SIG_CLASSIC_LEN];
    uint8_t pqc[TG_SIG_PQC_LEN];
};

/* From raw bytes. @retval TG_E_FORMAT wrong length, or a small-order, non-canonical or off-curve
 * Ed25519 key */
TG_RC tg_sign_pk_new(struct tg_bytes raw, struct tg_sign_pk **out);
void tg_sign_pk_free(struct tg_sign_pk *pk);
TG_DEFINE_AUTO(struct tg_sign_pk, tg_sign_pk_freep, tg_sign_pk_free);
/* TG_SIGN_PK_LEN bytes, borrowed. */
struct tg_bytes tg_sign_pk_raw(const struct tg_sign_pk *pk);
/* TG_SIGN_ID_LEN bytes, borrowed: first 16 of SHA-256("TGSP-1.0 signing key" || raw). */
const uint8_t *tg_sign_pk_id(const struct tg_sign_pk *pk);

TG_RC tg_sign_sk_generate(const struct tg_rng *rng, struct tg_sign_sk **out);
/* From ed25519 seed (32) || ML-DSA-65 seed xi (32). seed.n is TG_SIGN_SEED_LEN. */
TG_RC tg_sign_sk_from_seed(struct tg_bytes seed, struct tg_sign_sk **out);
void tg_sign_sk_free(struct tg_sign_sk *sk); /* wipes */
TG_DEFINE_AUTO(struct tg_sign_sk, tg_sign_sk_freep, tg_sign_sk_free);
const struct tg_sign_pk *tg_sign_sk_pk(const struct tg_sign_sk *sk);

/* Both halves over msg. ML-DSA is hedged; with `deterministic` set it is FIPS 204's deterministic
 * variant (fixed vectors only). What was made is verified before it is given out: a faulty
 * signature can give the key away, and libcrypto 3.5 makes one when it runs out of memory while it
 * hashes.
 * @retval TG_E_INTERNAL it could not be made, or does not verify  @retval TG_E_NOMEM */
TG_RC tg_sign(const struct tg_sign_sk *sk, struct tg_bytes msg, bool deterministic,
              struct tg_sig *sig);

/* @retval TG_E_AUTH either half is invalid */
TG_RC tg_sign_verify(const struct tg_sign_pk *pk, struct tg_bytes msg, const struct tg_sig *sig);

#endif
