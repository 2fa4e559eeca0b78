/* The devices' listener: what an agent says and hears. */
#ifndef TG_WIRE_DEVICE_H
#define TG_WIRE_DEVICE_H

#include "wire/common.h"
#include "wire/deploy.h"

/* POST /device/v1/enrol, the one route without a client certificate. */
struct tg_wire_enrol {
    const char *token;
    const char *fleet;                           /* must be the token's */
    const char *name;                            /* host name or the like, for people */
    const char *csr;                             /* PEM, ECDSA P-256; only its public key is used */
    uint8_t kem_public_key[TG_WIRE_KEM_KEY_LEN]; /* base64url */
    const char *agent_version;
    bool separation;
};
extern const struct tg_jschema tg_wire_enrol;

struct tg_wire_enrolled {
    const char *device_id;
    const char *fleet;
    const char *certificate; /* PEM, 30 days */
    const char *device_ca;   /* PEM */
    uint8_t
        platform_key_id[TG_WIRE_KEY_ID_LEN]; /* to compare with --platform-key; never to trust */
};
extern const struct tg_jschema tg_wire_enrolled;

/* POST /device/v1/renew */
struct tg_wire_renew {
    const char *csr;
};
extern const struct tg_jschema tg_wire_renew;

struct tg_wire_renewed {
    const char *certificate;
    const char *device_ca;
};
extern const struct tg_jschema tg_wire_renewed;

/* POST /device/v1/checkin */
struct tg_wire_checkin {
    const char *agent_version;
    bool separation;
    const char *protection;                  /* of the worker's memory: secret, locked or none */
    uint8_t running[TG_WIRE_HASH_LEN];       /* H of what serves; left out: nothing serves */
    const char *status;                      /* one line for people, e.g. why nothing serves */
    uint8_t have_document[TG_WIRE_HASH_LEN]; /* SHA-256 of the .tgdeploy file it holds: not sent
                                                again */
};
extern const struct tg_jschema tg_wire_checkin;

/* What a device should have. */
struct tg_wire_directive {
    const char *deployment_id;
    uint8_t package[TG_WIRE_HASH_LEN]; /* H */
    uint8_t blob_sha256[TG_WIRE_HASH_LEN];
    uint64_t blob_size;
    bool grant; /* GET …/packages/{H}/grant has one; false: the package itself has this device's
                   block */
    uint8_t grant_sha256[TG_WIRE_HASH_LEN]; /* of that grant's text; zeros: none */
    int update_state;                       /* what the platform last took; seq of it in `seq` */
    uint64_t seq;                           /* reports must be above this */
    struct tg_bytes
        document; /* raw JSON, byte for byte the .tgdeploy; left out when the device has it */
};
extern const struct tg_jschema tg_wire_directive;

struct tg_wire_directions {
    int64_t now;
    uint64_t next_poll_s; /* already jittered by the platform */
    struct tg_jlist
        deployments; /* struct tg_wire_directive; today 0 or 1: the newest that concerns it */
};
extern const struct tg_jschema tg_wire_directions;

/* POST /device/v1/updates/{deployment}/reports. seq rises with each report of one deployment on one
 * device and survives restarts. The same report again is answered alike; an older one changes
 * nothing. */
struct tg_wire_report {
    uint64_t seq;     /* ≥ 1 */
    int state;        /* enum tg_update_state: downloading … rolled_back */
    const char *code; /* base/err.h name, with failed and rolled_back */
    const char *reason;
    /* Not a state: files of the package were handed over on the device. Goes into the audit log
     * (uid, bytes, file); the update stays as it is. */
    const char *handover;
};
extern const struct tg_jschema tg_wire_report;

struct tg_wire_reported {
    uint64_t seq; /* the last one taken */
    int state;
    bool applied; /* false: an older or repeated report */
};
extern const struct tg_jschema tg_wire_reported;

#endif
