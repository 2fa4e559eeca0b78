#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "codec/json.h"
#include "tensor/half.h"
#include "tensor/oip.h"

struct tg_oip *tg_oip_new(enum tg_oip_kind kind)
{
    struct tg_oip *m = tg_calloc(1, sizeof(*m));

    if (m != NULL)
        m->kind = kind;
    return m;
}

void tg_oip_free(struct tg_oip *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++) {
        if (m->tensors[i].owned != NULL)
            tg_wipe(m->tensors[i].owned, m->tensors[i].data.n);
        tg_free(m->tensors[i].owned);
    }
    tg_free(m);
}

static enum tg_rc member(struct tg_buf *out, const char *key, const char *value)
{
    TG_TRY(tg_buf_printf(out, "\"%s\":", key));
    return tg_json_quote(out, tg_bytes_str(value));
}

/* Nine significant digits bring every float back, five every half, seventeen every double. */
static enum tg_rc write_float(struct tg_buf *out, double v, int digits)
{
    return isfinite(v) ? tg_buf_printf(out, "%.*g", digits, v) : TG_E_UNSUPPORTED;
}

static uint64_t get_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static enum tg_rc write_element(struct tg_buf *out, const struct tg_oip_tensor *t, size_t i)
{
    size_t size = tg_dtype_size(t->dtype);
    struct tg_bytes e = tg_bytes_sub(t->data, i * size, size);

    switch (t->dtype) {
    case TG_DT_BOOL:
        return tg_buf_str(out, e.p[0] != 0 ? "true" : "false");
    case TG_DT_UINT8:
    case TG_DT_UINT16:
    case TG_DT_UINT32:
    case TG_DT_UINT64:
        return tg_buf_printf(out, "%" PRIu64, get_le(e.p, size));
    case TG_DT_INT8:
        return tg_buf_printf(out, "%d", (int8_t)e.p[0]);
    case TG_DT_INT16:
        return tg_buf_printf(out, "%d", (int16_t)get_le(e.p, size));
    case TG_DT_INT32:
        return tg_buf_printf(out, "%" PRId32, (int32_t)get_le(e.p, size));
    case TG_DT_INT64:
        return tg_buf_printf(out, "%" PRId64, (int64_t)get_le(e.p, size));
    case TG_DT_FP16:
        return write_float(out, tg_tensor_f64(t->dtype, t->data, i), 5);
    case TG_DT_FP32:
        return write_float(out, tg_tensor_f64(t->dtype, t->data, i), 9);
    case TG_DT_FP64:
        return write_float(out, tg_tensor_f64(t->dtype, t->data, i), 17);
    case TG_DT_BYTES:
    case TG_DT_COUNT:
        break;
    }
    return TG_E_INTERNAL;
}

static enum tg_rc write_string(struct tg_buf *out, struct tg_rd *r)
{
    struct tg_bytes len = TG_BYTES_NONE, body = TG_BYTES_NONE;

    TG_TRY(tg_rd_bytes(r, 4, &len));
    TG_TRY(tg_rd_bytes(r, tg_get_le32(len.p), &body));
    if (!tg_utf8_ok(body))
        return TG_E_UNSUPPORTED;
    return tg_json_quote(out, body);
}

static enum tg_rc write_data(struct tg_buf *out, const struct tg_oip_tensor *t, struct tg_err *err)
{
    struct tg_rd r = tg_rd_init(t->data);
    size_t count = 0;
    enum tg_rc rc = tg_shape_count(&t->shape, TG_OIP_DATA_MAX, &count);

    for (size_t i = 0; rc == TG_OK && i < count; i++) {
        if (i > 0)
            TG_TRY(tg_buf_u8(out, ','));
        rc = t->dtype == TG_DT_BYTES ? write_string(out, &r) : write_element(out, t, i);
        if (rc == TG_E_UNSUPPORTED)
            return TG_FAIL(err, rc,
                           "output '%s', element %zu: %s can't be written as JSON; ask for binary "
                           "data (parameters.binary_data)",
                           t->name, i,
                           t->dtype == TG_DT_BYTES ? "a string that is not UTF-8"
                                                   : "NaN or infinity");
    }
    return rc;
}

