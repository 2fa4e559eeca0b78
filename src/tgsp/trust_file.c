/* The `.tgtrust` document (docs/spec/tgsp-1.0.md §6). */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"
#include "tgsp/trust_internal.h"

struct doc_key {
    uint8_t public_key[TG_SIGN_PK_LEN];
    const char *label;
    struct tg_jlist roles, models; /* const char * */
};

struct doc_threshold {
    const char *model;
    uint64_t signatures;
};

struct doc_reset {
    const char *model;
    uint64_t count;
};

struct doc {
    const char *tgsp_trust;
    uint64_t version;
    int64_t issued_at;
    struct tg_jlist keys, thresholds, resets;
    uint64_t default_threshold, change_threshold;
    struct tg_jlist crit;
};

static const struct tg_jfield key_fields[] = {
    TG_J_FIXED(struct doc_key, public_key, TG_J_REQ),
    TG_J_STR(struct doc_key, label, 1, TG_TRUST_LABEL_MAX, TG_J_SKIP0),
    TG_J_STRS(struct doc_key, roles, 1, 3, TG_J_REQ),
    TG_J_STRS(struct doc_key, models, 1, TG_TRUST_MODELS_MAX, TG_J_SKIP0),
};

static const struct tg_jschema key_schema =
    TG_J_SCHEMA(struct doc_key, key_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield threshold_fields[] = {
    TG_J_STR(struct doc_threshold, model, 1, TG_TGSP_NAME_MAX, TG_J_REQ),
    TG_J_U64(struct doc_threshold, signatures, 1, TG_TGSP_SIGNERS_MAX, TG_J_REQ),
};

static const struct tg_jschema threshold_schema =
    TG_J_SCHEMA(struct doc_threshold, threshold_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield reset_fields[] = {
    TG_J_STR(struct doc_reset, model, 1, TG_TGSP_NAME_MAX, TG_J_REQ),
    TG_J_U64(struct doc_reset, count, 1, TG_JSON_INT_MAX, TG_J_REQ),
};

static const struct tg_jschema reset_schema =
    TG_J_SCHEMA(struct doc_reset, reset_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, tgsp_trust, 1, 16, TG_J_REQ),
    TG_J_U64(struct doc, version, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_TIME(struct doc, issued_at, TG_J_REQ),
    TG_J_OBJS(struct doc, keys, &key_schema, 0, TG_TRUST_KEYS_MAX, TG_J_REQ),
    TG_J_U64(struct doc, default_threshold, 1, TG_TGSP_SIGNERS_MAX, TG_J_REQ),
    TG_J_U64(struct doc, change_threshold, 1, TG_TGSP_SIGNERS_MAX, TG_J_REQ),
    TG_J_OBJS(struct doc, thresholds, &threshold_schema, 0, TG_TRUST_THRESHOLDS_MAX, TG_J_REQ),
    TG_J_OBJS(struct doc, resets, &reset_schema, 0, TG_TRUST_THRESHOLDS_MAX, TG_J_REQ),
    TG_J_STRS(struct doc, crit, 0, TG_TGSP_CRIT_MAX, TG_J_REQ),
};

static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_IGNORE_UNKNOWN);

static const struct {
    const char *name;
    unsigned role;
} roles[] = {
    {"author",   TG_ROLE_AUTHOR  },
    {"granter",  TG_ROLE_GRANTER },
    {"platform", TG_ROLE_PLATFORM},
};

static enum tg_rc roles_parse(const struct tg_jlist *list, unsigned *out, struct tg_err *err)
{
    const char *const *v = list->items;
    unsigned got = 0;
    for (size_t i = 0; i < list->n; i++) {
        unsigned role = 0;
        for (size_t r = 0; r < TG_ARRAY_LEN(roles); r++)
            if (strcmp(v[i], roles[r].name) == 0)
                role = roles[r].role;
        if (!role)
            return TG_FAIL(err, TG_E_UNSUPPORTED, "roles[%zu]: '%.64s' is not a known role", i,
                           v[i]);
        if (got & role)
            return TG_FAIL(err, TG_E_FORMAT, "roles[%zu]: '%.64s' stands twice", i, v[i]);
        got |= role;
    }
    *out = got;
    return TG_OK;
}

static enum tg_rc key_take(struct tg_trust *t, const struct doc_key *k, struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    struct tg_trust_key key = {NULL, k->label, 0, k->models.items, k->models.n};
    TG_TRY(roles_parse(&k->roles, &key.roles, err));
    enum tg_rc rc = tg_sign_pk_new(TG_BYTES_OF(k->public_key), &pk);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "public_key: %s", tg_rc_verdict(rc, "not a usable signing key"));
    key.pk = pk;
    rc = tg_trust_add(t, &key, err);
    /* In a file these are faults of the file. */
    if (rc == TG_E_EXISTS || rc == TG_E_USAGE || rc == TG_E_LIMIT)
        rc = TG_E_FORMAT;
    return rc;
}

static enum tg_rc numbers_take(struct tg_trust *t, struct tg_trust_numbers *list, const char *model,
                               uint64_t n, struct tg_err *err)
{
    if (tg_trust_number_find(list, model))
        return TG_FAIL(err, TG_E_FORMAT, "model '%.64s' stands twice", model);
    return tg_trust_number_set(t, list, model, n, err);
}

