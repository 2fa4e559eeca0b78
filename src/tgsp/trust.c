#include "tgsp/trust.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"
#include "tgsp/trust_internal.h"

#define ARENA_MAX (UINT32_C(24) << 20)

enum tg_rc tg_trust_new(struct tg_trust **out)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = tg_calloc(1, sizeof *t);
    if (!t)
        return TG_E_NOMEM;
    TG_TRY(tg_arena_new(ARENA_MAX, &t->arena));
    t->version = 1;
    t->default_threshold = 1;
    t->change_threshold = 1;
    *out = tg_steal(&t);
    return TG_OK;
}

void tg_trust_free(struct tg_trust *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_keys; i++)
        tg_sign_pk_free(t->keys[i].pk);
    tg_arena_free(t->arena);
    tg_free(t);
}

static bool same_component(const struct tg_sign_pk *a, const struct tg_sign_pk *b)
{
    struct tg_bytes x = tg_sign_pk_raw(a), y = tg_sign_pk_raw(b);
    return tg_bytes_eq(tg_bytes_sub(x, 0, TG_SIGN_ED25519_LEN),
                       tg_bytes_sub(y, 0, TG_SIGN_ED25519_LEN)) ||
           tg_bytes_eq(tg_bytes_sub(x, TG_SIGN_ED25519_LEN, TG_SIGN_MLDSA_PK_LEN),
                       tg_bytes_sub(y, TG_SIGN_ED25519_LEN, TG_SIGN_MLDSA_PK_LEN));
}

static enum tg_rc name_check(const char *s, size_t max, const char *what, struct tg_err *err)
{
    size_t n = strlen(s);
    if (n == 0 || n > max || !tg_utf8_ok(tg_bytes_str(s)))
        return TG_FAIL(err, TG_E_USAGE, "trust store: %s must be 1 to %zu bytes of UTF-8", what,
                       max);
    return TG_OK;
}

static enum tg_rc add_check(const struct tg_trust *t, const struct tg_trust_key *key,
                            struct tg_err *err)
{
    char hex[33];
    if (key->roles == 0 || (key->roles & ~(unsigned)TG_ROLE_ALL))
        return TG_FAIL(
            err, TG_E_USAGE,
            "trust store: a key needs one or more of the roles author, granter, platform");
    if (key->n_models && !(key->roles & TG_ROLE_AUTHOR))
        return TG_FAIL(err, TG_E_USAGE, "trust store: only authors are limited to model names");
    if (t->n_keys >= TG_TRUST_KEYS_MAX || key->n_models > TG_TRUST_MODELS_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "trust store: at most %d keys with %d model names each",
                       TG_TRUST_KEYS_MAX, TG_TRUST_MODELS_MAX);
    if (key->label && key->label[0])
        TG_TRY(name_check(key->label, TG_TRUST_LABEL_MAX, "a label", err));
    for (size_t i = 0; i < key->n_models; i++)
        TG_TRY(name_check(key->models[i], TG_TGSP_NAME_MAX, "a model name", err));
    for (size_t i = 0; i < t->n_keys; i++)
        if (tg_mem_eq(tg_sign_pk_id(t->keys[i].pk), tg_sign_pk_id(key->pk), TG_SIGN_ID_LEN) ||
            same_component(t->keys[i].pk, key->pk)) {
            tg_id_hex(tg_sign_pk_id(key->pk), hex);
            return TG_FAIL(err, TG_E_EXISTS,
                           "trust store: key %s, or one of its component keys, is there already",
                           hex);
        }
    return TG_OK;
}

static enum tg_rc copy_names(struct tg_trust *t, const struct tg_trust_key *key,
                             struct tg_trust_entry *e)
{
    const char *label = key->label ? key->label : "";
    e->label = tg_arena_strndup(t->arena, label, strlen(label));
    e->models = tg_arena_alloc(t->arena, key->n_models ? key->n_models : 1, sizeof *e->models);
    if (!e->label || !e->models)
        return TG_E_NOMEM;
    for (size_t i = 0; i < key->n_models; i++) {
        e->models[i] = tg_arena_strndup(t->arena, key->models[i], strlen(key->models[i]));
        if (!e->models[i])
            return TG_E_NOMEM;
    }
    return TG_OK;
}

