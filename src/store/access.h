/* Tokens of people and CI, and the audit log. */
#ifndef TG_STORE_ACCESS_H
#define TG_STORE_ACCESS_H

#include "store/db.h"

struct tg_token_row {
    const char *id;
    const char *name;
    int role;
    uint8_t hash[32]; /* SHA-256 of the token; the token itself is nowhere */
    bool one_time;
    int64_t created_at, expires_at, last_used;
    int64_t ended_at; /* used (one-time) or deleted; 0: alive */
};

TG_RC tg_token_add(struct tg_db *db, const struct tg_token_row *row, struct tg_err *err);
/* @retval TG_E_NOTFOUND. Also finds ended and expired ones: the caller decides and may want to say
 * so. */
TG_RC tg_token_by_hash(struct tg_db *db, const uint8_t hash[32], struct tg_arena *arena,
                       struct tg_token_row *row, struct tg_err *err);
/* Alive, lasting tokens by id. */
TG_RC tg_token_list(struct tg_db *db, const struct tg_page *page, struct tg_arena *arena,
                    struct tg_jlist *rows, struct tg_err *err);
/* Compare-and-set: ends a token that is alive. @retval TG_E_NOTFOUND */
TG_RC tg_token_end(struct tg_db *db, const char *id, int64_t now, struct tg_err *err);
/* End every unused one-time token. */
TG_RC tg_token_end_one_time(struct tg_db *db, int64_t now, struct tg_err *err);
TG_RC tg_token_touch(struct tg_db *db, const char *id, int64_t now, struct tg_err *err);
TG_RC tg_token_count(struct tg_db *db, int64_t *n, struct tg_err *err);

struct tg_audit_row {
    uint64_t seq;
    int64_t at;
    const char *actor, *name, *address, *action, *target;
    struct tg_bytes package; /* 32 bytes or none */
    const char *outcome, *detail;
    uint8_t prev_hash[32], hash[32];
};

/* The last row's seq and hash; 0 and zeros when the log is empty. */
TG_RC tg_audit_last(struct tg_db *db, struct tg_arena *arena, uint64_t *seq, uint8_t hash[32],
                    struct tg_err *err);
TG_RC tg_audit_insert(struct tg_db *db, const struct tg_audit_row *row, struct tg_err *err);

struct tg_audit_filter {
    struct tg_bytes package; /* empty: any */
    const char *actor;       /* NULL: any */
    const char *action;
};

/* Ascending by seq, after page->after. */
TG_RC tg_audit_list(struct tg_db *db, const struct tg_audit_filter *f, const struct tg_page *page,
                    struct tg_arena *arena, struct tg_jlist *rows, struct tg_err *err);

#endif
