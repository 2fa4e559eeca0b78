#include "crypto/kem.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/hash.h"
#include "crypto/openssl_internal.h"

#define SEED_MLKEM 64

static const char kem_label[] = "TGSP-1.0 kem key";

enum tg_rc tg_kem_pk_new(struct tg_bytes raw, struct tg_kem_pk **out)
{
    TG_QUIET_OPENSSL;
    if (raw.n != TG_KEM_PK_LEN)
        return TG_E_FORMAT;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = tg_calloc(1, sizeof *pk);
    if (!pk)
        return TG_E_NOMEM;
    memcpy(pk->raw, raw.p, TG_KEM_PK_LEN);
    TG_TRY(tg_evp_public("X25519", tg_bytes_sub(raw, 0, TG_KEM_X25519_LEN), &pk->x25519));
    /* OpenSSL makes FIPS 203's encapsulation key check (§7.2) here; a test holds it to that. */
    TG_TRY(tg_evp_public("ML-KEM-768", tg_bytes_sub(raw, TG_KEM_X25519_LEN, TG_KEM_MLKEM_PK_LEN),
                         &pk->mlkem));
    TG_TRY(tg_key_id(kem_label, raw, pk->id));
    *out = tg_steal(&pk);
    return TG_OK;
}

void tg_kem_pk_free(struct tg_kem_pk *pk)
{
    if (!pk)
        return;
    EVP_PKEY_free(pk->x25519);
    EVP_PKEY_free(pk->mlkem);
    tg_free(pk);
}

struct tg_bytes tg_kem_pk_raw(const struct tg_kem_pk *pk)
{
    return TG_BYTES_OF(pk->raw);
}

const uint8_t *tg_kem_pk_id(const struct tg_kem_pk *pk)
{
    return pk->id;
}

enum tg_rc tg_kem_sk_from_evp(EVP_PKEY *x25519, EVP_PKEY *mlkem, struct tg_kem_sk **out)
{
    uint8_t raw[TG_KEM_PK_LEN];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = tg_calloc(1, sizeof *sk);
    if (!sk) {
        EVP_PKEY_free(x25519);
        EVP_PKEY_free(mlkem);
        return TG_E_NOMEM;
    }
    sk->x25519 = x25519;
    sk->mlkem = mlkem;
    TG_TRY(tg_evp_raw_public(x25519, raw, TG_KEM_X25519_LEN));
    TG_TRY(tg_evp_raw_public(mlkem, raw + TG_KEM_X25519_LEN, TG_KEM_MLKEM_PK_LEN));
    TG_TRY(tg_kem_pk_new(TG_BYTES_OF(raw), &sk->pk));
    *out = tg_steal(&sk);
    return TG_OK;
}

enum tg_rc tg_kem_sk_from_seed(struct tg_bytes seed, struct tg_kem_sk **out)
{
    TG_QUIET_OPENSSL;
    if (seed.n != TG_KEM_SEED_LEN)
        return TG_E_FORMAT;
    EVP_PKEY *x = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, seed.p, TG_KEM_X25519_LEN);
    EVP_PKEY *m = tg_evp_from_seed("ML-KEM-768", seed.p + TG_KEM_X25519_LEN, SEED_MLKEM);
    if (!x || !m) {
        EVP_PKEY_free(x);
        EVP_PKEY_free(m);
        return tg_ossl_rc(TG_E_INTERNAL);
    }
    return tg_kem_sk_from_evp(x, m, out);
}

enum tg_rc tg_kem_sk_generate(const struct tg_rng *rng, struct tg_kem_sk **out)
{
    uint8_t seed[TG_KEM_SEED_LEN];
    TG_TRY(tg_rng_fill(rng, seed, sizeof seed));
    enum tg_rc rc = tg_kem_sk_from_seed(TG_BYTES_OF(seed), out);
    tg_wipe(seed, sizeof seed);
    return rc;
}

void tg_kem_sk_free(struct tg_kem_sk *sk)
{
    if (!sk)
        return;
    EVP_PKEY_free(sk->x25519); /* OpenSSL cleanses private parts */
    EVP_PKEY_free(sk->mlkem);
    tg_kem_pk_free(sk->pk);
    tg_free(sk);
}

const struct tg_kem_pk *tg_kem_sk_pk(const struct tg_kem_sk *sk)
{
    return sk->pk;
}

/* RFC 7748 §6.1 with the all-zero check. Deriving fails for a peer's key of small order. */
enum tg_rc tg_x25519_shared(EVP_PKEY *own, EVP_PKEY *peer, uint8_t ss[32])
{
    static const uint8_t zero[32];
    size_t n = 32;
    TG_AUTO(tg_evp_pkey_ctx_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    if (!ctx)
        return TG_E_NOMEM;
    if (EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, peer) != 1)
        return TG_E_NOMEM; /* both keys are there, and with them the algorithm */
    if (EVP_PKEY_derive(ctx, ss, &n) != 1 || n != 32 || tg_ct_eq(ss, zero, 32))
        return tg_ossl_rc(TG_E_AUTH);
    return TG_OK;
}

