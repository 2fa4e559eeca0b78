/* Published vectors through the library in use: NIST ACVP, Wycheproof, RFCs
 * (tests/vectors/published). */
#include "vectors.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/aead.h"
#include "crypto/hash.h"
#include "crypto/openssl_internal.h"

static bool same(struct tg_bytes want, const void *got, size_t n)
{
    return want.n == n && tg_mem_eq(want.p, got, n);
}

static EVP_PKEY *raw_public(const char *type, struct tg_bytes b)
{
    return EVP_PKEY_new_raw_public_key_ex(NULL, type, NULL, b.p, b.n);
}

static EVP_PKEY *raw_private(const char *type, struct tg_bytes b)
{
    return EVP_PKEY_new_raw_private_key_ex(NULL, type, NULL, b.p, b.n);
}

/* ---- AEAD
 * ------------------------------------------------------------------------------------------- */

/* The same ciphertext in parts, cut anywhere: the same answer, and the same plaintext. */
static void aead_parts(struct tg_aead_ctx *a, struct vec *v, size_t cut, bool valid)
{
    struct tg_bytes msg = vec_hex(v, "msg"), ct = vec_hex(v, "ct");
    uint8_t out[4096];
    assert_int_equal(tg_aead_open_begin(a, vec_hex(v, "iv").p, vec_hex(v, "aad")), TG_OK);
    assert_int_equal(tg_aead_open_part(a, tg_bytes_sub(ct, 0, cut), out), TG_OK);
    assert_int_equal(tg_aead_open_part(a, tg_bytes_sub(ct, cut, ct.n - cut), out + cut), TG_OK);
    assert_int_equal(tg_aead_open_end(a, vec_hex(v, "tag").p), valid ? TG_OK : TG_E_AUTH);
    if (valid)
        assert_true(same(msg, out, ct.n));
}

static void aead_block(struct vec *v, enum tg_aead suite, bool valid)
{
    struct tg_aead_ctx *a = NULL;
    struct tg_bytes msg = vec_hex(v, "msg"), ct = vec_hex(v, "ct"), tag = vec_hex(v, "tag");
    uint8_t sealed[4096], out[4096];
    assert_int_equal(tg_aead_new(suite, vec_hex(v, "key").p, &a), TG_OK);
    memcpy(sealed, ct.p, ct.n);
    memcpy(sealed + ct.n, tag.p, tag.n);
    struct tg_bytes whole = tg_bytes_make(sealed, ct.n + tag.n), aad = vec_hex(v, "aad");
    memset(out, 0xaa, sizeof out);
    enum tg_rc rc = tg_aead_open(a, vec_hex(v, "iv").p, aad, whole, out);
    assert_int_equal(rc, valid ? TG_OK : TG_E_AUTH);
    if (valid) {
        assert_true(same(msg, out, ct.n));
        assert_int_equal(tg_aead_seal(a, vec_hex(v, "iv").p, aad, msg, out), TG_OK);
        assert_true(same(whole, out, msg.n + 16));
        /* in place, and again with the same context */
        memcpy(out, msg.p, msg.n);
        assert_int_equal(tg_aead_seal(a, vec_hex(v, "iv").p, aad, tg_bytes_make(out, msg.n), out),
                         TG_OK);
        assert_true(same(whole, out, msg.n + 16));
    } else {
        for (size_t i = 0; i < ct.n; i++)
            assert_int_equal(out[i], 0); /* nothing of the plaintext is left */
    }
    for (size_t cut = 0; cut <= ct.n; cut += 1 + ct.n / 9)
        aead_parts(a, v, cut, valid);
    tg_aead_free(a);
}

static void aead_file(const char *name, enum tg_aead suite)
{
    struct vec v;
    for (vec_open(&v, name); vec_next(&v);)
        aead_block(&v, suite, vec_is(&v, "result", "valid"));
    vec_close(&v);
}

static void test_aead(void **state)
{
    (void)state;
    aead_file("wycheproof_chacha20_poly1305.txt", TG_AEAD_CHACHA20_POLY1305);
    aead_file("wycheproof_aes_256_gcm.txt", TG_AEAD_AES_256_GCM);
}

/* ---- KDF, MAC
 * --------------------------------------------------------------------------------------- */

