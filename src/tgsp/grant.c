#include "tgsp/grant.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"
#include "tgsp/package_internal.h"
#include "tgsp/signed_doc_internal.h"

#define ARENA_MAX (UINT32_C(1) << 20)

struct tg_grant {
    struct tg_arena *arena;
    struct tg_grant_fields fields;
    struct tg_signed_doc doc;
    const char *name;
};

struct doc {
    const char *tgsp_grant;
    struct tg_grant_fields f;
    struct tg_jlist crit;
};

#define ROW(key, kind, hi)                                                                         \
    {                                                                                              \
        .name = #key, .type = (kind), .off = offsetof(struct doc, f.key), .has_off = SIZE_MAX,     \
        .max = (hi), .sub = {                                                                      \
            NULL                                                                                   \
        }                                                                                          \
    }

#define ROW_RECIPIENT                                                                              \
    {                                                                                              \
        .name = "recipient", .type = TG_JT_OBJ, .off = offsetof(struct doc, f.recipient),          \
        .has_off = SIZE_MAX, .sub = {                                                              \
            .schema = &tg_recipient_schema                                                         \
        }                                                                                          \
    }

static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, tgsp_grant, 1, 16, TG_J_REQ),
    ROW(package_id, TG_JT_FIXED, TG_TGSP_PACKAGE_ID_LEN),
    ROW(header_sha256, TG_JT_FIXED, TG_TGSP_H_LEN),
    ROW_RECIPIENT,
    ROW(issued_at, TG_JT_TIME, 0),
    ROW(not_before, TG_JT_TIME, 0),
    ROW(not_after, TG_JT_TIME, 0),
    TG_J_STRS(struct doc, crit, 0, TG_TGSP_CRIT_MAX, TG_J_REQ),
};

static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_IGNORE_UNKNOWN);

enum tg_rc tg_grant_make(struct tg_tgsp *p, const struct tg_grant_spec *spec, struct tg_buf *out,
                         struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(TG_TGSP_DOC_MAX / 2);
    struct doc d = {.tgsp_grant = "1.0"};
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    if (spec->not_after <= spec->not_before)
        return TG_FAIL(err, TG_E_USAGE, "grant: not_after must be later than not_before");
    struct tg_wrap w = tg_wrap_grant(&p->header, p->h);
    enum tg_rc rc =
        tg_wrap_seal(&w, spec->recipient, spec->rng, tg_tgsp_keys_get(p)->file_key, &d.f.recipient);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "grant: can't wrap the key for this recipient: %s", tg_rc_text(rc));
    memcpy(d.f.package_id, p->header.package_id, TG_TGSP_PACKAGE_ID_LEN);
    memcpy(d.f.header_sha256, p->h, TG_TGSP_H_LEN);
    d.f.issued_at = spec->issued_at;
    d.f.not_before = spec->not_before;
    d.f.not_after = spec->not_after;
    TG_TRY(tg_json_encode(&doc_schema, &d, &body, err));
    struct tg_signers by = {NULL, &spec->signer, 1};
    return tg_signed_doc_make(TG_DOC_GRANT, tg_buf_view(&body), &by, out, err);
}

static enum tg_rc body_take(struct tg_grant *g, struct tg_err *err)
{
    static const char *const roots[] = {"grant.", NULL};
    struct doc d;
    memset(&d, 0, sizeof d);
    TG_TRY(tg_json_decode(&doc_schema, g->doc.body, "grant", g->arena, &d, err));
    if (strcmp(d.tgsp_grant, "1.0") != 0)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "grant.tgsp_grant: '%.16s' is not known to this reader", d.tgsp_grant);
    TG_TRY(tg_crit_roots(&d.crit, roots, "grant.crit", err));
    TG_TRY(tg_crit_check(&d.crit, "grant.", &doc_schema, g->doc.body, err));
    g->fields = d.f;
    return TG_OK;
}

enum tg_rc tg_grant_decode(struct tg_bytes text, const char *name, struct tg_grant **out,
                           struct tg_err *err)
{
    TG_AUTO(tg_grant_freep) struct tg_grant *g = tg_calloc(1, sizeof *g);
    enum tg_rc rc = g ? tg_arena_new(ARENA_MAX, &g->arena) : TG_E_NOMEM;
    if (rc == TG_OK && !(g->name = tg_arena_strndup(g->arena, name, strlen(name))))
        rc = TG_E_NOMEM;
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: out of memory", name);
    TG_TRY(tg_signed_doc_parse(TG_DOC_GRANT, text, name, g->arena, &g->doc, err));
    rc = body_take(g, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", name);
        return rc;
    }
    *out = tg_steal(&g);
    return TG_OK;
}

void tg_grant_free(struct tg_grant *g)
{
    if (!g)
        return;
    tg_arena_free(g->arena);
    tg_free(g);
}

const struct tg_grant_fields *tg_grant_fields_get(const struct tg_grant *g)
{
    return &g->fields;
}

const struct tg_tgsp_signatures *tg_grant_signatures_get(const struct tg_grant *g)
{
    return &g->doc.sigs;
}

static enum tg_rc times_check(const struct tg_grant_fields *f, int64_t now, struct tg_err *err)
{
    char text[TG_TIME_TEXT] = "?";
    if (now < f->not_before) {
        (void)!tg_time_format(f->not_before, text);
        return TG_FAIL(err, TG_E_EXPIRED, "grant: valid only from %s", text);
    }
    if (now >= f->not_after) {
        (void)!tg_time_format(f->not_after, text);
        return TG_FAIL(err, TG_E_EXPIRED, "grant: expired at %s; ask for a new one", text);
    }
    return TG_OK;
}

enum tg_rc tg_grant_verify(const struct tg_grant *g, const struct tg_trust *trust, int64_t now,
                           struct tg_err *err)
{
    enum tg_rc rc = tg_signed_doc_verify(TG_DOC_GRANT, &g->doc, trust, TG_ROLE_GRANTER, err);
    if (rc == TG_OK)
        rc = times_check(&g->fields, now, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s", g->name);
    return rc;
}
