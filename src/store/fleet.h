/* Fleets, enrolment tokens, devices and their certificates. */
#ifndef TG_STORE_FLEET_H
#define TG_STORE_FLEET_H

#include "store/db.h"

#define TG_KEM_KEY_BYTES 1216

struct tg_fleet_row {
    const char *name, *description;
    int grants;
    int64_t created_at;
    uint64_t devices;       /* active ones; not written */
    const char *deployment; /* newest active one for the fleet; not written */
};

TG_RC tg_fleet_add(struct tg_db *db, const struct tg_fleet_row *row, struct tg_err *err);
TG_RC tg_fleet_change(struct tg_db *db, const struct tg_fleet_row *row, struct tg_err *err);
TG_RC tg_fleet_get(struct tg_db *db, const char *name, struct tg_arena *arena,
                   struct tg_fleet_row *row, struct tg_err *err);
TG_RC tg_fleet_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                    struct tg_jlist *rows, struct tg_err *err);

struct tg_enrolment_row {
    const char *id, *fleet;
    uint8_t hash[32];
    int64_t created_at, expires_at;
    const char *note;
    int64_t used_at; /* 0: not yet */
    const char *device;
};

TG_RC tg_enrolment_add(struct tg_db *db, const struct tg_enrolment_row *row, struct tg_err *err);
TG_RC tg_enrolment_by_hash(struct tg_db *db, const uint8_t hash[32], struct tg_arena *arena,
                           struct tg_enrolment_row *row, struct tg_err *err);
TG_RC tg_enrolment_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                        struct tg_jlist *rows, struct tg_err *err);
/* Compare-and-set: only an unused one. @retval TG_E_NOTFOUND unknown or used */
TG_RC tg_enrolment_use(struct tg_db *db, const char *id, const char *device, int64_t now,
                       struct tg_err *err);
/* Deletes an unused one. @retval TG_E_NOTFOUND */
TG_RC tg_enrolment_delete(struct tg_db *db, const char *id, struct tg_err *err);

struct tg_device_row {
    const char *id, *name, *fleet;
    int state; /* 0 active, 1 revoked */
    int64_t enrolled_at, last_seen;
    uint8_t kem_key_id[16];
    struct tg_bytes kem_public_key;
    const char *agent_version;
    bool separation;
    const char *protection;  /* "": unknown; NULL when writing: "" */
    struct tg_bytes running; /* H or none */
    const char *status, *reason;
    /* Not written: the newest certificate, and the newest update. */
    const char *serial;
    int64_t not_after;
    const char *deployment;
    int update_state;
    const char *update_reason;
};

TG_RC tg_device_add(struct tg_db *db, const struct tg_device_row *row, struct tg_err *err);
TG_RC tg_device_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                    struct tg_device_row *row, struct tg_err *err);
/* fleet NULL: all. */
TG_RC tg_device_list(struct tg_db *db, const char *fleet, const struct tg_page *page,
                     struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);
/* Active devices of a fleet, for their KEM keys. */
TG_RC tg_device_list_active(struct tg_db *db, const char *fleet, const struct tg_page *page,
                            struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);
/* Compare-and-set from active. @retval TG_E_NOTFOUND */
TG_RC tg_device_revoke(struct tg_db *db, const char *id, const char *reason, struct tg_err *err);

/* What a check-in said. */
struct tg_device_beat {
    const char *id;
    int64_t at;
    const char *agent_version;
    bool separation;
    const char *protection; /* "": unknown; NULL when writing: "" */
    struct tg_bytes running;
    const char *status;
};

TG_RC tg_device_beat(struct tg_db *db, const struct tg_device_beat *beat, struct tg_err *err);

struct tg_certificate_row {
    const char *serial, *device;
    int64_t issued_at, not_after;
    /* not written: of its device */
    const char *name, *fleet;
    int state;
    uint8_t kem_key_id[16];
};

TG_RC tg_certificate_add(struct tg_db *db, const struct tg_certificate_row *row,
                         struct tg_err *err);
TG_RC tg_certificate_get(struct tg_db *db, const char *serial, struct tg_arena *arena,
                         struct tg_certificate_row *row, struct tg_err *err);
/* How many of a device's certificates are valid at `now`. */
TG_RC tg_certificate_count(struct tg_db *db, const char *device, int64_t now, int64_t *n,
                           struct tg_err *err);

struct tg_counts_row {
    uint64_t devices, revoked, packages, deployments, audit;
};

/* For /metrics. */
TG_RC tg_counts_get(struct tg_db *db, struct tg_arena *arena, struct tg_counts_row *row,
                    struct tg_err *err);

#endif
