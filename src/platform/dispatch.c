/* From a request to its handler and from a failure to its problem: route, caller, rate, role,
 * handler, audit. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "platform/audit.h"
#include "platform/call.h"
#include "store/access.h"
#include "store/fleet.h"

#define ARENA_MAX (48U << 20)

/* Callers without identity share a bucket per address; the figures are those of docs/api.md. */
static const struct tg_rate_limit token_limit = {200, 400};
static const struct tg_rate_limit device_limit = {50, 200};
static const struct tg_rate_limit nobody_limit = {20, 60};

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

/* ---- who asks ---- */

static enum tg_rc authenticate_token(struct tg_call *c, struct tg_err *err)
{
    const char *token = tg_http_req_bearer(c->req);
    struct tg_token_row row;
    uint8_t hash[32];

    if (token == NULL)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "send Authorization: Bearer <token>");
    TG_TRY(tg_sha256(tg_bytes_str(token), hash));
    enum tg_rc rc = tg_token_by_hash(c->db, hash, c->arena, &row, err);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    if (rc == TG_E_NOTFOUND || row.one_time || row.ended_at != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED,
                         rc == TG_OK && row.one_time
                             ? "this is a one-time token: exchange it by POST /api/v1/login"
                             : "unknown token");
    if (c->now >= row.expires_at)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "the token has expired");
    c->who = (struct tg_principal){.kind = TG_WHO_TOKEN,
                                   .id = row.id,
                                   .name = row.name,
                                   .role = (enum tg_access)row.role,
                                   .created_at = row.created_at,
                                   .expires_at = row.expires_at};
    struct tg_beat used = {.token = true, .at = c->now};
    (void)snprintf(used.id, sizeof(used.id), "%s", row.id);
    tg_beats_add(c->p->beats, &used);
    return TG_OK;
}

static enum tg_rc authenticate_device(struct tg_call *c, struct tg_err *err)
{
    const struct tg_x509_facts *peer = c->req->peer;
    struct tg_certificate_row row;

    if (peer == NULL)
        return TG_REFUSE(c, err, TG_PROBLEM_NO_CERTIFICATE,
                         "only enrolment is open without a certificate of the device CA");
    enum tg_rc rc = tg_certificate_get(c->db, peer->serial, c->arena, &row, err);
    if (rc == TG_E_NOTFOUND || (rc == TG_OK && strcmp(row.device, peer->cn) != 0))
        return TG_REFUSE(c, err, TG_PROBLEM_CERTIFICATE, "certificate %s was not issued here",
                         peer->serial);
    TG_TRY(rc);
    c->who = (struct tg_principal){
        .kind = TG_WHO_DEVICE, .id = row.device, .name = row.name, .fleet = row.fleet};
    memcpy(c->who.kem_key_id, row.kem_key_id, sizeof(row.kem_key_id));
    if (row.state != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_REVOKED, "device %s was revoked", row.device);
    if (c->now >= row.not_after || c->now >= peer->not_after)
        return TG_REFUSE(c, err, TG_PROBLEM_CERTIFICATE, "certificate %s has expired: enrol again",
                         peer->serial);
    return TG_OK;
}

static enum tg_rc authenticate(struct tg_call *c, struct tg_err *err)
{
    if (c->route->roles == TG_MAY_ALL)
        return TG_OK;
    return (c->route->roles & TG_MAY_DEVICE) != 0 ? authenticate_device(c, err)
                                                  : authenticate_token(c, err);
}

static enum tg_rc authorise(struct tg_call *c, struct tg_err *err)
{
    if (c->who.kind == TG_WHO_TOKEN && (c->route->roles & 1U << c->who.role) == 0)
        return TG_REFUSE(c, err, TG_PROBLEM_FORBIDDEN, "a token with the role %s may not %s %s",
                         tg_access_names[c->who.role], tg_http_method_name(c->route->method),
                         c->route->pattern);
    return TG_OK;
}

static enum tg_rc check_rate(struct tg_call *c, struct tg_err *err)
{
    struct tg_rate_limit limit = nobody_limit;
    char who[80];
    uint32_t retry = 1;

    if (c->p->config->rate_limit == 0)
        return TG_OK;
    if (c->who.kind == TG_WHO_TOKEN) {
        limit = token_limit;
        limit.per_s = (uint32_t)c->p->config->rate_limit;
        limit.burst = limit.per_s * 2;
        (void)snprintf(who, sizeof(who), "t:%s", c->who.id);
    } else if (c->who.kind == TG_WHO_DEVICE) {
        limit = device_limit;
        (void)snprintf(who, sizeof(who), "d:%s", c->who.id);
    } else {
        /* without the port */
        const char *end = strrchr(c->req->client, ':');
        int n = end != NULL ? (int)(end - c->req->client) : (int)strlen(c->req->client);
        (void)snprintf(who, sizeof(who), "a:%.*s", n, c->req->client);
    }
    if (tg_rate_take(c->p->rate, who, &limit, tg_clock_mono_ns(), &retry))
        return TG_OK;
    char text[16];
    (void)snprintf(text, sizeof(text), "%u", retry);
    TG_TRY(tg_http_res_header(c->res, "Retry-After", text));
    return TG_REFUSE(c, err, TG_PROBLEM_RATE, "more than %u requests per second", limit.per_s);
}

