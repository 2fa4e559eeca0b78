/* Health, metrics, signing in, tokens, what the platform is. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "platform/handlers.h"
#include "store/access.h"
#include "store/fleet.h"

#define DAY INT64_C(86400)
#define LOGIN_DAYS 365
#define TOKEN_DAYS 90

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

enum tg_rc tg_h_health(struct tg_call *c, struct tg_err *err)
{
    static const char up[] = "{\"status\":\"ok\"}";

    if (atomic_load(&c->p->draining))
        return TG_REFUSE(c, err, TG_PROBLEM_BUSY, "the platform is stopping");
    tg_http_res_status(c->res, 200);
    return tg_http_res_body(c->res, TG_WIRE_TYPE_JSON, tg_bytes_str(up));
}

enum tg_rc tg_h_metrics(struct tg_call *c, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(TG_WIRE_BODY_MAX);
    struct tg_counts_row n;

    TG_TRY(tg_counts_get(c->db, c->arena, &n, err));
    for (unsigned i = 1; i < TG_ARRAY_LEN(c->p->requests); i++)
        TG_TRY(tg_buf_printf(&out,
                             "tensorguard_http_answers_total{status=\"%uxx\"} %" PRIuFAST64 "\n", i,
                             atomic_load(&c->p->requests[i])));
    TG_TRY(tg_buf_printf(&out,
                         "tensorguard_devices{state=\"active\"} %" PRIu64 "\n"
                         "tensorguard_devices{state=\"revoked\"} %" PRIu64 "\n"
                         "tensorguard_packages %" PRIu64 "\n"
                         "tensorguard_deployments_active %" PRIu64 "\n"
                         "tensorguard_audit_entries_total %" PRIu64 "\n",
                         n.devices, n.revoked, n.packages, n.deployments, n.audit));
    tg_http_res_status(c->res, 200);
    return tg_http_res_take(c->res, "text/plain; version=0.0.4", &out);
}

enum tg_rc tg_h_openapi(struct tg_call *c, struct tg_err *err)
{
    (void)err;
    tg_http_res_status(c->res, 200);
    return tg_http_res_body(c->res, TG_WIRE_TYPE_JSON, tg_buf_view(&c->p->openapi));
}

/* ---- tokens ---- */

static struct tg_wire_token to_wire(const struct tg_token_row *r)
{
    return (struct tg_wire_token){.id = r->id,
                                  .name = r->name,
                                  .role = r->role,
                                  .created_at = r->created_at,
                                  .expires_at = r->expires_at,
                                  .last_used = r->last_used};
}

struct new_token {
    const char *name;
    int role;
    int64_t life;
};

/* Add a lasting token inside the change; *wire holds the token itself. */
static enum tg_rc add_token(struct tg_call *c, const struct new_token *n,
                            struct tg_wire_token *wire, struct tg_err *err)
{
    struct tg_token_row row = {
        .name = n->name, .role = n->role, .created_at = c->now, .expires_at = c->now + n->life};
    const char *token;

    TG_TRY(tg_call_id(c, &row.id, err));
    TG_TRY(tg_call_token(c, "tgt_", &token, row.hash, err));
    TG_TRY(tg_token_add(c->db, &row, err));
    *wire = to_wire(&row);
    wire->token = token;
    return TG_OK;
}

