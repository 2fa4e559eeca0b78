/* The end of an upload: the whole file is hashed, its structure, digests and signatures are checked
 * in bounded memory, and only then does it become a package. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "platform/blobs.h"
#include "platform/handlers.h"
#include "platform/vault.h"
#include "tgsp/package.h"
#include "wire/package.h"

#define PIECE (UINT32_C(1) << 20)

/* ---- one completion per upload at a time ---- */

static bool claim(struct tg_platform *p, const char *id)
{
    bool mine = false;
    size_t unused = TG_ARRAY_LEN(p->completing);

    pthread_mutex_lock(&p->complete_lock);
    for (size_t i = 0; i < TG_ARRAY_LEN(p->completing); i++) {
        if (strcmp(p->completing[i], id) == 0)
            goto out;
        if (p->completing[i][0] == '\0')
            unused = i;
    }
    if (unused < TG_ARRAY_LEN(p->completing)) {
        (void)snprintf(p->completing[unused], sizeof(p->completing[unused]), "%s", id);
        mine = true;
    }
out:
    pthread_mutex_unlock(&p->complete_lock);
    return mine;
}

static void release(struct tg_platform *p, const char *id)
{
    pthread_mutex_lock(&p->complete_lock);
    for (size_t i = 0; i < TG_ARRAY_LEN(p->completing); i++)
        if (strcmp(p->completing[i], id) == 0)
            p->completing[i][0] = '\0';
    pthread_mutex_unlock(&p->complete_lock);
}

/* ---- checks ---- */

static enum tg_rc check_hash(struct tg_call *c, const struct tg_upload_row *up, int fd,
                             struct tg_err *err)
{
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *h = NULL;
    TG_AUTO(tg_freep) uint8_t *piece = tg_alloc(PIECE);
    uint8_t hash[32];

    if (piece == NULL || tg_sha256_new(&h) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (uint64_t off = 0; off < up->size;) {
        size_t n = up->size - off < PIECE ? (size_t)(up->size - off) : PIECE;
        TG_TRY(tg_fd_pread(fd, "upload", piece, n, off, err));
        TG_TRY(tg_sha256_update(h, tg_bytes_make(piece, n)));
        off += n;
    }
    TG_TRY(tg_sha256_final(h, hash));
    if (!tg_bytes_eq(TG_BYTES_OF(hash), TG_BYTES_OF(up->sha256)))
        return TG_REFUSE(c, err, TG_PROBLEM_DIGEST,
                         "the file's SHA-256 is not the one the upload was begun with");
    return TG_OK;
}

static enum tg_rc check_package(struct tg_call *c, int fd, struct tg_tgsp **out, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    struct tg_tgsp *p = NULL;
    struct tg_src src;

    TG_TRY(tg_src_fd(&src, fd, "package", err));
    TG_TRY(tg_vault_trust(c, &trust, err));
    enum tg_rc rc = tg_tgsp_open(&src, &p, err);
    if (rc == TG_OK)
        rc = tg_tgsp_verify(p, trust, err);
    if (rc == TG_OK)
        rc = tg_tgsp_check_payload(p, NULL, err);
    if (rc != TG_OK)
        tg_tgsp_free(p);
    else
        *out = p;
    /* What the bytes are to blame for is a refusal; the rest is our own trouble. */
    if (rc == TG_E_AUTH || rc == TG_E_DENIED) {
        c->problem = TG_PROBLEM_PUBLISHER;
        tg_err_wrap(err, "only packages of registered publishers are accepted (tensorguard "
                         "publisher add)");
    }
    if (rc == TG_E_FORMAT || rc == TG_E_UNSUPPORTED || rc == TG_E_LIMIT)
        c->problem = TG_PROBLEM_PACKAGE;
    return rc;
}

/* ---- from the package to its row ---- */

static enum tg_rc signer_names(struct tg_call *c, const struct tg_tgsp *p, const char **out,
                               struct tg_err *err)
{
    const uint8_t *ids[TG_TGSP_SIGNERS_MAX];
    size_t n = tg_tgsp_signers(p, ids);
    struct tg_jlist list;

