/* Devices checking in: C kept-alive mutual-TLS connections, each its own thread and its own
 * certificate, asking as fast as the platform answers (closed loop) for a number of seconds. Prints
 * one JSON object.
 *
 *   bench_load PORT CA.pem PATH BODY-FILE SECONDS CERT.pem KEY.pem [CERT.pem KEY.pem]...
 *
 * Straight on libssl, so that little of the measured time is the generator's own. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define CONNECTIONS_MAX 64
#define SAMPLES_MAX 2000000

struct conn {
    const char *cert, *key;
    pthread_t thread;
    uint32_t *us; /* latency of each request */
    size_t n, refused;
    uint64_t handshake_us;
};

static struct {
    int port;
    const char *ca;
    char request[8192];
    size_t request_n;
    double seconds;
    pthread_barrier_t ready;
} cfg;

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_load: %s\n", what);
    exit(1);
}

static SSL *dial(const struct conn *c)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)cfg.port)};
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    char groups[] = "X25519MLKEM768:X25519:P-256";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    SSL *ssl;

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set1_groups_list(ctx, groups) != 1 ||
        SSL_CTX_load_verify_locations(ctx, cfg.ca, NULL) != 1 ||
        SSL_CTX_use_certificate_file(ctx, c->cert, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, c->key, SSL_FILETYPE_PEM) != 1)
        die("certificates cannot be read");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0)
        die("no connection");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1)
        die("the handshake failed");
    SSL_CTX_free(ctx);
    return ssl;
}

/* One request and its whole answer; the status. */
static int ask(SSL *ssl)
{
    char buf[65536];
    size_t n = 0, need = 0;

    if (SSL_write(ssl, cfg.request, (int)cfg.request_n) != (int)cfg.request_n)
        die("a request could not be sent");
    for (;;) {
        int k = SSL_read(ssl, buf + n, (int)(sizeof(buf) - 1 - n));
        char *end, *len;

        if (k <= 0)
            die("the connection broke");
        n += (size_t)k;
        buf[n] = '\0';
        end = strstr(buf, "\r\n\r\n");
        if (end == NULL)
            continue;
        len = strcasestr(buf, "\r\nContent-Length: ");
        need =
            (size_t)(end + 4 - buf) + (len != NULL && len < end ? strtoul(len + 18, NULL, 10) : 0);
        if (n >= need)
            return atoi(buf + 9);
        if (need >= sizeof(buf))
            die("an answer is too large");
    }
}

static void *run(void *arg)
{
    struct conn *c = arg;
    uint64_t t0 = tg_clock_mono_ns(), until, t;
    SSL *ssl = dial(c);

    c->handshake_us = (tg_clock_mono_ns() - t0) / 1000;
    for (int i = 0; i < 20; i++) /* warm */
        (void)ask(ssl);
    (void)pthread_barrier_wait(&cfg.ready);
    t = tg_clock_mono_ns();
    until = t + (uint64_t)(cfg.seconds * 1e9);
    while (t < until && c->n < SAMPLES_MAX) {
        int status = ask(ssl);
        uint64_t now = tg_clock_mono_ns();

        c->refused += status != 200;
        c->us[c->n++] = (uint32_t)((now - t) / 1000);
        t = now;
    }
    SSL_free(ssl);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void request_post(const char *path, const char *body_file)
{
    char body[4096];
    FILE *f = fopen(body_file, "r");
    size_t n;

    if (f == NULL)
        die("no body file");
    n = fread(body, 1, sizeof(body) - 1, f);
    (void)fclose(f);
    body[n] = '\0';
    cfg.request_n =
        (size_t)snprintf(cfg.request, sizeof(cfg.request),
                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         path, n, body);
}

static void request_make(const char *path, const char *body_file)
{
    if (strcmp(body_file, "-") == 0) {
        cfg.request_n = (size_t)snprintf(cfg.request, sizeof(cfg.request),
                                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
        return;
    }
    request_post(path, body_file);
}

static void report(struct conn *conns, size_t k)
{
    size_t total = 0, refused = 0, at = 0;
    uint64_t shake = 0;
    uint32_t *all;

    for (size_t i = 0; i < k; i++) {
        total += conns[i].n;
        refused += conns[i].refused;
        shake += conns[i].handshake_us;
    }
    all = calloc(total + 1, sizeof(*all));
    if (all == NULL || total == 0)
        die("nothing was measured");
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < conns[i].n; j++)
            all[at++] = conns[i].us[j];
    qsort(all, total, sizeof(*all), by_value);
    (void)printf("{\"connections\": %zu, \"requests\": %zu, \"not_200\": %zu, \"per_second\": "
                 "%.1f, \"p50_ms\": %.3f, "
                 "\"p99_ms\": %.3f, \"max_ms\": %.3f, \"handshake_ms\": %.2f}\n",
                 k, total, refused, (double)total / cfg.seconds, all[total / 2] / 1e3,
                 all[total * 99 / 100] / 1e3, all[total - 1] / 1e3,
                 (double)shake / 1e3 / (double)k);
    free(all);
}

int main(int argc, char **argv)
{
    static struct conn conns[CONNECTIONS_MAX];
    size_t k = argc > 7 ? (size_t)(argc - 6) / 2 : 0;

    if (k == 0 || k > CONNECTIONS_MAX || (argc - 6) % 2 != 0)
        die("usage: PORT CA PATH BODY-FILE SECONDS (CERT KEY)...");
    (void)signal(SIGPIPE, SIG_IGN);
    cfg.port = atoi(argv[1]);
    cfg.ca = argv[2];
    cfg.seconds = strtod(argv[5], NULL);
    request_make(argv[3], argv[4]);
    if (pthread_barrier_init(&cfg.ready, NULL, (unsigned)k) != 0)
        die("no barrier");
    for (size_t i = 0; i < k; i++) {
        conns[i].cert = argv[6 + 2 * i];
        conns[i].key = argv[7 + 2 * i];
        conns[i].us = calloc(SAMPLES_MAX, sizeof(uint32_t));
        if (conns[i].us == NULL || pthread_create(&conns[i].thread, NULL, run, &conns[i]) != 0)
            die("no thread");
    }
    for (size_t i = 0; i < k; i++)
        (void)pthread_join(conns[i].thread, NULL);
    report(conns, k);
    return 0;
}