enum tg_rc tg_trust_add(struct tg_trust *t, const struct tg_trust_key *key, struct tg_err *err)
{
    struct tg_trust_entry e = {NULL, NULL, key->roles, NULL, key->n_models};
    TG_TRY(add_check(t, key, err));
    enum tg_rc rc = copy_names(t, key, &e);
    if (rc == TG_OK)
        rc = tg_sign_pk_new(tg_sign_pk_raw(key->pk), &e.pk);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "trust store: can't add the key (%s)", tg_rc_text(rc));
    t->keys[t->n_keys++] = e;
    return TG_OK;
}

enum tg_rc tg_trust_remove(struct tg_trust *t, const uint8_t key_id[TG_SIGN_ID_LEN],
                           struct tg_err *err)
{
    char hex[33];
    for (size_t i = 0; i < t->n_keys; i++) {
        if (!tg_mem_eq(tg_sign_pk_id(t->keys[i].pk), key_id, TG_SIGN_ID_LEN))
            continue;
        tg_sign_pk_free(t->keys[i].pk);
        memmove(&t->keys[i], &t->keys[i + 1], (t->n_keys - i - 1) * sizeof t->keys[0]);
        t->n_keys--;
        return TG_OK;
    }
    tg_id_hex(key_id, hex);
    return TG_FAIL(err, TG_E_NOTFOUND, "trust store: no key %s", hex);
}

const struct tg_trust_number *tg_trust_number_find(const struct tg_trust_numbers *list,
                                                   const char *model)
{
    for (size_t i = 0; model && i < list->n; i++)
        if (strcmp(list->v[i].model, model) == 0)
            return &list->v[i];
    return NULL;
}

enum tg_rc tg_trust_number_set(struct tg_trust *t, struct tg_trust_numbers *list, const char *model,
                               uint64_t n, struct tg_err *err)
{
    TG_TRY(name_check(model, TG_TGSP_NAME_MAX, "a model name", err));
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->v[i].model, model) == 0) {
            list->v[i].n = n;
            return TG_OK;
        }
    if (list->n >= TG_TRUST_THRESHOLDS_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "trust store: at most %d model names",
                       TG_TRUST_THRESHOLDS_MAX);
    const char *name = tg_arena_strndup(t->arena, model, strlen(model));
    if (!name)
        return TG_FAIL(err, TG_E_NOMEM, "trust store: out of memory");
    list->v[list->n++] = (struct tg_trust_number){name, n};
    return TG_OK;
}

static enum tg_rc threshold_check(uint64_t n, struct tg_err *err)
{
    if (n < 1 || n > TG_TGSP_SIGNERS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "trust store: a threshold is 1 to %d signatures",
                       TG_TGSP_SIGNERS_MAX);
    return TG_OK;
}

enum tg_rc tg_trust_threshold_set(struct tg_trust *t, const char *model, uint64_t n,
                                  struct tg_err *err)
{
    TG_TRY(threshold_check(n, err));
    if (model)
        return tg_trust_number_set(t, &t->thresholds, model, n, err);
    t->default_threshold = n;
    return TG_OK;
}

enum tg_rc tg_trust_change_threshold_set(struct tg_trust *t, uint64_t n, struct tg_err *err)
{
    TG_TRY(threshold_check(n, err));
    t->change_threshold = n;
    return TG_OK;
}

enum tg_rc tg_trust_reset_model(struct tg_trust *t, const char *model, struct tg_err *err)
{
    return tg_trust_number_set(t, &t->resets, model, tg_trust_reset_count(t, model) + 1, err);
}

uint64_t tg_trust_version(const struct tg_trust *t)
{
    return t->version;
}

