#include "store/fleet.h"

#include "store/sql_internal.h"

#define T struct tg_fleet_row
static const struct tg_col fleet_col[] = {
    TG_COL_STR(T, name),       TG_COL_STR(T, description), TG_COL_INT(T, grants),
    TG_COL_I64(T, created_at), TG_COL_U64(T, devices),     TG_COL_STR(T, deployment),
};
static const struct tg_cols fleet_cols = TG_COLS(T, fleet_col, "fleet");
#undef T
#define FLEET                                                                                      \
    "f.name, f.description, f.grants, f.created_at,"                                               \
    " (SELECT COUNT(*) FROM devices d WHERE d.fleet = f.name AND d.state = 0),"                    \
    " (SELECT p.id FROM deployments p WHERE p.fleet = f.name AND p.device IS NULL"                 \
    "  AND p.state = 0 ORDER BY p.seq DESC LIMIT 1)"

TG_RC tg_fleet_add(struct tg_db *db, const struct tg_fleet_row *r, struct tg_err *err)
{
    return tg_sql_exec(
        db,
        TG_SQL("INSERT INTO fleets (name, description, grants, created_at) VALUES (?, ?, ?, ?)",
               tg_sql_t(r->name), tg_sql_t(r->description), tg_sql_i(r->grants),
               tg_sql_i(r->created_at)),
        NULL, err);
}

TG_RC tg_fleet_change(struct tg_db *db, const struct tg_fleet_row *r, struct tg_err *err)
{
    return tg_sql_exec_one(db,
                           TG_SQL("UPDATE fleets SET description = ?, grants = ? WHERE name = ?",
                                  tg_sql_t(r->description), tg_sql_i(r->grants), tg_sql_t(r->name)),
                           "fleet", err);
}

TG_RC tg_fleet_get(struct tg_db *db, const char *name, struct tg_arena *arena,
                   struct tg_fleet_row *row, struct tg_err *err)
{
    return tg_sql_one(db, TG_SQL("SELECT " FLEET " FROM fleets f WHERE f.name = ?", tg_sql_t(name)),
                      &fleet_cols, arena, row, err);
}

TG_RC tg_fleet_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                    struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(
        db,
        TG_SQL("SELECT " FLEET " FROM fleets f WHERE f.name > ? ORDER BY f.name LIMIT ?",
               tg_sql_t(page->after != NULL ? page->after : ""), tg_sql_u(page->limit)),
        &fleet_cols, arena, rows, err);
}

#define T struct tg_enrolment_row
static const struct tg_col enrolment_col[] = {
    TG_COL_STR(T, id),         TG_COL_STR(T, fleet),      TG_COL_FIXED(T, hash),
    TG_COL_I64(T, created_at), TG_COL_I64(T, expires_at), TG_COL_STR(T, note),
    TG_COL_I64(T, used_at),    TG_COL_STR(T, device),
};
static const struct tg_cols enrolment_cols = TG_COLS(T, enrolment_col, "enrolment token");
#undef T
#define ENROLMENT "id, fleet, hash, created_at, expires_at, note, used_at, device"

TG_RC tg_enrolment_add(struct tg_db *db, const struct tg_enrolment_row *r, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO enrolments (" ENROLMENT
                              ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                              tg_sql_t(r->id), tg_sql_t(r->fleet), tg_sql_b(r->hash, 32),
                              tg_sql_i(r->created_at), tg_sql_i(r->expires_at), tg_sql_t(r->note),
                              tg_sql_i(r->used_at), tg_sql_t(r->device)),
                       NULL, err);
}

TG_RC tg_enrolment_by_hash(struct tg_db *db, const uint8_t hash[32], struct tg_arena *arena,
                           struct tg_enrolment_row *row, struct tg_err *err)
{
    return tg_sql_one(
        db, TG_SQL("SELECT " ENROLMENT " FROM enrolments WHERE hash = ?", tg_sql_b(hash, 32)),
        &enrolment_cols, arena, row, err);
}

TG_RC tg_enrolment_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                        struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(
        db,
        TG_SQL("SELECT " ENROLMENT " FROM enrolments WHERE id > ? ORDER BY id LIMIT ?",
               tg_sql_t(page->after != NULL ? page->after : ""), tg_sql_u(page->limit)),
        &enrolment_cols, arena, rows, err);
}

