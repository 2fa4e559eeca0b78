#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "codec/json.h"
#include "net/http_client.h"
#include "tensor/npy.h"
#include "tensor/oip.h"
#include "tensor/scan.h"

#define SHOWN_ROWS 16 /* what people see of an output; --json and --output give everything */
#define SHOWN_VALUES 16

struct predict {
    bool json;
    const char *socket, *url, *token_file, *model, *version, *output, *output_name;
    struct tg_opt_list input;
};

static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"socket",        TG_OPT_STR,  offsetof(struct predict, socket),      false, "PATH",
      "the worker's Unix socket"                                                                             },
    {"url",           TG_OPT_STR,  offsetof(struct predict, url),         false, "URL",
      "the worker's loopback address, http://127.0.0.1:PORT"                                                 },
    {"token-file",    TG_OPT_STR,  offsetof(struct predict, token_file),  false, "F",
      "token for --url (one line)"                                                                           },
    {"model",         TG_OPT_STR,  offsetof(struct predict, model),       true,  "NAME",  "the model's name"},
    {"model-version", TG_OPT_STR,  offsetof(struct predict, version),     false, "V",
      "answer only if this version serves"                                                                   },
    {"input",         TG_OPT_LIST, offsetof(struct predict, input),       true,  "F",
      "a .npy file, NAME=F.npy (repeatable), or one .json request body"                                      },
    {"output",        TG_OPT_STR,  offsetof(struct predict, output),      false, "F.npy",
      "write an output there as .npy"                                                                        },
    {"output-name",   TG_OPT_STR,  offsetof(struct predict, output_name), false, "NAME",
      "ask for this output only"                                                                             },
    CLI_OPT_END,
};

struct ask {
    const struct predict *o;
    struct tg_http_client *http;
    struct tg_http_answer answer;
};

static void ask_done(struct ask *a)
{
    tg_http_client_free(a->http);
    tg_http_answer_done(&a->answer);
}

/* ---- the connection ---- */

static enum tg_rc connect_to(struct ask *a, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf token = TG_BUF_SECRET(1024);
    struct tg_http_client_opts opts = {.base_url = "http://localhost", .unix_socket = a->o->socket};

    if ((a->o->socket == NULL) == (a->o->url == NULL))
        return TG_FAIL(err, TG_E_USAGE, "give either --socket or --url");
    if (a->o->url != NULL)
        opts.base_url = a->o->url;
    if (a->o->token_file != NULL) {
        TG_TRY(cli_token_load(a->o->token_file, &token, err));
        opts.bearer = tg_buf_cstr(&token);
    }
    return tg_http_client_new(&opts, &a->http, err);
}

struct error_body {
    const char *error;
};

static const struct tg_jfield ERROR_FIELDS[] = {
    TG_J_STR(struct error_body, error, 1, 65536, TG_J_REQ),
};
static const struct tg_jschema ERROR_SCHEMA =
    TG_J_SCHEMA(struct error_body, ERROR_FIELDS, TG_J_IGNORE_UNKNOWN);

/* The protocol's {"error": "..."}, or whatever else came with a status that is no success. */
static enum tg_rc check_answer(const struct tg_http_answer *a, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct error_body body = {NULL};
    enum tg_rc rc = tg_http_status_rc(a->status);

    if (a->status >= 200 && a->status < 300)
        return TG_OK;
    if (tg_arena_new(1 << 20, &arena) == TG_OK &&
        tg_json_decode(&ERROR_SCHEMA, tg_buf_view(&a->body), "error", arena, &body, NULL) == TG_OK)
        return TG_FAIL(err, rc, "the worker refused (%u): %s", a->status, body.error);
    return tg_http_answer_check(a, err);
}

