#include "store/package.h"

#include "store/sql_internal.h"

#define T struct tg_upload_row
static const struct tg_col upload_col[] = {
    TG_COL_STR(T, id),        TG_COL_STR(T, owner),      TG_COL_INT(T, state),
    TG_COL_U64(T, size),      TG_COL_FIXED(T, sha256),   TG_COL_U64(T, part_size),
    TG_COL_U64(T, parts),     TG_COL_I64(T, created_at), TG_COL_I64(T, expires_at),
    TG_COL_BYTES(T, package), TG_COL_U64(T, received),
};
static const struct tg_cols upload_cols = TG_COLS(T, upload_col, "upload");
#undef T

TG_RC tg_upload_add(struct tg_db *db, const struct tg_upload_row *r, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO uploads (id, owner, state, size, sha256, part_size,"
                              " parts, created_at, expires_at, package)"
                              " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              tg_sql_t(r->id), tg_sql_t(r->owner), tg_sql_i(r->state),
                              tg_sql_u(r->size), tg_sql_b(r->sha256, 32), tg_sql_u(r->part_size),
                              tg_sql_u(r->parts), tg_sql_i(r->created_at), tg_sql_i(r->expires_at),
                              tg_sql_b(r->package.p, r->package.n)),
                       NULL, err);
}

TG_RC tg_upload_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                    struct tg_upload_row *row, struct tg_err *err)
{
    return tg_sql_one(
        db,
        TG_SQL("SELECT id, owner, state, size, sha256, part_size, parts, created_at, expires_at,"
               " package, (SELECT COUNT(*) FROM upload_parts p WHERE p.upload = uploads.id)"
               " FROM uploads WHERE id = ?",
               tg_sql_t(id)),
        &upload_cols, arena, row, err);
}

TG_RC tg_upload_open_count(struct tg_db *db, const char *owner, int64_t *n, struct tg_err *err)
{
    return tg_sql_int(
        db, TG_SQL("SELECT COUNT(*) FROM uploads WHERE owner = ? AND state = 0", tg_sql_t(owner)),
        n, err);
}

TG_RC tg_upload_stale(struct tg_db *db, int64_t now, struct tg_arena *arena, struct tg_jlist *rows,
                      struct tg_err *err)
{
    static const struct tg_col col[] = {TG_COL_STR(struct tg_id_row, id)};
    static const struct tg_cols cols = TG_COLS(struct tg_id_row, col, "row");

    return tg_sql_list(
        db,
        TG_SQL("SELECT id FROM uploads WHERE expires_at < ? ORDER BY id LIMIT 100", tg_sql_i(now)),
        &cols, arena, rows, err);
}

TG_RC tg_upload_done(struct tg_db *db, const char *id, const uint8_t h[32], struct tg_err *err)
{
    TG_TRY(tg_sql_exec(db, TG_SQL("DELETE FROM upload_parts WHERE upload = ?", tg_sql_t(id)), NULL,
                       err));
    return tg_sql_exec_one(
        db,
        TG_SQL("UPDATE uploads SET state = 1, package = ? WHERE id = ? AND state = 0",
               tg_sql_b(h, 32), tg_sql_t(id)),
        "open upload", err);
}

TG_RC tg_upload_delete(struct tg_db *db, const char *id, struct tg_err *err)
{
    TG_TRY(tg_sql_exec(db, TG_SQL("DELETE FROM upload_parts WHERE upload = ?", tg_sql_t(id)), NULL,
                       err));
    return tg_sql_exec_one(db, TG_SQL("DELETE FROM uploads WHERE id = ?", tg_sql_t(id)), "upload",
                           err);
}

#define T struct tg_part_row
static const struct tg_col part_col[] = {TG_COL_U64(T, part), TG_COL_FIXED(T, sha256)};
static const struct tg_cols part_cols = TG_COLS(T, part_col, "part");
#undef T

TG_RC tg_part_add(struct tg_db *db, const char *upload, const struct tg_part_row *r,
                  struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO upload_parts (upload, part, sha256) VALUES (?, ?, ?)",
                              tg_sql_t(upload), tg_sql_u(r->part), tg_sql_b(r->sha256, 32)),
                       NULL, err);
}

TG_RC tg_part_get(struct tg_db *db, const char *upload, uint64_t part, struct tg_arena *arena,
                  struct tg_part_row *row, struct tg_err *err)
{
    return tg_sql_one(db,
                      TG_SQL("SELECT part, sha256 FROM upload_parts WHERE upload = ? AND part = ?",
                             tg_sql_t(upload), tg_sql_u(part)),
                      &part_cols, arena, row, err);
}

TG_RC tg_part_missing(struct tg_db *db, const struct tg_upload_row *upload, uint64_t limit,
                      struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    static const struct tg_col col[] = {TG_COL_U64(struct tg_part_range_row, first),
                                        TG_COL_U64(struct tg_part_range_row, last)};
    static const struct tg_cols cols = TG_COLS(struct tg_part_range_row, col, "row");

    /* Gaps between neighbours, with -1 and `parts` as the fence posts. */
    return tg_sql_list(db,
                       TG_SQL("SELECT part + 1, next - 1 FROM ("
                              " SELECT part, LEAD(part) OVER (ORDER BY part) AS next FROM ("
                              "  SELECT part FROM upload_parts WHERE upload = ?"
                              "  UNION ALL SELECT -1 UNION ALL SELECT ?) AS posts) AS gaps"
                              " WHERE next > part + 1 ORDER BY part LIMIT ?",
                              tg_sql_t(upload->id), tg_sql_u(upload->parts), tg_sql_u(limit)),
                       &cols, arena, rows, err);
}

