/* What the platform keeps, verb by verb: fleets, enrolment tokens, devices, publishers, packages,
 * grants, deployments, tokens, the audit log. Lists, single documents and removals are rows of
 * tables; only what sends a document has a function of its own. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/package.h"
#include "cli/resolve.h"
#include "cli/show.h"
#include "cli/signals.h"
#include "crypto/keyfile.h"
#include "wire/access.h"
#include "wire/deploy.h"
#include "wire/fleet.h"
#include "wire/package.h"

/* The options of every verb here; each verb's table takes the ones it has. */
struct res {
    bool json;
    const char *config;
    const char *name, *description, *grants, *role, *expires, *note, *reason, *out, *key;
    const char *fleet, *model, *package, *action, *actor; /* filters of lists */
    struct tg_opt_list models;
};

#define S_(field_, name_, req_, arg_, help_)                                                       \
    {                                                                                              \
        name_, TG_OPT_STR, offsetof(struct res, field_), req_, arg_, help_                         \
    }
#define COMMON_ CLI_OPT_JSON, CLI_OPT_CONFIG(struct res)

/* clang-format off */
static const struct tg_opt PLAIN_OPTS[] = {COMMON_, CLI_OPT_END};
static const struct tg_opt FLEET_OPTS[] = {COMMON_,
    S_(description, "description", false, "TEXT", "for people"),
    S_(grants, "grants", false, "any|author", "who may give devices access: any (author or vault; default) or author alone"),
    CLI_OPT_END};
static const struct tg_opt ENROL_OPTS[] = {COMMON_,
    S_(fleet, "fleet", true, "NAME", "the fleet that the device will belong to"),
    S_(expires, "expires", false, "SPAN", "how long it can be used: 30m, 12h, 7d (default 1h, at most 30d)"),
    S_(note, "note", false, "TEXT", "for people: which device it is for"),
    S_(out, "out", false, "FILE", "write the token there (0600) instead of showing it"),
    CLI_OPT_END};
static const struct tg_opt TOKEN_OPTS[] = {COMMON_,
    S_(name, "name", true, "NAME", "who or what will use it"),
    S_(role, "role", true, "ROLE", "admin, publisher, operator or viewer"),
    S_(expires, "expires", false, "SPAN", "how long it lasts: 12h, 90d (default 90d, at most 366d)"),
    S_(out, "out", false, "FILE", "write the token there (0600) instead of showing it"),
    CLI_OPT_END};
static const struct tg_opt DEVICES_OPTS[] = {COMMON_, S_(fleet, "fleet", false, "NAME", "of this fleet only"), CLI_OPT_END};
static const struct tg_opt REVOKE_OPTS[] = {COMMON_, S_(reason, "reason", false, "TEXT", "kept in the audit log"), CLI_OPT_END};
static const struct tg_opt PUBLISHER_OPTS[] = {COMMON_,
    S_(name, "name", true, "NAME", "who it is"),
    S_(key, "key", true, "PUB", "their signing.pub"),
    {"model", TG_OPT_LIST, offsetof(struct res, models), false, "NAME", "models they may publish and co-sign (default, or '*': every model)"},
    CLI_OPT_END};
static const struct tg_opt PACKAGES_OPTS[] = {COMMON_, S_(model, "model", false, "NAME", "of this model only"), CLI_OPT_END};
static const struct tg_opt DEPLOYMENTS_OPTS[] = {COMMON_,
    S_(fleet, "fleet", false, "NAME", "of this fleet only"),
    S_(package, "package", false, "H", "of this package only"), CLI_OPT_END};
static const struct tg_opt AUDIT_OPTS[] = {COMMON_,
    S_(package, "package", false, "H|F.tgsp", "what happened to this package"),
    S_(action, "action", false, "NAME", "of this kind only (docs/api.md)"),
    S_(actor, "actor", false, "WHO", "by this token or device only"), CLI_OPT_END};

