#include "agent/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/keyfile.h"
#include "tgsp/grant.h"
#include "tgsp/package.h"
#include "wire/package.h"

static TG_RC read_file(const char *path, size_t max, struct tg_buf *buf, struct tg_err *err)
{
    *buf = TG_BUF_INIT(max);
    return tg_file_read(path, buf, err);
}

TG_RC tg_policy_trust_load(const struct tg_state *s, struct tg_trust **out, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text;
    TG_TRY(tg_state_path(s, path, err, "trust.tgtrust"));
    enum tg_rc rc = read_file(path, TG_TRUST_MAX, &text, err);
    if (rc == TG_OK)
        rc = tg_trust_load(tg_buf_view(&text), path, out, err);
    tg_buf_done(&text);
    return rc;
}

TG_RC tg_policy_rollback_load(const struct tg_state *s, struct tg_rollback **out,
                              struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text;
    TG_TRY(tg_state_path(s, path, err, "rollback.json"));
    enum tg_rc rc = read_file(path, TG_ROLLBACK_MAX, &text, err);
    if (rc == TG_E_NOTFOUND)
        rc = tg_rollback_new(out);
    else if (rc == TG_OK)
        rc = tg_rollback_decode(tg_buf_view(&text), path, out, err);
    tg_buf_done(&text);
    return rc;
}

TG_RC tg_policy_rollback_save(const struct tg_state *s, const struct tg_rollback *r,
                              struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "rollback.json"));
    struct tg_buf text = TG_BUF_INIT(TG_ROLLBACK_MAX);
    enum tg_rc rc = tg_rollback_encode(r, &text, err);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&text), 0600, true, err);
    tg_buf_done(&text);
    return rc;
}

/* ---- deployments ---- */

static TG_RC check_deployment(struct tg_deployment *d, const struct tg_trust *trust,
                              const struct tg_settings *set, const struct tg_held *pkg, int64_t now,
                              struct tg_err *err)
{
    TG_TRY(tg_deployment_verify(d, trust, now, set->fleet, set->device_id, err));
    const struct tg_deployment_fields *f = tg_deployment_fields_get(d);
    if (!tg_mem_eq(f->header_sha256, pkg->h, sizeof pkg->h))
        return TG_FAIL(err, TG_E_AUTH, "signed deployment: it names another package");
    if (strcmp(f->deployment_id, pkg->deployment_id) != 0)
        return TG_FAIL(err, TG_E_AUTH, "signed deployment: it is '%s', not '%s'", f->deployment_id,
                       pkg->deployment_id);
    return TG_OK;
}

TG_RC tg_policy_deployment(const struct tg_state *s, const struct tg_settings *set,
                           struct tg_bytes text, const struct tg_held *pkg, int64_t now,
                           struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_deployment_freep) struct tg_deployment *d = NULL;
    TG_TRY(tg_policy_trust_load(s, &trust, err));
    TG_TRY(tg_deployment_decode(text, "signed deployment", &d, err));
    return check_deployment(d, trust, set, pkg, now, err);
}

/* The stored deployment of a package; NULL when there is none or it does not count (any more): then
 * it allows nothing. */
static struct tg_deployment *stored_deployment(const struct tg_state *s,
                                               const struct tg_settings *set,
                                               const struct tg_trust *trust,
                                               const struct tg_held *pkg, int64_t now)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text;
    tg_state_deployment(s, pkg->h, path);
    TG_AUTO(tg_deployment_freep) struct tg_deployment *d = NULL;
    enum tg_rc rc = read_file(path, TG_TGSP_DOC_MAX, &text, NULL);
    if (rc == TG_OK)
        rc = tg_deployment_decode(tg_buf_view(&text), path, &d, NULL);
    tg_buf_done(&text);
    if (rc != TG_OK || check_deployment(d, trust, set, pkg, now, NULL) != TG_OK)
        return NULL;
    return tg_steal(&d);
}

/* ---- packages ---- */

/* A package opened and verified, with what it borrows. */
struct opened {
    int fd;
    struct tg_src src;
    struct tg_tgsp *p;
};

static void opened_done(struct opened *o)
{
    tg_tgsp_free(o->p);
    tg_fd_close(o->fd);
}

