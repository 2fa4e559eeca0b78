/* Deployments and what became of them on each device. */
#ifndef TG_WIRE_DEPLOY_H
#define TG_WIRE_DEPLOY_H

#include "wire/common.h"

/* States of one deployment on one device. tg_update_may_follow() is the table of moves. */
enum tg_update_state {
    TG_UPDATE_PENDING,     /* made; not offered yet (reason says what it waits for, if anything) */
    TG_UPDATE_OFFERED,     /* the device was told */
    TG_UPDATE_DOWNLOADING, /* the rest are the agent's reports … */
    TG_UPDATE_DOWNLOADED,
    TG_UPDATE_VERIFYING,
    TG_UPDATE_LOADING,
    TG_UPDATE_RUNNING,
    TG_UPDATE_FAILED,      /* the old package serves on; the agent may try again */
    TG_UPDATE_ROLLED_BACK, /* it ran, then failed; the one before serves again */
    TG_UPDATE_SUPERSEDED,  /* … and the platform's: a newer deployment took its place */
    TG_UPDATE_CANCELLED,   /* the deployment was cancelled, or the device revoked */
    TG_UPDATE_COUNT
};

extern const char *const tg_update_state_names[]; /* "pending" … */

/* May an agent's report move an update from one state to another? A repeated state is allowed (a
 * new reason, progress). Nothing leaves superseded and cancelled. */
bool tg_update_may_follow(enum tg_update_state from, enum tg_update_state to);

/* POST /api/v1/deployments: exactly one of fleet and device. */
struct tg_wire_deployment_new {
    uint8_t package[TG_WIRE_HASH_LEN]; /* H */
    const char *fleet;
    const char *device;
    bool allow_rollback; /* names H even below the device's highest sequence (never below its floor)
                          */
};
extern const struct tg_jschema tg_wire_deployment_new;

enum tg_deployment_state { TG_DEPLOYMENT_ACTIVE, TG_DEPLOYMENT_CANCELLED };

extern const char *const tg_deployment_state_names[];

struct tg_wire_update {
    const char *device;
    const char *device_name;
    int state;        /* enum tg_update_state */
    const char *code; /* base/err.h name when failed or rolled back; absent otherwise */
    const char *reason;
    uint64_t seq; /* of the last report taken */
    int64_t updated_at;
};
extern const struct tg_jschema tg_wire_update;

/* How many devices are in each state. */
struct tg_wire_update_counts {
    uint64_t pending;
    uint64_t offered;
    uint64_t downloading;
    uint64_t downloaded;
    uint64_t verifying;
    uint64_t loading;
    uint64_t running;
    uint64_t failed;
    uint64_t rolled_back;
    uint64_t superseded;
    uint64_t cancelled;
};
extern const struct tg_jschema tg_wire_update_counts;

struct tg_wire_deployment {
    const char *id;
    int state; /* enum tg_deployment_state */
    uint8_t package[TG_WIRE_HASH_LEN];
    const char *model; /* name, version: for tables */
    const char *version;
    const char *fleet; /* of the device, too, when it is for one device */
    const char *device;
    bool allow_rollback;
    int64_t created_at;
    const char *created_by;
    struct tg_wire_update_counts counts;
    struct tg_jlist updates; /* struct tg_wire_update: GET of one deployment only, by page */
    const char *next;        /* ?after= of the next page of updates */
};
extern const struct tg_jschema tg_wire_deployment;

struct tg_wire_deployments {
    struct tg_jlist items; /* struct tg_wire_deployment without updates, newest first */
    const char *next;
};
extern const struct tg_jschema tg_wire_deployments;

#endif