static const struct cli_col FLEET_COLS[] = {{"name", "FLEET", 0}, {"devices", "DEVICES", 0}, {"grants", "GRANTS", 0}, {"deployment", "DEPLOYMENT", CLI_COL_SHORT}, {"created_at", "CREATED", 0}, {"description", "DESCRIPTION", 0}};
static const struct cli_col KEM_COLS[] = {{"device", "DEVICE", 0}, {"name", "NAME", 0}, {"kem_key_id", "KEM KEY ID", 0}};
static const struct cli_col ENROL_COLS[] = {{"id", "ID", 0}, {"fleet", "FLEET", 0}, {"state", "STATE", 0}, {"expires_at", "EXPIRES", 0}, {"device", "USED BY", CLI_COL_SHORT}, {"note", "NOTE", 0}};
static const struct cli_col DEVICE_COLS[] = {{"id", "DEVICE", 0}, {"name", "NAME", 0}, {"fleet", "FLEET", 0}, {"state", "STATE", 0}, {"running", "RUNNING", CLI_COL_SHORT}, {"protection", "MEMORY", 0}, {"update_state", "UPDATE", 0}, {"last_seen", "LAST SEEN", 0}};
static const struct cli_col DEVICE_LINES[] = {{"id", "device", 0}, {"name", "name", 0}, {"fleet", "fleet", 0}, {"state", "state", 0}, {"reason", "revoked because", 0}, {"running", "running (H)", 0}, {"status", "says", 0}, {"deployment", "deployment", 0}, {"update_state", "update", 0}, {"update_reason", "reason", 0}, {"enrolled_at", "enrolled", 0}, {"last_seen", "last seen", 0}, {"certificate_not_after", "certificate until", 0}, {"certificate_serial", "serial", 0}, {"kem_key_id", "KEM key id", 0}, {"agent_version", "agent", 0}, {"separation", "own worker user", 0}, {"protection", "worker's memory", 0}};
static const struct cli_col PUBLISHER_COLS[] = {{"key_id", "KEY ID", 0}, {"name", "NAME", 0}, {"models", "MODELS", CLI_COL_LIMIT}, {"created_at", "SINCE", 0}};
static const struct cli_col PACKAGE_COLS[] = {{"header_sha256", "PACKAGE (H)", CLI_COL_SHORT}, {"model.name", "MODEL", 0}, {"model.version", "VERSION", 0}, {"model.sequence", "SEQUENCE", 0}, {"blob_size", "SIZE", CLI_COL_SIZE}, {"vault", "VAULT", 0}, {"uploaded_by", "BY", 0}, {"uploaded_at", "UPLOADED", 0}};
static const struct cli_col PACKAGE_LINES[] = {{"header_sha256", "package (H)", 0}, {"model.name", "model", 0}, {"model.version", "version", 0}, {"model.sequence", "sequence", 0}, {"model.floor", "floor", 0}, {"model.format", "format", 0}, {"blob_size", "size", CLI_COL_SIZE}, {"blob_sha256", "file's SHA-256", 0}, {"created_at", "created", 0}, {"not_before", "not before", 0}, {"not_after", "not after", 0}, {"fleets", "only for fleets", 0}, {"signers", "signed by", 0}, {"recipients", "recipients", 0}, {"vault", "vault may grant", 0}, {"uploaded_at", "uploaded", 0}, {"uploaded_by", "by", 0}};
static const struct cli_col GRANT_COLS[] = {{"kem_key_id", "FOR KEY", 0}, {"granter", "BY KEY", 0}, {"vault", "VAULT", 0}, {"issued_at", "ISSUED", 0}, {"not_after", "UNTIL", 0}};
static const struct cli_col DEPLOYMENT_COLS[] = {{"id", "DEPLOYMENT", 0}, {"state", "STATE", 0}, {"model", "MODEL", 0}, {"version", "VERSION", 0}, {"fleet", "FLEET", 0}, {"device", "DEVICE", CLI_COL_SHORT}, {"counts.running", "RUNNING", 0}, {"counts.failed", "FAILED", 0}, {"created_at", "CREATED", 0}};
static const struct cli_col TOKEN_COLS[] = {{"id", "ID", 0}, {"name", "NAME", 0}, {"role", "ROLE", 0}, {"expires_at", "EXPIRES", 0}, {"last_used", "LAST USED", 0}};
static const struct cli_col AUDIT_COLS[] = {{"seq", "SEQ", 0}, {"at", "WHEN", 0}, {"actor", "WHO", 0}, {"name", "NAME", 0}, {"action", "WHAT", 0}, {"target", "TARGET", 0}, {"package", "PACKAGE", CLI_COL_SHORT}, {"outcome", "OUTCOME", 0}, {"detail", "DETAIL", 0}};
static const struct cli_col CHECK_LINES[] = {{"ok", "intact", 0}, {"entries", "entries", 0}, {"head", "last hash", 0}, {"first_bad", "first bad entry", 0}, {"detail", "detail", 0}};

