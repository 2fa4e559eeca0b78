#include "store/deploy.h"

#include "store/sql_internal.h"

#define T struct tg_deployment_row
static const struct tg_col deployment_col[] = {
    TG_COL_STR(T, id),
    TG_COL_U64(T, seq),
    TG_COL_FIXED(T, h),
    TG_COL_STR(T, fleet),
    TG_COL_STR(T, device),
    TG_COL_BOOL(T, allow_rollback),
    TG_COL_INT(T, state),
    TG_COL_I64(T, created_at),
    TG_COL_STR(T, created_by),
    TG_COL_BYTES(T, document),
    TG_COL_FIXED(T, document_sha256),
    TG_COL_I64(T, document_at),
    TG_COL_STR(T, model),
    TG_COL_STR(T, version),
};
static const struct tg_cols deployment_cols = TG_COLS(T, deployment_col, "deployment");
#undef T
#define OWN                                                                                        \
    "id, seq, h, fleet, device, allow_rollback, state, created_at, created_by, document,"          \
    " document_sha256, document_at"
#define DEPLOYMENT                                                                                 \
    "d.id, d.seq, d.h, d.fleet, d.device, d.allow_rollback, d.state, d.created_at, d.created_by,"  \
    " d.document, d.document_sha256, d.document_at, p.model, p.version"                            \
    " FROM deployments d JOIN packages p ON p.h = d.h"

TG_RC tg_deployment_add(struct tg_db *db, struct tg_deployment_row *r, struct tg_err *err)
{
    int64_t seq = 0;

    TG_TRY(tg_sql_int(db, TG_SQL0("SELECT COALESCE(MAX(seq), 0) + 1 FROM deployments"), &seq, err));
    r->seq = (uint64_t)seq;
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO deployments (" OWN
                              ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              tg_sql_t(r->id), tg_sql_i(seq), tg_sql_b(r->h, 32),
                              tg_sql_t(r->fleet), tg_sql_t(r->device), tg_sql_i(r->allow_rollback),
                              tg_sql_i(r->state), tg_sql_i(r->created_at), tg_sql_t(r->created_by),
                              tg_sql_b(r->document.p, r->document.n),
                              tg_sql_b(r->document_sha256, 32), tg_sql_i(r->document_at)),
                       NULL, err);
}

TG_RC tg_deployment_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                        struct tg_deployment_row *row, struct tg_err *err)
{
    return tg_sql_one(db, TG_SQL("SELECT " DEPLOYMENT " WHERE d.id = ?", tg_sql_t(id)),
                      &deployment_cols, arena, row, err);
}

TG_RC tg_deployment_list(struct tg_db *db, const struct tg_deployment_filter *f,
                         const struct tg_page *page, struct tg_arena *arena, struct tg_jlist *rows,
                         struct tg_err *err)
{
    int64_t before;

    TG_TRY(tg_page_number(page, INT64_MAX, &before, err));
    return tg_sql_list(db,
                       TG_SQL("SELECT " DEPLOYMENT " WHERE d.seq < ? AND (? IS NULL OR d.h = ?)"
                              " AND (? IS NULL OR d.fleet = ?) ORDER BY d.seq DESC LIMIT ?",
                              tg_sql_i(before), tg_sql_b(f->package.p, f->package.n),
                              tg_sql_b(f->package.p, f->package.n), tg_sql_t(f->fleet),
                              tg_sql_t(f->fleet), tg_sql_u(page->limit)),
                       &deployment_cols, arena, rows, err);
}

TG_RC tg_deployment_cancel(struct tg_db *db, const char *id, struct tg_err *err)
{
    return tg_sql_exec_one(
        db, TG_SQL("UPDATE deployments SET state = 1 WHERE id = ? AND state = 0", tg_sql_t(id)),
        "active deployment", err);
}

TG_RC tg_deployment_document(struct tg_db *db, const struct tg_deployment_row *r,
                             struct tg_err *err)
{
    return tg_sql_exec_one(db,
                           TG_SQL("UPDATE deployments SET document = ?, document_sha256 = ?,"
                                  " document_at = ? WHERE id = ?",
                                  tg_sql_b(r->document.p, r->document.n),
                                  tg_sql_b(r->document_sha256, 32), tg_sql_i(r->document_at),
                                  tg_sql_t(r->id)),
                           "deployment", err);
}

TG_RC tg_deployment_counts(struct tg_db *db, const char *id, struct tg_arena *arena,
                           struct tg_jlist *rows, struct tg_err *err)
{
    static const struct tg_col col[] = {TG_COL_INT(struct tg_state_count_row, state),
                                        TG_COL_U64(struct tg_state_count_row, n)};
    static const struct tg_cols cols = TG_COLS(struct tg_state_count_row, col, "row");

