#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/text.h"
#include "net/http_server_internal.h"

#define BODY_MAX SIZE_MAX

/* --- what a handler reads -------------------------------------------------------------------- */

const char *tg_http_req_header(const struct tg_http_req *req, const char *name)
{
    for (size_t i = 0; i < req->headers_n; i++)
        if (strcasecmp(req->headers[i].name, name) == 0)
            return req->headers[i].value;
    return NULL;
}

const char *tg_http_req_bearer(const struct tg_http_req *req)
{
    const char *v = tg_http_req_header(req, "Authorization");

    if (v == NULL || strncasecmp(v, "Bearer ", 7) != 0)
        return NULL;
    v += 7;
    v += strspn(v, " ");
    return *v != '\0' ? v : NULL;
}

/* --- what a handler sets --------------------------------------------------------------------- */

void tg_http_res_init(struct tg_http_res *res)
{
    *res = (struct tg_http_res){.status = 204, .fd = -1, .body = TG_BUF_INIT(BODY_MAX)};
}

static void body_drop(struct tg_http_res *res)
{
    tg_buf_done(&res->body);
    res->body = TG_BUF_INIT(BODY_MAX);
    tg_fd_close(res->fd);
    res->fd = -1;
    res->off = res->len = 0;
    tg_free(res->type);
    res->type = NULL;
}

void tg_http_res_done(struct tg_http_res *res)
{
    body_drop(res);
    for (size_t i = 0; i < res->headers_n; i++) {
        tg_free((void *)(uintptr_t)res->headers[i].name);
        tg_free((void *)(uintptr_t)res->headers[i].value);
    }
    tg_free(res->headers);
    tg_http_res_init(res);
}

void tg_http_res_status(struct tg_http_res *res, unsigned status)
{
    res->status = status >= 200 && status <= 599 ? status : 500;
}

void tg_http_res_close(struct tg_http_res *res)
{
    res->close = true;
}

static bool header_name_ok(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
              strchr("!#$%&'*+-.^_`|~", *s) != NULL))
            return false;
    return true;
}

