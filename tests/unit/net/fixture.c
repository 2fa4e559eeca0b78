#include "fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/clock.h"
#include "base/mem.h"

static struct tg_err err;

/* --- what the server does -------------------------------------------------------------------- */

static TG_RC peer_page(const struct tg_http_req *req, struct tg_buf *out)
{
    if (req->peer == NULL)
        return tg_buf_str(out, "nobody");
    return tg_buf_printf(out, "%s %s", req->peer->cn, req->peer->serial);
}

static TG_RC args_page(const struct tg_http_req *req, struct tg_buf *out)
{
    TG_TRY(tg_buf_printf(out, "%s|%s", req->target->path, req->target->raw_query));
    for (size_t i = 0; i < req->target->args_n; i++)
        TG_TRY(tg_buf_printf(out, "|%s=%s", req->target->args[i].name, req->target->args[i].value));
    return tg_buf_printf(out, "|%s", req->client);
}

static enum tg_rc handler(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                          struct tg_err *e)
{
    struct fx *fx = arg;
    const char *path = req->target->path;
    struct tg_http_file file = {"application/octet-stream", "\"tag-1\"", -1, fx->file_size};
    struct tg_buf out = TG_BUF_INIT(1 << 20);

    atomic_fetch_add(&fx->requests, 1);
    if (strcmp(path, "/file") == 0) {
        file.fd = dup(fx->file);
        return tg_http_res_serve_file(req, res, &file);
    }
    if (strcmp(path, "/fail") == 0)
        return TG_FAIL(e, TG_E_EXISTS, "fleet \"%s\": already there", "ä\"b");
    if (strcmp(path, "/nothing") == 0)
        return TG_OK;
    if (strcmp(path, "/slow") == 0)
        tg_clock_sleep_ms(300);
    if (strcmp(path, "/stall") == 0)
        tg_clock_sleep_ms(2500);
    if (strcmp(path, "/close") == 0)
        tg_http_res_close(res);
    if (strcmp(path, "/echo") == 0 || strcmp(path, "/upload") == 0)
        return tg_http_res_body(res, "application/octet-stream", req->body);
    if (strcmp(path, "/peer") == 0)
        TG_TRY(peer_page(req, &out));
    else
        TG_TRY(args_page(req, &out));
    TG_TRY(tg_http_res_take(res, "text/plain", &out));
    return tg_http_res_header(res, "X-Method", tg_http_method_name(req->method));
}

static uint64_t limit(void *arg, enum tg_http_method method, const char *path, void *listener)
{
    (void)arg;
    (void)listener;
    if (strcmp(path, "/upload") == 0 && method == TG_HTTP_PUT)
        return 8 << 20;
    return strcmp(path, "/echo") == 0 ? 65536 : 0;
}

static void drained(void *arg, bool clean)
{
    struct fx *fx = arg;

    atomic_store(&fx->drained, clean ? 1 : 2);
}

struct drain_command {
    uint32_t what, idle_ms, deadline_ms; /* no padding: it goes through a pipe */
};

static struct tg_tls_opts tls_of(const struct fx *fx, const struct fx_cert *cert);

static void retls(struct fx *fx)
{
    struct tg_tls_opts tls = tls_of(fx, fx->next);
    struct tg_err e = TG_ERR_INIT;

    atomic_store(&fx->retls, tg_http_server_retls(fx->http, &tls, &e) == TG_OK ? 1 : 2);
}

static void on_command(void *arg)
{
    struct fx *fx = arg;
    struct drain_command cmd = {0};

    if (read(fx->command[0], &cmd, sizeof(cmd)) != (ssize_t)sizeof(cmd) || cmd.what == 's') {
        tg_loop_stop(fx->loop);
    } else if (cmd.what == 'r') {
        retls(fx);
    } else {
        struct tg_http_drain_opts d = {cmd.idle_ms, cmd.deadline_ms, drained, fx};

        tg_http_server_drain(fx->http, &d);
    }
}

static void *run(void *arg)
{
    struct fx *fx = arg;
    struct tg_err e = TG_ERR_INIT;

    if (tg_loop_run(fx->loop, &e) != TG_OK)
        abort();
    return NULL;
}

