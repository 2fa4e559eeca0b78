/* Publishers and grants: who may sign, and what was signed for whom. */
#include "store/package.h"
#include "store/sql_internal.h"

#define T struct tg_publisher_row
static const struct tg_col publisher_col[] = {
    TG_COL_FIXED(T, key_id), TG_COL_STR(T, name),       TG_COL_STR(T, public_key),
    TG_COL_STR(T, models),   TG_COL_I64(T, created_at),
};
static const struct tg_cols publisher_cols = TG_COLS(T, publisher_col, "publisher");
#undef T
#define PUBLISHER "key_id, name, public_key, models, created_at"

TG_RC tg_publisher_add(struct tg_db *db, const struct tg_publisher_row *r, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO publishers (" PUBLISHER ") VALUES (?, ?, ?, ?, ?)",
                              tg_sql_b(r->key_id, 16), tg_sql_t(r->name), tg_sql_t(r->public_key),
                              tg_sql_t(r->models), tg_sql_i(r->created_at)),
                       NULL, err);
}

TG_RC tg_publisher_get(struct tg_db *db, const uint8_t key_id[16], struct tg_arena *arena,
                       struct tg_publisher_row *row, struct tg_err *err)
{
    return tg_sql_one(
        db, TG_SQL("SELECT " PUBLISHER " FROM publishers WHERE key_id = ?", tg_sql_b(key_id, 16)),
        &publisher_cols, arena, row, err);
}

TG_RC tg_publisher_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                        struct tg_jlist *rows, struct tg_err *err)
{
    const struct tg_page all = {NULL, INT64_MAX};

    if (page == NULL)
        page = &all;
    return tg_sql_list(
        db,
        TG_SQL("SELECT " PUBLISHER " FROM publishers WHERE name > ? ORDER BY name LIMIT ?",
               tg_sql_t(page->after != NULL ? page->after : ""), tg_sql_u(page->limit)),
        &publisher_cols, arena, rows, err);
}

TG_RC tg_publisher_delete(struct tg_db *db, const uint8_t key_id[16], struct tg_err *err)
{
    return tg_sql_exec_one(db,
                           TG_SQL("DELETE FROM publishers WHERE key_id = ?", tg_sql_b(key_id, 16)),
                           "publisher", err);
}

#define T struct tg_grant_row
static const struct tg_col grant_col[] = {
    TG_COL_FIXED(T, kem_key_id), TG_COL_FIXED(T, granter), TG_COL_BOOL(T, vault),
    TG_COL_I64(T, issued_at),    TG_COL_I64(T, not_after), TG_COL_BYTES(T, document),
};
static const struct tg_cols grant_cols = TG_COLS(T, grant_col, "grant");
#undef T
#define GRANT "kem_key_id, granter, vault, issued_at, not_after, document"

TG_RC tg_grant_put(struct tg_db *db, const uint8_t h[32], const struct tg_grant_row *r,
                   struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO grants (h, " GRANT ") VALUES (?, ?, ?, ?, ?, ?, ?)"
                              " ON CONFLICT (h, kem_key_id) DO UPDATE SET"
                              " granter = excluded.granter, vault = excluded.vault,"
                              " issued_at = excluded.issued_at, not_after = excluded.not_after,"
                              " document = excluded.document",
                              tg_sql_b(h, 32), tg_sql_b(r->kem_key_id, 16),
                              tg_sql_b(r->granter, 16), tg_sql_i(r->vault), tg_sql_i(r->issued_at),
                              tg_sql_i(r->not_after), tg_sql_b(r->document.p, r->document.n)),
                       NULL, err);
}

TG_RC tg_grant_get(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                   struct tg_arena *arena, struct tg_grant_row *row, struct tg_err *err)
{
    return tg_sql_one(db,
                      TG_SQL("SELECT " GRANT " FROM grants WHERE h = ? AND kem_key_id = ?",
                             tg_sql_b(h, 32), tg_sql_b(kem_key_id, 16)),
                      &grant_cols, arena, row, err);
}

TG_RC tg_grant_list(struct tg_db *db, const uint8_t h[32], const struct tg_page *page,
                    struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    int64_t after;

    TG_TRY(tg_page_number(page, 0, &after, err));
    return tg_sql_list(db,
                       TG_SQL("SELECT " GRANT
                              " FROM grants WHERE h = ? ORDER BY kem_key_id LIMIT ? OFFSET ?",
                              tg_sql_b(h, 32), tg_sql_u(page->limit), tg_sql_i(after)),
                       &grant_cols, arena, rows, err);
}
