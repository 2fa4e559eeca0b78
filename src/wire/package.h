/* Publishers, uploads, packages and grants. */
#ifndef TG_WIRE_PACKAGE_H
#define TG_WIRE_PACKAGE_H

#include "wire/common.h"

/* POST /api/v1/publishers */
struct tg_wire_publisher_new {
    const char *name;
    const char *public_key; /* PEM, a signing.pub (spec §8) */
    struct tg_jlist models; /* const char *: the model names it may sign; empty: every model */
};
extern const struct tg_jschema tg_wire_publisher_new;

struct tg_wire_publisher {
    uint8_t key_id[TG_WIRE_KEY_ID_LEN];
    const char *name;
    const char *public_key;
    struct tg_jlist models;
    int64_t created_at;
};
extern const struct tg_jschema tg_wire_publisher;

struct tg_wire_publishers {
    struct tg_jlist items; /* struct tg_wire_publisher */
    const char *next;
};
extern const struct tg_jschema tg_wire_publishers;

/* POST /api/v1/uploads. Part n (from 0) is bytes n·part_size … of the file; only the last is short.
 */
struct tg_wire_upload_new {
    uint64_t size;
    uint8_t sha256[TG_WIRE_HASH_LEN]; /* of the whole file */
    uint64_t part_size;               /* TG_WIRE_PART_MIN … TG_WIRE_PART_MAX */
};
extern const struct tg_jschema tg_wire_upload_new;

enum tg_upload_state {
    TG_UPLOAD_OPEN,
    TG_UPLOAD_DONE /* completed: `package` says what came of it */
};

extern const char *const tg_upload_state_names[];

/* Inclusive range of part numbers. */
struct tg_wire_part_range {
    uint64_t first;
    uint64_t last;
};
extern const struct tg_jschema tg_wire_part_range;

struct tg_wire_upload {
    const char *id;
    int state;
    uint64_t size;
    uint8_t sha256[TG_WIRE_HASH_LEN];
    uint64_t part_size;
    uint64_t parts;
    uint64_t received;
    struct tg_jlist missing; /* struct tg_wire_part_range, the first 256 ranges */
    int64_t created_at;
    int64_t expires_at;
    uint8_t package[TG_WIRE_HASH_LEN]; /* H once done */
};
extern const struct tg_jschema tg_wire_upload;

/* PUT /api/v1/uploads/{upload}/parts/{part} answers this. */
struct tg_wire_part {
    uint64_t part;
    uint64_t size;
    uint8_t sha256[TG_WIRE_HASH_LEN];
    bool repeated; /* it was already there, the same */
};
extern const struct tg_jschema tg_wire_part;

struct tg_wire_model {
    const char *name;
    const char *version;
    const char *format;
    uint64_t sequence;
    uint64_t floor;
};
extern const struct tg_jschema tg_wire_model;

/* A package by its H. The signatures were checked against the publishers registered at upload. */
struct tg_wire_package {
    uint8_t header_sha256[TG_WIRE_HASH_LEN]; /* H */
    uint8_t blob_sha256[TG_WIRE_HASH_LEN];   /* of the file as stored now */
    uint64_t blob_size;
    struct tg_wire_model model;
    int64_t created_at; /* by the author's clock */
    int64_t not_before; /* absent: no limit */
    int64_t not_after;
    struct tg_jlist fleets;  /* const char *: constraints.fleets; empty: any */
    struct tg_jlist signers; /* const char *: hex key ids of registered publishers that signed */
    uint64_t recipients;     /* number of recipient blocks */
    bool vault;              /* the vault is one of them: it can make grants */
    int64_t uploaded_at;
    const char *uploaded_by; /* name of the token */
};
extern const struct tg_jschema tg_wire_package;

struct tg_wire_packages {
    struct tg_jlist items; /* struct tg_wire_package, newest first */
    const char *next;
};
extern const struct tg_jschema tg_wire_packages;

/* A grant's facts; the document itself is the body of PUT, and of the device's GET. */
struct tg_wire_grant {
    uint8_t kem_key_id[TG_WIRE_KEY_ID_LEN];
    uint8_t granter[TG_WIRE_KEY_ID_LEN];
    bool vault; /* made by the vault, not by an author */
    int64_t issued_at;
    int64_t not_after;
};
extern const struct tg_jschema tg_wire_grant;

struct tg_wire_grants {
    struct tg_jlist items; /* struct tg_wire_grant */
    const char *next;
};
extern const struct tg_jschema tg_wire_grants;

#endif