static void hkdf_block(struct vec *v)
{
    uint8_t out[512];
    struct tg_bytes okm = vec_hex(v, "okm");
    assert_int_equal(
        tg_hkdf_sha256(vec_hex(v, "ikm"), vec_hex(v, "salt"), vec_hex(v, "info"), out, okm.n),
        TG_OK);
    assert_true(same(okm, out, okm.n));
}

static void test_hkdf_hmac(void **state)
{
    struct vec v;
    uint8_t mac[32];
    (void)state;
    for (vec_open(&v, "wycheproof_hkdf_sha256.txt"); vec_next(&v);)
        hkdf_block(&v);
    vec_close(&v);
    for (vec_open(&v, "wycheproof_hmac_sha256.txt"); vec_next(&v);) {
        assert_int_equal(tg_hmac_sha256(vec_hex(&v, "key"), vec_hex(&v, "msg"), mac), TG_OK);
        assert_int_equal(same(vec_hex(&v, "tag"), mac, 32), vec_is(&v, "result", "valid"));
    }
    vec_close(&v);
    assert_int_equal(tg_hkdf_sha256(TG_BYTES_NONE, TG_BYTES_NONE, TG_BYTES_NONE, mac, 0),
                     TG_E_LIMIT);
    assert_int_equal(
        tg_hkdf_sha256(TG_BYTES_NONE, TG_BYTES_NONE, TG_BYTES_NONE, mac, TG_HKDF_MAX + 1),
        TG_E_LIMIT);
}

/* ---- X25519, Ed25519
 * -------------------------------------------------------------------------------- */

/* Our own rule on top: an all-zero secret is refused. */
static void x25519_block(struct vec *v)
{
    static const uint8_t zero[32];
    uint8_t ss[32];
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *own = raw_private("X25519", vec_hex(v, "private"));
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *peer = raw_public("X25519", vec_hex(v, "public"));
    struct tg_bytes want = vec_hex(v, "shared");
    assert_non_null(own);
    assert_non_null(peer);
    if (same(want, zero, 32)) {
        assert_int_equal(tg_x25519_shared(own, peer, ss), TG_E_AUTH);
        return;
    }
    assert_int_equal(tg_x25519_shared(own, peer, ss), TG_OK);
    assert_true(same(want, ss, 32));
}

static void test_x25519(void **state)
{
    struct vec v;
    size_t zeros = 0;
    (void)state;
    for (vec_open(&v, "wycheproof_x25519.txt"); vec_next(&v);) {
        zeros += vec_hex(&v, "shared").p[0] == 0 && vec_hex(&v, "shared").p[31] == 0;
        x25519_block(&v);
    }
    assert_true(zeros > 0);
    vec_close(&v);
}

static bool ed25519_ok(struct tg_bytes pk, struct tg_bytes msg, struct tg_bytes sig)
{
    TG_QUIET_OPENSSL;
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *key = raw_public("ED25519", pk);
    struct tg_sig_half h = {key, NULL, false};
    enum tg_rc rc = key ? tg_sig_half_verify(&h, msg, sig) : TG_E_AUTH;
    assert_true(rc == TG_OK || rc == TG_E_AUTH);
    return rc == TG_OK;
}

static void test_ed25519(void **state)
{
    struct vec v;
    (void)state;
    for (vec_open(&v, "wycheproof_ed25519.txt"); vec_next(&v);)
        if (ed25519_ok(vec_hex(&v, "pk"), vec_hex(&v, "msg"), vec_hex(&v, "sig")) !=
            vec_is(&v, "result", "valid"))
            fail_msg("test %.*s", (int)v.f[0].text.n, (const char *)v.f[0].text.p);
    vec_close(&v);
}

static void ed25519_sign_block(struct vec *v)
{
    uint8_t sig[64];
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *sk = raw_private("ED25519", vec_hex(v, "seed"));
    struct tg_sig_half h = {sk, NULL, false};
    assert_true(tg_sig_half_sign(&h, vec_hex(v, "msg"), sig, 64));
    assert_true(same(vec_hex(v, "sig"), sig, 64));
    assert_true(ed25519_ok(vec_hex(v, "pk"), vec_hex(v, "msg"), TG_BYTES_OF(sig)));
}