static TG_RC open_file(struct opened *o, const char *path, struct tg_err *err)
{
    o->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (o->fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", path);
    return tg_src_fd(&o->src, o->fd, "package", err);
}

/* From o->src. */
static TG_RC open_verified(struct opened *o, const struct tg_trust *trust,
                           const struct tg_held *pkg, struct tg_err *err)
{
    TG_TRY(tg_tgsp_open(&o->src, &o->p, err));
    if (!tg_mem_eq(tg_tgsp_h(o->p), pkg->h, sizeof pkg->h))
        return TG_FAIL(err, TG_E_AUTH, "package: it is not the one the deployment names");
    return tg_tgsp_verify(o->p, trust, err);
}

TG_RC tg_policy_admit(const struct tg_state *s, const struct tg_settings *set, const char *path,
                      struct tg_held *pkg, int64_t now, struct tg_err *err)
{
    TG_AUTO(opened_done) struct opened o = {.fd = -1};
    TG_TRY(open_file(&o, path, err));
    return tg_policy_admit_src(s, set, &o.src, pkg, now, err);
}

/* From o->src. */
static TG_RC admit(const struct tg_state *s, const struct tg_settings *set, struct opened *o,
                   struct tg_held *pkg, int64_t now, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    TG_AUTO(tg_deployment_freep) struct tg_deployment *deployment = NULL;
    TG_TRY(tg_policy_trust_load(s, &trust, err));
    TG_TRY(tg_policy_rollback_load(s, &record, err));
    TG_TRY(open_verified(o, trust, pkg, err));
    deployment = stored_deployment(s, set, trust, pkg, now);
    struct tg_tgsp_policy policy = {.check_time = true,
                                    .now = now,
                                    .fleet = set->fleet,
                                    .agent_version = TG_VERSION,
                                    .record = record,
                                    .deployment = deployment,
                                    .trust = trust};
    TG_TRY(tg_tgsp_admit(o->p, &policy, err));
    const struct tg_tgsp_model *m = &tg_tgsp_manifest_get(o->p)->model;
    TG_TEXT_SET(pkg->model, m->name);
    TG_TEXT_SET(pkg->version, m->version);
    pkg->sequence = m->sequence;
    pkg->floor = m->floor;
    return TG_OK;
}

TG_RC tg_policy_admit_src(const struct tg_state *s, const struct tg_settings *set,
                          const struct tg_src *src, struct tg_held *pkg, int64_t now,
                          struct tg_err *err)
{
    TG_AUTO(opened_done) struct opened o = {.fd = -1, .src = *src};
    return admit(s, set, &o, pkg, now, err);
}

TG_RC tg_policy_still_trusted(const struct tg_state *s, const struct tg_held *pkg,
                              struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(opened_done) struct opened o = {.fd = -1};
    TG_TRY(tg_policy_trust_load(s, &trust, err));
    tg_state_package(s, pkg->h, path);
    TG_TRY(open_file(&o, path, err));
    return open_verified(&o, trust, pkg, err);
}

TG_RC tg_policy_grant(const struct tg_state *s, const struct tg_held *pkg, struct tg_bytes text,
                      int64_t now, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *own = NULL;
    TG_TRY(tg_policy_trust_load(s, &trust, err));
    TG_TRY(tg_state_path(s, path, err, "kem.pub"));
    TG_TRY(tg_kem_pk_load_file(path, &own, err));
    TG_TRY(tg_grant_decode(text, "grant", &g, err));
    const struct tg_grant_fields *f = tg_grant_fields_get(g);
    if (!tg_mem_eq(f->header_sha256, pkg->h, sizeof pkg->h))
        return TG_FAIL(err, TG_E_DENIED, "grant: it is for another package");
    if (!tg_mem_eq(f->recipient.id, tg_kem_pk_id(own), TG_KEM_ID_LEN))
        return TG_FAIL(err, TG_E_NOTFORKEY, "grant: it is for another device's key");
    return tg_grant_verify(g, trust, now, err); /* its times last */
}

TG_RC tg_policy_grant_kept(const struct tg_state *s, const struct tg_held *pkg, bool later,
                           int64_t now, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text;
    if (later)
        tg_state_grant_new(s, pkg->h, path);
    else
        tg_state_grant(s, pkg->h, path);
    enum tg_rc rc = read_file(path, TG_WIRE_GRANT_MAX, &text, err);
    if (rc == TG_OK)
        rc = tg_policy_grant(s, pkg, tg_buf_view(&text), now, err);
    tg_buf_done(&text);
    return rc;
}

bool tg_policy_grant_does(const struct tg_state *s, const struct tg_held *pkg, int64_t now)
{
    return tg_policy_grant_kept(s, pkg, false, now, NULL) == TG_OK ||
           tg_policy_grant_kept(s, pkg, true, now, NULL) == TG_OK;
}

static TG_RC has_block(const struct tg_state *s, const struct tg_tgsp *p, bool *yes)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *own = NULL;
    const struct tg_jlist *list = &tg_tgsp_recipients_get(p)->recipients;
    const struct tg_tgsp_recipient *r = list->items;
    TG_TRY(tg_state_path(s, path, NULL, "kem.pub"));
    TG_TRY(tg_kem_pk_load_file(path, &own, NULL));
    *yes = false;
    for (size_t i = 0; i < list->n && !*yes; i++)
        *yes = tg_mem_eq(r[i].id, tg_kem_pk_id(own), TG_KEM_ID_LEN);
    return TG_OK;
}