static enum tg_rc lists_take(struct tg_trust *t, const struct doc *d, struct tg_err *err)
{
    const struct doc_key *k = d->keys.items;
    const struct doc_threshold *th = d->thresholds.items;
    const struct doc_reset *re = d->resets.items;
    for (size_t i = 0; i < d->keys.n; i++) {
        enum tg_rc rc = key_take(t, &k[i], err);
        if (rc != TG_OK) {
            tg_err_wrap(err, "trust.keys[%zu]", i);
            return rc;
        }
    }
    for (size_t i = 0; i < d->thresholds.n; i++)
        TG_TRY(numbers_take(t, &t->thresholds, th[i].model, th[i].signatures, err));
    for (size_t i = 0; i < d->resets.n; i++)
        TG_TRY(numbers_take(t, &t->resets, re[i].model, re[i].count, err));
    return TG_OK;
}

static enum tg_rc body_take(struct tg_trust *t, struct tg_err *err)
{
    static const char *const roots[] = {"trust.", NULL};
    struct doc d;
    memset(&d, 0, sizeof d);
    TG_TRY(tg_json_decode(&doc_schema, t->doc.body, "trust", t->arena, &d, err));
    if (strcmp(d.tgsp_trust, "1.0") != 0)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "trust.tgsp_trust: '%.16s' is not known to this reader", d.tgsp_trust);
    TG_TRY(tg_crit_roots(&d.crit, roots, "trust.crit", err));
    TG_TRY(tg_crit_check(&d.crit, "trust.", &doc_schema, t->doc.body, err));
    t->version = d.version;
    t->issued_at = d.issued_at;
    t->default_threshold = d.default_threshold;
    t->change_threshold = d.change_threshold;
    return lists_take(t, &d, err);
}

enum tg_rc tg_trust_load(struct tg_bytes text, const char *name, struct tg_trust **out,
                         struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    enum tg_rc rc = tg_trust_new(&t);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: out of memory", name);
    TG_TRY(tg_signed_doc_parse(TG_DOC_TRUST, text, name, t->arena, &t->doc, err));
    rc = body_take(t, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", name);
        return rc;
    }
    *out = tg_steal(&t);
    return TG_OK;
}

static enum tg_rc doc_key_fill(const struct tg_trust_entry *e, struct tg_arena *a,
                               struct doc_key *out)
{
    const char **names = tg_arena_alloc(a, TG_ARRAY_LEN(roles), sizeof *names);
    size_t n = 0;
    if (!names)
        return TG_E_NOMEM;
    memcpy(out->public_key, tg_sign_pk_raw(e->pk).p, TG_SIGN_PK_LEN);
    out->label = e->label[0] ? e->label : NULL;
    for (size_t r = 0; r < TG_ARRAY_LEN(roles); r++)
        if (e->roles & roles[r].role)
            names[n++] = roles[r].name;
    out->roles = (struct tg_jlist){names, n};
    out->models = (struct tg_jlist){e->models, e->n_models};
    return TG_OK;
}

static enum tg_rc doc_fill(const struct tg_trust *t, struct tg_arena *a, struct doc *d)
{
    struct doc_key *k = tg_arena_alloc(a, t->n_keys ? t->n_keys : 1, sizeof *k);
    struct doc_threshold *th = tg_arena_alloc(a, t->thresholds.n + 1, sizeof *th);
    struct doc_reset *re = tg_arena_alloc(a, t->resets.n + 1, sizeof *re);
    if (!k || !th || !re)
        return TG_E_NOMEM;
    for (size_t i = 0; i < t->n_keys; i++)
        TG_TRY(doc_key_fill(&t->keys[i], a, &k[i]));
    for (size_t i = 0; i < t->thresholds.n; i++)
        th[i] = (struct doc_threshold){t->thresholds.v[i].model, t->thresholds.v[i].n};
    for (size_t i = 0; i < t->resets.n; i++)
        re[i] = (struct doc_reset){t->resets.v[i].model, t->resets.v[i].n};
    d->keys = (struct tg_jlist){k, t->n_keys};
    d->thresholds = (struct tg_jlist){th, t->thresholds.n};
    d->resets = (struct tg_jlist){re, t->resets.n};
    return TG_OK;
}

enum tg_rc tg_trust_save(const struct tg_trust *t, uint64_t version, int64_t issued_at,
                         const struct tg_sign_sk *const *signers, size_t n_signers,
                         struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(TG_TRUST_MAX);
    struct doc d = {.tgsp_trust = "1.0",
                    .version = version,
                    .issued_at = issued_at,
                    .default_threshold = t->default_threshold,
                    .change_threshold = t->change_threshold};
    enum tg_rc rc = tg_arena_new(TG_TRUST_MAX, &a);
    if (rc == TG_OK)
        rc = doc_fill(t, a, &d);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "trust store: out of memory");
    TG_TRY(tg_json_encode(&doc_schema, &d, &body, err));
    struct tg_signers by = {NULL, signers, n_signers};
    return tg_signed_doc_make(TG_DOC_TRUST, tg_buf_view(&body), &by, out, err);
}

enum tg_rc tg_trust_cosign(struct tg_bytes text, const char *name, const struct tg_sign_sk *signer,
                           struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_TRY(tg_trust_load(text, name, &t, err)); /* nobody signs what is not a trust store */
    struct tg_signers by = {&t->doc.sigs, &signer, 1};
    return tg_signed_doc_make(TG_DOC_TRUST, t->doc.body, &by, out, err);
}
