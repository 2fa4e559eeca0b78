/* The strict front of the HTTP server: a pure check of one request's head, before anything else
 * reads it. What passes has exactly one meaning for every HTTP implementation (RFC 9112 §2.2, §6,
 * §11.2). */
#ifndef TG_NET_HTTP_GUARD_H
#define TG_NET_HTTP_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "net/http.h"

struct tg_http_head {
    enum tg_http_method method;
    struct tg_bytes target; /* borrowed from the head */
    uint64_t body;          /* Content-Length; 0 without one */
};

/* head: from the request line's first byte through the empty line's CRLF.
 * Returns 0, or the status to refuse with; *why is then a fixed text. *out is untouched on refusal.
 */
unsigned tg_http_guard_check(struct tg_bytes head, uint32_t max_headers, struct tg_http_head *out,
                             const char **why);

#endif
