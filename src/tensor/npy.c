#include "tensor/npy.h"

#include <inttypes.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_LEN 6
#define ALIGN 64 /* where NumPy puts the data */

/* NumPy's type codes. '|' and '<' are taken; '=' and '>' are not. */
static const struct {
    const char *code; /* without the byte order */
    enum tg_dtype dtype;
} codes[] = {
    {"b1", TG_DT_BOOL  },
    {"u1", TG_DT_UINT8 },
    {"u2", TG_DT_UINT16},
    {"u4", TG_DT_UINT32},
    {"u8", TG_DT_UINT64},
    {"i1", TG_DT_INT8  },
    {"i2", TG_DT_INT16 },
    {"i4", TG_DT_INT32 },
    {"i8", TG_DT_INT64 },
    {"f2", TG_DT_FP16  },
    {"f4", TG_DT_FP32  },
    {"f8", TG_DT_FP64  },
};

/* A cursor over the header's text. */
struct lit {
    struct tg_bytes in;
    size_t i;
};

static void skip_space(struct lit *l)
{
    while (l->i < l->in.n && (l->in.p[l->i] == ' ' || l->in.p[l->i] == '\n'))
        l->i++;
}

static bool take(struct lit *l, const char *word)
{
    struct tg_bytes w = tg_bytes_str(word);

    skip_space(l);
    if (!tg_bytes_eq(tg_bytes_sub(l->in, l->i, w.n), w))
        return false;
    l->i += w.n;
    return true;
}

/* 'text' or "text" without escapes. */
static bool take_string(struct lit *l, struct tg_bytes *out)
{
    uint8_t quote;
    size_t from;

    skip_space(l);
    if (l->i >= l->in.n || (l->in.p[l->i] != '\'' && l->in.p[l->i] != '"'))
        return false;
    quote = l->in.p[l->i++];
    from = l->i;
    while (l->i < l->in.n && l->in.p[l->i] != quote && l->in.p[l->i] != '\\')
        l->i++;
    if (l->i >= l->in.n || l->in.p[l->i] != quote)
        return false;
    *out = tg_bytes_sub(l->in, from, l->i - from);
    l->i++;
    return true;
}

static bool take_dim(struct lit *l, int64_t *out)
{
    uint64_t v = 0;
    size_t from;

    skip_space(l);
    from = l->i;
    for (; l->i < l->in.n && l->in.p[l->i] >= '0' && l->in.p[l->i] <= '9'; l->i++)
        if (!tg_mul_u64(v, 10, &v) || !tg_add_u64(v, (uint64_t)(l->in.p[l->i] - '0'), &v) ||
            v > INT64_MAX)
            return false;
    if (l->i == from)
        return false;
    *out = (int64_t)v;
    return true;
}

static enum tg_rc take_shape(struct lit *l, const char *name, struct tg_shape *s,
                             struct tg_err *err)
{
    s->n = 0;
    if (!take(l, "("))
        return TG_FAIL(err, TG_E_FORMAT, "%s: 'shape' is not a tuple", name);
    while (!take(l, ")")) {
        if (s->n == TG_DIMS_MAX)
            return TG_FAIL(err, TG_E_LIMIT, "%s: over %d dimensions", name, TG_DIMS_MAX);
        if (!take_dim(l, &s->d[s->n]))
            return TG_FAIL(err, TG_E_FORMAT, "%s: 'shape' holds something other than sizes", name);
        s->n++;
        if (!take(l, ",") && !(l->i < l->in.n && l->in.p[l->i] == ')'))
            return TG_FAIL(err, TG_E_FORMAT, "%s: 'shape' is not a tuple of sizes", name);
    }
    return TG_OK;
}

static enum tg_rc read_descr(struct lit *l, const char *name, enum tg_dtype *out,
                             struct tg_err *err)
{
    struct tg_bytes s = TG_BYTES_NONE;

