/* Tensor data in JSON: numbers, booleans and strings straight from the text into packed elements.
 */
#include <string.h>

#include "tensor/num.h"
#include "tensor/oip_internal.h"
#include "tensor/scan.h"

static void put_le(uint8_t *out, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

/* One number as an element of type t. */
static enum tg_rc put_number(enum tg_dtype t, const struct tg_num *n, uint8_t *out)
{
    size_t size = tg_dtype_size(t);
    uint64_t u;
    int64_t i;
    uint16_t half;
    float f;
    double d;

    switch (t) {
    case TG_DT_UINT8:
    case TG_DT_UINT16:
    case TG_DT_UINT32:
    case TG_DT_UINT64:
        TG_TRY(tg_num_u64(n, UINT64_MAX >> (64 - 8 * size), &u));
        put_le(out, u, size);
        return TG_OK;
    case TG_DT_INT8:
    case TG_DT_INT16:
    case TG_DT_INT32:
    case TG_DT_INT64:
        i = (int64_t)(UINT64_MAX >> (65 - 8 * size));
        TG_TRY(tg_num_i64(n, -i - 1, i, &i));
        put_le(out, (uint64_t)i, size);
        return TG_OK;
    case TG_DT_FP16:
        TG_TRY(tg_num_f16(n, &half));
        memcpy(out, &half, sizeof(half));
        return TG_OK;
    case TG_DT_FP32:
        TG_TRY(tg_num_f32(n, &f));
        memcpy(out, &f, sizeof(f));
        return TG_OK;
    case TG_DT_FP64:
        TG_TRY(tg_num_f64(n, &d));
        memcpy(out, &d, sizeof(d));
        return TG_OK;
    case TG_DT_BOOL:
    case TG_DT_BYTES:
    case TG_DT_COUNT:
        break;
    }
    return TG_E_INTERNAL;
}

static enum tg_rc element_number(struct tg_scan *s, enum tg_dtype t, struct tg_buf *out)
{
    struct tg_num num = {0};
    uint8_t raw[8];

    (void)tg_scan_peek(s);
    TG_TRY(tg_num_scan(tg_bytes_sub(s->in, s->i, s->in.n), &num));
    TG_TRY(put_number(t, &num, raw));
    s->i += num.text.n;
    return tg_buf_append(out, raw, tg_dtype_size(t));
}

static enum tg_rc element_bool(struct tg_scan *s, struct tg_buf *out)
{
    if (tg_scan_word(s, "true"))
        return tg_buf_u8(out, 1);
    return tg_scan_word(s, "false") ? tg_buf_u8(out, 0) : TG_E_FORMAT;
}

static enum tg_rc element_bytes(struct tg_scan *s, struct tg_buf *out)
{
    struct tg_bytes raw = TG_BYTES_NONE;
    uint8_t *at;
    size_t n;

    TG_TRY(tg_scan_string(s, &raw));
    TG_TRY(tg_buf_reserve(out, 4 + raw.n, &at));
    n = tg_scan_unescape(raw, at + 4);
    tg_put_le32(at, (uint32_t)n);
    tg_buf_grow(out, 4 + n);
    return TG_OK;
}

static enum tg_rc element(struct tg_scan *s, enum tg_dtype t, struct tg_buf *out)
{
    if (t == TG_DT_BOOL)
        return element_bool(s, out);
    return t == TG_DT_BYTES ? element_bytes(s, out) : element_number(s, t, out);
}

static const char *element_why(enum tg_rc rc, enum tg_dtype t)
{
    if (rc == TG_E_LIMIT)
        return "outside the range of";
    return t == TG_DT_BYTES  ? "not a JSON string as an element of"
           : t == TG_DT_BOOL ? "not true or false as an element of"
                             : "not a JSON number that can be an element of";
}

/* Levels of brackets still open, and how many values each still has to bring. */
struct levels {
    uint64_t dims[TG_DIMS_MAX];
    uint64_t left[TG_DIMS_MAX];
    size_t depth; /* 1: flat */
    size_t at;
};

/* Everything up to the next element. *done when the outermost bracket has closed. */
static enum tg_rc to_element(struct tg_scan *s, struct levels *l, bool *done)
{
    for (;;) {
        if (l->left[l->at] == 0) {
            if (!tg_scan_take(s, ']'))
                return TG_E_FORMAT;
            if (l->at == 0) {
                *done = true;
                return TG_OK;
            }
            l->at--;
            if (--l->left[l->at] > 0 && !tg_scan_take(s, ','))
                return TG_E_FORMAT;
        } else if (l->at + 1 < l->depth) {
            if (!tg_scan_take(s, '['))
                return TG_E_FORMAT;
            l->at++;
            l->left[l->at] = l->dims[l->at];
        } else {
            return TG_OK;
        }
    }
}

static void levels_init(struct levels *l, const struct tg_shape *shape, size_t count, bool nested)
{
    *l = (struct levels){.depth = nested ? shape->n : 1};
    l->dims[0] = count;
    for (size_t i = 0; nested && i < shape->n; i++)
        l->dims[i] = (uint64_t)shape->d[i];
    l->left[0] = l->dims[0];
}

enum tg_rc tg_oip_elements(struct tg_bytes json, const struct tg_oip_place *place,
                           const struct tg_oip_tensor *t, size_t count, struct tg_buf *out,
                           struct tg_err *err)
{
    struct tg_scan s = {json, place->at};
    struct levels l;
    size_t i = 0;
    bool done = false;

    (void)tg_scan_take(&s, '[');
    levels_init(&l, &t->shape, count, t->shape.n > 1 && tg_scan_peek(&s) == '[');
    for (;;) {
        enum tg_rc rc = to_element(&s, &l, &done);

        if (rc != TG_OK)
            break;
        if (done)
            return TG_OK;
        rc = element(&s, t->dtype, out);
        if (rc == TG_E_NOMEM)
            return TG_FAIL(err, rc, "out of memory");
        if (rc != TG_OK && tg_scan_peek(&s) != ']')
            return TG_FAIL(err, rc, "%s[%zu].data[%zu]: %s %s", place->list, place->index, i,
                           element_why(rc, t->dtype), tg_dtype_name(t->dtype));
        if (rc != TG_OK)
            break;
        i++;
        if (--l.left[l.at] > 0 && !tg_scan_take(&s, ','))
            break;
    }
    return TG_FAIL(err, TG_E_FORMAT,
                   "%s[%zu].data: does not have the shape's %zu elements (flat, or nested as the "
                   "shape says); stopped after %zu, at offset %zu of the body",
                   place->list, place->index, count, i, s.i);
}