static void test_rfc(void **state)
{
    struct vec v;
    (void)state;
    for (vec_open(&v, "rfc.txt"); vec_next(&v);) {
        if (vec_is(&v, "test", "chacha20_poly1305"))
            aead_block(&v, TG_AEAD_CHACHA20_POLY1305, true);
        else if (vec_is(&v, "test", "hkdf"))
            hkdf_block(&v);
        else if (vec_is(&v, "test", "x25519"))
            x25519_block(&v);
        else
            ed25519_sign_block(&v);
    }
    assert_int_equal(v.blocks, 10);
    vec_close(&v);
}

/* ---- ML-KEM-768
 * ------------------------------------------------------------------------------------- */

static EVP_PKEY *mlkem_from(struct tg_bytes d, struct tg_bytes z)
{
    uint8_t seed[64];
    memcpy(seed, d.p, 32);
    memcpy(seed + 32, z.p, 32);
    return tg_evp_from_seed("ML-KEM-768", seed, sizeof seed);
}

static void test_mlkem_acvp(void **state)
{
    struct vec v;
    uint8_t ek[TG_KEM_MLKEM_PK_LEN], ct[TG_KEM_CT_LEN], ss[32];
    (void)state;
    for (vec_open(&v, "acvp_mlkem768_keygen.txt"); vec_next(&v);) {
        TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *sk = mlkem_from(vec_hex(&v, "d"), vec_hex(&v, "z"));
        assert_int_equal(tg_evp_raw_public(sk, ek, sizeof ek), TG_OK);
        assert_true(same(vec_hex(&v, "ek"), ek, sizeof ek));
    }
    vec_close(&v);
    for (vec_open(&v, "acvp_mlkem768_encap.txt"); vec_next(&v);) {
        TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *pk = raw_public("ML-KEM-768", vec_hex(&v, "ek"));
        assert_int_equal(tg_mlkem_encap(pk, vec_hex(&v, "m").p, ct, ss), TG_OK);
        assert_true(same(vec_hex(&v, "c"), ct, sizeof ct));
        assert_true(same(vec_hex(&v, "k"), ss, 32));
    }
    vec_close(&v);
    for (vec_open(&v, "acvp_mlkem768_decap.txt"); vec_next(&v);) {
        TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *sk = raw_private("ML-KEM-768", vec_hex(&v, "dk"));
        assert_non_null(sk);
        assert_int_equal(tg_mlkem_decap(sk, vec_hex(&v, "c").p, ss), TG_OK);
        assert_true(same(vec_hex(&v, "k"), ss, 32)); /* implicit rejection included */
    }
    vec_close(&v);
}

static void test_mlkem_wycheproof(void **state)
{
    struct vec v;
    uint8_t ek[TG_KEM_MLKEM_PK_LEN], ct[TG_KEM_CT_LEN], ss[32], hybrid[TG_KEM_PK_LEN] = {9};
    (void)state;
    for (vec_open(&v, "wycheproof_mlkem768.txt"); vec_next(&v);) {
        TG_AUTO(tg_evp_pkey_freep)
        EVP_PKEY *sk = tg_evp_from_seed("ML-KEM-768", vec_hex(&v, "seed").p, 64);
        assert_int_equal(tg_evp_raw_public(sk, ek, sizeof ek), TG_OK);
        assert_true(same(vec_hex(&v, "ek"), ek, sizeof ek));
        assert_int_equal(tg_mlkem_decap(sk, vec_hex(&v, "c").p, ss), TG_OK);
        assert_true(same(vec_hex(&v, "K"), ss, 32));
    }
    vec_close(&v);
    /* FIPS 203 §7.2: a key whose coefficients are not reduced is refused where keys are made */
    for (vec_open(&v, "wycheproof_mlkem768_encaps.txt"); vec_next(&v);) {
        TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
        memcpy(hybrid + 32, vec_hex(&v, "ek").p, sizeof ek);
        if (!vec_is(&v, "result", "valid")) {
            assert_int_equal(tg_kem_pk_new(TG_BYTES_OF(hybrid), &pk), TG_E_FORMAT);
            continue;
        }
        assert_int_equal(tg_kem_pk_new(TG_BYTES_OF(hybrid), &pk), TG_OK);
        assert_int_equal(tg_mlkem_encap(pk->mlkem, vec_hex(&v, "m").p, ct, ss), TG_OK);
        assert_true(same(vec_hex(&v, "c"), ct, sizeof ct));
        assert_true(same(vec_hex(&v, "K"), ss, 32));
    }
    vec_close(&v);
}

