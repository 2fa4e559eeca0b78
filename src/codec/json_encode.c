#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "codec/json_internal.h"
#include "codec/text.h"

typedef enum tg_rc encode_fn(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                             struct tg_err *err);

static enum tg_rc encode_struct(const struct tg_jschema *s, const void *in, struct tg_buf *out,
                                struct tg_err *err);

enum tg_rc tg_json_quote(struct tg_buf *out, struct tg_bytes s)
{
    static const char short_form[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                      ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    size_t from = 0;

    TG_TRY(tg_buf_u8(out, '"'));
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        char escape = c < sizeof(short_form) ? short_form[c] : '\0';

        if (c >= 0x20 && c != 0x7F && escape == '\0')
            continue;
        TG_TRY(tg_buf_bytes(out, tg_bytes_sub(s, from, i - from)));
        from = i + 1;
        if (escape != '\0')
            TG_TRY(tg_buf_printf(out, "\\%c", escape));
        else
            TG_TRY(tg_buf_printf(out, "\\u%04x", c));
    }
    TG_TRY(tg_buf_bytes(out, tg_bytes_sub(s, from, s.n - from)));
    return tg_buf_u8(out, '"');
}

static enum tg_rc enc_text(const struct tg_jfield *f, const char *s, uint64_t min, uint64_t max,
                           struct tg_buf *out, struct tg_err *err)
{
    struct tg_bytes v;

    if (s == NULL)
        return TG_FAIL(err, TG_E_FORMAT, "%s: has no value", f->name);
    v = tg_bytes_str(s);
    if (v.n < min || v.n > max)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: string of %zu bytes; %" PRIu64 " to %" PRIu64 " are allowed", f->name,
                       v.n, min, max);
    if (!tg_utf8_ok(v))
        return TG_FAIL(err, TG_E_FORMAT, "%s: not valid UTF-8", f->name);
    return tg_json_quote(out, v);
}

static enum tg_rc enc_str(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    const char *s;

    memcpy(&s, at, sizeof(s));
    return enc_text(f, s, f->min, f->max, out, err);
}

static enum tg_rc enc_u64(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    uint64_t v;

    memcpy(&v, at, sizeof(v));
    if (v < f->min || v > f->max || v > TG_JSON_INT_MAX)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %" PRIu64 " is not in %" PRIu64 " to %" PRIu64,
                       f->name, v, f->min, f->max);
    return tg_buf_printf(out, "%" PRIu64, v);
}

static enum tg_rc enc_bool(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                           struct tg_err *err)
{
    (void)f;
    (void)err;
    return tg_buf_str(out, *(const bool *)at ? "true" : "false");
}

static enum tg_rc enc_time(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                           struct tg_err *err)
{
    char text[TG_TIME_TEXT];
    int64_t t;

    memcpy(&t, at, sizeof(t));
    if (tg_time_format(t, text) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "%s: time out of range", f->name);
    return tg_json_quote(out, tg_bytes_str(text));
}

static enum tg_rc enc_b64(struct tg_bytes v, struct tg_buf *out)
{
    TG_TRY(tg_buf_u8(out, '"'));
    TG_TRY(tg_b64url_encode(v, out));
    return tg_buf_u8(out, '"');
}

static enum tg_rc enc_fixed(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                            struct tg_err *err)
{
    (void)err;
    return enc_b64(tg_bytes_make(at, (size_t)f->max), out);
}

static enum tg_rc enc_hex(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    const uint8_t *p = at;

    (void)err;
    TG_TRY(tg_buf_u8(out, '"'));
    for (uint64_t i = 0; i < f->max; i++) {
        char two[3];

        tg_hex_encode(tg_bytes_make(p + i, 1), two);
        TG_TRY(tg_buf_append(out, two, 2));
    }
    return tg_buf_u8(out, '"');
}

static enum tg_rc enc_bytes(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                            struct tg_err *err)
{
    struct tg_bytes v;

