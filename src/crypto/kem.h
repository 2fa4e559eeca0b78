/* Hybrid KEM x25519-ml-kem-768 (docs/spec/tgsp-1.0.md §5; RFC 7748, FIPS 203).
 *
 * A public key is x25519 (32) || ml-kem-768 ek (1184). Encapsulation gives an X25519 share, an
 * ML-KEM ciphertext and ss = SHA-256(ss_x || ss_m). The caller binds ciphertexts and keys in its
 * KDF. Failures are silent and uniform. */
#ifndef TG_CRYPTO_KEM_H
#define TG_CRYPTO_KEM_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/random.h"

#define TG_KEM_X25519_LEN 32
#define TG_KEM_MLKEM_PK_LEN 1184
#define TG_KEM_PK_LEN (TG_KEM_X25519_LEN + TG_KEM_MLKEM_PK_LEN) /* 1216 */
#define TG_KEM_CT_LEN 1088
#define TG_KEM_SS_LEN 32
#define TG_KEM_ID_LEN 16
#define TG_KEM_SEED_LEN (TG_KEM_X25519_LEN + 64) /* x25519 scalar || ML-KEM d || z */

struct tg_kem_pk;
struct tg_kem_sk;

struct tg_kem_ct {
    uint8_t epk[TG_KEM_X25519_LEN];
    uint8_t ct[TG_KEM_CT_LEN];
};

/* From raw bytes. @retval TG_E_FORMAT wrong length, or the FIPS 203 §7.2 check fails */
TG_RC tg_kem_pk_new(struct tg_bytes raw, struct tg_kem_pk **out);
void tg_kem_pk_free(struct tg_kem_pk *pk);
TG_DEFINE_AUTO(struct tg_kem_pk, tg_kem_pk_freep, tg_kem_pk_free);
/* TG_KEM_PK_LEN bytes, borrowed. */
struct tg_bytes tg_kem_pk_raw(const struct tg_kem_pk *pk);
/* TG_KEM_ID_LEN bytes, borrowed: first 16 of SHA-256("TGSP-1.0 kem key" || raw). */
const uint8_t *tg_kem_pk_id(const struct tg_kem_pk *pk);

/* A fresh pair. rng NULL: the system's. */
TG_RC tg_kem_sk_generate(const struct tg_rng *rng, struct tg_kem_sk **out);
/* From x25519 scalar (32) || ML-KEM seed d || z (64). seed.n is TG_KEM_SEED_LEN. */
TG_RC tg_kem_sk_from_seed(struct tg_bytes seed, struct tg_kem_sk **out);
void tg_kem_sk_free(struct tg_kem_sk *sk); /* wipes */
TG_DEFINE_AUTO(struct tg_kem_sk, tg_kem_sk_freep, tg_kem_sk_free);
/* Its public half, borrowed from sk. */
const struct tg_kem_pk *tg_kem_sk_pk(const struct tg_kem_sk *sk);

/* rng NULL: fresh. With an rng it is deterministic: 32 bytes for the ephemeral X25519 scalar, then
 * 32 for ML-KEM's m are drawn from it. ss is wiped on failure.
 * @retval TG_E_AUTH the X25519 secret is all zero (a low-order public key) */
TG_RC tg_kem_encap(const struct tg_kem_pk *pk, const struct tg_rng *rng, struct tg_kem_ct *ct,
                   uint8_t ss[TG_KEM_SS_LEN]);

/* An altered ML-KEM ciphertext gives another ss (implicit rejection): the AEAD or commitment after
 * it refuses. ss is wiped on failure. @retval TG_E_AUTH low-order share */
TG_RC tg_kem_decap(const struct tg_kem_sk *sk, const struct tg_kem_ct *ct,
                   uint8_t ss[TG_KEM_SS_LEN]);

/* A key of the device's own for another purpose: HKDF-SHA256 over the private key (x25519 scalar ||
 * ML-KEM seed) with `info` as its purpose and no salt. Only who holds sk can make it. out is wiped
 * on failure. @retval TG_E_UNSUPPORTED the ML-KEM half was loaded without its seed */
TG_RC tg_kem_sk_derive(const struct tg_kem_sk *sk, struct tg_bytes info, uint8_t out[32]);

#endif
