#include "net/http_server_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/keyvalq_struct.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#define LINGER_MS 2000
#define LATE_MS 250

uint64_t tg_http_ms(void)
{
    return tg_clock_mono_ns() / 1000000;
}

/* --- making ---------------------------------------------------------------------------------- */

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct tg_http_conn *c = arg;

    (void)output;
    if (info->n_deleted > 0)
        c->progress = tg_http_ms();
}

static void attention(struct tg_http_conn *c)
{
    if (!c->queued) {
        TAILQ_INSERT_TAIL(&c->server->attention, c, attention_link);
        c->queued = true;
    }
    tg_http_server_wake(c->server);
}

void tg_http_conn_doom(struct tg_http_conn *c)
{
    c->doomed = true;
    attention(c);
}

static struct bufferevent *transport(struct event_base *base, struct tg_http_listener *l, SSL **ssl)
{
    struct bufferevent *bev;

    if (l->tls == NULL)
        return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    *ssl = SSL_new(l->tls);
    if (*ssl == NULL) {
        ERR_clear_error();
        return NULL;
    }
    bev = bufferevent_openssl_socket_new(base, -1, *ssl, BUFFEREVENT_SSL_ACCEPTING,
                                         BEV_OPT_CLOSE_ON_FREE); /* owns ssl, also on failure */
    if (bev != NULL)
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static struct tg_http_conn *conn_alloc(struct event_base *base, struct tg_http_listener *l)
{
    struct tg_http_conn *c = tg_calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->hold = evbuffer_new();
    if (c->hold != NULL)
        c->bev = transport(base, l, &c->ssl);
    if (c->bev != NULL &&
        evbuffer_add_cb(bufferevent_get_input(c->bev), tg_http_conn_input, c) != NULL &&
        evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c) != NULL)
        return c;
    if (c->bev != NULL)
        bufferevent_free(c->bev);
    if (c->hold != NULL)
        evbuffer_free(c->hold);
    tg_free(c);
    return NULL;
}

/* Called by evhttp for each accepted socket, before it knows what to do with it: evhttp's own
 * object is met in attend(), in the same turn of the loop. Returning NULL would make evhttp carry
 * on in plaintext; without memory it gets a transport that on_request doesn't know and answers 503.
 */
struct bufferevent *tg_http_conn_new(struct event_base *base, void *listener)
{
    struct tg_http_listener *l = listener;
    struct tg_http_server *s = l->server;
    struct tg_http_conn *c = conn_alloc(base, l);

    if (c == NULL)
        return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    c->server = s;
    c->listener = l;
    c->stream.fd = -1;
    c->fd = -1;
    c->opened = c->progress = c->idle_since = tg_http_ms();
    LIST_INSERT_HEAD(&s->conns, c, link);
    s->connections++;
    bufferevent_incref(c->bev); /* until attended to: evhttp may give up on it before */
    attention(c);
    tg_http_server_sweep_on(s);
    if (++l->connections >= l->max_connections)
        tg_http_listener_accept(l);
    return c->bev;
}

/* --- end ------------------------------------------------------------------------------------- */

static void conn_free(struct tg_http_conn *c)
{
    struct tg_http_server *s = c->server;
    struct tg_http_listener *l = c->listener;

    if (c->fd >= 0)
        s->by_fd[c->fd].conn = NULL;
    if (c->queued)
        TAILQ_REMOVE(&s->attention, c, attention_link);
    LIST_REMOVE(c, link);
    s->connections--;
    if (l->connections-- >= l->max_connections)
        tg_http_listener_accept(l);
    evbuffer_free(c->hold);
    tg_free(c->refusal);
    tg_free(c);
    if (s->draining && s->connections == 0)
        tg_http_server_wake(s);
}

static void linger_free(struct tg_http_linger *g)
{
    tg_loop_item_free(g->item);
    LIST_REMOVE(g, link);
    tg_fd_close(g->fd);
    tg_free(g);
}