static enum tg_rc call(struct ask *a, struct tg_http_call *how, const char *suffix,
                       struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf target = TG_BUF_INIT(TG_HTTP_TARGET_MAX);
    enum tg_rc rc = tg_buf_str(&target, "/v2/models/");

    if (rc == TG_OK)
        rc = tg_http_encode(&target, a->o->model);
    if (rc == TG_OK && a->o->version != NULL)
        rc = tg_buf_str(&target, "/versions/");
    if (rc == TG_OK && a->o->version != NULL)
        rc = tg_http_encode(&target, a->o->version);
    if (rc == TG_OK)
        rc = tg_buf_str(&target, suffix);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "--model or --model-version is too long");
    how->target = tg_buf_cstr(&target);
    how->max_body = TG_OIP_DATA_MAX;
    TG_TRY(tg_http_client_do(a->http, how, &a->answer, err));
    return check_answer(&a->answer, err);
}

/* ---- the request ---- */

/* The name of the first of "inputs" in a model's metadata. */
static enum tg_rc scan_input_name(struct tg_scan *s, char *out, size_t cap)
{
    char key[64];

    if (!tg_scan_take(s, '[') || !tg_scan_take(s, '{'))
        return TG_E_FORMAT;
    do {
        TG_TRY(tg_scan_text(s, key, sizeof(key)));
        if (!tg_scan_take(s, ':'))
            return TG_E_FORMAT;
        if (strcmp(key, "name") == 0)
            return tg_scan_text(s, out, cap);
        TG_TRY(tg_scan_skip(s, TG_OIP_DEPTH_MAX));
    } while (tg_scan_take(s, ','));
    return TG_E_FORMAT;
}

static enum tg_rc scan_metadata(struct tg_bytes text, char *out, size_t cap)
{
    struct tg_scan s = {text, 0};
    char key[64];

    if (!tg_scan_take(&s, '{'))
        return TG_E_FORMAT;
    do {
        TG_TRY(tg_scan_text(&s, key, sizeof(key)));
        if (!tg_scan_take(&s, ':'))
            return TG_E_FORMAT;
        if (strcmp(key, "inputs") == 0)
            return scan_input_name(&s, out, cap);
        TG_TRY(tg_scan_skip(&s, TG_OIP_DEPTH_MAX));
    } while (tg_scan_take(&s, ','));
    return TG_E_FORMAT;
}

static enum tg_rc ask_input_name(struct ask *a, char *out, size_t cap, struct tg_err *err)
{
    struct tg_http_call how = {.method = TG_HTTP_GET};

    TG_TRY(call(a, &how, "", err));
    if (scan_metadata(tg_buf_view(&a->answer.body), out, cap) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "the worker's model metadata names no input");
    return TG_OK;
}

/* "NAME=F.npy" or "F.npy"; a path with '=' in it can be given after a name. */
static enum tg_rc add_input(struct ask *a, const char *arg, struct tg_oip *m, struct tg_err *err)
{
    struct tg_oip_tensor *t = &m->tensors[m->n];
    const char *eq = strchr(arg, '=');
    const char *path = eq != NULL ? eq + 1 : arg;
    TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(TG_OIP_BODY_MAX);
    struct tg_npy npy = {.dtype = TG_DT_COUNT};

    if (m->n == TG_OIP_TENSORS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--input: at most %d", TG_OIP_TENSORS_MAX);
    if (eq != NULL && (eq == arg || (size_t)(eq - arg) > TG_OIP_NAME_MAX))
        return TG_FAIL(err, TG_E_USAGE, "--input %s: the name is empty or too long", arg);
    if (eq != NULL)
        memcpy(t->name, arg, (size_t)(eq - arg));
    else if (a->o->input.n > 1)
        return TG_FAIL(err, TG_E_USAGE, "--input: several inputs need names: NAME=F.npy");
    else
        TG_TRY(ask_input_name(a, t->name, sizeof(t->name), err));
    TG_TRY(tg_file_read(path, &file, err));
    m->n++;
    t->data.n = file.n;
    t->owned = tg_buf_take(&file, &t->data.n); /* the message frees the file's memory */
    TG_TRY(tg_npy_parse(tg_bytes_make(t->owned, t->data.n), path, &npy, err));
    t->dtype = npy.dtype;
    t->shape = npy.shape;
    t->data = npy.data;
    t->binary = true;
    return TG_OK;
}

static bool is_json(const char *path)
{
    size_t n = strlen(path);

    return n >= 5 && strcmp(path + n - 5, ".json") == 0;
}

/* The body to send, and how much of it is JSON (0: all of it). */
static enum tg_rc make_body(struct ask *a, struct tg_buf *body, size_t *json_len,
                            struct tg_err *err)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *m = tg_oip_new(TG_OIP_REQUEST);
    bool binary = false;