/* --- certificates ---------------------------------------------------------------------------- */

struct fx_cert fx_server_cert(struct fx *fx, const char *cn)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "::1"};
    struct tg_x509_server_opts o = {
        .cn = cn, .names = names, .names_n = 3, .now = tg_clock_now(), .days = 30};
    struct fx_cert c = {TG_BUF_INIT(65536), TG_BUF_SECRET(65536)};
    struct tg_x509_key *key = NULL;

    assert_ok(tg_x509_key_make(&key, &err));
    assert_ok(tg_x509_issue_server(fx->ca, key, &o, &c.cert, &err));
    assert_ok(tg_x509_key_to_pem(key, &c.key, &err));
    tg_x509_key_free(key);
    return c;
}

static struct tg_tls_opts tls_of(const struct fx *fx, const struct fx_cert *cert)
{
    return (struct tg_tls_opts){tg_buf_view(&cert->cert), tg_buf_view(&cert->key),
                                tg_buf_view(&fx->ca_pem)};
}

struct fx_cert fx_device(struct fx *fx, struct tg_x509_ca *ca, const char *id, int days)
{
    struct fx_cert c = {TG_BUF_INIT(65536), TG_BUF_SECRET(65536)};
    struct tg_buf csr = TG_BUF_INIT(65536);
    struct tg_x509_key *key = NULL;
    struct tg_x509_device_opts o = {.device_id = id, .now = tg_clock_now(), .days = 30};

    if (days < 0) {
        o.now -= (int64_t)31 * TG_X509_DAY;
        o.days = 30;
    }
    assert_ok(tg_x509_key_make(&key, &err));
    assert_ok(tg_x509_csr_make(key, "whatever it says", &csr, &err));
    assert_ok(tg_x509_issue_device(ca != NULL ? ca : fx->ca, tg_buf_view(&csr), &o, &c.cert, &err));
    assert_ok(tg_x509_key_to_pem(key, &c.key, &err));
    tg_x509_key_free(key);
    tg_buf_done(&csr);
    return c;
}

void fx_cert_done(struct fx_cert *c)
{
    tg_buf_done(&c->cert);
    tg_buf_done(&c->key);
}

/* --- life ------------------------------------------------------------------------------------ */

void fx_start(struct fx *fx)
{
    struct tg_tls_opts tls;
    struct tg_http_listen_opts o = {.address = "127.0.0.1", .max_connections = fx->max_connections};
    struct tg_unix_opts u = {.path = fx->unix_path, .mode = 0660, .gid = -1};

    fx->ca_pem = TG_BUF_INIT(65536);
    assert_ok(tg_x509_ca_make("test CA", tg_clock_now(), 365, &fx->ca, &err));
    assert_ok(tg_x509_ca_cert_pem(fx->ca, &fx->ca_pem, &err));
    fx->server = fx_server_cert(fx, "test server");
    tls = tls_of(fx, &fx->server);
    fx->opts.handler = handler;
    fx->opts.limit = limit;
    fx->opts.max_body = 16 << 20;
    fx->opts.arg = fx;
    assert_ok(tg_loop_new(&fx->loop, &err));
    assert_ok(tg_http_server_new(fx->loop, &fx->opts, &fx->http, &err));
    assert_ok(tg_http_server_listen(fx->http, &o, &fx->plain, &err));
    o.tls = &tls;
    assert_ok(tg_http_server_listen(fx->http, &o, &fx->tls, &err));
    (void)snprintf(fx->unix_path, sizeof(fx->unix_path), "/tmp/tg-net-%d.sock", (int)getpid());
    o.tls = NULL;
    assert_ok(tg_http_server_listen_unix(fx->http, &u, &o, &err));
    assert_int_equal(pipe2(fx->command, O_CLOEXEC), 0);
    assert_ok(tg_loop_fd(fx->loop, fx->command[0], TG_LOOP_READ, on_command, fx, NULL));
    assert_int_equal(pthread_create(&fx->thread, NULL, run, fx), 0);
}

