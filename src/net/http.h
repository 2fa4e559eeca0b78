/* What HTTP server and client have in common. HTTP/1.1 only (RFC 9110, RFC 9112). */
#ifndef TG_NET_HTTP_H
#define TG_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

enum tg_http_method {
    TG_HTTP_GET,
    TG_HTTP_HEAD,
    TG_HTTP_POST,
    TG_HTTP_PUT,
    TG_HTTP_PATCH,
    TG_HTTP_DELETE,
    TG_HTTP_METHODS
};

/* "GET" ... */
const char *tg_http_method_name(enum tg_http_method m);
/* Case-sensitive (RFC 9110 §9.1). @retval TG_E_UNSUPPORTED none of ours */
TG_RC tg_http_method_parse(struct tg_bytes name, enum tg_http_method *out);

struct tg_http_header {
    const char *name;
    const char *value;
};

/* A request target in origin form ("/a%20b?x=1&y"), split and decoded (RFC 3986). Pure. */
#define TG_HTTP_TARGET_MAX 8192
#define TG_HTTP_ARGS_MAX 64

struct tg_http_arg {
    const char *name;
    const char *value; /* "" without '=' */
};

struct tg_http_target {
    char *path; /* decoded; begins with '/'; UTF-8; no control characters, no "//", "." or ".." */
    char *raw_query; /* as sent, without '?'; "" without one */
    struct tg_http_arg *args;
    size_t args_n;
    void *mem; /* what the above lives in */
};

#define TG_HTTP_TARGET_INIT ((struct tg_http_target){NULL, NULL, NULL, 0, NULL})

/* %2F, %00 and other encoded control characters, dot segments, broken escapes and text that is not
 * UTF-8 are refused, never "fixed": a path has one meaning. In the query '+' is a space.
 * @retval TG_E_FORMAT   @retval TG_E_LIMIT too long, too many arguments   @retval TG_E_NOMEM
 * *out: release with tg_http_target_done; untouched on failure. */
TG_RC tg_http_target_parse(struct tg_bytes target, struct tg_http_target *out, struct tg_err *err);
void tg_http_target_done(struct tg_http_target *t);
/* First argument of that name, NULL without one. */
const char *tg_http_target_arg(const struct tg_http_target *t, const char *name);

/* Append s percent-encoded: everything but RFC 3986's unreserved characters. For one path segment
 * or one query value. */
TG_RC tg_http_encode(struct tg_buf *out, const char *s);

/* Problem details (RFC 9457, application/problem+json): append
 *   {"type":"about:blank","title":…,"status":…,"detail":…,"code":"DENIED"}
 * title is tg_rc_text, detail is err's message, code is tg_rc_name (an extension member: what a
 * client decides by). status 0: tg_rc_http(err->rc). */
#define TG_HTTP_PROBLEM_TYPE "application/problem+json"
TG_RC tg_http_problem_encode(const struct tg_err *err, unsigned status, struct tg_buf *out);
/* The reverse: sets err from an answer's body; when it is not problem details, from status alone.
 * Returns the code (never TG_OK for status ≥ 400). */
enum tg_rc tg_http_problem_decode(unsigned status, struct tg_bytes body, struct tg_err *err);
/* The code that stands for an HTTP status (404 → TG_E_NOTFOUND …). */
enum tg_rc tg_http_status_rc(unsigned status);
/* "Not Found" */
const char *tg_http_status_text(unsigned status);

#endif
