#include "agent/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/fetch_record.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/spans.h"
#include "codec/text.h"
#include "tgsp/arrival.h"
#include "wire/common.h"

#define HASH_BLOCK (256 * 1024)
/* A signature section of one or two entries, and what a first look at a package reads. */
#define TAIL_BYTES (UINT64_C(16) << 10)
#define FRONT_BYTES (UINT64_C(128) << 10)
/* The worker is told after so many bytes, and what came is recorded after so many, or so long. */
#define SHOW_BYTES (UINT64_C(256) << 10)
#define SAVE_BYTES (UINT64_C(32) << 20)
#define SAVE_NS UINT64_C(1000000000)

struct tg_fetch {
    struct tg_held pkg;
    char path[TG_STATE_PATH_MAX];
    int fd;
    struct tg_spans have;
    struct tg_sha256_ctx *hash; /* of the first `hashed` bytes */
    uint64_t hashed;
    bool stale;                 /* bytes that were hashed have been replaced: hash from the start */
    struct tg_span wanted;      /* what a read failed for; empty: nothing */
    struct tg_arrival *arrival; /* NULL: nobody follows */
    uint64_t shown, unsaved, saved_ns;
    uint64_t slice; /* what the next call asks for */
    bool finished;
    char target[128], etag[TG_HASH_HEX + 2];
};

/* ---- opening ---- */

static TG_RC hash_restart(struct tg_fetch *f, struct tg_err *err)
{
    tg_sha256_free(f->hash);
    f->hash = NULL;
    f->hashed = 0;
    f->stale = false;
    if (tg_sha256_new(&f->hash) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return TG_OK;
}

/* Nothing is there. A new file: a worker that reads the old one sees nothing vanish. */
static TG_RC start_over(struct tg_fetch *f, struct tg_err *err)
{
    if (f->arrival)
        tg_arrival_end(f->arrival);
    tg_arrival_free(f->arrival);
    f->arrival = NULL;
    f->have.n = 0;
    f->wanted = (struct tg_span){0, 0};
    TG_TRY(hash_restart(f, err));
    tg_fd_close(f->fd);
    TG_TRY(tg_state_remove(f->path, err));
    f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)f->pkg.size) != 0) /* sparse: holes take no room */
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    return tg_fetch_save(f, err);
}

