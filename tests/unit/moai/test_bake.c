/* A baked model answers exactly as the model does, lies aligned in one image, and gives back what
 * ONNX Runtime has packed. */
#include <stdio.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "moai/bake.h"
#include "moai/bake_layout.h"
#include "onnx_make.h"
#include "tensor/npy.h"

static struct tg_err err;
static struct tg_ort *ort;
static struct tg_buf model = {.max = 4 << 20}, images = {.max = 64 << 20};

static void read_example(const char *name, struct tg_buf *out)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/examples/perception-net/%s", TG_SOURCE_ROOT, name);
    assert_ok(tg_file_read(path, out, &err));
}

static int begin(void **state)
{
    (void)state;
    assert_ok(tg_ort_new(2, &ort, &err));
    read_example("model_v1/model.onnx", &model);
    read_example("heldout/images.npy", &images);
    return 0;
}

static int end(void **state)
{
    (void)state;
    tg_ort_freep(&ort);
    tg_buf_done(&model);
    tg_buf_done(&images);
    return 0;
}

static enum tg_rc bake(struct tg_session_spec spec, struct tg_bake *out)
{
    struct tg_bake_pipe p = TG_BAKE_PIPE_INIT;
    enum tg_rc rc;

    assert_ok(tg_bake_pipe_new(&p, &err));
    rc = tg_bake_make(ort, &spec, &p, out, &err);
    assert_int_equal(p.in, -1);
    assert_int_equal(p.out, -1);
    return rc;
}

static struct tg_session_spec example_spec(void)
{
    return (struct tg_session_spec){.model = tg_buf_view(&model)};
}

static void answer(struct tg_session *s, struct tg_buf *out)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *reply = tg_oip_new(TG_OIP_REPLY);
    struct tg_oip_tensor *t = &in->tensors[in->n++];
    struct tg_npy x;

    assert_ok(tg_npy_parse(tg_buf_view(&images), "images", &x, &err));
    *t = (struct tg_oip_tensor){.dtype = x.dtype, .shape = x.shape, .data = x.data};
    strcpy(t->name, tg_session_inputs(s)->v[0].name);
    assert_ok(tg_session_run(s, in, reply, NULL, &err));
    tg_buf_clear(out);
    assert_ok(tg_buf_bytes(out, reply->tensors[0].data));
}

static void a_baked_model_answers_as_the_model_does(void **state)
{
    TG_AUTO(tg_session_freep) struct tg_session *plain = NULL, *baked = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf want = TG_BUF_INIT(1 << 20), got = TG_BUF_INIT(1 << 20);
    struct tg_bake b = {.keep = 0};
    size_t whole;

    (void)state;
    assert_ok(tg_session_new(ort, tg_buf_view(&model), &plain, &err));
    assert_ok(bake(example_spec(), &b));
    whole = tg_secret_size(b.image);
    assert_true(b.keep > 0 && b.keep <= whole);
    assert_ok(tg_session_baked(ort, &b, &baked, &err));
    assert_null(b.image);
    assert_int_equal(tg_session_image(plain).n, 0);
    assert_true(tg_session_image(baked).n > 0 && tg_session_image(baked).n <= whole);
    assert_int_equal(tg_session_inputs(baked)->n, tg_session_inputs(plain)->n);
    assert_string_equal(tg_session_outputs(baked)->v[0].name, tg_session_outputs(plain)->v[0].name);
    answer(plain, &want);
    answer(baked, &got);
    assert_true(want.n > 0 && tg_bytes_eq(tg_buf_view(&want), tg_buf_view(&got)));
}

/* y = x + w with w of 1000 numbers from elsewhere: baked, they are in the image. */
static void weights_from_elsewhere_are_baked_in(void **state)
{
    static float w[1000];
    const struct tg_session_weights weights = {
        "w", 1, {{1000}, 1},
          TG_BYTES_OF(w)
    };
    const struct onnx_make m = {
        .type = 1, .dims = {"1000"}, .n_dims = 1, .op = "Add", .uses_w = true};
    TG_AUTO(tg_buf_done) struct tg_buf adds = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
    struct tg_bake b = {.keep = 0};
    float x[1000] = {0}, y[1000];

    (void)state;
    for (size_t i = 0; i < 1000; i++)
        w[i] = (float)i;
    assert_ok(onnx_make(&m, &adds));
    assert_ok(bake(
        (struct tg_session_spec){.model = tg_buf_view(&adds), .weights = &weights, .n_weights = 1},
        &b));
    assert_ok(tg_session_baked(ort, &b, &s, &err));
    memset(w, 0, sizeof(w)); /* not looked at any more */
    in->tensors[in->n++] = (struct tg_oip_tensor){
        .name = "x", .dtype = TG_DT_FP32, .shape = {{1000}, 1},
                .data = TG_BYTES_OF(x)
    };
    assert_ok(tg_session_run(s, in, out, NULL, &err));
    memcpy(y, out->tensors[0].data.p, sizeof(y));
    for (size_t i = 0; i < 1000; i++)
        assert_true(y[i] == (float)i);
}

