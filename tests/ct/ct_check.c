/* Does our own code branch on, or index memory by, secret bytes? Secrets are marked undefined for
 * valgrind's memcheck, which then reports every branch and every address that depends on them; the
 * results stay undefined too, which shows that the secret really went through. Two functions that
 * do leak are part of the run, so that a blind checker fails; and every case that goes through one
 * of the functions named below runs once more with a leak put in there, which must be reported.
 *
 *     valgrind -q --suppressions=tests/ct/verdicts.supp ct_check          (TAP; without valgrind:
 * skipped)
 *
 * What of libcrypto runs beneath is watched along with it. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <valgrind/memcheck.h>

#include "base/mem.h"
#include "codec/text.h"
#include "crypto/aead.h"
#include "crypto/kem.h"
#include "moai/bake_seal.h"
#include "platform/keys.h"
#include "tgsp/construct_internal.h"

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

/* ---- between the code that is checked and what it calls (linked with --wrap) ---- */

/* The leak that a case is run with once more, to see that it would be reported. */
static bool leaking;
static unsigned volatile leaked;

static void leak(const uint8_t *p)
{
    if (leaking && *p == 77)
        leaked++;
}

/* The verdict of a comparison is public. Everything but the case of tg_ct_eq itself calls this. */
int __real_tg_ct_eq(const void *a, const void *b, size_t n);
int __wrap_tg_ct_eq(const void *a, const void *b, size_t n);

int __wrap_tg_ct_eq(const void *a, const void *b, size_t n)
{
    int same = __real_tg_ct_eq(a, b, n);
    (void)VALGRIND_MAKE_MEM_DEFINED(&same, sizeof same);
    return same;
}

enum tg_rc __real_tg_sha256(struct tg_bytes in, uint8_t *out);
enum tg_rc __wrap_tg_sha256(struct tg_bytes in, uint8_t *out);

enum tg_rc __wrap_tg_sha256(struct tg_bytes in, uint8_t *out)
{
    enum tg_rc rc = __real_tg_sha256(in, out);
    leak(out);
    return rc;
}

enum tg_rc __real_tg_hkdf_sha256(struct tg_bytes ikm, struct tg_bytes salt, struct tg_bytes info,
                                 uint8_t *out, size_t n);
enum tg_rc __wrap_tg_hkdf_sha256(struct tg_bytes ikm, struct tg_bytes salt, struct tg_bytes info,
                                 uint8_t *out, size_t n);

enum tg_rc __wrap_tg_hkdf_sha256(struct tg_bytes ikm, struct tg_bytes salt, struct tg_bytes info,
                                 uint8_t *out, size_t n)
{
    enum tg_rc rc = __real_tg_hkdf_sha256(ikm, salt, info, out, n);
    leak(out);
    return rc;
}

enum tg_rc __real_tg_aead_new(enum tg_aead suite, const uint8_t *key, struct tg_aead_ctx **out);
enum tg_rc __wrap_tg_aead_new(enum tg_aead suite, const uint8_t *key, struct tg_aead_ctx **out);

enum tg_rc __wrap_tg_aead_new(enum tg_aead suite, const uint8_t *key, struct tg_aead_ctx **out)
{
    leak(key);
    return __real_tg_aead_new(suite, key, out);
}

/* Ciphertext in a file is public. */
enum tg_rc __real_tg_fd_write(int fd, const char *name, const void *p, size_t n,
                              struct tg_err *err);
enum tg_rc __wrap_tg_fd_write(int fd, const char *name, const void *p, size_t n,
                              struct tg_err *err);

enum tg_rc __wrap_tg_fd_write(int fd, const char *name, const void *p, size_t n, struct tg_err *err)
{
    (void)VALGRIND_MAKE_MEM_DEFINED(p, n);
    return __real_tg_fd_write(fd, name, p, n, err);
}

/* Goes into the bake's context, and would bring in the whole runtime. */
const char *tg_ort_version(void)
{
    return "0.0.0";
}

/* The coins of tg_seal, which takes no generator. */
static bool random_is_secret;
enum tg_rc __real_tg_rng_fill(const struct tg_rng *rng, void *out, size_t n);
enum tg_rc __wrap_tg_rng_fill(const struct tg_rng *rng, void *out, size_t n);

