#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "moai/session_internal.h"

/* What one run holds; everything is released by run_done. */
struct run {
    const struct tg_session *s;
    const OrtApi *api;
    const char *in_names[TG_OIP_TENSORS_MAX];
    OrtValue *in[TG_OIP_TENSORS_MAX];
    bool strings[TG_OIP_TENSORS_MAX];
    size_t n_in;
    const char *out_names[TG_OIP_TENSORS_MAX];
    bool binary[TG_OIP_TENSORS_MAX];
    OrtValue *out[TG_OIP_TENSORS_MAX];
    size_t n_out;
    struct tg_err *err;
};

static OrtStatus *wipe_strings(const OrtApi *api, OrtValue *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = 0;
        char *at = NULL;
        OrtStatus *st = api->GetStringTensorElementLength(v, i, &len);

        if (st == NULL)
            st = api->GetResizedStringTensorElementBuffer(v, i, len, &at);
        if (st != NULL)
            return st;
        tg_wipe(at, len);
    }
    return NULL;
}

/* Overwrite a tensor that ONNX Runtime owns. */
static void wipe_value(const OrtApi *api, OrtValue *v)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtStatus *st = api->GetTensorTypeAndShape(v, &info);
    enum tg_dtype dtype;
    size_t count = 0;
    void *p = NULL;

    if (st == NULL)
        st = api->GetTensorElementType(info, &type);
    if (st == NULL)
        st = api->GetTensorShapeElementCount(info, &count);
    if (st == NULL && type == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
        st = wipe_strings(api, v, count);
    } else if (st == NULL && tg_ort_dtype(type, &dtype) && count > 0) {
        st = api->GetTensorMutableData(v, &p);
        if (st == NULL)
            tg_wipe(p, count * tg_dtype_size(dtype));
    }
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (st != NULL)
        api->ReleaseStatus(st);
}

static void run_done(struct run *r)
{
    for (size_t i = 0; i < r->n_in; i++) {
        if (r->in[i] == NULL)
            continue;
        if (r->strings[i]) /* the others lie over the request's own memory */
            wipe_value(r->api, r->in[i]);
        r->api->ReleaseValue(r->in[i]);
    }
    for (size_t i = 0; i < r->n_out; i++) {
        if (r->out[i] == NULL)
            continue;
        wipe_value(r->api, r->out[i]);
        r->api->ReleaseValue(r->out[i]);
    }
}

static const struct tg_port *port(const struct tg_ports *ports, const char *name)
{
    for (size_t i = 0; i < ports->n; i++)
        if (strcmp(ports->v[i].name, name) == 0)
            return &ports->v[i];
    return NULL;
}

static bool shape_fits(const struct tg_shape *declared, const struct tg_shape *given)
{
    if (declared->n == 0) /* a scalar, or nothing declared: ONNX Runtime checks */
        return true;
    if (declared->n != given->n)
        return false;
    for (size_t i = 0; i < given->n; i++)
        if (declared->d[i] >= 0 && declared->d[i] != given->d[i])
            return false;
    return true;
}

static enum tg_rc check_input(const struct run *r, const struct tg_oip_tensor *t)
{
    const struct tg_port *p = port(&r->s->in, t->name);
    char want[TG_SHAPE_TEXT], got[TG_SHAPE_TEXT];

    if (p == NULL)
        return TG_FAIL(r->err, TG_E_USAGE, "the model has no input '%s'", t->name);
    if (p->dtype != t->dtype)
        return TG_FAIL(r->err, TG_E_USAGE, "input '%s' is %s, not %s", t->name,
                       tg_dtype_name(p->dtype), tg_dtype_name(t->dtype));
    if (shape_fits(&p->shape, &t->shape))
        return TG_OK;
    tg_shape_text(&p->shape, want);
    tg_shape_text(&t->shape, got);
    return TG_FAIL(r->err, TG_E_USAGE, "input '%s' has shape %s (-1 takes any size), not %s",
                   t->name, want, got);
}

/* ---- inputs ---- */

static enum tg_rc fill_strings(struct run *r, const struct tg_oip_tensor *t, OrtValue *v,
                               size_t count)
{
    struct tg_rd rd = tg_rd_init(t->data);

    for (size_t i = 0; i < count; i++) {
        struct tg_bytes len = TG_BYTES_NONE, body = TG_BYTES_NONE;
        char *at = NULL;

        TG_TRY(tg_rd_bytes(&rd, 4, &len));
        TG_TRY(tg_rd_bytes(&rd, tg_get_le32(len.p), &body));
        TG_TRY(tg_ort_check(r->s->ort,
                            r->api->GetResizedStringTensorElementBuffer(v, i, body.n, &at), t->name,
                            r->err));
        if (body.n > 0)
            memcpy(at, body.p, body.n);
    }
    return TG_OK;
}