static TG_RC fetch_start(struct tg_fetch *f, struct tg_err *err)
{
    uint64_t size = 0;
    bool known = tg_fetch_record_load(f->path, f->etag, f->pkg.size, &f->have) == TG_OK;
    f->saved_ns = tg_clock_mono_ns();
    f->fd = open(f->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (f->fd < 0 && errno != ENOENT)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    if (f->fd >= 0)
        TG_TRY(tg_fd_size(f->fd, f->path, &size, err));
    if (f->fd < 0 || !known || size != f->pkg.size)
        return start_over(f, err);
    return hash_restart(f, err);
}

TG_RC tg_fetch_open(const struct tg_state *s, const struct tg_held *pkg, struct tg_fetch **out,
                    struct tg_err *err)
{
    TG_AUTO(tg_fetch_freep) struct tg_fetch *f = tg_calloc(1, sizeof *f);
    if (!f)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    f->fd = -1;
    f->slice = TG_FETCH_FIRST;
    f->pkg = *pkg;
    char hex[TG_HASH_HEX];
    tg_hex_encode(tg_bytes_make(pkg->blob, 32), hex);
    (void)snprintf(f->target, sizeof f->target, TG_DEVICE_PREFIX "/blobs/%s", hex);
    (void)snprintf(f->etag, sizeof f->etag, "\"%s\"", hex);
    tg_state_part(s, pkg->h, f->path);
    TG_TRY(fetch_start(f, err));
    *out = tg_steal(&f);
    return TG_OK;
}

/* What can't be recorded will be fetched again: nothing to be done about it. */
static void save_if_can(struct tg_fetch *f)
{
    if (f->unsaved && tg_fetch_save(f, NULL) != TG_OK)
        f->unsaved = 0;
}

void tg_fetch_free(struct tg_fetch *f)
{
    if (!f)
        return;
    if (f->arrival && !f->finished)
        tg_arrival_end(f->arrival);
    if (!f->finished)
        save_if_can(f);
    tg_arrival_free(f->arrival);
    tg_fd_close(f->fd);
    tg_sha256_free(f->hash);
    tg_free(f);
}

uint64_t tg_fetch_have(const struct tg_fetch *f)
{
    return tg_spans_bytes(&f->have);
}

bool tg_fetch_complete(const struct tg_fetch *f)
{
    return tg_spans_prefix(&f->have) == f->pkg.size;
}

TG_RC tg_fetch_arrival(struct tg_fetch *f, int *fd, struct tg_err *err)
{
    if (!f->arrival) {
        TG_TRY(tg_arrival_new(f->pkg.size, &f->arrival, err));
        tg_fetch_show(f);
    }
    *fd = tg_arrival_fd(f->arrival);
    return TG_OK;
}

/* ---- bytes ---- */

void tg_fetch_show(struct tg_fetch *f)
{
    f->shown = 0;
    if (f->arrival)
        tg_arrival_show(f->arrival, &f->have);
}

TG_RC tg_fetch_save(struct tg_fetch *f, struct tg_err *err)
{
    f->unsaved = 0;
    f->saved_ns = tg_clock_mono_ns();
    TG_TRY(tg_fd_sync(f->fd, f->path, err));
    return tg_fetch_record_save(f->path, f->etag, f->pkg.size, &f->have, err);
}

/* The digest grows with what comes in order; the rest is read again. */
static TG_RC hash_piece(struct tg_fetch *f, uint64_t at, struct tg_bytes piece)
{
    if (at < f->hashed)
        f->stale = true;
    if (at != f->hashed || f->stale)
        return TG_OK;
    f->hashed += piece.n;
    return tg_sha256_update(f->hash, piece);
}

TG_RC tg_fetch_take(struct tg_fetch *f, uint64_t at, struct tg_bytes piece, struct tg_err *err)
{
    if (at > f->pkg.size || piece.n > f->pkg.size - at)
        return TG_FAIL(err, TG_E_FORMAT,
                       "download: the platform sent bytes %" PRIu64 "+%zu of a file of %" PRIu64,
                       at, piece.n, f->pkg.size);
    enum tg_rc rc = tg_fd_pwrite(f->fd, f->path, piece.p, piece.n, at, err);
    if (rc != TG_OK && (errno == ENOSPC || errno == EDQUOT))
        return TG_FAIL(err, TG_E_LIMIT,
                       "disk full: %" PRIu64 " of %" PRIu64 " bytes fetched to %s; free some space",
                       tg_fetch_have(f), f->pkg.size, f->path);
    TG_TRY(rc);
    if (tg_spans_add(&f->have, at, at + piece.n) != TG_OK)
        return TG_FAIL(err, TG_E_LIMIT, "download: in more than %d pieces", TG_SPANS_MAX);
    TG_TRY(hash_piece(f, at, piece));
    f->shown += piece.n;
    f->unsaved += piece.n;
    if (f->shown >= SHOW_BYTES)
        tg_fetch_show(f);
    return TG_OK;
}

/* What is there in a row from the beginning, as far as it was not hashed when it came. */
static TG_RC hash_rest(struct tg_fetch *f, struct tg_err *err)
{
    if (f->stale)
        TG_TRY(hash_restart(f, err));
    uint64_t to = tg_spans_prefix(&f->have);
    if (f->hashed >= to)
        return TG_OK;
    TG_AUTO(tg_freep) uint8_t *block = tg_alloc(HASH_BLOCK);
    if (!block)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    while (f->hashed < to) {
        uint64_t left = to - f->hashed;
        size_t n = left < HASH_BLOCK ? (size_t)left : HASH_BLOCK;
        TG_TRY(tg_fd_pread(f->fd, f->path, block, n, f->hashed, err));
        TG_TRY(tg_sha256_update(f->hash, tg_bytes_make(block, n)));
        f->hashed += n;
    }
    return TG_OK;
}

/* ---- requests ---- */

static TG_RC save_if_due(struct tg_fetch *f, struct tg_err *err)
{
    bool due = f->unsaved >= SAVE_BYTES || tg_clock_mono_ns() - f->saved_ns >= SAVE_NS;
    return due && f->unsaved ? tg_fetch_save(f, err) : TG_OK;
}

struct sink {
    struct tg_fetch *f;
    const struct tg_http_answer *answer;
    uint64_t at, until_ns;
    bool placed, late;
};

static enum tg_rc sink_piece(void *arg, struct tg_bytes piece, struct tg_err *err)
{
    struct sink *s = arg;
    if (!s->placed && !s->answer->has_range)
        s->at = 0; /* a 200: the whole file from its beginning */
    s->placed = true;
    TG_TRY(tg_fetch_take(s->f, s->at, piece, err));
    s->at += piece.n;
    TG_TRY(save_if_due(s->f, err));
    s->late = s->answer->has_range && tg_clock_mono_ns() >= s->until_ns;
    return s->late ? TG_E_AGAIN : TG_OK;
}

static TG_RC check_room(const struct tg_fetch *f, struct tg_err *err)
{
    struct statvfs v;
    if (fstatvfs(f->fd, &v) != 0)
        return TG_OK; /* can't tell: writing will */
    uint64_t avail = (uint64_t)v.f_bavail * v.f_frsize;
    uint64_t need = f->pkg.size - tg_fetch_have(f) + TG_FETCH_SPARE;
    if (avail >= need)
        return TG_OK;
    return TG_FAIL(err, TG_E_LIMIT,
                   "disk full: the package needs %" PRIu64 " more bytes in %s, %" PRIu64
                   " are free; free some space",
                   need, f->path, avail);
}

/* For at most `ns`: then what has come has come, and TG_OK. */
static TG_RC ask(struct tg_fetch *f, struct tg_device *d, const struct tg_span *range, uint64_t ns,
                 struct tg_err *err)
{
    TG_TRY(check_room(f, err));
    struct tg_http_answer answer = TG_HTTP_ANSWER_INIT;
    struct sink sink = {
        .f = f, .answer = &answer, .at = range->off, .until_ns = tg_clock_mono_ns() + ns};
    struct tg_http_call call = {.method = TG_HTTP_GET,
                                .target = f->target,
                                .range_off = range->off,
                                .range_len = range->end - range->off,
                                .if_range = f->etag,
                                .sink = sink_piece,
                                .sink_arg = &sink,
                                .tick = d->tick,
                                .tick_arg = d->tick_arg};
    enum tg_rc rc = tg_http_client_do(d->http, &call, &answer, err);
    if (rc == TG_OK)
        rc = tg_http_answer_check(&answer, err);
    else if (rc == TG_E_AGAIN && sink.late)
        rc = TG_OK; /* the rest in another call */
    tg_http_answer_done(&answer);
    tg_fetch_show(f);
    if (rc == TG_OK)
        return save_if_due(f, err);
    save_if_can(f);
    return rc;
}

/* The first hole of [off, end), at most a slice of it. */
static TG_RC ask_hole(struct tg_fetch *f, struct tg_device *d, uint64_t off, uint64_t end,
                      struct tg_err *err)
{
    struct tg_span hole;
    if (!tg_spans_hole(&f->have, off, end < f->pkg.size ? end : f->pkg.size, &hole))
        return TG_OK;
    if (hole.end - hole.off > f->slice)
        hole.end = hole.off + f->slice;
    return ask(f, d, &hole, TG_FETCH_CALL_MAX_NS, err);
}

TG_RC tg_fetch_tail(struct tg_fetch *f, struct tg_device *d, struct tg_err *err)
{
    uint64_t n = f->pkg.size < TAIL_BYTES ? f->pkg.size : TAIL_BYTES;
    return ask_hole(f, d, f->pkg.size - n, f->pkg.size, err);
}

TG_RC tg_fetch_wanted(struct tg_fetch *f, struct tg_device *d, struct tg_err *err)
{
    struct tg_span w = f->wanted;
    if (w.off >= w.end)
        return TG_E_STATE;
    f->wanted = (struct tg_span){0, 0};
    if (w.end - w.off < FRONT_BYTES)
        w.end = w.off + FRONT_BYTES; /* what lies behind it is read next */
    return ask_hole(f, d, w.off, w.end, err);
}

uint64_t tg_fetch_next(uint64_t n, uint64_t ns)
{
    double most = (double)n * 4, fits = (double)n * (double)TG_FETCH_CALL_NS / ((double)ns + 1);
    double next = fits < most ? fits : most;
    if (next <= (double)TG_FETCH_LEAST)
        return TG_FETCH_LEAST;
    return next < (double)TG_FETCH_MOST ? (uint64_t)next : TG_FETCH_MOST;
}

TG_RC tg_fetch_slice(struct tg_fetch *f, struct tg_device *d, struct tg_err *err)
{
    uint64_t had = tg_fetch_have(f), began = tg_clock_mono_ns();
    enum tg_rc rc = ask_hole(f, d, 0, f->pkg.size, err);
    f->slice = tg_fetch_next(tg_fetch_have(f) - had, tg_clock_mono_ns() - began);
    return rc == TG_OK ? hash_rest(f, err) : rc;
}

TG_RC tg_fetch_again(struct tg_fetch *f, struct tg_device *d, const struct tg_span *range,
                     struct tg_err *err)
{
    if (range->off >= range->end || range->end > f->pkg.size)
        return TG_FAIL(err, TG_E_FORMAT, "download: no such bytes");
    f->stale = true;
    TG_TRY(ask(f, d, range, UINT64_MAX / 2, err)); /* half of it would be of no use */
    if (f->arrival)
        tg_arrival_again(f->arrival);
    return TG_OK;
}

/* ---- a look at what is there ---- */

static enum tg_rc src_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                           struct tg_err *err)
{
    struct tg_fetch *f = ctx;
    if (off > f->pkg.size || n > f->pkg.size - off)
        return TG_FAIL(err, TG_E_FORMAT, "%s: ends at %" PRIu64 ", need %zu bytes at %" PRIu64,
                       name, f->pkg.size, n, off);
    if (tg_spans_has(&f->have, off, off + n))
        return tg_fd_pread(f->fd, name, p, n, off, err);
    f->wanted = (struct tg_span){off, off + n};
    return TG_FAIL(err, TG_E_AGAIN, "%s: %zu bytes at %" PRIu64 " are not there yet", name, n, off);
}

