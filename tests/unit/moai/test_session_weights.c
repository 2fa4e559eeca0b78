/* Weights that are not in the model: external data and weights by name. */
#include <string.h>

#include "../tg_cmocka.h"
#include "moai/session.h"
#include "onnx_make.h"

#define N 1000 /* elements: enough for ONNX Runtime to use them in place */

static struct tg_err err;
static struct tg_ort *ort;
static float weights[N + 2];

static int make_ort(void **state)
{
    (void)state;
    for (size_t i = 0; i < N + 2; i++)
        weights[i] = (float)i;
    assert_ok(tg_ort_new(1, &ort, &err));
    return 0;
}

static int free_ort(void **state)
{
    (void)state;
    tg_ort_freep(&ort);
    return 0;
}

static const struct onnx_make adds = {
    .type = 1, .dims = {"1000"}, .n_dims = 1, .op = "Add", .uses_w = true, .w_len = N};

/* weights.bin holds 4 bytes, the weights, and 4 bytes more. */
static enum tg_rc package_file(void *arg, struct tg_bytes location, struct tg_bytes *out)
{
    if (!tg_bytes_eq(location, tg_bytes_str("weights.bin")))
        return TG_E_NOTFOUND;
    *out = *(const struct tg_bytes *)arg;
    return TG_OK;
}

static enum tg_rc open_model(struct onnx_make m, struct tg_session_spec spec, struct tg_session **s)
{
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct tg_bytes file = TG_BYTES_OF(weights);

    assert_ok(onnx_make(&m, &model));
    spec.model = tg_buf_view(&model);
    if (spec.file != NULL && spec.file_arg == NULL)
        spec.file_arg = &file;
    return tg_session_open(ort, &spec, s, &err);
}

/* y = x + w, so with x = 0 the answer is w. */
static void assert_adds(struct tg_session *s, float first)
{
    static const float zeros[N];
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
    float y[N];

    in->tensors[in->n++] = (struct tg_oip_tensor){
        .name = "x", .dtype = TG_DT_FP32, .shape = {{N}, 1},
                .data = TG_BYTES_OF(zeros)
    };
    assert_int_equal(tg_session_inputs(s)->n, 1);
    assert_ok(tg_session_run(s, in, out, NULL, &err));
    assert_int_equal(out->tensors[0].data.n, sizeof(y));
    memcpy(y, out->tensors[0].data.p, sizeof(y));
    for (size_t i = 0; i < N; i++)
        assert_true(y[i] == first + (float)i);
}

static void external_data_comes_from_the_package(void **state)
{
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL, *t = NULL;
    const struct tg_session_spec spec = {.file = package_file};
    struct onnx_make m = adds;

    (void)state;
    m.external = true;
    m.w_offset = "4";
    m.w_length = "4000";
    assert_ok(open_model(m, spec, &s));
    assert_adds(s, 1);
    m.w_offset = NULL; /* both are optional */
    m.w_length = NULL;
    assert_rc(open_model(m, (struct tg_session_spec){.file = NULL}, &t), TG_E_NOTFOUND);
    assert_contains(err.msg, "'weights.bin'");
    assert_ok(open_model(m, spec, &t));
    assert_adds(t, 0);
}

static void external_data_beyond_the_file_is_refused(void **state)
{
    static const struct {
        const char *offset, *length;
        enum tg_rc rc;
    } bad[] = {
        {"12",                   "4000",                 TG_E_FORMAT}, /* 4 bytes too many */
        {"4",                    "3996",                 TG_E_FORMAT}, /* less than the shape */
        {"4",                    "4004",                 TG_E_FORMAT},
        {"18446744073709551615", "4000",                 TG_E_FORMAT}, /* the sum wraps */
        {"18446744073709551616", "4000",                 TG_E_FORMAT}, /* no 64-bit number */
        {"4",                    "18446744073709551614", TG_E_FORMAT},
        {"-4",                   "4000",                 TG_E_FORMAT},
        {"",                     "4000",                 TG_E_FORMAT},
        {"0x4",                  "4000",                 TG_E_FORMAT},
        {"5000",                 NULL,                   TG_E_FORMAT},
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        struct onnx_make m = adds;
        struct tg_session *s = NULL;

        m.external = true;
        m.w_offset = bad[i].offset;
        m.w_length = bad[i].length;
        assert_rc(open_model(m, (struct tg_session_spec){.file = package_file}, &s), bad[i].rc);
        assert_null(s);
    }
}

