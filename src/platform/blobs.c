#include "platform/blobs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "codec/text.h"
#include "platform/audit.h"

static void dirp(DIR **d)
{
    if (*d != NULL)
        (void)closedir(*d);
}

char *tg_upload_path(const struct tg_platform *p, const char *id)
{
    return tg_asprintf("%s/%s.part", p->uploads_dir, id);
}

enum tg_rc tg_call_io(struct tg_call *c, enum tg_rc rc)
{
    if (rc == TG_E_IO && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        c->problem = TG_PROBLEM_STORAGE;
    return rc;
}

/* Which bytes of the file the answer will carry; none with HEAD, 304 and 416. */
static struct tg_range bytes_asked(const struct tg_http_req *req, const char *etag, uint64_t size)
{
    const struct tg_range none = {TG_RANGE_BAD, 0, 0};

    if (req->method != TG_HTTP_GET || tg_etag_in(tg_http_req_header(req, "If-None-Match"), etag))
        return none;
    return tg_range_decide(tg_http_req_header(req, "Range"), tg_http_req_header(req, "If-Range"),
                           etag, size);
}

/* Each part of the file is told, whatever its size: a rule that waited for all of it to be taken
 * would be got around by leaving out a byte. */
static enum tg_rc tell(struct tg_call *c, const struct tg_package_row *package, const char *etag,
                       struct tg_err *err)
{
    const struct tg_range r = bytes_asked(c->req, etag, package->blob_size);
    struct tg_audit_entry entry = {.package = TG_BYTES_OF(package->h)};