TG_RC tg_enrolment_use(struct tg_db *db, const char *id, const char *device, int64_t now,
                       struct tg_err *err)
{
    return tg_sql_exec_one(
        db,
        TG_SQL("UPDATE enrolments SET used_at = ?, device = ? WHERE id = ? AND used_at = 0",
               tg_sql_i(now), tg_sql_t(device), tg_sql_t(id)),
        "enrolment token", err);
}

TG_RC tg_enrolment_delete(struct tg_db *db, const char *id, struct tg_err *err)
{
    return tg_sql_exec_one(
        db, TG_SQL("DELETE FROM enrolments WHERE id = ? AND used_at = 0", tg_sql_t(id)),
        "unused enrolment token", err);
}

#define T struct tg_device_row
static const struct tg_col device_col[] = {
    TG_COL_STR(T, id),
    TG_COL_STR(T, name),
    TG_COL_STR(T, fleet),
    TG_COL_INT(T, state),
    TG_COL_I64(T, enrolled_at),
    TG_COL_I64(T, last_seen),
    TG_COL_FIXED(T, kem_key_id),
    TG_COL_BYTES(T, kem_public_key),
    TG_COL_STR(T, agent_version),
    TG_COL_BOOL(T, separation),
    TG_COL_STR(T, protection),
    TG_COL_BYTES(T, running),
    TG_COL_STR(T, status),
    TG_COL_STR(T, reason),
    TG_COL_STR(T, serial),
    TG_COL_I64(T, not_after),
    TG_COL_STR(T, deployment),
    TG_COL_INT(T, update_state),
    TG_COL_STR(T, update_reason),
};
static const struct tg_cols device_cols = TG_COLS(T, device_col, "device");
#undef T

/* One of a device's newest certificate / newest update. */
#define NEWEST_CERT(column)                                                                        \
    "(SELECT c." column                                                                            \
    " FROM certificates c WHERE c.device = d.id ORDER BY c.not_after DESC, c.serial LIMIT 1)"
#define NEWEST_UPDATE(column)                                                                      \
    "(SELECT u." column                                                                            \
    " FROM updates u WHERE u.device = d.id ORDER BY u.deployment_seq DESC LIMIT 1)"
#define DEVICE                                                                                                   \
    "d.id, d.name, d.fleet, d.state, d.enrolled_at, d.last_seen, d.kem_key_id, d.kem_public_key,"                \
    " d.agent_version, d.separation, d.protection, d.running, d.status, d.reason, " NEWEST_CERT(                 \
        "serial") ", " NEWEST_CERT("not_after") ", " NEWEST_UPDATE("deployment") ","                             \
                                                                                 " " NEWEST_UPDATE(              \
                                                                                     "state") ","                \
                                                                                              " " NEWEST_UPDATE( \
                                                                                                  "reason")

TG_RC tg_device_add(struct tg_db *db, const struct tg_device_row *r, struct tg_err *err)
{
    return tg_sql_exec(
        db,
        TG_SQL("INSERT INTO devices (id, name, fleet, state, enrolled_at, last_seen, kem_key_id,"
               " kem_public_key, agent_version, separation, protection, running, status, reason)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
               tg_sql_t(r->id), tg_sql_t(r->name), tg_sql_t(r->fleet), tg_sql_i(r->state),
               tg_sql_i(r->enrolled_at), tg_sql_i(r->last_seen), tg_sql_b(r->kem_key_id, 16),
               tg_sql_b(r->kem_public_key.p, r->kem_public_key.n), tg_sql_t(r->agent_version),
               tg_sql_i(r->separation), tg_sql_t(r->protection != NULL ? r->protection : ""),
               tg_sql_b(r->running.p, r->running.n), tg_sql_t(r->status), tg_sql_t(r->reason)),
        NULL, err);
}

TG_RC tg_device_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                    struct tg_device_row *row, struct tg_err *err)
{
    return tg_sql_one(db, TG_SQL("SELECT " DEVICE " FROM devices d WHERE d.id = ?", tg_sql_t(id)),
                      &device_cols, arena, row, err);
}

TG_RC tg_device_list(struct tg_db *db, const char *fleet, const struct tg_page *page,
                     struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(db,
                       TG_SQL("SELECT " DEVICE " FROM devices d WHERE (? IS NULL OR d.fleet = ?)"
                              " AND d.id > ? ORDER BY d.id LIMIT ?",
                              tg_sql_t(fleet), tg_sql_t(fleet),
                              tg_sql_t(page->after != NULL ? page->after : ""),
                              tg_sql_u(page->limit)),
                       &device_cols, arena, rows, err);
}

