#include "tgsp/rollback.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"

struct tg_rollback {
    struct tg_rollback_entry *v; /* model names owned */
    size_t n, cap;
};

struct doc {
    const char *tgsp_rollback;
    struct tg_jlist models;
};

#define ROW_PREVIOUS                                                                               \
    {                                                                                              \
        .name = "previous", .type = TG_JT_FIXED, .flags = TG_J_OPT,                                \
        .off = offsetof(struct tg_rollback_entry, previous),                                       \
        .has_off = offsetof(struct tg_rollback_entry, has_previous), .max = TG_TGSP_H_LEN,         \
        .sub = {                                                                                   \
            NULL                                                                                   \
        }                                                                                          \
    }

static const struct tg_jfield entry_fields[] = {
    TG_J_STR(struct tg_rollback_entry, model, 1, TG_TGSP_NAME_MAX, TG_J_REQ),
    TG_J_U64(struct tg_rollback_entry, floor, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_rollback_entry, sequence, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_FIXED(struct tg_rollback_entry, header_sha256, TG_J_REQ),
    TG_J_FIXED(struct tg_rollback_entry, current, TG_J_REQ),
    ROW_PREVIOUS,
    TG_J_U64(struct tg_rollback_entry, reset_count, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
};

static const struct tg_jschema entry_schema =
    TG_J_SCHEMA(struct tg_rollback_entry, entry_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, tgsp_rollback, 1, 16, TG_J_REQ),
    TG_J_OBJS(struct doc, models, &entry_schema, 0, TG_ROLLBACK_MODELS_MAX, TG_J_REQ),
};

static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_REFUSE_UNKNOWN);

enum tg_rc tg_rollback_new(struct tg_rollback **out)
{
    struct tg_rollback *r = tg_calloc(1, sizeof *r);
    if (!r)
        return TG_E_NOMEM;
    *out = r;
    return TG_OK;
}

void tg_rollback_free(struct tg_rollback *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        tg_free((void *)(uintptr_t)r->v[i].model);
    tg_free(r->v);
    tg_free(r);
}

static struct tg_rollback_entry *find(const struct tg_rollback *r, const char *model)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->v[i].model, model) == 0)
            return &r->v[i];
    return NULL;
}

const struct tg_rollback_entry *tg_rollback_find(const struct tg_rollback *r, const char *model)
{
    return find(r, model);
}

/* A copy of e at the end, with its own model name. */
static enum tg_rc push(struct tg_rollback *r, const struct tg_rollback_entry *e)
{
    if (r->n == TG_ROLLBACK_MODELS_MAX)
        return TG_E_LIMIT;
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 8;
        struct tg_rollback_entry *v = tg_realloc(r->v, cap * sizeof *v);
        if (!v)
            return TG_E_NOMEM;
        r->v = v;
        r->cap = cap;
    }
    char *model = tg_strdup(e->model);
    if (!model)
        return TG_E_NOMEM;
    r->v[r->n] = *e;
    r->v[r->n++].model = model;
    return TG_OK;
}

static enum tg_rc take(struct tg_rollback *r, const struct doc *d, struct tg_err *err)
{
    const struct tg_rollback_entry *v = d->models.items;
    if (strcmp(d->tgsp_rollback, "1.0") != 0)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "rollback record: version '%.16s' is not known",
                       d->tgsp_rollback);
    for (size_t i = 0; i < d->models.n; i++) {
        if (find(r, v[i].model))
            return TG_FAIL(err, TG_E_FORMAT, "rollback record: model '%.64s' stands twice",
                           v[i].model);
        enum tg_rc rc = push(r, &v[i]);
        if (rc != TG_OK)
            return TG_FAIL(err, rc, "rollback record: out of memory");
    }
    return TG_OK;
}

