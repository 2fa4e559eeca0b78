/* Uploads in parts: any order, in parallel, resumable; what was acknowledged is on disk. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "crypto/hash.h"
#include "platform/blobs.h"
#include "platform/handlers.h"
#include "wire/package.h"

#define UPLOAD_LIFE (INT64_C(7) * 86400)
#define OPEN_MAX 16
#define RANGES_MAX 256

static enum tg_rc answer_upload(struct tg_call *c, unsigned status, const struct tg_upload_row *r,
                                struct tg_err *err)
{
    struct tg_wire_upload out = {.id = r->id,
                                 .state = r->state,
                                 .size = r->size,
                                 .part_size = r->part_size,
                                 .parts = r->parts,
                                 .received = r->state == TG_UPLOAD_DONE ? r->parts : r->received,
                                 .created_at = r->created_at,
                                 .expires_at = r->expires_at};
    struct tg_jlist ranges = {NULL, 0};

    memcpy(out.sha256, r->sha256, sizeof(out.sha256));
    if (r->package.n == sizeof(out.package))
        memcpy(out.package, r->package.p, sizeof(out.package));
    if (r->state == TG_UPLOAD_OPEN)
        TG_TRY(tg_part_missing(c->db, r, RANGES_MAX, c->arena, &ranges, err));
    TG_TRY(tg_call_items(c, &out.missing, ranges.n, sizeof(struct tg_wire_part_range), err));
    for (size_t i = 0; i < ranges.n; i++) {
        const struct tg_part_range_row *from = &((const struct tg_part_range_row *)ranges.items)[i];
        struct tg_wire_part_range *to = &((struct tg_wire_part_range *)out.missing.items)[i];
        to->first = from->first;
        to->last = from->last;
    }
    return tg_call_resource(c, status, &tg_wire_upload, &out, err);
}

/* The file, with its room reserved: a disk that can't hold it says so now. */
static enum tg_rc make_file(struct tg_call *c, const char *path, uint64_t size, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return tg_call_io(c, TG_FAIL_ERRNO(err, TG_E_IO, "upload: can't create its file"));
    if (fallocate(fd, 0, 0, (off_t)size) != 0 && errno != EOPNOTSUPP) {
        enum tg_rc rc = tg_call_io(
            c, TG_FAIL_ERRNO(err, TG_E_IO, "upload: no room for %" PRIu64 " bytes", size));
        (void)unlink(path);
        return rc;
    }
    TG_TRY(tg_call_io(c, tg_fd_sync(fd, "upload", err)));
    return tg_call_io(c, tg_dir_sync(c->p->uploads_dir, err));
}

static enum tg_rc insert_upload(struct tg_call *c, const struct tg_upload_row *row,
                                struct tg_err *err)
{
    const char *detail;
    int64_t open = 0;

    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_upload_open_count(c->db, c->who.id, &open, err));
    if (open >= OPEN_MAX)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT,
                         "this token has %d open uploads: complete or delete some", OPEN_MAX);
    TG_TRY(tg_upload_add(c->db, row, err));
    TG_TRY(tg_call_text(c, &detail, err, "%" PRIu64 " bytes in %" PRIu64 " parts", row->size,
                        row->parts));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

enum tg_rc tg_h_upload_create(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_upload_new in;
    struct tg_upload_row row = {
        .owner = c->who.id, .created_at = c->now, .expires_at = c->now + UPLOAD_LIFE};

    TG_TRY(tg_call_body(c, &tg_wire_upload_new, &in, err));
    row.size = in.size;
    row.part_size = in.part_size;
    row.parts = (in.size + in.part_size - 1) / in.part_size;
    if (row.parts > TG_WIRE_PARTS_MAX)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "part_size: %" PRIu64 " parts, at most %d: make them larger", row.parts,
                         TG_WIRE_PARTS_MAX);
    memcpy(row.sha256, in.sha256, sizeof(row.sha256));
    TG_TRY(tg_call_id(c, &row.id, err));
    TG_TRY(tg_call_text(c, &c->target, err, "upload:%s", row.id));
    TG_AUTO(tg_freep) char *path = tg_upload_path(c->p, row.id);
    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(make_file(c, path, row.size, err));
    enum tg_rc rc = insert_upload(c, &row, err);
    if (rc != TG_OK) {
        (void)unlink(path);
        return rc;
    }
    return answer_upload(c, 201, &row, err);
}

/* The upload of the path, which must be the caller's own (an administrator may touch any). */
static enum tg_rc get_own(struct tg_call *c, struct tg_upload_row *row, struct tg_err *err)
{
    TG_TRY(tg_call_text(c, &c->target, err, "upload:%s", c->params[0]));
    TG_TRY(tg_upload_get(c->db, c->params[0], c->arena, row, err));
    if (c->who.role != TG_ACCESS_ADMIN && strcmp(row->owner, c->who.id) != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_FORBIDDEN, "another token began this upload");
    return TG_OK;
}

