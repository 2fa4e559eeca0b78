/* One tensor of a file that is not in memory: the same as reading all of it, by less. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "tensor/weights.h"

static struct tg_err err;

#define CORPUS TG_SOURCE_ROOT "/tests/fuzz/corpus/"
#define KIB64 (UINT64_C(64) << 10) /* what is brought at once from a file's beginning */

/* A file: its beginning, and as many zeros as its size says. */
struct file {
    struct tg_bytes head;
    uint64_t size, brought;
    uint64_t fails_at; /* reads that succeed before one fails; 0: none fails */
    uint64_t reads;
};

static enum tg_rc bring(void *arg, uint64_t off, uint8_t *to, size_t n, struct tg_err *e)
{
    struct file *f = arg;

    assert_true(off <= f->size && n <= f->size - off && n > 0);
    f->brought += n;
    if (++f->reads == f->fails_at)
        return TG_FAIL(e, TG_E_IO, "as the test wants");
    memset(to, 0, n);
    if (off < f->head.n)
        memcpy(to, f->head.p + off, n < f->head.n - off ? n : f->head.n - (size_t)off);
    return TG_OK;
}

static enum tg_rc locate(struct file *f, const char *name, struct tg_weight_place *out)
{
    const struct tg_weights_src src = {bring, f, f->size};

    *out = (struct tg_weight_place){.n = 0};
    return tg_weights_locate(&src, "f", tg_bytes_str(name), out, &err);
}

/* ---- files as they are ---- */

static void compare(struct tg_bytes bytes, const struct tg_weights *w, const char *path)
{
    for (size_t i = 0; i < w->n; i++) {
        struct file f = {.head = bytes, .size = bytes.n};
        const struct tg_weight *t = &w->v[i];
        struct tg_weight_place p;
        enum tg_rc rc = locate(&f, t->name, &p);

        if (rc != (t->stride == NULL ? TG_OK : TG_E_UNSUPPORTED))
            fail_msg("%s: '%s': %s: %s", path, t->name, tg_rc_name(rc), err.msg);
        if (rc != TG_OK)
            continue;
        assert_true(p.type == t->type && tg_shape_eq(&p.shape, &t->shape));
        assert_int_equal(p.n, t->bytes.n);
        assert_true(p.n == 0 || bytes.p + p.at == t->bytes.p);
        assert_true(tg_weight_place_holds(&p, t->bytes));
    }
}

/* Each file of a corpus; returns how many were files of weights. */
static size_t compare_all(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    size_t read = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(64 << 20);
        TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
        struct tg_weight_place p;
        struct file f;
        char path[1024];

        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s%s", folder, e->d_name);
        assert_ok(tg_file_read(path, &b, &err));
        f = (struct file){.head = tg_buf_view(&b), .size = b.n};
        if (tg_weights_parse(f.head, "f", &w, &err) == TG_OK) {
            compare(f.head, &w, path);
            assert_rc(locate(&f, "no such tensor", &p), TG_E_NOTFOUND);
            read++;
        } else { /* what is wrong may be elsewhere; there is no such tensor in any case */
            assert_int_not_equal(locate(&f, "no such tensor", &p), TG_OK);
        }
    }
    (void)closedir(d);
    return read;
}

static void every_tensor_of_every_vector_is_found_where_it_is(void **state)
{
    (void)state;
    assert_true(compare_all(CORPUS "safetensors/") >= 10);
    assert_true(compare_all(CORPUS "torch/") >= 10);
}

/* ---- how much is brought ---- */

static struct tg_bytes large_head(char *at, size_t cap)
{
    int n = snprintf(at + 8, cap - 8,
                     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1073741824],\"data_offsets\":[0,"
                     "1073741824]},\"b\":{\"dtype\":\"F32\",\"shape\":[1024,1024],"
                     "\"data_offsets\":[1073741824,1077936128]}}");

    memset(at, 0, 8);
    at[0] = (char)n;
    return tg_bytes_make(at, 8 + (size_t)n);
}

