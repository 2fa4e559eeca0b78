/* Deployments and their updates, one per device. States are the numbers of wire/deploy.h, handed
 * in. */
#ifndef TG_STORE_DEPLOY_H
#define TG_STORE_DEPLOY_H

#include "store/db.h"

struct tg_deployment_row {
    const char *id;
    uint64_t seq; /* given by the store */
    uint8_t h[32];
    const char *fleet;
    const char *device; /* NULL: the whole fleet */
    bool allow_rollback;
    int state; /* 0 active, 1 cancelled */
    int64_t created_at;
    const char *created_by;
    struct tg_bytes document; /* the signed .tgdeploy */
    uint8_t document_sha256[32];
    int64_t document_at;
    const char *model, *version; /* not written: of the package */
};

TG_RC tg_deployment_add(struct tg_db *db, struct tg_deployment_row *row, struct tg_err *err);
TG_RC tg_deployment_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                        struct tg_deployment_row *row, struct tg_err *err);

struct tg_deployment_filter {
    struct tg_bytes package; /* empty: any */
    const char *fleet;       /* NULL: any */
};

/* Newest first. */
TG_RC tg_deployment_list(struct tg_db *db, const struct tg_deployment_filter *f,
                         const struct tg_page *page, struct tg_arena *arena, struct tg_jlist *rows,
                         struct tg_err *err);
/* Compare-and-set from active. @retval TG_E_NOTFOUND */
TG_RC tg_deployment_cancel(struct tg_db *db, const char *id, struct tg_err *err);
/* A freshly signed document. */
TG_RC tg_deployment_document(struct tg_db *db, const struct tg_deployment_row *row,
                             struct tg_err *err);

/* States that end an update: numbers from wire/deploy.h. */
struct tg_update_ends {
    int superseded, cancelled;
};

struct tg_state_count_row {
    int state;
    uint64_t n;
};

TG_RC tg_deployment_counts(struct tg_db *db, const char *id, struct tg_arena *arena,
                           struct tg_jlist *rows, struct tg_err *err);

/* Give every active device that a new deployment concerns its update (state 0), and end those of
 * older deployments. */
TG_RC tg_update_fan_out(struct tg_db *db, const struct tg_deployment_row *d,
                        const struct tg_update_ends *ends, int64_t now, struct tg_err *err);
/* The newest active deployment of its fleet, for a device that has just enrolled. */
TG_RC tg_update_for_new_device(struct tg_db *db, const char *device, const char *fleet, int64_t now,
                               struct tg_err *err);
/* End what is not ended: of one deployment, or of one device. */
TG_RC tg_update_end_deployment(struct tg_db *db, const char *deployment,
                               const struct tg_update_ends *ends, int64_t now, struct tg_err *err);
TG_RC tg_update_end_device(struct tg_db *db, const char *device, const struct tg_update_ends *ends,
                           int64_t now, struct tg_err *err);

struct tg_update_row {
    const char *deployment, *device;
    const char *device_name; /* not written */
    int state;
    const char *code, *reason;
    uint64_t seq;
    int64_t updated_at;
    bool ran;       /* the device said that it runs, and has not said since that it went back */
    int ended_from; /* the state in which it was superseded or cancelled; not written */
};

/* Updates of one deployment by device id. */
TG_RC tg_update_list(struct tg_db *db, const char *deployment, const struct tg_page *page,
                     struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);
TG_RC tg_update_get(struct tg_db *db, const char *deployment, const char *device,
                    struct tg_arena *arena, struct tg_update_row *row, struct tg_err *err);
/* Compare-and-set: only if state and seq are still those of `was`. @retval TG_E_NOTFOUND */
TG_RC tg_update_set(struct tg_db *db, const struct tg_update_row *was,
                    const struct tg_update_row *is, struct tg_err *err);

/* What a device should have: its newest update that is not over, with what goes with it. */
struct tg_directive_row {
    const char *deployment;
    uint8_t h[32], blob_sha256[32];
    uint64_t blob_size;
    bool vault;        /* the vault is a recipient */
    bool own_block;    /* the device is a recipient */
    int grants;        /* the fleet's policy */
    int64_t not_after; /* of the package; 0: none */
    int state;
    uint64_t seq;
    const char *reason;
    uint8_t document_sha256[32];
    int64_t document_at;
};

struct tg_directive_query {
    const char *device;
    const uint8_t *kem_key_id; /* 16 bytes */
    struct tg_update_ends ends;
};

/* @retval TG_E_NOTFOUND nothing to do */
TG_RC tg_directive_get(struct tg_db *db, const struct tg_directive_query *q, struct tg_arena *arena,
                       struct tg_directive_row *row, struct tg_err *err);
/* The newest update of a device that ran there, over or not: what it runs, or would go on with.
 * @retval TG_E_NOTFOUND none did, or its package was withdrawn: its deployment, or a newer one of
 * the same package for this device, was cancelled, or the device revoked */
TG_RC tg_update_ran(struct tg_db *db, const struct tg_directive_query *q, struct tg_arena *arena,
                    struct tg_directive_row *row, struct tg_err *err);
/* May this device have this package: was it offered, and is it not over? */
TG_RC tg_update_concerns(struct tg_db *db, const char *device, const uint8_t h[32],
                         const struct tg_update_ends *ends, bool *yes, struct tg_err *err);

#endif
