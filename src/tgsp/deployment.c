#include "tgsp/deployment.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tgsp/format_internal.h"
#include "tgsp/signed_doc_internal.h"

#define ARENA_MAX (UINT32_C(1) << 20)
#define CLOCK_SLACK 300 /* seconds that a device's clock may be behind the platform's */

struct tg_deployment {
    struct tg_arena *arena;
    struct tg_deployment_fields fields;
    struct tg_signed_doc doc;
    bool verified;
    char *name;
};

struct doc {
    const char *tgsp_deployment;
    struct tg_deployment_fields f;
    struct tg_jlist crit;
};

#define F(m) offsetof(struct doc, f.m)
#define ROW(key, kind, fl, lo, hi)                                                                 \
    {                                                                                              \
        .name = #key, .type = (kind), .flags = (fl), .off = F(key), .has_off = SIZE_MAX,           \
        .min = (lo), .max = (hi), .sub = {                                                         \
            NULL                                                                                   \
        }                                                                                          \
    }

static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, tgsp_deployment, 1, 16, TG_J_REQ),
    ROW(deployment_id, TG_JT_STR, TG_J_REQ, 1, TG_DEPLOYMENT_ID_MAX),
    ROW(header_sha256, TG_JT_FIXED, TG_J_REQ, 0, TG_TGSP_H_LEN),
    ROW(fleet, TG_JT_STR, TG_J_REQ, 1, 256),
    ROW(device, TG_JT_STR, TG_J_SKIP0, 1, 256),
    ROW(allow_rollback, TG_JT_BOOL, TG_J_REQ, 0, 0),
    ROW(issued_at, TG_JT_TIME, TG_J_REQ, 0, 0),
    ROW(not_after, TG_JT_TIME, TG_J_REQ, 0, 0),
    TG_J_STRS(struct doc, crit, 0, TG_TGSP_CRIT_MAX, TG_J_REQ),
};

static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_IGNORE_UNKNOWN);

enum tg_rc tg_deployment_make(const struct tg_deployment_fields *f, const struct tg_sign_sk *signer,
                              struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(TG_TGSP_DOC_MAX / 2);
    struct doc d = {
        "1.0", *f, {NULL, 0}
    };
    if (f->not_after <= f->issued_at)
        return TG_FAIL(err, TG_E_USAGE, "deployment: not_after must be later than issued_at");
    TG_TRY(tg_json_encode(&doc_schema, &d, &body, err));
    struct tg_signers by = {NULL, &signer, 1};
    return tg_signed_doc_make(TG_DOC_DEPLOYMENT, tg_buf_view(&body), &by, out, err);
}

static enum tg_rc body_take(struct tg_deployment *t, struct tg_err *err)
{
    static const char *const roots[] = {"deployment.", NULL};
    struct doc d;
    memset(&d, 0, sizeof d);
    TG_TRY(tg_json_decode(&doc_schema, t->doc.body, "deployment", t->arena, &d, err));
    if (strcmp(d.tgsp_deployment, "1.0") != 0)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "deployment.tgsp_deployment: '%.16s' is not known to this reader",
                       d.tgsp_deployment);
    TG_TRY(tg_crit_roots(&d.crit, roots, "deployment.crit", err));
    TG_TRY(tg_crit_check(&d.crit, "deployment.", &doc_schema, t->doc.body, err));
    t->fields = d.f;
    return TG_OK;
}

enum tg_rc tg_deployment_decode(struct tg_bytes text, const char *name, struct tg_deployment **out,
                                struct tg_err *err)
{
    TG_AUTO(tg_deployment_freep) struct tg_deployment *d = tg_calloc(1, sizeof *d);
    enum tg_rc rc = d ? tg_arena_new(ARENA_MAX, &d->arena) : TG_E_NOMEM;
    if (rc == TG_OK && !(d->name = tg_arena_strndup(d->arena, name, strlen(name))))
        rc = TG_E_NOMEM;
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: out of memory", name);
    TG_TRY(tg_signed_doc_parse(TG_DOC_DEPLOYMENT, text, name, d->arena, &d->doc, err));
    rc = body_take(d, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", name);
        return rc;
    }
    *out = tg_steal(&d);
    return TG_OK;
}

void tg_deployment_free(struct tg_deployment *d)
{
    if (!d)
        return;
    tg_arena_free(d->arena);
    tg_free(d);
}

const struct tg_deployment_fields *tg_deployment_fields_get(const struct tg_deployment *d)
{
    return &d->fields;
}

bool tg_deployment_verified(const struct tg_deployment *d)
{
    return d->verified;
}

static enum tg_rc times_check(const struct tg_deployment_fields *f, int64_t now, struct tg_err *err)
{
    char text[TG_TIME_TEXT] = "?";
    if (now < f->issued_at - CLOCK_SLACK) {
        (void)!tg_time_format(f->issued_at, text);
        return TG_FAIL(
            err, TG_E_EXPIRED,
            "deployment: issued at %s, which is in the future; check this device's clock", text);
    }
    if (now >= f->not_after) {
        (void)!tg_time_format(f->not_after, text);
        return TG_FAIL(err, TG_E_EXPIRED, "deployment: expired at %s; deploy again", text);
    }
    return TG_OK;
}

static enum tg_rc place_check(const struct tg_deployment_fields *f, const char *fleet,
                              const char *device, struct tg_err *err)
{
    if (strcmp(f->fleet, fleet) != 0)
        return TG_FAIL(err, TG_E_DENIED, "deployment: for fleet '%.64s', not '%.64s'", f->fleet,
                       fleet);
    if (f->device && (!device || strcmp(f->device, device) != 0))
        return TG_FAIL(err, TG_E_DENIED, "deployment: for device '%.64s', not this one", f->device);
    return TG_OK;
}

enum tg_rc tg_deployment_verify(struct tg_deployment *d, const struct tg_trust *trust, int64_t now,
                                const char *fleet, const char *device, struct tg_err *err)
{
    d->verified = false;
    enum tg_rc rc = tg_signed_doc_verify(TG_DOC_DEPLOYMENT, &d->doc, trust, TG_ROLE_PLATFORM, err);
    if (rc == TG_OK)
        rc = times_check(&d->fields, now, err);
    if (rc == TG_OK)
        rc = place_check(&d->fields, fleet, device, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", d->name);
        return rc;
    }
    d->verified = true;
    return TG_OK;
}
