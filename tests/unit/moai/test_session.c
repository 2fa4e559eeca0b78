#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "moai/golden.h"
#include "moai/session.h"
#include "onnx_make.h"
#include "tensor/half.h"
#include "tensor/npy.h"
#include "tensor/onnx.h"

static struct tg_err err;
static struct tg_ort *ort;

static int make_ort(void **state)
{
    (void)state;
    assert_ok(tg_ort_new(2, &ort, &err));
    return 0;
}

static int free_ort(void **state)
{
    (void)state;
    tg_ort_freep(&ort);
    return 0;
}

static const char *example(const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof(path), "%s/examples/perception-net/%s", TG_SOURCE_ROOT, name);
    return path;
}

static void read_example(const char *name, struct tg_buf *out)
{
    assert_ok(tg_file_read(example(name), out, &err));
}

static void load_identity(struct onnx_make m, struct tg_session **s)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);

    m.op = "Identity";
    assert_ok(onnx_make(&m, &model));
    assert_ok(tg_session_new(ort, tg_buf_view(&model), s, &err));
}

static void put(struct tg_oip *m, const char *name, enum tg_dtype t, struct tg_shape shape,
                struct tg_bytes data)
{
    struct tg_oip_tensor *at = &m->tensors[m->n++];

    *at = (struct tg_oip_tensor){.dtype = t, .shape = shape, .data = data};
    strcpy(at->name, name);
}

/* Every element type goes in and comes out unchanged. */
static void every_type_passes_through(void **state)
{
    static const struct {
        int onnx;
        enum tg_dtype dtype;
    } rows[] = {
        {9,  TG_DT_BOOL  },
        {2,  TG_DT_UINT8 },
        {4,  TG_DT_UINT16},
        {12, TG_DT_UINT32},
        {13, TG_DT_UINT64},
        {3,  TG_DT_INT8  },
        {5,  TG_DT_INT16 },
        {6,  TG_DT_INT32 },
        {7,  TG_DT_INT64 },
        {10, TG_DT_FP16  },
        {1,  TG_DT_FP32  },
        {11, TG_DT_FP64  },
        {8,  TG_DT_BYTES }
    };

    static const uint8_t numbers[48] = {1, 0, 1, 1, 0, 1};
    static const uint8_t strings[] = "\1\0\0\0a\0\0\0\0\2\0\0\0b\0\0\0\0\0\0\0\0\0\0\0\0\0";

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        TG_AUTO(tg_session_freep) struct tg_session *s = NULL;
        TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
        TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
        size_t n = rows[i].dtype == TG_DT_BYTES ? 27 : 6 * tg_dtype_size(rows[i].dtype);

        load_identity(
            (struct onnx_make){
                .type = rows[i].onnx, .dims = {"n", "3"},
                     .n_dims = 2
        },
            &s);
        assert_int_equal(tg_session_inputs(s)->n, 1);
        assert_int_equal(tg_session_inputs(s)->v[0].dtype, rows[i].dtype);
        assert_true(tg_session_inputs(s)->v[0].shape.d[0] < 0);
        put(in, "x", rows[i].dtype,
            (struct tg_shape){
                {2, 3},
                2
        },
            tg_bytes_make(rows[i].dtype == TG_DT_BYTES ? strings : numbers, n));
        assert_ok(tg_session_run(s, in, out, NULL, &err));
        assert_int_equal(out->n, 1);
        assert_int_equal(out->tensors[0].dtype, rows[i].dtype);
        assert_int_equal(out->tensors[0].data.n, n);
        assert_memory_equal(out->tensors[0].data.p, in->tensors[0].data.p, n);
    }
}

static void wrong_inputs_are_named_and_harm_nobody(void **state)
{
    static const float f[12] = {1};

    static const struct {
        const char *name;
        enum tg_dtype dtype;
        struct tg_shape shape;
        size_t n;
        const char *wanted, *why;
    } rows[] = {
        {"z",  TG_DT_FP32, {{2, 3}, 2}, 24, NULL, "no input 'z'"                                   },
        {"x",  TG_DT_FP64, {{1, 3}, 2}, 24, NULL, "'x' is FP32, not FP64"                          },
        {"x",  TG_DT_FP32, {{2, 4}, 2}, 32, NULL, "has shape [-1,3] (-1 takes any size), not [2,4]"},
        {"x",  TG_DT_FP32, {{6}, 1},    24, NULL, "not [6]"                                        },
        {"x",  TG_DT_FP32, {{2, 3}, 2}, 24, "q",  "no output 'q'"                                  },
        {NULL, TG_DT_FP32, {{2, 3}, 2}, 24, NULL, "input 'x' is missing"                           },
    };
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;

    (void)state;
    load_identity(
        (struct onnx_make){
            .type = 1, .dims = {"n", "3"},
                 .n_dims = 2
    },
        &s);
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
        TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);

        if (rows[i].name != NULL)
            put(in, rows[i].name, rows[i].dtype, rows[i].shape, tg_bytes_make(f, rows[i].n));
        if (rows[i].wanted != NULL)
            strcpy(in->wanted[in->n_wanted++].name, rows[i].wanted);
        assert_rc(tg_session_run(s, in, out, NULL, &err), TG_E_USAGE);
        assert_contains(err.msg, rows[i].why);
    }
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);

    put(in, "x", TG_DT_FP32,
        (struct tg_shape){
            {0, 3},
            2
    },
        TG_BYTES_NONE);
    assert_ok(tg_session_run(s, in, out, NULL, &err));
    assert_int_equal(out->tensors[0].data.n, 0);
}

