/* A trust store's inside, shared by trust.c (what it says) and trust_file.c (how it is written). */
#ifndef TG_TGSP_TRUST_INTERNAL_H
#define TG_TGSP_TRUST_INTERNAL_H

#include "tgsp/signed_doc_internal.h"
#include "tgsp/trust.h"

struct tg_trust_entry {
    struct tg_sign_pk *pk;
    const char *label;
    unsigned roles;
    const char **models;
    size_t n_models;
};

/* A number per model name: thresholds, reset counts. */
struct tg_trust_number {
    const char *model;
    uint64_t n;
};

struct tg_trust_numbers {
    struct tg_trust_number v[TG_TRUST_THRESHOLDS_MAX];
    size_t n;
};

struct tg_trust {
    struct tg_arena *arena; /* strings, and the document it was loaded from */
    uint64_t version;
    int64_t issued_at;
    struct tg_trust_entry keys[TG_TRUST_KEYS_MAX];
    size_t n_keys;
    struct tg_trust_numbers thresholds, resets;
    uint64_t default_threshold, change_threshold;
    struct tg_signed_doc doc; /* as loaded: its signatures; n == 0 for a store made here */
};

/* @retval TG_E_LIMIT over TG_TRUST_THRESHOLDS_MAX names  @retval TG_E_USAGE name */
TG_RC tg_trust_number_set(struct tg_trust *t, struct tg_trust_numbers *list, const char *model,
                          uint64_t n, struct tg_err *err);
const struct tg_trust_number *tg_trust_number_find(const struct tg_trust_numbers *list,
                                                   const char *model);

#endif