/* clang-format on */

/* ---- lists, documents, removals ---- */

struct list_spec {
    const char *path; /* with an argument: path/ARG<suffix> */
    const char *suffix;
    const struct tg_jschema *page;
    struct cli_list_look look;
};

static enum tg_rc add_query(struct tg_buf *b, const char *name, const char *value, bool *any)
{
    if (value == NULL)
        return TG_OK;
    TG_TRY(tg_buf_printf(b, "%c%s=", *any ? '&' : '?', name));
    *any = true;
    return tg_http_encode(b, value);
}

static enum tg_rc list_target(const struct list_spec *s, const struct res *o, const char *arg,
                              struct tg_buf *out)
{
    bool any = false;

    TG_TRY(tg_buf_printf(out, "%s%s", s->path, arg != NULL ? "/" : ""));
    if (arg != NULL)
        TG_TRY(tg_http_encode(out, arg));
    TG_TRY(tg_buf_str(out, s->suffix != NULL ? s->suffix : ""));
    TG_TRY(add_query(out, "fleet", o->fleet, &any));
    TG_TRY(add_query(out, "model", o->model, &any));
    TG_TRY(add_query(out, "package", o->package, &any));
    TG_TRY(add_query(out, "action", o->action, &any));
    return add_query(out, "actor", o->actor, &any);
}

static enum tg_rc run_list(struct cli *c, void *opts, const struct tg_opt_list *args,
                           struct tg_err *err)
{
    struct res o = *(const struct res *)opts;
    const struct list_spec *s = c->verb->data;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf target = TG_BUF_INIT(TG_HTTP_TARGET_MAX);
    struct cli_h h = {{0}};
    struct cli_h arg = {{0}};
    struct tg_jlist list = {0};

    TG_TRY(cli_api_open(o.config, &api, err));
    if (o.package != NULL)
        TG_TRY(cli_resolve_package(&api, o.package, &h, err));
    o.package = o.package != NULL ? h.hex : NULL;
    bool of_package = args->n > 0 && strcmp(s->path, TG_API_PREFIX "/packages") == 0;
    if (of_package)
        TG_TRY(cli_resolve_package(&api, args->v[0], &arg, err));
    const char *what = of_package ? arg.hex : args->n > 0 ? args->v[0] : NULL;
    enum tg_rc rc = list_target(s, &o, what, &target);
    if (rc != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "an argument is too long");
    TG_TRY(cli_api_list(&api, tg_buf_cstr(&target), s->page, s->look.item->size, &list, err));
    cli_show_list(&c->out, &s->look, &list);
    return TG_OK;
}

struct get_spec {
    const char *path;
    const struct tg_jschema *schema;
    struct cli_cols cols;
};

static enum tg_rc run_get(struct cli *c, void *opts, const struct tg_opt_list *args,
                          struct tg_err *err)
{
    const struct res *o = opts;
    const struct get_spec *s = c->verb->data;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_freep) char *target = NULL;
    struct cli_h h = {{0}};

    TG_TRY(cli_api_open(o->config, &api, err));
    const char *arg = args->n > 0 ? args->v[0] : NULL;
    if (s->schema == &tg_wire_package) {
        TG_TRY(cli_resolve_package(&api, arg, &h, err));
        arg = h.hex;
    }
    TG_TRY(cli_api_path(s->path, arg, "", &target, err));
    void *doc = tg_arena_alloc(api.arena, 1, s->schema->size);
    if (doc == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct cli_call call = {.target = target, .answer_schema = s->schema, .answer = doc};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_show_document(&c->out, s->schema, doc, s->cols);
    return TG_OK;
}