static void bad_models_are_refused_with_a_reason(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct tg_session *s = NULL;

    (void)state;
    assert_rc(tg_session_new(ort, TG_BYTES_NONE, &s, &err), TG_E_FORMAT);
    assert_rc(tg_session_new(ort, tg_bytes_str("not a model at all"), &s, &err), TG_E_FORMAT);
    assert_contains(err.msg, "not valid protobuf");
    assert_ok(onnx_make(
        &(struct onnx_make){.type = 1, .dims = {"3"}, .n_dims = 1, .op = "NoSuchOperator"},
        &model));
    assert_true(tg_session_new(ort, tg_buf_view(&model), &s, &err) != TG_OK);
    assert_contains(err.msg, "loading the model");
    assert_null(strstr(err.msg, "NoSuchOperator")); /* the model's insides stay inside */
    tg_buf_clear(&model);
    assert_ok(
        onnx_make(&(struct onnx_make){.type = 16, .dims = {"3"}, .n_dims = 1, .op = "Identity"},
                  &model)); /* BFLOAT16 */
    assert_rc(tg_session_new(ort, tg_buf_view(&model), &s, &err), TG_E_UNSUPPORTED);
    assert_null(s);
}

static void external_data_is_found_wherever_it_hides(void **state)
{
    (void)state;
    for (size_t nest = 0; nest < 12; nest++) {
        TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
        struct onnx_make m = {.type = 1,
                              .dims = {"3"},
                              .n_dims = 1,
                              .op = "Identity",
                              .external = true,
                              .nest = nest};
        struct tg_session *s = NULL;
        struct tg_onnx found = {.n_inits = 0};

        assert_ok(onnx_make(&m, &model));
        assert_ok(tg_onnx_scan(tg_buf_view(&model), &found, &err));
        assert_int_equal(found.n_external, nest == 0);
        assert_int_equal(found.buried_external, nest > 0);
        tg_onnx_done(&found);
        assert_rc(tg_session_new(ort, tg_buf_view(&model), &s, &err),
                  nest == 0 ? TG_E_NOTFOUND : TG_E_UNSUPPORTED);
        assert_contains(err.msg, "another file");
    }
    TG_AUTO(tg_buf_done) struct tg_buf digits = TG_BUF_INIT(4 << 20);
    struct tg_onnx found = {.n_inits = 0};

    read_example("model_v1/model.onnx", &digits);
    assert_ok(tg_onnx_scan(tg_buf_view(&digits), &found, &err));
    assert_true(found.n_inits > 0 && found.n_uses > 0);
    assert_int_equal(found.n_external, 0);
    assert_false(found.buried_external);
    for (size_t i = 0; i < found.n_inits; i++) {
        assert_ptr_equal(tg_onnx_find(&found, found.inits[i].name), &found.inits[i]);
        assert_true(tg_onnx_uses(&found, found.inits[i].name));
    }
    assert_null(tg_onnx_find(&found, tg_bytes_str("no such name")));
    assert_false(tg_onnx_uses(&found, tg_bytes_str("no such name")));
    tg_onnx_done(&found);
}

static void deep_or_cut_protobuf_is_refused(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct onnx_make m = {
        .type = 1, .dims = {"3"}, .n_dims = 1, .op = "Identity", .external = true, .nest = 200};
    struct tg_onnx found;

    (void)state;
    assert_ok(onnx_make(&m, &model));
    assert_rc(tg_onnx_scan(tg_buf_view(&model), &found, &err), TG_E_FORMAT);
    assert_contains(err.msg, "levels deep");
    m.nest = 1;
    tg_buf_clear(&model);
    assert_ok(onnx_make(&m, &model));
    assert_rc(tg_onnx_scan(tg_bytes_sub(tg_buf_view(&model), 0, model.n - 1), &found, &err),
              TG_E_FORMAT);
}

