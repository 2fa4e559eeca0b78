#include "platform/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "platform/blobs.h"
#include "platform/call.h"

#define THREADS_MAX 16
#define NAMES_MAX 64 /* of one certificate */
#define LISTENERS 2
#define FLUSH_MS 500
#define TIDY_MS 60000
#define CERT_MS (24U * 3600 * 1000)
#define DRAIN_IDLE_MS 300
#define DRAIN_MS 10000
#define PEOPLE_CONNECTIONS 64 /* per thread; each may hold one part of an upload in memory */
#define DEVICE_CONNECTIONS 4096

struct thread {
    struct tg_worker worker;
    const char *host; /* the address its listener is bound to */
    pthread_t id;
    bool started;
    int fd;   /* the listening socket, this thread's copy */
    int wake; /* eventfd: drain now */
    struct tg_loop *loop;
    struct tg_http_server *server;
    struct tg_loop_item *wake_item, *cert_item;
};

struct service {
    struct tg_platform *p;
    struct thread threads[LISTENERS * THREADS_MAX];
    size_t n;
    struct tg_db *db; /* housekeeping's */
    struct tg_loop *loop;
};

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

/* ---- listening ---- */

struct bound {
    const char *option;
    const char *spec; /* "address:port" */
    unsigned listener;
    char host[64];
    uint16_t port;
    int fd;
};

static enum tg_rc bind_one(struct bound *b, struct tg_err *err)
{
    const char *colon = strrchr(b->spec, ':');
    uint64_t port = 0;
    size_t n = colon != NULL ? (size_t)(colon - b->spec) : 0;

    if (colon == NULL || n == 0 || n >= sizeof(b->host) ||
        tg_parse_u64(colon + 1, 65535, &port) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "%s %s: give ADDRESS:PORT, e.g. 127.0.0.1:8443", b->option,
                       b->spec);
    if (b->spec[0] == '[' && colon[-1] == ']')
        (void)snprintf(b->host, sizeof(b->host), "%.*s", (int)n - 2, b->spec + 1);
    else
        (void)snprintf(b->host, sizeof(b->host), "%.*s", (int)n, b->spec);
    return tg_listen_tcp(b->host, (uint16_t)port, &b->fd, &b->port, err);
}

