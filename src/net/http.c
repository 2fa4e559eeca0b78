#include "net/http.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"

static const char *const method_names[TG_HTTP_METHODS] = {
    [TG_HTTP_GET] = "GET", [TG_HTTP_HEAD] = "HEAD",   [TG_HTTP_POST] = "POST",
    [TG_HTTP_PUT] = "PUT", [TG_HTTP_PATCH] = "PATCH", [TG_HTTP_DELETE] = "DELETE",
};

const char *tg_http_method_name(enum tg_http_method m)
{
    return method_names[m < TG_HTTP_METHODS ? m : TG_HTTP_GET];
}

TG_RC tg_http_method_parse(struct tg_bytes name, enum tg_http_method *out)
{
    for (size_t i = 0; i < TG_HTTP_METHODS; i++)
        if (tg_bytes_eq(name, tg_bytes_str(method_names[i]))) {
            *out = (enum tg_http_method)i;
            return TG_OK;
        }
    return TG_E_UNSUPPORTED;
}

/* --- targets --------------------------------------------------------------------------------- */

static bool unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c) != NULL);
}

/* What may stand unescaped in a path or query (RFC 3986 §3.3, §3.4). */
static bool target_char(unsigned char c)
{
    return unreserved(c) || (c != '\0' && strchr("!$&'()*+,;=:@/?%", c) != NULL);
}

