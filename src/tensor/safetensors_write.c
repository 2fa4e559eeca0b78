/* Writing safetensors as the reference library does, so that equal tensors make equal files. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "codec/json.h"
#include "tensor/weights_internal.h"

#define PIECE 65536

static int by_type(const void *a, const void *b)
{
    const struct tg_weight *x = *(const struct tg_weight *const *)a;
    const struct tg_weight *y = *(const struct tg_weight *const *)b;

    if (x->type != y->type)
        return x->type > y->type ? -1 : 1;
    return strcmp(x->name, y->name);
}

static enum tg_rc put_entry(const struct tg_weight *t, uint64_t at, struct tg_buf *h)
{
    TG_TRY(tg_buf_str(h, ","));
    TG_TRY(tg_json_quote(h, tg_bytes_str(t->name)));
    TG_TRY(tg_buf_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", tg_wtype_name(t->type)));
    for (size_t i = 0; i < t->shape.n; i++)
        TG_TRY(tg_buf_printf(h, "%s%" PRId64, i == 0 ? "" : ",", t->shape.d[i]));
    return tg_buf_printf(h, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at,
                         at + tg_weight_size(t));
}

static enum tg_rc put_header(const struct tg_weight *const *v, size_t n, struct tg_buf *h)
{
    uint64_t at = 0;

    TG_TRY(tg_buf_str(h, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (size_t i = 0; i < n; i++) {
        TG_TRY(put_entry(v[i], at, h));
        at += tg_weight_size(v[i]);
    }
    TG_TRY(tg_buf_str(h, "}"));
    while (h->n % 8 != 0)
        TG_TRY(tg_buf_str(h, " "));
    return TG_OK;
}

/* Strided tensors go through a small buffer. */
static enum tg_rc put_data(const struct tg_weight *t, const struct tg_weights_sink *sink,
                           struct tg_err *err)
{
    uint8_t piece[PIECE];
    size_t size = tg_wtype_bits(t->type) / 8;
    size_t count = t->stride == NULL ? 0 : tg_weight_size(t) / size;

    if (t->stride == NULL)
        return t->bytes.n == 0 ? TG_OK : sink->write(sink->arg, t->bytes.p, t->bytes.n, err);
    for (size_t from = 0, n; from < count; from += n) {
        n = count - from < PIECE / size ? count - from : PIECE / size;
        tg_weight_copy(t, from, n, piece);
        TG_TRY(sink->write(sink->arg, piece, n * size, err));
    }
    return TG_OK;
}

static enum tg_rc put_length(size_t n, const struct tg_weights_sink *sink, struct tg_err *err)
{
    uint8_t le[8];

    for (size_t i = 0; i < sizeof(le); i++)
        le[i] = (uint8_t)((uint64_t)n >> (8 * i));
    return sink->write(sink->arg, le, sizeof(le), err);
}

enum tg_rc tg_safetensors_write(const struct tg_weights *w, const struct tg_weights_sink *sink,
                                struct tg_err *err)
{
    TG_AUTO(tg_freep) const struct tg_weight **v = tg_calloc(w->n + 1, sizeof(const void *));
    TG_AUTO(tg_buf_done) struct tg_buf h = TG_BUF_INIT(TG_SAFETENSORS_HEADER_MAX);
    enum tg_rc rc;

    if (v == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < w->n; i++)
        v[i] = &w->v[i];
    if (w->n > 0)
        qsort((void *)v, w->n, sizeof(const void *), by_type);
    rc = put_header(v, w->n, &h);
    if (rc != TG_OK)
        return TG_FAIL(err, rc,
                       rc == TG_E_LIMIT ? "the header would be over %d bytes"
                                        : "out of memory for a header of at most %d bytes",
                       TG_SAFETENSORS_HEADER_MAX);
    TG_TRY(put_length(h.n, sink, err));
    TG_TRY(sink->write(sink->arg, h.data, h.n, err));
    for (size_t i = 0; i < w->n; i++)
        TG_TRY(put_data(v[i], sink, err));
    return TG_OK;
}
