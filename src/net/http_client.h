/* HTTP/1.1 client over libcurl: one server, one kept-alive connection, blocking calls.
 *
 * TLS 1.3 only, groups X25519MLKEM768, X25519, P-256. Only the given CA is trusted. No redirects,
 * no proxies (the environment is not looked at), no cookies, no retries (the caller's to decide).
 * A client belongs to one thread at a time. Tokens and keys are kept in memory until _free, wiped
 * there as far as they are ours, and never appear in errors. */
#ifndef TG_NET_HTTP_CLIENT_H
#define TG_NET_HTTP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "net/http.h"
#include "net/http_range.h"

struct tg_http_client;

struct tg_http_client_opts {
    const char *base_url; /* "https://host:8443"; no path, no user; plain "http://…" on loopback */
    const char *unix_socket;           /* NULL, or connect here whatever base_url says */
    struct tg_bytes ca_pem;            /* the only roots trusted; empty: */
    const char *ca_file;               /*   from this file; NULL too: https is refused, unless */
    bool system_ca;                    /*   the system's roots are asked for */
    struct tg_bytes cert_pem, key_pem; /* client certificate and key; empty: */
    const char *cert_file, *key_file;  /*   from these files; NULL: none */
    const char *bearer;                /* Authorization: Bearer; NULL: none */
    uint32_t connect_timeout_ms;       /* 0: 10 s, TLS handshake included */
    uint32_t stall_timeout_s;          /* below 1 byte/s for this long; 0: 30 s */
    uint32_t total_timeout_ms;         /* one call from start to end; 0: unlimited */
};

/* Strings and blobs are copied. Connects at the first call.
 * @retval TG_E_USAGE base_url is not a URL of that form, https without a CA, or http to another
 *         machine or with a CA or certificate given */
TG_RC tg_http_client_new(const struct tg_http_client_opts *opts, struct tg_http_client **out,
                         struct tg_err *err);
void tg_http_client_free(struct tg_http_client *c);
TG_DEFINE_AUTO(struct tg_http_client, tg_http_client_freep, tg_http_client_free);
/* NULL: none from now on. @retval TG_E_NOMEM @retval TG_E_FORMAT not visible ASCII */
TG_RC tg_http_client_bearer(struct tg_http_client *c, const char *token);

/* Takes the body of a 2xx answer piece by piece; anything but TG_OK ends the call with that code.
 */
typedef enum tg_rc tg_http_sink(void *arg, struct tg_bytes piece, struct tg_err *err);

/* One call. Zero-initialised members mean: none. */
struct tg_http_call {
    enum tg_http_method method;
    const char *target;   /* path and query, already encoded: "/api/v1/fleets?limit=10" */
    const char *type;     /* Content-Type of body */
    bool has_body;        /* false and body empty: no body at all */
    struct tg_bytes body; /* borrowed */
    const struct tg_http_header *headers; /* besides those made from the members here */
    size_t headers_n;
    const char *if_none_match;
    const char *if_match;
    uint64_t range_off, range_len; /* range_len 0: no Range */
    const char *if_range;          /* an etag; only with a range */
    size_t max_body;               /* of the answer in memory; 0: 1 MiB */
    tg_http_sink *sink;            /* NULL: 2xx bodies too go to answer.body */
    void *sink_arg;
    /* Called now and then while bytes move; anything but TG_OK ends the call with that code. */
    enum tg_rc (*tick)(void *arg);
    void *tick_arg;
};

struct tg_http_answer {
    unsigned status;
    struct tg_buf body; /* everything that didn't go to the sink */
    char type[128];     /* Content-Type; "" without one */
    char etag[TG_ETAG_MAX];
    char location[512];
    bool has_range; /* a 206 with a good Content-Range: */
    uint64_t range_off, range_len, range_size;
    uint32_t retry_after_s; /* Retry-After in seconds; 0: none */
    uint64_t sink_bytes;
    /* Of the connection: "TLSv1.3", negotiated group unknown to libcurl. */
    bool connection_reused;
};

#define TG_HTTP_ANSWER_INIT ((struct tg_http_answer){0})
void tg_http_answer_done(struct tg_http_answer *a);

/* Make one call. TG_OK: an answer of whatever status is in *answer (what it held before is
 * released). A 206 whose Content-Range isn't the range asked for is TG_E_FORMAT.
 * @retval TG_E_IO      no connection (refused, unreachable, unknown host): err says which
 * @retval TG_E_CLOSED  the connection broke before the answer was complete
 * @retval TG_E_TIMEOUT @retval TG_E_LIMIT answer larger than max_body
 * @retval TG_E_AUTH    the server's certificate does not verify, or ours was refused
 * Others: as the sink or tick returned. */
TG_RC tg_http_client_do(struct tg_http_client *c, const struct tg_http_call *call,
                        struct tg_http_answer *answer, struct tg_err *err);

/* Did the last call end because the server did not take our certificate? (An alert in TLS, which a
 * connection that breaks first may keep from us.) */
bool tg_http_client_refused(const struct tg_http_client *c);

/* TG_OK for a 2xx or 304; else the code and text of its problem details (tg_http_problem_decode).
 */
TG_RC tg_http_answer_check(const struct tg_http_answer *a, struct tg_err *err);

#endif
