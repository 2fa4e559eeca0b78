#include "tgsp/follow.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/aead.h"
#include "tgsp/arrival.h"

/* A thread that waits looks up this often at least: at a stop nobody rings the bell. */
#define LOOK_MS 250

struct tg_follow {
    struct tg_follow_opts o;
    struct tg_arrival *page;
    uint64_t size;
    pthread_mutex_t lock; /* guards what follows */
    struct tg_arrived now;
    bool settled; /* everything is there */
    bool stopped;
    enum tg_rc rc; /* why */
    struct tg_err err;
    uint64_t asked; /* ranges asked for again */
    uint64_t payload;
    struct tg_tgsp_geometry g;
    uint64_t *given, *tried; /* a bit per chunk: handed out; asked for again */
};

enum tg_rc tg_follow_new(const struct tg_follow_opts *opts, struct tg_follow **out,
                         struct tg_err *err)
{
    TG_AUTO(tg_follow_freep) struct tg_follow *f = tg_calloc(1, sizeof *f);
    if (!f || pthread_mutex_init(&f->lock, NULL) != 0) {
        tg_free(tg_steal(&f));
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    f->o = *opts;
    TG_TRY(tg_arrival_open(opts->arrival, &f->page, err));
    TG_TRY(tg_fd_size(opts->file, opts->name, &f->size, err));
    if (f->size != tg_arrival_size(f->page))
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: the arrival page is of a file of %" PRIu64 " bytes, this one has "
                       "%" PRIu64,
                       opts->name, tg_arrival_size(f->page), f->size);
    *out = tg_steal(&f);
    return TG_OK;
}

void tg_follow_free(struct tg_follow *f)
{
    if (!f)
        return;
    tg_arrival_free(f->page);
    tg_free(f->given);
    tg_free(f->tried);
    (void)pthread_mutex_destroy(&f->lock);
    tg_free(f);
}

/* ---- waiting ---- */

/* Locked. Look at the page; on failure every wait ends. */
static enum tg_rc look(struct tg_follow *f, struct tg_err *err)
{
    if (f->stopped) {
        if (err)
            *err = f->err;
        return f->rc;
    }
    struct tg_arrived now;
    enum tg_rc rc = tg_arrival_look(f->page, &now, err);
    f->now.bell = now.bell;
    if (rc == TG_E_AGAIN)
        return TG_OK; /* what we know is still true */
    TG_TRY(rc);
    f->now = now;
    return TG_OK;
}

/* Locked before and after. What is waited for is not there. */
static enum tg_rc wait_more(struct tg_follow *f, struct tg_err *err)
{
    uint32_t bell = f->now.bell;
    if (f->now.ended)
        return TG_FAIL(err, TG_E_CLOSED, "%s: the download ended before it was complete",
                       f->o.name);
    (void)pthread_mutex_unlock(&f->lock);
    tg_arrival_wait(f->page, bell, LOOK_MS);
    (void)pthread_mutex_lock(&f->lock);
    return TG_OK;
}

static enum tg_rc wait_bytes(struct tg_follow *f, uint64_t off, uint64_t end, struct tg_err *err)
{
    enum tg_rc rc;
    (void)pthread_mutex_lock(&f->lock);
    rc = f->settled ? TG_OK : look(f, err);
    while (rc == TG_OK && !f->settled && !tg_spans_has(&f->now.there, off, end))
        if ((rc = wait_more(f, err)) == TG_OK)
            rc = look(f, err);
    (void)pthread_mutex_unlock(&f->lock);
    return rc;
}

static enum tg_rc follow_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                              struct tg_err *err)
{
    struct tg_follow *f = ctx;
    if (off > f->size || n > f->size - off)
        return TG_FAIL(err, TG_E_FORMAT, "%s: ends at %" PRIu64 ", need %zu bytes at %" PRIu64,
                       name, f->size, n, off);
    TG_TRY(wait_bytes(f, off, off + n, err));
    return tg_fd_pread(f->o.file, name, p, n, off, err);
}

void tg_follow_src(struct tg_follow *f, struct tg_src *out)
{
    *out = (struct tg_src){follow_read, f, f->o.name, f->size};
}

