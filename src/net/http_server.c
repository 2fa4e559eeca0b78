#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "net/http_server_internal.h"
#include "net/loop_internal.h"
#include "net/tls_internal.h"

#define SWEEP_MS 500
#define IDLE_SWEEP_MS 5000
#define DRAIN_SWEEP_MS 50

static const struct tg_http_server_opts defaults = {
    .max_body = 1048576,
    .max_head = 16384,
    .max_headers = 64,
    .head_timeout_ms = 10000,
    .body_grace_ms = 10000,
    .body_min_rate = 4096,
    .idle_timeout_ms = 75000,
    .send_timeout_ms = 30000,
};

static uint32_t or_default(uint32_t v, uint32_t d)
{
    return v != 0 ? v : d;
}

static struct tg_http_server_opts opts_fill(const struct tg_http_server_opts *in)
{
    struct tg_http_server_opts o = *in;

    o.max_body = o.max_body != 0 ? o.max_body : defaults.max_body;
    o.max_head = or_default(o.max_head, defaults.max_head);
    o.max_headers = or_default(o.max_headers, defaults.max_headers);
    if (o.max_headers > TG_HTTP_HEADERS_HARD_MAX)
        o.max_headers = TG_HTTP_HEADERS_HARD_MAX;
    o.head_timeout_ms = or_default(o.head_timeout_ms, defaults.head_timeout_ms);
    o.body_grace_ms = or_default(o.body_grace_ms, defaults.body_grace_ms);
    o.body_min_rate = or_default(o.body_min_rate, defaults.body_min_rate);
    o.idle_timeout_ms = or_default(o.idle_timeout_ms, defaults.idle_timeout_ms);
    o.send_timeout_ms = or_default(o.send_timeout_ms, defaults.send_timeout_ms);
    return o;
}

/* --- the server's own turns ------------------------------------------------------------------ */

void tg_http_server_wake(struct tg_http_server *s)
{
    event_active(s->attend, EV_TIMEOUT, 0);
}

static void drain_finish(struct tg_http_server *s)
{
    struct tg_http_drain_opts d = s->drain;
    bool clean = !s->cut;

    s->drained = true;
    if (d.done != NULL)
        d.done(d.arg, clean); /* may free s */
}

/* With no frame of evhttp below us: connections may be freed here. */
static void attend(evutil_socket_t fd, short what, void *arg)
{
    struct tg_http_server *s = arg;
    struct tg_http_conn *c;

    (void)fd;
    (void)what;
    while ((c = TAILQ_FIRST(&s->attention)) != NULL) {
        TAILQ_REMOVE(&s->attention, c, attention_link);
        c->queued = false;
        tg_http_conn_attend(c);
    }
    if (s->draining && !s->drained && s->connections == 0)
        drain_finish(s);
}

static bool sweep_in(struct tg_http_server *s, uint32_t ms)
{
    s->sweep_due = tg_http_ms() + ms;
    return tg_loop_rearm(s->sweep, ms) == TG_OK;
}

void tg_http_server_sweep_on(struct tg_http_server *s)
{
    if (!s->sweeping)
        s->sweeping = sweep_in(s, s->draining ? DRAIN_SWEEP_MS : SWEEP_MS);
}

/* Also gives listeners that ran out of descriptors another try. */
static void sweep(void *arg)
{
    struct tg_http_server *s = arg;
    struct tg_http_listener *l;

    s->sweeping = false;
    tg_http_conn_sweep(s);
    LIST_FOREACH(l, &s->listeners, link)
    tg_http_listener_accept(l);
    if (s->connections > 0 || !LIST_EMPTY(&s->lingering))
        tg_http_server_sweep_on(s);
    else
        (void)sweep_in(s, IDLE_SWEEP_MS);
}

/* --- life ------------------------------------------------------------------------------------ */

