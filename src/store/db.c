#include "store/db.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "store/sql_internal.h"

struct tg_store {
    const struct tg_db_driver *driver;
    char *where;
    pthread_mutex_t
        writer; /* held from begin to commit or rollback: no thread meets a busy database */
};

struct tg_db {
    struct tg_store *store;
    void *conn;
    bool changing;
    bool full; /* something since the last begin failed for want of room */
};

static enum tg_rc seen(struct tg_db *db, enum tg_rc rc)
{
    if (rc != TG_OK)
        db->full |= db->store->driver->full(db->conn);
    return rc;
}

static enum tg_rc run(struct tg_db *db, struct tg_sql_call *call, struct tg_err *err)
{
    return seen(db, db->store->driver->run(db->conn, call, err));
}

TG_RC tg_sql_exec(struct tg_db *db, const struct tg_sql *q, uint64_t *changed, struct tg_err *err)
{
    struct tg_sql_call call = {.sql = q->sql, .args = q->args, .args_n = q->n};

    if (!db->changing)
        return TG_FAIL(err, TG_E_INTERNAL, "database: a change outside a transaction");
    TG_TRY(run(db, &call, err));
    if (changed != NULL)
        *changed = call.changed;
    return TG_OK;
}

TG_RC tg_sql_exec_one(struct tg_db *db, const struct tg_sql *q, const char *what,
                      struct tg_err *err)
{
    uint64_t changed = 0;

    TG_TRY(tg_sql_exec(db, q, &changed, err));
    return changed != 0 ? TG_OK : TG_FAIL(err, TG_E_NOTFOUND, "there is no such %s", what);
}

struct list_ctx {
    const struct tg_cols *cols;
    struct tg_arena *arena;
    uint8_t *items; /* grown by doubling inside the arena */
    size_t n, cap;
};

static enum tg_rc set_column(const struct tg_col *c, const struct tg_sqlv *v,
                             struct tg_arena *arena, uint8_t *row, struct tg_err *err)
{
    void *at = row + c->off;

    switch (c->kind) {
    case TG_COLK_STR: {
        char *s = NULL;
        if (v->kind != TG_SQLK_NULL) {
            s = tg_arena_strndup(arena, (const char *)v->b.p, v->b.n);
            if (s == NULL)
                return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
        }
        memcpy(at, &s, sizeof(s));
        return TG_OK;
    }
    case TG_COLK_I64:
    case TG_COLK_U64:
        memcpy(at, &v->i, sizeof(v->i));
        return TG_OK;
    case TG_COLK_INT:
        *(int *)at = (int)v->i;
        return TG_OK;
    case TG_COLK_BOOL:
        *(bool *)at = v->i != 0;
        return TG_OK;
    case TG_COLK_FIXED:
        if (v->kind == TG_SQLK_NULL)
            return TG_OK;
        if (v->b.n != c->n)
            return TG_FAIL(err, TG_E_FORMAT, "database: a value of %zu bytes where %zu belong",
                           v->b.n, c->n);
        memcpy(at, v->b.p, c->n);
        return TG_OK;
    case TG_COLK_BYTES: {
        struct tg_bytes b = TG_BYTES_NONE;
        if (v->b.n != 0) {
            uint8_t *p = tg_arena_alloc(arena, v->b.n, 1);
            if (p == NULL)
                return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
            memcpy(p, v->b.p, v->b.n);
            b = tg_bytes_make(p, v->b.n);
        }
        memcpy(at, &b, sizeof(b));
        return TG_OK;
    }
    }
    return TG_E_INTERNAL;
}

static enum tg_rc add_row(void *ctx, const struct tg_sqlv *v, size_t n, struct tg_err *err)
{
    struct list_ctx *l = ctx;
    size_t size = l->cols->row_size;

