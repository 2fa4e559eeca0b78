/* Each allocation of libcrypto fails once, in each operation: out of memory, or the right result. A
 * signature made without memory that it needed was once handed out as good, and a good one refused
 * as forged. */
#include "../tg_cmocka.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/aead.h"
#include "crypto/hash.h"
#include "crypto/kem.h"
#include "crypto/random.h"
#include "crypto/sign.h"

#include "counting.h"

static unsigned long calls, fail_at;

static bool fails(void)
{
    return fail_at != 0 && ++calls == fail_at;
}

static void *get(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails() ? NULL : malloc(n);
}

static void *get_again(void *p, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails() ? NULL : realloc(p, n);
}

static void give(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    free(p);
}

static struct {
    struct tg_sign_sk *sign;
    struct tg_kem_sk *kem;
    struct tg_sig good, bad;
    struct tg_kem_ct ct;
    uint8_t ss[TG_KEM_SS_LEN];
    uint8_t digest[TG_SHA256_LEN], okm[40];
    uint8_t sealed[100 + TG_AEAD_TAG_LEN];
} w;

static const uint8_t msg[100] = "label\0 and what is signed";
static const uint8_t key[32] = {1}, nonce[TG_AEAD_NONCE_LEN] = {2};

/* Each does one thing and judges it, if it says TG_OK. */
static enum tg_rc do_sign(bool *right)
{
    struct tg_sig sig;
    enum tg_rc rc = tg_sign(w.sign, TG_BYTES_OF(msg), true, &sig);
    *right = rc == TG_OK && memcmp(&sig, &w.good, sizeof sig) == 0;
    return rc;
}

static enum tg_rc do_verify(bool *right)
{
    *right = true;
    return tg_sign_verify(tg_sign_sk_pk(w.sign), TG_BYTES_OF(msg), &w.good);
}

static enum tg_rc do_verify_bad(bool *right)
{
    *right = false;
    return tg_sign_verify(tg_sign_sk_pk(w.sign), TG_BYTES_OF(msg), &w.bad);
}

static enum tg_rc do_sign_key(bool *right)
{
    static const uint8_t seed[TG_SIGN_SEED_LEN] = {3};
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *sk = NULL;
    enum tg_rc rc = tg_sign_sk_from_seed(TG_BYTES_OF(seed), &sk);
    *right = rc == TG_OK && memcmp(tg_sign_pk_id(tg_sign_sk_pk(sk)),
                                   tg_sign_pk_id(tg_sign_sk_pk(w.sign)), TG_SIGN_ID_LEN) == 0;
    return rc;
}

static enum tg_rc do_kem_key(bool *right)
{
    static const uint8_t seed[TG_KEM_SEED_LEN] = {4};
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    enum tg_rc rc = tg_kem_sk_from_seed(TG_BYTES_OF(seed), &sk);
    *right = rc == TG_OK && memcmp(tg_kem_pk_id(tg_kem_sk_pk(sk)),
                                   tg_kem_pk_id(tg_kem_sk_pk(w.kem)), TG_KEM_ID_LEN) == 0;
    return rc;
}

static enum tg_rc do_encap(bool *right)
{
    uint8_t next = 9, ss[TG_KEM_SS_LEN];
    struct tg_rng rng = {counting, &next};
    struct tg_kem_ct ct;
    enum tg_rc rc = tg_kem_encap(tg_kem_sk_pk(w.kem), &rng, &ct, ss);
    *right = rc == TG_OK && memcmp(&ct, &w.ct, sizeof ct) == 0 && memcmp(ss, w.ss, sizeof ss) == 0;
    return rc;
}

/* libcrypto answers a fault within ML-KEM as an altered ciphertext: with another secret, which
 * opens nothing. Never with zeros, or half of one. */
static enum tg_rc do_decap(bool *right)
{
    static const uint8_t zero[TG_KEM_SS_LEN];
    uint8_t ss[TG_KEM_SS_LEN] = {0};
    enum tg_rc rc = tg_kem_decap(w.kem, &w.ct, ss);
    bool same = rc == TG_OK && memcmp(ss, w.ss, sizeof ss) == 0;
    bool none = memcmp(ss, zero, sizeof zero / 2) == 0 ||
                memcmp(ss + sizeof zero / 2, zero, sizeof zero / 2) == 0;
    *right = same || !none;
    return rc;
}

static enum tg_rc do_hash(bool *right)
{
    uint8_t got[TG_SHA256_LEN];
    enum tg_rc rc = tg_sha256(TG_BYTES_OF(msg), got);
    *right = memcmp(got, w.digest, sizeof got) == 0;
    return rc;
}

static enum tg_rc do_hkdf(bool *right)
{
    uint8_t got[sizeof w.okm];
    enum tg_rc rc =
        tg_hkdf_sha256(TG_BYTES_OF(key), TG_BYTES_OF(nonce), TG_BYTES_OF(msg), got, sizeof got);
    *right = memcmp(got, w.okm, sizeof got) == 0;
    return rc;
}