static bool is_wildcard(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* What clients are told: the first --name, or the address bound. Nobody can connect to "any
 * address". */
static char *url_of(const struct tg_platform *p, const struct bound *b)
{
    const char *host = p->config->names.n != 0 ? p->config->names.v[0] : b->host;

    if (is_wildcard(host)) {
        tg_log(TG_LOG_WARN, "platform.name",
               "listen=%s hint=give --name so that clients are told an address they can reach",
               b->spec);
        host = "localhost";
    }
    return strchr(host, ':') != NULL ? tg_asprintf("https://[%s]:%u", host, b->port)
                                     : tg_asprintf("https://%s:%u", host, b->port);
}

struct endpoints {
    const char *api_url, *device_url, *version, *ca;
    uint64_t api_port, device_port, pid;
};

#define T struct endpoints
static const struct tg_jfield endpoints_fields[] = {
    TG_J_STR(T, api_url, 1, TG_WIRE_URL_MAX, TG_J_REQ),
    TG_J_STR(T, device_url, 1, TG_WIRE_URL_MAX, TG_J_REQ),
    TG_J_U64(T, api_port, 1, 65535, TG_J_REQ),
    TG_J_U64(T, device_port, 1, 65535, TG_J_REQ),
    TG_J_U64(T, pid, 1, INT32_MAX, TG_J_REQ),
    TG_J_STR(T, version, 1, 64, TG_J_REQ),
    TG_J_STR(T, ca, 1, 4096, TG_J_REQ),
};
static const struct tg_jschema endpoints_schema =
    TG_J_SCHEMA(T, endpoints_fields, TG_J_IGNORE_UNKNOWN);
#undef T

static enum tg_rc write_endpoints(const struct tg_platform *p, const struct bound *b,
                                  struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(16384);
    TG_AUTO(tg_freep) char *dir = tg_path_join(p->config->data_dir, "run");
    TG_AUTO(tg_freep) char *path = tg_path_join(p->config->data_dir, "run/endpoints.json");
    TG_AUTO(tg_freep) char *ca = tg_path_join(p->config->data_dir, "ca.pem");

    if (dir == NULL || path == NULL || ca == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    const struct endpoints e = {.api_url = p->api_url,
                                .device_url = p->device_url,
                                .version = TG_VERSION,
                                .ca = ca,
                                .api_port = b[0].port,
                                .device_port = b[1].port,
                                .pid = (uint64_t)getpid()};
    TG_TRY(tg_dir_make(dir, 0755, err));
    TG_TRY(tg_json_encode(&endpoints_schema, &e, &out, err));
    TG_TRY(tg_buf_str(&out, "\n"));
    return tg_file_write(path, tg_buf_view(&out), 0644, true, err);
}

/* ---- threads ---- */

static void add_name(struct tg_opt_list *names, const char **v, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(v[i], name) == 0)
            return;
    if (names->n < NAMES_MAX)
        v[names->n++] = name;
}

static enum tg_rc make_tls(const struct thread *t, struct tg_tls_pair *pair,
                           struct tg_tls_opts *tls, struct tg_err *err)
{
    const struct tg_platform *p = t->worker.p;
    const char *v[NAMES_MAX] = {"localhost", "127.0.0.1", "::1"};
    struct tg_opt_list names = {v, 3};

    if (!is_wildcard(t->host))
        add_name(&names, v, t->host);
    for (size_t i = 0; i < p->config->names.n; i++)
        add_name(&names, v, p->config->names.v[i]);
    TG_TRY(tg_keys_server_cert(p->keys, &names, tg_clock_now(), pair, err));
    tls->cert_pem = tg_buf_view(&pair->cert);
    tls->key_pem = tg_buf_view(&pair->key);
    tls->client_ca = t->worker.listener == TG_LISTEN_DEVICES ? tg_buf_view(&p->keys->device_ca_pem)
                                                             : TG_BYTES_NONE;
    return TG_OK;
}

static void on_cert(void *arg)
{
    struct thread *t = arg;
    TG_AUTO(tg_tls_pair_done) struct tg_tls_pair pair = TG_TLS_PAIR_INIT;
    struct tg_tls_opts tls;
    struct tg_err err = TG_ERR_INIT;

    if (make_tls(t, &pair, &tls, &err) != TG_OK ||
        tg_http_server_retls(t->server, &tls, &err) != TG_OK)
        tg_log_err("platform.certificate", &err);
}

static void on_drained(void *arg, bool clean)
{
    struct thread *t = arg;

    if (!clean)
        tg_log(TG_LOG_WARN, "platform.drain", "cut=%d", 1);
    tg_loop_stop(t->loop);
}

static void on_wake(void *arg)
{
    struct thread *t = arg;
    const struct tg_http_drain_opts opts = {DRAIN_IDLE_MS, DRAIN_MS, on_drained, t};

    tg_loop_item_free(t->wake_item);
    t->wake_item = NULL;
    tg_http_server_drain(t->server, &opts);
}

static void on_done(void *arg, const struct tg_http_req *req, unsigned status)
{
    struct tg_worker *w = arg;

    (void)req;
    if (status / 100 < TG_ARRAY_LEN(w->p->requests))
        atomic_fetch_add_explicit(&w->p->requests[status / 100], 1, memory_order_relaxed);
}

/* Everything a thread needs, made before it starts so that a failure stops the start. */
static enum tg_rc prepare(struct thread *t, struct tg_err *err)
{
    TG_AUTO(tg_tls_pair_done) struct tg_tls_pair pair = TG_TLS_PAIR_INIT;
    bool devices = t->worker.listener == TG_LISTEN_DEVICES;
    const struct tg_http_server_opts opts = {.handler = tg_dispatch,
                                             .limit = tg_dispatch_limit,
                                             .done = on_done,
                                             .arg = &t->worker,
                                             .max_body =
                                                 devices ? TG_WIRE_BODY_MAX : TG_WIRE_PART_MAX};
    struct tg_tls_opts tls;

    t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "no eventfd");
    TG_TRY(tg_store_connect(t->worker.p->store, &t->worker.db, err));
    TG_TRY(tg_loop_new(&t->loop, err));
    TG_TRY(tg_http_server_new(t->loop, &opts, &t->server, err));
    TG_TRY(make_tls(t, &pair, &tls, err));
    const struct tg_http_listen_opts listen = {
        .tls = &tls, .max_connections = devices ? DEVICE_CONNECTIONS : PEOPLE_CONNECTIONS};
    int fd = t->fd;
    t->fd = -1;
    TG_TRY(tg_http_server_listen_fd(t->server, fd, &listen, err));
    TG_TRY(tg_loop_fd(t->loop, t->wake, TG_LOOP_READ, on_wake, t, &t->wake_item));
    return tg_loop_every(t->loop, CERT_MS, on_cert, t, &t->cert_item);
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    struct tg_err err = TG_ERR_INIT;

    if (tg_loop_run(t->loop, &err) != TG_OK)
        tg_log_err("platform.loop", &err);
    return NULL;
}

static void discard(struct thread *t)
{
    tg_loop_item_free(t->wake_item);
    tg_loop_item_free(t->cert_item);
    tg_http_server_free(t->server);
    tg_loop_free(t->loop);
    tg_db_close(t->worker.db);
    tg_fd_close(t->wake);
    tg_fd_close(t->fd);
}