/* ---- ML-DSA-65
 * -------------------------------------------------------------------------------------- */

/* ACVP's signatures of this version are over the internal interface: no domain separation before M.
 */
static void raw_params(OSSL_PARAM p[3], int *zero, int *one)
{
    p[0] = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_MESSAGE_ENCODING, zero);
    p[1] = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_DETERMINISTIC, one);
    p[2] = OSSL_PARAM_construct_end();
}

static void mldsa_sign_block(struct vec *v)
{
    int zero = 0, one = 1;
    OSSL_PARAM params[3];
    uint8_t sig[TG_SIG_PQC_LEN];
    size_t n = sizeof sig;
    struct tg_bytes msg = vec_hex(v, "message");
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *sk = raw_private("ML-DSA-65", vec_hex(v, "sk"));
    TG_AUTO(tg_evp_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    raw_params(params, &zero, &one);
    assert_int_equal(EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, sk, params), 1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &n, msg.p, msg.n), 1);
    assert_true(same(vec_hex(v, "signature"), sig, n));
}

static bool mldsa_raw_ok(struct vec *v)
{
    TG_QUIET_OPENSSL;
    int zero = 0, one = 1;
    OSSL_PARAM params[3];
    struct tg_bytes msg = vec_hex(v, "message"), sig = vec_hex(v, "signature");
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *pk = raw_public("ML-DSA-65", vec_hex(v, "pk"));
    TG_AUTO(tg_evp_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    raw_params(params, &zero, &one);
    assert_int_equal(EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, pk, params), 1);
    return EVP_DigestVerify(ctx, sig.p, sig.n, msg.p, msg.n) == 1;
}

static void test_mldsa_acvp(void **state)
{
    struct vec v;
    uint8_t pk[TG_SIGN_MLDSA_PK_LEN];
    (void)state;
    for (vec_open(&v, "acvp_mldsa65_keygen.txt"); vec_next(&v);) {
        TG_AUTO(tg_evp_pkey_freep)
        EVP_PKEY *sk = tg_evp_from_seed("ML-DSA-65", vec_hex(&v, "seed").p, 32);
        assert_int_equal(tg_evp_raw_public(sk, pk, sizeof pk), TG_OK);
        assert_true(same(vec_hex(&v, "pk"), pk, sizeof pk));
    }
    vec_close(&v);
    for (vec_open(&v, "acvp_mldsa65_siggen.txt"); vec_next(&v);)
        mldsa_sign_block(&v);
    vec_close(&v);
    for (vec_open(&v, "acvp_mldsa65_sigver.txt"); vec_next(&v);)
        assert_int_equal(mldsa_raw_ok(&v), vec_is(&v, "result", "valid"));
    vec_close(&v);
}

static void test_mldsa_wycheproof(void **state)
{
    struct vec v;
    static const uint8_t none;
    const struct tg_bytes empty = {&none, 0};
    (void)state;
    for (vec_open(&v, "wycheproof_mldsa65_verify.txt"); vec_next(&v);) {
        TG_QUIET_OPENSSL;
        TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *pk = raw_public("ML-DSA-65", vec_hex(&v, "publicKey"));
        struct tg_sig_half h = {pk, &empty, false};
        assert_non_null(pk);
        assert_int_equal(tg_sig_half_verify(&h, vec_hex(&v, "msg"), vec_hex(&v, "sig")),
                         vec_is(&v, "result", "valid") ? TG_OK : TG_E_AUTH);
    }
    vec_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc),
        cmocka_unit_test(test_aead),
        cmocka_unit_test(test_hkdf_hmac),
        cmocka_unit_test(test_x25519),
        cmocka_unit_test(test_ed25519),
        cmocka_unit_test(test_mlkem_acvp),
        cmocka_unit_test(test_mlkem_wycheproof),
        cmocka_unit_test(test_mldsa_acvp),
        cmocka_unit_test(test_mldsa_wycheproof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
