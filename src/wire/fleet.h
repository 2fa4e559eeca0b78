/* Fleets, enrolment tokens and devices, as people see them. */
#ifndef TG_WIRE_FLEET_H
#define TG_WIRE_FLEET_H

#include "wire/common.h"

/* Who may make a fleet's grants. */
enum tg_grant_policy {
    TG_GRANTS_ANY,   /* "any": the author's grant if there is one, else the vault's */
    TG_GRANTS_AUTHOR /* "author": the vault never makes one; end to end or not at all */
};

extern const char *const tg_grant_policy_names[];

/* POST /api/v1/fleets, PUT /api/v1/fleets/{fleet} (there `name` may be left out) */
struct tg_wire_fleet_new {
    const char *name;
    const char *description;
    int grants; /* enum tg_grant_policy */
};
extern const struct tg_jschema tg_wire_fleet_new;

struct tg_wire_fleet {
    const char *name;
    const char *description;
    int grants;
    int64_t created_at;
    uint64_t devices;       /* active ones */
    const char *deployment; /* id of the newest one for the whole fleet; absent: none */
};
extern const struct tg_jschema tg_wire_fleet;

struct tg_wire_fleets {
    struct tg_jlist items; /* struct tg_wire_fleet */
    const char *next;
};
extern const struct tg_jschema tg_wire_fleets;

/* POST /api/v1/enrolment-tokens */
struct tg_wire_enrolment_token_new {
    const char *fleet;
    uint64_t expires_in_s; /* 60 … 30 days; 0 (absent): 1 hour */
    const char *note;
};
extern const struct tg_jschema tg_wire_enrolment_token_new;

enum tg_enrolment_state { TG_ENROLMENT_OPEN, TG_ENROLMENT_USED, TG_ENROLMENT_EXPIRED };

extern const char *const tg_enrolment_state_names[];

struct tg_wire_enrolment_token {
    const char *id;
    const char *fleet;
    int state;
    int64_t created_at;
    int64_t expires_at;
    const char *note;
    const char *device; /* id of the device that used it */
    const char *token;  /* only in the answer that made it */
};
extern const struct tg_jschema tg_wire_enrolment_token;

struct tg_wire_enrolment_tokens {
    struct tg_jlist items; /* struct tg_wire_enrolment_token */
    const char *next;
};
extern const struct tg_jschema tg_wire_enrolment_tokens;

enum tg_device_state { TG_DEVICE_ACTIVE, TG_DEVICE_REVOKED };

extern const char *const tg_device_state_names[];

/* A device as the platform last heard of it. */
struct tg_wire_device {
    const char *id;
    const char *name;
    const char *fleet;
    int state;
    int64_t enrolled_at;
    int64_t last_seen; /* absent: never checked in */
    int64_t certificate_not_after;
    const char *certificate_serial; /* lower-case hex */
    uint8_t kem_key_id[TG_WIRE_KEY_ID_LEN];
    const char *agent_version;
    bool separation;        /* the worker runs as a user of its own (as the agent says) */
    const char *protection; /* level of its worker's memory: secret, locked or none (as it says) */
    uint8_t running[TG_WIRE_HASH_LEN]; /* H of what serves; absent: nothing */
    const char *status;                /* the agent's own words at its last check-in */
    const char *deployment;            /* the newest one that concerns this device */
    int update_state;                  /* enum tg_update_state of it (wire/deploy.h) */
    const char *update_reason;
    const char *reason; /* why it was revoked */
};
extern const struct tg_jschema tg_wire_device;

struct tg_wire_devices {
    struct tg_jlist items; /* struct tg_wire_device */
    const char *next;
};
extern const struct tg_jschema tg_wire_devices;

/* POST /api/v1/devices/{device}/revoke */
struct tg_wire_revoke {
    const char *reason;
};
extern const struct tg_jschema tg_wire_revoke;

/* GET /api/v1/fleets/{fleet}/kem-keys: active devices only. */
struct tg_wire_kem_key {
    const char *device;
    const char *name;
    uint8_t kem_key_id[TG_WIRE_KEY_ID_LEN];
    uint8_t kem_public_key[TG_WIRE_KEM_KEY_LEN]; /* base64url */
};
extern const struct tg_jschema tg_wire_kem_key;

struct tg_wire_kem_keys {
    struct tg_jlist items; /* struct tg_wire_kem_key */
    const char *next;
};
extern const struct tg_jschema tg_wire_kem_keys;

#endif