static void weights_come_by_name(void **state)
{
    const struct tg_session_weights w[] = {
        {"unused",      1, {{3}, 1}, tg_bytes_make(weights,     12)   },
        {"w",           1, {{N}, 1}, tg_bytes_make(weights + 2, 4 * N)},
        {"also unused", 7, {{1}, 1}, tg_bytes_make(weights,     8)    },
    };
    const struct tg_session_spec spec = {.weights = w, .n_weights = TG_ARRAY_LEN(w)};
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL, *t = NULL;
    struct onnx_make m = adds;

    (void)state;
    assert_ok(open_model(m, spec, &s)); /* nothing in the graph gives w */
    assert_adds(s, 2);
    m.external = true; /* the graph says it lies in a file: the name counts */
    m.w_offset = "4";
    assert_ok(open_model(m, spec, &t));
    assert_adds(t, 2);
}

static void weights_that_do_not_fit_are_refused(void **state)
{
    const struct tg_session_weights good = {
        "w", 1, {{N}, 1},
          tg_bytes_make(weights, 4 * N)
    };
    struct tg_session_weights bad[5] = {good, good, good, good, good};
    struct onnx_make m = adds;

    (void)state;
    bad[0].bytes.n -= 4;
    bad[1].shape.d[0] = N / 2;
    bad[2].type = 8; /* strings */
    bad[3].shape.d[0] = -1;
    bad[4].type = 999;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        const struct tg_session_spec spec = {.weights = &bad[i], .n_weights = 1};
        struct tg_session *s = NULL;

        assert_rc(open_model(m, spec, &s), bad[i].type == 1 ? TG_E_FORMAT : TG_E_UNSUPPORTED);
        assert_contains(err.msg, "'w'");
        assert_null(s);
    }
    m.external = true; /* then the graph has its own opinion of type and shape */
    for (size_t i = 1; i < 3; i++) {
        const struct tg_session_spec spec = {.weights = &bad[i], .n_weights = 1};
        struct tg_session *s = NULL;

        assert_rc(open_model(m, spec, &s), TG_E_FORMAT);
        assert_contains(err.msg, "different types or shapes");
    }
    bad[0] = bad[1] = good;
    struct tg_session *s = NULL;
    assert_rc(open_model(adds, (struct tg_session_spec){.weights = bad, .n_weights = 2}, &s),
              TG_E_FORMAT);
    assert_contains(err.msg, "two tensors");
}

/* Every allocation of ours fails in turn. */
static void out_of_memory_everywhere(void **state)
{
    const struct tg_session_weights w = {
        "w", 1, {{N}, 1},
          tg_bytes_make(weights, 4 * N)
    };
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    struct tg_session_spec spec = {.weights = &w, .n_weights = 1};
    enum tg_rc rc = TG_E_NOMEM;

    (void)state;
    assert_ok(onnx_make(&adds, &model));
    spec.model = tg_buf_view(&model);
    for (uint64_t i = 1; rc != TG_OK; i++) {
        TG_AUTO(tg_session_freep) struct tg_session *s = NULL;

        assert_true(i < 200);
        tg_mem_fault_set(i, 0);
        rc = tg_session_open(ort, &spec, &s, &err);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM || rc == TG_E_UNSUPPORTED);
        assert_int_equal(rc == TG_OK, s != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(external_data_comes_from_the_package),
        cmocka_unit_test(external_data_beyond_the_file_is_refused),
        cmocka_unit_test(weights_come_by_name),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(out_of_memory_everywhere),
    };

    return cmocka_run_group_tests(tests, make_ort, free_ort);
}