    if (n != l->cols->n)
        return TG_FAIL(err, TG_E_INTERNAL, "database: %zu columns where %zu belong", n, l->cols->n);
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 1 : l->cap * 4;
        uint8_t *more = tg_arena_alloc(l->arena, cap, size);
        if (more == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "database: the answer is too large");
        if (l->n != 0)
            memcpy(more, l->items, l->n * size);
        l->items = more;
        l->cap = cap;
    }
    for (size_t i = 0; i < n; i++)
        TG_TRY(set_column(&l->cols->v[i], &v[i], l->arena, l->items + l->n * size, err));
    l->n++;
    return TG_OK;
}

TG_RC tg_sql_list(struct tg_db *db, const struct tg_sql *q, const struct tg_cols *cols,
                  struct tg_arena *arena, struct tg_jlist *out, struct tg_err *err)
{
    struct list_ctx l = {.cols = cols, .arena = arena};
    struct tg_sql_call call = {
        .sql = q->sql, .args = q->args, .args_n = q->n, .row = add_row, .ctx = &l};

    TG_TRY(run(db, &call, err));
    out->items = l.items;
    out->n = l.n;
    return TG_OK;
}

TG_RC tg_sql_one(struct tg_db *db, const struct tg_sql *q, const struct tg_cols *cols,
                 struct tg_arena *arena, void *row, struct tg_err *err)
{
    struct tg_jlist rows = {NULL, 0};

    TG_TRY(tg_sql_list(db, q, cols, arena, &rows, err));
    if (rows.n == 0)
        return TG_FAIL(err, TG_E_NOTFOUND, "there is no such %s", cols->what);
    memcpy(row, rows.items, cols->row_size);
    return TG_OK;
}

static enum tg_rc take_int(void *ctx, const struct tg_sqlv *v, size_t n, struct tg_err *err)
{
    (void)err;
    if (n == 1)
        *(int64_t *)ctx = v[0].i;
    return TG_OK;
}

TG_RC tg_sql_int(struct tg_db *db, const struct tg_sql *q, int64_t *out, struct tg_err *err)
{
    int64_t value = 0;
    struct tg_sql_call call = {
        .sql = q->sql, .args = q->args, .args_n = q->n, .row = take_int, .ctx = &value};

    TG_TRY(run(db, &call, err));
    *out = value;
    return TG_OK;
}

TG_RC tg_page_number(const struct tg_page *page, int64_t first, int64_t *out, struct tg_err *err)
{
    uint64_t v;

    if (page->after == NULL) {
        *out = first;
        return TG_OK;
    }
    if (tg_parse_u64(page->after, INT64_MAX, &v) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "after: not a cursor of this list");
    *out = (int64_t)v;
    return TG_OK;
}

TG_RC tg_db_begin(struct tg_db *db, struct tg_err *err)
{
    if (db->changing)
        return TG_FAIL(err, TG_E_INTERNAL, "database: a change inside a change");
    if (pthread_mutex_lock(&db->store->writer) != 0)
        return TG_FAIL(err, TG_E_INTERNAL, "database: the writer's lock failed");
    db->full = false;
    enum tg_rc rc = seen(db, db->store->driver->script(db->conn, "BEGIN IMMEDIATE", err));
    if (rc != TG_OK) {
        pthread_mutex_unlock(&db->store->writer);
        return rc;
    }
    db->changing = true;
    return TG_OK;
}

void tg_db_rollback(struct tg_db *db)
{
    if (!db->changing)
        return;
    /* It also fails when the database undid the change by itself (disk full): the result is the
     * same. */
    if (db->store->driver->script(db->conn, "ROLLBACK", NULL) != TG_OK)
        (void)0;
    db->changing = false;
    pthread_mutex_unlock(&db->store->writer);
}

TG_RC tg_db_commit(struct tg_db *db, struct tg_err *err)
{
    if (!db->changing)
        return TG_FAIL(err, TG_E_INTERNAL, "database: nothing to commit");
    enum tg_rc rc = seen(db, db->store->driver->script(db->conn, "COMMIT", err));
    if (rc != TG_OK) {
        tg_db_rollback(db);
        if (db->full)
            return TG_FAIL(err, TG_E_IO, "database: the disk is full");
        return rc;
    }
    db->changing = false;
    pthread_mutex_unlock(&db->store->writer);
    return TG_OK;
}

