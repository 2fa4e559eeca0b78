#include "crypto/sign.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "crypto/openssl_internal.h"

#define SEED_HALF 32

static const char sign_label[] = "TGSP-1.0 signing key";

/* y of the points of small order on edwards25519, little-endian, without the sign bit. Keys with
 * y >= p are refused before, so non-canonical forms of these need no rows. */
static const uint8_t small_order_y[] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
    0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
    0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
};

static bool y_canonical(const uint8_t y[TG_SIGN_ED25519_LEN])
{
    /* p = 2^255 - 19: y >= p means bytes 1..30 are ff, the top 7f and the lowest >= ed. */
    if (y[0] < 0xed || y[31] != 0x7f)
        return true;
    for (size_t i = 1; i < 31; i++)
        if (y[i] != 0xff)
            return true;
    return false;
}

static bool ed25519_acceptable(const uint8_t raw[TG_SIGN_ED25519_LEN])
{
    uint8_t y[TG_SIGN_ED25519_LEN];
    memcpy(y, raw, sizeof y);
    y[31] &= 0x7f;
    if (!y_canonical(y))
        return false;
    for (size_t i = 0; i < sizeof small_order_y; i += sizeof y)
        if (tg_mem_eq(y, small_order_y + i, sizeof y))
            return false;
    return true;
}

TG_DEFINE_AUTO(BN_CTX, bn_ctx_freep, BN_CTX_free);

/* p = 2^255 - 19 and d = -121665/121666 of RFC 8032 §5.1. */
static const char ed_p[] = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed";
static const char ed_d[] = "52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3";

/* Does y have an x, that is, is (y^2 - 1)(d y^2 + 1) a square mod p (RFC 8032 §5.1.3)? OpenSSL
 * decodes points only when it verifies, so ask here. */
static enum tg_rc on_curve(const uint8_t y_bytes[TG_SIGN_ED25519_LEN])
{
    uint8_t le[TG_SIGN_ED25519_LEN];
    int square = -2; /* it could not be found out */
    TG_AUTO(bn_ctx_freep) BN_CTX *ctx = BN_CTX_new();
    if (!ctx)
        return TG_E_NOMEM;
    BN_CTX_start(ctx);
    BIGNUM *p = BN_CTX_get(ctx), *d = BN_CTX_get(ctx), *u = BN_CTX_get(ctx), *v = BN_CTX_get(ctx);
    memcpy(le, y_bytes, sizeof le);
    le[31] &= 0x7f;
    if (v && BN_hex2bn(&p, ed_p) && BN_hex2bn(&d, ed_d) && BN_lebin2bn(le, sizeof le, u) &&
        BN_mod_sqr(u, u, p, ctx) && BN_mod_mul(v, d, u, p, ctx) && BN_add_word(v, 1) &&
        BN_sub_word(u, 1) && BN_mod_mul(u, u, v, p, ctx))
        square = BN_kronecker(u, p, ctx);
    BN_CTX_end(ctx);
    if (square == 1)
        return TG_OK;
    return square == -2 ? tg_ossl_rc(TG_E_INTERNAL) : TG_E_FORMAT;
}

enum tg_rc tg_sign_pk_new(struct tg_bytes raw, struct tg_sign_pk **out)
{
    TG_QUIET_OPENSSL;
    if (raw.n != TG_SIGN_PK_LEN || !ed25519_acceptable(raw.p))
        return TG_E_FORMAT;
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = tg_calloc(1, sizeof *pk);
    if (!pk)
        return TG_E_NOMEM;
    memcpy(pk->raw, raw.p, TG_SIGN_PK_LEN);
    TG_TRY(tg_evp_public("ED25519", tg_bytes_sub(raw, 0, TG_SIGN_ED25519_LEN), &pk->ed25519));
    TG_TRY(tg_evp_public("ML-DSA-65", tg_bytes_sub(raw, TG_SIGN_ED25519_LEN, TG_SIGN_MLDSA_PK_LEN),
                         &pk->mldsa));
    TG_TRY(on_curve(raw.p));
    TG_TRY(tg_key_id(sign_label, raw, pk->id));
    *out = tg_steal(&pk);
    return TG_OK;
}

void tg_sign_pk_free(struct tg_sign_pk *pk)
{
    if (!pk)
        return;
    EVP_PKEY_free(pk->ed25519);
    EVP_PKEY_free(pk->mldsa);
    tg_free(pk);
}

struct tg_bytes tg_sign_pk_raw(const struct tg_sign_pk *pk)
{
    return TG_BYTES_OF(pk->raw);
}

const uint8_t *tg_sign_pk_id(const struct tg_sign_pk *pk)
{
    return pk->id;
}

enum tg_rc tg_sign_sk_from_evp(EVP_PKEY *ed25519, EVP_PKEY *mldsa, struct tg_sign_sk **out)
{
    uint8_t raw[TG_SIGN_PK_LEN];
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *sk = tg_calloc(1, sizeof *sk);
    if (!sk) {
        EVP_PKEY_free(ed25519);
        EVP_PKEY_free(mldsa);
        return TG_E_NOMEM;
    }
    sk->ed25519 = ed25519;
    sk->mldsa = mldsa;
    TG_TRY(tg_evp_raw_public(ed25519, raw, TG_SIGN_ED25519_LEN));
    TG_TRY(tg_evp_raw_public(mldsa, raw + TG_SIGN_ED25519_LEN, TG_SIGN_MLDSA_PK_LEN));
    TG_TRY(tg_sign_pk_new(TG_BYTES_OF(raw), &sk->pk));
    *out = tg_steal(&sk);
    return TG_OK;
}

