/* What the files of the HTTP server share.
 *
 *   http_server.c    listeners, life and drain of a server
 *   http_conn.c      one connection: from accept to its end, timeouts, requests to the handler
 *   http_feed.c      which of its bytes reach evhttp
 *   http_response.c  one answer: what a handler sets, and sending it
 *
 * A connection's bytes go: socket → (TLS) → bufferevent → tg_http_conn_input, which keeps a head
 * back until it is whole and checked → evhttp → tg_http_conn_request → handler → evhttp →
 * bufferevent. */
#ifndef TG_NET_HTTP_SERVER_INTERNAL_H
#define TG_NET_HTTP_SERVER_INTERNAL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "net/http_server.h"

#define TG_HTTP_HEADERS_HARD_MAX 128

struct tg_http_listener {
    struct tg_http_server *server;
    struct evhttp *http;
    struct evhttp_bound_socket *bound; /* NULL once draining */
    SSL_CTX *tls;                      /* NULL: plain */
    void *arg;
    size_t connections, max_connections;
    bool paused; /* until tg_http_server_resume */
    char *unix_path;
    LIST_ENTRY(tg_http_listener) link;
};

/* A file on its way out. */
struct tg_http_stream {
    struct evhttp_request *req; /* NULL: none */
    int fd;
    uint64_t off, left;
};

struct tg_http_refusal {
    unsigned status;
    uint64_t at; /* which request of the connection it stands for */
    struct tg_err err;
};

struct tg_http_conn {
    struct tg_http_server *server;
    struct tg_http_listener *listener;
    struct bufferevent *bev;
    int fd;                          /* index in server->by_fd, or -1 */
    struct evhttp_connection *evcon; /* NULL until attended to */
    SSL *ssl;                        /* borrowed from bev; NULL: plain */

    /* The guard. */
    struct evbuffer *hold;           /* bytes evhttp must not see yet */
    size_t scanned;                  /* of hold, searched for the end of a head */
    uint64_t body_left;              /* still to come of a body whose head went through */
    uint64_t fed, served;            /* requests given to evhttp, and come back from it */
    struct tg_http_refusal *refusal; /* nothing more is taken from this connection */
    uint64_t discarded;
    bool inside; /* on_input itself is moving bytes */

    /* Time, monotonic milliseconds. */
    uint64_t opened, head_since, body_since, idle_since, progress;
    uint64_t body_got;

    bool busy;   /* a request is with its handler, or its answer on the way */
    bool doomed; /* to be closed by attend() */
    bool queued; /* in server->attention */
    bool has_peer, peer_known;
    struct tg_x509_facts peer;
    char client[64];
    struct tg_http_stream stream;
    LIST_ENTRY(tg_http_conn) link;
    TAILQ_ENTRY(tg_http_conn) attention_link;
};

/* The connection on a descriptor, or none. */
struct tg_http_slot {
    struct tg_http_conn *conn;
};

/* The socket of a handshake that failed, kept open until the client has read why: closing it with
 * unread bytes would reset the connection and take the alert with it. */
struct tg_http_linger {
    struct tg_http_server *server;
    struct tg_loop_item *item;
    int fd;
    uint64_t since;
    LIST_ENTRY(tg_http_linger) link;
};

struct tg_http_server {
    struct tg_loop *loop;
    struct tg_http_server_opts opts;
    LIST_HEAD(, tg_http_listener) listeners;
    LIST_HEAD(, tg_http_conn) conns;
    TAILQ_HEAD(, tg_http_conn) attention;
    LIST_HEAD(, tg_http_linger) lingering;
    struct tg_http_slot *by_fd;
    size_t by_fd_n;
    size_t connections;
    struct event *attend; /* made active to look at `attention` from a clean stack */
    struct tg_loop_item *sweep;
    bool sweeping;      /* soon, because there are connections */
    uint64_t sweep_due; /* when; monotonic ms */
    bool draining, drained, cut;
    uint64_t drain_since;
    struct tg_http_drain_opts drain;
};

struct tg_http_res {
    unsigned status;
    struct tg_http_header *headers; /* name and value are ours */
    size_t headers_n;
    char *type;
    struct tg_buf body;
    int fd;
    uint64_t off, len;
    bool close;
};

uint64_t tg_http_ms(void);

/* http_feed.c: callback of a connection's input buffer (arg is the connection). */
void tg_http_conn_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg);
/* Its time is up: refuse what has come of a request (408), and end the connection after it. Only
 * from a clean stack. False: nothing of a request has come, or it is refused already. */
bool tg_http_conn_late(struct tg_http_conn *c);

/* http_conn.c */
struct bufferevent *tg_http_conn_new(struct event_base *base, void *listener);
void tg_http_conn_doom(struct tg_http_conn *c);
/* Close at once. Only from a clean stack (timers, attend), never below evhttp. */
void tg_http_conn_kill(struct tg_http_conn *c);
void tg_http_conn_sweep(struct tg_http_server *s);
/* A new connection that evhttp has set up, or one that is doomed. */
void tg_http_conn_attend(struct tg_http_conn *c);
/* Forget sockets that linger since before `before` (monotonic ms; UINT64_MAX: all). */
void tg_http_linger_end(struct tg_http_server *s, uint64_t before);
/* evhttp's generic callback; arg is the listener. */
void tg_http_conn_request(struct evhttp_request *req, void *arg);

/* http_server.c */
void tg_http_server_wake(struct tg_http_server *s);
void tg_http_server_sweep_on(struct tg_http_server *s);
void tg_http_listener_accept(struct tg_http_listener *l);

/* http_response.c */
void tg_http_res_init(struct tg_http_res *res);
void tg_http_res_done(struct tg_http_res *res);
/* Hand the answer to evhttp. On return c may only be used if it is still streaming. */
void tg_http_res_send(struct tg_http_conn *c, struct evhttp_request *req, struct tg_http_res *res,
                      bool head);
void tg_http_stream_end(struct tg_http_conn *c);

#endif
