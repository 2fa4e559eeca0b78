/* The SQLite driver. Prepared statements are kept by the address of their text: every statement of
 * store/ is a literal. */
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>

#include "base/mem.h"
#include "store/driver_internal.h"

#define SLOTS 256 /* more than there are statements; a full table only means preparing again */
#define BUSY_MS 10000

struct slot {
    const char *sql;
    sqlite3_stmt *stmt;
};

struct conn {
    sqlite3 *db;
    bool full;
    struct slot slots[SLOTS];
};

static enum tg_rc fail(struct conn *c, int code, const char *sql, struct tg_err *err)
{
    const char *text = c->db != NULL ? sqlite3_errmsg(c->db) : sqlite3_errstr(code);
    enum tg_rc rc = TG_E_INTERNAL;

    c->full = false;
    switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
        rc = code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY ? TG_E_EXISTS
                                                                                      : TG_E_STATE;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        rc = TG_E_AGAIN;
        break;
    case SQLITE_FULL:
        c->full = true;
        rc = TG_E_IO;
        break;
    case SQLITE_IOERR: /* a limit on file sizes shows as a short write */
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
        c->full = code == SQLITE_IOERR_WRITE || code == SQLITE_IOERR_SHMSIZE;
        rc = TG_E_IO;
        break;
    case SQLITE_NOMEM:
        rc = TG_E_NOMEM;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        rc = TG_E_FORMAT;
        break;
    default:
        break;
    }
    return TG_FAIL(err, rc, "database: %s (SQLite %d, at \"%.60s\")", text, code, sql);
}

static void close_conn(void *conn)
{
    struct conn *c = conn;

    for (size_t i = 0; i < SLOTS; i++)
        sqlite3_finalize(c->slots[i].stmt);
    sqlite3_close(c->db);
    tg_free(c);
}

static enum tg_rc script(void *conn, const char *sql, struct tg_err *err)
{
    struct conn *c = conn;
    int code = sqlite3_exec(c->db, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? TG_OK : fail(c, sqlite3_extended_errcode(c->db), sql, err);
}

static enum tg_rc open_conn(const char *where, void **out, struct tg_err *err)
{
    struct conn *c = tg_calloc(1, sizeof(*c));
    enum tg_rc rc;

    if (c == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
    int code = sqlite3_open_v2(where, &c->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_EXRESCODE,
                               NULL);
    if (code != SQLITE_OK) {
        rc = fail(c, code, where, err);
        close_conn(c);
        return rc;
    }
    sqlite3_busy_timeout(c->db, BUSY_MS);
    rc = script(c,
                "PRAGMA journal_mode = WAL;"
                "PRAGMA synchronous = FULL;"
                "PRAGMA foreign_keys = ON;"
                "PRAGMA trusted_schema = OFF;"
                "PRAGMA temp_store = MEMORY;"
                "PRAGMA journal_size_limit = 16777216;",
                err);
    if (rc != TG_OK) {
        close_conn(c);
        return rc;
    }
    *out = c;
    return TG_OK;
}

static struct slot *find_slot(struct conn *c, const char *sql)
{
    size_t at = ((uintptr_t)sql >> 3) % SLOTS;

    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *s = &c->slots[(at + i) % SLOTS];
        if (s->sql == sql || s->sql == NULL)
            return s;
    }
    struct slot *victim = &c->slots[at];
    sqlite3_finalize(victim->stmt);
    *victim = (struct slot){NULL, NULL};
    return victim;
}

static int bind(sqlite3_stmt *st, int i, const struct tg_sqlv *v)
{
    switch (v->kind) {
    case TG_SQLK_NULL:
        return sqlite3_bind_null(st, i);
    case TG_SQLK_INT:
        return sqlite3_bind_int64(st, i, v->i);
    case TG_SQLK_TEXT:
        return sqlite3_bind_text64(st, i, (const char *)v->b.p, v->b.n, SQLITE_STATIC, SQLITE_UTF8);
    case TG_SQLK_BLOB:
        return sqlite3_bind_blob64(st, i, v->b.p, v->b.n, SQLITE_STATIC);
    }
    return SQLITE_MISUSE;
}

static struct tg_sqlv column(sqlite3_stmt *st, int i)
{
    struct tg_sqlv v = {.kind = TG_SQLK_NULL};

    switch (sqlite3_column_type(st, i)) {
    case SQLITE_INTEGER:
        v.kind = TG_SQLK_INT;
        v.i = sqlite3_column_int64(st, i);
        break;
    case SQLITE_TEXT:
        v.kind = TG_SQLK_TEXT;
        v.b.p = sqlite3_column_text(st, i);
        v.b.n = (size_t)sqlite3_column_bytes(st, i);
        break;
    case SQLITE_BLOB:
        v.kind = TG_SQLK_BLOB;
        v.b.p = sqlite3_column_blob(st, i);
        v.b.n = (size_t)sqlite3_column_bytes(st, i);
        break;
    default:
        break;
    }
    return v;
}

static enum tg_rc rows(struct conn *c, sqlite3_stmt *st, struct tg_sql_call *call,
                       struct tg_err *err)
{
    struct tg_sqlv v[TG_SQL_COLS_MAX];

    for (;;) {
        int code = sqlite3_step(st);
        if (code == SQLITE_DONE) {
            call->changed = (uint64_t)sqlite3_changes64(c->db);
            return TG_OK;
        }
        if (code != SQLITE_ROW)
            return fail(c, code, call->sql, err);
        int n = sqlite3_column_count(st);
        if (n > TG_SQL_COLS_MAX)
            return TG_FAIL(err, TG_E_INTERNAL, "database: too many columns");
        for (int i = 0; i < n; i++)
            v[i] = column(st, i);
        if (call->row != NULL)
            TG_TRY(call->row(call->ctx, v, (size_t)n, err));
    }
}

static enum tg_rc run(void *conn, struct tg_sql_call *call, struct tg_err *err)
{
    struct conn *c = conn;
    struct slot *s = find_slot(c, call->sql);
    int code;

    if (s->stmt == NULL) {
        code = sqlite3_prepare_v3(c->db, call->sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
        if (code != SQLITE_OK)
            return fail(c, code, call->sql, err);
        s->sql = call->sql;
    }
    enum tg_rc rc = TG_OK;
    if ((size_t)sqlite3_bind_parameter_count(s->stmt) != call->args_n)
        rc = TG_FAIL(err, TG_E_INTERNAL, "database: %zu arguments for \"%.60s\"", call->args_n,
                     call->sql);
    for (size_t i = 0; rc == TG_OK && i < call->args_n; i++) {
        code = bind(s->stmt, (int)i + 1, &call->args[i]);
        if (code != SQLITE_OK)
            rc = fail(c, code, call->sql, err);
    }
    if (rc == TG_OK)
        rc = rows(c, s->stmt, call, err);
    sqlite3_reset(s->stmt);
    sqlite3_clear_bindings(s->stmt);
    return rc;
}

static bool full(void *conn)
{
    return ((struct conn *)conn)->full;
}

const struct tg_db_driver tg_db_sqlite = {
    .name = "sqlite",
    .open = open_conn,
    .close = close_conn,
    .script = script,
    .run = run,
    .full = full,
};