void tg_fetch_src(struct tg_fetch *f, struct tg_src *out)
{
    f->wanted = (struct tg_span){0, 0};
    *out = (struct tg_src){src_read, f, "package", f->pkg.size};
}

/* ---- the end ---- */

TG_RC tg_fetch_finish(struct tg_fetch *f, bool keep, struct tg_err *err)
{
    uint8_t digest[TG_SHA256_LEN];
    TG_TRY(hash_rest(f, err));
    TG_TRY(tg_fd_sync(f->fd, f->path, err));
    TG_TRY(tg_sha256_final(f->hash, digest));
    f->stale = true; /* a digest ends only once */
    f->finished = tg_mem_eq(digest, f->pkg.blob, sizeof digest);
    if (f->finished)
        return TG_OK;
    if (keep)
        return TG_FAIL(err, TG_E_AUTH,
                       "download: the file's SHA-256 is not the one the platform named");
    TG_TRY(start_over(f, err));
    return TG_FAIL(err, TG_E_AUTH,
                   "download: the file's SHA-256 is not the one the platform named; removed");
}

TG_RC tg_fetch_commit(const struct tg_state *s, const struct tg_held *pkg, struct tg_err *err)
{
    char from[TG_STATE_PATH_MAX], to[TG_STATE_PATH_MAX], tag[TG_STATE_PATH_MAX + 8];
    tg_state_part(s, pkg->h, from);
    tg_state_package(s, pkg->h, to);
    if (rename(from, to) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: cannot rename to %s", from, to);
    (void)snprintf(tag, sizeof tag, "%s.tag", from);
    TG_TRY(tg_state_remove(tag, err));
    char dir[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, dir, err, "packages"));
    return tg_dir_sync(dir, err);
}