/* The example's held-out images against PyTorch's own logits. */
static void the_example_model_answers_as_pytorch_did(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(4 << 20);
    TG_AUTO(tg_buf_done) struct tg_buf images = TG_BUF_INIT(64 << 20);
    TG_AUTO(tg_buf_done) struct tg_buf logits = TG_BUF_INIT(4 << 20);
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
    struct tg_npy x, y;
    struct tg_oip_tensor want;

    (void)state;
    read_example("model_v1/model.onnx", &model);
    read_example("heldout/images.npy", &images);
    read_example("heldout/logits_v1.npy", &logits);
    assert_ok(tg_session_new(ort, tg_buf_view(&model), &s, &err));
    assert_ok(tg_npy_parse(tg_buf_view(&images), "images", &x, &err));
    assert_ok(tg_npy_parse(tg_buf_view(&logits), "logits", &y, &err));
    put(in, tg_session_inputs(s)->v[0].name, x.dtype, x.shape, x.data);
    assert_ok(tg_session_run(s, in, out, NULL, &err));
    want = (struct tg_oip_tensor){.dtype = y.dtype, .shape = y.shape, .data = y.data};
    assert_ok(tg_golden_compare("logits", &out->tensors[0], &want, 1e-4, 1e-4, &err));
    assert_rc(tg_golden_compare("logits", &out->tensors[0], &want, 0, 0, &err), TG_E_STATE);
}

/* Fail every allocation of ours in turn: the right code, nothing leaked, and the session still
 * works. */
static void out_of_memory_everywhere(void **state)
{
    static const float f[6] = {1, 2, 3, 4, 5, 6};
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct onnx_make m = {
        .type = 1, .dims = {"n", "3"},
             .n_dims = 2, .op = "Identity"
    };
    enum tg_rc rc = TG_E_NOMEM;

    (void)state;
    assert_ok(onnx_make(&m, &model));
    for (uint64_t i = 1; rc != TG_OK; i++) {
        assert_true(i < 100);
        tg_mem_fault_set(i, 0);
        rc = tg_session_new(ort, tg_buf_view(&model), &s, &err);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM || rc == TG_E_UNSUPPORTED);
        assert_int_equal(rc == TG_OK, s != NULL);
    }
    rc = TG_E_NOMEM;
    for (uint64_t i = 1; rc != TG_OK; i++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
        TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);

        put(in, "x", TG_DT_FP32,
            (struct tg_shape){
                {2, 3},
                2
        },
            TG_BYTES_OF(f));
        assert_true(i < 100);
        tg_mem_fault_set(i, 0);
        rc = tg_session_run(s, in, out, NULL, &err);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM);
    }
}

static enum tg_rc compare(float a, float b, double rtol, double atol)
{
    struct tg_oip_tensor x = {.dtype = TG_DT_FP32};
    struct tg_oip_tensor y = x;

    x.data = tg_bytes_make(&a, sizeof(a));
    y.data = tg_bytes_make(&b, sizeof(b));
    return tg_golden_compare("t", &x, &y, rtol, atol, &err);
}

static void tolerance_is_what_the_spec_says(void **state)
{
    (void)state;
    assert_ok(compare(1.0f, 1.0f, 0, 0));
    assert_ok(compare(100.5f, 100.0f, 0.005, 0));
    assert_rc(compare(100.51f, 100.0f, 0.005, 0), TG_E_STATE);
    assert_ok(compare(0.5f, 0.0f, 100, 0.5));
    assert_rc(compare(0.5f, 0.0f, 100, 0.25), TG_E_STATE);
    assert_ok(compare(NAN, NAN, 0, 0));
    assert_rc(compare(NAN, 1.0f, 1e9, 1e9), TG_E_STATE);
    assert_rc(compare(1.0f, NAN, 1e9, 1e9), TG_E_STATE);
    assert_ok(compare(INFINITY, INFINITY, 0, 0));
    assert_rc(compare(INFINITY, -INFINITY, 1e9, 1e9), TG_E_STATE);
    assert_rc(compare(1.0f, INFINITY, 1e9, 1e9), TG_E_STATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_passes_through),
        cmocka_unit_test(wrong_inputs_are_named_and_harm_nobody),
        cmocka_unit_test(bad_models_are_refused_with_a_reason),
        cmocka_unit_test(external_data_is_found_wherever_it_hides),
        cmocka_unit_test(deep_or_cut_protobuf_is_refused),
        cmocka_unit_test(the_example_model_answers_as_pytorch_did),
        cmocka_unit_test(out_of_memory_everywhere),
        cmocka_unit_test(tolerance_is_what_the_spec_says),
    };

    return cmocka_run_group_tests(tests, make_ort, free_ort);
}
