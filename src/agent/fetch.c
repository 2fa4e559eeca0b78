#include "agent/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"
#include "wire/common.h"

#define HASH_BLOCK (256 * 1024)

struct tg_fetch {
    struct tg_held pkg;
    char path[TG_STATE_PATH_MAX];
    int fd;
    uint64_t have; /* bytes in the part, all of them in `hash` */
    struct tg_sha256_ctx *hash;
    char target[128], etag[TG_HASH_HEX + 2];
};

/* ---- opening ---- */

/* Hash what a part already holds. */
static TG_RC hash_part(struct tg_fetch *f, struct tg_err *err)
{
    TG_AUTO(tg_freep) uint8_t *block = tg_alloc(HASH_BLOCK);
    if (!block)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (uint64_t off = 0; off < f->have;) {
        uint64_t left = f->have - off;
        size_t n = left < HASH_BLOCK ? (size_t)left : HASH_BLOCK;
        TG_TRY(tg_fd_pread(f->fd, f->path, block, n, off, err));
        TG_TRY(tg_sha256_update(f->hash, tg_bytes_make(block, n)));
        off += n;
    }
    return TG_OK;
}

/* Which file the part is of: a co-signed copy of the same package is another file. */
static TG_RC check_tag(struct tg_fetch *f, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX + 8];
    (void)snprintf(path, sizeof path, "%s.tag", f->path);
    struct tg_buf tag = TG_BUF_INIT(256);
    enum tg_rc rc = tg_file_read(path, &tag, NULL);
    bool same = rc == TG_OK && strcmp(tg_buf_cstr(&tag), f->etag) == 0;
    tg_buf_done(&tag);
    if (same)
        return TG_OK;
    if (ftruncate(f->fd, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    f->have = 0;
    return tg_file_write(path, tg_bytes_str(f->etag), 0600, true, err);
}

static TG_RC fetch_start(struct tg_fetch *f, struct tg_err *err)
{
    f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    TG_TRY(tg_fd_size(f->fd, f->path, &f->have, err));
    if (f->have > f->pkg.size) {
        if (ftruncate(f->fd, 0) != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
        f->have = 0;
    }
    TG_TRY(check_tag(f, err));
    TG_TRY(tg_sha256_new(&f->hash));
    return hash_part(f, err);
}

TG_RC tg_fetch_open(const struct tg_state *s, const struct tg_held *pkg, struct tg_fetch **out,
                    struct tg_err *err)
{
    TG_AUTO(tg_fetch_freep) struct tg_fetch *f = tg_calloc(1, sizeof *f);
    if (!f)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    f->fd = -1;
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

void tg_fetch_free(struct tg_fetch *f)
{
    if (!f)
        return;
    tg_fd_close(f->fd);
    tg_sha256_free(f->hash);
    tg_free(f);
}

uint64_t tg_fetch_have(const struct tg_fetch *f)
{
    return f->have;
}

bool tg_fetch_complete(const struct tg_fetch *f)
{
    return f->have == f->pkg.size;
}

/* ---- bytes ---- */

TG_RC tg_fetch_take(struct tg_fetch *f, uint64_t at, struct tg_bytes piece, struct tg_err *err)
{
    if (at != f->have || piece.n > f->pkg.size - f->have)
        return TG_FAIL(err, TG_E_FORMAT,
                       "download: the platform sent bytes %" PRIu64 "+%zu of a file of %" PRIu64
                       ", expected them from %" PRIu64,
                       at, piece.n, f->pkg.size, f->have);
    enum tg_rc rc = tg_fd_pwrite(f->fd, f->path, piece.p, piece.n, f->have, err);
    if (rc != TG_OK && (errno == ENOSPC || errno == EDQUOT))
        return TG_FAIL(err, TG_E_LIMIT,
                       "disk full: %" PRIu64 " of %" PRIu64 " bytes fetched to %s; free some space",
                       f->have, f->pkg.size, f->path);
    TG_TRY(rc);
    TG_TRY(tg_sha256_update(f->hash, piece));
    f->have += piece.n;
    return TG_OK;
}

struct sink {
    struct tg_fetch *f;
    const struct tg_http_answer *answer;
    uint64_t at;
    bool placed;
};

static TG_RC start_over(struct tg_fetch *f, struct tg_err *err)
{
    tg_sha256_free(f->hash);
    f->hash = NULL;
    f->have = 0;
    if (ftruncate(f->fd, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    return tg_sha256_new(&f->hash);
}

static enum tg_rc sink_piece(void *arg, struct tg_bytes piece, struct tg_err *err)
{
    struct sink *s = arg;
    if (!s->placed) {
        s->placed = true;
        if (!s->answer->has_range && s->at > 0) { /* a 200: the whole file from its beginning */
            TG_TRY(start_over(s->f, err));
            s->at = 0;
        }
    }
    enum tg_rc rc = tg_fetch_take(s->f, s->at, piece, err);
    s->at += piece.n;
    return rc;
}

static TG_RC check_room(const struct tg_fetch *f, struct tg_err *err)
{
    struct statvfs v;
    if (fstatvfs(f->fd, &v) != 0)
        return TG_OK; /* can't tell: writing will */
    uint64_t avail = (uint64_t)v.f_bavail * v.f_frsize;
    uint64_t need = f->pkg.size - f->have + TG_FETCH_SPARE;
    if (avail >= need)
        return TG_OK;
    return TG_FAIL(err, TG_E_LIMIT,
                   "disk full: the package needs %" PRIu64 " more bytes in %s, %" PRIu64
                   " are free; free some space",
                   need, f->path, avail);
}

TG_RC tg_fetch_slice(struct tg_fetch *f, struct tg_device *d, struct tg_err *err)
{
    if (tg_fetch_complete(f))
        return TG_OK;
    TG_TRY(check_room(f, err));
    uint64_t left = f->pkg.size - f->have;
    struct tg_http_answer answer = TG_HTTP_ANSWER_INIT;
    struct sink sink = {.f = f, .answer = &answer, .at = f->have};
    struct tg_http_call call = {.method = TG_HTTP_GET,
                                .target = f->target,
                                .range_off = f->have,
                                .range_len = left < TG_FETCH_SLICE ? left : TG_FETCH_SLICE,
                                .if_range = f->etag,
                                .sink = sink_piece,
                                .sink_arg = &sink,
                                .tick = d->tick,
                                .tick_arg = d->tick_arg};
    enum tg_rc rc = tg_http_client_do(d->http, &call, &answer, err);
    if (rc == TG_OK)
        rc = tg_http_answer_check(&answer, err);
    tg_http_answer_done(&answer);
    return rc;
}

TG_RC tg_fetch_finish(struct tg_fetch *f, struct tg_err *err)
{
    uint8_t digest[TG_SHA256_LEN];
    TG_TRY(tg_fd_sync(f->fd, f->path, err));
    TG_TRY(tg_sha256_final(f->hash, digest));
    if (tg_mem_eq(digest, f->pkg.blob, sizeof digest))
        return TG_OK;
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