static void on_linger(void *arg)
{
    struct tg_http_linger *g = arg;
    char piece[4096];
    ssize_t n = recv(g->fd, piece, sizeof(piece), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        linger_free(g);
}

void tg_http_linger_end(struct tg_http_server *s, uint64_t before)
{
    struct tg_http_linger *g = LIST_FIRST(&s->lingering), *next;

    for (; g != NULL; g = next) {
        next = LIST_NEXT(g, link);
        if (g->since < before)
            linger_free(g);
    }
}

/* evhttp will close the socket: go on with a copy. Failing to only costs the client the reason. */
static void linger(struct tg_http_server *s, int fd)
{
    struct tg_http_linger *g = tg_calloc(1, sizeof(*g));

    if (g == NULL)
        return;
    g->server = s;
    g->since = tg_http_ms();
    g->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (g->fd < 0 || shutdown(g->fd, SHUT_WR) != 0 ||
        tg_loop_fd(s->loop, g->fd, TG_LOOP_READ, on_linger, g, &g->item) != TG_OK) {
        tg_fd_close(g->fd);
        tg_free(g);
        return;
    }
    LIST_INSERT_HEAD(&s->lingering, g, link);
    tg_http_server_sweep_on(s);
}

/* evhttp is about to free the connection. */
static void on_close(struct evhttp_connection *evcon, void *arg)
{
    struct tg_http_conn *c = arg;

    (void)evcon;
    evbuffer_remove_cb(bufferevent_get_input(c->bev), tg_http_conn_input, c);
    evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output, c);
    if (c->ssl != NULL && SSL_is_init_finished(c->ssl) &&
        evbuffer_get_length(bufferevent_get_output(c->bev)) == 0) {
        (void)SSL_shutdown(c->ssl); /* close_notify, if the socket takes it at once */
        ERR_clear_error();
    } else if (c->ssl != NULL && !SSL_is_init_finished(c->ssl) && c->fd >= 0) {
        linger(c->server, c->fd);
    }
    tg_http_stream_end(c);
    conn_free(c);
}

void tg_http_conn_kill(struct tg_http_conn *c)
{
    if (c->evcon != NULL)
        evhttp_connection_free(c->evcon); /* → on_close */
}

static bool by_fd_set(struct tg_http_server *s, int fd, struct tg_http_conn *c)
{
    if (fd < 0)
        return false;
    if ((size_t)fd >= s->by_fd_n) {
        size_t n = ((size_t)fd / 64 + 1) * 64;
        struct tg_http_slot *p = tg_realloc(s->by_fd, n * sizeof(*p));

        if (p == NULL)
            return false;
        memset(p + s->by_fd_n, 0, (n - s->by_fd_n) * sizeof(*p));
        s->by_fd = p;
        s->by_fd_n = n;
    }
    s->by_fd[fd].conn = c;
    c->fd = fd;
    return true;
}

static void client_name(struct tg_http_conn *c)
{
    const struct sockaddr *sa = evhttp_connection_get_addr(c->evcon);
    char host[INET6_ADDRSTRLEN] = "";

    if (sa != NULL && sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;

        if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)) != NULL)
            (void)snprintf(c->client, sizeof(c->client), "%s:%u", host, ntohs(in->sin_port));
    } else if (sa != NULL && sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;

        if (inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)) != NULL)
            (void)snprintf(c->client, sizeof(c->client), "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        (void)snprintf(c->client, sizeof(c->client), "unix");
    }
}

void tg_http_conn_attend(struct tg_http_conn *c)
{
    struct bufferevent *bev = c->bev;
    void *evcon = NULL;

    if (c->evcon == NULL) {
        /* The argument of the callbacks evhttp has set on its transport is its connection; there is
         * no other way to meet one before its first request. NULL: evhttp has let go of it. */
        bufferevent_getcb(bev, NULL, NULL, NULL, &evcon);
        if (evcon == NULL) {
            evbuffer_remove_cb(bufferevent_get_input(bev), tg_http_conn_input, c);
            evbuffer_remove_cb(bufferevent_get_output(bev), on_output, c);
            conn_free(c);
            (void)bufferevent_decref(bev);
            return;
        }
        (void)bufferevent_decref(bev);
        c->evcon = evcon;
        evhttp_connection_set_closecb(c->evcon, on_close, c);
        client_name(c);
        if (!by_fd_set(c->server, bufferevent_getfd(bev), c))
            c->doomed = true;
    }
    if (c->doomed)
        tg_http_conn_kill(c);
}

/* --- timeouts -------------------------------------------------------------------------------- */