#define T struct tg_package_row
static const struct tg_col package_col[] = {
    TG_COL_FIXED(T, h),        TG_COL_U64(T, seq),         TG_COL_FIXED(T, blob_sha256),
    TG_COL_U64(T, blob_size),  TG_COL_STR(T, model),       TG_COL_STR(T, version),
    TG_COL_STR(T, format),     TG_COL_U64(T, sequence),    TG_COL_U64(T, floor),
    TG_COL_I64(T, created_at), TG_COL_I64(T, not_before),  TG_COL_I64(T, not_after),
    TG_COL_STR(T, fleets),     TG_COL_STR(T, signers),     TG_COL_U64(T, recipients),
    TG_COL_BOOL(T, vault),     TG_COL_I64(T, uploaded_at), TG_COL_STR(T, uploaded_by),
};
static const struct tg_cols package_cols = TG_COLS(T, package_col, "package");
#undef T
#define PACKAGE                                                                                    \
    "h, seq, blob_sha256, blob_size, model, version, format, sequence, floor, created_at,"         \
    " not_before, not_after, fleets, signers, recipients, vault, uploaded_at, uploaded_by"

TG_RC tg_package_add(struct tg_db *db, const struct tg_package_row *r, struct tg_err *err)
{
    int64_t seq = 0;

    TG_TRY(tg_sql_int(db, TG_SQL0("SELECT COALESCE(MAX(seq), 0) + 1 FROM packages"), &seq, err));
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO packages (" PACKAGE
                              ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              tg_sql_b(r->h, 32), tg_sql_i(seq), tg_sql_b(r->blob_sha256, 32),
                              tg_sql_u(r->blob_size), tg_sql_t(r->model), tg_sql_t(r->version),
                              tg_sql_t(r->format), tg_sql_u(r->sequence), tg_sql_u(r->floor),
                              tg_sql_i(r->created_at), tg_sql_i(r->not_before),
                              tg_sql_i(r->not_after), tg_sql_t(r->fleets), tg_sql_t(r->signers),
                              tg_sql_u(r->recipients), tg_sql_i(r->vault), tg_sql_i(r->uploaded_at),
                              tg_sql_t(r->uploaded_by)),
                       NULL, err);
}

TG_RC tg_package_replace(struct tg_db *db, const struct tg_package_row *r, struct tg_err *err)
{
    return tg_sql_exec_one(db,
                           TG_SQL("UPDATE packages SET blob_sha256 = ?, blob_size = ?, signers = ?"
                                  " WHERE h = ?",
                                  tg_sql_b(r->blob_sha256, 32), tg_sql_u(r->blob_size),
                                  tg_sql_t(r->signers), tg_sql_b(r->h, 32)),
                           "package", err);
}

TG_RC tg_package_get(struct tg_db *db, const uint8_t h[32], struct tg_arena *arena,
                     struct tg_package_row *row, struct tg_err *err)
{
    return tg_sql_one(db, TG_SQL("SELECT " PACKAGE " FROM packages WHERE h = ?", tg_sql_b(h, 32)),
                      &package_cols, arena, row, err);
}

TG_RC tg_package_by_blob(struct tg_db *db, const uint8_t sha256[32], struct tg_arena *arena,
                         struct tg_package_row *row, struct tg_err *err)
{
    return tg_sql_one(
        db, TG_SQL("SELECT " PACKAGE " FROM packages WHERE blob_sha256 = ?", tg_sql_b(sha256, 32)),
        &package_cols, arena, row, err);
}

TG_RC tg_package_list(struct tg_db *db, const char *model, const struct tg_page *page,
                      struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    int64_t before;

    TG_TRY(tg_page_number(page, INT64_MAX, &before, err));
    return tg_sql_list(db,
                       TG_SQL("SELECT " PACKAGE " FROM packages WHERE seq < ?"
                              " AND (? IS NULL OR model = ?) ORDER BY seq DESC LIMIT ?",
                              tg_sql_i(before), tg_sql_t(model), tg_sql_t(model),
                              tg_sql_u(page->limit)),
                       &package_cols, arena, rows, err);
}

TG_RC tg_package_recipient_add(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                               struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO package_recipients (h, kem_key_id) VALUES (?, ?)",
                              tg_sql_b(h, 32), tg_sql_b(kem_key_id, 16)),
                       NULL, err);
}

TG_RC tg_package_has_recipient(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                               bool *yes, struct tg_err *err)
{
    int64_t n = 0;

    TG_TRY(
        tg_sql_int(db,
                   TG_SQL("SELECT COUNT(*) FROM package_recipients WHERE h = ? AND kem_key_id = ?",
                          tg_sql_b(h, 32), tg_sql_b(kem_key_id, 16)),
                   &n, err));
    *yes = n != 0;
    return TG_OK;
}