    memcpy(&v, at, sizeof(v));
    if (v.n < f->min || v.n > f->max)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes; %" PRIu64 " to %" PRIu64 " are allowed",
                       f->name, v.n, f->min, f->max);
    return enc_b64(v, out);
}

static enum tg_rc enc_enum(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                           struct tg_err *err)
{
    int v, n = 0;

    memcpy(&v, at, sizeof(v));
    while (f->sub.names[n] != NULL)
        n++;
    if (v < 0 || v >= n)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %d is not a known value", f->name, v);
    return tg_json_quote(out, tg_bytes_str(f->sub.names[v]));
}

static enum tg_rc enc_obj(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    return encode_struct(f->sub.schema, at, out, err);
}

static enum tg_rc list_ok(const struct tg_jfield *f, const struct tg_jlist *l, struct tg_err *err)
{
    if (l->n < f->min || l->n > f->max)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu entries; %" PRIu64 " to %" PRIu64 " are allowed",
                       f->name, l->n, f->min, f->max);
    return TG_OK;
}

static enum tg_rc enc_objs(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                           struct tg_err *err)
{
    const struct tg_jlist *l = at;

    TG_TRY(list_ok(f, l, err));
    TG_TRY(tg_buf_u8(out, '['));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            TG_TRY(tg_buf_u8(out, ','));
        TG_TRY(encode_struct(f->sub.schema, (const char *)l->items + i * f->sub.schema->size, out,
                             err));
    }
    return tg_buf_u8(out, ']');
}

static enum tg_rc enc_strs(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                           struct tg_err *err)
{
    const struct tg_jlist *l = at;
    const char *const *v = l->items;

    TG_TRY(list_ok(f, l, err));
    TG_TRY(tg_buf_u8(out, '['));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            TG_TRY(tg_buf_u8(out, ','));
        TG_TRY(enc_text(f, v[i], 1, 4096, out, err));
    }
    return tg_buf_u8(out, ']');
}

static enum tg_rc enc_map(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    const struct tg_jlist *l = at;
    const struct tg_jpair *v = l->items;

    TG_TRY(list_ok(f, l, err));
    TG_TRY(tg_buf_u8(out, '{'));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            TG_TRY(tg_buf_u8(out, ','));
        TG_TRY(enc_text(f, v[i].key, 0, 65536, out, err));
        TG_TRY(tg_buf_u8(out, ':'));
        TG_TRY(enc_text(f, v[i].value, 0, 65536, out, err));
    }
    return tg_buf_u8(out, '}');
}

static enum tg_rc enc_raw(const struct tg_jfield *f, const void *at, struct tg_buf *out,
                          struct tg_err *err)
{
    struct tg_bytes v;

    memcpy(&v, at, sizeof(v));
    if (v.n == 0 || v.n > f->max)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes of JSON; 1 to %" PRIu64 " are allowed",
                       f->name, v.n, f->max);
    return tg_buf_bytes(out, v);
}

static encode_fn *const encoders[] = {
    [TG_JT_STR] = enc_str,   [TG_JT_U64] = enc_u64,     [TG_JT_BOOL] = enc_bool,
    [TG_JT_TIME] = enc_time, [TG_JT_FIXED] = enc_fixed, [TG_JT_BYTES] = enc_bytes,
    [TG_JT_HEX] = enc_hex,   [TG_JT_ENUM] = enc_enum,   [TG_JT_OBJ] = enc_obj,
    [TG_JT_OBJS] = enc_objs, [TG_JT_STRS] = enc_strs,   [TG_JT_MAP] = enc_map,
    [TG_JT_RAW] = enc_raw,
};

