/* The database: one store per process, one connection per thread, one writer at a time.
 *
 * SQLite in WAL mode, synchronous=FULL: what commit acknowledged survives kill -9 and power loss.
 * Every SQL statement lives in this folder, one per function, in the dialect that SQLite and
 * PostgreSQL share; a driver is four functions (store/driver_internal.h), so that another database
 * can join.
 *
 * Changes happen between tg_db_begin and tg_db_commit. Reads outside see the last committed state.
 */
#ifndef TG_STORE_DB_H
#define TG_STORE_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "codec/json.h"

struct tg_store;
struct tg_db;

/* Open or create the database file and bring it to the newest version.
 * @retval TG_E_UNSUPPORTED made by a newer version of the platform  @retval TG_E_IO  @retval
 * TG_E_FORMAT no database */
TG_RC tg_store_open(const char *path, struct tg_store **out, struct tg_err *err);
void tg_store_close(struct tg_store *s); /* every connection must be closed before */
TG_DEFINE_AUTO(struct tg_store, tg_store_closep, tg_store_close);

/* A connection for one thread. */
TG_RC tg_store_connect(struct tg_store *s, struct tg_db **out, struct tg_err *err);
void tg_db_close(struct tg_db *db); /* rolls back what is open */
TG_DEFINE_AUTO(struct tg_db, tg_db_closep, tg_db_close);

/* Begin a change: waits for other threads' changes to finish. */
TG_RC tg_db_begin(struct tg_db *db, struct tg_err *err);
/* Durable when this returns TG_OK; undone when it does not. */
TG_RC tg_db_commit(struct tg_db *db, struct tg_err *err);
/* Undo; does nothing when no change is open. */
void tg_db_rollback(struct tg_db *db);
bool tg_db_changing(const struct tg_db *db);
/* Was the last failure for want of room on the disk? */
bool tg_db_full(const struct tg_db *db);

/* How lists are cut: rows after `after` (a cursor of the aggregate's own kind; NULL: from the
 * start), at most `limit`. */
struct tg_page {
    const char *after;
    uint64_t limit;
};

/* Small facts by name ("audit.epoch", …). @retval TG_E_NOTFOUND */
TG_RC tg_meta_get(struct tg_db *db, const char *key, struct tg_arena *arena, const char **value,
                  struct tg_err *err);
TG_RC tg_meta_set(struct tg_db *db, const char *key, const char *value, struct tg_err *err);

#endif