    if (c->route->action == NULL || r.kind == TG_RANGE_BAD)
        return TG_OK;
    if (r.kind == TG_RANGE_PART)
        TG_TRY(tg_call_text(c, &entry.detail, err, "bytes %" PRIu64 "-%" PRIu64 " of %" PRIu64,
                            r.off, r.off + r.len - 1, package->blob_size));
    else
        TG_TRY(tg_call_text(c, &entry.detail, err, "all %" PRIu64 " bytes", package->blob_size));
    TG_TRY(tg_call_text(c, &entry.target, err, "blob:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

TG_RC tg_blob_serve(struct tg_call *c, const struct tg_package_row *package, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_blob_path(c->p, package->blob_sha256);
    TG_AUTO(tg_fd_closep) int fd = -1;
    char hex[65], etag[TG_ETAG_MAX];

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    tg_hex_encode(TG_BYTES_OF(package->blob_sha256), hex);
    TG_TRY(tg_etag_make(hex, etag));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "blob %s", hex);
    TG_TRY(tell(c, package, etag, err));
    const struct tg_http_file file = {TG_WIRE_TYPE_BYTES, etag, fd, package->blob_size};
    fd = -1; /* serve_file's, whatever happens */
    return tg_http_res_serve_file(c->req, c->res, &file);
}

TG_RC tg_blob_put(struct tg_call *c, int from_fd, const char *from, const uint8_t sha256[32],
                  struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_blob_path(c->p, sha256);

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    char *slash = strrchr(path, '/');
    *slash = '\0';
    TG_TRY(tg_call_io(c, tg_dir_make(path, 0700, err)));
    TG_TRY(tg_call_io(c, tg_dir_sync(c->p->blobs_dir, err)));
    *slash = '/';
    TG_TRY(tg_call_io(c, tg_fd_sync(from_fd, from, err)));
    /* A link, not a rename: a kill before the commit leaves the upload as it was. */
    if (link(from, path) != 0 && errno != EEXIST) {
        TG_TRY(tg_call_io(c, TG_FAIL_ERRNO(err, TG_E_IO, "blob %s: can't link", path)));
    }
    *slash = '\0';
    return tg_call_io(c, tg_dir_sync(path, err));
}

/* ---- tidying ---- */

static enum tg_rc blob_known(struct tg_db *db, const char *name, bool *known, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_package_row row;
    uint8_t sha256[32];

    *known = true;
    if (tg_hex_decode(tg_bytes_str(name), sha256, sizeof(sha256)) != TG_OK)
        return TG_OK; /* not ours: left alone */
    TG_TRY(tg_arena_new(1 << 20, &arena));
    enum tg_rc rc = tg_package_by_blob(db, sha256, arena, &row, err);
    *known = rc == TG_OK;
    return rc == TG_E_NOTFOUND ? TG_OK : rc;
}

static enum tg_rc upload_known(struct tg_db *db, const char *name, bool *known, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_upload_row row;
    char id[33];

    *known = true;
    const char *dot = strchr(name, '.');
    if (dot == NULL || dot - name != 32 || strcmp(dot, ".part") != 0)
        return TG_OK;
    memcpy(id, name, 32);
    id[32] = '\0';
    TG_TRY(tg_arena_new(1 << 20, &arena));
    enum tg_rc rc = tg_upload_get(db, id, arena, &row, err);
    *known = rc == TG_OK && row.state == 0;
    return rc == TG_E_NOTFOUND ? TG_OK : rc;
}

typedef enum tg_rc known_fn(struct tg_db *db, const char *name, bool *known, struct tg_err *err);

static enum tg_rc sweep_dir(struct tg_db *db, const char *path, known_fn *is_known,
                            struct tg_err *err)
{
    TG_AUTO(dirp) DIR *d = opendir(path);

    if (d == NULL)
        return errno == ENOENT ? TG_OK : TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't open", path);
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        bool known = true;
        if (e->d_name[0] == '.')
            continue;
        TG_TRY(is_known(db, e->d_name, &known, err));
        if (known)
            continue;
        tg_log(TG_LOG_INFO, "platform.sweep", "removed=%s/%s", path, e->d_name);
        if (unlinkat(dirfd(d), e->d_name, 0) != 0)
            tg_log(TG_LOG_WARN, "platform.sweep", "kept=%s/%s", path, e->d_name);
    }
    return TG_OK;
}

TG_RC tg_blobs_sweep(struct tg_platform *p, struct tg_db *db, struct tg_err *err)
{
    for (unsigned i = 0; i < 256; i++) {
        TG_AUTO(tg_freep) char *dir = tg_asprintf("%s/%02x", p->blobs_dir, i);
        if (dir == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        TG_TRY(sweep_dir(db, dir, blob_known, err));
    }
    return sweep_dir(db, p->uploads_dir, upload_known, err);
}

/* An upload that came to nothing leaves a row; one that became a package has its own already. */
static enum tg_rc expire_one(struct tg_db *db, const struct tg_upload_row *up, int64_t now,
                             struct tg_arena *arena, struct tg_err *err)
{
    char target[64], detail[128];
    struct tg_audit_row row = {.at = now,
                               .actor = "platform",
                               .name = "",
                               .address = "",
                               .action = "upload.expire",
                               .target = target,
                               .outcome = "ok",
                               .detail = detail};

    (void)snprintf(target, sizeof(target), "upload:%s", up->id);
    (void)snprintf(detail, sizeof(detail),
                   "of token:%s, %" PRIu64 " of %" PRIu64 " parts had been received", up->owner,
                   up->received, up->parts);
    TG_TRY(tg_db_begin(db, err));
    enum tg_rc rc = tg_upload_delete(db, up->id, err);
    if (rc == TG_OK && up->state == 0)
        rc = tg_audit_append(db, arena, &row, err);
    if (rc == TG_OK)
        rc = tg_db_commit(db, err);
    tg_db_rollback(db);
    return rc;
}

TG_RC tg_uploads_expire(struct tg_platform *p, struct tg_db *db, int64_t now, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_jlist rows;

    TG_TRY(tg_arena_new(1 << 20, &arena));
    TG_TRY(tg_upload_stale(db, now, arena, &rows, err));
    for (size_t i = 0; i < rows.n; i++) {
        const char *id = ((const struct tg_id_row *)rows.items)[i].id;
        TG_AUTO(tg_freep) char *path = tg_upload_path(p, id);
        struct tg_upload_row up;
        if (path == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        TG_TRY(tg_upload_get(db, id, arena, &up, err));
        TG_TRY(expire_one(db, &up, now, arena, err));
        (void)unlink(path); /* a file without a row is swept at the next start */
    }
    return TG_OK;
}
