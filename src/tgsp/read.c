/* The engine's bulk work: threads over independent chunks, for verify, open, ranged reads and the
 * worker's load alike (spec §4). What happens to one chunk is in worker.c. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "tgsp/package_internal.h"
#include "tgsp/select_internal.h"

/* ---- gaps ------------------------------------------------------------------------------------ */

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

/* ---- bulk ------------------------------------------------------------------------------------ */

/* One thread's part. */
struct lane {
    struct tg_tgsp_worker *w;
    uint8_t *plain; /* one chunk, for what has no final address of its own; made when needed */
};

struct bulk {
    struct tg_tgsp *p;
    const struct tg_tgsp_run *run;
    bool decrypt;
    struct lane *lanes;
    unsigned n_lanes;
    uint64_t first, n; /* chunks, or entries of run->only->chunks */
    /* [off, off + len) of the plaintext goes to out; out NULL: nothing goes anywhere */
    uint8_t *out;
    uint64_t off, len;
    tg_tgsp_sink_fn *sink; /* or chunk by chunk to here; NULL: not */
    void *ctx;
};

static const struct tg_tgsp_select *only(const struct bulk *b)
{
    return b->run ? b->run->only : NULL;
}

/* The first chunk is as large as any. */
static size_t lane_bytes(const struct bulk *b)
{
    return (size_t)tg_tgsp_chunk_plain(&b->p->geometry, 0);
}

/* The next small read starts with what this one leaves: its keys are expanded already. */
static void lane_done(const struct bulk *b, struct lane *l)
{
    struct tg_tgsp_worker *none = NULL;
    if (l->plain)
        tg_wipe(l->plain, lane_bytes(b));
    tg_free(l->plain);
    if (!b->decrypt || !atomic_compare_exchange_strong(&b->p->spare, &none, l->w))
        tg_tgsp_worker_free(l->w);
}

static void bulk_done(struct bulk *b)
{
    for (unsigned i = 0; b->lanes && i < b->n_lanes; i++)
        lane_done(b, &b->lanes[i]);
    tg_free(b->lanes);
}

static enum tg_rc lanes_make(struct bulk *b, struct tg_err *err)
{
    unsigned threads = b->run && b->run->threads ? b->run->threads : tg_thread_cpus();
    b->n_lanes = threads < b->n ? threads : (unsigned)b->n;
    b->lanes = tg_calloc(b->n_lanes, sizeof *b->lanes);
    if (!b->lanes)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", b->p->src.name);
    for (unsigned i = 0; i < b->n_lanes; i++) {
        if (b->decrypt)
            b->lanes[i].w = atomic_exchange(&b->p->spare, NULL);
        if (!b->lanes[i].w)
            TG_TRY(tg_tgsp_engine_new(b->p, b->decrypt, &b->lanes[i].w, err));
    }
    return TG_OK;
}

/* Where the n bytes at `at` are decrypted to: their final address if all of them have one, else
 * the lane's own chunk. NULL: out of memory. */
static uint8_t *place(const struct bulk *b, struct lane *l, uint64_t at, size_t n)
{
    if (b->out && at >= b->off && n <= b->len - (at - b->off))
        return b->out + (at - b->off);
    if (!l->plain)
        l->plain = tg_alloc(lane_bytes(b));
    return l->plain;
}

/* The part of [at, at + n) that was asked for. */
static void edge_copy(const struct bulk *b, uint64_t at, const uint8_t *plain, size_t n)
{
    uint64_t from = at > b->off ? at : b->off;
    uint64_t to = at + n < b->off + b->len ? at + n : b->off + b->len;
    memcpy(b->out + (from - b->off), plain + (from - at), (size_t)(to - from));
}

static enum tg_rc chunk_decrypt(struct bulk *b, uint64_t i, struct lane *l, struct tg_err *err)
{
    uint64_t at = i * b->p->geometry.chunk_size;
    size_t n = (size_t)tg_tgsp_chunk_plain(&b->p->geometry, i);
    uint8_t *to = place(b, l, at, n);
    if (!to)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", b->p->src.name);
    TG_TRY(tg_tgsp_engine_chunk(l->w, i, to, err));
    TG_TRY(tg_tgsp_check_gaps(b->p, at, tg_bytes_make(to, n), err));
    if (b->sink)
        return b->sink(b->ctx, at, tg_bytes_make(to, n), err);
    if (b->out && to == l->plain)
        edge_copy(b, at, to, n);
    return TG_OK;
}

