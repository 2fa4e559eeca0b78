/* The device's memory of what it ran, and what it therefore refuses (docs/spec/tgsp-1.0.md §3, §9).
 * Pure: the caller keeps the record durably. */
#ifndef TG_TGSP_ROLLBACK_H
#define TG_TGSP_ROLLBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "tgsp/format.h"

#define TG_ROLLBACK_MAX (UINT32_C(1) << 20) /* bytes of the record */
#define TG_ROLLBACK_MODELS_MAX 1024

/* Per model name. */
struct tg_rollback_entry {
    const char *model;
    uint64_t floor;                       /* F: the highest floor of a package that was healthy */
    uint64_t sequence;                    /* K: the highest sequence */
    uint8_t header_sha256[TG_TGSP_H_LEN]; /* H of K's package */
    uint8_t current[TG_TGSP_H_LEN];       /* H of the package that was healthy last */
    uint8_t previous[TG_TGSP_H_LEN];      /* H of the one that served just before it */
    bool has_previous;
    uint64_t reset_count; /* the trust store's reset count when this was written */
};

struct tg_rollback; /* the record: entries by model name */

TG_RC tg_rollback_new(struct tg_rollback **out); /* empty */
void tg_rollback_free(struct tg_rollback *r);
TG_DEFINE_AUTO(struct tg_rollback, tg_rollback_freep, tg_rollback_free);
/* @retval TG_E_FORMAT  @retval TG_E_LIMIT */
TG_RC tg_rollback_decode(struct tg_bytes text, const char *name, struct tg_rollback **out,
                         struct tg_err *err);
TG_RC tg_rollback_encode(const struct tg_rollback *r, struct tg_buf *out, struct tg_err *err);
/* Borrowed; NULL when nothing is recorded for this name. */
const struct tg_rollback_entry *tg_rollback_find(const struct tg_rollback *r, const char *model);

/* What is asked about. */
struct tg_rollback_query {
    const char *model;
    uint64_t sequence, floor;
    const uint8_t *header_sha256; /* TG_TGSP_H_LEN */
    uint64_t reset_count;         /* tg_trust_reset_count(store, model) */
    bool deployment_allows;       /* a verified deployment names this H with allow_rollback */
};

/* May this package run? Yes when nothing is recorded (or the store reset the name); never below F;
 * at or above K with K's H, above K; else only what served last, what served just before it, or by
 * a deployment. @retval TG_E_ROLLBACK err says which rule and the figures */
TG_RC tg_rollback_decide(const struct tg_rollback *r, const struct tg_rollback_query *q,
                         struct tg_err *err);

/* The package became healthy: raise F and K, move current to previous. */
TG_RC tg_rollback_accept(struct tg_rollback *r, const struct tg_rollback_query *q,
                         struct tg_err *err);

#endif