/* ---- audit ---- */

static enum tg_rc actor_of(struct tg_call *c, const char **actor, struct tg_err *err)
{
    static const char *const kinds[] = {"anonymous", "token", "device", "platform"};

    if (c->who.kind == TG_WHO_NOBODY || c->who.kind == TG_WHO_PLATFORM) {
        *actor = kinds[c->who.kind];
        return TG_OK;
    }
    return tg_call_text(c, actor, err, "%s:%s", kinds[c->who.kind], c->who.id);
}

TG_RC tg_audit(struct tg_call *c, const struct tg_audit_entry *e, struct tg_err *err)
{
    const char *detail = e->detail;

    if (strlen(detail) > TG_WIRE_TEXT_MAX) {
        size_t n = TG_WIRE_TEXT_MAX;
        while (n != 0 && ((uint8_t)detail[n] & 0xC0) == 0x80)
            n--; /* never cut inside a character */
        detail = tg_arena_strndup(c->arena, detail, n);
        if (detail == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    struct tg_audit_row row = {
        .at = c->now,
        .name = c->who.name != NULL ? c->who.name : "",
        .address = c->req != NULL ? c->req->client : "",
        .action = e->action != NULL ? e->action : c->route->action,
        .target = e->target,
        .package = e->package,
        .outcome = e->refused ? "refused" : "ok",
        .detail = detail,
    };
    TG_TRY(actor_of(c, &row.actor, err));
    return tg_audit_append(c->db, c->arena, &row, err);
}

/* A refusal of someone known, or one that matters whoever asked, is a row of its own. Malformed
 * requests and failures of ours are not decisions. */
static void audit_refusal(struct tg_call *c, enum tg_problem problem, const char *why)
{
    unsigned status = tg_problem_row(problem)->status;
    struct tg_err err = TG_ERR_INIT;

    if (c->route == NULL || c->route->action == NULL || c->refusal_written ||
        (c->who.kind == TG_WHO_NOBODY && !c->refusal_matters))
        return;
    if (status != 403 && status != 409 && status != 412 && status != 422 && !c->refusal_matters)
        return;
    if (c->who.kind == TG_WHO_DEVICE && problem == TG_PROBLEM_REVOKED)
        return; /* it would ask forever: the log says so, the audit log has the revocation */
    const struct tg_audit_entry entry = {
        .target = c->target != NULL ? c->target : "",
        .package = c->package,
        .detail = why,
        .refused = true,
    };
    enum tg_rc rc = tg_db_begin(c->db, &err);
    if (rc == TG_OK)
        rc = tg_audit(c, &entry, &err);
    if (rc == TG_OK)
        rc = tg_db_commit(c->db, &err);
    tg_db_rollback(c->db);
    if (rc != TG_OK)
        tg_log_err("platform.audit", &err);
}

/* ---- answers to failures ---- */

static void answer_problem(struct tg_call *c, enum tg_problem problem, const char *detail)
{
    const struct tg_problem_row *row = tg_problem_row(problem);
    TG_AUTO(bufp) struct tg_buf body = TG_BUF_INIT(TG_WIRE_BODY_MAX);
    char type[64];
    struct tg_err err = TG_ERR_INIT;

    (void)snprintf(type, sizeof(type), "urn:tensorguard:problem:%s", row->slug);
    const struct tg_wire_problem p = {
        .type = type,
        .title = row->title,
        .status = row->status,
        .detail = tg_utf8_ok(tg_bytes_str(detail)) ? detail : "",
        .code = tg_rc_name(row->rc),
        .instance = c->id,
    };
    tg_http_res_status(c->res, row->status);
    enum tg_rc rc = tg_json_encode(&tg_wire_problem, &p, &body, &err);
    if (rc == TG_OK)
        rc = tg_http_res_take(c->res, TG_WIRE_TYPE_PROBLEM, &body);
    if (rc == TG_OK && row->status == 401 && (c->route->listeners & TG_LISTEN_PEOPLE) != 0)
        rc = tg_http_res_header(c->res, "WWW-Authenticate", "Bearer");
    if (rc == TG_OK && problem == TG_PROBLEM_BUSY)
        rc = tg_http_res_header(c->res, "Retry-After", "2");
    if (rc != TG_OK)
        tg_log(TG_LOG_ERROR, "platform.answer", "request=%s rc=%s", c->id, tg_rc_name(rc));
}

static void fail(struct tg_call *c, enum tg_rc rc, struct tg_err *err)
{
    bool full = tg_db_full(c->db);
    enum tg_problem problem = c->problem != TG_PROBLEM_COUNT ? c->problem : tg_problem_of_rc(rc);
    const char *detail = err->msg;

    tg_db_rollback(c->db);
    if (c->problem == TG_PROBLEM_COUNT && rc == TG_E_IO && full)
        problem = TG_PROBLEM_STORAGE;
    unsigned status = tg_problem_row(problem)->status;
    if (status >= 500) {
        tg_log(TG_LOG_ERROR, "platform.failed", "request=%s route=%s rc=%s msg=%s", c->id,
               c->route != NULL ? c->route->pattern : "-", tg_rc_name(rc), err->msg);
        if (problem == TG_PROBLEM_INTERNAL)
            detail = "see the platform's log";
    } else {
        tg_log(TG_LOG_INFO, "platform.refused", "request=%s route=%s status=%u client=%s msg=%s",
               c->id, c->route != NULL ? c->route->pattern : "-", status, c->req->client, err->msg);
    }
    audit_refusal(c, problem, err->msg);
    answer_problem(c, problem, detail);
}

static void refuse_unrouted(struct tg_call *c, enum tg_rc rc, unsigned allow)
{
    static const struct tg_route nowhere = {.pattern = "-", .listeners = 0};
    char list[64] = "";
    size_t n = 0;

    c->route = &nowhere;
    if (rc == TG_E_NOTFOUND) {
        answer_problem(c, TG_PROBLEM_NOT_FOUND, "no such path");
        return;
    }
    if ((allow & 1U << TG_HTTP_GET) != 0)
        allow |= 1U << TG_HTTP_HEAD;
    for (int m = 0; m < TG_HTTP_METHODS; m++)
        if ((allow & 1U << m) != 0)
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n != 0 ? ", " : "",
                                  tg_http_method_name((enum tg_http_method)m));
    answer_problem(c, TG_PROBLEM_METHOD, "this path takes other methods");
    if (tg_http_res_header(c->res, "Allow", list) != TG_OK)
        tg_log(TG_LOG_ERROR, "platform.answer", "request=%s", c->id);
}

static enum tg_rc serve(struct tg_call *c, struct tg_err *err)
{
    if (atomic_load(&c->p->draining) && c->route->action != NULL)
        return TG_REFUSE(c, err, TG_PROBLEM_BUSY, "the platform is stopping");
    /* The rate holds whatever comes of it: a refusal costs a look into the database, and one of the
     * role a row of the audit log. */
    enum tg_rc known = authenticate(c, err);
    TG_TRY(check_rate(c, err));
    TG_TRY(known);
    TG_TRY(authorise(c, err));
    TG_TRY(tg_http_res_header(c->res, "Cache-Control", "no-store"));
    TG_TRY(c->route->handler(c, err));
    if (tg_db_changing(c->db))
        return TG_FAIL(err, TG_E_INTERNAL, "%s left a change open", c->route->pattern);
    return TG_OK;
}

enum tg_rc tg_dispatch(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                       struct tg_err *err)
{
    const struct tg_worker *w = arg;
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_call c = {.p = w->p,
                        .db = w->db,
                        .req = req,
                        .res = res,
                        .now = req->now,
                        .problem = TG_PROBLEM_COUNT};
    uint8_t id[8];
    struct tg_route_found found;

    TG_TRY(tg_arena_new(ARENA_MAX, &arena));
    TG_TRY(tg_random(id, sizeof(id)));
    tg_hex_encode(TG_BYTES_OF(id), c.id);
    c.arena = arena;
    char *into = tg_arena_alloc(arena, strlen(req->target->path) + 1, 1);
    if (into == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    const struct tg_route_query q = {w->listener, req->method, req->target->path};
    enum tg_rc rc = tg_route_match(&q, into, &found);
    if (rc != TG_OK) {
        refuse_unrouted(&c, rc, found.allow);
        return TG_OK;
    }
    c.route = found.route;
    memcpy(c.params, found.params, sizeof(c.params));
    rc = serve(&c, err);
    if (rc != TG_OK)
        fail(&c, rc, err);
    return TG_OK;
}

uint64_t tg_dispatch_limit(void *arg, enum tg_http_method method, const char *path, void *listener)
{
    const struct tg_worker *w = arg;
    const struct tg_route_query q = {w->listener, method, path};
    struct tg_route_found found;
    char into[TG_HTTP_TARGET_MAX + 1];

    (void)listener;
    if (strlen(path) > TG_HTTP_TARGET_MAX || tg_route_match(&q, into, &found) != TG_OK)
        return TG_WIRE_BODY_MAX; /* answered 404 or 405 */
    return found.route->body_max;
}
