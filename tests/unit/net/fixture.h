/* A real server in a thread of its own, on ports of the kernel's choice, with a CA and certificates
 * made for the test; and raw sockets to say to it what a well-behaved client would not. */
#ifndef TG_TESTS_NET_FIXTURE_H
#define TG_TESTS_NET_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "crypto/x509.h"
#include "net/http_client.h"
#include "net/http_server.h"

struct fx_cert {
    struct tg_buf cert, key;
};

struct fx {
    struct tg_x509_ca *ca;
    struct tg_buf ca_pem;
    struct fx_cert server;
    struct tg_loop *loop;
    struct tg_http_server *http;
    struct tg_http_server_opts opts; /* set before fx_start */
    uint32_t max_connections;        /* set before fx_start */
    uint16_t plain, tls;             /* ports */
    char unix_path[64];
    pthread_t thread;
    int command[2]; /* pipe: 's' stop, 'd' drain, 'r' retls */
    int file;       /* what /file serves */
    uint64_t file_size;
    atomic_int requests;
    const struct fx_cert *next; /* for fx_retls */
    atomic_int retls;
    atomic_int drained; /* 0 no, 1 clean, 2 cut off */
};

void fx_start(struct fx *fx);
void fx_drain(struct fx *fx, uint32_t idle_ms, uint32_t deadline_ms);
/* Give the server another certificate and wait until it has it. */
void fx_retls(struct fx *fx, const struct fx_cert *cert);
struct fx_cert fx_server_cert(struct fx *fx, const char *cn);
void fx_stop(struct fx *fx);
/* A client certificate; days < 0: one that ended yesterday; ca NULL: the fixture's. */
struct fx_cert fx_device(struct fx *fx, struct tg_x509_ca *ca, const char *id, int days);
void fx_cert_done(struct fx_cert *c);

/* A connected socket; -1 when refused. */
int fx_connect(uint16_t port);
void fx_send(int fd, const char *text);
/* Read until the other side closes or ms pass without a byte; NUL-terminated; tg_free. */
char *fx_recv(int fd, int ms, bool *closed);
/* One request on a fresh connection, raw; the whole answer. */
char *fx_raw(struct fx *fx, const char *request);
/* A client for "https://127.0.0.1:tls" (or plain), with a certificate if cert is not NULL. */
struct tg_http_client *fx_client(struct fx *fx, bool tls, const struct fx_cert *cert);

#endif