static enum tg_rc run_delete(struct cli *c, void *opts, const struct tg_opt_list *args,
                             struct tg_err *err)
{
    const struct res *o = opts;
    const char *path = c->verb->data;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_freep) char *target = NULL;

    TG_TRY(cli_api_open(o->config, &api, err));
    TG_TRY(cli_api_path(path, args->v[0], "", &target, err));
    struct cli_call call = {.method = TG_HTTP_DELETE, .target = target};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_out_str(&c->out, "removed", "removed", args->v[0]);
    return TG_OK;
}

/* ---- what sends a document ---- */

static enum tg_rc name_index(const char *what, const char *name, const char *const *names, int *out,
                             struct tg_err *err)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0) {
            *out = i;
            return TG_OK;
        }
    return TG_FAIL(err, TG_E_USAGE, "%s: there is no '%s'", what, name);
}

/* "12h" in seconds; 0 without. */
static enum tg_rc span_of(const char *text, uint64_t *out, struct tg_err *err)
{
    int64_t t = 0;

    *out = 0;
    if (text == NULL)
        return TG_OK;
    TG_AUTO(tg_freep) char *plus = tg_asprintf("+%s", text);
    if (plus == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (cli_time_parse("", plus, 0, &t, NULL) != TG_OK || t <= 0)
        return TG_FAIL(err, TG_E_USAGE, "--expires: '%s' is no span; write 30m, 12h or 7d", text);
    *out = (uint64_t)t;
    return TG_OK;
}

static enum tg_rc run_fleet_create(struct cli *c, void *opts, const struct tg_opt_list *args,
                                   struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_fleet_new send = {.name = args->v[0], .description = o->description};
    struct tg_wire_fleet fleet = {0};

    if (o->grants != NULL)
        TG_TRY(name_index("--grants", o->grants, tg_grant_policy_names, &send.grants, err));
    TG_TRY(cli_api_open(o->config, &api, err));
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/fleets",
                            .send_schema = &tg_wire_fleet_new,
                            .send = &send,
                            .answer_schema = &tg_wire_fleet,
                            .answer = &fleet};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_show_document(&c->out, &tg_wire_fleet, &fleet, CLI_COLS(FLEET_COLS));
    return TG_OK;
}

/* Change what was said and keep the rest, if nobody else changed it meanwhile. */
static enum tg_rc run_fleet_set(struct cli *c, void *opts, const struct tg_opt_list *args,
                                struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_freep) char *target = NULL;
    struct tg_wire_fleet fleet = {0};
    char etag[TG_ETAG_MAX] = {0};

    TG_TRY(cli_api_open(o->config, &api, err));
    TG_TRY(cli_api_path(TG_API_PREFIX "/fleets", args->v[0], "", &target, err));
    struct cli_call get = {
        .target = target, .answer_schema = &tg_wire_fleet, .answer = &fleet, .etag_out = etag};
    TG_TRY(cli_api_call(&api, &get, err));
    struct tg_wire_fleet_new send = {.name = fleet.name,
                                     .description = o->description != NULL ? o->description
                                                                           : fleet.description,
                                     .grants = fleet.grants};
    if (o->grants != NULL)
        TG_TRY(name_index("--grants", o->grants, tg_grant_policy_names, &send.grants, err));
    struct cli_call put = {.method = TG_HTTP_PUT,
                           .target = target,
                           .if_match = etag,
                           .send_schema = &tg_wire_fleet_new,
                           .send = &send,
                           .answer_schema = &tg_wire_fleet,
                           .answer = &fleet};
    TG_TRY(cli_api_call(&api, &put, err));
    cli_show_document(&c->out, &tg_wire_fleet, &fleet, CLI_COLS(FLEET_COLS));
    return TG_OK;
}

