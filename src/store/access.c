#include "store/access.h"

#include "store/sql_internal.h"

#include <string.h>

#define T struct tg_token_row
static const struct tg_col token_col[] = {
    TG_COL_STR(T, id),         TG_COL_STR(T, name),      TG_COL_INT(T, role),
    TG_COL_FIXED(T, hash),     TG_COL_BOOL(T, one_time), TG_COL_I64(T, created_at),
    TG_COL_I64(T, expires_at), TG_COL_I64(T, last_used), TG_COL_I64(T, ended_at),
};
static const struct tg_cols token_cols = TG_COLS(T, token_col, "token");
#undef T
#define TOKEN "id, name, role, hash, one_time, created_at, expires_at, last_used, ended_at"

TG_RC tg_token_add(struct tg_db *db, const struct tg_token_row *r, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO tokens (" TOKEN ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              tg_sql_t(r->id), tg_sql_t(r->name), tg_sql_i(r->role),
                              tg_sql_b(r->hash, 32), tg_sql_i(r->one_time), tg_sql_i(r->created_at),
                              tg_sql_i(r->expires_at), tg_sql_i(r->last_used),
                              tg_sql_i(r->ended_at)),
                       NULL, err);
}

TG_RC tg_token_by_hash(struct tg_db *db, const uint8_t hash[32], struct tg_arena *arena,
                       struct tg_token_row *row, struct tg_err *err)
{
    return tg_sql_one(db, TG_SQL("SELECT " TOKEN " FROM tokens WHERE hash = ?", tg_sql_b(hash, 32)),
                      &token_cols, arena, row, err);
}

TG_RC tg_token_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                    struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(db,
                       TG_SQL("SELECT " TOKEN " FROM tokens"
                              " WHERE one_time = 0 AND ended_at = 0 AND id > ?"
                              " ORDER BY id LIMIT ?",
                              tg_sql_t(page->after != NULL ? page->after : ""),
                              tg_sql_u(page->limit)),
                       &token_cols, arena, rows, err);
}

TG_RC tg_token_end(struct tg_db *db, const char *id, int64_t now, struct tg_err *err)
{
    return tg_sql_exec_one(db,
                           TG_SQL("UPDATE tokens SET ended_at = ? WHERE id = ? AND ended_at = 0",
                                  tg_sql_i(now), tg_sql_t(id)),
                           "token", err);
}

TG_RC tg_token_end_one_time(struct tg_db *db, int64_t now, struct tg_err *err)
{
    return tg_sql_exec(
        db,
        TG_SQL("UPDATE tokens SET ended_at = ? WHERE one_time = 1 AND ended_at = 0", tg_sql_i(now)),
        NULL, err);
}

TG_RC tg_token_touch(struct tg_db *db, const char *id, int64_t now, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("UPDATE tokens SET last_used = ? WHERE id = ? AND last_used < ?",
                              tg_sql_i(now), tg_sql_t(id), tg_sql_i(now)),
                       NULL, err);
}

TG_RC tg_token_count(struct tg_db *db, int64_t *n, struct tg_err *err)
{
    return tg_sql_int(db, TG_SQL0("SELECT COUNT(*) FROM tokens"), n, err);
}

#define T struct tg_audit_row
static const struct tg_col audit_col[] = {
    TG_COL_U64(T, seq),    TG_COL_I64(T, at),          TG_COL_STR(T, actor),
    TG_COL_STR(T, name),   TG_COL_STR(T, address),     TG_COL_STR(T, action),
    TG_COL_STR(T, target), TG_COL_BYTES(T, package),   TG_COL_STR(T, outcome),
    TG_COL_STR(T, detail), TG_COL_FIXED(T, prev_hash), TG_COL_FIXED(T, hash),
};
static const struct tg_cols audit_cols = TG_COLS(T, audit_col, "audit row");
#undef T
#define AUDIT                                                                                      \
    "seq, at, actor, name, address, action, target, package, outcome, detail, prev_hash, hash"

TG_RC tg_audit_last(struct tg_db *db, struct tg_arena *arena, uint64_t *seq, uint8_t hash[32],
                    struct tg_err *err)
{
    struct tg_jlist rows = {NULL, 0};

    TG_TRY(tg_sql_list(db, TG_SQL0("SELECT " AUDIT " FROM audit ORDER BY seq DESC LIMIT 1"),
                       &audit_cols, arena, &rows, err));
    *seq = 0;
    memset(hash, 0, 32);
    if (rows.n != 0) {
        const struct tg_audit_row *last = rows.items;
        *seq = last->seq;
        memcpy(hash, last->hash, 32);
    }
    return TG_OK;
}

TG_RC tg_audit_insert(struct tg_db *db, const struct tg_audit_row *r, struct tg_err *err)
{
    return tg_sql_exec(
        db,
        TG_SQL("INSERT INTO audit (" AUDIT ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
               tg_sql_u(r->seq), tg_sql_i(r->at), tg_sql_t(r->actor), tg_sql_t(r->name),
               tg_sql_t(r->address), tg_sql_t(r->action), tg_sql_t(r->target),
               tg_sql_b(r->package.p, r->package.n), tg_sql_t(r->outcome), tg_sql_t(r->detail),
               tg_sql_b(r->prev_hash, 32), tg_sql_b(r->hash, 32)),
        NULL, err);
}

TG_RC tg_audit_list(struct tg_db *db, const struct tg_audit_filter *f, const struct tg_page *page,
                    struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    int64_t after;

    TG_TRY(tg_page_number(page, 0, &after, err));
    /* Two statements, so that each can use its index. */
    if (f->package.n != 0)
        return tg_sql_list(db,
                           TG_SQL("SELECT " AUDIT " FROM audit WHERE package = ? AND seq > ?"
                                  " AND (? IS NULL OR actor = ?) AND (? IS NULL OR action = ?)"
                                  " ORDER BY seq LIMIT ?",
                                  tg_sql_b(f->package.p, f->package.n), tg_sql_i(after),
                                  tg_sql_t(f->actor), tg_sql_t(f->actor), tg_sql_t(f->action),
                                  tg_sql_t(f->action), tg_sql_u(page->limit)),
                           &audit_cols, arena, rows, err);
    return tg_sql_list(db,
                       TG_SQL("SELECT " AUDIT " FROM audit WHERE seq > ?"
                              " AND (? IS NULL OR actor = ?) AND (? IS NULL OR action = ?)"
                              " ORDER BY seq LIMIT ?",
                              tg_sql_i(after), tg_sql_t(f->actor), tg_sql_t(f->actor),
                              tg_sql_t(f->action), tg_sql_t(f->action), tg_sql_u(page->limit)),
                       &audit_cols, arena, rows, err);
}
