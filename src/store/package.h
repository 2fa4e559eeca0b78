/* Publishers, uploads, packages, grants. Lists of strings are kept as JSON text: {"v":[…]}. */
#ifndef TG_STORE_PACKAGE_H
#define TG_STORE_PACKAGE_H

#include "store/db.h"

struct tg_publisher_row {
    uint8_t key_id[16];
    const char *name, *public_key, *models;
    int64_t created_at;
};

TG_RC tg_publisher_add(struct tg_db *db, const struct tg_publisher_row *row, struct tg_err *err);
TG_RC tg_publisher_get(struct tg_db *db, const uint8_t key_id[16], struct tg_arena *arena,
                       struct tg_publisher_row *row, struct tg_err *err);
/* By name. page NULL: all. */
TG_RC tg_publisher_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                        struct tg_jlist *rows, struct tg_err *err);
TG_RC tg_publisher_delete(struct tg_db *db, const uint8_t key_id[16], struct tg_err *err);

struct tg_upload_row {
    const char *id, *owner;
    int state; /* 0 open, 1 done */
    uint64_t size;
    uint8_t sha256[32];
    uint64_t part_size, parts;
    int64_t created_at, expires_at;
    struct tg_bytes package; /* H once done */
    uint64_t received;       /* not written */
};

TG_RC tg_upload_add(struct tg_db *db, const struct tg_upload_row *row, struct tg_err *err);
TG_RC tg_upload_get(struct tg_db *db, const char *id, struct tg_arena *arena,
                    struct tg_upload_row *row, struct tg_err *err);
TG_RC tg_upload_open_count(struct tg_db *db, const char *owner, int64_t *n, struct tg_err *err);
/* Ids (struct tg_id_row) of uploads that expired before `now`, or are done: their files can go. */
TG_RC tg_upload_stale(struct tg_db *db, int64_t now, struct tg_arena *arena, struct tg_jlist *rows,
                      struct tg_err *err);
TG_RC tg_upload_done(struct tg_db *db, const char *id, const uint8_t h[32], struct tg_err *err);
TG_RC tg_upload_delete(struct tg_db *db, const char *id, struct tg_err *err);

struct tg_id_row {
    const char *id;
};

struct tg_part_row {
    uint64_t part;
    uint8_t sha256[32];
};

TG_RC tg_part_add(struct tg_db *db, const char *upload, const struct tg_part_row *row,
                  struct tg_err *err);
TG_RC tg_part_get(struct tg_db *db, const char *upload, uint64_t part, struct tg_arena *arena,
                  struct tg_part_row *row, struct tg_err *err);

struct tg_part_range_row {
    uint64_t first, last;
};

/* Ranges of part numbers that are missing, ascending, at most `limit`. */
TG_RC tg_part_missing(struct tg_db *db, const struct tg_upload_row *upload, uint64_t limit,
                      struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);

struct tg_package_row {
    uint8_t h[32];
    uint64_t seq;
    uint8_t blob_sha256[32];
    uint64_t blob_size;
    const char *model, *version, *format;
    uint64_t sequence, floor;
    int64_t created_at, not_before, not_after; /* 0: no limit */
    const char *fleets, *signers;
    uint64_t recipients;
    bool vault;
    int64_t uploaded_at;
    const char *uploaded_by;
};

/* seq is given by the store. */
TG_RC tg_package_add(struct tg_db *db, const struct tg_package_row *row, struct tg_err *err);
/* Another file for the same H. */
TG_RC tg_package_replace(struct tg_db *db, const struct tg_package_row *row, struct tg_err *err);
TG_RC tg_package_get(struct tg_db *db, const uint8_t h[32], struct tg_arena *arena,
                     struct tg_package_row *row, struct tg_err *err);
TG_RC tg_package_by_blob(struct tg_db *db, const uint8_t sha256[32], struct tg_arena *arena,
                         struct tg_package_row *row, struct tg_err *err);
/* Newest first; model NULL: all. */
TG_RC tg_package_list(struct tg_db *db, const char *model, const struct tg_page *page,
                      struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);
TG_RC tg_package_recipient_add(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                               struct tg_err *err);
TG_RC tg_package_has_recipient(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                               bool *yes, struct tg_err *err);

struct tg_grant_row {
    uint8_t kem_key_id[16];
    uint8_t granter[16];
    bool vault;
    int64_t issued_at, not_after;
    struct tg_bytes document;
};

/* Puts or replaces. */
TG_RC tg_grant_put(struct tg_db *db, const uint8_t h[32], const struct tg_grant_row *row,
                   struct tg_err *err);
TG_RC tg_grant_get(struct tg_db *db, const uint8_t h[32], const uint8_t kem_key_id[16],
                   struct tg_arena *arena, struct tg_grant_row *row, struct tg_err *err);
TG_RC tg_grant_list(struct tg_db *db, const uint8_t h[32], const struct tg_page *page,
                    struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);

#endif