enum tg_rc tg_h_login(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_login in;
    struct tg_wire_token out;
    struct tg_token_row row;
    uint8_t hash[32];

    TG_TRY(tg_call_body(c, &tg_wire_login, &in, err));
    TG_TRY(tg_sha256(tg_bytes_str(in.token), hash));
    TG_TRY(tg_db_begin(c->db, err));
    enum tg_rc rc = tg_token_by_hash(c->db, hash, c->arena, &row, err);
    if (rc == TG_E_NOTFOUND)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "unknown token");
    TG_TRY(rc);
    TG_TRY(tg_call_text(c, &c->target, err, "token:%s", row.id));
    if (!row.one_time)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED,
                         "this is no one-time token: use it as it is");
    c->refusal_matters = true;
    if (row.ended_at != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED,
                         "the one-time token was used before: make another with "
                         "tensorguard-platform --new-admin-token");
    if (c->now >= row.expires_at)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "the one-time token has expired");
    TG_TRY(tg_token_end(c->db, row.id, c->now, err));
    const struct new_token n = {in.name, TG_ACCESS_ADMIN, LOGIN_DAYS * DAY};
    TG_TRY(add_token(c, &n, &out, err));
    c->who = (struct tg_principal){.kind = TG_WHO_TOKEN, .id = out.id, .name = out.name};
    const struct tg_audit_entry entry = {.target = c->target, .detail = "one-time token used"};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    TG_AUTO(tg_freep) char *file = tg_path_join(c->p->config->data_dir, "admin.token");
    if (file != NULL)
        (void)unlink(file); /* worthless now; gone or not changes nothing */
    return tg_call_answer(c, 201, &tg_wire_token, &out, err);
}

enum tg_rc tg_h_me(struct tg_call *c, struct tg_err *err)
{
    const struct tg_wire_token out = {.id = c->who.id,
                                      .name = c->who.name,
                                      .role = (int)c->who.role,
                                      .created_at = c->who.created_at,
                                      .expires_at = c->who.expires_at};

    return tg_call_answer(c, 200, &tg_wire_token, &out, err);
}

enum tg_rc tg_h_token_create(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_token_new in;
    struct tg_wire_token out;
    const char *target, *detail;

    TG_TRY(tg_call_body(c, &tg_wire_token_new, &in, err));
    if (!tg_wire_name_ok(in.name))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "name: 1-64 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash");
    const struct new_token n = {in.name, in.role,
                                in.expires_in_s != 0 ? (int64_t)in.expires_in_s : TOKEN_DAYS * DAY};
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(add_token(c, &n, &out, err));
    TG_TRY(tg_call_text(c, &target, err, "token:%s", out.id));
    TG_TRY(tg_call_text(c, &detail, err, "%s, role %s", in.name, tg_access_names[in.role]));
    const struct tg_audit_entry entry = {.target = target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    return tg_call_answer(c, 201, &tg_wire_token, &out, err);
}

enum tg_rc tg_h_token_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_tokens out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_token_list(c->db, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_token), err));
    for (size_t i = 0; i < rows.n; i++)
        ((struct tg_wire_token *)out.items.items)[i] =
            to_wire(&((const struct tg_token_row *)rows.items)[i]);
    if (rows.n == page.limit)
        out.next = ((const struct tg_wire_token *)out.items.items)[rows.n - 1].id;
    return tg_call_answer(c, 200, &tg_wire_tokens, &out, err);
}

enum tg_rc tg_h_token_delete(struct tg_call *c, struct tg_err *err)
{
    TG_TRY(tg_call_text(c, &c->target, err, "token:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_token_end(c->db, c->params[0], c->now, err));
    const struct tg_audit_entry entry = {.target = c->target, .detail = ""};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

/* ---- the platform itself ---- */

enum tg_rc tg_h_platform(struct tg_call *c, struct tg_err *err)
{
    const struct tg_keys *k = c->p->keys;
    struct tg_wire_platform out = {
        .version = TG_VERSION,
        .name = "tensorguard-platform",
        .api_url = c->p->api_url,
        .device_url = c->p->device_url,
        .vault_public_key = tg_buf_cstr(&k->vault_pub),
        .platform_public_key = tg_buf_cstr(&k->platform_pub),
        .server_ca = tg_buf_cstr(&k->server_ca_pem),
        .device_ca = tg_buf_cstr(&k->device_ca_pem),
        .now = c->now,
    };

    memcpy(out.vault_key_id, tg_kem_pk_id(tg_kem_sk_pk(k->vault)), sizeof(out.vault_key_id));
    memcpy(out.platform_key_id, tg_sign_pk_id(tg_sign_sk_pk(k->platform)),
           sizeof(out.platform_key_id));
    return tg_call_answer(c, 200, &tg_wire_platform, &out, err);
}