static enum tg_rc seal(enum tg_aead suite, bool *right)
{
    uint8_t out[sizeof w.sealed], back[sizeof msg];
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = NULL;
    TG_TRY(tg_aead_new(suite, key, &a));
    TG_TRY(tg_aead_seal(a, nonce, TG_BYTES_OF(key), TG_BYTES_OF(msg), out));
    *right = suite != TG_AEAD_CHACHA20_POLY1305 || memcmp(out, w.sealed, sizeof out) == 0;
    TG_TRY(tg_aead_open(a, nonce, TG_BYTES_OF(key), TG_BYTES_OF(out), back));
    *right = *right && memcmp(back, msg, sizeof msg) == 0;
    return TG_OK;
}

static enum tg_rc do_chacha(bool *right)
{
    return seal(TG_AEAD_CHACHA20_POLY1305, right);
}

static enum tg_rc do_aes(bool *right)
{
    return seal(TG_AEAD_AES_256_GCM, right);
}

static enum tg_rc do_random(bool *right)
{
    uint8_t a[32] = {0}, b[32] = {0}, zero[32] = {0};
    TG_TRY(tg_random(a, sizeof a));
    TG_TRY(tg_random(b, sizeof b));
    *right = memcmp(a, b, 32) != 0 && memcmp(a, zero, 32) != 0 && memcmp(b, zero, 32) != 0;
    return TG_OK;
}

static const struct {
    const char *name;
    enum tg_rc (*run)(bool *right);
    enum tg_rc whole; /* what it says with all its memory */
} operations[] = {
    {"sign",              do_sign,       TG_OK    },
    {"verify",            do_verify,     TG_OK    },
    {"verify bad",        do_verify_bad, TG_E_AUTH},
    {"signing key",       do_sign_key,   TG_OK    },
    {"kem key",           do_kem_key,    TG_OK    },
    {"encapsulate",       do_encap,      TG_OK    },
    {"decapsulate",       do_decap,      TG_OK    },
    {"sha-256",           do_hash,       TG_OK    },
    {"hkdf",              do_hkdf,       TG_OK    },
    {"chacha20-poly1305", do_chacha,     TG_OK    },
    {"aes-256-gcm",       do_aes,        TG_OK    },
    {"random",            do_random,     TG_OK    },
};

static void test_without_memory_nothing_wrong_is_right(void **state)
{
    unsigned long all = 0;
    (void)state;
    for (size_t o = 0; o < TG_ARRAY_LEN(operations); o++) {
        unsigned long n, refused = 0, told = 0;
        bool right = false;
        calls = 0;
        fail_at = ~0UL;
        assert_int_equal(operations[o].run(&right), operations[o].whole);
        n = calls;
        assert_true(right || operations[o].whole != TG_OK);
        for (fail_at = 1; fail_at <= n; fail_at++) {
            calls = 0;
            right = false;
            enum tg_rc rc = operations[o].run(&right);
            if (rc == TG_OK && !right)
                fail_msg("%s: allocation %lu of %lu failed, and the result is wrong",
                         operations[o].name, fail_at, n);
            if (rc != TG_OK && rc != TG_E_NOMEM && rc != operations[o].whole)
                fail_msg("%s: allocation %lu of %lu failed: %s", operations[o].name, fail_at, n,
                         tg_rc_name(rc));
            refused += rc != TG_OK && rc != operations[o].whole;
            told += rc == TG_E_NOMEM;
        }
        fail_at = 0;
        print_message("# %s: %lu allocations, %lu refused, %lu of them as out of memory\n",
                      operations[o].name, n, refused, told);
        all += refused;
    }
    assert_true(all > 100); /* failures were really made */
}

static int prepare(void **state)
{
    static const uint8_t sign_seed[TG_SIGN_SEED_LEN] = {3}, kem_seed[TG_KEM_SEED_LEN] = {4};
    uint8_t next = 9;
    struct tg_rng rng = {counting, &next};
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = NULL;
    (void)state;
    assert_int_equal(tg_sign_sk_from_seed(TG_BYTES_OF(sign_seed), &w.sign), TG_OK);
    assert_int_equal(tg_kem_sk_from_seed(TG_BYTES_OF(kem_seed), &w.kem), TG_OK);
    assert_int_equal(tg_sign(w.sign, TG_BYTES_OF(msg), true, &w.good), TG_OK);
    w.bad = w.good;
    w.bad.pqc[1000] ^= 1;
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(w.kem), &rng, &w.ct, w.ss), TG_OK);
    assert_int_equal(tg_sha256(TG_BYTES_OF(msg), w.digest), TG_OK);
    assert_int_equal(
        tg_hkdf_sha256(TG_BYTES_OF(key), TG_BYTES_OF(nonce), TG_BYTES_OF(msg), w.okm, sizeof w.okm),
        TG_OK);
    assert_int_equal(tg_aead_new(TG_AEAD_CHACHA20_POLY1305, key, &a), TG_OK);
    assert_int_equal(tg_aead_seal(a, nonce, TG_BYTES_OF(key), TG_BYTES_OF(msg), w.sealed), TG_OK);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    tg_sign_sk_free(w.sign);
    tg_kem_sk_free(w.kem);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_memory_nothing_wrong_is_right),
    };
    if (CRYPTO_set_mem_functions(get, get_again, give) != 1)
        return 1;
    return cmocka_run_group_tests(tests, prepare, finish);
}
