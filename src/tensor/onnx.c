#include "tensor/onnx.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 48

/* The messages of onnx.proto3 on the way to a TensorProto. */
enum msg {
    M_MODEL,
    M_GRAPH,
    M_NODE,
    M_ATTR,
    M_TENSOR,
    M_ENTRY,
    M_SPARSE,
    M_FUNCTION,
    M_TRAINING,
    M_NONE
};

/* Fields of NodeProto, TensorProto and StringStringEntryProto that are read. */
#define F_INPUT 1
#define F_DIMS 1
#define F_TYPE 2
#define F_NAME 8
#define F_LOCATION 14 /* 1 is EXTERNAL */
#define F_KEY 1
#define F_VALUE 2

/* A tensor at this depth, below a graph, is an initializer of the main graph. */
#define INIT_DEPTH 2

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
    {M_TENSOR,   13, M_ENTRY   }, /* external_data */
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
    struct tg_onnx *out;
    size_t init_cap, use_cap;
    struct tg_onnx_init *init; /* of the main graph, if the walk is inside one */
    struct tg_bytes key;       /* of the entry the walk is in */
};

/* ---- one initializer ---- */

static enum tg_rc room(void **v, size_t n, size_t *cap, size_t size, size_t most)
{
    size_t more = *cap == 0 ? 64 : 2 * *cap;
    void *p;

    if (n == most)
        return TG_E_STATE;
    if (n < *cap)
        return TG_OK;
    p = tg_realloc(*v, more * size);
    if (p == NULL)
        return TG_E_NOMEM;
    *v = p;
    *cap = more;
    return TG_OK;
}

static enum tg_rc init_begin(struct walk *w)
{
    struct tg_onnx *o = w->out;
    void *v = o->inits;
    enum tg_rc rc = room(&v, o->n_inits, &w->init_cap, sizeof(*w->init), TG_ONNX_INITIALIZERS_MAX);

    o->inits = v;
    TG_TRY(rc);
    w->init = &o->inits[o->n_inits++];
    *w->init = (struct tg_onnx_init){.length = UINT64_MAX};
    return TG_OK;
}

static enum tg_rc add_use(struct walk *w, struct tg_bytes name)
{
    struct tg_onnx *o = w->out;
    void *v = o->uses;
    enum tg_rc rc = room(&v, o->n_uses, &w->use_cap, sizeof(name), TG_ONNX_USES_MAX);

    o->uses = v;
    TG_TRY(rc);
    o->uses[o->n_uses++] = name;
    return TG_OK;
}

static enum tg_rc add_dim(struct tg_onnx_init *t, uint64_t v)
{
    if (t->shape.n == TG_DIMS_MAX || v > INT64_MAX)
        return TG_E_FORMAT;
    t->shape.d[t->shape.n++] = (int64_t)v;
    return TG_OK;
}

static enum tg_rc packed_dims(struct tg_onnx_init *t, struct tg_bytes body)
{
    struct tg_rd r = tg_rd_init(body);
    uint64_t v = 0;

    while (r.rest.n > 0) {
        TG_TRY(varint(&r, &v));
        TG_TRY(add_dim(t, v));
    }
    return TG_OK;
}

/* Decimal, as exporters write it. */
static enum tg_rc number(struct tg_bytes text, uint64_t *out)
{
    uint64_t v = 0;

    if (text.n == 0)
        return TG_E_FORMAT;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] < '0' || text.p[i] > '9' || !tg_mul_u64(v, 10, &v) ||
            !tg_add_u64(v, (uint64_t)(text.p[i] - '0'), &v))
            return TG_E_FORMAT;
    *out = v;
    return TG_OK;
}

static enum tg_rc entry(struct walk *w, uint64_t at, struct tg_bytes body)
{
    struct tg_onnx_init *t = w->init;

    if (at == F_KEY)
        w->key = body;
    if (at != F_VALUE || t == NULL)
        return TG_OK;
    if (tg_bytes_eq(w->key, tg_bytes_str("location")))
        t->location = body;
    if (tg_bytes_eq(w->key, tg_bytes_str("offset")))
        return number(body, &t->offset);
    if (tg_bytes_eq(w->key, tg_bytes_str("length")))
        return number(body, &t->length);
    return TG_OK;
}

static enum tg_rc on_varint(struct walk *w, enum msg in, uint64_t at, uint64_t v)
{
    if (in != M_TENSOR)
        return TG_OK;
    if (at == F_LOCATION && v == 1 && w->init == NULL)
        w->out->buried_external = true;
    if (w->init == NULL)
        return TG_OK;
    if (at == F_LOCATION)
        w->init->external = v == 1;
    if (at == F_TYPE)
        w->init->type = v > 0xffff ? 0xffff : (uint32_t)v;
    return at == F_DIMS ? add_dim(w->init, v) : TG_OK;
}

