/* Initializers whose data is not in the model: ONNX external data, and weights by name. They are
 * given to ONNX Runtime as tensors over the memory where they lie. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "moai/session_internal.h"
#include "tensor/onnx.h"

#define NAME_MAX_LEN 1024
#define TYPE_STRING 8

/* Fields of onnx.proto3 that are written here. */
#define F_MODEL_GRAPH 7
#define F_GRAPH_INITIALIZER 5
#define F_TENSOR_DIMS 1
#define F_TENSOR_TYPE 2
#define F_TENSOR_NAME 8
#define F_TENSOR_EXTERNAL 13
#define F_TENSOR_LOCATION 14

struct gather {
    struct tg_ort *o;
    const struct tg_session_spec *spec;
    const struct tg_session_weights **sorted; /* the spec's, by name */
    struct tg_onnx onnx;
    struct tg_session_extra *out;
    struct tg_err *err;
};

/* For error texts: names come from the package, which may be anyone's. */
#define NAME_ARG(b) (int)((b).n < 200 ? (b).n : 200), (const char *)(b).p

static enum tg_rc check_size(const struct gather *g, struct tg_bytes name, uint32_t type,
                             const struct tg_shape *shape, struct tg_bytes data)
{
    size_t size = tg_onnx_type_size(type), count = 0;

    if (size == 0)
        return TG_FAIL(g->err, TG_E_UNSUPPORTED,
                       "initializer '%.*s': ONNX type %" PRIu32 " can't lie in another file",
                       NAME_ARG(name), type);
    if (tg_shape_count(shape, SIZE_MAX / size, &count) != TG_OK || count * size != data.n)
        return TG_FAIL(g->err, TG_E_FORMAT,
                       "initializer '%.*s': its data has %zu bytes, its shape asks for another "
                       "number",
                       NAME_ARG(name), data.n);
    return TG_OK;
}

/* One more tensor over data, which stays where it is. */
static enum tg_rc add(struct gather *g, struct tg_bytes name, uint32_t type,
                      const struct tg_shape *shape, struct tg_bytes data)
{
    static uint8_t nothing; /* a tensor without elements still needs an address */
    struct tg_session_extra *e = g->out;
    void *p = data.n > 0 ? (void *)(uintptr_t)data.p : &nothing;
    char *text;

    TG_TRY(check_size(g, name, type, shape, data));
    if (name.n == 0 || name.n > NAME_MAX_LEN || memchr(name.p, 0, name.n) != NULL)
        return TG_FAIL(g->err, TG_E_FORMAT, "an initializer's name is empty or over %d bytes",
                       NAME_MAX_LEN);
    text = tg_asprintf("%.*s", (int)name.n, (const char *)name.p);
    if (text == NULL)
        return TG_FAIL(g->err, TG_E_NOMEM, "out of memory");
    e->names[e->n++] = text;
    /* The numbers of ONNX's types and of ONNX Runtime's are the same. */
    return tg_ort_check(g->o,
                        g->o->api->CreateTensorWithDataAsOrtValue(
                            g->o->cpu, p, data.n, shape->d, shape->n,
                            (ONNXTensorElementDataType)type, &e->values[e->n - 1]),
                        "weights", g->err);
}