TG_RC tg_device_list_active(struct tg_db *db, const char *fleet, const struct tg_page *page,
                            struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err)
{
    return tg_sql_list(db,
                       TG_SQL("SELECT " DEVICE " FROM devices d WHERE d.fleet = ? AND d.state = 0"
                              " AND d.id > ? ORDER BY d.id LIMIT ?",
                              tg_sql_t(fleet), tg_sql_t(page->after != NULL ? page->after : ""),
                              tg_sql_u(page->limit)),
                       &device_cols, arena, rows, err);
}

TG_RC tg_device_revoke(struct tg_db *db, const char *id, const char *reason, struct tg_err *err)
{
    return tg_sql_exec_one(
        db,
        TG_SQL("UPDATE devices SET state = 1, reason = ? WHERE id = ? AND state = 0",
               tg_sql_t(reason), tg_sql_t(id)),
        "active device", err);
}

TG_RC tg_device_beat(struct tg_db *db, const struct tg_device_beat *b, struct tg_err *err)
{
    return tg_sql_exec(
        db,
        TG_SQL(
            "UPDATE devices SET last_seen = ?, agent_version = ?, separation = ?, protection = ?,"
            " running = ?, status = ? WHERE id = ? AND last_seen <= ?",
            tg_sql_i(b->at), tg_sql_t(b->agent_version), tg_sql_i(b->separation),
            tg_sql_t(b->protection != NULL ? b->protection : ""),
            tg_sql_b(b->running.p, b->running.n), tg_sql_t(b->status), tg_sql_t(b->id),
            tg_sql_i(b->at)),
        NULL, err);
}

#define T struct tg_certificate_row
static const struct tg_col certificate_col[] = {
    TG_COL_STR(T, serial),    TG_COL_STR(T, device),       TG_COL_I64(T, issued_at),
    TG_COL_I64(T, not_after), TG_COL_STR(T, name),         TG_COL_STR(T, fleet),
    TG_COL_INT(T, state),     TG_COL_FIXED(T, kem_key_id),
};
static const struct tg_cols certificate_cols = TG_COLS(T, certificate_col, "certificate");
#undef T

TG_RC tg_certificate_add(struct tg_db *db, const struct tg_certificate_row *r, struct tg_err *err)
{
    return tg_sql_exec(db,
                       TG_SQL("INSERT INTO certificates (serial, device, issued_at, not_after)"
                              " VALUES (?, ?, ?, ?)",
                              tg_sql_t(r->serial), tg_sql_t(r->device), tg_sql_i(r->issued_at),
                              tg_sql_i(r->not_after)),
                       NULL, err);
}

TG_RC tg_certificate_get(struct tg_db *db, const char *serial, struct tg_arena *arena,
                         struct tg_certificate_row *row, struct tg_err *err)
{
    return tg_sql_one(
        db,
        TG_SQL("SELECT c.serial, c.device, c.issued_at, c.not_after, d.name, d.fleet, d.state,"
               " d.kem_key_id FROM certificates c JOIN devices d ON d.id = c.device"
               " WHERE c.serial = ?",
               tg_sql_t(serial)),
        &certificate_cols, arena, row, err);
}

TG_RC tg_certificate_count(struct tg_db *db, const char *device, int64_t now, int64_t *n,
                           struct tg_err *err)
{
    return tg_sql_int(db,
                      TG_SQL("SELECT COUNT(*) FROM certificates WHERE device = ? AND not_after > ?",
                             tg_sql_t(device), tg_sql_i(now)),
                      n, err);
}

TG_RC tg_counts_get(struct tg_db *db, struct tg_arena *arena, struct tg_counts_row *row,
                    struct tg_err *err)
{
    static const struct tg_col col[] = {
        TG_COL_U64(struct tg_counts_row, devices),  TG_COL_U64(struct tg_counts_row, revoked),
        TG_COL_U64(struct tg_counts_row, packages), TG_COL_U64(struct tg_counts_row, deployments),
        TG_COL_U64(struct tg_counts_row, audit),
    };
    static const struct tg_cols cols = TG_COLS(struct tg_counts_row, col, "row");

    return tg_sql_one(db,
                      TG_SQL0("SELECT (SELECT COUNT(*) FROM devices WHERE state = 0),"
                              " (SELECT COUNT(*) FROM devices WHERE state = 1),"
                              " (SELECT COUNT(*) FROM packages),"
                              " (SELECT COUNT(*) FROM deployments WHERE state = 0),"
                              " (SELECT COALESCE(MAX(seq), 0) FROM audit)"),
                      &cols, arena, row, err);
}
