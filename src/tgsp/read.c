/* Chunks: the digest against the manifest, then the tag, and only then is a byte released (spec
 * §4). */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "tgsp/construct_internal.h"
#include "tgsp/package_internal.h"

struct tg_tgsp_worker {
    struct tg_tgsp *p;
    struct tg_chunk_hasher hasher;
    struct tg_aead_ctx *aead; /* NULL: only checks digests */
    uint8_t *stored;          /* one chunk as it is in the file */
};

static enum tg_rc worker_new(struct tg_tgsp *p, bool decrypt, struct tg_tgsp_worker **out,
                             struct tg_err *err)
{
    TG_AUTO(tg_tgsp_worker_freep) struct tg_tgsp_worker *w = tg_calloc(1, sizeof *w);
    enum tg_rc rc = w ? tg_chunk_hasher_init(&w->hasher) : TG_E_NOMEM;
    if (rc == TG_OK) {
        w->p = p;
        w->stored = tg_alloc((size_t)tg_tgsp_chunk_plain(&p->geometry, 0) + TG_AEAD_TAG_LEN);
        rc = w->stored ? TG_OK : TG_E_NOMEM;
    }
    if (rc == TG_OK && decrypt)
        rc = tg_aead_new(p->header.aead, tg_tgsp_keys_get(p)->payload_key, &w->aead);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: can't prepare to read chunks (%s)", p->src.name,
                       tg_rc_text(rc));
    *out = tg_steal(&w);
    return TG_OK;
}

enum tg_rc tg_tgsp_worker_new(struct tg_tgsp *p, struct tg_tgsp_worker **out, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    return worker_new(p, true, out, err);
}

void tg_tgsp_worker_free(struct tg_tgsp_worker *w)
{
    if (!w)
        return;
    tg_chunk_hasher_done(&w->hasher);
    tg_aead_free(w->aead);
    tg_free(w->stored);
    tg_free(w);
}

/* Read chunk i and hold it against its digest. */
static enum tg_rc chunk_fetch(struct tg_tgsp_worker *w, uint64_t i, struct tg_bytes *sealed,
                              struct tg_err *err)
{
    const struct tg_tgsp *p = w->p;
    uint8_t md[TG_SHA256_LEN];
    size_t n = (size_t)tg_tgsp_chunk_plain(&p->geometry, i) + TG_AEAD_TAG_LEN;
    uint64_t off = p->sec[TG_TGSP_SEC_PAYLOAD].off + tg_tgsp_chunk_offset(&p->geometry, i);
    TG_TRY(tg_src_read(&p->src, w->stored, n, off, err));
    *sealed = tg_bytes_make(w->stored, n);
    enum tg_rc rc = tg_chunk_digest(&w->hasher, *sealed, md);
    if (rc == TG_OK &&
        !tg_mem_eq(md, p->manifest.payload.chunk_digests.p + i * TG_SHA256_LEN, sizeof md))
        rc = TG_E_AUTH;
    if (rc != TG_OK)
        return TG_FAIL(err, rc,
                       "%s: payload, offset %" PRIu64 ", chunk %" PRIu64
                       ": its digest is not the one in the manifest; get a fresh copy",
                       p->src.name, off, i);
    return TG_OK;
}

enum tg_rc tg_tgsp_worker_chunk(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out,
                                struct tg_err *err)
{
    struct tg_bytes sealed;
    uint8_t nonce[TG_AEAD_NONCE_LEN];
    const struct tg_tgsp *p = w->p;
    if (i >= p->geometry.chunks)
        return TG_FAIL(err, TG_E_LIMIT, "%s: payload: no chunk %" PRIu64, p->src.name, i);
    enum tg_rc rc = chunk_fetch(w, i, &sealed, err);
    if (rc != TG_OK) {
        tg_wipe(out, (size_t)tg_tgsp_chunk_plain(&p->geometry, i));
        return rc;
    }
    tg_chunk_nonce(i, i + 1 == p->geometry.chunks, nonce);
    rc = tg_aead_open(w->aead, nonce, TG_BYTES_NONE, sealed, out);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: payload, chunk %" PRIu64 ": its tag does not match",
                       p->src.name, i);
    return TG_OK;
}

static bool all_zero(struct tg_bytes b)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < b.n; i++)
        sum |= b.p[i];
    return sum == 0;
}

