#include "moai/native_run.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/secret.h"
#include "moai/session_internal.h"

/* The native protocol speaks in numbers of ours: they must be the same on both sides. */
_Static_assert(TG_NATIVE_DIMS_MAX == TG_DIMS_MAX, "dimensions");
_Static_assert(TG_NATIVE_PORTS_MAX == TG_OIP_TENSORS_MAX, "tensors");
_Static_assert(TG_NATIVE_NAME_TEXT > TG_OIP_NAME_MAX, "names");

struct tensor {
    uint8_t *data; /* in the protected region */
    struct tg_native_shape shape;
    uint64_t bytes;
    OrtValue *value; /* over data; NULL: not made, or ONNX Runtime's own */
};

struct tg_runner {
    struct tg_session *s;
    const OrtApi *api;
    const struct tg_native_ports *ports;
    struct tg_native_layout layout;
    struct tg_secret *region;
    OrtRunOptions *options;
    struct tensor in[TG_NATIVE_PORTS_MAX], out[TG_NATIVE_PORTS_MAX];
    const char *in_names[TG_NATIVE_PORTS_MAX], *out_names[TG_NATIVE_PORTS_MAX];
    const OrtValue *in_values[TG_NATIVE_PORTS_MAX];
    OrtValue *out_values[TG_NATIVE_PORTS_MAX];
    bool fixed; /* outputs of fixed size are written where we say */
};

static void fill_port(const struct tg_port *from, struct tg_native_port *to)
{
    memset(to, 0, sizeof(*to));
    tg_native_text(to->name, sizeof(to->name), from->name);
    to->dtype = (uint32_t)from->dtype;
    to->n_dims = (uint32_t)from->shape.n;
    for (size_t i = 0; i < from->shape.n; i++)
        to->dims[i] = from->shape.d[i] < 0 ? -1 : from->shape.d[i];
}

void tg_native_ports_fill(const struct tg_session *s, struct tg_native_ports *out)
{
    out->n_in = (uint32_t)s->in.n;
    out->n_out = (uint32_t)s->out.n;
    out->can_run = true;
    for (size_t i = 0; i < s->in.n + s->out.n; i++) {
        fill_port(i < s->in.n ? &s->in.v[i] : &s->out.v[i - s->in.n], &out->v[i]);
        out->can_run = out->can_run && out->v[i].dtype != TG_DT_BYTES;
    }
}

/* ---- making ---- */

static enum tg_rc make_value(struct tg_runner *r, const struct tg_native_port *port,
                             struct tensor *t, struct tg_err *err)
{
    ONNXTensorElementDataType type = tg_ort_type((enum tg_dtype)port->dtype);

    if (t->value != NULL)
        r->api->ReleaseValue(t->value);
    t->value = NULL;
    return tg_ort_check(r->s->ort,
                        r->api->CreateTensorWithDataAsOrtValue(r->s->ort->cpu, t->data,
                                                               (size_t)t->bytes, t->shape.d,
                                                               t->shape.n, type, &t->value),
                        port->name, err);
}

/* An output that the model declares with a fixed shape is written straight into our memory. */
static enum tg_rc fix_output(struct tg_runner *r, size_t i, struct tg_err *err)
{
    const struct tg_native_port *port = &r->ports->v[r->ports->n_in + i];
    struct tensor *t = &r->out[i];
    struct tg_native_shape shape = {.n = port->n_dims};

    for (uint32_t d = 0; d < port->n_dims; d++) {
        if (port->dims[d] < 0)
            return TG_OK;
        shape.d[d] = port->dims[d];
    }
    if (shape.n == 0 ||
        tg_native_shape_check(port, &shape, (uint32_t)tg_dtype_size((enum tg_dtype)port->dtype),
                              r->layout.bytes[r->ports->n_in + i], &t->bytes, err) != TG_OK)
        return TG_OK; /* no room for it: the answer will say so */
    t->shape = shape;
    return make_value(r, port, t, err);
}

static uint64_t line_up(uint64_t n)
{
    return (n + TG_NATIVE_LINE - 1) / TG_NATIVE_LINE * TG_NATIVE_LINE;
}

static enum tg_rc lay_out(struct tg_runner *r, struct tg_err *err)
{
    const struct tg_native_layout *l = &r->layout;
    uint64_t at = 0;

