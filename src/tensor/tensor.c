#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tensor/half.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[TG_DT_COUNT] = {
    [TG_DT_BOOL] = {"BOOL",   1},
      [TG_DT_UINT8] = {"UINT8",  1},
      [TG_DT_UINT16] = {"UINT16", 2},
    [TG_DT_UINT32] = {"UINT32", 4},
      [TG_DT_UINT64] = {"UINT64", 8},
      [TG_DT_INT8] = {"INT8",   1},
    [TG_DT_INT16] = {"INT16",  2},
      [TG_DT_INT32] = {"INT32",  4},
      [TG_DT_INT64] = {"INT64",  8},
    [TG_DT_FP16] = {"FP16",   2},
      [TG_DT_FP32] = {"FP32",   4},
      [TG_DT_FP64] = {"FP64",   8},
    [TG_DT_BYTES] = {"BYTES",  0},
};

const char *tg_dtype_name(enum tg_dtype t)
{
    return (size_t)t < TG_DT_COUNT ? dtypes[t].name : "?";
}

size_t tg_dtype_size(enum tg_dtype t)
{
    return (size_t)t < TG_DT_COUNT ? dtypes[t].size : 0;
}

enum tg_dtype tg_dtype_from_name(struct tg_bytes name)
{
    for (size_t i = 0; i < TG_DT_COUNT; i++)
        if (tg_bytes_eq(name, tg_bytes_str(dtypes[i].name)))
            return (enum tg_dtype)i;
    return TG_DT_COUNT;
}

enum tg_rc tg_shape_count(const struct tg_shape *s, uint64_t max, size_t *count)
{
    uint64_t n = 1;
    bool zero = false;

    if (s->n > TG_DIMS_MAX)
        return TG_E_LIMIT;
    for (size_t i = 0; i < s->n; i++) {
        if (s->d[i] < 0)
            return TG_E_FORMAT;
        zero = zero || s->d[i] == 0;
    }
    for (size_t i = 0; !zero && i < s->n; i++)
        if (!tg_mul_u64(n, (uint64_t)s->d[i], &n) || n > max)
            return TG_E_LIMIT;
    *count = zero ? 0 : (size_t)n;
    return TG_OK;
}

void tg_shape_text(const struct tg_shape *s, char out[TG_SHAPE_TEXT])
{
    size_t at = 0;

    out[at++] = '[';
    for (size_t i = 0; i < s->n && i < TG_DIMS_MAX; i++)
        at += (size_t)snprintf(out + at, TG_SHAPE_TEXT - at, "%s%" PRId64, i == 0 ? "" : ",",
                               s->d[i]);
    out[at++] = ']';
    out[at] = '\0';
}

bool tg_shape_eq(const struct tg_shape *a, const struct tg_shape *b)
{
    return a->n == b->n && tg_mem_eq(a->d, b->d, a->n * sizeof(a->d[0]));
}

uint32_t tg_get_le32(const uint8_t in[4])
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

void tg_put_le32(uint8_t out[4], uint32_t v)
{
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

static enum tg_rc check_strings(const char *what, size_t count, struct tg_bytes data,
                                struct tg_err *err)
{
    struct tg_rd r = tg_rd_init(data);
    struct tg_bytes len, body;

    for (size_t i = 0; i < count; i++)
        if (tg_rd_bytes(&r, 4, &len) != TG_OK ||
            tg_rd_bytes(&r, tg_get_le32(len.p), &body) != TG_OK)
            return TG_FAIL(err, TG_E_FORMAT,
                           "%s: string %zu of %zu passes the end of the data at offset %zu", what,
                           i, count, r.off);
    if (r.rest.n != 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes follow the last of %zu strings", what,
                       r.rest.n, count);
    return TG_OK;
}

enum tg_rc tg_tensor_check(const char *what, enum tg_dtype t, const struct tg_shape *s,
                           struct tg_bytes data, struct tg_err *err)
{
    char shape[TG_SHAPE_TEXT];
    size_t size = tg_dtype_size(t);
    size_t count = 0;
    enum tg_rc rc = tg_shape_count(s, SIZE_MAX / 8, &count);

    tg_shape_text(s, shape);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: shape %s is not possible", what, shape);
    if (t == TG_DT_BYTES)
        return check_strings(what, count, data, err);
    if (data.n != count * size)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes of data, but %s %s takes %zu", what, data.n,
                       tg_dtype_name(t), shape, count * size);
    for (size_t i = 0; t == TG_DT_BOOL && i < data.n; i++)
        if (data.p[i] > 1)
            return TG_FAIL(err, TG_E_FORMAT, "%s: element %zu of a BOOL tensor is %u, not 0 or 1",
                           what, i, data.p[i]);
    return TG_OK;
}

#define ELEMENT(type)                                                                              \
    __extension__({                                                                                \
        type v_;                                                                                   \
        memcpy(&v_, data.p + i * sizeof(v_), sizeof(v_));                                          \
        v_;                                                                                        \
    })

double tg_tensor_f64(enum tg_dtype t, struct tg_bytes data, size_t i)
{
    switch (t) {
    case TG_DT_BOOL:
    case TG_DT_UINT8:
        return (double)ELEMENT(uint8_t);
    case TG_DT_UINT16:
        return (double)ELEMENT(uint16_t);
    case TG_DT_UINT32:
        return (double)ELEMENT(uint32_t);
    case TG_DT_UINT64:
        return (double)ELEMENT(uint64_t);
    case TG_DT_INT8:
        return (double)ELEMENT(int8_t);
    case TG_DT_INT16:
        return (double)ELEMENT(int16_t);
    case TG_DT_INT32:
        return (double)ELEMENT(int32_t);
    case TG_DT_INT64:
        return (double)ELEMENT(int64_t);
    case TG_DT_FP16:
        return (double)tg_half_to_f32(ELEMENT(uint16_t));
    case TG_DT_FP32:
        return (double)ELEMENT(float);
    case TG_DT_FP64:
        return ELEMENT(double);
    case TG_DT_BYTES:
    case TG_DT_COUNT:
        break;
    }
    return 0.0;
}