static bool expired(const struct tg_http_conn *c, uint64_t now)
{
    const struct tg_http_server *s = c->server;
    const struct tg_http_server_opts *o = &s->opts;

    if (c->busy)
        return now - c->progress > o->send_timeout_ms;
    if (c->refusal != NULL) /* answered, if its turn came; lingering */
        return now - c->idle_since > (c->served == c->fed ? LINGER_MS : o->head_timeout_ms);
    if (c->body_since != 0)
        return now - c->body_since > o->body_grace_ms + c->body_got * 1000 / o->body_min_rate;
    if (c->head_since != 0)
        return now - c->head_since > o->head_timeout_ms;
    if (c->ssl != NULL && !SSL_is_init_finished(c->ssl))
        return now - c->opened > o->head_timeout_ms;
    if (s->draining)
        return now - s->drain_since >= s->drain.idle_ms;
    return now - c->idle_since > o->idle_timeout_ms;
}

/* Time in which the loop itself stood still counts against nobody. */
static void forgive(struct tg_http_server *s, uint64_t late, uint64_t now)
{
    struct tg_http_conn *c;

    LIST_FOREACH(c, &s->conns, link)
    {
        uint64_t *since[] = {&c->opened, &c->head_since, &c->body_since, &c->idle_since,
                             &c->progress};

        for (size_t i = 0; i < TG_ARRAY_LEN(since); i++)
            if (*since[i] != 0)
                *since[i] = *since[i] + late < now ? *since[i] + late : now;
    }
}

void tg_http_conn_sweep(struct tg_http_server *s)
{
    uint64_t now = tg_http_ms();
    bool all = s->draining && now - s->drain_since >= s->drain.deadline_ms;
    struct tg_http_conn *c = LIST_FIRST(&s->conns), *next;

    if (s->sweep_due != 0 && now > s->sweep_due + LATE_MS)
        forgive(s, now - s->sweep_due, now);
    tg_http_linger_end(s, all ? UINT64_MAX : now > LINGER_MS ? now - LINGER_MS : 0);
    for (; c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        if (all && (c->busy || c->body_since != 0 || c->head_since != 0))
            s->cut = true;
        if (all || (expired(c, now) && !tg_http_conn_late(c)))
            tg_http_conn_kill(c);
    }
}

/* --- requests -------------------------------------------------------------------------------- */

static void on_complete(struct evhttp_request *req, void *arg)
{
    struct tg_http_conn *c = arg;

    (void)req;
    c->busy = false;
    c->idle_since = tg_http_ms();
}

/* The certificate the handshake verified; read once per connection. */
static TG_RC peer_read(struct tg_http_conn *c)
{
    unsigned char *der = NULL;
    enum tg_rc rc = TG_OK;
    X509 *cert;
    int n;

    if (c->peer_known || c->ssl == NULL)
        return TG_OK;
    cert = SSL_get0_peer_certificate(c->ssl);
    if (cert != NULL) {
        if (SSL_get_verify_result(c->ssl) != X509_V_OK)
            return TG_E_AUTH;
        n = i2d_X509(cert, &der);
        if (n <= 0)
            return TG_E_NOMEM;
        rc = tg_x509_facts_der(tg_bytes_make(der, (size_t)n), &c->peer, NULL);
        OPENSSL_free(der);
        c->has_peer = rc == TG_OK;
    }
    c->peer_known = rc == TG_OK;
    return rc;
}

static size_t headers_read(struct evhttp_request *req, struct tg_http_header *out, size_t max)
{
    struct evkeyvalq *in = evhttp_request_get_input_headers(req);
    struct evkeyval *kv;
    size_t n = 0;

    for (kv = in->tqh_first; kv != NULL && n < max; kv = kv->next.tqe_next)
        out[n++] = (struct tg_http_header){kv->key, kv->value};
    return n;
}

static bool method_of(struct evhttp_request *req, enum tg_http_method *out)
{
    static const enum evhttp_cmd_type theirs[TG_HTTP_METHODS] = {
        [TG_HTTP_GET] = EVHTTP_REQ_GET,     [TG_HTTP_HEAD] = EVHTTP_REQ_HEAD,
        [TG_HTTP_POST] = EVHTTP_REQ_POST,   [TG_HTTP_PUT] = EVHTTP_REQ_PUT,
        [TG_HTTP_PATCH] = EVHTTP_REQ_PATCH, [TG_HTTP_DELETE] = EVHTTP_REQ_DELETE,
    };
    enum evhttp_cmd_type cmd = evhttp_request_get_command(req);

    for (size_t i = 0; i < TG_HTTP_METHODS; i++)
        if (theirs[i] == cmd) {
            *out = (enum tg_http_method)i;
            return true;
        }
    return false;
}