    TG_TRY(tg_secret_new((size_t)(l->inputs_bytes + l->outputs_bytes + TG_NATIVE_LINE), &r->region,
                         err));
    for (size_t i = 0; i < l->n_in + l->n_out; i++) {
        bool in = i < l->n_in;
        const char *name = in ? r->s->in.v[i].name : r->s->out.v[i - l->n_in].name;

        (in ? &r->in[i] : &r->out[i - l->n_in])->data = tg_secret_data(r->region) + at;
        *(in ? &r->in_names[i] : &r->out_names[i - l->n_in]) = name;
        at += line_up(l->bytes[i]);
    }
    for (size_t i = 0; i < l->n_out; i++)
        TG_TRY(fix_output(r, i, err));
    return TG_OK;
}

enum tg_rc tg_runner_new(struct tg_session *s, const struct tg_native_ports *ports,
                         const struct tg_native_layout *layout, struct tg_runner **out,
                         struct tg_err *err)
{
    TG_AUTO(tg_runner_freep) struct tg_runner *r = tg_calloc(1, sizeof(*r));

    if (r == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    r->s = s;
    r->api = s->ort->api;
    r->ports = ports;
    r->layout = *layout;
    r->fixed = true;
    TG_TRY(tg_ort_check(s->ort, r->api->CreateRunOptions(&r->options), "options", err));
    TG_TRY(lay_out(r, err));
    *out = tg_steal(&r);
    return TG_OK;
}

void tg_runner_free(struct tg_runner *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < TG_NATIVE_PORTS_MAX; i++) {
        if (r->in[i].value != NULL)
            r->api->ReleaseValue(r->in[i].value);
        if (r->out[i].value != NULL)
            r->api->ReleaseValue(r->out[i].value);
    }
    if (r->options != NULL)
        r->api->ReleaseRunOptions(r->options);
    tg_secret_free(r->region);
    tg_free(r);
}

void tg_runner_cancel(struct tg_runner *r)
{
    OrtStatus *st = r->api->RunOptionsSetTerminate(r->options);

    if (st != NULL)
        r->api->ReleaseStatus(st);
}

/* ---- one call ---- */

static bool same_shape(const struct tg_native_shape *a, const struct tg_native_shape *b)
{
    return a->n == b->n && tg_mem_eq(a->d, b->d, a->n * sizeof(a->d[0]));
}

/* The one read of an input's shape and bytes. The fence keeps the compiler from going back to the
 * slot for what it has a copy of. */
static enum tg_rc take_input(struct tg_runner *r, const uint8_t *slot, size_t i, struct tg_err *err)
{
    const struct tg_native_port *port = &r->ports->v[i];
    struct tensor *t = &r->in[i];
    struct tg_native_shape shape;
    uint64_t bytes = 0;

    memcpy(&shape, slot + r->layout.shapes + i * sizeof(shape), sizeof(shape));
    atomic_signal_fence(memory_order_seq_cst);
    TG_TRY(tg_native_shape_check(port, &shape, (uint32_t)tg_dtype_size((enum tg_dtype)port->dtype),
                                 r->layout.bytes[i], &bytes, err));
    if (bytes > 0)
        memcpy(t->data, slot + r->layout.data[i], (size_t)bytes);
    atomic_signal_fence(memory_order_seq_cst);
    if (t->value == NULL || !same_shape(&t->shape, &shape)) {
        t->shape = shape;
        t->bytes = bytes;
        TG_TRY(make_value(r, port, t, err));
    }
    r->in_values[i] = t->value;
    return TG_OK;
}

/* Booleans must be 0 or 1 before ONNX Runtime computes with them. */
static enum tg_rc check_bools(const struct tg_runner *r, struct tg_err *err)
{
    for (size_t i = 0; i < r->layout.n_in; i++) {
        if (r->ports->v[i].dtype != TG_DT_BOOL)
            continue;
        for (uint64_t k = 0; k < r->in[i].bytes; k++)
            if (r->in[i].data[k] > 1)
                return TG_FAIL(err, TG_E_USAGE, "input '%s': a BOOL that is neither 0 nor 1",
                               r->ports->v[i].name);
    }
    return TG_OK;
}

static OrtStatus *run_once(struct tg_runner *r)
{
    for (size_t i = 0; i < r->layout.n_out; i++)
        r->out_values[i] = r->fixed ? r->out[i].value : NULL;
    return r->api->Run(r->s->session, r->options, r->in_names, r->in_values, r->layout.n_in,
                       r->out_names, r->layout.n_out, r->out_values);
}

static void drop_own(struct tg_runner *r, size_t i)
{
    OrtValue *v = r->out_values[i];

    r->out_values[i] = NULL;
    if (v != NULL && v != r->out[i].value)
        r->api->ReleaseValue(v);
}