static enum tg_rc chunk_do(struct bulk *b, uint64_t i, struct lane *l, struct tg_err *err)
{
    TG_TRY(b->decrypt ? chunk_decrypt(b, i, l, err) : tg_tgsp_engine_chunk(l->w, i, NULL, err));
    if (b->run)
        tg_progress_add(b->run->progress, tg_tgsp_chunk_plain(&b->p->geometry, i));
    return TG_OK;
}

static struct tg_follow *follow(const struct bulk *b)
{
    return b->run ? b->run->follow : NULL;
}

/* Whichever chunk has arrived; one that is wrong once more, when it has been fetched again. */
static enum tg_rc follow_item(struct bulk *b, struct lane *l, struct tg_err *err)
{
    uint64_t i;
    enum tg_rc rc;
    TG_TRY(tg_follow_next(follow(b), &i, err));
    rc = chunk_do(b, i, l, err);
    if (rc == TG_E_AUTH && (rc = tg_follow_again(follow(b), i, rc, err)) == TG_OK)
        rc = chunk_do(b, i, l, err);
    if (rc != TG_OK)
        tg_follow_stop(follow(b), rc, err); /* the others wait for nothing any more */
    return rc;
}

static enum tg_rc item(void *ctx, uint64_t k, unsigned worker, struct tg_err *err)
{
    struct bulk *b = ctx;
    struct lane *l = &b->lanes[worker];
    if (follow(b))
        return follow_item(b, l, err);
    return chunk_do(b, only(b) ? only(b)->chunks[k] : b->first + k, l, err);
}

static enum tg_rc bulk_go(struct bulk *b, struct tg_err *err)
{
    if (b->n == 0)
        return TG_OK;
    if (follow(b))
        TG_TRY(tg_follow_plan(follow(b), b->p->sec[TG_TGSP_SEC_PAYLOAD].off, &b->p->geometry, err));
    TG_TRY(lanes_make(b, err));
    return tg_thread_run(b->n_lanes, b->n, item, b, err);
}

static uint64_t all_or(const struct tg_tgsp *p, const struct tg_tgsp_run *run)
{
    return run && run->only ? run->only->n_chunks : p->geometry.chunks;
}

enum tg_rc tg_tgsp_read_all(struct tg_tgsp *p, uint8_t *out, const struct tg_tgsp_run *run,
                            struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    TG_AUTO(bulk_done)
    struct bulk b = {.p = p,
                     .run = run,
                     .decrypt = true,
                     .n = all_or(p, run),
                     .out = out,
                     .len = p->geometry.plain_len};
    enum tg_rc rc = bulk_go(&b, err);
    if (rc != TG_OK && b.len)
        tg_wipe(out, (size_t)b.len);
    return rc;
}

enum tg_rc tg_tgsp_each(struct tg_tgsp *p, tg_tgsp_sink_fn *sink, void *ctx,
                        const struct tg_tgsp_run *run, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    TG_AUTO(bulk_done)
    struct bulk b = {
        .p = p, .run = run, .decrypt = true, .n = all_or(p, run), .sink = sink, .ctx = ctx};
    return bulk_go(&b, err);
}

enum tg_rc tg_tgsp_check_payload(struct tg_tgsp *p, const struct tg_tgsp_run *run,
                                 struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_INSPECTED, err));
    TG_AUTO(bulk_done) struct bulk b = {.p = p, .run = run, .n = all_or(p, run)};
    return bulk_go(&b, err);
}

enum tg_rc tg_tgsp_read(struct tg_tgsp *p, uint64_t off, void *out, size_t n, unsigned threads,
                        struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    if (off > p->geometry.plain_len || n > p->geometry.plain_len - off)
        return TG_FAIL(err, TG_E_LIMIT,
                       "%s: payload: %zu bytes at %" PRIu64 " are not in its %" PRIu64 " bytes",
                       p->src.name, n, off, p->geometry.plain_len);
    if (n == 0)
        return TG_OK;
    uint64_t first = off / p->geometry.chunk_size, last = (off + n - 1) / p->geometry.chunk_size;
    const struct tg_tgsp_run run = {.threads = threads};
    TG_AUTO(bulk_done)
    struct bulk b = {.p = p,
                     .run = &run,
                     .decrypt = true,
                     .first = first,
                     .n = last - first + 1,
                     .out = out,
                     .off = off,
                     .len = n};
    enum tg_rc rc = bulk_go(&b, err);
    if (rc != TG_OK)
        tg_wipe(out, n);
    return rc;
}