static struct tg_bytes body_of(struct evhttp_request *req)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(req);
    size_t n = evbuffer_get_length(in);
    unsigned char *p = n > 0 ? evbuffer_pullup(in, -1) : NULL;

    return p != NULL ? tg_bytes_make(p, n) : TG_BYTES_NONE;
}

/* What the server itself has to say. status 0: as err has it. */
static void refuse(const struct tg_http_conn *c, struct tg_http_res *res, unsigned status,
                   const struct tg_err *err)
{
    if (c->server->opts.plain_errors)
        tg_http_res_error(res, status != 0 ? status : (unsigned)tg_rc_http(err->rc), err->msg);
    else
        tg_http_res_problem(res, status, err);
}

static TG_RC call_handler(struct tg_http_conn *c, struct evhttp_request *req, struct tg_http_req *r,
                          struct tg_http_res *res, struct tg_err *err)
{
    const struct tg_http_server_opts *o = &c->server->opts;
    struct tg_http_target target = TG_HTTP_TARGET_INIT;
    struct tg_http_header headers[TG_HTTP_HEADERS_HARD_MAX];
    enum tg_rc rc;

    TG_TRY(tg_http_target_parse(tg_bytes_str(evhttp_request_get_uri(req)), &target, err));
    r->target = &target;
    r->headers = headers;
    r->headers_n = headers_read(req, headers, TG_ARRAY_LEN(headers));
    r->body = body_of(req);
    r->is_tls = c->ssl != NULL;
    r->peer = c->has_peer ? &c->peer : NULL;
    r->client = c->client;
    r->now = tg_clock_now();
    r->listener = c->listener->arg;
    rc = o->handler(o->arg, r, res, err);
    if (rc != TG_OK) {
        if (err->rc != rc || err->msg[0] == '\0')
            tg_err_set(err, rc, "%s", tg_rc_text(rc));
        refuse(c, res, 0, err);
    }
    if (o->done != NULL)
        o->done(o->arg, r, res->status);
    tg_http_target_done(&target);
    return TG_OK;
}

static void answer(struct tg_http_conn *c, struct evhttp_request *req)
{
    struct tg_http_req r = {.method = TG_HTTP_GET};
    struct tg_err err = TG_ERR_INIT;
    struct tg_http_res res;

    tg_http_res_init(&res);
    if (c->refusal != NULL && c->served == c->refusal->at) {
        refuse(c, &res, c->refusal->status, &c->refusal->err);
        /* Says close, but leaves it to the client for LINGER_MS: closing a socket with unread bytes
         * resets the connection, and the client might never see why. evhttp closes by itself on
         * exactly "close"; a repeated token means the same to a client (RFC 9110 §7.6.1). */
        if (tg_http_res_header(&res, "Connection", "close, close") != TG_OK)
            tg_http_res_close(&res);
    } else if (!method_of(req, &r.method) || peer_read(c) != TG_OK) {
        tg_err_set(&err, TG_E_AUTH, "the client's certificate cannot be read");
        refuse(c, &res, 403, &err);
        tg_http_res_close(&res);
    } else if (call_handler(c, req, &r, &res, &err) != TG_OK) {
        refuse(c, &res, 0, &err);
    }
    c->served++;
    c->progress = tg_http_ms();
    if (c->server->draining)
        tg_http_res_close(&res);
    tg_http_res_send(c, req, &res, r.method == TG_HTTP_HEAD);
    tg_http_res_done(&res);
}

void tg_http_conn_request(struct evhttp_request *req, void *arg)
{
    struct tg_http_listener *l = arg;
    struct tg_http_server *s = l->server;
    struct evhttp_connection *evcon = evhttp_request_get_connection(req);
    int fd = bufferevent_getfd(evhttp_connection_get_bufferevent(evcon));
    struct tg_http_conn *c = fd >= 0 && (size_t)fd < s->by_fd_n ? s->by_fd[fd].conn : NULL;

    if (c == NULL || c->evcon != evcon) {
        evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
        evhttp_send_reply(req, 503, "Service Unavailable", NULL);
        return;
    }
    c->busy = true;
    c->progress = tg_http_ms();
    evhttp_request_set_on_complete_cb(req, on_complete, c);
    answer(c, req);
}
