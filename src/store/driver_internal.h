/* What a database must be able to do for store/: open, close, run a script, run one statement. */
#ifndef TG_STORE_DRIVER_INTERNAL_H
#define TG_STORE_DRIVER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum tg_sqlk { TG_SQLK_NULL, TG_SQLK_INT, TG_SQLK_TEXT, TG_SQLK_BLOB };

/* One value, as argument or as column. Borrowed. */
struct tg_sqlv {
    enum tg_sqlk kind;
    int64_t i;
    struct tg_bytes b;
};

#define TG_SQL_COLS_MAX 32

/* One row; values live until it returns. */
typedef enum tg_rc tg_sql_row_fn(void *ctx, const struct tg_sqlv *v, size_t n, struct tg_err *err);

struct tg_sql_call {
    const char *sql; /* placeholders are '?'; a string literal: drivers cache by its address */
    const struct tg_sqlv *args;
    size_t args_n;
    tg_sql_row_fn *row; /* NULL: rows are not expected */
    void *ctx;
    uint64_t changed; /* out: rows inserted, updated or deleted */
};

struct tg_db_driver {
    const char *name;
    enum tg_rc (*open)(const char *where, void **conn, struct tg_err *err);
    void (*close)(void *conn);
    /* Several statements without arguments; sql need not be a literal. */
    enum tg_rc (*script)(void *conn, const char *sql, struct tg_err *err);
    /* @retval TG_E_EXISTS a uniqueness rule  @retval TG_E_STATE a reference or check rule
     * @retval TG_E_AGAIN busy, try again  @retval TG_E_IO  @retval TG_E_FORMAT the file is damaged
     */
    enum tg_rc (*run)(void *conn, struct tg_sql_call *call, struct tg_err *err);
    bool (*full)(void *conn);
};

extern const struct tg_db_driver tg_db_sqlite;

/* Numbered, append-only: index + 1 is the version each script leads to. */
extern const char *const tg_migrations[];
extern const size_t tg_migrations_n;

#endif
