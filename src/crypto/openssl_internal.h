/* What the .c files of this folder share: OpenSSL objects with cleanups, and the keys' insides. */
#ifndef TG_CRYPTO_OPENSSL_INTERNAL_H
#define TG_CRYPTO_OPENSSL_INTERNAL_H

#include <openssl/err.h>
#include <openssl/evp.h>

#include "base/macros.h"
#include "crypto/kem.h"
#include "crypto/sign.h"

TG_DEFINE_AUTO(EVP_PKEY, tg_evp_pkey_freep, EVP_PKEY_free);
TG_DEFINE_AUTO(EVP_PKEY_CTX, tg_evp_pkey_ctx_freep, EVP_PKEY_CTX_free);
TG_DEFINE_AUTO(EVP_MD_CTX, tg_evp_md_ctx_freep, EVP_MD_CTX_free);

/* OpenSSL's error queue belongs to the thread, and TLS code reads it: what fails here must leave
 * nothing in it.    TG_QUIET_OPENSSL;    at the top of a function. */
static inline void tg_ossl_mark_pop(const int *mark)
{
    (void)mark; /* 0 when the queue was empty; popping then clears it, which is what is wanted */
    ERR_pop_to_mark();
}

#define TG_QUIET_OPENSSL                                                                           \
    TG_AUTO(tg_ossl_mark_pop) __attribute__((unused)) const int ossl_mark_ = ERR_set_mark()

/* Why did OpenSSL fail? TG_E_NOMEM where its queue tells of a failed allocation at either end, else
 * `otherwise`: a verdict on the input (FORMAT, AUTH) only where an input can make this call fail;
 * TG_E_INTERNAL everywhere else. (Its decoders forget why they failed: what can do without them
 * does.) */
static inline enum tg_rc tg_ossl_rc(enum tg_rc otherwise)
{
    bool nomem = ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE ||
                 ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
    return nomem ? TG_E_NOMEM : otherwise;
}

struct tg_kem_pk {
    EVP_PKEY *x25519, *mlkem;
    uint8_t raw[TG_KEM_PK_LEN];
    uint8_t id[TG_KEM_ID_LEN];
};

struct tg_kem_sk {
    EVP_PKEY *x25519, *mlkem;
    struct tg_kem_pk *pk;
};

struct tg_sign_pk {
    EVP_PKEY *ed25519, *mldsa;
    uint8_t raw[TG_SIGN_PK_LEN];
    uint8_t id[TG_SIGN_ID_LEN];
};

struct tg_sign_sk {
    EVP_PKEY *ed25519, *mldsa;
    struct tg_sign_pk *pk;
};

/* Take ownership of two private keys of the right types (freed on failure too). */
TG_RC tg_kem_sk_from_evp(EVP_PKEY *x25519, EVP_PKEY *mlkem, struct tg_kem_sk **out);
TG_RC tg_sign_sk_from_evp(EVP_PKEY *ed25519, EVP_PKEY *mldsa, struct tg_sign_sk **out);

/* An ML-KEM or ML-DSA pair from its seed. NULL: failed. */
EVP_PKEY *tg_evp_from_seed(const char *type, const uint8_t *seed, size_t n);
/* A public key of the right length from its raw bytes. @retval TG_E_FORMAT they are none (of the
 * four types that we use only ML-KEM-768 can tell at this point) */
TG_RC tg_evp_public(const char *type, struct tg_bytes raw, EVP_PKEY **out);
/* The raw public half, exactly n bytes. */
TG_RC tg_evp_raw_public(const EVP_PKEY *key, uint8_t *out, size_t n);
/* The halves by themselves: published vectors test each alone.
 * RFC 7748 §6.1 with the all-zero check. @retval TG_E_AUTH the peer's key gives no secret */
TG_RC tg_x25519_shared(EVP_PKEY *own, EVP_PKEY *peer, uint8_t ss[32]);
/* FIPS 203 Algorithms 17 (with m given) and 21. */
TG_RC tg_mlkem_encap(EVP_PKEY *pk, const uint8_t m[32], uint8_t ct[TG_KEM_CT_LEN], uint8_t ss[32]);
TG_RC tg_mlkem_decap(EVP_PKEY *sk, const uint8_t ct[TG_KEM_CT_LEN], uint8_t ss[32]);

/* One half of a hybrid signature: Ed25519 (no context) or ML-DSA-65 (with one). */
struct tg_sig_half {
    EVP_PKEY *key;
    const struct tg_bytes *context; /* NULL: none */
    bool deterministic;             /* ML-DSA without hedging */
};

bool tg_sig_half_sign(const struct tg_sig_half *h, struct tg_bytes msg, uint8_t *sig, size_t n);
/* @retval TG_E_AUTH wrong; any other failure: it could not be computed, and nothing is known */
TG_RC tg_sig_half_verify(const struct tg_sig_half *h, struct tg_bytes msg, struct tg_bytes sig);

/* First 16 bytes of SHA-256(label || raw). */
TG_RC tg_key_id(const char *label, struct tg_bytes raw, uint8_t out[16]);

#endif
