#include "moai/service.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "codec/json.h"
#include "crypto/hash.h"
#include "moai/infer.h"
#include "tensor/oip.h"

/* ---- which route ---- */

static bool segment(const char **path, struct tg_bytes *out)
{
    const char *from = *path, *end;

    if (*from != '/' || from[1] == '\0')
        return false;
    end = strchr(from + 1, '/');
    if (end == NULL)
        end = from + strlen(from);
    *out = tg_bytes_make(from + 1, (size_t)(end - from) - 1);
    *path = end;
    return out->n > 0;
}

static bool is(struct tg_bytes s, const char *word)
{
    return tg_bytes_eq(s, tg_bytes_str(word));
}

/* What stands behind the model's name and version. */
static enum tg_route last_segment(const char *path)
{
    struct tg_bytes s;

    if (*path == '\0')
        return TG_ROUTE_MODEL;
    if (!segment(&path, &s) || *path != '\0')
        return TG_ROUTE_NONE;
    return is(s, "ready")   ? TG_ROUTE_MODEL_READY
           : is(s, "infer") ? TG_ROUTE_MODEL_INFER
                            : TG_ROUTE_NONE;
}

static struct tg_route_match parse_model(const char *path)
{
    struct tg_route_match m = {.route = TG_ROUTE_NONE};
    struct tg_bytes word;
    const char *after;

    if (!segment(&path, &m.model))
        return m;
    after = path;
    if (segment(&after, &word) && is(word, "versions")) {
        if (!segment(&after, &m.version))
            return m;
        path = after;
    }
    m.route = last_segment(path);
    return m;
}

struct tg_route_match tg_route_parse(const char *path)
{
    static const struct {
        const char *path;
        enum tg_route route;
    } fixed[] = {
        {"/v2",              TG_ROUTE_SERVER },
        {"/v2/",             TG_ROUTE_SERVER },
        {"/v2/health/live",  TG_ROUTE_LIVE   },
        {"/v2/health/ready", TG_ROUTE_READY  },
        {"/metrics",         TG_ROUTE_METRICS},
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(fixed); i++)
        if (strcmp(path, fixed[i].path) == 0)
            return (struct tg_route_match){.route = fixed[i].route};
    if (strncmp(path, "/v2/models/", 11) == 0)
        return parse_model(path + 10);
    return (struct tg_route_match){.route = TG_ROUTE_NONE};
}

/* ---- answers ---- */

static unsigned status_of(enum tg_rc rc)
{
    return rc == TG_E_FORMAT || rc == TG_E_USAGE || rc == TG_E_UNSUPPORTED
               ? 400
               : (unsigned)tg_rc_http(rc);
}

struct exchange {
    struct tg_service *s;
    const struct tg_http_req *req;
    struct tg_http_res *res;
    struct tg_route_match match;
    bool binary; /* raw tensors follow the answer's JSON */
};

static enum tg_rc get_server(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    (void)x;
    (void)err;
    return tg_buf_str(out, "{\"name\":\"tensorguard-moai\",\"version\":\"" TG_VERSION
                           "\",\"extensions\":[\"binary_tensor_data\"]}");
}

static enum tg_rc get_live(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    (void)x;
    (void)err;
    return tg_buf_str(out, "{\"live\":true}");
}

static bool ready(const struct tg_service *s)
{
    return s->model != NULL && !s->draining;
}

static enum tg_rc get_ready(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    (void)err;
    if (!ready(x->s))
        tg_http_res_status(x->res, 503);
    return tg_buf_printf(out, "{\"ready\":%s}", ready(x->s) ? "true" : "false");
}

static enum tg_rc named(struct tg_buf *out, const char *key, const char *value)
{
    TG_TRY(tg_buf_printf(out, "\"%s\":", key));
    return tg_json_quote(out, tg_bytes_str(value));
}

static enum tg_rc get_model_ready(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    TG_TRY(tg_buf_str(out, "{"));
    TG_TRY(named(out, "name", x->s->model->name));
    TG_TRY(tg_buf_str(out, ","));
    if (!ready(x->s))
        tg_http_res_status(x->res, 503);
    (void)err;
    return tg_buf_printf(out, "\"ready\":%s}", ready(x->s) ? "true" : "false");
}