static void command(struct fx *fx, struct drain_command cmd)
{
    assert_int_equal(write(fx->command[1], &cmd, sizeof(cmd)), sizeof(cmd));
}

void fx_drain(struct fx *fx, uint32_t idle_ms, uint32_t deadline_ms)
{
    command(fx, (struct drain_command){'d', idle_ms, deadline_ms});
}

void fx_retls(struct fx *fx, const struct fx_cert *cert)
{
    fx->next = cert;
    command(fx, (struct drain_command){.what = 'r'});
    for (int i = 0; i < 500 && atomic_load(&fx->retls) == 0; i++)
        tg_clock_sleep_ms(10);
    assert_int_equal(atomic_load(&fx->retls), 1);
}

void fx_stop(struct fx *fx)
{
    command(fx, (struct drain_command){.what = 's'});
    assert_int_equal(pthread_join(fx->thread, NULL), 0);
    tg_http_server_free(fx->http);
    tg_loop_free(fx->loop);
    (void)close(fx->command[0]);
    (void)close(fx->command[1]);
    tg_x509_ca_free(fx->ca);
    tg_buf_done(&fx->ca_pem);
    fx_cert_done(&fx->server);
}

/* --- clients --------------------------------------------------------------------------------- */

int fx_connect(uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

void fx_send(int fd, const char *text)
{
    size_t n = strlen(text);

    while (n > 0) {
        ssize_t k = send(fd, text, n, MSG_NOSIGNAL);

        if (k <= 0)
            return;
        text += k;
        n -= (size_t)k;
    }
}

char *fx_recv(int fd, int ms, bool *closed)
{
    struct tg_buf b = TG_BUF_INIT(64 << 20);
    char piece[65536];
    size_t n;

    *closed = false;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t k;

        if (poll(&p, 1, ms) <= 0)
            break;
        k = recv(fd, piece, sizeof(piece), 0);
        if (k <= 0) {
            *closed = true;
            break;
        }
        assert_int_equal(tg_buf_append(&b, piece, (size_t)k), TG_OK);
    }
    assert_int_equal(tg_buf_append(&b, "", 1), TG_OK);
    return (char *)tg_buf_take(&b, &n);
}

/* Is this one answer with all of its body? (Not knowing costs only waiting.) */
static bool whole(const struct tg_buf *b)
{
    const char *text = tg_buf_cstr(b);
    const char *end = strstr(text, "\r\n\r\n"), *len = strstr(text, "Content-Length: ");

    return end != NULL && len != NULL && len < end &&
           b->n == (size_t)(end + 4 - text) + (size_t)atoi(len + 16);
}

char *fx_raw(struct fx *fx, const char *request)
{
    struct tg_buf b = TG_BUF_INIT(1 << 20);
    struct pollfd p = {.fd = fx_connect(fx->plain), .events = POLLIN};
    char piece[65536];
    ssize_t k;
    size_t n;

    assert_true(p.fd >= 0);
    fx_send(p.fd, request);
    while (poll(&p, 1, b.n == 0 ? 5000 : whole(&b) ? 15 : 400) > 0) {
        k = recv(p.fd, piece, sizeof(piece), 0);
        if (k <= 0)
            break;
        assert_int_equal(tg_buf_append(&b, piece, (size_t)k), TG_OK);
    }
    (void)close(p.fd);
    assert_int_equal(tg_buf_append(&b, "", 1), TG_OK);
    return (char *)tg_buf_take(&b, &n);
}

struct tg_http_client *fx_client(struct fx *fx, bool tls, const struct fx_cert *cert)
{
    char url[64];
    struct tg_http_client *c = NULL;
    struct tg_http_client_opts o = {.base_url = url,
                                    .ca_pem = tls ? tg_buf_view(&fx->ca_pem) : TG_BYTES_NONE};

    (void)snprintf(url, sizeof(url), "%s://127.0.0.1:%u", tls ? "https" : "http",
                   tls ? fx->tls : fx->plain);
    if (cert != NULL) {
        o.cert_pem = tg_buf_view(&cert->cert);
        o.key_pem = tg_buf_view(&cert->key);
    }
    assert_ok(tg_http_client_new(&o, &c, &err));
    return c;
}
