#include "moai/bake_seal.h"

#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/file.h"
#include "base/mem.h"
#include "base/thread.h"
#include "crypto/aead.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "moai/bake_layout.h"

#define NAME "sealed bake"

static const char magic[8] = "TGBAKE1";
static const char device_info[] = "TGSP-1.0 bake device key";
static const char chunk_info[] = "TGSP-1.0 bake chunks";
/* To be raised when the image, or what ONNX Runtime is told, changes. */
#define IMAGE_VERSION 1

/* Where the parts of the head begin. */
enum { AT_SUITE = 8, AT_CONTEXT = 12, AT_SALT = 44, AT_SIZE = 76, AT_KEEP = 84 };

/* ---- what a bake depends on ---- */

/* The processor's abilities: kernels, and with them the layout of weights, are chosen by them. */
static enum tg_rc add_processor(struct tg_buf *b)
{
#if defined(__x86_64__)
    static const struct {
        unsigned leaf, sub;
    } leaves[] = {
        {0, 0},
        {1, 0},
        {7, 0},
        {7, 1},
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(leaves); i++) {
        unsigned r[4] = {0};

        (void)__get_cpuid_count(leaves[i].leaf, leaves[i].sub, &r[0], &r[1], &r[2], &r[3]);
        if (leaves[i].leaf == 1)
            r[1] = 0; /* which processor of the machine this is */
        for (size_t k = 0; k < 4; k++)
            TG_TRY(tg_buf_be32(b, r[k]));
    }
#endif
    TG_TRY(tg_buf_be64(b, getauxval(AT_HWCAP)));
    return tg_buf_be64(b, getauxval(AT_HWCAP2));
}

static enum tg_rc add_text(struct tg_buf *b, const char *s)
{
    TG_TRY(tg_buf_be32(b, (uint32_t)strlen(s)));
    return tg_buf_str(b, s);
}

static enum tg_rc context(const uint8_t h[32], const char *file, uint8_t out[32])
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(8192);

    TG_TRY(tg_buf_append(&b, h, 32));
    TG_TRY(tg_buf_be32(&b, IMAGE_VERSION));
    TG_TRY(add_text(&b, TG_VERSION));
    TG_TRY(add_text(&b, tg_ort_version()));
    TG_TRY(add_text(&b, file));
    TG_TRY(add_processor(&b));
    return tg_sha256(tg_buf_view(&b), out);
}

enum tg_rc tg_bake_key_make(const struct tg_kem_sk *sk, const uint8_t h[32], const char *file,
                            struct tg_bake_key *out, struct tg_err *err)
{
    enum tg_rc rc = context(h, file, out->context);

    if (rc == TG_OK)
        rc = tg_kem_sk_derive(sk, tg_bytes_str(device_info), out->device);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "no key for a sealed bake: %s", tg_rc_text(rc));
    return TG_OK;
}

/* ---- chunks ---- */

struct chunks {
    uint8_t key[TG_AEAD_KEY_LEN];
    enum tg_aead suite;
    uint8_t head[TG_BAKE_HEAD];
    int fd;
    uint8_t *image;
    size_t size;
    struct tg_aead_ctx **aead; /* of each thread */
    uint8_t **scratch;
    unsigned threads;
};

static void chunks_done(struct chunks *c)
{
    for (unsigned i = 0; i < c->threads; i++) {
        if (c->aead != NULL)
            tg_aead_free(c->aead[i]);
        if (c->scratch != NULL)
            tg_free(c->scratch[i]);
    }
    tg_free((void *)c->aead);
    tg_free((void *)c->scratch);
    tg_wipe(c, sizeof(*c));
}

static uint64_t count(const struct chunks *c)
{
    return (c->size + TG_BAKE_CHUNK - 1) / TG_BAKE_CHUNK;
}

static size_t length(const struct chunks *c, uint64_t i)
{
    size_t left = c->size - (size_t)i * TG_BAKE_CHUNK;

    return left < TG_BAKE_CHUNK ? left : TG_BAKE_CHUNK;
}

static void nonce(const struct chunks *c, uint64_t i, uint8_t out[TG_AEAD_NONCE_LEN])
{
    tg_put_be32(out, i + 1 == count(c));
    tg_put_be64(out + 4, i);
}

static enum tg_rc chunks_begin(struct chunks *c, const struct tg_bake_key *key, unsigned threads,
                               struct tg_err *err)
{
    uint8_t info[sizeof(chunk_info) - 1 + 32];
    enum tg_rc rc;

    memcpy(info, chunk_info, sizeof(chunk_info) - 1);
    memcpy(info + sizeof(chunk_info) - 1, c->head + AT_CONTEXT, 32);
    rc = tg_hkdf_sha256(TG_BYTES_OF(key->device), tg_bytes_make(c->head + AT_SALT, 32),
                        TG_BYTES_OF(info), c->key, sizeof(c->key));
    c->threads = threads;
    c->aead = tg_calloc(threads, sizeof(*c->aead));
    c->scratch = tg_calloc(threads, sizeof(*c->scratch));
    if (rc == TG_OK && (c->aead == NULL || c->scratch == NULL))
        rc = TG_E_NOMEM;
    for (unsigned i = 0; rc == TG_OK && i < threads; i++) {
        rc = tg_aead_new(c->suite, c->key, &c->aead[i]);
        c->scratch[i] = tg_alloc(TG_BAKE_CHUNK + TG_AEAD_TAG_LEN);
        if (rc == TG_OK && c->scratch[i] == NULL)
            rc = TG_E_NOMEM;
    }
    return rc == TG_OK ? TG_OK : TG_FAIL(err, rc, NAME ": %s", tg_rc_text(rc));
}

/* ---- sealing ---- */