    return tg_sql_list(
        db,
        TG_SQL("SELECT state, COUNT(*) FROM updates WHERE deployment = ? GROUP BY state",
               tg_sql_t(id)),
        &cols, arena, rows, err);
}

#define NEW_UPDATE                                                                                 \
    "INSERT INTO updates (deployment, device, deployment_seq, state, code, reason, seq,"           \
    " updated_at) "

/* How far each was when it ends; values: the end, when. */
#define END_UPDATES "UPDATE updates SET ended_from = state, state = ?, updated_at = ?"

TG_RC tg_update_fan_out(struct tg_db *db, const struct tg_deployment_row *d,
                        const struct tg_update_ends *ends, int64_t now, struct tg_err *err)
{
    TG_TRY(tg_sql_exec(
        db,
        TG_SQL(END_UPDATES
               " WHERE state <> ? AND state <> ?"
               " AND device IN (SELECT id FROM devices WHERE fleet = ? AND (? IS NULL OR id = ?))",
               tg_sql_i(ends->superseded), tg_sql_i(now), tg_sql_i(ends->superseded),
               tg_sql_i(ends->cancelled), tg_sql_t(d->fleet), tg_sql_t(d->device),
               tg_sql_t(d->device)),
        NULL, err));
    return tg_sql_exec(db,
                       TG_SQL(NEW_UPDATE "SELECT ?, id, ?, 0, '', '', 0, ? FROM devices"
                                         " WHERE state = 0 AND fleet = ?"
                                         " AND (? IS NULL OR id = ?)",
                              tg_sql_t(d->id), tg_sql_u(d->seq), tg_sql_i(now), tg_sql_t(d->fleet),
                              tg_sql_t(d->device), tg_sql_t(d->device)),
                       NULL, err);
}

TG_RC tg_update_for_new_device(struct tg_db *db, const char *device, const char *fleet, int64_t now,
                               struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL(NEW_UPDATE "SELECT id, ?, seq, 0, '', '', 0, ? FROM deployments"
                                         " WHERE fleet = ? AND device IS NULL AND state = 0"
                                         " ORDER BY seq DESC LIMIT 1",
                              tg_sql_t(device), tg_sql_i(now), tg_sql_t(fleet)),
                       NULL, err);
}

TG_RC tg_update_end_deployment(struct tg_db *db, const char *deployment,
                               const struct tg_update_ends *ends, int64_t now, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL(END_UPDATES " WHERE deployment = ? AND state <> ? AND state <> ?",
                              tg_sql_i(ends->cancelled), tg_sql_i(now), tg_sql_t(deployment),
                              tg_sql_i(ends->superseded), tg_sql_i(ends->cancelled)),
                       NULL, err);
}

TG_RC tg_update_end_device(struct tg_db *db, const char *device, const struct tg_update_ends *ends,
                           int64_t now, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL(END_UPDATES " WHERE device = ? AND state <> ? AND state <> ?",
                              tg_sql_i(ends->cancelled), tg_sql_i(now), tg_sql_t(device),
                              tg_sql_i(ends->superseded), tg_sql_i(ends->cancelled)),
                       NULL, err);
}

#define T struct tg_update_row
static const struct tg_col update_col[] = {
    TG_COL_STR(T, deployment), TG_COL_STR(T, device),     TG_COL_STR(T, device_name),
    TG_COL_INT(T, state),      TG_COL_STR(T, code),       TG_COL_STR(T, reason),
    TG_COL_U64(T, seq),        TG_COL_I64(T, updated_at), TG_COL_BOOL(T, ran),
    TG_COL_INT(T, ended_from),
};
static const struct tg_cols update_cols = TG_COLS(T, update_col, "update");
#undef T
#define UPDATE                                                                                     \
    "u.deployment, u.device, v.name, u.state, u.code, u.reason, u.seq, u.updated_at, u.ran,"       \
    " u.ended_from"                                                                                \
    " FROM updates u JOIN devices v ON v.id = u.device"

TG_RC tg_update_list(struct tg_db *db, const char *deployment, const struct tg_page *page,
                     struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(db,
                       TG_SQL("SELECT " UPDATE " WHERE u.deployment = ? AND u.device > ?"
                              " ORDER BY u.device LIMIT ?",
                              tg_sql_t(deployment),
                              tg_sql_t(page->after != NULL ? page->after : ""),
                              tg_sql_u(page->limit)),
                       &update_cols, arena, rows, err);
}

TG_RC tg_update_get(struct tg_db *db, const char *deployment, const char *device,
                    struct tg_arena *arena, struct tg_update_row *row, struct tg_err *err)
{
    return tg_sql_one(db,
                      TG_SQL("SELECT " UPDATE " WHERE u.deployment = ? AND u.device = ?",
                             tg_sql_t(deployment), tg_sql_t(device)),
                      &update_cols, arena, row, err);
}