/* The package itself may run now, and it takes a grant to open it. */
static bool takes_grant(const struct tg_state *s, const struct tg_settings *set,
                        const struct tg_held *pkg, int64_t now)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_held copy = *pkg;
    bool own = true;
    TG_AUTO(opened_done) struct opened o = {.fd = -1};
    tg_state_package(s, pkg->h, path);
    return open_file(&o, path, NULL) == TG_OK && admit(s, set, &o, &copy, now, NULL) == TG_OK &&
           has_block(s, o.p, &own) == TG_OK && !own;
}

bool tg_policy_grant_lacks(const struct tg_state *s, const struct tg_settings *set,
                           const struct tg_held *pkg, int64_t now, struct tg_err *err)
{
    if (!takes_grant(s, set, pkg, now))
        return false;
    enum tg_rc rc = tg_policy_grant_kept(s, pkg, false, now, err);
    if (rc == TG_E_NOTFOUND)
        tg_err_set(err, rc, "grant: there is none on this device");
    return rc != TG_OK && rc != TG_E_NOMEM && rc != TG_E_IO && rc != TG_E_INTERNAL;
}

bool tg_policy_grant_wanted(const struct tg_state *s, const struct tg_settings *set,
                            const struct tg_held *pkg, int64_t now, struct tg_err *err)
{
    return tg_policy_grant_kept(s, pkg, true, now, NULL) != TG_OK &&
           tg_policy_grant_lacks(s, set, pkg, now, err);
}

TG_RC tg_policy_accept(const struct tg_state *s, const struct tg_held *pkg, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    TG_TRY(tg_policy_trust_load(s, &trust, err));
    TG_TRY(tg_policy_rollback_load(s, &record, err));
    struct tg_rollback_query q = {.model = pkg->model,
                                  .sequence = pkg->sequence,
                                  .floor = pkg->floor,
                                  .header_sha256 = pkg->h,
                                  .reset_count = tg_trust_reset_count(trust, pkg->model),
                                  .deployment_allows = true /* decided before it was started */};
    const struct tg_rollback_entry *e = tg_rollback_find(record, pkg->model);
    if (e && tg_mem_eq(e->current, pkg->h, sizeof pkg->h) && e->reset_count == q.reset_count)
        return TG_OK; /* a restart of what served last: nothing new to remember */
    TG_TRY(tg_rollback_accept(record, &q, err));
    return tg_policy_rollback_save(s, record, err);
}

/* ---- the trust store ---- */

TG_RC tg_policy_trust_replace(const struct tg_state *s, const char *path, uint64_t *version,
                              struct tg_err *err)
{
    char own[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, own, err, "trust.tgtrust"));
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *next = NULL;
    TG_TRY(tg_policy_trust_load(s, &cur, err));
    struct tg_buf text;
    enum tg_rc rc = read_file(path, TG_TRUST_MAX, &text, err);
    if (rc == TG_OK)
        rc = tg_trust_load(tg_buf_view(&text), path, &next, err);
    if (rc == TG_OK)
        rc = tg_trust_succeeds(cur, next, err);
    if (rc == TG_OK)
        rc = tg_file_write(own, tg_buf_view(&text), 0644, true, err);
    tg_buf_done(&text);
    TG_TRY(rc);
    *version = tg_trust_version(next);
    return TG_OK;
}