static enum tg_rc make_input(struct run *r, const struct tg_oip_tensor *t)
{
    static uint8_t nothing; /* a tensor without elements still needs an address */
    size_t i = r->n_in, count = 0;
    OrtAllocator *alloc = NULL;

    TG_TRY(check_input(r, t));
    r->in_names[i] = t->name;
    r->strings[i] = t->dtype == TG_DT_BYTES;
    r->n_in++;
    if (t->dtype != TG_DT_BYTES) {
        /* ONNX Runtime never writes to an input. */
        void *p = t->data.n > 0 ? (void *)(uintptr_t)t->data.p : &nothing;

        return tg_ort_check(
            r->s->ort,
            r->api->CreateTensorWithDataAsOrtValue(r->s->ort->cpu, p, t->data.n, t->shape.d,
                                                   t->shape.n, tg_ort_type(t->dtype), &r->in[i]),
            t->name, r->err);
    }
    TG_TRY(tg_shape_count(&t->shape, TG_OIP_DATA_MAX, &count));
    TG_TRY(
        tg_ort_check(r->s->ort, r->api->GetAllocatorWithDefaultOptions(&alloc), t->name, r->err));
    TG_TRY(tg_ort_check(r->s->ort,
                        r->api->CreateTensorAsOrtValue(alloc, t->shape.d, t->shape.n,
                                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                                                       &r->in[i]),
                        t->name, r->err));
    return fill_strings(r, t, r->in[i], count);
}

static enum tg_rc make_inputs(struct run *r, const struct tg_oip *request)
{
    for (size_t i = 0; i < request->n; i++)
        TG_TRY(make_input(r, &request->tensors[i]));
    for (size_t i = 0; i < r->s->in.n; i++) {
        bool found = false;

        for (size_t j = 0; j < request->n; j++)
            found = found || strcmp(request->tensors[j].name, r->s->in.v[i].name) == 0;
        if (!found)
            return TG_FAIL(r->err, TG_E_USAGE, "input '%s' is missing", r->s->in.v[i].name);
    }
    return TG_OK;
}

static enum tg_rc choose_outputs(struct run *r, const struct tg_oip *request)
{
    const struct tg_ports *ports = &r->s->out;

    r->n_out = request->n_wanted > 0 ? request->n_wanted : ports->n;
    for (size_t i = 0; i < r->n_out; i++) {
        const struct tg_port *p =
            request->n_wanted > 0 ? port(ports, request->wanted[i].name) : &ports->v[i];

        if (p == NULL)
            return TG_FAIL(r->err, TG_E_USAGE, "the model has no output '%s'",
                           request->wanted[i].name);
        r->out_names[i] = p->name;
        r->binary[i] = request->n_wanted > 0 ? request->wanted[i].binary : request->binary_outputs;
    }
    return TG_OK;
}

/* ---- outputs ---- */

static enum tg_rc own(struct run *r, struct tg_oip_tensor *t, size_t n)
{
    t->owned = tg_alloc(n);
    if (t->owned == NULL)
        return TG_FAIL(r->err, TG_E_NOMEM, "out of memory");
    t->data = tg_bytes_make(t->owned, n);
    return TG_OK;
}

static enum tg_rc take_strings(struct run *r, OrtValue *v, struct tg_oip_tensor *t, size_t count)
{
    size_t total = 0, len = 0, at = 0;

    TG_TRY(tg_ort_check(r->s->ort, r->api->GetStringTensorDataLength(v, &total), t->name, r->err));
    if (total > TG_OIP_DATA_MAX || count > TG_OIP_DATA_MAX / 4)
        return TG_FAIL(r->err, TG_E_LIMIT, "output '%s' is too large", t->name);
    TG_TRY(own(r, t, total + 4 * count));
    for (size_t i = 0; i < count; i++) {
        TG_TRY(tg_ort_check(r->s->ort, r->api->GetStringTensorElementLength(v, i, &len), t->name,
                            r->err));
        if (len > total)
            return TG_FAIL(r->err, TG_E_INTERNAL, "output '%s' changed under way", t->name);
        tg_put_le32(t->owned + at, (uint32_t)len);
        TG_TRY(tg_ort_check(r->s->ort, r->api->GetStringTensorElement(v, len, i, t->owned + at + 4),
                            t->name, r->err));
        at += 4 + len;
        total -= len;
    }
    return TG_OK;
}