static void of_a_large_file_the_header_is_read(void **state)
{
    char head[512];
    struct file f = {.head = large_head(head, sizeof(head))};
    struct tg_weight_place p;

    (void)state;
    f.size = f.head.n + (UINT64_C(1) << 30) + (UINT64_C(4) << 20);
    assert_ok(locate(&f, "b", &p));
    assert_int_equal(f.brought, KIB64);
    assert_true(p.at == f.head.n + (UINT64_C(1) << 30) && p.n == UINT64_C(4) << 20);
    assert_true(p.type == TG_W_F32 && p.shape.n == 2 && p.shape.d[1] == 1024);
    assert_rc(locate(&f, "c", &p), TG_E_NOTFOUND);
    assert_contains(err.msg, "no tensor 'c'");
    f.size--;
    assert_rc(locate(&f, "b", &p), TG_E_FORMAT);
    f = (struct file){.size = UINT64_C(1) << 30}; /* no file of weights at all */
    assert_rc(locate(&f, "b", &p), TG_E_FORMAT);
    assert_int_equal(f.brought, KIB64);
}

/* How many tensors it has makes no difference: other storages' headers are left alone. */
static void of_an_archive_directory_and_pickle_are_read(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
    struct tg_weights w = TG_WEIGHTS_INIT;
    struct tg_weight_place p;
    struct file f;

    (void)state;
    assert_ok(tg_file_read(CORPUS "torch/torch-state-dict.pt", &b, &err));
    f = (struct file){.head = tg_buf_view(&b), .size = b.n};
    assert_ok(tg_weights_parse(f.head, "f", &w, &err));
    assert_true(w.n > 1);
    assert_ok(locate(&f, w.v[0].name, &p));
    assert_true(f.reads <= 8);
    tg_weights_done(&w);
}

static void a_bool_must_be_one(void **state)
{
    const struct tg_weight_place p = {
        .type = TG_W_BOOL, .shape = {{2}, 1},
             .n = 2
    };

    (void)state;
    assert_true(tg_weight_place_holds(&p, tg_bytes_make("\0\1", 2)));
    assert_false(tg_weight_place_holds(&p, tg_bytes_make("\0\2", 2)));
    assert_false(tg_weight_place_holds(&p, tg_bytes_make("\0", 1)));
}

/* ---- faults ---- */

static void sweep(const char *path, const char *name)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
    struct tg_weight_place p;
    enum tg_rc rc = TG_E_IO;
    uint64_t nth = 0;
    struct file f;

    assert_ok(tg_file_read(path, &b, &err));
    for (nth = 1; rc != TG_OK && nth < 100; nth++) {
        f = (struct file){.head = tg_buf_view(&b), .size = b.n, .fails_at = nth};
        rc = locate(&f, name, &p);
        assert_true(rc == TG_OK || rc == TG_E_IO);
    }
    assert_ok(rc);
    for (nth = 1, rc = TG_E_NOMEM; rc != TG_OK && nth < 10000; nth++) {
        f = (struct file){.head = tg_buf_view(&b), .size = b.n};
        tg_mem_fault_set(nth, 0);
        rc = locate(&f, name, &p);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM);
    }
    assert_ok(rc);
    for (f.size = 0; f.size < b.n; f.size++) { /* cut anywhere: nothing is read beyond the end */
        f.head.n = (size_t)f.size;
        assert_int_not_equal(locate(&f, name, &p), TG_OK);
    }
}

static void every_read_and_allocation_may_fail(void **state)
{
    static const char *const files[] = {CORPUS "torch/torch-views.pt", CORPUS "torch/zip64.pt",
                                        CORPUS "safetensors/two.safetensors"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(files); i++) {
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
        TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
        size_t packed = 0;

        assert_ok(tg_file_read(files[i], &b, &err));
        assert_ok(tg_weights_parse(tg_buf_view(&b), "f", &w, &err));
        while (w.v[packed].stride != NULL)
            packed++;
        sweep(files[i], w.v[packed].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_of_every_vector_is_found_where_it_is),
        cmocka_unit_test(of_a_large_file_the_header_is_read),
        cmocka_unit_test(of_an_archive_directory_and_pickle_are_read),
        cmocka_unit_test(a_bool_must_be_one),
        cmocka_unit_test(every_read_and_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