    TG_TRY(tg_call_items(c, &list, n, sizeof(const char *), err));
    for (size_t i = 0; i < n; i++)
        TG_TRY(tg_call_hex(c, tg_bytes_make(ids[i], TG_SIGN_ID_LEN),
                           &((const char **)list.items)[i], err));
    return tg_names_encode(c, &list, out, err);
}

static bool has_vault(struct tg_call *c, const struct tg_tgsp_recipients *r)
{
    const uint8_t *id = tg_kem_pk_id(tg_kem_sk_pk(c->p->keys->vault));

    for (size_t i = 0; i < r->recipients.n; i++) {
        const struct tg_tgsp_recipient *one =
            &((const struct tg_tgsp_recipient *)r->recipients.items)[i];
        if (tg_bytes_eq(TG_BYTES_OF(one->id), tg_bytes_make(id, TG_KEM_ID_LEN)))
            return true;
    }
    return false;
}

static enum tg_rc make_row(struct tg_call *c, const struct tg_upload_row *up,
                           const struct tg_tgsp *p, struct tg_package_row *row, struct tg_err *err)
{
    const struct tg_tgsp_header *header = tg_tgsp_header_get(p);
    const struct tg_tgsp_manifest *m = tg_tgsp_manifest_get(p);
    const struct tg_tgsp_recipients *recipients = tg_tgsp_recipients_get(p);

    *row = (struct tg_package_row){
        .blob_size = up->size,
        .model = m->model.name,
        .version = m->model.version != NULL ? m->model.version : "",
        .format = tg_tgsp_model_formats[m->model.format],
        .sequence = m->model.sequence,
        .floor = m->model.floor,
        .created_at = header->created_at,
        .not_before = m->validity.has_not_before ? m->validity.not_before : 0,
        .not_after = m->validity.has_not_after ? m->validity.not_after : 0,
        .recipients = recipients->recipients.n,
        .vault = has_vault(c, recipients),
        .uploaded_at = c->now,
        .uploaded_by = c->who.name,
    };
    memcpy(row->h, tg_tgsp_h(p), sizeof(row->h));
    memcpy(row->blob_sha256, up->sha256, sizeof(row->blob_sha256));
    TG_TRY(tg_names_encode(c, &m->constraints.fleets, &row->fleets, err));
    return signer_names(c, p, &row->signers, err);
}

/* ---- the change ---- */

/* Each publisher that signed the stored copy and is still registered must have signed the new one.
 */
static enum tg_rc check_superset(struct tg_call *c, const struct tg_package_row *was,
                                 const struct tg_package_row *is, struct tg_err *err)
{
    struct tg_jlist old, new;
    struct tg_publisher_row publisher;
    uint8_t id[16];

    TG_TRY(tg_names_decode(c->arena, was->signers, &old, err));
    TG_TRY(tg_names_decode(c->arena, is->signers, &new, err));
    for (size_t i = 0; i < old.n; i++) {
        const char *one = ((const char *const *)old.items)[i];
        bool found = false;
        for (size_t j = 0; j < new.n; j++)
            found |= strcmp(one, ((const char *const *)new.items)[j]) == 0;
        TG_TRY(tg_hex_decode(tg_bytes_str(one), id, sizeof(id)));
        if (!found && tg_publisher_get(c->db, id, c->arena, &publisher, err) == TG_OK)
            return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT,
                             "the stored copy is also signed by %s (%s): sign that copy", one,
                             publisher.name);
    }
    return TG_OK;
}

static enum tg_rc add_package(struct tg_call *c, const struct tg_package_row *row,
                              const struct tg_tgsp_recipients *recipients, struct tg_err *err)
{
    TG_TRY(tg_package_add(c->db, row, err));
    for (size_t i = 0; i < recipients->recipients.n; i++)
        TG_TRY(tg_package_recipient_add(
            c->db, row->h, ((const struct tg_tgsp_recipient *)recipients->recipients.items)[i].id,
            err));
    return TG_OK;
}

struct outcome {
    bool replaced;
    uint8_t old_blob[32];
};

static enum tg_rc store_package(struct tg_call *c, const struct tg_upload_row *up,
                                const struct tg_tgsp *p, const struct tg_package_row *row,
                                struct outcome *out, struct tg_err *err)
{
    struct tg_package_row was;
    struct tg_audit_entry entry = {
        .target = c->target, .package = TG_BYTES_OF(row->h), .action = "package.accept"};

    TG_TRY(tg_db_begin(c->db, err));
    enum tg_rc rc = tg_package_get(c->db, row->h, c->arena, &was, err);
    if (rc == TG_E_NOTFOUND) {
        TG_TRY(add_package(c, row, tg_tgsp_recipients_get(p), err));
    } else {
        TG_TRY(rc);
        if (!tg_bytes_eq(TG_BYTES_OF(was.blob_sha256), TG_BYTES_OF(row->blob_sha256))) {
            TG_TRY(check_superset(c, &was, row, err));
            TG_TRY(tg_package_replace(c->db, row, err));
            out->replaced = true;
            memcpy(out->old_blob, was.blob_sha256, sizeof(out->old_blob));
            entry.action = "package.replace";
        }
    }
    TG_TRY(tg_upload_done(c->db, up->id, row->h, err));
    TG_TRY(tg_call_text(c, &entry.detail, err, "%s %s, sequence %" PRIu64 ", %" PRIu64 " bytes",
                        row->model, row->version, row->sequence, row->blob_size));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

/* What was refused is closed, so that nothing can be swapped in under its name; with its audit row.
 */
static enum tg_rc close_refused(struct tg_call *c, const struct tg_upload_row *up, const char *path,
                                enum tg_rc why, struct tg_err *err)
{
    struct tg_err inner = TG_ERR_INIT;
    const struct tg_audit_entry entry = {
        .action = "package.refuse", .target = c->target, .detail = err->msg, .refused = true};