enum tg_rc tg_mlkem_encap(EVP_PKEY *pk, const uint8_t m[32], uint8_t ct[TG_KEM_CT_LEN],
                          uint8_t ss[32])
{
    size_t ct_n = TG_KEM_CT_LEN, ss_n = 32;
    TG_AUTO(tg_evp_pkey_ctx_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pk, NULL);
    if (!ctx)
        return TG_E_NOMEM;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_KEM_PARAM_IKME, (void *)(uintptr_t)m, 32),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_PKEY_encapsulate_init(ctx, params) != 1)
        return TG_E_NOMEM;
    if (EVP_PKEY_encapsulate(ctx, ct, &ct_n, ss, &ss_n) != 1 || ct_n != TG_KEM_CT_LEN || ss_n != 32)
        return tg_ossl_rc(TG_E_INTERNAL);
    return TG_OK;
}

enum tg_rc tg_mlkem_decap(EVP_PKEY *sk, const uint8_t ct[TG_KEM_CT_LEN], uint8_t ss[32])
{
    size_t n = 32;
    TG_AUTO(tg_evp_pkey_ctx_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, sk, NULL);
    if (!ctx)
        return TG_E_NOMEM;
    if (EVP_PKEY_decapsulate_init(ctx, NULL) != 1)
        return TG_E_NOMEM; /* the key is there, and with it the algorithm */
    if (EVP_PKEY_decapsulate(ctx, ss, &n, ct, TG_KEM_CT_LEN) != 1 || n != 32)
        return tg_ossl_rc(TG_E_INTERNAL); /* a wrong ciphertext gives a secret too */
    return TG_OK;
}

/* The parts of an encapsulation before they are put together. both = ss_x || ss_m. */
struct encap {
    uint8_t coins[64]; /* X25519 scalar || ML-KEM m */
    uint8_t both[64];
};

static enum tg_rc encap_parts(const struct tg_kem_pk *pk, const struct tg_rng *rng, struct encap *e,
                              struct tg_kem_ct *ct)
{
    TG_TRY(tg_rng_fill(rng, e->coins, sizeof e->coins));
    TG_AUTO(tg_evp_pkey_freep)
    EVP_PKEY *eph = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, e->coins, 32);
    if (!eph)
        return tg_ossl_rc(TG_E_INTERNAL);
    TG_TRY(tg_evp_raw_public(eph, ct->epk, TG_KEM_X25519_LEN));
    TG_TRY(tg_x25519_shared(eph, pk->x25519, e->both));
    return tg_mlkem_encap(pk->mlkem, e->coins + 32, ct->ct, e->both + 32);
}

enum tg_rc tg_kem_encap(const struct tg_kem_pk *pk, const struct tg_rng *rng, struct tg_kem_ct *ct,
                        uint8_t ss[TG_KEM_SS_LEN])
{
    TG_QUIET_OPENSSL;
    struct encap e;
    struct tg_kem_ct made;
    enum tg_rc rc = encap_parts(pk, rng, &e, &made);
    if (rc == TG_OK)
        rc = tg_sha256(TG_BYTES_OF(e.both), ss);
    tg_wipe(&e, sizeof e);
    if (rc == TG_OK)
        *ct = made;
    else
        tg_wipe(ss, TG_KEM_SS_LEN);
    return rc;
}

enum tg_rc tg_kem_decap(const struct tg_kem_sk *sk, const struct tg_kem_ct *ct,
                        uint8_t ss[TG_KEM_SS_LEN])
{
    TG_QUIET_OPENSSL;
    uint8_t both[64];
    TG_AUTO(tg_evp_pkey_freep)
    EVP_PKEY *peer = NULL;
    enum tg_rc rc = tg_evp_public("X25519", TG_BYTES_OF(ct->epk), &peer);
    if (rc == TG_OK)
        rc = tg_x25519_shared(sk->x25519, peer, both);
    if (rc == TG_OK)
        rc = tg_mlkem_decap(sk->mlkem, ct->ct, both + 32);
    if (rc == TG_OK)
        rc = tg_sha256(TG_BYTES_OF(both), ss);
    tg_wipe(both, sizeof both);
    if (rc != TG_OK)
        tg_wipe(ss, TG_KEM_SS_LEN);
    return rc;
}

/* ---- other keys from the private key ---- */

static enum tg_rc own_seed(const struct tg_kem_sk *sk, uint8_t seed[TG_KEM_SEED_LEN])
{
    size_t n = TG_KEM_X25519_LEN;
    if (EVP_PKEY_get_raw_private_key(sk->x25519, seed, &n) != 1 || n != TG_KEM_X25519_LEN)
        return TG_E_INTERNAL;
    n = 0;
    if (EVP_PKEY_get_octet_string_param(sk->mlkem, OSSL_PKEY_PARAM_ML_KEM_SEED,
                                        seed + TG_KEM_X25519_LEN, SEED_MLKEM, &n) != 1 ||
        n != SEED_MLKEM)
        return TG_E_UNSUPPORTED;
    return TG_OK;
}

enum tg_rc tg_kem_sk_derive(const struct tg_kem_sk *sk, struct tg_bytes info, uint8_t out[32])
{
    TG_QUIET_OPENSSL;
    uint8_t seed[TG_KEM_SEED_LEN];
    enum tg_rc rc = own_seed(sk, seed);
    if (rc == TG_OK)
        rc = tg_hkdf_sha256(TG_BYTES_OF(seed), TG_BYTES_NONE, info, out, 32);
    tg_wipe(seed, sizeof seed);
    if (rc != TG_OK)
        tg_wipe(out, 32);
    return rc;
}