enum tg_rc tg_h_upload_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_upload_row row;

    TG_TRY(get_own(c, &row, err));
    return answer_upload(c, 200, &row, err);
}

static enum tg_rc check_part(struct tg_call *c, const struct tg_upload_row *up,
                             struct tg_part_row *part, struct tg_err *err)
{
    uint8_t said[32];

    if (up->state != TG_UPLOAD_OPEN)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "the upload is complete");
    if (tg_parse_u64(c->params[1], TG_WIRE_PARTS_MAX, &part->part) != TG_OK ||
        part->part >= up->parts)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "part %s: this upload has parts 0 to %" PRIu64, c->params[1],
                         up->parts - 1);
    uint64_t size =
        part->part + 1 < up->parts ? up->part_size : up->size - up->part_size * (up->parts - 1);
    if (c->req->body.n != size)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "part %" PRIu64 ": %zu bytes, it has %" PRIu64, part->part, c->req->body.n,
                         size);
    if (tg_wire_digest_parse(tg_http_req_header(c->req, "Content-Digest"), said) != TG_OK)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "send Content-Digest: sha-256=:<base64>: (RFC 9530)");
    TG_TRY(tg_sha256(c->req->body, part->sha256));
    if (!tg_bytes_eq(TG_BYTES_OF(said), TG_BYTES_OF(part->sha256)))
        return TG_REFUSE(c, err, TG_PROBLEM_DIGEST,
                         "part %" PRIu64 ": its SHA-256 is not what Content-Digest says",
                         part->part);
    return TG_OK;
}

static enum tg_rc write_part(struct tg_call *c, const struct tg_upload_row *up,
                             const struct tg_part_row *part, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_upload_path(c->p, up->id);
    TG_AUTO(tg_fd_closep) int fd = -1;

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "upload %s: can't open its file", up->id);
    TG_TRY(tg_call_io(c, tg_fd_pwrite(fd, "upload", c->req->body.p, c->req->body.n,
                                      part->part * up->part_size, err)));
    return tg_call_io(c, tg_fd_sync(fd, "upload", err));
}

/* Under the part's lock. */
static enum tg_rc take_part(struct tg_call *c, const struct tg_upload_row *up,
                            const struct tg_part_row *part, bool *repeated, struct tg_err *err)
{
    struct tg_part_row there;
    const char *detail;

    enum tg_rc rc = tg_part_get(c->db, up->id, part->part, c->arena, &there, err);
    if (rc == TG_OK) {
        *repeated = tg_bytes_eq(TG_BYTES_OF(there.sha256), TG_BYTES_OF(part->sha256));
        return *repeated
                   ? TG_OK
                   : TG_REFUSE(c, err, TG_PROBLEM_EXISTS,
                               "part %" PRIu64 " was uploaded before with other bytes", part->part);
    }
    if (rc != TG_E_NOTFOUND)
        return rc;
    TG_TRY(write_part(c, up, part, err));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_part_add(c->db, up->id, part, err));
    TG_TRY(tg_call_text(c, &detail, err, "part %" PRIu64, part->part));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

enum tg_rc tg_h_upload_part(struct tg_call *c, struct tg_err *err)
{
    struct tg_upload_row up;
    struct tg_part_row part;
    bool repeated = false;

    TG_TRY(get_own(c, &up, err));
    TG_TRY(check_part(c, &up, &part, err));
    /* The same part twice at once must not mix its bytes. */
    pthread_mutex_t *lock = &c->p->part_locks[(part.part + (uint64_t)up.id[0]) % TG_UPLOAD_LOCKS];
    pthread_mutex_lock(lock);
    enum tg_rc rc = take_part(c, &up, &part, &repeated, err);
    pthread_mutex_unlock(lock);
    TG_TRY(rc);
    struct tg_wire_part out = {.part = part.part, .size = c->req->body.n, .repeated = repeated};
    memcpy(out.sha256, part.sha256, sizeof(out.sha256));
    return tg_call_answer(c, 200, &tg_wire_part, &out, err);
}

enum tg_rc tg_h_upload_delete(struct tg_call *c, struct tg_err *err)
{
    struct tg_upload_row row;

    TG_TRY(get_own(c, &row, err));
    TG_AUTO(tg_freep) char *path = tg_upload_path(c->p, row.id);
    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_upload_get(c->db, row.id, c->arena, &row, err));
    if (row.state != TG_UPLOAD_OPEN)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "the upload is complete");
    TG_TRY(tg_upload_delete(c->db, row.id, err));
    const struct tg_audit_entry entry = {.target = c->target, .detail = ""};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    (void)unlink(path); /* swept at the next start otherwise */
    return TG_OK;
}