static bool all_zero(const void *at, size_t n)
{
    const uint8_t *p = at;

    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Bytes the member takes in the struct; 0 for what is judged by another rule. */
static size_t member_size(const struct tg_jfield *f)
{
    switch (f->type) {
    case TG_JT_STR:
        return sizeof(char *);
    case TG_JT_U64:
    case TG_JT_TIME:
        return sizeof(uint64_t);
    case TG_JT_BOOL:
        return sizeof(bool);
    case TG_JT_FIXED:
    case TG_JT_HEX:
        return (size_t)f->max;
    case TG_JT_ENUM:
        return sizeof(int);
    case TG_JT_OBJ:
        return f->sub.schema->size;
    case TG_JT_BYTES:
    case TG_JT_RAW:
    case TG_JT_OBJS:
    case TG_JT_STRS:
    case TG_JT_MAP:
        return 0;
    }
    return 0;
}

/* Lists and byte strings count as absent by their length alone. */
static bool absent(const struct tg_jfield *f, const void *at)
{
    struct tg_jlist l;
    struct tg_bytes b;
    const char *text;
    size_t n = member_size(f);

    if (f->type == TG_JT_STR && (f->flags & TG_J_SKIP0) != 0) {
        memcpy(&text, at, sizeof(text));
        return text == NULL || *text == 0;
    }
    if (n != 0)
        return all_zero(at, n);
    if (f->type == TG_JT_BYTES || f->type == TG_JT_RAW) {
        memcpy(&b, at, sizeof(b));
        return b.n == 0;
    }
    memcpy(&l, at, sizeof(l));
    return l.n == 0;
}

static bool left_out(const struct tg_jfield *f, const void *in)
{
    const void *at = (const char *)in + f->off;

    if (f->has_off != SIZE_MAX)
        return !*((const bool *)in + f->has_off);
    if ((f->flags & TG_J_SKIP0) != 0)
        return absent(f, at);
    /* An optional pointer without a value can't be written. */
    return (f->flags & TG_J_OPT) != 0 && (f->type == TG_JT_STR || f->type == TG_JT_RAW) &&
           absent(f, at);
}

static enum tg_rc encode_struct(const struct tg_jschema *s, const void *in, struct tg_buf *out,
                                struct tg_err *err)
{
    bool first = true;

    TG_TRY(tg_buf_u8(out, '{'));
    for (size_t i = 0; i < s->n; i++) {
        const struct tg_jfield *f = &s->fields[i];

        if (left_out(f, in))
            continue;
        if (!first)
            TG_TRY(tg_buf_u8(out, ','));
        first = false;
        TG_TRY(tg_json_quote(out, tg_bytes_str(f->name)));
        TG_TRY(tg_buf_u8(out, ':'));
        TG_TRY(encoders[f->type](f, (const char *)in + f->off, out, err));
    }
    return tg_buf_u8(out, '}');
}

enum tg_rc tg_json_encode(const struct tg_jschema *schema, const void *in, struct tg_buf *out,
                          struct tg_err *err)
{
    size_t before = out->n;
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc = encode_struct(schema, in, out, &why);

    if (rc == TG_OK)
        return TG_OK;
    out->n = before;
    if (why.rc == TG_OK)
        tg_err_set(&why, rc,
                   rc == TG_E_LIMIT ? "JSON of over %zu bytes"
                                    : "JSON of up to %zu bytes: out of memory",
                   out->max);
    if (err != NULL)
        *err = why;
    return rc;
}

enum tg_rc tg_json_pretty(struct tg_bytes text, struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_json_decrefp) json_t *root = NULL;
    json_error_t where;
    size_t n;
    uint8_t *to;

    /* For people: our own output, which may hold arrays at the top and any number. */
    root = json_loadb((const char *)text.p, text.n, JSON_DECODE_ANY, &where);
    if (root == NULL)
        return TG_FAIL(err, TG_E_FORMAT, "JSON: line %d: %s", where.line, where.text);
    n = json_dumpb(root, NULL, 0, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (n == 0 || tg_buf_reserve(out, n, &to) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (json_dumpb(root, (char *)to, n, JSON_INDENT(2) | JSON_ENCODE_ANY) != n)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    tg_buf_grow(out, n);
    return TG_OK;
}