int64_t tg_trust_issued_at(const struct tg_trust *t)
{
    return t->issued_at;
}

size_t tg_trust_count(const struct tg_trust *t)
{
    return t->n_keys;
}

struct tg_trust_key tg_trust_at(const struct tg_trust *t, size_t i)
{
    const struct tg_trust_entry *e = &t->keys[i];
    return (struct tg_trust_key){e->pk, e->label, e->roles, (const char *const *)e->models,
                                 e->n_models};
}

bool tg_trust_find(const struct tg_trust *t, const uint8_t key_id[TG_SIGN_ID_LEN],
                   struct tg_trust_key *out)
{
    for (size_t i = 0; i < t->n_keys; i++)
        if (tg_mem_eq(tg_sign_pk_id(t->keys[i].pk), key_id, TG_SIGN_ID_LEN)) {
            *out = tg_trust_at(t, i);
            return true;
        }
    return false;
}

uint64_t tg_trust_threshold(const struct tg_trust *t, const char *model)
{
    const struct tg_trust_number *n = tg_trust_number_find(&t->thresholds, model);
    return n ? n->n : t->default_threshold;
}

uint64_t tg_trust_change_threshold(const struct tg_trust *t)
{
    return t->change_threshold;
}

uint64_t tg_trust_reset_count(const struct tg_trust *t, const char *model)
{
    const struct tg_trust_number *n = tg_trust_number_find(&t->resets, model);
    return n ? n->n : 0;
}

/* The i-th of the resets whose model has no threshold; NULL: there are not so many. */
static const struct tg_trust_number *reset_alone(const struct tg_trust *t, size_t i)
{
    for (size_t k = 0; k < t->resets.n; k++)
        if (!tg_trust_number_find(&t->thresholds, t->resets.v[k].model) && i-- == 0)
            return &t->resets.v[k];
    return NULL;
}

size_t tg_trust_limit_count(const struct tg_trust *t)
{
    size_t alone = 0;
    while (reset_alone(t, alone))
        alone++;
    return t->thresholds.n + alone;
}

struct tg_trust_limit tg_trust_limit_at(const struct tg_trust *t, size_t i)
{
    if (i >= t->thresholds.n) {
        const struct tg_trust_number *r = reset_alone(t, i - t->thresholds.n);
        return r ? (struct tg_trust_limit){r->model, 0, r->n} : (struct tg_trust_limit){"", 0, 0};
    }
    const char *model = t->thresholds.v[i].model;
    return (struct tg_trust_limit){model, t->thresholds.v[i].n, tg_trust_reset_count(t, model)};
}

bool tg_trust_may_sign(const struct tg_trust_key *k, const char *model)
{
    if (!(k->roles & TG_ROLE_AUTHOR))
        return false;
    for (size_t i = 0; i < k->n_models; i++)
        if (strcmp(k->models[i], model) == 0)
            return true;
    return k->n_models == 0;
}

enum tg_rc tg_trust_succeeds(const struct tg_trust *cur, const struct tg_trust *next,
                             struct tg_err *err)
{
    struct tg_verified verified;
    uint64_t count = 0;
    if (next->version <= cur->version)
        return TG_FAIL(err, TG_E_ROLLBACK,
                       "trust store: version %" PRIu64 " is not newer than %" PRIu64, next->version,
                       cur->version);
    TG_TRY(
        tg_entries_verify(&next->doc.sigs, TG_LABEL_TRUST, next->doc.digest, cur, &verified, err));
    for (size_t i = 0; i < verified.n; i++)
        if ((verified.keys[i].roles & TG_ROLE_AUTHOR) && verified.keys[i].n_models == 0)
            count++;
    if (count < cur->change_threshold)
        return TG_FAIL(
            err, TG_E_DENIED,
            "trust store: %" PRIu64 " of %" PRIu64 " needed signatures by author keys "
            "(without model names) of the store in force; sign it with `tensorguard trust`",
            count, cur->change_threshold);
    return TG_OK;
}
