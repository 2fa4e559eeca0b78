/* HTTP/1.1 server: libevent's evhttp over plain sockets or TLS 1.3, behind our own strict front.
 *
 * Before evhttp sees a byte of a request, our own scanner (net/http_guard.h) has checked the whole
 * head: one Content-Length or none, no Transfer-Encoding (411: send a length), no bare LF, folded
 * lines, NUL or control characters, no HTTP/1.0, sizes and counts within limits, and the body's
 * length against the limit of its route. A refused request is answered with problem details (or as
 * plain_errors says) and the connection is closed; at most the head of it was ever in memory.
 *
 * The handler runs in the loop's thread and answers before it returns; files are streamed
 * afterwards with at most TG_HTTP_STREAM_CHUNK bytes of each answer in memory.
 *
 * Sandboxes: tg_http_server_new, _listen_fd and the TLS set-up make every object needed; from then
 * on a server calls accept4, getsockopt, read, readv, write, writev, pread64, ioctl(FIONREAD),
 * shutdown, close, epoll_ctl (and uname, once per connection, for Unix sockets: the C library's
 * getnameinfo) besides what the loop and memory allocation need. It never opens a file or makes a
 * socket.
 *
 * A client that shuts down its sending side before it has its answer counts as gone: the connection
 * ends at once, with the answer if it was on its way, else without. */
#ifndef TG_NET_HTTP_SERVER_H
#define TG_NET_HTTP_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/x509.h"
#include "net/http.h"
#include "net/http_range.h"
#include "net/loop.h"

#define TG_HTTP_STREAM_CHUNK 262144

struct tg_http_server;
struct tg_http_res;

/* One request. Everything is borrowed and lives until the handler returns. */
struct tg_http_req {
    enum tg_http_method method;
    const struct tg_http_target *target;  /* decoded path and query */
    const struct tg_http_header *headers; /* as received, in order */
    size_t headers_n;
    struct tg_bytes body;
    bool is_tls;
    /* The client's certificate: verified against the listener's client CA at handshake time (chain,
     * dates, clientAuth). NULL: none was presented, or the listener doesn't ask. Revocation is the
     * handler's to check, on every request, by peer->serial. */
    const struct tg_x509_facts *peer;
    const char *client; /* "127.0.0.1:40312", "[::1]:40312", "unix" */
    int64_t now;        /* Unix seconds, read once when the request was complete */
    void *listener;     /* tg_http_listen_opts.arg of the listener it came by */
};

/* First header of that name (any case); NULL without one. */
const char *tg_http_req_header(const struct tg_http_req *req, const char *name);
/* The token of "Authorization: Bearer <token>"; NULL without one. A secret: don't log it. */
const char *tg_http_req_bearer(const struct tg_http_req *req);

/* Answers. Nothing is sent before the handler returns; each call replaces what an earlier one set.
 * Default: 204 without a body. Content-Length, Date and Connection are the server's own. For HEAD
 * the handler answers as for GET and the server leaves the body out. */
void tg_http_res_status(struct tg_http_res *res, unsigned status);
/* name: a token; value: visible ASCII, space, UTF-8; anything else (CR, LF, NUL) is an error.
 * A second value for the same name is added. @retval TG_E_FORMAT  @retval TG_E_NOMEM */
TG_RC tg_http_res_header(struct tg_http_res *res, const char *name, const char *value);
/* Copy bytes as the body, set Content-Type. @retval TG_E_NOMEM */
TG_RC tg_http_res_body(struct tg_http_res *res, const char *type, struct tg_bytes body);
/* The same without a copy: the buffer's memory moves to the response (also on failure). */
TG_RC tg_http_res_take(struct tg_http_res *res, const char *type, struct tg_buf *body);
/* Status and application/json in one. */
TG_RC tg_http_res_json(struct tg_http_res *res, unsigned status, struct tg_buf *json);
/* Stream bytes [off, off + len) of fd. The response owns fd from here on, whatever happens, and
 * closes it when sent or broken off. A file that turns out shorter breaks the connection. */
