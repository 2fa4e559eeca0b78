#include "onnx_make.h"

#include <stdlib.h>
#include <string.h>

#define MAX (1u << 20)

static enum tg_rc varint(struct tg_buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        TG_TRY(tg_buf_u8(b, (uint8_t)(v | 0x80)));
    return tg_buf_u8(b, (uint8_t)v);
}

static enum tg_rc number(struct tg_buf *b, unsigned field, uint64_t v)
{
    TG_TRY(varint(b, field << 3));
    return varint(b, v);
}

static enum tg_rc bytes(struct tg_buf *b, unsigned field, struct tg_bytes v)
{
    TG_TRY(varint(b, field << 3 | 2));
    TG_TRY(varint(b, v.n));
    return tg_buf_bytes(b, v);
}

static enum tg_rc text(struct tg_buf *b, unsigned field, const char *s)
{
    return bytes(b, field, tg_bytes_str(s));
}

/* Append what `inner` holds as a message field and empty it. */
static enum tg_rc message(struct tg_buf *b, unsigned field, struct tg_buf *inner)
{
    TG_TRY(bytes(b, field, tg_buf_view(inner)));
    tg_buf_clear(inner);
    return TG_OK;
}

/* ValueInfoProto{name, type{tensor_type{elem_type, shape{dim...}}}} */
static enum tg_rc value_info(const struct onnx_make *m, const char *name, struct tg_buf *out)
{
    TG_AUTO(tg_buf_done) struct tg_buf shape = TG_BUF_INIT(MAX), dim = TG_BUF_INIT(MAX);
    TG_AUTO(tg_buf_done) struct tg_buf tensor = TG_BUF_INIT(MAX), type = TG_BUF_INIT(MAX);

    for (size_t i = 0; i < m->n_dims; i++) {
        char *end;
        unsigned long v = strtoul(m->dims[i], &end, 10);

        TG_TRY(*end == '\0' ? number(&dim, 1, v) : text(&dim, 2, m->dims[i]));
        TG_TRY(message(&shape, 1, &dim));
    }
    TG_TRY(number(&tensor, 1, (uint64_t)m->type));
    TG_TRY(message(&tensor, 2, &shape));
    TG_TRY(message(&type, 1, &tensor));
    TG_TRY(text(out, 1, name));
    return message(out, 2, &type);
}

/* key and value of TensorProto.external_data */
static enum tg_rc entry(struct tg_buf *t, const char *key, const char *value)
{
    TG_AUTO(tg_buf_done) struct tg_buf kv = TG_BUF_INIT(MAX);

    if (value == NULL)
        return TG_OK;
    TG_TRY(text(&kv, 1, key));
    TG_TRY(text(&kv, 2, value));
    return message(t, 13, &kv);
}

/* A FLOAT[w_len] tensor whose data is said to be in weights.bin; inside `nest` attributes of
 * subgraphs.
 */
static enum tg_rc external_graph(const struct onnx_make *m, struct tg_buf *graph)
{
    TG_AUTO(tg_buf_done) struct tg_buf t = TG_BUF_INIT(MAX);
    TG_AUTO(tg_buf_done) struct tg_buf g = TG_BUF_INIT(MAX), a = TG_BUF_INIT(MAX);
    TG_AUTO(tg_buf_done) struct tg_buf n = TG_BUF_INIT(MAX);

    TG_TRY(number(&t, 1, m->w_len == 0 ? 1 : m->w_len));
    TG_TRY(number(&t, 2, 1));
    TG_TRY(text(&t, 8, "w"));
    TG_TRY(entry(&t, "location", "weights.bin"));
    TG_TRY(entry(&t, "offset", m->w_offset));
    TG_TRY(entry(&t, "length", m->w_length));
    TG_TRY(number(&t, 14, 1));
    if (m->nest == 0)
        return message(graph, 5, &t);
    TG_TRY(message(&g, 5, &t));
    for (size_t i = 0; i < m->nest;
         i++) { /* graph -> attribute.g -> node.attribute -> graph.node */
        TG_TRY(message(&a, 6, &g));
        TG_TRY(message(&n, 5, &a));
        TG_TRY(message(i + 1 < m->nest ? &g : graph, 1, &n));
    }
    return TG_OK;
}

enum tg_rc onnx_make(const struct onnx_make *m, struct tg_buf *out)
{
    TG_AUTO(tg_buf_done) struct tg_buf graph = TG_BUF_INIT(MAX), part = TG_BUF_INIT(MAX);

    TG_TRY(text(&part, 1, "x"));
    if (m->uses_w)
        TG_TRY(text(&part, 1, "w"));
    TG_TRY(text(&part, 2, "y"));
    TG_TRY(text(&part, 4, m->op));
    TG_TRY(message(&graph, 1, &part));
    TG_TRY(text(&graph, 2, "g"));
    if (m->external)
        TG_TRY(external_graph(m, &graph));
    TG_TRY(value_info(m, "x", &part));
    TG_TRY(message(&graph, 11, &part));
    TG_TRY(value_info(m, "y", &part));
    TG_TRY(message(&graph, 12, &part));
    TG_TRY(number(out, 1, 8)); /* ir_version */
    TG_TRY(message(out, 7, &graph));
    TG_TRY(text(&part, 1, ""));
    TG_TRY(number(&part, 2, 13)); /* opset */
    return message(out, 8, &part);
}