enum tg_rc __wrap_tg_rng_fill(const struct tg_rng *rng, void *out, size_t n)
{
    enum tg_rc rc = __real_tg_rng_fill(rng, out, n);
    if (random_is_secret)
        (void)VALGRIND_MAKE_MEM_UNDEFINED(out, n);
    return rc;
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

static bool hex_encode(void)
{
    uint8_t key[32];
    char text[2 * sizeof key + 1];
    secret(key, sizeof key, 100);
    tg_hex_encode(TG_BYTES_OF(key), text);
    return tainted(text, 2 * sizeof key);
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
        (void)VALGRIND_MAKE_MEM_UNDEFINED(seed, TG_KEM_X25519_LEN);
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

/* The combiner around both secrets, with the all-zero check. Here as below the other side knows the
 * public key alone, so that nothing secret is in what it makes. */
static bool decapsulate(void)
{
    struct tg_kem_ct ct;
    uint8_t sent[TG_KEM_SS_LEN], ss[TG_KEM_SS_LEN];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *peer = device(false);
    return sk && peer && tg_kem_encap(tg_kem_sk_pk(peer), NULL, &ct, sent) == TG_OK &&
           tg_kem_decap(sk, &ct, ss) == TG_OK && tainted(ss, sizeof ss) &&
           tg_ct_eq(ss, sent, sizeof ss);
}

/* ---- opening: what every device runs ---- */

/* A key that went through: unknown to memcheck, and the one that was meant. */
static bool is_key(const uint8_t *key, size_t n, const uint8_t *want)
{
    return tainted(key, n) && tg_ct_eq(key, want, n);
}

/* A block for the device; the file key out of it with the device's secret key, the commitment that
 * it is held against, and the key of the payload. */
static bool open_with(enum tg_aead aead)
{
    uint8_t sealed[TG_TGSP_FILE_KEY_LEN] = {3, 1, 4, 1, 5}, opened[TG_TGSP_FILE_KEY_LEN];
    uint8_t made[TG_SHA256_LEN], key[TG_AEAD_KEY_LEN];
    struct tg_tgsp_recipient block;
    struct tg_tgsp_header h = header;
    h.aead = aead;
    struct tg_wrap w = tg_wrap_recipient(&h);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *peer = device(false);
    return sk && peer && tg_wrap_seal(&w, tg_kem_sk_pk(peer), NULL, sealed, &block) == TG_OK &&
           tg_key_commitment(&h, sealed, h.key_commitment) == TG_OK &&
           tg_wrap_open(&w, sk, &block, opened) == TG_OK && is_key(opened, sizeof opened, sealed) &&
           tg_key_commitment(&h, opened, made) == TG_OK &&
           is_key(made, sizeof made, h.key_commitment) &&
           tg_payload_key(&h, opened, key) == TG_OK && tainted(key, sizeof key);
}

static bool open_chacha(void)
{
    return open_with(TG_AEAD_CHACHA20_POLY1305);
}

static bool open_aes(void)
{
    return open_with(TG_AEAD_AES_256_GCM);
}

/* Refused, and nothing of it is left: the verdict is all that comes out. */
static bool open_altered(void)
{
    const uint8_t sealed[TG_TGSP_FILE_KEY_LEN] = {2, 7, 1, 8};
    uint8_t opened[TG_TGSP_FILE_KEY_LEN];
    struct tg_tgsp_recipient block;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *peer = device(false);
    for (enum tg_aead a = 0; a < TG_AEAD_COUNT; a++) {
        struct tg_tgsp_header h = header;
        h.aead = a;
        struct tg_wrap w = tg_wrap_grant(&h, h.manifest_sha256);
        if (!sk || !peer || tg_wrap_seal(&w, tg_kem_sk_pk(peer), NULL, sealed, &block) != TG_OK)
            return false;
        block.wrapped_key[sizeof block.wrapped_key - 1] ^= 1;
        secret(opened, sizeof opened, 1);
        if (tg_wrap_open(&w, sk, &block, opened) != TG_E_AUTH || tainted(opened, sizeof opened))
            return false;
    }
    return true;
}

#define PAYLOAD 1000

/* A chunk in parts, as the reader takes it. */
static bool open_parts(enum tg_aead aead)
{
    static const uint8_t nonce[TG_AEAD_NONCE_LEN] = {1};
    uint8_t plain[PAYLOAD] = {42}, sealed[PAYLOAD + TG_AEAD_TAG_LEN], key[TG_AEAD_KEY_LEN] = {6};
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *seal = NULL;
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = NULL;
    if (__real_tg_aead_new(aead, key, &seal) != TG_OK ||
        tg_aead_seal(seal, nonce, TG_BYTES_NONE, TG_BYTES_OF(plain), sealed) != TG_OK)
        return false;
    (void)VALGRIND_MAKE_MEM_UNDEFINED(key, sizeof key);
    return tg_aead_new(aead, key, &a) == TG_OK &&
           tg_aead_open_begin(a, nonce, TG_BYTES_NONE) == TG_OK &&
           tg_aead_open_part(a, tg_bytes_make(sealed, 512), sealed) == TG_OK &&
           tg_aead_open_part(a, tg_bytes_make(sealed + 512, PAYLOAD - 512), sealed + 512) ==
               TG_OK &&
           tg_aead_open_end(a, sealed + PAYLOAD) == TG_OK && is_key(sealed, PAYLOAD, plain);
}

static bool parts_chacha(void)
{
    return open_parts(TG_AEAD_CHACHA20_POLY1305);
}

static bool parts_aes(void)
{
    return open_parts(TG_AEAD_AES_256_GCM);
}

/* ---- the device's own key for its sealed bake ---- */

static const uint8_t package_h[32] = {8, 8};

static bool derived(void)
{
    uint8_t key[32], other[32];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    return sk && tg_kem_sk_derive(sk, tg_bytes_str("a"), key) == TG_OK && tainted(key, 32) &&
           tg_kem_sk_derive(sk, tg_bytes_str("b"), other) == TG_OK && tainted(other, 32) &&
           !tg_ct_eq(key, other, 32);
}

/* Sealed under the key of its chunks into a file, and opened out of it: two chunks. */
static bool bake(void)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_bake_key key;
    struct tg_bake out = {0};
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    TG_AUTO(tg_secret_freep) struct tg_secret *image = NULL;
    TG_AUTO(tg_secret_freep) struct tg_secret *again = NULL;
    size_t n = TG_BAKE_CHUNK + 100;
    int fd = memfd_create("bake", MFD_CLOEXEC);
    if (!sk || fd < 0 || tg_secret_new(n, &image, &err) != TG_OK)
        return false;
    secret(tg_secret_data(image), n, 12);
    bool good = tg_bake_key_make(sk, package_h, "model.onnx", &key, &err) == TG_OK &&
                tainted(key.device, sizeof key.device) &&
                !tainted(key.context, sizeof key.context) &&
                tg_bake_seal(&(struct tg_bake){image, n}, &key, fd, &err) == TG_OK &&
                tg_bake_unseal(fd, &key, 1, &out, &err) == TG_OK;
    again = out.image;
    good = good && is_key(tg_secret_data(again) + TG_BAKE_CHUNK, 100,
                          tg_secret_data(image) + TG_BAKE_CHUNK);
    (void)close(fd);
    return good;
}

/* ---- what the platform's vault seals and opens ---- */

static bool vault_seal(void)
{
    TG_AUTO(tg_buf_done) struct tg_buf sealed = TG_BUF_INIT(8192);
    uint8_t plain[48];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(false);
    secret(plain, sizeof plain, 13);
    random_is_secret = true;
    bool good = sk && tg_seal(tg_kem_sk_pk(sk), "name", TG_BYTES_OF(plain), &sealed) == TG_OK;
    random_is_secret = false;
    return good && tainted(sealed.data + sealed.n - 64, 48) &&
           tainted(sealed.data + sealed.n - TG_AEAD_TAG_LEN, TG_AEAD_TAG_LEN);
}

static bool vault_open(void)
{
    TG_AUTO(tg_buf_done) struct tg_buf sealed = TG_BUF_INIT(8192);
    TG_AUTO(tg_buf_done) struct tg_buf out = TG_BUF_SECRET(8192);
    TG_AUTO(tg_buf_done) struct tg_buf none = TG_BUF_SECRET(8192);
    const uint8_t plain[48] = {1, 6, 1, 8};
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = device(true);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *peer = device(false);
    return sk && peer &&
           tg_seal(tg_kem_sk_pk(peer), "name", TG_BYTES_OF(plain), &sealed) == TG_OK &&
           tg_seal_open(sk, "name", tg_buf_view(&sealed), &out) == TG_OK && out.n == sizeof plain &&
           is_key(out.data, out.n, plain) &&
           tg_seal_open(sk, "another", tg_buf_view(&sealed), &none) == TG_E_AUTH && none.n == 0;
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

/* Runs that must stay silent, and leaks that must not. A case that goes through one of the
 * functions above runs a second time with a leak there. */
enum { SILENT, LEAKS, HOOKED };

static const struct {
    const char *name;
    bool (*run)(void);
    int how;
} cases[] = {
    {"control: a branch on a key byte is seen",           leaky_branch,      LEAKS },
    {"control: a table indexed by a key is seen",         leaky_table,       LEAKS },
    {"compare equal secrets",                             compare_equal,     SILENT},
    {"compare different secrets",                         compare_different, SILENT},
    {"compare a token's hash",                            token_compare,     HOOKED},
    {"wipe",                                              wipe,              SILENT},
    {"base64url of a key",                                base64_encode,     SILENT},
    {"hex of a key",                                      hex_encode,        SILENT},
    {"KEK derivation",                                    kek,               HOOKED},
    {"wrap a file key, ChaCha20-Poly1305",                wrap_chacha,       HOOKED},
    {"wrap a file key, AES-256-GCM",                      wrap_aes,          HOOKED},
    {"payload key derivation",                            payload_key,       HOOKED},
    {"key commitment and its comparison",                 commitment,        HOOKED},
    {"hybrid encapsulation",                              encapsulate,       HOOKED},
    {"hybrid decapsulation and combiner",                 decapsulate,       HOOKED},
    {"open a block, ChaCha20-Poly1305",                   open_chacha,       HOOKED},
    {"open a block, AES-256-GCM",                         open_aes,          HOOKED},
    {"refuse an altered block",                           open_altered,      HOOKED},
    {"open a chunk in parts, ChaCha20-Poly1305",          parts_chacha,      HOOKED},
    {"open a chunk in parts, AES-256-GCM",                parts_aes,         HOOKED},
    {"a key of the device's own",                         derived,           HOOKED},
    {"a bake's keys, its sealing and opening",            bake,              HOOKED},
    {"the vault's key derivation and sealing",            vault_seal,        HOOKED},
    {"the vault's key derivation and opening, a refusal", vault_open,        HOOKED},
};

static unsigned number, failed;

static void check(size_t i, bool with_leak)
{
    bool must_report = with_leak || cases[i].how == LEAKS;
    unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
    leaking = with_leak;
    bool done = cases[i].run();
    leaking = false;
    (void)VALGRIND_MAKE_MEM_DEFINED(&done, sizeof done);
    unsigned errors = (unsigned)VALGRIND_COUNT_ERRORS - before;
    bool good = done && (errors != 0) == must_report;
    (void)printf("%sok %u - %s%s # %u reports\n", good ? "" : "not ", ++number,
                 with_leak ? "control: a leak is seen in: " : "", cases[i].name, errors);
    failed += !good;
}

int main(void)
{
    size_t hooked = 0;
    if (!RUNNING_ON_VALGRIND) {
        (void)puts("1..0 # SKIP runs under valgrind only");
        return 0;
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(cases); i++)
        hooked += cases[i].how == HOOKED;
    (void)printf("1..%zu\n", TG_ARRAY_LEN(cases) + hooked);
    for (size_t i = 0; i < TG_ARRAY_LEN(cases); i++) {
        check(i, false);
        if (cases[i].how == HOOKED)
            check(i, true);
    }
    return failed != 0;
}
