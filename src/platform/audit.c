#include "platform/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crypto/hash.h"

#define LABEL "TensorGuard audit 1"
#define BATCH 1000

static enum tg_rc add_field(struct tg_sha256_ctx *h, struct tg_bytes v)
{
    uint8_t len[4];

    tg_put_be32(len, (uint32_t)v.n);
    TG_TRY(tg_sha256_update(h, TG_BYTES_OF(len)));
    return tg_sha256_update(h, v);
}

TG_RC tg_audit_hash(const struct tg_audit_row *r, uint8_t out[32])
{
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *h = NULL;
    uint8_t numbers[16];

    TG_TRY(tg_sha256_new(&h));
    TG_TRY(tg_sha256_update(h, tg_bytes_make(LABEL, sizeof(LABEL)))); /* with its NUL */
    TG_TRY(tg_sha256_update(h, TG_BYTES_OF(r->prev_hash)));
    tg_put_be64(numbers, r->seq);
    tg_put_be64(numbers + 8, (uint64_t)r->at);
    TG_TRY(tg_sha256_update(h, TG_BYTES_OF(numbers)));
    const struct tg_bytes fields[] = {
        tg_bytes_str(r->actor),   tg_bytes_str(r->name),   tg_bytes_str(r->address),
        tg_bytes_str(r->action),  tg_bytes_str(r->target), r->package,
        tg_bytes_str(r->outcome), tg_bytes_str(r->detail),
    };
    for (size_t i = 0; i < TG_ARRAY_LEN(fields); i++)
        TG_TRY(add_field(h, fields[i]));
    return tg_sha256_final(h, out);
}

TG_RC tg_audit_append(struct tg_db *db, struct tg_arena *arena, struct tg_audit_row *row,
                      struct tg_err *err)
{
    uint64_t last = 0;

    TG_TRY(tg_audit_last(db, arena, &last, row->prev_hash, err));
    row->seq = last + 1;
    TG_TRY(tg_audit_hash(row, row->hash));
    return tg_audit_insert(db, row, err);
}

/* Does the row follow the one before? NULL: yes; else what is wrong. */
static const char *row_fault(const struct tg_audit_row *r, uint64_t seq, const uint8_t prev[32])
{
    uint8_t hash[32];

    if (r->seq != seq)
        return "a row is missing before it";
    if (!tg_bytes_eq(TG_BYTES_OF(r->prev_hash), tg_bytes_make(prev, 32)))
        return "it does not follow the row before it";
    if (tg_audit_hash(r, hash) != TG_OK || !tg_bytes_eq(TG_BYTES_OF(hash), TG_BYTES_OF(r->hash)))
        return "its fields are not what its hash says";
    return NULL;
}

TG_RC tg_audit_verify(struct tg_db *db, struct tg_wire_audit_check *out, char *text, size_t cap,
                      struct tg_err *err)
{
    const struct tg_audit_filter all = {TG_BYTES_NONE, NULL, NULL};
    struct tg_wire_audit_check check = {.ok = true};
    char after[24];
    size_t got;

    do {
        TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
        struct tg_jlist rows;
        TG_TRY(tg_arena_new(16 << 20, &arena));
        (void)snprintf(after, sizeof(after), "%" PRIu64, check.entries);
        const struct tg_page page = {after, BATCH};
        TG_TRY(tg_audit_list(db, &all, &page, arena, &rows, err));
        got = rows.n;
        for (size_t i = 0; i < got; i++) {
            const struct tg_audit_row *r = &((const struct tg_audit_row *)rows.items)[i];
            const char *fault = row_fault(r, check.entries + 1, check.head);
            if (fault != NULL) {
                check.ok = false;
                check.first_bad = r->seq;
                (void)snprintf(text, cap, "row %" PRIu64 ": %s", r->seq, fault);
                check.detail = text;
                *out = check;
                return TG_OK;
            }
            check.entries++;
            memcpy(check.head, r->hash, 32);
        }
    } while (got == BATCH);
    *out = check;
    return TG_OK;
}