    if (!take_string(l, &s) || s.n < 2 || s.n > 16)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "%s: 'descr' is not one plain type (structured arrays are not supported)",
                       name);
    for (size_t i = 0; i < TG_ARRAY_LEN(codes); i++)
        if (tg_bytes_eq(tg_bytes_sub(s, 1, s.n), tg_bytes_str(codes[i].code)) &&
            (s.p[0] == '<' || (s.p[0] == '|' && tg_dtype_size(codes[i].dtype) == 1))) {
            *out = codes[i].dtype;
            return TG_OK;
        }
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return TG_FAIL(err, TG_E_FORMAT, "%s: 'descr' holds a character that is not ASCII",
                           name);
    return TG_FAIL(
        err, TG_E_UNSUPPORTED,
        "%s: element type '%.*s' is not supported (take a little-endian bool, integer or "
        "float type, e.g. array.astype('<f4'))",
        name, (int)s.n, (const char *)s.p);
}

enum { KEY_DESCR = 1, KEY_ORDER = 2, KEY_SHAPE = 4, KEY_ALL = 7 };

static enum tg_rc read_entry(struct lit *l, const char *name, unsigned *seen, struct tg_npy *out,
                             struct tg_err *err)
{
    struct tg_bytes key;
    unsigned bit;

    if (!take_string(l, &key) || !take(l, ":"))
        return TG_FAIL(err, TG_E_FORMAT, "%s: header is not a dictionary", name);
    bit = tg_bytes_eq(key, tg_bytes_str("descr"))           ? KEY_DESCR
          : tg_bytes_eq(key, tg_bytes_str("fortran_order")) ? KEY_ORDER
          : tg_bytes_eq(key, tg_bytes_str("shape"))         ? KEY_SHAPE
                                                            : 0;
    if (bit == 0 || (*seen & bit) != 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: header holds an unknown or repeated key", name);
    *seen |= bit;
    if (bit == KEY_DESCR)
        return read_descr(l, name, &out->dtype, err);
    if (bit == KEY_SHAPE)
        return take_shape(l, name, &out->shape, err);
    if (take(l, "False"))
        return TG_OK;
    if (take(l, "True"))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "%s: Fortran order is not supported (save numpy.ascontiguousarray(array))",
                       name);
    return TG_FAIL(err, TG_E_FORMAT, "%s: 'fortran_order' is neither True nor False", name);
}

static enum tg_rc read_header(struct tg_bytes text, const char *name, struct tg_npy *out,
                              struct tg_err *err)
{
    struct lit l = {text, 0};
    unsigned seen = 0;

    if (!take(&l, "{"))
        return TG_FAIL(err, TG_E_FORMAT, "%s: header is not a dictionary", name);
    while (!take(&l, "}")) {
        TG_TRY(read_entry(&l, name, &seen, out, err));
        skip_space(&l);
        if (!take(&l, ",") && !(l.i < l.in.n && l.in.p[l.i] == '}'))
            return TG_FAIL(err, TG_E_FORMAT, "%s: header is not a dictionary", name);
    }
    skip_space(&l);
    if (seen != KEY_ALL || l.i != l.in.n)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: header does not hold exactly descr, fortran_order and shape", name);
    return TG_OK;
}

/* Find the header's text and the data behind it. */
static enum tg_rc split(struct tg_bytes file, const char *name, struct tg_bytes *header,
                        struct tg_bytes *data, struct tg_err *err)
{
    struct tg_rd r = tg_rd_init(file);
    struct tg_bytes magic = TG_BYTES_NONE, version = TG_BYTES_NONE, len = TG_BYTES_NONE;
    uint32_t n;