/* A token is shown once: on stdout, or in a file of its own. */
static enum tg_rc hand_over(struct cli *c, const struct res *o, const char *token,
                            struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf line = TG_BUF_SECRET(1024);

    if (token == NULL)
        return TG_FAIL(err, TG_E_FORMAT, "the platform's answer holds no token");
    if (o->out == NULL) {
        cli_out_str(&c->out, "token", "token", token);
        cli_out_note(&c->out, "\nIt is shown this once.");
        return TG_OK;
    }
    if (tg_buf_printf(&line, "%s\n", token) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_file_write(o->out, tg_buf_view(&line), 0600, true, err));
    cli_out_str(&c->out, "token_file", "token in", o->out);
    return TG_OK;
}

static enum tg_rc run_enrol_create(struct cli *c, void *opts, const struct tg_opt_list *args,
                                   struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_enrolment_token_new send = {.fleet = o->fleet, .note = o->note};
    struct tg_wire_enrolment_token got = {0};

    (void)args;
    TG_TRY(span_of(o->expires, &send.expires_in_s, err));
    TG_TRY(cli_api_open(o->config, &api, err));
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/enrolment-tokens",
                            .send_schema = &tg_wire_enrolment_token_new,
                            .send = &send,
                            .answer_schema = &tg_wire_enrolment_token,
                            .answer = &got};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_out_str(&c->out, "id", "id", got.id);
    cli_out_str(&c->out, "fleet", "fleet", got.fleet);
    cli_out_time(&c->out, "expires_at", "expires", got.expires_at);
    return hand_over(c, o, got.token, err);
}

static enum tg_rc run_token_create(struct cli *c, void *opts, const struct tg_opt_list *args,
                                   struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_token_new send = {.name = o->name};
    struct tg_wire_token got = {0};

    (void)args;
    TG_TRY(name_index("--role", o->role, tg_access_names, &send.role, err));
    TG_TRY(span_of(o->expires, &send.expires_in_s, err));
    TG_TRY(cli_api_open(o->config, &api, err));
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/tokens",
                            .send_schema = &tg_wire_token_new,
                            .send = &send,
                            .answer_schema = &tg_wire_token,
                            .answer = &got};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_out_str(&c->out, "id", "id", got.id);
    cli_out_str(&c->out, "name", "name", got.name);
    cli_out_str(&c->out, "role", "role", tg_access_names[got.role]);
    cli_out_time(&c->out, "expires_at", "expires", got.expires_at);
    return hand_over(c, o, got.token, err);
}

static enum tg_rc run_device_revoke(struct cli *c, void *opts, const struct tg_opt_list *args,
                                    struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_freep) char *target = NULL;
    struct tg_wire_revoke send = {.reason = o->reason};
    struct tg_wire_device device = {0};

    TG_TRY(cli_api_open(o->config, &api, err));
    TG_TRY(cli_api_path(TG_API_PREFIX "/devices", args->v[0], "/revoke", &target, err));
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = target,
                            .send_schema = &tg_wire_revoke,
                            .send = &send,
                            .answer_schema = &tg_wire_device,
                            .answer = &device};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_show_document(&c->out, &tg_wire_device, &device, CLI_COLS(DEVICE_LINES));
    return TG_OK;
}

/* Every model is what --model '*' asks for, and what nothing said means: then it is told what that
 * allows. */
static enum tg_rc publisher_models(const struct res *o, struct tg_jlist *out, struct tg_err *err)
{
    bool every = false;

    for (size_t i = 0; i < o->models.n; i++) {
        if (o->models.v[i][0] == '\0')
            return TG_FAIL(err, TG_E_USAGE,
                           "--model: the name of a model is empty: give the one in its packages' "
                           "manifest, or --model '*' for every model");
        every |= strcmp(o->models.v[i], "*") == 0;
    }
    if (every && o->models.n > 1)
        return TG_FAIL(err, TG_E_USAGE,
                       "--model '*' is every model: give it alone, or only names without it");
    *out = every ? (struct tg_jlist){0} : (struct tg_jlist){o->models.v, o->models.n};
    return TG_OK;
}

static void warn_unlimited(const struct res *o)
{
    if (o->models.n == 0)
        (void)fprintf(stderr,
                      "tensorguard publisher: %s may publish every model, and co-sign other "
                      "publishers' packages as one of their signers: limit them by --model NAME "
                      "(remove, then add), or say --model '*' if it is meant\n",
                      o->name);
}