size_t tg_tgsp_file_after(const struct tg_tgsp_file *v, size_t n, uint64_t off)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (v[mid].offset + v[mid].size <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

enum tg_rc tg_tgsp_check_gaps(const struct tg_tgsp *p, uint64_t off, struct tg_bytes plain,
                              struct tg_err *err)
{
    const struct tg_tgsp_file *v = p->manifest.files.items;
    size_t n = p->manifest.files.n, i = tg_tgsp_file_after(v, n, off);
    uint64_t end = off + plain.n;
    uint64_t at = off; /* everything before it is seen */
    /* i may be past the last file: then all that is left is before payload_plain_len, which is the
     * last file's end, so there is no gap there. */
    for (; i < n && at < end; i++) {
        uint64_t from = v[i].offset < end ? v[i].offset : end;
        if (from > at && !all_zero(tg_bytes_sub(plain, (size_t)(at - off), (size_t)(from - at))))
            return TG_FAIL(err, TG_E_FORMAT,
                           "%s: payload: bytes that are not zero before manifest.files[%zu]",
                           p->src.name, i);
        at = v[i].offset + v[i].size;
    }
    return TG_OK;
}

/* ---- all chunks, in parallel ---------------------------------------------------------------- */

struct bulk {
    struct tg_tgsp *p;
    struct tg_tgsp_worker **workers;
    unsigned n;
    const struct tg_tgsp_run *run;
    uint8_t *out;   /* NULL: only check */
    uint64_t first; /* chunk of work item 0 */
    size_t slot;    /* bytes between two chunks in out */
};

static void bulk_done(struct bulk *b)
{
    for (unsigned i = 0; b->workers && i < b->n; i++)
        tg_tgsp_worker_free(b->workers[i]);
    tg_free(b->workers);
}

static enum tg_rc bulk_init(struct bulk *b, struct tg_tgsp *p, const struct tg_tgsp_run *run,
                            bool decrypt, struct tg_err *err)
{
    unsigned threads = run && run->threads ? run->threads : tg_thread_cpus();
    b->p = p;
    b->run = run;
    b->n = threads < p->geometry.chunks ? threads : (unsigned)p->geometry.chunks;
    b->slot = (size_t)p->geometry.chunk_size;
    b->workers = tg_calloc(b->n, sizeof *b->workers);
    if (!b->workers)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", p->src.name);
    for (unsigned i = 0; i < b->n; i++)
        TG_TRY(worker_new(p, decrypt, &b->workers[i], err));
    return TG_OK;
}

static void progress(const struct bulk *b, uint64_t n)
{
    if (b->run)
        tg_progress_add(b->run->progress, n);
}

static enum tg_rc decrypt_item(void *ctx, uint64_t k, unsigned worker, struct tg_err *err)
{
    struct bulk *b = ctx;
    uint64_t i = b->first + k;
    uint8_t *to = b->out + k * b->slot;
    size_t n = (size_t)tg_tgsp_chunk_plain(&b->p->geometry, i);
    TG_TRY(tg_tgsp_worker_chunk(b->workers[worker], i, to, err));
    enum tg_rc rc =
        tg_tgsp_check_gaps(b->p, i * b->p->geometry.chunk_size, tg_bytes_make(to, n), err);
    if (rc == TG_OK)
        progress(b, n);
    return rc;
}

enum tg_rc tg_tgsp_read_all(struct tg_tgsp *p, uint8_t *out, const struct tg_tgsp_run *run,
                            struct tg_err *err)
{
    TG_AUTO(bulk_done) struct bulk b = {.out = out};
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    enum tg_rc rc = bulk_init(&b, p, run, true, err);
    if (rc == TG_OK)
        rc = tg_thread_run(b.n, p->geometry.chunks, decrypt_item, &b, err);
    if (rc != TG_OK && p->geometry.plain_len)
        tg_wipe(out, (size_t)p->geometry.plain_len);
    return rc;
}

static enum tg_rc sink_batch(const struct bulk *b, uint64_t n, tg_tgsp_sink_fn *sink, void *ctx,
                             struct tg_err *err)
{
    for (uint64_t k = 0; k < n; k++) {
        uint64_t i = b->first + k;
        struct tg_bytes plain =
            tg_bytes_make(b->out + k * b->slot, (size_t)tg_tgsp_chunk_plain(&b->p->geometry, i));
        TG_TRY(sink(ctx, i * b->p->geometry.chunk_size, plain, err));
    }
    return TG_OK;
}

enum tg_rc tg_tgsp_stream(struct tg_tgsp *p, tg_tgsp_sink_fn *sink, void *ctx,
                          const struct tg_tgsp_run *run, struct tg_err *err)
{
    TG_AUTO(bulk_done) struct bulk b = {.first = 0};
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    TG_TRY(bulk_init(&b, p, run, true, err));
    size_t bytes = 2 * (size_t)b.n * b.slot;
    b.out = tg_alloc(bytes);
    if (!b.out)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", p->src.name);
    enum tg_rc rc = TG_OK;
    while (rc == TG_OK && b.first < p->geometry.chunks) {
        uint64_t left = p->geometry.chunks - b.first;
        uint64_t n = left < 2 * (uint64_t)b.n ? left : 2 * (uint64_t)b.n;
        rc = tg_thread_run(b.n, n, decrypt_item, &b, err);
        if (rc == TG_OK)
            rc = sink_batch(&b, n, sink, ctx, err);
        b.first += n;
    }
    tg_wipe(b.out, bytes);
    tg_free(b.out);
    return rc;
}

static enum tg_rc check_item(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct bulk *b = ctx;
    struct tg_bytes sealed;
    TG_TRY(chunk_fetch(b->workers[worker], i, &sealed, err));
    progress(b, sealed.n);
    return TG_OK;
}

enum tg_rc tg_tgsp_check_payload(struct tg_tgsp *p, const struct tg_tgsp_run *run,
                                 struct tg_err *err)
{
    TG_AUTO(bulk_done) struct bulk b = {.out = NULL};
    TG_TRY(tg_tgsp_need(p, TG_STAGE_INSPECTED, err));
    TG_TRY(bulk_init(&b, p, run, false, err));
    return tg_thread_run(b.n, p->geometry.chunks, check_item, &b, err);
}

/* ---- a byte range ---------------------------------------------------------------------------- */

/* A range being read: whole chunks go straight to where they belong, edges through scratch. */
struct range {
    struct tg_tgsp_worker *w;
    struct tg_buf scratch;
};

static void range_done(struct range *r)
{
    tg_tgsp_worker_free(r->w);
    tg_buf_done(&r->scratch);
}

/* n bytes from `from` in chunk i. */
static enum tg_rc range_chunk(struct range *r, uint64_t i, size_t from, struct tg_buf *out,
                              struct tg_err *err)
{
    const struct tg_tgsp *p = r->w->p;
    uint8_t *plain;
    size_t have = (size_t)tg_tgsp_chunk_plain(&p->geometry, i), left = out->max - out->n;
    size_t n = have - from < left ? have - from : left;
    if (n == have) {
        TG_TRY(tg_tgsp_worker_chunk(r->w, i, out->data + out->n, err));
    } else {
        tg_buf_clear(&r->scratch);
        if (tg_buf_reserve(&r->scratch, have, &plain) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", p->src.name);
        TG_TRY(tg_tgsp_worker_chunk(r->w, i, plain, err));
        tg_buf_grow(&r->scratch, have);
        memcpy(out->data + out->n, plain + from, n);
    }
    out->n += n;
    return TG_OK;
}

static enum tg_rc range_read(struct tg_tgsp *p, uint64_t off, struct tg_buf *out,
                             struct tg_err *err)
{
    TG_AUTO(range_done) struct range r = {NULL, TG_BUF_SECRET(TG_TGSP_CHUNK_MAX)};
    uint64_t size = p->geometry.chunk_size;
    TG_TRY(worker_new(p, true, &r.w, err));
    while (out->n < out->max) {
        uint64_t at = off + out->n;
        TG_TRY(range_chunk(&r, at / size, (size_t)(at % size), out, err));
    }
    return TG_OK;
}

enum tg_rc tg_tgsp_read(struct tg_tgsp *p, uint64_t off, void *out, size_t n, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    if (off > p->geometry.plain_len || n > p->geometry.plain_len - off)
        return TG_FAIL(err, TG_E_LIMIT,
                       "%s: payload: %zu bytes at %" PRIu64 " are not in its %" PRIu64 " bytes",
                       p->src.name, n, off, p->geometry.plain_len);
    /* The caller's memory, filled up to n; never grown or freed. */
    struct tg_buf to = {.data = out, .max = n, .cap = n};
    enum tg_rc rc = range_read(p, off, &to, err);
    if (rc != TG_OK && n)
        tg_wipe(out, n);
    return rc;
}
