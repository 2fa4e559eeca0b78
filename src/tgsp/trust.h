/* Trust stores (docs/spec/tgsp-1.0.md §6): whose signatures count, for what.
 *
 * A store has a version and is signed by keys of the store before it; the first is put in place by
 * the operator. Changes count signatures of author keys that are not limited to model names. */
#ifndef TG_TGSP_TRUST_H
#define TG_TGSP_TRUST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/sign.h"
#include "tgsp/format.h"

enum {
    TG_ROLE_AUTHOR = 1,   /* signs packages and changes of the store */
    TG_ROLE_GRANTER = 2,  /* signs grants */
    TG_ROLE_PLATFORM = 4, /* signs deployments */
    TG_ROLE_ALL = 7
};

#define TG_TRUST_MAX (UINT32_C(4) << 20) /* bytes of a .tgtrust file */
#define TG_TRUST_KEYS_MAX 512
#define TG_TRUST_MODELS_MAX 256 /* names per key */
#define TG_TRUST_THRESHOLDS_MAX 1024
#define TG_TRUST_LABEL_MAX 128

struct tg_trust;

/* One entry, borrowed from the store. */
struct tg_trust_key {
    const struct tg_sign_pk *pk;
    const char *label; /* "" when none: for people, never compared */
    unsigned roles;
    const char *const *models; /* authors: the names they may sign; n_models == 0: every name */
    size_t n_models;
};

/* An empty store of version 1, threshold 1 for everything, no signatures. */
TG_RC tg_trust_new(struct tg_trust **out);
void tg_trust_free(struct tg_trust *t);
TG_DEFINE_AUTO(struct tg_trust, tg_trust_freep, tg_trust_free);

/* Add a key (copied). label may be NULL.
 * @retval TG_E_EXISTS its key_id or one of its component keys is already in the store
 * @retval TG_E_LIMIT  @retval TG_E_USAGE no role, unknown role, models without the author role */
TG_RC tg_trust_add(struct tg_trust *t, const struct tg_trust_key *key, struct tg_err *err);
/* @retval TG_E_NOTFOUND */
TG_RC tg_trust_remove(struct tg_trust *t, const uint8_t key_id[TG_SIGN_ID_LEN], struct tg_err *err);
/* Signatures needed for packages of `model` (1..16); model NULL: of every name without its own. */
TG_RC tg_trust_threshold_set(struct tg_trust *t, const char *model, uint64_t n, struct tg_err *err);
/* Signatures needed for a newer store (1..16; default 1). */
TG_RC tg_trust_change_threshold_set(struct tg_trust *t, uint64_t n, struct tg_err *err);
/* Forget a model's rollback record on every device that takes this store (its reset count + 1). */
TG_RC tg_trust_reset_model(struct tg_trust *t, const char *model, struct tg_err *err);

uint64_t tg_trust_version(const struct tg_trust *t);
int64_t tg_trust_issued_at(const struct tg_trust *t);
size_t tg_trust_count(const struct tg_trust *t);
struct tg_trust_key tg_trust_at(const struct tg_trust *t, size_t i);
/* false: not in the store */
bool tg_trust_find(const struct tg_trust *t, const uint8_t key_id[TG_SIGN_ID_LEN],
                   struct tg_trust_key *out);
/* model NULL: of every name without its own */
uint64_t tg_trust_threshold(const struct tg_trust *t, const char *model);
uint64_t tg_trust_change_threshold(const struct tg_trust *t);
uint64_t tg_trust_reset_count(const struct tg_trust *t, const char *model);

/* What is said of single model names: a threshold of their own (0: none), and how often their
 * rollback record was reset. */
struct tg_trust_limit {
    const char *model; /* borrowed from the store */
    uint64_t threshold, resets;
};

size_t tg_trust_limit_count(const struct tg_trust *t);
struct tg_trust_limit tg_trust_limit_at(const struct tg_trust *t, size_t i);
bool tg_trust_may_sign(const struct tg_trust_key *k, const char *model);

/* A .tgtrust file. Load checks form, limits, distinct keys and components; it does not check the
 * signatures: the first store is the operator's word, a newer one goes through tg_trust_succeeds.
 */
TG_RC tg_trust_load(struct tg_bytes text, const char *name, struct tg_trust **out,
                    struct tg_err *err);
/* Make the file's text: what is in t, as version `version`, signed by each of the keys (0..16; none
 * for a first store). */
TG_RC tg_trust_save(const struct tg_trust *t, uint64_t version, int64_t issued_at,
                    const struct tg_sign_sk *const *signers, size_t n_signers, struct tg_buf *out,
                    struct tg_err *err);
/* Add signatures to a file's text without changing what is signed (for a change threshold over 1).
 * @retval TG_E_EXISTS the key has already signed */
TG_RC tg_trust_cosign(struct tg_bytes text, const char *name, const struct tg_sign_sk *signer,
                      struct tg_buf *out, struct tg_err *err);

/* May `next` replace `cur`? Its version must be higher and its signatures by keys of `cur` enough.
 * @retval TG_E_ROLLBACK not newer  @retval TG_E_AUTH a known key's signature is invalid
 * @retval TG_E_DENIED too few signatures that count; err says how many of how many */
TG_RC tg_trust_succeeds(const struct tg_trust *cur, const struct tg_trust *next,
                        struct tg_err *err);

#endif