static enum tg_rc run_publisher_add(struct cli *c, void *opts, const struct tg_opt_list *args,
                                    struct tg_err *err)
{
    const struct res *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    struct tg_wire_publisher got = {0};

    (void)args;
    TG_TRY(tg_file_read(o->key, &pem, err));
    TG_TRY(tg_sign_pk_from_pem(tg_buf_view(&pem), o->key, &pk, err)); /* a private key stays here */
    struct tg_wire_publisher_new send = {.name = o->name, .public_key = tg_buf_cstr(&pem)};
    TG_TRY(publisher_models(o, &send.models, err));
    TG_TRY(cli_api_open(o->config, &api, err));
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/publishers",
                            .send_schema = &tg_wire_publisher_new,
                            .send = &send,
                            .answer_schema = &tg_wire_publisher,
                            .answer = &got};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_show_document(&c->out, &tg_wire_publisher, &got, CLI_COLS(PUBLISHER_COLS));
    warn_unlimited(o);
    return TG_OK;
}

/* ---- the table ---- */

/* clang-format off */
#define LIST_SPEC(name_, path_, suffix_, key_, wire_, item_, cols_, empty_)                        \
    static const struct list_spec name_ = {.path = TG_API_PREFIX path_,                            \
                                           .suffix = suffix_,                                      \
                                           .page = &wire_,                                         \
                                           .look = {.key = key_,                                   \
                                                    .item = &item_,                                \
                                                    .cols = {.v = cols_, .n = TG_ARRAY_LEN(cols_)},\
                                                    .empty = empty_}}
#define GET_SPEC(name_, path_, wire_, cols_)                                                       \
    static const struct get_spec name_ = {.path = TG_API_PREFIX path_,                             \
                                          .schema = &wire_,                                        \
                                          .cols = {.v = cols_, .n = TG_ARRAY_LEN(cols_)}}
/* clang-format on */

LIST_SPEC(FLEETS, "/fleets", NULL, "fleets", tg_wire_fleets, tg_wire_fleet, FLEET_COLS,
          "There are no fleets.");
LIST_SPEC(KEM_KEYS, "/fleets", "/kem-keys", "kem_keys", tg_wire_kem_keys, tg_wire_kem_key, KEM_COLS,
          "The fleet has no active devices.");
LIST_SPEC(ENROLMENTS, "/enrolment-tokens", NULL, "enrolment_tokens", tg_wire_enrolment_tokens,
          tg_wire_enrolment_token, ENROL_COLS, "There are no enrolment tokens.");
LIST_SPEC(DEVICES, "/devices", NULL, "devices", tg_wire_devices, tg_wire_device, DEVICE_COLS,
          "There are no devices.");
LIST_SPEC(PUBLISHERS, "/publishers", NULL, "publishers", tg_wire_publishers, tg_wire_publisher,
          PUBLISHER_COLS, "There are no publishers: no package will be accepted.");
LIST_SPEC(PACKAGES, "/packages", NULL, "packages", tg_wire_packages, tg_wire_package, PACKAGE_COLS,
          "There are no packages.");
LIST_SPEC(GRANTS, "/packages", "/grants", "grants", tg_wire_grants, tg_wire_grant, GRANT_COLS,
          "There are no grants for this package.");
LIST_SPEC(DEPLOYMENTS, "/deployments", NULL, "deployments", tg_wire_deployments, tg_wire_deployment,
          DEPLOYMENT_COLS, "There are no deployments.");
LIST_SPEC(TOKENS, "/tokens", NULL, "tokens", tg_wire_tokens, tg_wire_token, TOKEN_COLS,
          "There are no tokens.");
LIST_SPEC(AUDIT, "/audit", NULL, "audit", tg_wire_audit, tg_wire_audit_row, AUDIT_COLS,
          "There are no such entries.");