TG_RC tg_http_res_file(struct tg_http_res *res, const char *type, int fd, uint64_t off,
                       uint64_t len);
/* Problem details from err. status 0: tg_rc_http(err->rc). Drops any body set before; on lack of
 * memory the answer is the bare status. */
void tg_http_res_problem(struct tg_http_res *res, unsigned status, const struct tg_err *err);
/* {"error": "..."} instead, as the Open Inference Protocol has it. text: any bytes (what is no
 * UTF-8 becomes '?'). On lack of memory the answer is the bare status. */
void tg_http_res_error(struct tg_http_res *res, unsigned status, const char *text);
/* Close the connection after this answer. */
void tg_http_res_close(struct tg_http_res *res);

/* An immutable file. */
struct tg_http_file {
    const char *type; /* media type */
    const char *etag; /* strong, with its quotes */
    int fd;
    uint64_t size;
};

/* Everything of RFC 9110 for it: ETag, Accept-Ranges, If-None-Match → 304, Range with If-Range →
 * 206 or 416, else 200. Takes fd as tg_http_res_file does. */
TG_RC tg_http_res_serve_file(const struct tg_http_req *req, struct tg_http_res *res,
                             const struct tg_http_file *file);
/* 304 if If-None-Match of a GET or HEAD holds etag (then the caller is done); sets ETag either way.
 */
TG_RC tg_http_res_etag(const struct tg_http_req *req, struct tg_http_res *res, const char *etag,
                       bool *not_modified);

/* Answer one request. Anything but TG_OK becomes problem details made from err (what was set on res
 * is dropped, except headers such as WWW-Authenticate or Retry-After). */
typedef enum tg_rc tg_http_handler(void *arg, const struct tg_http_req *req,
                                   struct tg_http_res *res, struct tg_err *err);
/* Largest body accepted for a request, asked when its head is complete and checked but before its
 * body is read. path: decoded. listener: as in tg_http_req. 0 refuses every body. */
typedef uint64_t tg_http_limit_fn(void *arg, enum tg_http_method method, const char *path,
                                  void *listener);
/* Told after each answer was handed to the connection (for metrics and access logs). */
typedef void tg_http_done_fn(void *arg, const struct tg_http_req *req, unsigned status);

struct tg_http_server_opts {
    tg_http_handler *handler;
    tg_http_limit_fn *limit; /* NULL: max_body for everything */
    tg_http_done_fn *done;   /* may be NULL */
    void *arg;               /* of the three */
    bool plain_errors; /* the server's own refusals are {"error": "..."}, not problem details */
    /* 0 takes the default in brackets. */
    uint64_t max_body;        /* never more than this, whatever limit says [1 MiB] */
    uint32_t max_head;        /* request line and headers, bytes [16 KiB] */
    uint32_t max_headers;     /* their number [64] */
    uint32_t head_timeout_ms; /* TLS handshake; then from a request's first byte to its head, else
                                 408 [10 s] */
    uint32_t body_grace_ms;   /* before the next is looked at [10 s] */
    uint32_t body_min_rate;   /* bytes/s a body must keep up on the whole, else 408 [4 KiB/s] */
    uint32_t idle_timeout_ms; /* kept-alive without a request [75 s] */
    uint32_t send_timeout_ms; /* the client took no byte of an answer [30 s] */
};

/* opts is copied. @retval TG_E_NOMEM */
TG_RC tg_http_server_new(struct tg_loop *loop, const struct tg_http_server_opts *opts,
                         struct tg_http_server **out, struct tg_err *err);
/* Closes listeners and connections at once. NULL is fine. */
void tg_http_server_free(struct tg_http_server *s);
TG_DEFINE_AUTO(struct tg_http_server, tg_http_server_freep, tg_http_server_free);