static int hex_value(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* Decode one escape at in[i]; -1 when broken or when what it stands for is not allowed. */
static int escape(struct tg_bytes in, size_t i, bool slash_ok)
{
    int hi, lo, v;

    if (i + 2 >= in.n)
        return -1;
    hi = hex_value(in.p[i + 1]);
    lo = hex_value(in.p[i + 2]);
    if (hi < 0 || lo < 0)
        return -1;
    v = hi * 16 + lo;
    return v < 0x20 || v == 0x7f || (v == '/' && !slash_ok) ? -1 : v;
}

enum part { PATH, QUERY };

/* Decode `in` to NUL-terminated text at out (in.n + 1 bytes are enough). */
static TG_RC decode(struct tg_bytes in, enum part part, char *out, size_t *n, struct tg_err *err)
{
    size_t o = 0;

    for (size_t i = 0; i < in.n; i++) {
        int c = in.p[i];

        if (c == '%') {
            c = escape(in, i, part == QUERY);
            if (c < 0)
                return TG_FAIL(err, TG_E_FORMAT,
                               "request target: broken or forbidden escape at %zu", i);
            i += 2;
        } else if (c == '+' && part == QUERY) {
            c = ' ';
        }
        out[o++] = (char)c;
    }
    out[o] = '\0';
    *n = o + 1;
    if (!tg_utf8_ok(tg_bytes_make(out, o)))
        return TG_FAIL(err, TG_E_FORMAT, "request target: not UTF-8");
    return TG_OK;
}

static TG_RC path_check(const char *path, struct tg_err *err)
{
    const char *seg = path + 1;

    while (*seg != '\0') {
        size_t n = strcspn(seg, "/");

        if (n == 0 || (n == 1 && seg[0] == '.') || (n == 2 && seg[0] == '.' && seg[1] == '.'))
            return TG_FAIL(err, TG_E_FORMAT, "request target: empty or dot segment in the path");
        seg += n;
        seg += *seg == '/';
    }
    return TG_OK;
}

static TG_RC args_split(struct tg_bytes query, struct tg_http_target *t, char *text,
                        struct tg_err *err)
{
    while (query.n > 0) {
        const uint8_t *amp = memchr(query.p, '&', query.n);
        size_t n = amp != NULL ? (size_t)(amp - query.p) : query.n;
        struct tg_bytes pair = tg_bytes_sub(query, 0, n);
        const uint8_t *eq = n > 0 ? memchr(pair.p, '=', n) : NULL;
        size_t name_n = eq != NULL ? (size_t)(eq - pair.p) : n;
        size_t used;

        query = tg_bytes_sub(query, amp != NULL ? n + 1 : n, query.n);
        if (n == 0)
            continue;
        if (t->args_n == TG_HTTP_ARGS_MAX)
            return TG_FAIL(err, TG_E_LIMIT, "request target: more than %d query arguments",
                           TG_HTTP_ARGS_MAX);
        t->args[t->args_n].name = text;
        TG_TRY(decode(tg_bytes_sub(pair, 0, name_n), QUERY, text, &used, err));
        text += used;
        t->args[t->args_n].value = text;
        TG_TRY(decode(tg_bytes_sub(pair, eq != NULL ? name_n + 1 : n, n), QUERY, text, &used, err));
        text += used;
        t->args_n++;
    }
    return TG_OK;
}

TG_RC tg_http_target_parse(struct tg_bytes target, struct tg_http_target *out, struct tg_err *err)
{
    const size_t args_size = TG_HTTP_ARGS_MAX * sizeof(struct tg_http_arg);
    TG_AUTO(tg_freep) char *mem = NULL;
    struct tg_http_target t = TG_HTTP_TARGET_INIT;
    const uint8_t *mark;
    size_t path_n, used;
    struct tg_bytes query;

    if (target.n == 0 || target.p[0] != '/')
        return TG_FAIL(err, TG_E_FORMAT, "request target: does not begin with '/'");
    if (target.n > TG_HTTP_TARGET_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "request target: %zu bytes, at most %d", target.n,
                       TG_HTTP_TARGET_MAX);
    for (size_t i = 0; i < target.n; i++)
        if (!target_char(target.p[i]))
            return TG_FAIL(err, TG_E_FORMAT,
                           "request target: character 0x%02x at %zu must be escaped", target.p[i],
                           i);
    mark = memchr(target.p, '?', target.n);
    path_n = mark != NULL ? (size_t)(mark - target.p) : target.n;
    query = tg_bytes_sub(target, mark != NULL ? path_n + 1 : path_n, target.n);
    /* Arguments, then path, raw query, and at most a name and a value per argument with their NULs.
     */
    mem = tg_alloc(args_size + 2 * target.n + 2 + 2 * TG_HTTP_ARGS_MAX + 2);
    if (mem == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    t.args = (struct tg_http_arg *)(void *)mem;
    t.path = mem + args_size;
    TG_TRY(decode(tg_bytes_sub(target, 0, path_n), PATH, t.path, &used, err));
    TG_TRY(path_check(t.path, err));
    t.raw_query = t.path + used;
    if (query.n > 0)
        memcpy(t.raw_query, query.p, query.n);
    t.raw_query[query.n] = '\0';
    TG_TRY(args_split(query, &t, t.raw_query + query.n + 1, err));
    t.mem = tg_steal(&mem);
    *out = t;
    return TG_OK;
}

void tg_http_target_done(struct tg_http_target *t)
{
    tg_free(t->mem);
    *t = TG_HTTP_TARGET_INIT;
}

const char *tg_http_target_arg(const struct tg_http_target *t, const char *name)
{
    for (size_t i = 0; i < t->args_n; i++)
        if (strcmp(t->args[i].name, name) == 0)
            return t->args[i].value;
    return NULL;
}

TG_RC tg_http_encode(struct tg_buf *out, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (unreserved(c))
            TG_TRY(tg_buf_u8(out, c));
        else
            TG_TRY(tg_buf_printf(out, "%%%02X", c));
    }
    return TG_OK;
}

/* --- statuses and problems ------------------------------------------------------------------- */

struct status_row {
    unsigned status;
    const char *text;
    enum tg_rc rc;
};

/* rc: what an answer with this status and no problem details means to a client. */
static const struct status_row statuses[] = {
    {200, "OK",                              TG_OK           },
    {201, "Created",                         TG_OK           },
    {202, "Accepted",                        TG_OK           },
    {204, "No Content",                      TG_OK           },
    {206, "Partial Content",                 TG_OK           },
    {304, "Not Modified",                    TG_OK           },
    {400, "Bad Request",                     TG_E_FORMAT     },
    {401, "Unauthorized",                    TG_E_AUTH       },
    {403, "Forbidden",                       TG_E_DENIED     },
    {404, "Not Found",                       TG_E_NOTFOUND   },
    {405, "Method Not Allowed",              TG_E_UNSUPPORTED},
    {406, "Not Acceptable",                  TG_E_UNSUPPORTED},
    {408, "Request Timeout",                 TG_E_TIMEOUT    },
    {409, "Conflict",                        TG_E_STATE      },
    {410, "Gone",                            TG_E_EXPIRED    },
    {411, "Length Required",                 TG_E_FORMAT     },
    {412, "Precondition Failed",             TG_E_STATE      },
    {413, "Content Too Large",               TG_E_LIMIT      },
    {414, "URI Too Long",                    TG_E_LIMIT      },
    {415, "Unsupported Media Type",          TG_E_UNSUPPORTED},
    {416, "Range Not Satisfiable",           TG_E_FORMAT     },
    {417, "Expectation Failed",              TG_E_UNSUPPORTED},
    {422, "Unprocessable Content",           TG_E_FORMAT     },
    {428, "Precondition Required",           TG_E_STATE      },
    {429, "Too Many Requests",               TG_E_AGAIN      },
    {431, "Request Header Fields Too Large", TG_E_LIMIT      },
    {500, "Internal Server Error",           TG_E_INTERNAL   },
    {501, "Not Implemented",                 TG_E_UNSUPPORTED},
    {502, "Bad Gateway",                     TG_E_CLOSED     },
    {503, "Service Unavailable",             TG_E_AGAIN      },
    {504, "Gateway Timeout",                 TG_E_TIMEOUT    },
    {505, "HTTP Version Not Supported",      TG_E_UNSUPPORTED},
    {507, "Insufficient Storage",            TG_E_IO         },
};

static const struct status_row *status_find(unsigned status)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(statuses); i++)
        if (statuses[i].status == status)
            return &statuses[i];
    return NULL;
}