static enum tg_rc take_numbers(struct run *r, OrtValue *v, struct tg_oip_tensor *t, size_t count)
{
    size_t size = tg_dtype_size(t->dtype);
    void *p = NULL;

    if (count > TG_OIP_DATA_MAX / size)
        return TG_FAIL(r->err, TG_E_LIMIT, "output '%s' is too large", t->name);
    TG_TRY(own(r, t, count * size));
    if (count == 0)
        return TG_OK;
    TG_TRY(tg_ort_check(r->s->ort, r->api->GetTensorMutableData(v, &p), t->name, r->err));
    memcpy(t->owned, p, count * size);
    return TG_OK;
}

static enum tg_rc describe_output(struct run *r, OrtValue *v, struct tg_oip_tensor *t,
                                  size_t *count)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    enum tg_rc rc;
    size_t n = 0;

    TG_TRY(tg_ort_check(r->s->ort, r->api->GetTensorTypeAndShape(v, &info), t->name, r->err));
    rc = tg_ort_check(r->s->ort, r->api->GetTensorElementType(info, &type), t->name, r->err);
    if (rc == TG_OK)
        rc = tg_ort_check(r->s->ort, r->api->GetDimensionsCount(info, &n), t->name, r->err);
    if (rc == TG_OK && n <= TG_DIMS_MAX)
        rc = tg_ort_check(r->s->ort, r->api->GetDimensions(info, t->shape.d, n), t->name, r->err);
    if (rc == TG_OK)
        rc = tg_ort_check(r->s->ort, r->api->GetTensorShapeElementCount(info, count), t->name,
                          r->err);
    r->api->ReleaseTensorTypeAndShapeInfo(info);
    TG_TRY(rc);
    t->shape.n = n;
    if (n > TG_DIMS_MAX || !tg_ort_dtype(type, &t->dtype))
        return TG_FAIL(r->err, TG_E_UNSUPPORTED,
                       "output '%s' has over %d dimensions or an element type outside the protocol",
                       t->name, TG_DIMS_MAX);
    return TG_OK;
}

static enum tg_rc take_outputs(struct run *r, struct tg_oip *reply)
{
    uint64_t total = 0;

    for (size_t i = 0; i < r->n_out; i++) {
        struct tg_oip_tensor *t = &reply->tensors[reply->n];
        size_t count = 0;

        if (reply->n == TG_OIP_TENSORS_MAX)
            return TG_FAIL(r->err, TG_E_LIMIT, "too many outputs");
        reply->n++;
        memcpy(t->name, r->out_names[i], strlen(r->out_names[i]) + 1);
        t->binary = r->binary[i];
        TG_TRY(describe_output(r, r->out[i], t, &count));
        TG_TRY(t->dtype == TG_DT_BYTES ? take_strings(r, r->out[i], t, count)
                                       : take_numbers(r, r->out[i], t, count));
        total += t->data.n;
        if (total > TG_OIP_DATA_MAX)
            return TG_FAIL(r->err, TG_E_LIMIT, "the outputs take over %" PRIu64 " bytes",
                           (uint64_t)TG_OIP_DATA_MAX);
    }
    return TG_OK;
}

/* ---- all of it ---- */

static enum tg_rc infer(struct run *r)
{
    OrtStatus *st = r->api->Run(r->s->session, NULL, r->in_names, (const OrtValue *const *)r->in,
                                r->n_in, r->out_names, r->n_out, r->out);

    if (st == NULL)
        return TG_OK;
    r->api->ReleaseStatus(st);
    return TG_FAIL(r->err, TG_E_INTERNAL,
                   "the model failed on this input (its values or sizes do not suit it)");
}

enum tg_rc tg_session_run(struct tg_session *s, const struct tg_oip *request, struct tg_oip *reply,
                          struct tg_session_times *times, struct tg_err *err)
{
    TG_AUTO(run_done) struct run r = {.s = s, .api = s->ort->api, .err = err};
    uint64_t t[4] = {tg_clock_mono_ns(), 0, 0, 0};

    TG_TRY(make_inputs(&r, request));
    TG_TRY(choose_outputs(&r, request));
    t[1] = tg_clock_mono_ns();
    TG_TRY(infer(&r));
    t[2] = tg_clock_mono_ns();
    TG_TRY(take_outputs(&r, reply));
    t[3] = tg_clock_mono_ns();
    if (times != NULL)
        *times = (struct tg_session_times){t[1] - t[0], t[2] - t[1], t[3] - t[2]};
    return TG_OK;
}
