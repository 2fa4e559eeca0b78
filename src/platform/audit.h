/* The audit log's hash chain (docs/api.md, "Audit log"): pure, and the check of a whole log. */
#ifndef TG_PLATFORM_AUDIT_H
#define TG_PLATFORM_AUDIT_H

#include "store/access.h"
#include "wire/access.h"

/* SHA-256 over prev_hash and every field of the row but `hash`. */
TG_RC tg_audit_hash(const struct tg_audit_row *row, uint8_t out[32]);

/* Append a row to the log inside the change that is open: fills in seq, prev_hash, hash. */
TG_RC tg_audit_append(struct tg_db *db, struct tg_arena *arena, struct tg_audit_row *row,
                      struct tg_err *err);

/* Walk the whole log: each hash, each link, no gap in seq. A broken log is TG_OK with ok = false.
 * detail points into `text`. */
TG_RC tg_audit_verify(struct tg_db *db, struct tg_wire_audit_check *out, char *text, size_t cap,
                      struct tg_err *err);

#endif