static enum tg_rc on_bytes(struct walk *w, enum msg in, uint64_t at, struct tg_bytes body)
{
    if (in == M_ENTRY)
        return entry(w, at, body);
    if (in == M_NODE && at == F_INPUT)
        return add_use(w, body);
    if (in != M_TENSOR || w->init == NULL)
        return TG_OK;
    if (at == F_NAME)
        w->init->name = body;
    return at == F_DIMS ? packed_dims(w->init, body) : TG_OK;
}

/* ---- the walk ---- */

static enum tg_rc descend(struct walk *w, enum msg to, struct tg_bytes body, size_t off)
{
    if (w->depth == DEPTH_MAX)
        return TG_E_LIMIT;
    w->level[w->depth] = tg_rd_init(body);
    w->level[w->depth].off = off;
    w->msg[w->depth++] = to;
    if (to == M_ENTRY)
        w->key = TG_BYTES_NONE;
    return to == M_TENSOR && w->depth == INIT_DEPTH + 1 && w->msg[INIT_DEPTH - 1] == M_GRAPH
               ? init_begin(w)
               : TG_OK;
}

static void ascend(struct walk *w)
{
    w->depth--;
    if (w->msg[w->depth] == M_TENSOR)
        w->init = NULL;
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
        return on_varint(w, in, key >> 3, v);
    case 1:
        return tg_rd_bytes(r, 8, &body);
    case 5:
        return tg_rd_bytes(r, 4, &body);
    case 2:
        TG_TRY(varint(r, &v));
        if (v > r->rest.n)
            return TG_E_FORMAT;
        TG_TRY(tg_rd_bytes(r, (size_t)v, &body));
        TG_TRY(on_bytes(w, in, key >> 3, body));
        to = follow(in, key >> 3);
        return to == M_NONE ? TG_OK : descend(w, to, body, r->off - body.n);
    }
    return TG_E_FORMAT; /* groups are not used by ONNX */
}

static enum tg_rc walk(struct walk *w, struct tg_bytes model, struct tg_err *err)
{
    TG_TRY(descend(w, M_MODEL, model, 0));
    while (w->depth > 0) {
        enum tg_rc rc;

        if (w->level[w->depth - 1].rest.n == 0) {
            ascend(w);
            continue;
        }
        rc = field(w);
        if (rc == TG_E_NOMEM)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        if (rc == TG_E_STATE)
            return TG_FAIL(err, TG_E_LIMIT, "the ONNX file has over %d initializers",
                           TG_ONNX_INITIALIZERS_MAX);
        if (rc == TG_E_LIMIT)
            return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is nested over %d levels deep",
                           DEPTH_MAX);
        if (rc != TG_OK)
            return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is not valid protobuf at offset %zu",
                           w->level[w->depth - 1].off);
    }
    return TG_OK;
}

static int by_bytes(const void *a, const void *b)
{
    const struct tg_bytes *x = a, *y = b;

    return tg_bytes_cmp(*x, *y);
}

static int by_init_name(const void *a, const void *b)
{
    const struct tg_onnx_init *x = a, *y = b;

    return tg_bytes_cmp(x->name, y->name);
}

enum tg_rc tg_onnx_scan(struct tg_bytes model, struct tg_onnx *out, struct tg_err *err)
{
    struct tg_onnx found = {.n_inits = 0};
    struct walk w = {.out = &found};
    enum tg_rc rc;

    if (model.n == 0)
        return TG_FAIL(err, TG_E_FORMAT, "the ONNX file is empty");
    rc = walk(&w, model, err);
    if (rc != TG_OK) {
        tg_onnx_done(&found);
        return rc;
    }
    for (size_t i = 0; i < found.n_inits; i++)
        found.n_external += found.inits[i].external;
    if (found.n_inits > 0)
        qsort(found.inits, found.n_inits, sizeof(*found.inits), by_init_name);
    if (found.n_uses > 0)
        qsort(found.uses, found.n_uses, sizeof(*found.uses), by_bytes);
    *out = found;
    return TG_OK;
}

void tg_onnx_done(struct tg_onnx *o)
{
    tg_free(o->inits);
    tg_free(o->uses);
    *o = (struct tg_onnx){.n_inits = 0};
}

const struct tg_onnx_init *tg_onnx_find(const struct tg_onnx *o, struct tg_bytes name)
{
    const struct tg_onnx_init key = {.name = name};

    return o->n_inits == 0 ? NULL
                           : bsearch(&key, o->inits, o->n_inits, sizeof(*o->inits), by_init_name);
}

bool tg_onnx_uses(const struct tg_onnx *o, struct tg_bytes name)
{
    return o->n_uses > 0 && bsearch(&name, o->uses, o->n_uses, sizeof(*o->uses), by_bytes) != NULL;
}

size_t tg_onnx_type_size(uint32_t type)
{
    /* TensorProto.DataType: 1 float, 2 uint8, 3 int8, 4 uint16, 5 int16, 6 int32, 7 int64, 9 bool,
     * 10 float16, 11 double, 12 uint32, 13 uint64, 16 bfloat16, 17-20 float8 */
    static const uint8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 0, 0, 2, 1, 1, 1, 1};

    return type < sizeof(sizes) ? sizes[type] : 0;
}