void tg_follow_settle(struct tg_follow *f)
{
    (void)pthread_mutex_lock(&f->lock);
    f->settled = true;
    (void)pthread_mutex_unlock(&f->lock);
}

void tg_follow_stop(struct tg_follow *f, enum tg_rc rc, const struct tg_err *err)
{
    (void)pthread_mutex_lock(&f->lock);
    if (!f->stopped) {
        f->stopped = true;
        f->rc = rc;
        f->err = *err;
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* ---- chunks ---- */

static bool bit(const uint64_t *bits, uint64_t i)
{
    return (bits[i / 64] >> (i % 64) & 1) != 0;
}

static void bit_set(uint64_t *bits, uint64_t i)
{
    bits[i / 64] |= UINT64_C(1) << (i % 64);
}

enum tg_rc tg_follow_plan(struct tg_follow *f, uint64_t payload, const struct tg_tgsp_geometry *g,
                          struct tg_err *err)
{
    size_t words = (size_t)(g->chunks / 64) + 1;
    f->payload = payload;
    f->g = *g;
    tg_free(f->given);
    tg_free(f->tried);
    f->given = tg_calloc(words, sizeof *f->given);
    f->tried = tg_calloc(words, sizeof *f->tried);
    if (!f->given || !f->tried)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", f->o.name);
    return TG_OK;
}

static struct tg_span chunk_span(const struct tg_follow *f, uint64_t i)
{
    uint64_t off = f->payload + tg_tgsp_chunk_offset(&f->g, i);
    return (struct tg_span){off, off + tg_tgsp_chunk_plain(&f->g, i) + TG_AEAD_TAG_LEN};
}

/* The first chunk that lies wholly inside s, and the one behind the last. */
static void chunks_inside(const struct tg_follow *f, const struct tg_span *s, uint64_t *first,
                          uint64_t *after)
{
    uint64_t stride = f->g.chunk_size + TG_AEAD_TAG_LEN;
    uint64_t off = s->off > f->payload ? s->off - f->payload : 0;
    uint64_t end = s->end > f->payload ? s->end - f->payload : 0;
    *first = off / stride + (off % stride != 0);
    *after = end >= f->g.stored_len ? f->g.chunks : end / stride;
}

/* Locked. */
static bool pick(const struct tg_follow *f, uint64_t *chunk)
{
    for (size_t s = 0; s < f->now.there.n; s++) {
        uint64_t i, after;
        chunks_inside(f, &f->now.there.v[s], &i, &after);
        while (i < after) {
            if (i % 64 == 0 && f->given[i / 64] == UINT64_MAX) {
                i += 64;
            } else if (bit(f->given, i)) {
                i++;
            } else {
                *chunk = i;
                return true;
            }
        }
    }
    return false;
}

enum tg_rc tg_follow_next(struct tg_follow *f, uint64_t *chunk, struct tg_err *err)
{
    enum tg_rc rc;
    (void)pthread_mutex_lock(&f->lock);
    while ((rc = look(f, err)) == TG_OK && !pick(f, chunk))
        if ((rc = wait_more(f, err)) != TG_OK)
            break;
    if (rc == TG_OK)
        bit_set(f->given, *chunk);
    (void)pthread_mutex_unlock(&f->lock);
    return rc;
}

/* Locked. In the order of asking, which is the order of answers. */
static enum tg_rc ask(struct tg_follow *f, uint64_t chunk, struct tg_err *err)
{
    struct tg_span s = chunk_span(f, chunk);
    bit_set(f->tried, chunk);
    TG_TRY(f->o.again(f->o.arg, s.off, s.end - s.off, err));
    uint64_t mine = ++f->asked;
    for (;;) {
        TG_TRY(look(f, err));
        if (f->now.again >= mine)
            return TG_OK;
        TG_TRY(wait_more(f, err));
    }
}

enum tg_rc tg_follow_again(struct tg_follow *f, uint64_t chunk, enum tg_rc why, struct tg_err *err)
{
    (void)pthread_mutex_lock(&f->lock);
    enum tg_rc rc = why;
    if (f->o.again && !bit(f->tried, chunk))
        rc = ask(f, chunk, err);
    (void)pthread_mutex_unlock(&f->lock);
    return rc;
}