const char *tg_http_status_text(unsigned status)
{
    const struct status_row *row = status_find(status);

    return row != NULL ? row->text : "Unknown";
}

enum tg_rc tg_http_status_rc(unsigned status)
{
    const struct status_row *row = status_find(status);

    if (row != NULL)
        return row->rc;
    if (status >= 200 && status < 300)
        return TG_OK;
    return status >= 400 && status < 500 ? TG_E_FORMAT : TG_E_INTERNAL;
}

struct problem {
    const char *type;
    const char *title;
    uint64_t status;
    const char *detail;
    const char *code;
};

static const struct tg_jfield problem_fields[] = {
    TG_J_STR(struct problem, type, 0, 1024, TG_J_OPT),
    TG_J_STR(struct problem, title, 0, 1024, TG_J_OPT),
    TG_J_U64(struct problem, status, 0, 999, TG_J_OPT),
    TG_J_STR(struct problem, detail, 0, 4096, TG_J_OPT),
    TG_J_STR(struct problem, code, 0, 64, TG_J_OPT),
};
static const struct tg_jschema problem_schema =
    TG_J_SCHEMA(struct problem, problem_fields, TG_J_IGNORE_UNKNOWN);

TG_RC tg_http_problem_encode(const struct tg_err *err, unsigned status, struct tg_buf *out)
{
    char detail[TG_ERR_MAX];
    struct problem p = {
        .type = "about:blank",
        .title = tg_rc_text(err->rc),
        .status = status != 0 ? status : (unsigned)tg_rc_http(err->rc),
        .detail = detail,
        .code = tg_rc_name(err->rc),
    };
    size_t n = strlen(err->msg);

    /* A text cut inside a character, or made of a client's bytes, must still become JSON. */
    memcpy(detail, err->msg, n + 1);
    for (size_t i = 0; !tg_utf8_ok(tg_bytes_make(detail, n)) && i < n; i++)
        if ((unsigned char)detail[i] >= 0x80)
            detail[i] = '?';
    return tg_json_encode(&problem_schema, &p, out, NULL);
}

enum tg_rc tg_http_problem_decode(unsigned status, struct tg_bytes body, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    enum tg_rc rc = tg_http_status_rc(status);
    struct problem p = {0};

    if (rc == TG_OK)
        rc = TG_E_INTERNAL;
    if (body.n > 0 && body.n <= 65536 && tg_arena_new(65536, &arena) == TG_OK &&
        tg_json_decode(&problem_schema, body, "problem details", arena, &p, NULL) == TG_OK) {
        enum tg_rc named = p.code != NULL ? tg_rc_from_name(p.code) : TG_RC_COUNT;

        if (named != TG_RC_COUNT && named != TG_OK)
            rc = named;
        if (p.detail != NULL && p.detail[0] != '\0')
            return TG_FAIL(err, rc, "%s", p.detail);
    }
    return TG_FAIL(err, rc, "the server answered %u %s", status, tg_http_status_text(status));
}