static int by_name(const void *a, const void *b)
{
    const struct tg_session_weights *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static enum tg_rc sort(struct gather *g)
{
    size_t n = g->spec->n_weights;

    g->sorted = tg_calloc(n + 1, sizeof(*g->sorted));
    if (g->sorted == NULL)
        return TG_FAIL(g->err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        g->sorted[i] = &g->spec->weights[i];
    qsort(g->sorted, n, sizeof(*g->sorted), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->sorted[i - 1]->name, g->sorted[i]->name) == 0)
            return TG_FAIL(g->err, TG_E_FORMAT, "two tensors of weights are called '%.200s'",
                           g->sorted[i]->name);
    return TG_OK;
}

static const struct tg_session_weights *find(const struct gather *g, struct tg_bytes name)
{
    size_t lo = 0, hi = g->spec->n_weights;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const char *at = g->sorted[mid]->name;
        int d = strncmp(at, (const char *)name.p, name.n);

        if (d == 0 && at[name.n] == '\0')
            return g->sorted[mid];
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- ONNX external data ---- */

static enum tg_rc from_file(const struct gather *g, const struct tg_onnx_init *t,
                            struct tg_bytes *data)
{
    struct tg_bytes file = TG_BYTES_NONE;
    size_t size = tg_onnx_type_size(t->type), count = 0;
    uint64_t length = t->length, end = 0;

    if (g->spec->file == NULL || g->spec->file(g->spec->file_arg, t->location, &file) != TG_OK)
        return TG_FAIL(g->err, TG_E_NOTFOUND,
                       "the model keeps weights in another file, '%.*s', which is not in the "
                       "package; add it, or save the model as one file",
                       NAME_ARG(t->location));
    if (length == UINT64_MAX && size > 0 &&
        tg_shape_count(&t->shape, SIZE_MAX / size, &count) == TG_OK)
        length = (uint64_t)count * size;
    if (!tg_add_u64(t->offset, length, &end) || end > file.n)
        return TG_FAIL(g->err, TG_E_FORMAT,
                       "initializer '%.*s': bytes %" PRIu64 " to %" PRIu64
                       " of '%.*s' are asked for, which has %zu",
                       NAME_ARG(t->name), t->offset, end, NAME_ARG(t->location), file.n);
    *data = tg_bytes_sub(file, (size_t)t->offset, (size_t)length);
    return TG_OK;
}

static enum tg_rc add_external(struct gather *g, const struct tg_onnx_init *t)
{
    const struct tg_session_weights *w = find(g, t->name);
    struct tg_bytes data = TG_BYTES_NONE;

    if (w == NULL) {
        TG_TRY(from_file(g, t, &data));
        return add(g, t->name, t->type, &t->shape, data);
    }
    if (w->type != t->type || !tg_shape_eq(&w->shape, &t->shape))
        return TG_FAIL(g->err, TG_E_FORMAT,
                       "initializer '%.*s': the graph and the file of weights give it different "
                       "types or shapes",
                       NAME_ARG(t->name));
    return add(g, t->name, w->type, &w->shape, w->bytes);
}

/* ---- initializers that the graph only uses ---- */

static enum tg_rc varint(struct tg_buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        TG_TRY(tg_buf_u8(b, (uint8_t)(v | 0x80)));
    return tg_buf_u8(b, (uint8_t)v);
}

static enum tg_rc number(struct tg_buf *b, unsigned at, uint64_t v)
{
    TG_TRY(varint(b, (uint64_t)at << 3));
    return varint(b, v);
}

static enum tg_rc blob(struct tg_buf *b, unsigned at, struct tg_bytes v)
{
    TG_TRY(varint(b, (uint64_t)at << 3 | 2));
    TG_TRY(varint(b, v.n));
    return tg_buf_bytes(b, v);
}

/* A TensorProto that says "elsewhere" and nothing more: its value comes by tg_session_supply. */
static enum tg_rc declare(const struct tg_session_weights *w, struct tg_buf *graph)
{
    static const uint8_t entry[] = "\x0a\x08location\x12\x01-"; /* key, value */
    TG_AUTO(tg_buf_done) struct tg_buf t = TG_BUF_INIT(NAME_MAX_LEN + 1024);

    for (size_t i = 0; i < w->shape.n; i++)
        TG_TRY(number(&t, F_TENSOR_DIMS, (uint64_t)w->shape.d[i]));
    TG_TRY(number(&t, F_TENSOR_TYPE, w->type));
    TG_TRY(blob(&t, F_TENSOR_NAME, tg_bytes_str(w->name)));
    TG_TRY(blob(&t, F_TENSOR_EXTERNAL, tg_bytes_make(entry, sizeof(entry) - 1)));
    TG_TRY(number(&t, F_TENSOR_LOCATION, 1));
    return blob(graph, F_GRAPH_INITIALIZER, tg_buf_view(&t));
}

/* Two graphs one after the other in a message are merged by protobuf: the model's bytes followed by
 * a graph of initializers alone is the model with these added. */
static enum tg_rc append_graph(struct gather *g, const struct tg_buf *graph)
{
    struct tg_buf *own = &g->out->own;

    *own = TG_BUF_SECRET(g->spec->model.n + graph->n + 32);
    if (tg_buf_bytes(own, g->spec->model) != TG_OK ||
        blob(own, F_MODEL_GRAPH, tg_buf_view(graph)) != TG_OK)
        return TG_FAIL(g->err, TG_E_NOMEM, "out of memory");
    g->out->model = tg_buf_view(own);
    return TG_OK;
}

static enum tg_rc add_used(struct gather *g)
{
    TG_AUTO(tg_buf_done) struct tg_buf graph = TG_BUF_INIT((size_t)TG_ONNX_INITIALIZERS_MAX * 2048);

    for (size_t i = 0; i < g->spec->n_weights; i++) {
        const struct tg_session_weights *w = &g->spec->weights[i];
        struct tg_bytes name = tg_bytes_str(w->name);

        if (tg_onnx_find(&g->onnx, name) != NULL || !tg_onnx_uses(&g->onnx, name))
            continue;
        TG_TRY(add(g, name, w->type, &w->shape, w->bytes));
        if (declare(w, &graph) != TG_OK)
            return TG_FAIL(g->err, TG_E_NOMEM, "out of memory");
    }
    return graph.n == 0 ? TG_OK : append_graph(g, &graph);
}

/* ---- all of it ---- */

static enum tg_rc gather(struct gather *g)
{
    const struct tg_onnx *x = &g->onnx;
    size_t most = x->n_external + g->spec->n_weights;

    if (x->buried_external)
        return TG_FAIL(g->err, TG_E_UNSUPPORTED,
                       "the model keeps data of a subgraph or an attribute in another file, which "
                       "is not supported; save it as one file");
    g->out->names = tg_calloc(most + 1, sizeof(*g->out->names));
    g->out->values = tg_calloc(most + 1, sizeof(*g->out->values));
    if (g->out->names == NULL || g->out->values == NULL)
        return TG_FAIL(g->err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < x->n_inits; i++)
        if (x->inits[i].external)
            TG_TRY(add_external(g, &x->inits[i]));
    return add_used(g);
}

size_t tg_session_external(const struct tg_session_spec *spec)
{
    struct tg_onnx x = {.n_inits = 0};
    struct tg_err err = TG_ERR_INIT;
    size_t sum = 0, count = 0;

    if (tg_onnx_scan(spec->model, &x, &err) != TG_OK)
        return 0;
    for (size_t i = 0; i < x.n_inits; i++) {
        size_t size = tg_onnx_type_size(x.inits[i].type);

        if (x.inits[i].external && size > 0 &&
            tg_shape_count(&x.inits[i].shape, SIZE_MAX / size, &count) == TG_OK &&
            !tg_add_size(sum, count * size, &sum))
            sum = SIZE_MAX;
    }
    tg_onnx_done(&x);
    return sum;
}

enum tg_rc tg_session_gather(struct tg_ort *o, const struct tg_session_spec *spec,
                             struct tg_session_extra *out, struct tg_err *err)
{
    struct gather g = {.o = o, .spec = spec, .out = out, .err = err};
    enum tg_rc rc;

    *out = (struct tg_session_extra){.model = spec->model, .own = TG_BUF_INIT(0)};
    if (spec->n_weights > TG_ONNX_INITIALIZERS_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "over %d tensors of weights", TG_ONNX_INITIALIZERS_MAX);
    TG_TRY(tg_onnx_scan(spec->model, &g.onnx, err));
    rc = sort(&g);
    if (rc == TG_OK)
        rc = gather(&g);
    tg_free((void *)g.sorted);
    tg_onnx_done(&g.onnx);
    return rc;
}

enum tg_rc tg_session_supply(struct tg_ort *o, const struct tg_session_extra *extra,
                             OrtSessionOptions *opts, struct tg_err *err)
{
    if (extra->n == 0)
        return TG_OK;
    return tg_ort_check(o,
                        o->api->AddExternalInitializers(opts, (const char *const *)extra->names,
                                                        (const OrtValue *const *)extra->values,
                                                        extra->n),
                        "weights", err);
}

void tg_session_extra_done(struct tg_ort *o, struct tg_session_extra *e)
{
    for (size_t i = 0; i < e->n; i++) {
        tg_free(e->names[i]);
        if (e->values[i] != NULL)
            o->api->ReleaseValue(e->values[i]);
    }
    tg_free(e->names);
    tg_free(e->values);
    tg_buf_done(&e->own);
    *e = (struct tg_session_extra){.own = TG_BUF_INIT(0)};
}