static enum tg_rc write_ports(struct tg_buf *out, const char *key, const struct tg_ports *ports)
{
    TG_TRY(tg_buf_printf(out, ",\"%s\":[", key));
    for (size_t i = 0; i < ports->n; i++) {
        const struct tg_port *p = &ports->v[i];

        TG_TRY(tg_buf_str(out, i == 0 ? "{" : ",{"));
        TG_TRY(named(out, "name", p->name));
        TG_TRY(tg_buf_printf(out, ",\"datatype\":\"%s\",\"shape\":[", tg_dtype_name(p->dtype)));
        for (size_t d = 0; d < p->shape.n; d++)
            TG_TRY(tg_buf_printf(out, "%s%" PRId64, d == 0 ? "" : ",",
                                 p->shape.d[d] < 0 ? -1 : p->shape.d[d]));
        TG_TRY(tg_buf_str(out, "]}"));
    }
    return tg_buf_str(out, "]");
}

static enum tg_rc get_model(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    static const struct tg_ports none = {NULL, 0}; /* of a package that is held, not run */
    const struct tg_model *m = x->s->model;

    (void)err;
    TG_TRY(tg_buf_str(out, "{"));
    TG_TRY(named(out, "name", m->name));
    TG_TRY(tg_buf_str(out, ",\"versions\":["));
    TG_TRY(tg_json_quote(out, tg_bytes_str(m->version)));
    TG_TRY(tg_buf_str(out, "],\"platform\":"));
    TG_TRY(tg_buf_str(out, m->session == NULL ? "\"tensorguard_held\"" : "\"onnxruntime_onnx\""));
    TG_TRY(write_ports(out, "inputs", m->session == NULL ? &none : tg_session_inputs(m->session)));
    TG_TRY(
        write_ports(out, "outputs", m->session == NULL ? &none : tg_session_outputs(m->session)));
    return tg_buf_str(out, "}");
}

static enum tg_rc get_metrics(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    const struct tg_model *m = x->s->model;
    struct tg_native_facts native = {.good = 0};
    struct tg_metrics counts = x->s->metrics;
    struct tg_metrics_facts facts = {
        .model = m->name,
        .version = m->version,
        .ready = ready(x->s),
        .all_locked = x->s->all_locked,
        .load_ns = m->load_ns,
        .connections = tg_http_server_connections(x->s->server),
    };

    (void)err;
    tg_region_facts_get(&facts.region);
    if (x->s->native != NULL)
        native = tg_native_server_facts(x->s->native);
    facts.native_clients = native.clients;
    facts.held_bytes = native.handover.held_bytes;
    counts.native_success = native.good;
    counts.native_failure = native.bad;
    counts.handed = native.handover.handed;
    counts.handed_bytes = native.handover.handed_bytes;
    return tg_metrics_write(&counts, &facts, out);
}

static enum tg_rc post_infer(struct exchange *x, struct tg_buf *out, struct tg_err *err)
{
    struct tg_infer_facts facts = {.json_len = 0};
    uint64_t start = tg_clock_mono_ns();
    const char *len = tg_http_req_header(x->req, TG_OIP_HEADER);
    enum tg_rc rc = tg_infer(x->s->model, x->req->body, len, out, &facts, err);
    char text[24];

    if (rc != TG_OK) {
        x->s->metrics.failure++;
        return rc;
    }
    x->binary = facts.has_binary;
    if (facts.has_binary) {
        (void)snprintf(text, sizeof(text), "%zu", facts.json_len);
        TG_TRY(tg_http_res_header(x->res, TG_OIP_HEADER, text));
    }
    x->s->metrics.success++;
    x->s->metrics.count++;
    x->s->metrics.input_ns += facts.parse_ns + facts.times.input;
    x->s->metrics.infer_ns += facts.times.infer;
    x->s->metrics.output_ns += facts.times.output + facts.write_ns;
    x->s->metrics.request_ns += tg_clock_mono_ns() - start;
    return TG_OK;
}

typedef enum tg_rc route_fn(struct exchange *x, struct tg_buf *out, struct tg_err *err);