    if (tg_rd_bytes(&r, MAGIC_LEN, &magic) != TG_OK ||
        !tg_bytes_eq(magic, tg_bytes_make(MAGIC, MAGIC_LEN)))
        return TG_FAIL(err, TG_E_FORMAT, "%s: not a .npy file", name);
    if (tg_rd_bytes(&r, 2, &version) != TG_OK || version.p[0] < 1 || version.p[0] > 3 ||
        version.p[1] != 0)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "%s: unknown version of the .npy format", name);
    if (tg_rd_bytes(&r, version.p[0] == 1 ? 2 : 4, &len) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "%s: ends at offset %zu, inside the header", name, file.n);
    n = len.n == 2 ? (uint32_t)len.p[0] | (uint32_t)len.p[1] << 8 : tg_get_le32(len.p);
    if (n > TG_NPY_HEADER_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%s: header of %" PRIu32 " bytes, at most %" PRIu32, name,
                       n, TG_NPY_HEADER_MAX);
    if (tg_rd_bytes(&r, n, header) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "%s: ends at offset %zu, inside the header", name, file.n);
    *data = r.rest;
    return TG_OK;
}

enum tg_rc tg_npy_parse(struct tg_bytes file, const char *name, struct tg_npy *out,
                        struct tg_err *err)
{
    struct tg_npy npy = {.dtype = TG_DT_COUNT, .shape = {.n = 0}, .data = TG_BYTES_NONE};
    struct tg_bytes header = TG_BYTES_NONE;

    TG_TRY(split(file, name, &header, &npy.data, err));
    TG_TRY(read_header(header, name, &npy, err));
    TG_TRY(tg_tensor_check(name, npy.dtype, &npy.shape, npy.data, err));
    *out = npy;
    return TG_OK;
}

static const char *code_of(enum tg_dtype t)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(codes); i++)
        if (codes[i].dtype == t)
            return codes[i].code;
    return NULL;
}

static enum tg_rc write_shape(const struct tg_shape *s, struct tg_buf *out)
{
    TG_TRY(tg_buf_str(out, "("));
    for (size_t i = 0; i < s->n; i++)
        TG_TRY(tg_buf_printf(out, "%s%" PRId64, i == 0 ? "" : ", ", s->d[i]));
    return tg_buf_str(out, s->n == 1 ? ",)" : ")");
}

static enum tg_rc write_all(const struct tg_npy *in, const char *code, struct tg_buf *out)
{
    TG_AUTO(tg_buf_done) struct tg_buf head = TG_BUF_INIT(TG_NPY_HEADER_MAX);
    uint8_t len[2];

    TG_TRY(tg_buf_printf(&head, "{'descr': '%c%s', 'fortran_order': False, 'shape': ",
                         tg_dtype_size(in->dtype) == 1 ? '|' : '<', code));
    TG_TRY(write_shape(&in->shape, &head));
    TG_TRY(tg_buf_str(&head, ", }"));
    while ((MAGIC_LEN + 4 + head.n + 1) % ALIGN != 0)
        TG_TRY(tg_buf_u8(&head, ' '));
    TG_TRY(tg_buf_u8(&head, '\n'));
    len[0] = (uint8_t)(head.n & 0xff);
    len[1] = (uint8_t)(head.n >> 8);
    TG_TRY(tg_buf_append(out, MAGIC "\x01\x00", MAGIC_LEN + 2));
    TG_TRY(tg_buf_append(out, len, sizeof(len)));
    TG_TRY(tg_buf_bytes(out, tg_buf_view(&head)));
    return tg_buf_bytes(out, in->data);
}

enum tg_rc tg_npy_write(const struct tg_npy *in, struct tg_buf *out, struct tg_err *err)
{
    const char *code = code_of(in->dtype);
    enum tg_rc rc;

    if (code == NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "a .npy file can't hold %s elements",
                       tg_dtype_name(in->dtype));
    TG_TRY(tg_tensor_check("array", in->dtype, &in->shape, in->data, err));
    rc = write_all(in, code, out);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "can't write a .npy file of %zu bytes", in->data.n);
    return TG_OK;
}