TG_RC tg_update_set(struct tg_db *db, const struct tg_update_row *was,
                    const struct tg_update_row *is, struct tg_err *err)
{
    return tg_sql_exec_one(
        db,
        TG_SQL("UPDATE updates SET state = ?, code = ?, reason = ?, seq = ?, updated_at = ?,"
               " ran = ?"
               " WHERE deployment = ? AND device = ? AND state = ? AND seq = ?",
               tg_sql_i(is->state), tg_sql_t(is->code), tg_sql_t(is->reason), tg_sql_u(is->seq),
               tg_sql_i(is->updated_at), tg_sql_i(is->ran), tg_sql_t(was->deployment),
               tg_sql_t(was->device), tg_sql_i(was->state), tg_sql_u(was->seq)),
        "update in this state", err);
}

#define T struct tg_directive_row
static const struct tg_col directive_col[] = {
    TG_COL_STR(T, deployment),  TG_COL_FIXED(T, h),       TG_COL_FIXED(T, blob_sha256),
    TG_COL_U64(T, blob_size),   TG_COL_BOOL(T, vault),    TG_COL_BOOL(T, own_block),
    TG_COL_INT(T, grants),      TG_COL_I64(T, not_after), TG_COL_INT(T, state),
    TG_COL_U64(T, seq),         TG_COL_STR(T, reason),    TG_COL_FIXED(T, document_sha256),
    TG_COL_I64(T, document_at),
};
static const struct tg_cols directive_cols = TG_COLS(T, directive_col, "update");
#undef T

#define DIRECTIVE                                                                                  \
    "SELECT u.deployment, d.h, p.blob_sha256, p.blob_size, p.vault,"                               \
    " (SELECT COUNT(*) FROM package_recipients r WHERE r.h = d.h AND r.kem_key_id = ?),"           \
    " f.grants, p.not_after, u.state, u.seq, u.reason, d.document_sha256, d.document_at"           \
    " FROM updates u JOIN deployments d ON d.id = u.deployment"                                    \
    " JOIN packages p ON p.h = d.h JOIN fleets f ON f.name = d.fleet"

TG_RC tg_directive_get(struct tg_db *db, const struct tg_directive_query *q, struct tg_arena *arena,
                       struct tg_directive_row *row, struct tg_err *err)
{
    return tg_sql_one(db,
                      TG_SQL(DIRECTIVE
                             " WHERE u.device = ? AND u.state <> ? AND u.state <> ? AND d.state = 0"
                             " ORDER BY u.deployment_seq DESC LIMIT 1",
                             tg_sql_b(q->kem_key_id, 16), tg_sql_t(q->device),
                             tg_sql_i(q->ends.superseded), tg_sql_i(q->ends.cancelled)),
                      &directive_cols, arena, row, err);
}

TG_RC tg_update_ran(struct tg_db *db, const struct tg_directive_query *q, struct tg_arena *arena,
                    struct tg_directive_row *row, struct tg_err *err)
{
    return tg_sql_one(db,
                      TG_SQL(DIRECTIVE
                             " WHERE u.device = ? AND u.ran <> 0 AND u.state <> ? AND d.state = 0"
                             " AND u.deployment_seq = (SELECT MAX(n.deployment_seq) FROM updates n"
                             " WHERE n.device = ? AND n.ran <> 0)"
                             " AND NOT EXISTS (SELECT 1 FROM updates w JOIN deployments x"
                             " ON x.id = w.deployment WHERE w.device = ? AND x.h = d.h"
                             " AND x.seq > d.seq AND x.state <> 0)",
                             tg_sql_b(q->kem_key_id, 16), tg_sql_t(q->device),
                             tg_sql_i(q->ends.cancelled), tg_sql_t(q->device), tg_sql_t(q->device)),
                      &directive_cols, arena, row, err);
}

TG_RC tg_update_concerns(struct tg_db *db, const char *device, const uint8_t h[32],
                         const struct tg_update_ends *ends, bool *yes, struct tg_err *err)
{
    int64_t n = 0;

    TG_TRY(tg_sql_int(db,
                      TG_SQL("SELECT COUNT(*) FROM updates u"
                             " JOIN deployments d ON d.id = u.deployment"
                             " WHERE u.device = ? AND d.h = ? AND u.state <> 0 AND u.state <> ?"
                             " AND u.state <> ?",
                             tg_sql_t(device), tg_sql_b(h, 32), tg_sql_i(ends->superseded),
                             tg_sql_i(ends->cancelled)),
                      &n, err));
    *yes = n != 0;
    return TG_OK;
}