    enum tg_rc rc = tg_db_begin(c->db, &inner);
    if (rc == TG_OK)
        rc = tg_upload_delete(c->db, up->id, &inner);
    if (rc == TG_OK)
        rc = tg_audit(c, &entry, &inner);
    if (rc == TG_OK)
        rc = tg_db_commit(c->db, &inner);
    tg_db_rollback(c->db);
    if (rc != TG_OK) {
        tg_log_err("platform.refuse", &inner);
        return why;
    }
    c->refusal_written = true;
    (void)unlink(path);
    return why;
}

static enum tg_rc answer_package(struct tg_call *c, unsigned status, const uint8_t h[32],
                                 struct tg_err *err)
{
    struct tg_package_row row;
    struct tg_wire_package out;

    TG_TRY(tg_package_get(c->db, h, c->arena, &row, err));
    TG_TRY(tg_package_to_wire(c, &row, &out, err));
    return tg_call_resource(c, status, &tg_wire_package, &out, err);
}

static enum tg_rc complete(struct tg_call *c, const struct tg_upload_row *up, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_upload_path(c->p, up->id);
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_fd_closep) int fd = -1;
    struct tg_package_row row;
    struct outcome outcome = {.replaced = false};

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL(err, TG_E_IO, "upload %s: its file is gone", up->id);
    enum tg_rc rc = check_hash(c, up, fd, err);
    if (rc == TG_OK)
        rc = check_package(c, fd, &p, err);
    if (rc != TG_OK && c->problem != TG_PROBLEM_COUNT)
        return close_refused(c, up, path, rc, err);
    TG_TRY(rc);
    TG_TRY(make_row(c, up, p, &row, err));
    TG_TRY(tg_blob_put(c, fd, path, up->sha256, err));
    TG_TRY(store_package(c, up, p, &row, &outcome, err));
    (void)unlink(path); /* the blob is another name of it; swept at the next start otherwise */
    if (outcome.replaced) {
        TG_AUTO(tg_freep) char *old = tg_blob_path(c->p, outcome.old_blob);
        if (old != NULL)
            (void)unlink(old);
    }
    return answer_package(c, 201, row.h, err);
}

static enum tg_rc refuse_missing(struct tg_call *c, const struct tg_upload_row *up,
                                 struct tg_err *err)
{
    struct tg_jlist ranges;
    char text[512];
    size_t n = 0;

    TG_TRY(tg_part_missing(c->db, up, 16, c->arena, &ranges, err));
    for (size_t i = 0; i < ranges.n && n < sizeof(text) - 64; i++) {
        const struct tg_part_range_row *r = &((const struct tg_part_range_row *)ranges.items)[i];
        const char *sep = i != 0 ? ", " : "";
        if (r->first == r->last)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%" PRIu64, sep, r->first);
        else
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%" PRIu64 "-%" PRIu64, sep,
                                  r->first, r->last);
    }
    return TG_REFUSE(c, err, TG_PROBLEM_INCOMPLETE,
                     "%" PRIu64 " of %" PRIu64 " parts are missing: %s%s", up->parts - up->received,
                     up->parts, text, ranges.n == 16 ? ", …" : "");
}

enum tg_rc tg_h_upload_complete(struct tg_call *c, struct tg_err *err)
{
    struct tg_upload_row up;

    TG_TRY(tg_call_text(c, &c->target, err, "upload:%s", c->params[0]));
    TG_TRY(tg_upload_get(c->db, c->params[0], c->arena, &up, err));
    if (c->who.role != TG_ACCESS_ADMIN && strcmp(up.owner, c->who.id) != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_FORBIDDEN, "another token began this upload");
    if (up.state == TG_UPLOAD_DONE)
        return answer_package(c, 200, up.package.p, err);
    if (up.received != up.parts)
        return refuse_missing(c, &up, err);
    if (!claim(c->p, up.id))
        return TG_REFUSE(c, err, TG_PROBLEM_BUSY, "the upload is being checked right now");
    enum tg_rc rc = complete(c, &up, err);
    release(c->p, up.id);
    return rc;
}