TG_RC tg_http_server_new(struct tg_loop *loop, const struct tg_http_server_opts *opts,
                         struct tg_http_server **out, struct tg_err *err)
{
    TG_AUTO(tg_http_server_freep) struct tg_http_server *s = tg_calloc(1, sizeof(*s));

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    tg_net_ignore_sigpipe();
    LIST_INIT(&s->listeners);
    LIST_INIT(&s->conns);
    TAILQ_INIT(&s->attention);
    LIST_INIT(&s->lingering);
    s->loop = loop;
    s->opts = opts_fill(opts);
    s->attend = event_new(tg_loop_base(loop), -1, 0, attend, s);
    if (s->attend == NULL || tg_loop_after(loop, 0, sweep, s, &s->sweep) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    *out = tg_steal(&s);
    return TG_OK;
}

static void accept_stop(struct tg_http_listener *l)
{
    if (l->bound != NULL)
        evhttp_del_accept_socket(l->http, l->bound);
    l->bound = NULL;
}

static void listener_free(struct tg_http_listener *l)
{
    LIST_REMOVE(l, link);
    accept_stop(l);
    if (l->http != NULL)
        evhttp_free(l->http); /* closes its connections → on_close */
    SSL_CTX_free(l->tls);
    if (l->unix_path != NULL)
        (void)unlink(l->unix_path);
    tg_free(l->unix_path);
    tg_free(l);
}

void tg_http_server_free(struct tg_http_server *s)
{
    struct tg_http_listener *l;
    struct tg_http_conn *c, *next;

    if (s == NULL)
        return;
    /* Connections just accepted hold a reference until attended to. */
    for (c = TAILQ_FIRST(&s->attention); c != NULL; c = next) {
        next = TAILQ_NEXT(c, attention_link);
        TAILQ_REMOVE(&s->attention, c, attention_link);
        c->queued = false;
        tg_http_conn_attend(c);
    }
    while ((l = LIST_FIRST(&s->listeners)) != NULL)
        listener_free(l);
    tg_http_linger_end(s, UINT64_MAX);
    if (s->attend != NULL)
        event_free(s->attend);
    tg_loop_item_free(s->sweep);
    tg_free(s->by_fd);
    tg_free(s);
}

size_t tg_http_server_connections(const struct tg_http_server *s)
{
    return s->connections;
}

/* --- listeners ------------------------------------------------------------------------------- */

void tg_http_listener_accept(struct tg_http_listener *l)
{
    struct evconnlistener *lev;

    if (l->bound == NULL)
        return;
    lev = evhttp_bound_socket_get_listener(l->bound);
    if (l->paused || l->connections >= l->max_connections)
        (void)evconnlistener_disable(lev);
    else
        (void)evconnlistener_enable(lev);
}

/* accept failed for want of descriptors or memory: a level-triggered loop would spin on it. The
 * next sweep enables the listener again. */
static void on_accept_error(struct evconnlistener *lev, void *arg)
{
    (void)arg;
    (void)evconnlistener_disable(lev);
}

static TG_RC listener_http(struct tg_http_listener *l, int fd, struct tg_err *err)
{
    const unsigned methods = EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
                             EVHTTP_REQ_PATCH | EVHTTP_REQ_DELETE;
    struct event_base *base = tg_loop_base(l->server->loop);
    struct evconnlistener *lev;

    l->http = evhttp_new(base);
    lev = l->http == NULL
              ? NULL
              : evconnlistener_new(base, NULL, NULL,
                                   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED,
                                   0, fd);
    if (lev == NULL) {
        tg_fd_close(fd);
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    l->bound = evhttp_bind_listener(l->http, lev);
    if (l->bound == NULL) {
        evconnlistener_free(lev);
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    evconnlistener_set_error_cb(lev, on_accept_error);
    evhttp_set_bevcb(l->http, tg_http_conn_new, l);
    evhttp_set_gencb(l->http, tg_http_conn_request, l);
    evhttp_set_allowed_methods(l->http, (ev_uint16_t)methods);
    evhttp_set_default_content_type(l->http, NULL);
    return TG_OK;
}

/* Owns fd from here on. */
static TG_RC listener_add(struct tg_http_server *s, int fd, const struct tg_http_listen_opts *o,
                          struct tg_http_listener **out, struct tg_err *err)
{
    struct tg_http_listener *l = tg_calloc(1, sizeof(*l));
    enum tg_rc rc = TG_OK;

    if (l == NULL) {
        tg_fd_close(fd);
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    LIST_INSERT_HEAD(&s->listeners, l, link);
    l->server = s;
    l->arg = o->arg;
    l->paused = o->paused;
    l->max_connections = or_default(o->max_connections, 1024);
    if (o->tls != NULL)
        rc = tg_tls_server_ctx(o->tls, &l->tls, err);
    if (rc == TG_OK)
        rc = listener_http(l, fd, err);
    else
        tg_fd_close(fd);
    if (rc != TG_OK) {
        listener_free(l);
        return rc;
    }
    tg_http_listener_accept(l);
    *out = l;
    return TG_OK;
}

TG_RC tg_http_server_listen_fd(struct tg_http_server *s, int fd,
                               const struct tg_http_listen_opts *opts, struct tg_err *err)
{
    struct tg_http_listener *l;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        int saved = errno;

        tg_fd_close(fd);
        errno = saved;
        return TG_FAIL_ERRNO(err, TG_E_IO, "listening descriptor %d", fd);
    }
    return listener_add(s, fd, opts, &l, err);
}

TG_RC tg_http_server_listen(struct tg_http_server *s, const struct tg_http_listen_opts *opts,
                            uint16_t *port_out, struct tg_err *err)
{
    struct tg_http_listener *l;
    int fd = -1;

    TG_TRY(tg_listen_tcp(opts->address, opts->port, &fd, port_out, err));
    return listener_add(s, fd, opts, &l, err);
}

TG_RC tg_http_server_listen_unix(struct tg_http_server *s, const struct tg_unix_opts *unix_opts,
                                 const struct tg_http_listen_opts *opts, struct tg_err *err)
{
    struct tg_http_listener *l;
    int fd = -1;

    TG_TRY(tg_listen_unix(unix_opts, &fd, err));
    TG_TRY(listener_add(s, fd, opts, &l, err));
    l->unix_path = tg_strdup(unix_opts->path);
    return TG_OK;
}

void tg_http_server_resume(struct tg_http_server *s)
{
    struct tg_http_listener *l;

    LIST_FOREACH(l, &s->listeners, link)
    {
        l->paused = false;
        tg_http_listener_accept(l);
    }
}

TG_RC tg_http_server_retls(struct tg_http_server *s, const struct tg_tls_opts *tls,
                           struct tg_err *err)
{
    SSL_CTX *ctx = NULL;
    struct tg_http_listener *l;

    TG_TRY(tg_tls_server_ctx(tls, &ctx, err));
    LIST_FOREACH(l, &s->listeners, link)
    {
        if (l->tls == NULL)
            continue;
        SSL_CTX_free(l->tls);
        (void)SSL_CTX_up_ref(ctx);
        l->tls = ctx;
    }
    SSL_CTX_free(ctx);
    return TG_OK;
}

void tg_http_server_drain(struct tg_http_server *s, const struct tg_http_drain_opts *opts)
{
    struct tg_http_listener *l;

    if (s->draining)
        return;
    s->draining = true;
    s->drain = *opts;
    s->drain_since = tg_http_ms();
    LIST_FOREACH(l, &s->listeners, link)
    accept_stop(l);
    s->sweeping = false; /* re-armed with the shorter period */
    tg_http_server_sweep_on(s);
    tg_http_server_wake(s);
}