enum tg_rc tg_rollback_decode(struct tg_bytes text, const char *name, struct tg_rollback **out,
                              struct tg_err *err)
{
    TG_AUTO(tg_rollback_freep) struct tg_rollback *r = NULL;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    struct doc d = {
        NULL, {NULL, 0}
    };
    if (text.n > TG_ROLLBACK_MAX)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes, at most %u", name, text.n,
                       TG_ROLLBACK_MAX);
    enum tg_rc rc = tg_rollback_new(&r);
    if (rc == TG_OK)
        rc = tg_arena_new(4 * (size_t)TG_ROLLBACK_MAX, &a);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: out of memory", name);
    rc = tg_json_decode(&doc_schema, text, "rollback", a, &d, err);
    if (rc == TG_OK)
        rc = take(r, &d, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", name);
        return rc;
    }
    *out = tg_steal(&r);
    return TG_OK;
}

enum tg_rc tg_rollback_encode(const struct tg_rollback *r, struct tg_buf *out, struct tg_err *err)
{
    struct doc d = {
        "1.0", {r->v, r->n}
    };
    return tg_json_encode(&doc_schema, &d, out, err);
}

static bool same(const uint8_t a[TG_TGSP_H_LEN], const uint8_t b[TG_TGSP_H_LEN])
{
    return tg_mem_eq(a, b, TG_TGSP_H_LEN);
}

enum tg_rc tg_rollback_decide(const struct tg_rollback *r, const struct tg_rollback_query *q,
                              struct tg_err *err)
{
    const struct tg_rollback_entry *e = find(r, q->model);
    if (!e || q->reset_count > e->reset_count)
        return TG_OK;
    if (q->sequence < e->floor)
        return TG_FAIL(err, TG_E_ROLLBACK,
                       "rollback: sequence %" PRIu64 " of '%.64s' is below the floor %" PRIu64
                       " that a later package set; this is never accepted",
                       q->sequence, q->model, e->floor);
    if (q->sequence > e->sequence)
        return TG_OK;
    if (q->sequence == e->sequence && same(q->header_sha256, e->header_sha256))
        return TG_OK;
    if (same(q->header_sha256, e->current) ||
        (e->has_previous && same(q->header_sha256, e->previous)))
        return TG_OK;
    if (q->deployment_allows)
        return TG_OK;
    if (q->sequence == e->sequence)
        return TG_FAIL(err, TG_E_ROLLBACK,
                       "rollback: another package of '%.64s' with sequence %" PRIu64
                       " was accepted before; build it with a higher --sequence",
                       q->model, q->sequence);
    return TG_FAIL(err, TG_E_ROLLBACK,
                   "rollback: sequence %" PRIu64 " of '%.64s' is older than %" PRIu64
                   ", which was accepted before; deploy it with --allow-rollback if that is meant",
                   q->sequence, q->model, e->sequence);
}

static void serve(struct tg_rollback_entry *e, const uint8_t h[TG_TGSP_H_LEN])
{
    if (same(e->current, h))
        return;
    memcpy(e->previous, e->current, TG_TGSP_H_LEN);
    e->has_previous = true;
    memcpy(e->current, h, TG_TGSP_H_LEN);
}

enum tg_rc tg_rollback_accept(struct tg_rollback *r, const struct tg_rollback_query *q,
                              struct tg_err *err)
{
    struct tg_rollback_entry *e = find(r, q->model);
    struct tg_rollback_entry fresh = {.model = q->model,
                                      .floor = q->floor,
                                      .sequence = q->sequence,
                                      .reset_count = q->reset_count};
    memcpy(fresh.header_sha256, q->header_sha256, TG_TGSP_H_LEN);
    memcpy(fresh.current, q->header_sha256, TG_TGSP_H_LEN);
    if (!e) {
        enum tg_rc rc = push(r, &fresh);
        return rc == TG_OK ? rc : TG_FAIL(err, rc, "rollback record: can't hold '%.64s'", q->model);
    }
    if (q->reset_count > e->reset_count) {
        fresh.model = e->model;
        *e = fresh;
        return TG_OK;
    }
    if (q->floor > e->floor)
        e->floor = q->floor;
    if (q->sequence >= e->sequence) {
        e->sequence = q->sequence;
        memcpy(e->header_sha256, q->header_sha256, TG_TGSP_H_LEN);
    }
    serve(e, q->header_sha256);
    return TG_OK;
}