static void data_is_aligned_and_what_is_packed_comes_last(void **state)
{
    struct tg_bake_layout l = {.n_data = 0};
    struct tg_bake b = {.keep = 0};
    size_t sum = 0;

    (void)state;
    assert_ok(bake(example_spec(), &b));
    assert_ok(tg_bake_layout_read(tg_bytes_make(tg_secret_data(b.image), tg_secret_size(b.image)),
                                  &l, &err));
    assert_true(l.n_data > 2);
    for (size_t i = 0; i < l.n_data; i++) {
        assert_int_equal(l.data[i].at % TG_BAKE_ALIGN, 0);
        sum += l.data[i].n;
    }
    assert_true(tg_secret_size(b.image) < sum + 64 * l.n_data + (64 << 10));
    tg_bake_layout_done(&l);
    tg_bake_done(&b);
}

/* A chain of matrix products: ONNX Runtime packs every one, so next to nothing is kept. */
static void packed_weights_are_given_back(void **state)
{
    static float w[256 * 256];
    const struct tg_session_weights weights = {
        "w", 1, {{256, 256}, 2},
          TG_BYTES_OF(w)
    };
    const struct onnx_make m = {
        .type = 1, .dims = {"1", "256"},
             .n_dims = 2, .op = "MatMul", .uses_w = true
    };
    TG_AUTO(tg_buf_done) struct tg_buf product = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;
    struct tg_bake b = {.keep = 0};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(w); i++)
        w[i] = (float)i;
    assert_ok(onnx_make(&m, &product));
    assert_ok(bake((struct tg_session_spec){.model = tg_buf_view(&product),
                                            .weights = &weights,
                                            .n_weights = 1},
                   &b));
    assert_true(tg_secret_size(b.image) > sizeof(w));
    assert_ok(tg_session_baked(ort, &b, &s, &err));
    assert_true(tg_session_image(s).n < sizeof(w) / 4);
}

static void what_is_too_large_is_not_baked(void **state)
{
    const struct tg_session_weights huge = {
        "w", 1, {{(int64_t)1 << 30}, 1},
          tg_bytes_make(&huge, (size_t)4 << 30)
    };
    struct tg_session_spec spec = example_spec();
    struct tg_bake b = {.keep = 0};

    (void)state;
    spec.weights = &huge;
    spec.n_weights = 1;
    assert_rc(bake(spec, &b), TG_E_LIMIT);
    assert_null(b.image);
}

static void what_cannot_be_loaded_is_not_baked(void **state)
{
    struct tg_session_spec spec = {.model = tg_bytes_str("not a model at all")};
    struct tg_bake b = {.keep = 0};

    (void)state;
    assert_rc(bake(spec, &b), TG_E_FORMAT);
    assert_null(b.image);
}

/* Any damage is refused, or leads to an arrangement inside its bounds (AddressSanitizer looks). */
static void broken_images_are_harmless(void **state)
{
    struct tg_bake b = {.keep = 0};
    size_t refused = 0;

    (void)state;
    assert_ok(bake(example_spec(), &b));
    for (size_t at = 0; at < 6000 && at < tg_secret_size(b.image); at++) {
        TG_AUTO(tg_secret_freep) struct tg_secret *out = NULL;
        struct tg_bake_layout l = {.n_data = 0};
        uint8_t *p = tg_secret_data(b.image), was = p[at];
        size_t keep = 0;

        p[at] = (uint8_t)(was + 1 + at % 250);
        if (tg_bake_layout_read(tg_bytes_make(p, tg_secret_size(b.image)), &l, &err) != TG_OK)
            refused++;
        else if (at % 16 == 0 && tg_bake_layout_write(&l, &out, &keep, &err) == TG_OK)
            assert_true(keep <= tg_secret_size(out));
        tg_bake_layout_done(&l);
        p[at] = was;
    }
    assert_true(refused > 1000);
    for (size_t n = 0; n < 2000; n += 7) {
        struct tg_bake_layout l = {.n_data = 0};

        assert_true(tg_bake_layout_read(tg_bytes_make(tg_secret_data(b.image), n), &l, &err) !=
                    TG_OK);
    }
    tg_bake_done(&b);
}

static void out_of_memory_everywhere(void **state)
{
    enum tg_rc rc = TG_E_NOMEM;
    uint64_t failed = 0;

    (void)state;
    for (uint64_t i = 1; i < 120; i++) { /* some only mean that a guess is left out */
        struct tg_bake b = {.keep = 0};
        struct tg_bake_pipe p = TG_BAKE_PIPE_INIT;
        struct tg_session_spec spec = example_spec();
        struct tg_session *s = NULL;

        assert_ok(tg_bake_pipe_new(&p, &err));
        tg_mem_fault_set(i, 0);
        rc = tg_bake_make(ort, &spec, &p, &b, &err);
        if (rc == TG_OK)
            rc = tg_session_baked(ort, &b, &s, &err);
        tg_mem_fault_set(0, 0);
        assert_int_equal(rc == TG_OK, s != NULL);
        failed += rc != TG_OK;
        tg_session_free(s);
        tg_bake_done(&b);
    }
    assert_true(failed > 10);
    assert_ok(rc); /* the last ones are beyond what is allocated */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_baked_model_answers_as_the_model_does),
        cmocka_unit_test(weights_from_elsewhere_are_baked_in),
        cmocka_unit_test(data_is_aligned_and_what_is_packed_comes_last),
        cmocka_unit_test(packed_weights_are_given_back),
        cmocka_unit_test(what_is_too_large_is_not_baked),
        cmocka_unit_test(what_cannot_be_loaded_is_not_baked),
        cmocka_unit_test(broken_images_are_harmless),
        cmocka_unit_test(out_of_memory_everywhere),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