static bool header_value_ok(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

TG_RC tg_http_res_header(struct tg_http_res *res, const char *name, const char *value)
{
    struct tg_http_header *p;
    TG_AUTO(tg_freep) char *n = NULL;
    TG_AUTO(tg_freep) char *v = NULL;

    if (!header_name_ok(name) || !header_value_ok(value) ||
        strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0)
        return TG_E_FORMAT;
    n = tg_strdup(name);
    v = tg_strdup(value);
    p = tg_realloc(res->headers, (res->headers_n + 1) * sizeof(*p));
    if (p != NULL)
        res->headers = p;
    if (n == NULL || v == NULL || p == NULL)
        return TG_E_NOMEM;
    res->headers[res->headers_n++] = (struct tg_http_header){tg_steal(&n), tg_steal(&v)};
    return TG_OK;
}

static TG_RC type_set(struct tg_http_res *res, const char *type)
{
    if (type != NULL && !header_value_ok(type))
        return TG_E_FORMAT;
    res->type = type != NULL ? tg_strdup(type) : NULL;
    return type == NULL || res->type != NULL ? TG_OK : TG_E_NOMEM;
}

TG_RC tg_http_res_body(struct tg_http_res *res, const char *type, struct tg_bytes body)
{
    struct tg_buf copy = TG_BUF_INIT(BODY_MAX);
    enum tg_rc rc = tg_buf_bytes(&copy, body);

    if (rc != TG_OK) {
        tg_buf_done(&copy);
        return rc;
    }
    return tg_http_res_take(res, type, &copy);
}

TG_RC tg_http_res_take(struct tg_http_res *res, const char *type, struct tg_buf *body)
{
    body_drop(res);
    res->body = *body;
    *body = TG_BUF_INIT(body->max);
    if (res->status == 204)
        res->status = 200;
    return type_set(res, type);
}

TG_RC tg_http_res_json(struct tg_http_res *res, unsigned status, struct tg_buf *json)
{
    tg_http_res_status(res, status);
    return tg_http_res_take(res, "application/json", json);
}

TG_RC tg_http_res_file(struct tg_http_res *res, const char *type, int fd, uint64_t off,
                       uint64_t len)
{
    body_drop(res);
    res->fd = fd;
    res->off = off;
    res->len = len;
    if (res->status == 204)
        res->status = 200;
    return type_set(res, type);
}

void tg_http_res_problem(struct tg_http_res *res, unsigned status, const struct tg_err *err)
{
    struct tg_buf json = TG_BUF_INIT(16384);

    body_drop(res);
    res->status = status != 0 ? status : (unsigned)tg_rc_http(err->rc);
    if (tg_http_problem_encode(err, res->status, &json) != TG_OK ||
        tg_http_res_take(res, TG_HTTP_PROBLEM_TYPE, &json) != TG_OK)
        body_drop(res);
    tg_buf_done(&json);
}

void tg_http_res_error(struct tg_http_res *res, unsigned status, const char *text)
{
    TG_AUTO(tg_buf_done) struct tg_buf json = TG_BUF_INIT(16384);
    char clean[TG_ERR_MAX];
    size_t n = strlen(text) < sizeof(clean) ? strlen(text) : sizeof(clean) - 1;

    /* A text cut inside a character, or made of a client's bytes, must still become JSON. */
    memcpy(clean, text, n);
    clean[n] = '\0';
    for (size_t i = 0; !tg_utf8_ok(tg_bytes_make(clean, n)) && i < n; i++)
        if ((unsigned char)clean[i] >= 0x80)
            clean[i] = '?';
    body_drop(res);
    res->status = status;
    if (tg_buf_str(&json, "{\"error\":") != TG_OK ||
        tg_json_quote(&json, tg_bytes_make(clean, n)) != TG_OK || tg_buf_str(&json, "}") != TG_OK ||
        tg_http_res_take(res, "application/json", &json) != TG_OK)
        body_drop(res);
}

TG_RC tg_http_res_etag(const struct tg_http_req *req, struct tg_http_res *res, const char *etag,
                       bool *not_modified)
{
    bool reads = req->method == TG_HTTP_GET || req->method == TG_HTTP_HEAD;

    if (!tg_etag_ok(etag))
        return TG_E_FORMAT;
    TG_TRY(tg_http_res_header(res, "ETag", etag));
    *not_modified = reads && tg_etag_in(tg_http_req_header(req, "If-None-Match"), etag);
    if (*not_modified) {
        body_drop(res);
        res->status = 304;
    }
    return TG_OK;
}

static TG_RC range_set(struct tg_http_res *res, const struct tg_range *r, uint64_t size)
{
    char text[TG_RANGE_TEXT];

    if (r->kind == TG_RANGE_NONE)
        return TG_OK;
    tg_range_format_content(r, size, text);
    TG_TRY(tg_http_res_header(res, "Content-Range", text));
    res->status = r->kind == TG_RANGE_BAD ? 416 : 206;
    return TG_OK;
}

static TG_RC serve(const struct tg_http_req *req, struct tg_http_res *res, const char *etag,
                   uint64_t size, struct tg_range *r)
{
    bool same = false;

    *r = (struct tg_range){TG_RANGE_BAD, 0, 0};
    TG_TRY(tg_http_res_etag(req, res, etag, &same));
    TG_TRY(tg_http_res_header(res, "Accept-Ranges", "bytes"));
    if (same)
        return TG_OK;
    /* Range is defined for GET alone (RFC 9110 §14.2). */
    *r = tg_range_decide(req->method == TG_HTTP_GET ? tg_http_req_header(req, "Range") : NULL,
                         tg_http_req_header(req, "If-Range"), etag, size);
    return range_set(res, r, size);
}

TG_RC tg_http_res_serve_file(const struct tg_http_req *req, struct tg_http_res *res,
                             const struct tg_http_file *file)
{
    TG_AUTO(tg_fd_closep) int owned = file->fd;
    struct tg_range r;
    struct tg_err err = TG_ERR_INIT;

    res->status = 200;
    TG_TRY(serve(req, res, file->etag, file->size, &r));
    if (res->status == 304)
        return TG_OK;
    if (r.kind == TG_RANGE_BAD) {
        tg_err_set(&err, TG_E_FORMAT, "range: nothing of it lies within %" PRIu64 " bytes",
                   file->size);
        tg_http_res_problem(res, 416, &err);
        return TG_OK;
    }
    owned = -1;
    return tg_http_res_file(res, file->type, file->fd, r.off, r.len);
}

/* --- sending --------------------------------------------------------------------------------- */

void tg_http_stream_end(struct tg_http_conn *c)
{
    struct evhttp_request *req = c->stream.req;

    c->stream.req = NULL;
    tg_fd_close(c->stream.fd);
    c->stream.fd = -1;
    /* evhttp lets go of a request whose connection failed while we still had it. */
    if (req != NULL && evhttp_request_get_connection(req) == NULL)
        evhttp_request_free(req);
}

static void piece_free(const void *data, size_t n, void *arg)
{
    (void)n;
    (void)arg;
    tg_free((void *)(uintptr_t)data);
}

/* The same for a body that was made in a secret buffer. */
static void piece_wipe(const void *data, size_t n, void *arg)
{
    tg_wipe((void *)(uintptr_t)data, n);
    piece_free(data, n, arg);
}

/* Read the next piece of the file. NULL: the file is shorter than it was, or memory is out. */
static struct evbuffer *piece_read(struct tg_http_stream *st, size_t n)
{
    struct evbuffer *piece = evbuffer_new();
    uint8_t *p = tg_alloc(n);

    if (piece != NULL && p != NULL && tg_fd_pread(st->fd, "file", p, n, st->off, NULL) == TG_OK &&
        evbuffer_add_reference(piece, p, n, piece_free, NULL) == 0)
        return piece;
    tg_free(p);
    if (piece != NULL)
        evbuffer_free(piece);
    return NULL;
}

/* Called when everything handed over so far has gone to the socket. */
static void stream_next(struct evhttp_connection *evcon, void *arg)
{
    struct tg_http_conn *c = arg;
    struct tg_http_stream *st = &c->stream;
    size_t n = st->left < TG_HTTP_STREAM_CHUNK ? (size_t)st->left : TG_HTTP_STREAM_CHUNK;
    struct evhttp_request *req = st->req;
    struct evbuffer *piece;

    (void)evcon;
    if (req == NULL)
        return;
    if (n == 0) {
        st->req = NULL;
        tg_http_stream_end(c);
        evhttp_send_reply_end(req); /* may free the connection, and c with it */
        return;
    }
    piece = piece_read(st, n);
    if (piece == NULL) {
        tg_http_conn_doom(c); /* Content-Length was promised: breaking off is the only honest end */
        return;
    }
    st->off += n;
    st->left -= n;
    evhttp_send_reply_chunk_with_cb(req, piece, stream_next, c);
    evbuffer_free(piece);
}

static void headers_copy(struct evhttp_request *req, const struct tg_http_res *res, bool has_length,
                         uint64_t length)
{
    struct evkeyvalq *out = evhttp_request_get_output_headers(req);
    char text[24];

    for (size_t i = 0; i < res->headers_n; i++)
        (void)evhttp_add_header(out, res->headers[i].name, res->headers[i].value);
    if (res->type != NULL)
        (void)evhttp_add_header(out, "Content-Type", res->type);
    if (has_length) {
        (void)snprintf(text, sizeof(text), "%" PRIu64, length);
        (void)evhttp_add_header(out, "Content-Length", text);
    }
    if (res->close)
        (void)evhttp_add_header(out, "Connection", "close");
}

static void send_body(struct evhttp_request *req, struct tg_http_res *res, bool with_body)
{
    struct evbuffer *out = evbuffer_new();
    size_t n = 0;
    uint8_t *p = NULL;

    if (out != NULL && with_body && res->body.n > 0) {
        bool secret = res->body.secret;

        p = tg_buf_take(&res->body, &n);
        if (evbuffer_add_reference(out, p, n, secret ? piece_wipe : piece_free, NULL) != 0) {
            if (secret)
                tg_wipe(p, n);
            tg_free(p);
            evbuffer_free(out);
            out = NULL;
        }
    }
    if (out == NULL) {
        evhttp_send_reply(req, 500, tg_http_status_text(500), NULL);
        return;
    }
    evhttp_send_reply(req, (int)res->status, tg_http_status_text(res->status), out);
    evbuffer_free(out);
}

void tg_http_res_send(struct tg_http_conn *c, struct evhttp_request *req, struct tg_http_res *res,
                      bool head)
{
    bool bodiless = res->status == 204 || res->status == 304;
    uint64_t length = res->fd >= 0 ? res->len : res->body.n;

    headers_copy(req, res, !bodiless, length);
    if (bodiless || head || res->fd < 0 || length == 0) {
        send_body(req, res, !bodiless && !head);
        return;
    }
    c->stream = (struct tg_http_stream){.req = req, .fd = res->fd, .off = res->off, .left = length};
    res->fd = -1;
    evhttp_send_reply_start(req, (int)res->status, tg_http_status_text(res->status));
    stream_next(c->evcon, c);
}
