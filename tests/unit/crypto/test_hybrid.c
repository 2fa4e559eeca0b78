/* The hybrid KEM and signature as wholes: both halves always count. */
#include "../tg_cmocka.h"

#include <openssl/err.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/hash.h"
#include "crypto/kem.h"
#include "crypto/random.h"
#include "crypto/sign.h"

#include "counting.h"

static enum tg_rc broken(void *ctx, uint8_t *out, size_t n)
{
    (void)ctx;
    memset(out, 0x55, n);
    return TG_E_INTERNAL;
}

static void test_random(void **state)
{
    uint8_t a[64], b[64], zero[64] = {0};
    struct tg_rng bad = {broken, NULL};
    (void)state;
    assert_int_equal(tg_random(a, sizeof a), TG_OK);
    assert_int_equal(tg_random(b, sizeof b), TG_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(tg_rng_fill(&bad, a, sizeof a), TG_E_INTERNAL);
    assert_memory_equal(a, zero, sizeof a); /* never half random */
}

static void test_kem(void **state)
{
    uint8_t seed = 1, ss1[32], ss2[32];
    struct tg_rng rng = {counting, &seed};
    struct tg_kem_ct c1, c2;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *a = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *b = NULL;
    (void)state;
    assert_int_equal(tg_kem_sk_generate(NULL, &a), TG_OK);
    assert_int_equal(tg_kem_sk_generate(&rng, &b), TG_OK);
    assert_memory_not_equal(tg_kem_pk_id(tg_kem_sk_pk(a)), tg_kem_pk_id(tg_kem_sk_pk(b)), 16);
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(a), NULL, &c1, ss1), TG_OK);
    assert_int_equal(tg_kem_decap(a, &c1, ss2), TG_OK);
    assert_memory_equal(ss1, ss2, 32);
    assert_int_equal(tg_kem_decap(b, &c1, ss2), TG_OK); /* implicit rejection: another secret */
    assert_memory_not_equal(ss1, ss2, 32);
    /* either half changed: another secret */
    c2 = c1;
    c2.ct[7] ^= 4;
    assert_int_equal(tg_kem_decap(a, &c2, ss2), TG_OK);
    assert_memory_not_equal(ss1, ss2, 32);
    c2 = c1;
    c2.epk[7] ^= 4;
    assert_int_equal(tg_kem_decap(a, &c2, ss2), TG_OK);
    assert_memory_not_equal(ss1, ss2, 32);
    /* the same coins, the same everything */
    seed = 77;
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(a), &rng, &c1, ss1), TG_OK);
    seed = 77;
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(a), &rng, &c2, ss2), TG_OK);
    assert_memory_equal(&c1, &c2, sizeof c1);
    assert_memory_equal(ss1, ss2, 32);
    struct tg_rng bad = {broken, NULL};
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(a), &bad, &c1, ss1), TG_E_INTERNAL);
    for (size_t i = 0; i < 32; i++)
        assert_int_equal(ss1[i], 0);
    assert_memory_equal(&c1, &c2, sizeof c1); /* outputs untouched */
}