enum tg_rc tg_sign_sk_from_seed(struct tg_bytes seed, struct tg_sign_sk **out)
{
    TG_QUIET_OPENSSL;
    if (seed.n != TG_SIGN_SEED_LEN)
        return TG_E_FORMAT;
    EVP_PKEY *e = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed.p, SEED_HALF);
    EVP_PKEY *m = tg_evp_from_seed("ML-DSA-65", seed.p + SEED_HALF, SEED_HALF);
    if (!e || !m) {
        EVP_PKEY_free(e);
        EVP_PKEY_free(m);
        return tg_ossl_rc(TG_E_INTERNAL);
    }
    return tg_sign_sk_from_evp(e, m, out);
}

enum tg_rc tg_sign_sk_generate(const struct tg_rng *rng, struct tg_sign_sk **out)
{
    uint8_t seed[TG_SIGN_SEED_LEN];
    TG_TRY(tg_rng_fill(rng, seed, sizeof seed));
    enum tg_rc rc = tg_sign_sk_from_seed(TG_BYTES_OF(seed), out);
    tg_wipe(seed, sizeof seed);
    return rc;
}

void tg_sign_sk_free(struct tg_sign_sk *sk)
{
    if (!sk)
        return;
    EVP_PKEY_free(sk->ed25519); /* OpenSSL cleanses private parts */
    EVP_PKEY_free(sk->mldsa);
    tg_sign_pk_free(sk->pk);
    tg_free(sk);
}

const struct tg_sign_pk *tg_sign_sk_pk(const struct tg_sign_sk *sk)
{
    return sk->pk;
}

/* The house's context string. */
static const struct tg_bytes mldsa_context = {(const uint8_t *)"TGSP-1.0", 8};

bool tg_sig_half_sign(const struct tg_sig_half *h, struct tg_bytes msg, uint8_t *sig, size_t n)
{
    int det = h->deterministic ? 1 : 0;
    size_t got = n;
    OSSL_PARAM params[3];
    params[0] = params[1] = params[2] = OSSL_PARAM_construct_end();
    if (h->context) {
        params[0] = OSSL_PARAM_construct_octet_string(
            OSSL_SIGNATURE_PARAM_CONTEXT_STRING, (void *)(uintptr_t)h->context->p, h->context->n);
        params[1] = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_DETERMINISTIC, &det);
    }
    TG_AUTO(tg_evp_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    return ctx && EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, h->key, params) == 1 &&
           EVP_DigestSign(ctx, sig, &got, msg.p, msg.n) == 1 && got == n;
}

/* EVP_DigestVerify tells a wrong signature by this one error, if by any. Where memory was out or an
 * algorithm could not be looked up there is another before it. (The tests of published vectors hold
 * it to that.) What others left in the queue, below the mark, does not count. */
static enum tg_rc verdict(void)
{
    unsigned long e = ERR_peek_last_error();
    int n = ERR_count_to_mark();
    bool plain = n == 0 || (n == 1 && ERR_GET_LIB(e) == ERR_LIB_EVP &&
                            ERR_GET_REASON(e) == EVP_R_PROVIDER_SIGNATURE_FAILURE);
    return plain ? TG_E_AUTH : TG_E_NOMEM;
}

/* What fails before the signature is looked at fails for want of memory: the key is there, and with
 * it the provider that has its algorithm. */
enum tg_rc tg_sig_half_verify(const struct tg_sig_half *h, struct tg_bytes msg, struct tg_bytes sig)
{
    OSSL_PARAM params[2];
    params[0] = params[1] = OSSL_PARAM_construct_end();
    if (h->context)
        params[0] = OSSL_PARAM_construct_octet_string(
            OSSL_SIGNATURE_PARAM_CONTEXT_STRING, (void *)(uintptr_t)h->context->p, h->context->n);
    TG_AUTO(tg_evp_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, h->key, params) != 1)
        return TG_E_NOMEM;
    TG_QUIET_OPENSSL; /* the other half finds the queue as this one did */
    return EVP_DigestVerify(ctx, sig.p, sig.n, msg.p, msg.n) == 1 ? TG_OK : verdict();
}

enum tg_rc tg_sign(const struct tg_sign_sk *sk, struct tg_bytes msg, bool deterministic,
                   struct tg_sig *sig)
{
    TG_QUIET_OPENSSL;
    struct tg_sig made;
    struct tg_sig_half classic = {sk->ed25519, NULL, false};
    struct tg_sig_half pqc = {sk->mldsa, &mldsa_context, deterministic};
    if (!tg_sig_half_sign(&classic, msg, made.classic, sizeof made.classic) ||
        !tg_sig_half_sign(&pqc, msg, made.pqc, sizeof made.pqc))
        return tg_ossl_rc(TG_E_INTERNAL);
    enum tg_rc rc = tg_sign_verify(sk->pk, msg, &made);
    if (rc == TG_OK)
        *sig = made;
    tg_wipe(&made, sizeof made);
    /* a wrong one was made without a word from OpenSSL, or with one that is still in its queue */
    return rc == TG_OK || rc == TG_E_NOMEM ? rc : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_sign_verify(const struct tg_sign_pk *pk, struct tg_bytes msg,
                          const struct tg_sig *sig)
{
    TG_QUIET_OPENSSL;
    struct tg_sig_half classic = {pk->ed25519, NULL, false};
    struct tg_sig_half pqc = {pk->mldsa, &mldsa_context, false};
    enum tg_rc one = tg_sig_half_verify(&classic, msg, TG_BYTES_OF(sig->classic));
    /* Both are always computed: which half failed can't be told from the time. */
    enum tg_rc other = tg_sig_half_verify(&pqc, msg, TG_BYTES_OF(sig->pqc));
    if (one == TG_E_AUTH || other == TG_E_AUTH)
        return TG_E_AUTH; /* one wrong half is enough to know */
    return one != TG_OK ? one : other;
}
