#include "net/http_guard.h"

#include <string.h>
#include <strings.h>

/* Every way a head is refused: status and text. 0: goes through. */
struct refusal {
    unsigned status;
    const char *why;
};

#define PASS ((struct refusal){0, NULL})
#define REFUSE(status, why) ((struct refusal){(status), (why)})

struct seen {
    unsigned hosts, lengths;
    uint64_t length;
};

static bool token_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct tg_bytes b)
{
    for (size_t i = 0; i < b.n; i++)
        if (!token_char(b.p[i]))
            return false;
    return b.n > 0;
}

static bool name_is(struct tg_bytes b, const char *name)
{
    return b.n == strlen(name) && strncasecmp((const char *)b.p, name, b.n) == 0;
}

/* Split off one line that ends in CRLF. False: there is none, or a bare CR or LF is in it. */
static bool line_next(struct tg_bytes *rest, struct tg_bytes *line)
{
    const uint8_t *lf = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    size_t n;

    if (lf == NULL)
        return false;
    n = (size_t)(lf - rest->p);
    if (n == 0 || rest->p[n - 1] != '\r')
        return false;
    *line = tg_bytes_sub(*rest, 0, n - 1);
    *rest = tg_bytes_sub(*rest, n + 1, rest->n);
    return line->n == 0 || memchr(line->p, '\r', line->n) == NULL;
}

static struct tg_bytes trim(struct tg_bytes b)
{
    size_t from = 0, to = b.n;

    while (from < to && (b.p[from] == ' ' || b.p[from] == '\t'))
        from++;
    while (to > from && (b.p[to - 1] == ' ' || b.p[to - 1] == '\t'))
        to--;
    return tg_bytes_sub(b, from, to - from);
}

/* "GET /path HTTP/1.1": two single spaces, nothing else. */
static struct refusal request_line(struct tg_bytes line, struct tg_http_head *out)
{
    const uint8_t *sp1 = line.n > 0 ? memchr(line.p, ' ', line.n) : NULL;
    struct tg_bytes method, rest, version;
    const uint8_t *sp2;

    if (sp1 == NULL)
        return REFUSE(400, "request line: malformed");
    method = tg_bytes_sub(line, 0, (size_t)(sp1 - line.p));
    rest = tg_bytes_sub(line, method.n + 1, line.n);
    sp2 = rest.n > 0 ? memchr(rest.p, ' ', rest.n) : NULL;
    if (sp2 == NULL || !is_token(method))
        return REFUSE(400, "request line: malformed");
    out->target = tg_bytes_sub(rest, 0, (size_t)(sp2 - rest.p));
    version = tg_bytes_sub(rest, out->target.n + 1, rest.n);
    if (version.n != 8 || !tg_mem_eq(version.p, "HTTP/", 5))
        return REFUSE(400, "request line: malformed");
    if (!tg_mem_eq(version.p, "HTTP/1.1", 8))
        return REFUSE(505, "only HTTP/1.1 is spoken here");
    if (tg_http_method_parse(method, &out->method) != TG_OK)
        return REFUSE(501, "no such method here");
    if (out->target.n > TG_HTTP_TARGET_MAX)
        return REFUSE(414, "request target: too long");
    if (out->target.n == 0 || out->target.p[0] != '/')
        return REFUSE(400, "request target: must begin with '/'");
    for (size_t i = 0; i < out->target.n; i++)
        if (out->target.p[i] <= 0x20 || out->target.p[i] >= 0x7f || out->target.p[i] == '#')
            return REFUSE(400, "request target: holds a character that must be escaped");
    return PASS;
}

/* Digits only, at most 18: no sign, no list, no space within. */
static bool length_parse(struct tg_bytes v, uint64_t *out)
{
    uint64_t n = 0;

    if (v.n == 0 || v.n > 18)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(v.p[i] - '0');
    }
    *out = n;
    return true;
}

static struct refusal known_header(struct tg_bytes name, struct tg_bytes value, struct seen *seen)
{
    if (name_is(name, "host")) {
        if (++seen->hosts > 1)
            return REFUSE(400, "more than one Host");
    } else if (name_is(name, "content-length")) {
        if (++seen->lengths > 1)
            return REFUSE(400, "more than one Content-Length");
        if (!length_parse(value, &seen->length))
            return REFUSE(400, "Content-Length: not a number");
    } else if (name_is(name, "transfer-encoding")) {
        return REFUSE(411, "Transfer-Encoding is not taken here: send Content-Length");
    } else if (name_is(name, "expect") && !name_is(value, "100-continue")) {
        return REFUSE(417, "Expect: only 100-continue is known here");
    } else if (name_is(name, "upgrade")) {
        return REFUSE(400, "Upgrade is not taken here");
    }
    return PASS;
}

static struct refusal header_line(struct tg_bytes line, struct seen *seen)
{
    const uint8_t *colon = memchr(line.p, ':', line.n);
    struct tg_bytes name, value;

    if (line.p[0] == ' ' || line.p[0] == '\t')
        return REFUSE(400, "header: folded lines are not taken");
    if (colon == NULL)
        return REFUSE(400, "header: no colon");
    name = tg_bytes_sub(line, 0, (size_t)(colon - line.p));
    value = trim(tg_bytes_sub(line, name.n + 1, line.n));
    if (!is_token(name)) /* a space before the colon, too */
        return REFUSE(400, "header: its name is not a token");
    for (size_t i = 0; i < value.n; i++)
        if ((value.p[i] < 0x20 && value.p[i] != '\t') || value.p[i] == 0x7f)
            return REFUSE(400, "header: a control character in its value");
    return known_header(name, value, seen);
}

static struct refusal check(struct tg_bytes head, uint32_t max_headers, struct tg_http_head *out)
{
    struct seen seen = {0};
    struct tg_bytes line;
    struct refusal r;
    uint32_t n = 0;

    if (!line_next(&head, &line))
        return REFUSE(400, "lines must end in CR LF");
    r = request_line(line, out);
    while (r.status == 0) {
        if (!line_next(&head, &line))
            return REFUSE(400, "lines must end in CR LF");
        if (line.n == 0)
            break;
        if (++n > max_headers)
            return REFUSE(431, "too many headers");
        r = header_line(line, &seen);
    }
    if (r.status != 0)
        return r;
    if (head.n != 0)
        return REFUSE(400, "bytes after the head");
    if (seen.hosts != 1)
        return REFUSE(400, "Host is missing");
    out->body = seen.length;
    if (out->body > 0 && out->method != TG_HTTP_POST && out->method != TG_HTTP_PUT &&
        out->method != TG_HTTP_PATCH)
        return REFUSE(400, "this method takes no body");
    return PASS;
}

unsigned tg_http_guard_check(struct tg_bytes head, uint32_t max_headers, struct tg_http_head *out,
                             const char **why)
{
    struct tg_http_head h = {0};
    struct refusal r = check(head, max_headers, &h);

    if (r.status != 0) {
        *why = r.why;
        return r.status;
    }
    *out = h;
    return 0;
}
