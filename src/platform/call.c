#include "platform/call.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/random.h"

char *tg_blob_path(const struct tg_platform *p, const uint8_t sha256[32])
{
    char hex[65];

    tg_hex_encode(tg_bytes_make(sha256, 32), hex);
    return tg_asprintf("%s/%.2s/%s", p->blobs_dir, hex, hex);
}

TG_RC tg_call_body(struct tg_call *c, const struct tg_jschema *schema, void *out,
                   struct tg_err *err)
{
    enum tg_rc rc = tg_json_decode(schema, c->req->body, "body", c->arena, out, err);

    if (rc == TG_E_FORMAT || rc == TG_E_LIMIT) {
        c->problem = TG_PROBLEM_BAD_REQUEST;
        return TG_E_FORMAT;
    }
    return rc;
}

static enum tg_rc encode(const struct tg_jschema *schema, const void *in, struct tg_buf *out,
                         struct tg_err *err)
{
    enum tg_rc rc = tg_json_encode(schema, in, out, err);

    if (rc == TG_OK || rc == TG_E_NOMEM)
        return rc;
    tg_err_wrap(err, "answer");
    return TG_E_INTERNAL;
}

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

TG_RC tg_call_answer(struct tg_call *c, unsigned status, const struct tg_jschema *schema,
                     const void *in, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(TG_WIRE_ANSWER_MAX);

    TG_TRY(encode(schema, in, &out, err));
    return tg_http_res_json(c->res, status, &out);
}

static enum tg_rc etag_of(struct tg_bytes body, char etag[TG_ETAG_MAX])
{
    uint8_t hash[TG_SHA256_LEN];
    char hex[2 * 16 + 1];

    TG_TRY(tg_sha256(body, hash));
    tg_hex_encode(tg_bytes_make(hash, 16), hex);
    return tg_etag_make(hex, etag);
}

TG_RC tg_call_resource(struct tg_call *c, unsigned status, const struct tg_jschema *schema,
                       const void *in, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(TG_WIRE_ANSWER_MAX);
    char etag[TG_ETAG_MAX];
    bool not_modified = false;

    TG_TRY(encode(schema, in, &out, err));
    TG_TRY(etag_of(tg_buf_view(&out), etag));
    if (c->req->method == TG_HTTP_GET || c->req->method == TG_HTTP_HEAD)
        TG_TRY(tg_http_res_etag(c->req, c->res, etag, &not_modified));
    else
        TG_TRY(tg_http_res_header(c->res, "ETag", etag));
    return not_modified ? TG_OK : tg_http_res_json(c->res, status, &out);
}

TG_RC tg_call_if_match(struct tg_call *c, bool required, const struct tg_jschema *schema,
                       const void *current, struct tg_err *err)
{
    const char *want = tg_http_req_header(c->req, "If-Match");
    TG_AUTO(bufp) struct tg_buf out = TG_BUF_INIT(TG_WIRE_ANSWER_MAX);
    char etag[TG_ETAG_MAX];

    if (want == NULL && !required)
        return TG_OK;
    if (want == NULL)
        return TG_REFUSE(c, err, TG_PROBLEM_NEEDS_PRECONDITION,
                         "send If-Match with the ETag of the version you change");
    TG_TRY(encode(schema, current, &out, err));
    TG_TRY(etag_of(tg_buf_view(&out), etag));
    if (!tg_etag_in_strong(want, etag))
        return TG_REFUSE(c, err, TG_PROBLEM_PRECONDITION,
                         "it is at %s now, not at %.80s: read it again", etag, want);
    return TG_OK;
}

const char *tg_call_query(const struct tg_call *c, const char *name)
{
    return tg_http_target_arg(c->req->target, name);
}

TG_RC tg_call_page(struct tg_call *c, struct tg_page *page, struct tg_err *err)
{
    const char *limit = tg_call_query(c, "limit");

    page->after = tg_call_query(c, "after");
    page->limit = TG_WIRE_PAGE_DEFAULT;
    if (limit != NULL &&
        (tg_parse_u64(limit, TG_WIRE_PAGE_MAX, &page->limit) != TG_OK || page->limit == 0))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "limit: 1 to %d", TG_WIRE_PAGE_MAX);
    if (page->after != NULL && strlen(page->after) > 256)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "after: not a cursor of this list");
    return TG_OK;
}