/* Models exist whose outputs are not what they declare: those get ONNX Runtime's own memory. */
static enum tg_rc run(struct tg_runner *r, struct tg_err *err)
{
    OrtStatus *st = run_once(r);

    if (st != NULL && r->fixed) {
        r->api->ReleaseStatus(st);
        for (size_t i = 0; i < r->layout.n_out; i++)
            drop_own(r, i);
        r->fixed = false;
        st = run_once(r);
        if (st != NULL)
            r->fixed = true; /* it was the input's fault */
    }
    if (st == NULL)
        return TG_OK;
    r->api->ReleaseStatus(st);
    return TG_FAIL(err, TG_E_INTERNAL,
                   "the model failed on this input (its values or sizes do not suit it)");
}

struct result {
    struct tg_native_shape shape;
    void *data;
    uint64_t bytes;
};

static enum tg_rc describe(struct tg_runner *r, size_t i, struct result *out, struct tg_err *err)
{
    const struct tg_native_port *port = &r->ports->v[r->layout.n_in + i];
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t n = 0, count = 0;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(r->s->ort, r->api->GetTensorTypeAndShape(r->out_values[i], &info),
                        port->name, err));
    rc = tg_ort_check(r->s->ort, r->api->GetTensorElementType(info, &type), port->name, err);
    if (rc == TG_OK)
        rc = tg_ort_check(r->s->ort, r->api->GetDimensionsCount(info, &n), port->name, err);
    if (rc == TG_OK && n <= TG_NATIVE_DIMS_MAX)
        rc = tg_ort_check(r->s->ort, r->api->GetDimensions(info, out->shape.d, n), port->name, err);
    if (rc == TG_OK)
        rc = tg_ort_check(r->s->ort, r->api->GetTensorShapeElementCount(info, &count), port->name,
                          err);
    r->api->ReleaseTensorTypeAndShapeInfo(info);
    TG_TRY(rc);
    if (n > TG_NATIVE_DIMS_MAX || type != tg_ort_type((enum tg_dtype)port->dtype))
        return TG_FAIL(err, TG_E_INTERNAL, "output '%s' is not of the type that was declared",
                       port->name);
    out->shape.n = (uint32_t)n;
    out->bytes = (uint64_t)count * tg_dtype_size((enum tg_dtype)port->dtype);
    return out->bytes == 0
               ? TG_OK
               : tg_ort_check(r->s->ort, r->api->GetTensorMutableData(r->out_values[i], &out->data),
                              port->name, err);
}

static enum tg_rc give_output(struct tg_runner *r, uint8_t *slot, size_t i, struct tg_err *err)
{
    const struct tg_native_layout *l = &r->layout;
    bool own = r->out_values[i] != r->out[i].value; /* ONNX Runtime's memory */
    struct result res = {
        .shape = r->out[i].shape, .data = r->out[i].data, .bytes = r->out[i].bytes};
    enum tg_rc rc = TG_OK;

    if (own) {
        memset(&res, 0, sizeof(res));
        rc = describe(r, i, &res, err);
    }
    if (rc == TG_OK && res.bytes > l->bytes[l->n_in + i])
        rc = TG_FAIL(err, TG_E_LIMIT, "output '%s' takes %llu bytes, its room is %llu",
                     r->ports->v[l->n_in + i].name, (unsigned long long)res.bytes,
                     (unsigned long long)l->bytes[l->n_in + i]);
    if (rc == TG_OK) {
        memcpy(slot + l->answer + sizeof(struct tg_native_answer) + i * sizeof(res.shape),
               &res.shape, sizeof(res.shape));
        if (res.bytes > 0)
            memcpy(slot + l->data[l->n_in + i], res.data, (size_t)res.bytes);
    }
    if (own && res.data != NULL)
        tg_wipe(res.data, (size_t)res.bytes);
    return rc;
}

enum tg_rc tg_runner_call(struct tg_runner *r, uint8_t *slot, struct tg_err *err)
{
    enum tg_rc rc = TG_OK;

    for (size_t i = 0; i < r->layout.n_in; i++)
        TG_TRY(take_input(r, slot, i, err));
    TG_TRY(check_bools(r, err));
    TG_TRY(run(r, err));
    for (size_t i = 0; i < r->layout.n_out; i++) {
        if (rc == TG_OK)
            rc = give_output(r, slot, i, err);
        drop_own(r, i);
    }
    return rc;
}