bool tg_db_changing(const struct tg_db *db)
{
    return db->changing;
}

bool tg_db_full(const struct tg_db *db)
{
    return db->full;
}

TG_RC tg_store_connect(struct tg_store *s, struct tg_db **out, struct tg_err *err)
{
    struct tg_db *db = tg_calloc(1, sizeof(*db));

    if (db == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
    db->store = s;
    enum tg_rc rc = s->driver->open(s->where, &db->conn, err);
    if (rc != TG_OK) {
        tg_free(db);
        return rc;
    }
    *out = db;
    return TG_OK;
}

void tg_db_close(struct tg_db *db)
{
    if (db == NULL)
        return;
    tg_db_rollback(db);
    db->store->driver->close(db->conn);
    tg_free(db);
}

static enum tg_rc migrate(struct tg_db *db, struct tg_err *err)
{
    int64_t version = 0;
    const struct tg_db_driver *d = db->store->driver;

    TG_TRY(d->script(db->conn,
                     "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)", err));
    TG_TRY(tg_sql_int(db, TG_SQL0("SELECT MAX(version) FROM schema_version"), &version, err));
    if (version < 0 || (uint64_t)version > tg_migrations_n)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "database: version %" PRIi64
                       " was made by a newer platform; this one knows up to %zu",
                       version, tg_migrations_n);
    for (size_t i = (size_t)version; i < tg_migrations_n; i++) {
        TG_TRY(tg_db_begin(db, err));
        enum tg_rc rc = d->script(db->conn, tg_migrations[i], err);
        if (rc == TG_OK)
            rc = tg_sql_exec(
                db,
                TG_SQL("INSERT INTO schema_version (version) VALUES (?)", tg_sql_i((int64_t)i + 1)),
                NULL, err);
        if (rc == TG_OK)
            rc = tg_db_commit(db, err);
        if (rc != TG_OK) {
            tg_db_rollback(db);
            tg_err_wrap(err, "database: migration %zu", i + 1);
            return rc;
        }
    }
    return TG_OK;
}

TG_RC tg_store_open(const char *path, struct tg_store **out, struct tg_err *err)
{
    TG_AUTO(tg_store_closep) struct tg_store *s = tg_calloc(1, sizeof(*s));
    TG_AUTO(tg_db_closep) struct tg_db *db = NULL;

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
    if (pthread_mutex_init(&s->writer, NULL) != 0) {
        tg_free(tg_steal(&s));
        return TG_FAIL(err, TG_E_INTERNAL, "database: the system has no lock to give");
    }
    s->driver = &tg_db_sqlite;
    s->where = tg_strdup(path);
    if (s->where == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "database: out of memory");
    TG_TRY(tg_store_connect(s, &db, err));
    TG_TRY(migrate(db, err));
    *out = tg_steal(&s);
    return TG_OK;
}

void tg_store_close(struct tg_store *s)
{
    if (s == NULL)
        return;
    pthread_mutex_destroy(&s->writer);
    tg_free(s->where);
    tg_free(s);
}

struct meta_row {
    const char *value;
};

TG_RC tg_meta_get(struct tg_db *db, const char *key, struct tg_arena *arena, const char **value,
                  struct tg_err *err)
{
    static const struct tg_col col[] = {TG_COL_STR(struct meta_row, value)};
    static const struct tg_cols cols = TG_COLS(struct meta_row, col, "row");
    struct meta_row row;

    TG_TRY(tg_sql_one(db, TG_SQL("SELECT value FROM meta WHERE key = ?", tg_sql_t(key)), &cols,
                      arena, &row, err));
    *value = row.value;
    return TG_OK;
}

TG_RC tg_meta_set(struct tg_db *db, const char *key, const char *value, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO meta (key, value) VALUES (?, ?)"
                              " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                              tg_sql_t(key), tg_sql_t(value)),
                       NULL, err);
}