GET_SPEC(FLEET, "/fleets", tg_wire_fleet, FLEET_COLS);
GET_SPEC(DEVICE, "/devices", tg_wire_device, DEVICE_LINES);
GET_SPEC(PACKAGE, "/packages", tg_wire_package, PACKAGE_LINES);
GET_SPEC(AUDIT_CHECK, "/audit/verify", tg_wire_audit_check, CHECK_LINES);

/* clang-format off */
#define VERB(name_, args_, n_, opts_, run_, data_, summary_)                                       \
    {.cmd = {.name = name_,                                                                        \
             .args = args_,                                                                        \
             .summary = summary_,                                                                  \
             .opts = opts_,                                                                        \
             .args_min = n_,                                                                       \
             .args_max = n_},                                                                      \
     .opts_size = sizeof(struct res),                                                              \
     .run = run_,                                                                                  \
     .data = data_}

const struct cli_verb cli_audit =
    VERB("audit", "", 0, AUDIT_OPTS, run_list, &AUDIT, "show who did what, when (the platform's audit log)");

const struct cli_verb cli_resource_verbs[] = {
    VERB("audit verify", "", 0, PLAIN_OPTS, run_get, &AUDIT_CHECK, "let the platform check its audit log's hash chain"),
    VERB("fleet create", "NAME", 1, FLEET_OPTS, run_fleet_create, NULL, "make a fleet"),
    VERB("fleet list", "", 0, PLAIN_OPTS, run_list, &FLEETS, "list fleets"),
    VERB("fleet show", "NAME", 1, PLAIN_OPTS, run_get, &FLEET, "show one fleet"),
    VERB("fleet set", "NAME", 1, FLEET_OPTS, run_fleet_set, NULL, "change a fleet's description or who makes its grants"),
    VERB("fleet keys", "NAME", 1, PLAIN_OPTS, run_list, &KEM_KEYS, "list the KEM key ids the platform has for a fleet's devices"),
    VERB("enrolment-token create", "", 0, ENROL_OPTS, run_enrol_create, NULL, "make a one-time token with which one device can enrol"),
    VERB("enrolment-token list", "", 0, PLAIN_OPTS, run_list, &ENROLMENTS, "list enrolment tokens"),
    VERB("enrolment-token delete", "ID", 1, PLAIN_OPTS, run_delete, TG_API_PREFIX "/enrolment-tokens", "withdraw an enrolment token"),
    VERB("device list", "", 0, DEVICES_OPTS, run_list, &DEVICES, "list devices and what they run"),
    VERB("device show", "ID", 1, PLAIN_OPTS, run_get, &DEVICE, "show one device"),
    VERB("device revoke", "ID", 1, REVOKE_OPTS, run_device_revoke, NULL, "refuse a device from its next request on"),
    VERB("publisher add", "", 0, PUBLISHER_OPTS, run_publisher_add, NULL, "accept packages signed by this author"),
    VERB("publisher list", "", 0, PLAIN_OPTS, run_list, &PUBLISHERS, "list the authors whose packages are accepted"),
    VERB("publisher remove", "KEY-ID", 1, PLAIN_OPTS, run_delete, TG_API_PREFIX "/publishers", "accept no further packages of an author"),
    VERB("package list", "", 0, PACKAGES_OPTS, run_list, &PACKAGES, "list packages"),
    VERB("package show", "H|F.tgsp", 1, PLAIN_OPTS, run_get, &PACKAGE, "show one package"),
    VERB("package grants", "H|F.tgsp", 1, PLAIN_OPTS, run_list, &GRANTS, "list who was given access to a package by grants"),
    VERB("deployment list", "", 0, DEPLOYMENTS_OPTS, run_list, &DEPLOYMENTS, "list deployments"),
    VERB("deployment cancel", "ID", 1, PLAIN_OPTS, run_delete, TG_API_PREFIX "/deployments", "stop offering a deployment"),
    VERB("token create", "", 0, TOKEN_OPTS, run_token_create, NULL, "make an API token"),
    VERB("token list", "", 0, PLAIN_OPTS, run_list, &TOKENS, "list API tokens"),
    VERB("token delete", "ID", 1, PLAIN_OPTS, run_delete, TG_API_PREFIX "/tokens", "delete an API token"),
    {.cmd = {.name = NULL}},
};
/* clang-format on */