static const struct {
    route_fn *fn;
    enum tg_http_method method;
    bool needs_model; /* 503 while there is none; 404 for another name or version */
    const char *type;
} routes[] = {
    [TG_ROUTE_SERVER] = {get_server,      TG_HTTP_GET,  false, "application/json"         },
    [TG_ROUTE_LIVE] = {get_live,        TG_HTTP_GET,  false, "application/json"         },
    [TG_ROUTE_READY] = {get_ready,       TG_HTTP_GET,  false, "application/json"         },
    [TG_ROUTE_MODEL] = {get_model,       TG_HTTP_GET,  true,  "application/json"         },
    [TG_ROUTE_MODEL_READY] = {get_model_ready, TG_HTTP_GET,  true,  "application/json"         },
    [TG_ROUTE_MODEL_INFER] = {post_infer,      TG_HTTP_POST, true,  "application/json"         },
    [TG_ROUTE_METRICS] = {get_metrics,     TG_HTTP_GET,  true,  "text/plain; version=0.0.4"},
};

/* ---- who may ask ---- */

/* Hash first, then compare in constant time: the time says nothing about the token. */
static bool token_ok(const struct tg_service *s, const struct tg_http_req *req)
{
    const char *token = tg_http_req_bearer(req);
    uint8_t hash[TG_SHA256_LEN];

    return token != NULL && tg_sha256(tg_bytes_str(token), hash) == TG_OK &&
           tg_ct_eq(hash, s->token_sha256, sizeof(hash)) == 1;
}

static bool method_ok(enum tg_http_method got, enum tg_http_method want)
{
    return got == want || (got == TG_HTTP_HEAD && want == TG_HTTP_GET);
}

/* Everything that can be said without looking at a body; 0: go on. */
static unsigned refuse(struct exchange *x, const char **why)
{
    const struct tg_service_listener *l = x->req->listener;
    const struct tg_route_match *m = &x->match;

    if (l->needs_token && !token_ok(x->s, x->req)) {
        x->s->metrics.refused++;
        *why = "this address needs \"Authorization: Bearer <token>\" with the right token";
        return 401;
    }
    *why = "no such path";
    if (m->route == TG_ROUTE_NONE)
        return 404;
    *why = "method not allowed";
    if (!method_ok(x->req->method, routes[m->route].method))
        return 405;
    *why = "no model is loaded";
    if (routes[m->route].needs_model && x->s->model == NULL)
        return 503;
    *why = "unknown model or version";
    if (m->model.p != NULL && !is(m->model, x->s->model->name))
        return 404;
    if (m->version.p != NULL && !is(m->version, x->s->model->version))
        return 404;
    return 0;
}

enum tg_rc tg_service_handle(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                             struct tg_err *err)
{
    struct exchange x = {arg, req, res, tg_route_parse(req->target->path), false};
    TG_AUTO(tg_buf_done) struct tg_buf out = TG_BUF_SECRET(TG_OIP_DATA_MAX);
    const char *why = NULL;
    unsigned status = refuse(&x, &why);
    enum tg_rc rc;

    if (status == 401)
        TG_TRY(tg_http_res_header(res, "WWW-Authenticate", "Bearer"));
    if (status == 405)
        TG_TRY(tg_http_res_header(res, "Allow", tg_http_method_name(routes[x.match.route].method)));
    if (status != 0) {
        tg_http_res_error(res, status, why);
        return TG_OK;
    }
    tg_http_res_status(res, 200);
    rc = routes[x.match.route].fn(&x, &out, err);
    if (rc == TG_OK)
        return tg_http_res_take(
            res, x.binary ? "application/octet-stream" : routes[x.match.route].type, &out);
    tg_http_res_error(res, status_of(rc), err->rc == rc ? err->msg : tg_rc_text(rc));
    return TG_OK;
}

uint64_t tg_service_limit(void *arg, enum tg_http_method method, const char *path, void *listener)
{
    (void)arg;
    (void)listener;
    return method == TG_HTTP_POST && tg_route_parse(path).route == TG_ROUTE_MODEL_INFER
               ? TG_OIP_BODY_MAX
               : 0;
}
