/* Does our own code branch on, or index memory by, secret bytes? Secrets are marked undefined for
 * valgrind's memcheck, which then reports every branch and every address that depends on them; the
 * results stay undefined too, which shows that the secret really went through. Two functions that
 * do leak are part of the run, so that a blind checker fails.
 *
 *     valgrind -q --suppressions=tests/ct/verdicts.supp ct_check          (TAP; without valgrind:
 * skipped)
 *
 * What of libcrypto runs beneath is watched along with it. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <valgrind/memcheck.h>

#include "base/mem.h"
#include "codec/text.h"
#include "crypto/kem.h"
#include "tgsp/construct_internal.h"

/* The verdict of a comparison is public. Everything but the case of tg_ct_eq itself calls this. */
int __real_tg_ct_eq(const void *a, const void *b, size_t n);
int __wrap_tg_ct_eq(const void *a, const void *b, size_t n);

int __wrap_tg_ct_eq(const void *a, const void *b, size_t n)
{
    int same = __real_tg_ct_eq(a, b, n);
    (void)VALGRIND_MAKE_MEM_DEFINED(&same, sizeof same);
    return same;
}

/* n bytes that memcheck takes for unknown, the same in each run. */
static void secret(uint8_t *p, size_t n, uint8_t first)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(first + 31 * i);
    (void)VALGRIND_MAKE_MEM_UNDEFINED(p, n);
}

/* Did a secret reach these bytes? */
static bool tainted(const void *p, size_t n)
{
    uint8_t bits[64] = {0};
    uint8_t any = 0;
    (void)VALGRIND_GET_VBITS(p, bits, n < sizeof bits ? n : sizeof bits);
    for (size_t i = 0; i < sizeof bits; i++)
        any |= bits[i];
    return any != 0;
}

static const struct tg_tgsp_header header = {
    .aead = TG_AEAD_CHACHA20_POLY1305, .package_id = {1, 2, 3},
         .payload_salt = {4, 5, 6}
};

/* ---- the cases: true when all went well and the secret arrived ---- */

static bool compare_equal(void)
{
    uint8_t a[32], b[32];
    secret(a, sizeof a, 1);
    secret(b, sizeof b, 1);
    int same = __real_tg_ct_eq(a, b, sizeof a);
    bool arrived = tainted(&same, sizeof same);
    (void)VALGRIND_MAKE_MEM_DEFINED(&same, sizeof same);
    return arrived && same == 1;
}

static bool compare_different(void)
{
    uint8_t a[32], b[32];
    secret(a, sizeof a, 1);
    secret(b, sizeof b, 2);
    int same = __real_tg_ct_eq(a, b, sizeof a);
    (void)VALGRIND_MAKE_MEM_DEFINED(&same, sizeof same);
    return same == 0;
}

/* A bearer token: its hash is compared with the one on file. */
static bool token_compare(void)
{
    uint8_t token[43], md[TG_SHA256_LEN], have[TG_SHA256_LEN] = {0};
    secret(token, sizeof token, 'a');
    return tg_sha256(TG_BYTES_OF(token), md) == TG_OK && tainted(md, sizeof md) &&
           !tg_ct_eq(md, have, sizeof md);
}

static bool wipe(void)
{
    uint8_t key[32];
    secret(key, sizeof key, 1);
    tg_wipe(key, sizeof key);
    return !tainted(key, sizeof key) && key[0] == 0 && key[31] == 0;
}

static bool base64_encode(void)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(128);
    uint8_t key[32];
    secret(key, sizeof key, 200);
    return tg_b64url_encode(TG_BYTES_OF(key), &text) == TG_OK && tainted(text.data, text.n);
}

static bool kek(void)
{
    uint8_t ss[TG_KEM_SS_LEN], out[TG_AEAD_KEY_LEN], pk[TG_KEM_PK_LEN] = {9};
    static const struct tg_kem_ct ct;
    struct tg_wrap w = tg_wrap_recipient(&header);
    secret(ss, sizeof ss, 3);
    return tg_wrap_kek(&w, ss, &ct, TG_BYTES_OF(pk), out) == TG_OK && tainted(out, sizeof out);
}

static bool wrap_with(enum tg_aead aead)
{
    uint8_t key[TG_AEAD_KEY_LEN], file_key[TG_TGSP_FILE_KEY_LEN], out[TG_TGSP_WRAPPED_LEN];
    struct tg_tgsp_header h = header;
    h.aead = aead;
    struct tg_wrap w = tg_wrap_recipient(&h);
    secret(key, sizeof key, 5);
    secret(file_key, sizeof file_key, 6);
    return tg_wrap_seal_kek(&w, key, file_key, out) == TG_OK && tainted(out, sizeof out);
}

static bool wrap_chacha(void)
{
    return wrap_with(TG_AEAD_CHACHA20_POLY1305);
}

static bool wrap_aes(void)
{
    return wrap_with(TG_AEAD_AES_256_GCM);
}

static bool payload_key(void)
{
    uint8_t file_key[TG_TGSP_FILE_KEY_LEN], key[TG_AEAD_KEY_LEN];
    secret(file_key, sizeof file_key, 7);
    return tg_payload_key(&header, file_key, key) == TG_OK && tainted(key, sizeof key);
}

