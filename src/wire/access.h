/* People and CI: signing in, tokens, the audit log, what the platform is. */
#ifndef TG_WIRE_ACCESS_H
#define TG_WIRE_ACCESS_H

#include "wire/common.h"

/* Roles as bits, so that a route's column can name several. Names in JSON: tg_access_names. */
enum tg_access {
    TG_ACCESS_ADMIN,
    TG_ACCESS_PUBLISHER,
    TG_ACCESS_OPERATOR,
    TG_ACCESS_VIEWER,
    TG_ACCESS_COUNT
};

extern const char *const tg_access_names[]; /* "admin" … , NULL-terminated */

/* POST /api/v1/login: the one-time administrator token for a lasting one. */
struct tg_wire_login {
    const char *token;
    const char *name; /* what the lasting token is called in lists and the audit log */
};
extern const struct tg_jschema tg_wire_login;

/* POST /api/v1/tokens */
struct tg_wire_token_new {
    const char *name;
    int role;              /* enum tg_access */
    uint64_t expires_in_s; /* 60 … 366 days; 0 (absent): 90 days */
};
extern const struct tg_jschema tg_wire_token_new;

/* A token in answers. `token` itself only in the answer that made it. */
struct tg_wire_token {
    const char *id;
    const char *name;
    int role;
    int64_t created_at;
    int64_t expires_at;
    int64_t last_used; /* 0: never */
    const char *token;
};
extern const struct tg_jschema tg_wire_token;

struct tg_wire_tokens {
    struct tg_jlist items; /* struct tg_wire_token */
    const char *next;
};
extern const struct tg_jschema tg_wire_tokens;

/* GET /api/v1/platform */
struct tg_wire_platform {
    const char *version;
    const char *name;
    const char *api_url;
    const char *device_url;
    uint8_t vault_key_id[TG_WIRE_KEY_ID_LEN];
    const char *vault_public_key; /* PEM, the vault.pub for `build --recipient` */
    uint8_t platform_key_id[TG_WIRE_KEY_ID_LEN];
    const char *platform_public_key; /* PEM, the platform.pub for `agent enroll --platform-key` */
    const char *server_ca; /* PEM: what clients check the listeners' certificates against */
    const char *device_ca; /* PEM: what device certificates are issued by */
    int64_t now;
};
extern const struct tg_jschema tg_wire_platform;

/* GET /api/v1/audit?package=H&actor=&action=&after=N&limit=N */
struct tg_wire_audit_row {
    uint64_t seq; /* 1, 2, 3 … without gaps */
    int64_t at;
    const char *actor;                 /* "token:<id>", "device:<id>", "anonymous", "platform" */
    const char *name;                  /* the actor's name then; "" if it has none */
    const char *address;               /* where the request came from; "" for the platform itself */
    const char *action;                /* "package.accept", "device.revoke", … docs/api.md */
    const char *target;                /* "fleet:<name>", "device:<id>", … */
    uint8_t package[TG_WIRE_HASH_LEN]; /* H, when a package is concerned; else absent */
    const char *outcome;               /* "ok" or "refused" */
    const char *detail;
    uint8_t prev_hash[TG_WIRE_HASH_LEN];
    uint8_t hash[TG_WIRE_HASH_LEN];
};
extern const struct tg_jschema tg_wire_audit_row;

struct tg_wire_audit {
    struct tg_jlist items; /* struct tg_wire_audit_row, ascending */
    const char *next;
};
extern const struct tg_jschema tg_wire_audit;

/* GET /api/v1/audit/verify */
struct tg_wire_audit_check {
    bool ok;
    uint64_t entries;
    uint8_t head[TG_WIRE_HASH_LEN]; /* hash of the last good row */
    uint64_t first_bad;             /* 0: none */
    const char *detail;
};
extern const struct tg_jschema tg_wire_audit_check;

#endif