static void test_kem_pk_lengths(void **state)
{
    uint8_t raw[TG_KEM_PK_LEN + 1] = {9};
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    (void)state;
    assert_int_equal(tg_kem_pk_new(tg_bytes_make(raw, TG_KEM_PK_LEN - 1), &pk), TG_E_FORMAT);
    assert_int_equal(tg_kem_pk_new(tg_bytes_make(raw, TG_KEM_PK_LEN + 1), &pk), TG_E_FORMAT);
    memset(raw + 32, 0xff, TG_KEM_MLKEM_PK_LEN);
    assert_int_equal(tg_kem_pk_new(tg_bytes_make(raw, TG_KEM_PK_LEN), &pk), TG_E_FORMAT);
    assert_null(pk);
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_sign(void **state)
{
    struct tg_sig sig, bad;
    struct tg_bytes msg = tg_bytes_str("label\0message");
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *a = NULL;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *b = NULL;
    (void)state;
    assert_int_equal(tg_sign_sk_generate(NULL, &a), TG_OK);
    assert_int_equal(tg_sign_sk_generate(NULL, &b), TG_OK);
    const struct tg_sign_pk *pk = tg_sign_sk_pk(a);
    assert_int_equal(tg_sign(a, msg, false, &sig), TG_OK);
    assert_int_equal(tg_sign_verify(pk, msg, &sig), TG_OK);
    assert_int_equal(tg_sign_verify(tg_sign_sk_pk(b), msg, &sig), TG_E_AUTH);
    assert_int_equal(tg_sign_verify(pk, tg_bytes_str("label"), &sig),
                     TG_OK); /* msg ends at the 00 */
    assert_int_equal(tg_sign_verify(pk, tg_bytes_str("labe"), &sig), TG_E_AUTH);
    /* one half of another signer's */
    struct tg_sig other;
    assert_int_equal(tg_sign(b, msg, false, &other), TG_OK);
    bad = sig;
    memcpy(bad.classic, other.classic, sizeof bad.classic);
    assert_int_equal(tg_sign_verify(pk, msg, &bad), TG_E_AUTH);
    bad = sig;
    memcpy(bad.pqc, other.pqc, sizeof bad.pqc);
    assert_int_equal(tg_sign_verify(pk, msg, &bad), TG_E_AUTH);
    for (size_t i = 0; i < sizeof sig.pqc; i += 97) {
        bad = sig;
        bad.pqc[i] ^= 1;
        assert_int_equal(tg_sign_verify(pk, msg, &bad), TG_E_AUTH);
    }
    for (size_t i = 0; i < sizeof sig.classic; i++) {
        bad = sig;
        bad.classic[i] ^= 0x80;
        assert_int_equal(tg_sign_verify(pk, msg, &bad), TG_E_AUTH);
    }
    /* what other code left in OpenSSL's queue is neither a reason nor lost */
    for (int half = 0; half < 2; half++) {
        ERR_raise(ERR_LIB_SSL, ERR_R_MALLOC_FAILURE);
        bad = sig;
        (half ? bad.pqc : bad.classic)[3] ^= 1;
        assert_int_equal(tg_sign_verify(pk, msg, &bad), TG_E_AUTH);
        assert_int_equal(tg_sign_verify(pk, msg, &sig), TG_OK);
        assert_int_equal(ERR_GET_REASON(ERR_get_error()), ERR_R_MALLOC_FAILURE);
        assert_int_equal(ERR_get_error(), 0);
    }
    /* hedged signatures differ, deterministic ones do not; both verify */
    assert_int_equal(tg_sign(a, msg, false, &other), TG_OK);
    assert_memory_not_equal(sig.pqc, other.pqc, sizeof sig.pqc);
    assert_int_equal(tg_sign(a, msg, true, &sig), TG_OK);
    assert_int_equal(tg_sign(a, msg, true, &other), TG_OK);
    assert_memory_equal(&sig, &other, sizeof sig);
    assert_int_equal(tg_sign_verify(pk, msg, &sig), TG_OK);
    assert_int_equal(ERR_peek_error(), 0);
}

/* Points of small order, y not below p, and a y without a point. */
static void test_bad_ed25519_keys(void **state)
{
    static const uint8_t y[][32] = {
        {0    },
        {1    },
        {0x26,  0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4,
         0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
         0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b,
         0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39,
         0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {2}, /* no x for it */
    };
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *a = NULL;
    uint8_t raw[TG_SIGN_PK_LEN];
    (void)state;
    assert_int_equal(tg_sign_sk_generate(NULL, &a), TG_OK);
    memcpy(raw, tg_sign_pk_raw(tg_sign_sk_pk(a)).p, sizeof raw);
    for (size_t i = 0; i < TG_ARRAY_LEN(y); i++)
        for (int sign = 0; sign < 2; sign++) {
            TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
            memcpy(raw, y[i], 32);
            raw[31] |= (uint8_t)(sign << 7);
            if (tg_sign_pk_new(TG_BYTES_OF(raw), &pk) != TG_E_FORMAT)
                fail_msg("row %zu sign %d", i, sign);
        }
}

static void test_from_seed(void **state)
{
    uint8_t kem_seed[TG_KEM_SEED_LEN] = {3}, sign_seed[TG_SIGN_SEED_LEN] = {4};
    (void)state;
    for (int i = 0; i < 2; i++) {
        TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *k1 = NULL;
        TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *k2 = NULL;
        TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *s1 = NULL;
        TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *s2 = NULL;
        assert_int_equal(tg_kem_sk_from_seed(TG_BYTES_OF(kem_seed), &k1), TG_OK);
        assert_int_equal(tg_kem_sk_from_seed(TG_BYTES_OF(kem_seed), &k2), TG_OK);
        assert_true(tg_bytes_eq(tg_kem_pk_raw(tg_kem_sk_pk(k1)), tg_kem_pk_raw(tg_kem_sk_pk(k2))));
        assert_int_equal(tg_sign_sk_from_seed(TG_BYTES_OF(sign_seed), &s1), TG_OK);
        assert_int_equal(tg_sign_sk_from_seed(TG_BYTES_OF(sign_seed), &s2), TG_OK);
        assert_true(
            tg_bytes_eq(tg_sign_pk_raw(tg_sign_sk_pk(s1)), tg_sign_pk_raw(tg_sign_sk_pk(s2))));
        assert_int_equal(tg_kem_sk_from_seed(tg_bytes_make(kem_seed, 95), &k2), TG_E_FORMAT);
        assert_int_equal(tg_sign_sk_from_seed(tg_bytes_make(sign_seed, 63), &s2), TG_E_FORMAT);
        kem_seed[0] ^= 8; /* clamping leaves bit 3 alone: another key the second time */
        sign_seed[63] ^= 1;
    }
}

/* The count of allocations is ours alone: each of them fails once, cleanly. */
static void test_allocation_faults(void **state)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    uint64_t before = tg_mem_fault_count();
    (void)state;
    assert_int_equal(tg_kem_sk_generate(NULL, &sk), TG_OK);
    uint64_t n = tg_mem_fault_count() - before;
    assert_true(n > 0);
    for (uint64_t i = 1; i <= n; i++) {
        struct tg_kem_sk *none = NULL;
        tg_mem_fault_set(i, 0);
        assert_int_equal(tg_kem_sk_generate(NULL, &none), TG_E_NOMEM);
        tg_mem_fault_set(0, 0);
        assert_null(none);
    }
}

static void test_sha256(void **state)
{
    /* FIPS 180-4: "abc" */
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t out[32];
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *h = NULL;
    (void)state;
    assert_int_equal(tg_sha256(tg_bytes_str("abc"), out), TG_OK);
    assert_memory_equal(out, abc, 32);
    assert_int_equal(tg_sha256_new(&h), TG_OK);
    for (int i = 0; i < 3; i++) { /* reusable */
        assert_int_equal(tg_sha256_update(h, tg_bytes_str("a")), TG_OK);
        assert_int_equal(tg_sha256_update(h, TG_BYTES_NONE), TG_OK);
        assert_int_equal(tg_sha256_update(h, tg_bytes_str("bc")), TG_OK);
        assert_int_equal(tg_sha256_final(h, out), TG_OK);
        assert_memory_equal(out, abc, 32);
    }
    assert_int_equal(tg_sha256(TG_BYTES_NONE, out), TG_OK);
    assert_int_equal(out[0], 0xe3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_kem),
        cmocka_unit_test(test_kem_pk_lengths),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_bad_ed25519_keys),
        cmocka_unit_test(test_from_seed),
        cmocka_unit_test(test_allocation_faults),
        cmocka_unit_test(test_sha256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
