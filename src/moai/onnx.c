#include "moai/onnx.h"

#define DEPTH_MAX 48

/* The messages of onnx.proto3 on the way to a TensorProto. */
enum msg { M_MODEL, M_GRAPH, M_NODE, M_ATTR, M_TENSOR, M_SPARSE, M_FUNCTION, M_TRAINING, M_NONE };

#define F_TENSOR_LOCATION 14 /* TensorProto.data_location; 1 is EXTERNAL */

static const struct {
    enum msg in;
    uint32_t field;
    enum msg to;
} edges[] = {
    {M_MODEL,    7,  M_GRAPH   }, /* graph */
    {M_MODEL,    20, M_TRAINING}, /* training_info */
    {M_MODEL,    25, M_FUNCTION}, /* functions */
    {M_GRAPH,    1,  M_NODE    }, /* node */
    {M_GRAPH,    5,  M_TENSOR  }, /* initializer */
    {M_GRAPH,    15, M_SPARSE  }, /* sparse_initializer */
    {M_NODE,     5,  M_ATTR    }, /* attribute */
    {M_ATTR,     5,  M_TENSOR  }, /* t */
    {M_ATTR,     6,  M_GRAPH   }, /* g */
    {M_ATTR,     10, M_TENSOR  }, /* tensors */
    {M_ATTR,     11, M_GRAPH   }, /* graphs */
    {M_ATTR,     22, M_SPARSE  }, /* sparse_tensor */
    {M_ATTR,     23, M_SPARSE  }, /* sparse_tensors */
    {M_SPARSE,   1,  M_TENSOR  }, /* values */
    {M_SPARSE,   2,  M_TENSOR  }, /* indices */
    {M_FUNCTION, 7,  M_NODE    }, /* node */
    {M_FUNCTION, 11, M_ATTR    }, /* attribute_proto */
    {M_TRAINING, 1,  M_GRAPH   }, /* initialization */
    {M_TRAINING, 2,  M_GRAPH   }, /* algorithm */
};

static enum msg follow(enum msg in, uint64_t field)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(edges); i++)
        if (edges[i].in == in && edges[i].field == field)
            return edges[i].to;
    return M_NONE;
}

static enum tg_rc varint(struct tg_rd *r, uint64_t *out)
{
    uint64_t v = 0;
    uint8_t b = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        TG_TRY(tg_rd_u8(r, &b));
        v |= (uint64_t)(b & 0x7f) << shift;
        if ((b & 0x80) == 0) {
            *out = v;
            return TG_OK;
        }
    }
    return TG_E_FORMAT;
}

struct walk {
    struct tg_rd level[DEPTH_MAX];
    enum msg msg[DEPTH_MAX];
    size_t depth; /* levels in use */
    bool external;
};

static enum tg_rc descend(struct walk *w, enum msg to, struct tg_bytes body, size_t off)
{
    if (w->depth == DEPTH_MAX)
        return TG_E_LIMIT;
    w->level[w->depth] = tg_rd_init(body);
    w->level[w->depth].off = off;
    w->msg[w->depth++] = to;
    return TG_OK;
}

/* One field of the innermost message. */
static enum tg_rc field(struct walk *w)
{
    struct tg_rd *r = &w->level[w->depth - 1];
    enum msg in = w->msg[w->depth - 1];
    struct tg_bytes body = TG_BYTES_NONE;
    uint64_t key = 0, v = 0;
    enum msg to;

    TG_TRY(varint(r, &key));
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff)
        return TG_E_FORMAT;
    switch (key & 7) {
    case 0:
        TG_TRY(varint(r, &v));
        if (in == M_TENSOR && key >> 3 == F_TENSOR_LOCATION)
            w->external = w->external || v == 1;
        return TG_OK;
    case 1:
        return tg_rd_bytes(r, 8, &body);
    case 5:
        return tg_rd_bytes(r, 4, &body);
    case 2:
        TG_TRY(varint(r, &v));
        if (v > r->rest.n)
            return TG_E_FORMAT;
        TG_TRY(tg_rd_bytes(r, (size_t)v, &body));
        to = follow(in, key >> 3);
        return to == M_NONE ? TG_OK : descend(w, to, body, r->off - body.n);
    }
    return TG_E_FORMAT; /* groups are not used by ONNX */
}

enum tg_rc tg_onnx_has_external_data(struct tg_bytes model, bool *yes, struct tg_err *err)
{
    struct walk w = {.depth = 0};

    if (model.n == 0)
        return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is empty");
    TG_TRY(descend(&w, M_MODEL, model, 0));
    while (w.depth > 0) {
        enum tg_rc rc;

        if (w.level[w.depth - 1].rest.n == 0) {
            w.depth--;
            continue;
        }
        rc = field(&w);
        if (rc == TG_E_LIMIT)
            return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is nested over %d levels deep",
                           DEPTH_MAX);
        if (rc != TG_OK)
            return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is not valid protobuf at offset %zu",
                           w.level[w.depth - 1].off);
    }
    *yes = w.external;
    return TG_OK;
}