static enum tg_rc write_tensor(struct tg_buf *out, const struct tg_oip_tensor *t,
                               struct tg_err *err)
{
    TG_TRY(tg_buf_str(out, "{"));
    TG_TRY(member(out, "name", t->name));
    TG_TRY(tg_buf_str(out, ","));
    TG_TRY(member(out, "datatype", tg_dtype_name(t->dtype)));
    TG_TRY(tg_buf_str(out, ",\"shape\":["));
    for (size_t i = 0; i < t->shape.n; i++)
        TG_TRY(tg_buf_printf(out, "%s%" PRId64, i == 0 ? "" : ",", t->shape.d[i]));
    if (t->binary)
        return tg_buf_printf(out, "],\"parameters\":{\"binary_data_size\":%zu}}", t->data.n);
    TG_TRY(tg_buf_str(out, "],\"data\":["));
    TG_TRY(write_data(out, t, err));
    return tg_buf_str(out, "]}");
}

static enum tg_rc write_wanted(const struct tg_oip *m, struct tg_buf *out)
{
    TG_TRY(tg_buf_str(out, ",\"outputs\":["));
    for (size_t i = 0; i < m->n_wanted; i++) {
        TG_TRY(tg_buf_str(out, i == 0 ? "{" : ",{"));
        TG_TRY(member(out, "name", m->wanted[i].name));
        TG_TRY(tg_buf_printf(out, ",\"parameters\":{\"binary_data\":%s}}",
                             m->wanted[i].binary ? "true" : "false"));
    }
    return tg_buf_str(out, "]");
}

static enum tg_rc write_json(const struct tg_oip *m, struct tg_buf *out, struct tg_err *err)
{
    TG_TRY(tg_buf_str(out, "{"));
    if (m->kind == TG_OIP_REPLY) {
        TG_TRY(member(out, "model_name", m->model_name));
        TG_TRY(tg_buf_str(out, ","));
        if (m->model_version[0] != '\0') {
            TG_TRY(member(out, "model_version", m->model_version));
            TG_TRY(tg_buf_str(out, ","));
        }
    }
    if (m->has_id) {
        TG_TRY(member(out, "id", m->id));
        TG_TRY(tg_buf_str(out, ","));
    }
    if (m->kind == TG_OIP_REQUEST && m->binary_outputs)
        TG_TRY(tg_buf_str(out, "\"parameters\":{\"binary_data_output\":true},"));
    TG_TRY(tg_buf_str(out, m->kind == TG_OIP_REQUEST ? "\"inputs\":[" : "\"outputs\":["));
    for (size_t i = 0; i < m->n; i++) {
        if (i > 0)
            TG_TRY(tg_buf_u8(out, ','));
        TG_TRY(write_tensor(out, &m->tensors[i], err));
    }
    TG_TRY(tg_buf_str(out, "]"));
    if (m->kind == TG_OIP_REQUEST && m->n_wanted > 0)
        TG_TRY(write_wanted(m, out));
    return tg_buf_str(out, "}");
}

enum tg_rc tg_oip_write(const struct tg_oip *m, struct tg_buf *out, size_t *json_len,
                        bool *has_binary, struct tg_err *err)
{
    size_t from = out->n;
    bool binary = false;
    size_t len;
    enum tg_rc rc;

    tg_err_set(err, TG_OK, "%s", "");
    rc = write_json(m, out, err);
    len = out->n - from;
    for (size_t i = 0; rc == TG_OK && i < m->n; i++)
        if (m->tensors[i].binary) {
            binary = true;
            rc = tg_buf_bytes(out, m->tensors[i].data);
        }
    if (rc != TG_OK) {
        if (err != NULL && err->rc == TG_OK)
            tg_err_set(err, rc, "can't write the body: %s", tg_rc_text(rc));
        return rc;
    }
    *json_len = len;
    *has_binary = binary;
    return TG_OK;
}