    *json_len = 0;
    if (m == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (a->o->input.n == 1 && is_json(a->o->input.v[0]))
        return tg_file_read(a->o->input.v[0], body, err);
    for (size_t i = 0; i < a->o->input.n; i++)
        TG_TRY(add_input(a, a->o->input.v[i], m, err));
    m->binary_outputs = true;
    if (a->o->output_name != NULL) {
        if (strlen(a->o->output_name) > TG_OIP_NAME_MAX)
            return TG_FAIL(err, TG_E_USAGE, "--output-name is too long");
        memcpy(m->wanted[0].name, a->o->output_name, strlen(a->o->output_name) + 1);
        m->wanted[0].binary = true;
        m->n_wanted = 1;
    }
    return tg_oip_write(m, body, json_len, &binary, err);
}

static enum tg_rc infer(struct ask *a, struct tg_oip **reply, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(2 * TG_OIP_BODY_MAX);
    struct tg_http_call how = {.method = TG_HTTP_POST, .has_body = true};
    struct tg_http_header header = {TG_OIP_HEADER, NULL};
    struct tg_scan s = {TG_BYTES_NONE, 0};
    char text[24];
    size_t json_len = 0;

    TG_TRY(make_body(a, &body, &json_len, err));
    how.type = json_len > 0 ? "application/octet-stream" : "application/json";
    how.body = tg_buf_view(&body);
    if (json_len > 0) {
        (void)snprintf(text, sizeof(text), "%zu", json_len);
        header.value = text;
        how.headers = &header;
        how.headers_n = 1;
    }
    TG_TRY(call(a, &how, "/infer", err));
    /* The JSON ends where its object does; raw tensors begin there. */
    s.in = tg_buf_view(&a->answer.body);
    if (tg_scan_skip(&s, TG_OIP_DEPTH_MAX) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "the worker's answer is not JSON");
    TG_TRY(tg_oip_parse(TG_OIP_REPLY, tg_bytes_sub(s.in, 0, s.i),
                        tg_bytes_sub(s.in, s.i, s.in.n - s.i), reply, err));
    return TG_OK;
}

/* ---- the answer ---- */

static enum tg_rc save(const struct predict *o, const struct tg_oip *m, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(2 * TG_OIP_DATA_MAX);
    struct tg_npy npy;

    if (m->n != 1)
        return TG_FAIL(err, TG_E_USAGE, "the model gave %zu outputs; choose one with --output-name",
                       m->n);
    npy = (struct tg_npy){m->tensors[0].dtype, m->tensors[0].shape, m->tensors[0].data};
    TG_TRY(tg_npy_write(&npy, &file, err));
    return tg_file_write(o->output, tg_buf_view(&file), 0644, true, err);
}

/* How a tensor is cut into rows for people: by its last dimension. */
static size_t row_length(const struct tg_oip_tensor *t, size_t count)
{
    int64_t last = t->shape.n > 0 ? t->shape.d[t->shape.n - 1] : 1;

    return last > 0 && (uint64_t)last <= count ? (size_t)last : 1;
}

static enum tg_rc row_text(const struct tg_oip_tensor *t, size_t from, size_t n, struct tg_buf *out)
{
    tg_buf_clear(out);
    for (size_t i = 0; i < n && i < SHOWN_VALUES; i++)
        TG_TRY(tg_buf_printf(out, "%s%.6g", i == 0 ? "" : " ",
                             tg_tensor_f64(t->dtype, t->data, from + i)));
    return n > SHOWN_VALUES ? tg_buf_str(out, " …") : TG_OK;
}

static size_t largest(const struct tg_oip_tensor *t, size_t from, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (tg_tensor_f64(t->dtype, t->data, from + i) >
            tg_tensor_f64(t->dtype, t->data, from + best))
            best = i;
    return best;
}

static enum tg_rc show_tensor(struct cli *c, const struct tg_oip_tensor *t, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(65536);
    char title[TG_OIP_NAME_MAX + TG_SHAPE_TEXT + 16], shape[TG_SHAPE_TEXT];
    size_t count = 0, row;

    tg_shape_text(&t->shape, shape);
    (void)snprintf(title, sizeof(title), "%s %s %s", t->name, tg_dtype_name(t->dtype), shape);
    TG_TRY(tg_shape_count(&t->shape, TG_OIP_DATA_MAX, &count));
    if (t->dtype == TG_DT_BYTES || count == 0) {
        cli_out_str(&c->out, t->name, t->name, title);
        return TG_OK;
    }
    row = row_length(t, count);
    cli_out_table(&c->out, t->name, title);
    for (size_t i = 0; i < count / row && i < SHOWN_ROWS; i++) {
        if (row_text(t, i * row, row, &text) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        cli_out_row(&c->out);
        cli_out_u64(&c->out, "row", "row", i);
        cli_out_str(&c->out, "values", "values", tg_buf_cstr(&text));
        if (row > 1)
            cli_out_u64(&c->out, "largest", "largest at", largest(t, i * row, row));
    }
    cli_out_table_end(&c->out, NULL);
    if (count / row > SHOWN_ROWS)
        cli_out_note(&c->out, "%zu more rows: --json or --output F.npy give everything",
                     count / row - SHOWN_ROWS);
    return TG_OK;
}

static enum tg_rc show(struct cli *c, struct tg_oip *m, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf json = TG_BUF_INIT(CLI_OUT_MAX);
    size_t len = 0;
    bool binary = false;

    if (!c->out.json) {
        cli_out_str(&c->out, "model_name", "model", m->model_name);
        cli_out_str(&c->out, "model_version", "version", m->model_version);
        for (size_t i = 0; i < m->n; i++)
            TG_TRY(show_tensor(c, &m->tensors[i], err));
        return TG_OK;
    }
    for (size_t i = 0; i < m->n; i++)
        m->tensors[i].binary = false;
    TG_TRY(tg_oip_write(m, &json, &len, &binary, err));
    cli_out_raw(&c->out, "reply", "reply", tg_buf_view(&json));
    return TG_OK;
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    TG_AUTO(ask_done) struct ask a = {.o = opts, .answer = TG_HTTP_ANSWER_INIT};
    TG_AUTO(tg_oip_freep) struct tg_oip *reply = NULL;

    (void)args;
    TG_TRY(connect_to(&a, err));
    TG_TRY(infer(&a, &reply, err));
    if (a.o->output != NULL)
        TG_TRY(save(a.o, reply, err));
    return show(c, reply, err);
}

const struct cli_verb cli_predict = {
    .cmd = {.name = "predict",
            .summary = "ask a model on this machine for a prediction",
            .details =
                "Speaks the Open Inference Protocol with the worker that the agent started.\n\n"
                "  tensorguard predict --socket run/predict.sock --model perception-net --input "
                "x.npy\n"
                "  tensorguard predict --url http://127.0.0.1:8080 --token-file token \\\n"
                "      --model perception-net --input request.json --json\n", .opts = OPTS},
    .opts_size = sizeof(struct predict),
    .run = run,
};