/* AES where the processor does it. */
static enum tg_aead best_suite(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") ? TG_AEAD_AES_256_GCM : TG_AEAD_CHACHA20_POLY1305;
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & (1UL << 3)) != 0 ? TG_AEAD_AES_256_GCM
                                                   : TG_AEAD_CHACHA20_POLY1305;
#else
    return TG_AEAD_CHACHA20_POLY1305;
#endif
}

static enum tg_rc write_chunks(struct chunks *c, struct tg_err *err)
{
    TG_TRY(tg_fd_write(c->fd, NAME, c->head, sizeof(c->head), err));
    for (uint64_t i = 0; i < count(c); i++) {
        uint8_t n[TG_AEAD_NONCE_LEN];
        struct tg_bytes plain = tg_bytes_make(c->image + i * TG_BAKE_CHUNK, length(c, i));

        nonce(c, i, n);
        if (tg_aead_seal(c->aead[0], n, TG_BYTES_OF(c->head), plain, c->scratch[0]) != TG_OK)
            return TG_FAIL(err, TG_E_INTERNAL, NAME ": encryption failed");
        TG_TRY(tg_fd_write(c->fd, NAME, c->scratch[0], plain.n + TG_AEAD_TAG_LEN, err));
    }
    return TG_OK;
}

enum tg_rc tg_bake_seal(const struct tg_bake *b, const struct tg_bake_key *key, int fd,
                        struct tg_err *err)
{
    TG_AUTO(chunks_done)
    struct chunks c = {.suite = best_suite(),
                       .fd = fd,
                       .image = tg_secret_data(b->image),
                       .size = tg_secret_size(b->image)};
    enum tg_rc rc;

    memcpy(c.head, magic, sizeof(magic));
    c.head[AT_SUITE] = (uint8_t)c.suite;
    memcpy(c.head + AT_CONTEXT, key->context, 32);
    if (tg_random(c.head + AT_SALT, 32) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, NAME ": no random numbers");
    tg_put_be64(c.head + AT_SIZE, c.size);
    tg_put_be64(c.head + AT_KEEP, b->keep);
    TG_TRY(chunks_begin(&c, key, 1, err));
    rc = write_chunks(&c, err);
    if (rc != TG_OK) /* half a bake is none, and takes room */
        (void)!ftruncate(fd, 0);
    return rc;
}

/* ---- opening ---- */

static enum tg_rc open_chunk(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct chunks *c = ctx;
    size_t n = length(c, i) + TG_AEAD_TAG_LEN;
    uint64_t at = TG_BAKE_HEAD + i * (TG_BAKE_CHUNK + TG_AEAD_TAG_LEN);
    uint8_t once[TG_AEAD_NONCE_LEN];
    enum tg_rc rc;

    TG_TRY(tg_fd_pread(c->fd, NAME, c->scratch[worker], n, at, err));
    nonce(c, i, once);
    rc = tg_aead_open(c->aead[worker], once, TG_BYTES_OF(c->head),
                      tg_bytes_make(c->scratch[worker], n), c->image + i * TG_BAKE_CHUNK);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, NAME ": %s", tg_rc_verdict(rc, "changed, or of another device"));
    return TG_OK;
}

/* The head against the key and the file's size, before anything is allocated by it. */
static enum tg_rc check_head(struct chunks *c, const struct tg_bake_key *key, uint64_t file,
                             size_t *keep, struct tg_err *err)
{
    uint64_t size = tg_get_be64(c->head + AT_SIZE), kept = tg_get_be64(c->head + AT_KEEP);

    if (!tg_mem_eq(c->head, magic, sizeof(magic)) || c->head[AT_SUITE] >= TG_AEAD_COUNT)
        return TG_FAIL(err, TG_E_FORMAT, NAME ": not one");
    if (!tg_mem_eq(c->head + AT_CONTEXT, key->context, 32))
        return TG_FAIL(err, TG_E_STATE,
                       NAME ": made for another package, ONNX Runtime, processor or version");
    if (size == 0 || size > TG_BAKE_MAX || kept > size)
        return TG_FAIL(err, TG_E_LIMIT, NAME ": sizes that can't be");
    c->suite = (enum tg_aead)c->head[AT_SUITE];
    c->size = (size_t)size;
    *keep = (size_t)kept;
    if (file != TG_BAKE_HEAD + size + count(c) * TG_AEAD_TAG_LEN)
        return TG_FAIL(err, TG_E_FORMAT, NAME ": cut");
    return TG_OK;
}

enum tg_rc tg_bake_unseal(int fd, const struct tg_bake_key *key, unsigned threads,
                          struct tg_bake *out, struct tg_err *err)
{
    TG_AUTO(chunks_done) struct chunks c = {.fd = fd};
    TG_AUTO(tg_secret_freep) struct tg_secret *image = NULL;
    uint64_t file = 0;
    size_t keep = 0;

    TG_TRY(tg_fd_size(fd, NAME, &file, err));
    if (file == 0)
        return TG_FAIL(err, TG_E_NOTFOUND, NAME ": empty");
    if (file < TG_BAKE_HEAD)
        return TG_FAIL(err, TG_E_FORMAT, NAME ": cut");
    TG_TRY(tg_fd_pread(fd, NAME, c.head, sizeof(c.head), 0, err));
    TG_TRY(check_head(&c, key, file, &keep, err));
    TG_TRY(tg_secret_new(c.size, &image, err));
    c.image = tg_secret_data(image);
    TG_TRY(chunks_begin(&c, key, threads == 0 ? 1 : threads, err));
    TG_TRY(tg_thread_run(c.threads, count(&c), open_chunk, &c, err));
    *out = (struct tg_bake){.image = tg_steal(&image), .keep = keep};
    return TG_OK;
}