/* TLS 1.3 only; groups X25519MLKEM768, X25519, P-256 in that order; AES-256-GCM, ChaCha20-Poly1305,
 * AES-128-GCM; no tickets, no resumption, no early data: every connection is a full handshake.
 * With client_ca a client certificate is asked for but not required; one that is presented and does
 * not verify fails the handshake. Copied. */
struct tg_tls_opts {
    struct tg_bytes cert_pem;  /* server certificate, then intermediates */
    struct tg_bytes key_pem;   /* its private key, unencrypted */
    struct tg_bytes client_ca; /* PEM; empty: don't ask for client certificates */
};

struct tg_http_listen_opts {
    const char *address;           /* of tg_http_server_listen: numeric, "127.0.0.1" or "::1" */
    uint16_t port;                 /* 0: the kernel's choice */
    const struct tg_tls_opts *tls; /* NULL: plain */
    uint32_t max_connections;      /* 0: 1024. More wait in the kernel's queue. */
    bool paused;                   /* accept nothing before tg_http_server_resume */
    void *arg;                     /* tg_http_req.listener */
};

/* Bind opts->address and port, and listen. port_out (may be NULL): what was bound.
 * @retval TG_E_IO address in use, no permission
 * @retval TG_E_FORMAT certificate or key are not what they should be */
TG_RC tg_http_server_listen(struct tg_http_server *s, const struct tg_http_listen_opts *opts,
                            uint16_t *port_out, struct tg_err *err);

/* A Unix socket at path with these permission bits (and group, when gid is not (gid_t)-1). A stale
 * socket at path is replaced; anything else there is TG_E_EXISTS. Removed by tg_http_server_free.
 */
struct tg_unix_opts {
    const char *path; /* ≤ 107 bytes */
    unsigned mode;
    int64_t gid; /* -1: leave */
};

TG_RC tg_http_server_listen_unix(struct tg_http_server *s, const struct tg_unix_opts *unix_opts,
                                 const struct tg_http_listen_opts *opts, struct tg_err *err);
/* Take over an already listening descriptor (Unix or TCP; shared with other processes is fine: it
 * is made non-blocking). The server owns it from here on, whatever happens. */
TG_RC tg_http_server_listen_fd(struct tg_http_server *s, int fd,
                               const struct tg_http_listen_opts *opts, struct tg_err *err);
/* The same sockets without a server (the agent makes them and hands them to its workers): bound,
 * listening, non-blocking, close-on-exec. */
TG_RC tg_listen_tcp(const char *address, uint16_t port, int *fd, uint16_t *port_out,
                    struct tg_err *err);
TG_RC tg_listen_unix(const struct tg_unix_opts *opts, int *fd, struct tg_err *err);

/* Start accepting on paused listeners. */
void tg_http_server_resume(struct tg_http_server *s);
/* Use a new certificate for handshakes from now on (same client CA), on every TLS listener. */
TG_RC tg_http_server_retls(struct tg_http_server *s, const struct tg_tls_opts *tls,
                           struct tg_err *err);

/* Stop gracefully: accept nothing more, answer what is in flight and what still comes on kept-alive
 * connections within idle_ms with "Connection: close", close them as they fall idle, and after
 * deadline_ms close the rest. Then calls done(arg, clean) in the loop; clean: nothing was cut off.
 * A second call has no effect. */
struct tg_http_drain_opts {
    uint32_t idle_ms;     /* how long an idle connection may still bring a request, e.g. 500 */
    uint32_t deadline_ms; /* ≥ idle_ms, e.g. 10000 */
    void (*done)(void *arg, bool clean); /* may be NULL */
    void *arg;
};

void tg_http_server_drain(struct tg_http_server *s, const struct tg_http_drain_opts *opts);
/* Open connections now. */
size_t tg_http_server_connections(const struct tg_http_server *s);

#endif