static bool commitment(void)
{
    uint8_t file_key[TG_TGSP_FILE_KEY_LEN], made[TG_SHA256_LEN];
    secret(file_key, sizeof file_key, 8);
    return tg_key_commitment(&header, file_key, made) == TG_OK && tainted(made, sizeof made) &&
           !tg_ct_eq(made, header.key_commitment, sizeof made);
}

/* The key's X25519 half is secret (of ML-KEM's, OpenSSL derives the public matrix seed by rejection
 * sampling, which memcheck cannot tell from a leak). */
static struct tg_kem_sk *device(bool mark)
{
    struct tg_kem_sk *sk = NULL;
    uint8_t seed[TG_KEM_SEED_LEN];
    for (size_t i = 0; i < sizeof seed; i++)
        seed[i] = (uint8_t)(i * 3);
    if (mark)
        secret(seed, 32, 9);
    if (tg_kem_sk_from_seed(TG_BYTES_OF(seed), &sk) != TG_OK)
        return NULL;
    struct tg_bytes pk = tg_kem_pk_raw(tg_kem_sk_pk(sk));
    (void)VALGRIND_MAKE_MEM_DEFINED(pk.p, pk.n); /* public, although it follows from the secret */
    (void)VALGRIND_MAKE_MEM_DEFINED(tg_kem_pk_id(tg_kem_sk_pk(sk)), TG_KEM_ID_LEN);
    return sk;
}

static enum tg_rc secret_coins(void *ctx, uint8_t *p, size_t n)
{
    (void)ctx;
    secret(p, n, 11);
    return TG_OK;
}

/* All of encapsulation: both halves' coins are secret, and so is what comes out. */
static bool encapsulate(void)
{
    const struct tg_rng rng = {secret_coins, NULL};
    struct tg_kem_ct ct;
    uint8_t ss[TG_KEM_SS_LEN];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(false);
    return sk && tg_kem_encap(tg_kem_sk_pk(sk), &rng, &ct, ss) == TG_OK && tainted(ss, sizeof ss);
}

/* The combiner around both secrets, with the all-zero check. */
static bool decapsulate(void)
{
    struct tg_kem_ct ct;
    uint8_t sent[TG_KEM_SS_LEN], ss[TG_KEM_SS_LEN];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    return sk && tg_kem_encap(tg_kem_sk_pk(sk), NULL, &ct, sent) == TG_OK &&
           tg_kem_decap(sk, &ct, ss) == TG_OK && tainted(ss, sizeof ss) &&
           tg_ct_eq(ss, sent, sizeof ss);
}

/* ---- controls: these leak, and the run fails when nobody says so ---- */

static bool leaky_branch(void)
{
    volatile uint8_t key[32];
    unsigned found = 0;
    secret((uint8_t *)(uintptr_t)key, sizeof key, 1);
    for (size_t i = 0; i < sizeof key; i++) /* a comparison that stops at the first difference */
        if (key[i] != (uint8_t)(1 + 31 * i)) {
            found++;
            break;
        }
    return found == 0;
}

static bool leaky_table(void)
{
    static const uint8_t volatile table[256] = {7};
    uint8_t key[1];
    volatile uint8_t sum;
    secret(key, sizeof key, 77);
    sum = table[key[0]];
    (void)sum;
    return true;
}

static const struct {
    const char *name;
    bool (*run)(void);
    bool leaks;
} cases[] = {
    {"control: a branch on a key byte is seen",   leaky_branch,      true },
    {"control: a table indexed by a key is seen", leaky_table,       true },
    {"compare equal secrets",                     compare_equal,     false},
    {"compare different secrets",                 compare_different, false},
    {"compare a token's hash",                    token_compare,     false},
    {"wipe",                                      wipe,              false},
    {"base64url of a key",                        base64_encode,     false},
    {"KEK derivation",                            kek,               false},
    {"wrap a file key, ChaCha20-Poly1305",        wrap_chacha,       false},
    {"wrap a file key, AES-256-GCM",              wrap_aes,          false},
    {"payload key derivation",                    payload_key,       false},
    {"key commitment and its comparison",         commitment,        false},
    {"hybrid encapsulation",                      encapsulate,       false},
    {"hybrid decapsulation and combiner",         decapsulate,       false},
};

int main(void)
{
    int failed = 0;
    if (!RUNNING_ON_VALGRIND) {
        (void)puts("1..0 # SKIP runs under valgrind only");
        return 0;
    }
    (void)printf("1..%zu\n", TG_ARRAY_LEN(cases));
    for (size_t i = 0; i < TG_ARRAY_LEN(cases); i++) {
        unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
        bool done = cases[i].run();
        (void)VALGRIND_MAKE_MEM_DEFINED(&done, sizeof done);
        unsigned errors = (unsigned)VALGRIND_COUNT_ERRORS - before;
        bool good = done && (errors != 0) == cases[i].leaks;
        (void)printf("%sok %zu - %s # %u reports\n", good ? "" : "not ", i + 1, cases[i].name,
                     errors);
        failed += !good;
    }
    return failed != 0;
}