static enum tg_rc add_threads(struct service *s, const struct bound *b, struct tg_err *err)
{
    for (uint64_t i = 0; i < s->p->config->threads; i++) {
        struct thread *t = &s->threads[s->n];
        *t = (struct thread){.fd = -1, .wake = -1};
        s->n++;
        t->worker = (struct tg_worker){.p = s->p, .listener = b->listener};
        t->host = b->host;
        t->fd = fcntl(b->fd, F_DUPFD_CLOEXEC, 3);
        if (t->fd < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "no descriptor");
        TG_TRY(prepare(t, err));
    }
    return TG_OK;
}

/* ---- housekeeping: the main thread ---- */

static void on_flush(void *arg)
{
    struct service *s = arg;
    struct tg_err err = TG_ERR_INIT;

    if (tg_beats_flush(s->p->beats, s->db, &err) != TG_OK)
        tg_log_err("platform.heartbeats", &err);
}

static void on_tidy(void *arg)
{
    struct service *s = arg;
    struct tg_err err = TG_ERR_INIT;

    if (tg_uploads_expire(s->p, s->db, tg_clock_now(), &err) != TG_OK)
        tg_log_err("platform.uploads", &err);
}

static void on_stop(void *arg)
{
    struct service *s = arg;

    if (!atomic_exchange(&s->p->draining, true))
        tg_log(TG_LOG_INFO, "platform.stopping", "pid=%ld", (long)getpid());
    tg_loop_stop(s->loop);
}

static enum tg_rc housekeeping(struct service *s, struct tg_err *err)
{
    TG_TRY(tg_loop_every(s->loop, FLUSH_MS, on_flush, s, NULL));
    TG_TRY(tg_loop_every(s->loop, TIDY_MS, on_tidy, s, NULL));
    on_tidy(s); /* what expired while the platform was down */
    return tg_loop_run(s->loop, err);
}

static enum tg_rc start(struct service *s, struct tg_err *err)
{
    sigset_t all, before;
    enum tg_rc rc = TG_OK;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the main thread's */
    for (size_t i = 0; i < s->n && rc == TG_OK; i++) {
        struct thread *t = &s->threads[i];
        t->started = pthread_create(&t->id, NULL, thread_main, t) == 0;
        if (!t->started)
            rc = TG_FAIL(err, TG_E_INTERNAL, "can't start a thread");
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void stop(struct service *s)
{
    const uint64_t one = 1;

    for (size_t i = 0; i < s->n; i++)
        if (s->threads[i].started && write(s->threads[i].wake, &one, sizeof(one)) < 0)
            tg_log(TG_LOG_WARN, "platform.drain", "thread=%zu", i);
    for (size_t i = 0; i < s->n; i++)
        if (s->threads[i].started)
            (void)pthread_join(s->threads[i].id, NULL);
    for (size_t i = 0; i < s->n; i++)
        discard(&s->threads[i]);
}

static enum tg_rc run(struct service *s, struct bound *b, struct tg_err *err)
{
    struct tg_platform *p = s->p;

    for (size_t i = 0; i < LISTENERS; i++)
        TG_TRY(bind_one(&b[i], err));
    p->api_url = url_of(p, &b[0]);
    p->device_url = url_of(p, &b[1]);
    if (p->api_url == NULL || p->device_url == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_loop_signal(s->loop, SIGTERM, on_stop, s, NULL));
    TG_TRY(tg_loop_signal(s->loop, SIGINT, on_stop, s, NULL));
    for (size_t i = 0; i < LISTENERS; i++)
        TG_TRY(add_threads(s, &b[i], err));
    TG_TRY(start(s, err));
    TG_TRY(write_endpoints(p, b, err));
    tg_log(TG_LOG_INFO, "platform.ready", "people=%s devices=%s", p->api_url, p->device_url);
    return housekeeping(s, err);
}

TG_RC tg_platform_serve(struct tg_platform *p, struct tg_err *err)
{
    struct bound b[LISTENERS] = {
        {.option = "--listen",        .spec = p->config->listen, .listener = TG_LISTEN_PEOPLE, .fd = -1},
        {.option = "--device-listen",
         .spec = p->config->device_listen,
         .listener = TG_LISTEN_DEVICES,
         .fd = -1                                                                                      },
    };
    struct service *s = tg_calloc(1, sizeof(*s));
    enum tg_rc rc;

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    s->p = p;
    rc = tg_store_connect(p->store, &s->db, err);
    if (rc == TG_OK)
        rc = tg_loop_new(&s->loop, err);
    if (rc == TG_OK)
        rc = run(s, b, err);
    atomic_store(&p->draining, true);
    stop(s);
    for (size_t i = 0; i < LISTENERS; i++)
        tg_fd_close(b[i].fd);
    if (s->db != NULL)
        on_flush(s);
    tg_loop_free(s->loop);
    tg_db_close(s->db);
    tg_free(s);
    return rc;
}
