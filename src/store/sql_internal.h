/* How the aggregates of store/ speak SQL: typed arguments in, rows into structs by column tables.
 */
#ifndef TG_STORE_SQL_INTERNAL_H
#define TG_STORE_SQL_INTERNAL_H

#include "base/bytes.h"
#include "store/db.h"
#include "store/driver_internal.h"

static inline struct tg_sqlv tg_sql_i(int64_t v)
{
    return (struct tg_sqlv){.kind = TG_SQLK_INT, .i = v};
}

static inline struct tg_sqlv tg_sql_u(uint64_t v)
{
    return (struct tg_sqlv){.kind = TG_SQLK_INT, .i = (int64_t)v};
}

/* NULL text is SQL NULL. */
static inline struct tg_sqlv tg_sql_t(const char *s)
{
    return s == NULL ? (struct tg_sqlv){.kind = TG_SQLK_NULL}
                     : (struct tg_sqlv){.kind = TG_SQLK_TEXT, .b = tg_bytes_str(s)};
}

/* Empty bytes are SQL NULL. */
static inline struct tg_sqlv tg_sql_b(const void *p, size_t n)
{
    return p == NULL || n == 0 ? (struct tg_sqlv){.kind = TG_SQLK_NULL}
                               : (struct tg_sqlv){.kind = TG_SQLK_BLOB, .b = tg_bytes_make(p, n)};
}

/* A column of a row struct. NULL gives NULL, 0, false, zero bytes. */
enum tg_colk {
    TG_COLK_STR, /* const char *, in the arena */
    TG_COLK_I64,
    TG_COLK_U64,
    TG_COLK_INT,
    TG_COLK_BOOL,
    TG_COLK_FIXED, /* uint8_t[n] */
    TG_COLK_BYTES  /* struct tg_bytes, in the arena */
};

struct tg_col {
    enum tg_colk kind;
    size_t off;
    size_t n;
};

#define TG_COL_STR(t, m)                                                                           \
    {                                                                                              \
        TG_COLK_STR, offsetof(t, m), 0                                                             \
    }
#define TG_COL_I64(t, m)                                                                           \
    {                                                                                              \
        TG_COLK_I64, offsetof(t, m), 0                                                             \
    }
#define TG_COL_U64(t, m)                                                                           \
    {                                                                                              \
        TG_COLK_U64, offsetof(t, m), 0                                                             \
    }
#define TG_COL_INT(t, m)                                                                           \
    {                                                                                              \
        TG_COLK_INT, offsetof(t, m), 0                                                             \
    }
#define TG_COL_BOOL(t, m)                                                                          \
    {                                                                                              \
        TG_COLK_BOOL, offsetof(t, m), 0                                                            \
    }
#define TG_COL_FIXED(t, m)                                                                         \
    {                                                                                              \
        TG_COLK_FIXED, offsetof(t, m), sizeof(((t *)0)->m)                                         \
    }
#define TG_COL_BYTES(t, m)                                                                         \
    {                                                                                              \
        TG_COLK_BYTES, offsetof(t, m), 0                                                           \
    }

/* The columns of one kind of row. */
struct tg_cols {
    const struct tg_col *v;
    size_t n;
    size_t row_size;
    const char *what; /* one such row, in words */
};

#define TG_COLS(t, table, name)                                                                    \
    {                                                                                              \
        (table), TG_ARRAY_LEN(table), sizeof(t), (name)                                            \
    }
#define TG_SQL_ARGS(...)                                                                           \
    (const struct tg_sqlv[]){__VA_ARGS__},                                                         \
        sizeof((const struct tg_sqlv[]){__VA_ARGS__}) / sizeof(struct tg_sqlv)
#define TG_SQL_NONE NULL, 0

/* A statement with its arguments: TG_SQL("… ?", tg_sql_i(1)). */
struct tg_sql {
    const char *sql;
    const struct tg_sqlv *args;
    size_t n;
};

#define TG_SQL(text, ...) (&(const struct tg_sql){(text), TG_SQL_ARGS(__VA_ARGS__)})
#define TG_SQL0(text) (&(const struct tg_sql){(text), NULL, 0})

/* Must run inside a change. changed may be NULL. */
TG_RC tg_sql_exec(struct tg_db *db, const struct tg_sql *q, uint64_t *changed, struct tg_err *err);
/* As exec, but no row changed is TG_E_NOTFOUND ("<what>: no such thing"). */
TG_RC tg_sql_exec_one(struct tg_db *db, const struct tg_sql *q, const char *what,
                      struct tg_err *err);
/* The first row. row is untouched unless TG_OK. @retval TG_E_NOTFOUND err: "<what>: no such thing"
 */
TG_RC tg_sql_one(struct tg_db *db, const struct tg_sql *q, const struct tg_cols *cols,
                 struct tg_arena *arena, void *row, struct tg_err *err);
/* All rows, as an array of structs in the arena. */
TG_RC tg_sql_list(struct tg_db *db, const struct tg_sql *q, const struct tg_cols *cols,
                  struct tg_arena *arena, struct tg_jlist *out, struct tg_err *err);
/* One integer (COUNT, MAX …); NULL is 0. */
TG_RC tg_sql_int(struct tg_db *db, const struct tg_sql *q, int64_t *out, struct tg_err *err);

/* The number in a page's cursor; first when there is none. @retval TG_E_USAGE */
TG_RC tg_page_number(const struct tg_page *page, int64_t first, int64_t *out, struct tg_err *err);

#endif