TG_RC tg_call_query_hash(struct tg_call *c, const char *name, struct tg_bytes *out,
                         struct tg_err *err)
{
    const char *text = tg_call_query(c, name);
    uint8_t *hash;

    *out = TG_BYTES_NONE;
    if (text == NULL)
        return TG_OK;
    hash = tg_arena_alloc(c->arena, 1, 32);
    if (hash == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (tg_hex_decode(tg_bytes_str(text), hash, 32) != TG_OK)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "%s: 64 lower-case hex characters", name);
    *out = tg_bytes_make(hash, 32);
    return TG_OK;
}

void tg_call_param_bytes(const struct tg_call *c, size_t i, uint8_t *out, size_t n)
{
    /* The route table only let lower-case hex of the right length through. */
    if (tg_hex_decode(tg_bytes_str(c->params[i]), out, n) != TG_OK)
        memset(out, 0, n);
}

TG_RC tg_call_about(struct tg_call *c, const uint8_t h[32], struct tg_err *err)
{
    uint8_t *copy = tg_arena_alloc(c->arena, 32, 1);

    if (copy == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    memcpy(copy, h, 32);
    c->package = tg_bytes_make(copy, 32);
    return TG_OK;
}

TG_RC tg_call_text(struct tg_call *c, const char **out, struct tg_err *err, const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        return TG_FAIL(
            err, TG_E_INTERNAL,
            "a text of the form \"%s\" can't be made: report this line, with the request's id",
            fmt);
    *out = tg_arena_strndup(c->arena, text, strlen(text));
    return *out != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

TG_RC tg_call_hex(struct tg_call *c, struct tg_bytes bytes, const char **out, struct tg_err *err)
{
    char *text = tg_arena_alloc(c->arena, 2 * bytes.n + 1, 1);

    if (text == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    tg_hex_encode(bytes, text);
    *out = text;
    return TG_OK;
}

TG_RC tg_call_id(struct tg_call *c, const char **out, struct tg_err *err)
{
    uint8_t id[TG_WIRE_ID_CHARS / 2];

    if (tg_random(id, sizeof(id)) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "a new identifier: " TG_NO_RANDOMNESS);
    return tg_call_hex(c, TG_BYTES_OF(id), out, err);
}

TG_RC tg_call_items(struct tg_call *c, struct tg_jlist *list, size_t n, size_t size,
                    struct tg_err *err)
{
    list->n = n;
    list->items = tg_arena_alloc(c->arena, n != 0 ? n : 1, size);
    return list->items != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "the answer is too large");
}

TG_RC tg_call_token(struct tg_call *c, const char *prefix, const char **out, uint8_t hash[32],
                    struct tg_err *err)
{
    uint8_t raw[32];
    TG_AUTO(bufp) struct tg_buf text = TG_BUF_SECRET(TG_WIRE_TOKEN_MAX);

    if (tg_random(raw, sizeof(raw)) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "a new token: " TG_NO_RANDOMNESS);
    enum tg_rc rc = tg_buf_str(&text, prefix);
    if (rc == TG_OK)
        rc = tg_b64url_encode(TG_BYTES_OF(raw), &text);
    tg_wipe(raw, sizeof(raw));
    if (rc == TG_OK)
        rc = tg_sha256(tg_buf_view(&text), hash);
    TG_TRY(rc);
    *out = tg_arena_strndup(c->arena, tg_buf_cstr(&text), text.n);
    return *out != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

struct names {
    struct tg_jlist v;
};

static const struct tg_jfield names_fields[] = {
    TG_J_STRS(struct names, v, 0, 256, TG_J_REQ),
};
static const struct tg_jschema names_schema =
    TG_J_SCHEMA(struct names, names_fields, TG_J_REFUSE_UNKNOWN);

TG_RC tg_names_encode(struct tg_call *c, const struct tg_jlist *names, const char **out,
                      struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf text = TG_BUF_INIT(1 << 20);
    const struct names n = {*names};

    TG_TRY(tg_json_encode(&names_schema, &n, &text, err));
    *out = tg_arena_strndup(c->arena, tg_buf_cstr(&text), text.n);
    return *out != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

TG_RC tg_names_decode(struct tg_arena *arena, const char *text, struct tg_jlist *out,
                      struct tg_err *err)
{
    struct names n;

    TG_TRY(tg_json_decode(&names_schema, tg_bytes_str(text), "list", arena, &n, err));
    *out = n.v;
    return TG_OK;
}
