/* Files of weights: those of tests/vectors/weights.txt, some by PyTorch itself, and what was
 * written is what the reference layout says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "tensor/weights.h"
#include "tensor/zip.h"

static struct tg_err err;

#define CORPUS TG_SOURCE_ROOT "/tests/fuzz/corpus/"

static void read_file(const char *path, struct tg_buf *b)
{
    tg_buf_done(b);
    *b = TG_BUF_INIT(64 << 20);
    assert_ok(tg_file_read(path, b, &err));
}

/* One tensor as the index writes it. */
static void describe(const struct tg_weight *w, struct tg_buf *out)
{
    char shape[TG_SHAPE_TEXT];
    size_t n = tg_weight_size(w);
    uint8_t *packed = malloc(n + 1);

    assert_non_null(packed);
    tg_shape_text(&w->shape, shape);
    if (w->stride == NULL)
        memcpy(packed, w->bytes.n > 0 ? w->bytes.p : packed, w->bytes.n);
    else
        tg_weight_copy(w, 0, n * 8 / tg_wtype_bits(w->type), packed);
    assert_true(w->stride != NULL || w->bytes.n == n);
    assert_ok(tg_buf_printf(out, "  %s %s %s %08x\n", w->name, tg_wtype_name(w->type), shape,
                            (unsigned)tg_zip_crc32(tg_bytes_make(packed, n))));
    free(packed);
}

/* ---- the index ---- */

struct row {
    char file[256], code[32], words[256];
    struct tg_buf tensors; /* lines */
};

static void trim(char *s)
{
    size_t n = strlen(s);

    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\n'))
        s[--n] = '\0';
}

static void copy_field(char *out, size_t cap, const char **s)
{
    const char *bar = strstr(*s, " | ");
    size_t n = bar == NULL ? strlen(*s) : (size_t)(bar - *s);

    assert_true(n < cap);
    memcpy(out, *s, n);
    out[n] = '\0';
    trim(out);
    *s = bar == NULL ? *s + strlen(*s) : bar + 3;
}

typedef void (*each_fn)(const struct row *r, void *arg);

static void each_row(each_fn fn, void *arg)
{
    FILE *f = fopen(TG_SOURCE_ROOT "/tests/vectors/weights.txt", "r");
    struct row r = {.tensors = TG_BUF_INIT(1 << 20)};
    char line[4096];

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *s = line;

        if (line[0] == ' ') {
            assert_ok(tg_buf_str(&r.tensors, line));
            continue;
        }
        if (r.file[0] != '\0')
            fn(&r, arg);
        r.file[0] = '\0';
        tg_buf_clear(&r.tensors);
        if (line[0] == '#' || line[0] == '\n')
            continue;
        copy_field(r.file, sizeof(r.file), &s);
        copy_field(r.code, sizeof(r.code), &s);
        copy_field(r.words, sizeof(r.words), &s);
    }
    if (r.file[0] != '\0')
        fn(&r, arg);
    tg_buf_done(&r.tensors);
    (void)fclose(f);
}

static void open_row(const struct row *r, struct tg_buf *file)
{
    char path[1024];

    (void)snprintf(path, sizeof(path), CORPUS "%s", r->file);
    read_file(path, file);
}

struct counts {
    size_t read, refused, compared, by_beginning;
};

static void check_row(const struct row *r, void *arg)
{
    TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(1);
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    struct counts *c = arg;
    enum tg_rc rc, kind;

    open_row(r, &file);
    err = (struct tg_err)TG_ERR_INIT;
    /* the beginning alone refuses nothing that would be read, and what it refuses for the same
     * reason */
    kind = tg_weights_kind(tg_bytes_sub(tg_buf_view(&file), 0, TG_WEIGHTS_HEAD), r->file, &err);
    if (kind != TG_OK && (kind != tg_rc_from_name(r->code) || strstr(err.msg, r->words) == NULL))
        fail_msg("%s: by its beginning: %s: %s", r->file, tg_rc_name(kind), err.msg);
    c->by_beginning += kind != TG_OK;
    rc = tg_weights_parse(tg_buf_view(&file), r->file, &w, &err);
    if (rc != tg_rc_from_name(r->code))
        fail_msg("%s: got %s, expected %s: %s", r->file, tg_rc_name(rc), r->code, err.msg);
    if (rc != TG_OK) {
        c->refused++;
        assert_null(w.v);
        if (strstr(err.msg, r->words) == NULL)
            fail_msg("%s: \"%s\" does not contain \"%s\"", r->file, err.msg, r->words);
        assert_contains(err.msg, r->file);
        return;
    }
    c->read++;
    for (size_t i = 0; i < w.n; i++) {
        describe(&w.v[i], &text);
        assert_ptr_equal(tg_weights_find(&w, tg_bytes_str(w.v[i].name)), &w.v[i]);
    }
    if (strcmp(tg_buf_cstr(&text), tg_buf_cstr(&r->tensors)) != 0)
        fail_msg("%s: read\n%s, expected\n%s", r->file, tg_buf_cstr(&text),
                 tg_buf_cstr(&r->tensors));
    assert_null(tg_weights_find(&w, tg_bytes_str("no such tensor")));
}

static void every_vector_is_answered_as_listed(void **state)
{
    struct counts c = {.read = 0};

    (void)state;
    each_row(check_row, &c);
    print_message("# %zu files read, %zu refused\n", c.read, c.refused);
    assert_true(c.read >= 35 && c.refused >= 250 && c.by_beginning >= 3);
}

/* ---- writing ---- */

static enum tg_rc to_buf(void *arg, const void *p, size_t n, struct tg_err *e)
{
    (void)e;
    return tg_buf_append(arg, p, n);
}

static void write_all(const struct tg_weights *w, struct tg_buf *out)
{
    const struct tg_weights_sink sink = {to_buf, out};

    assert_ok(tg_safetensors_write(w, &sink, &err));
}

/* PyTorch's archive, written as safetensors, is the file that the reference layout asks for. */
static void compare_row(const struct row *r, void *arg)
{
    TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(1);
    TG_AUTO(tg_buf_done) struct tg_buf want = TG_BUF_INIT(1);
    TG_AUTO(tg_buf_done) struct tg_buf got = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    size_t name = strlen("torch/"), n = strlen(r->file);
    struct counts *c = arg;
    char path[1024];

    if (strncmp(r->file, "torch/torch-", 12) != 0 || strcmp(r->code, "OK") != 0)
        return;
    open_row(r, &file);
    (void)snprintf(path, sizeof(path), CORPUS "safetensors/%.*s.safetensors", (int)(n - name - 3),
                   r->file + name);
    read_file(path, &want);
    assert_ok(tg_weights_parse(tg_buf_view(&file), r->file, &w, &err));
    write_all(&w, &got);
    assert_true(tg_bytes_eq(tg_buf_view(&got), tg_buf_view(&want)));
    /* The same again when its views were packed first. */
    assert_ok(tg_weights_pack(&w, &err));
    tg_buf_clear(&got);
    write_all(&w, &got);
    assert_true(tg_bytes_eq(tg_buf_view(&got), tg_buf_view(&want)));
    for (size_t i = 0; i < w.n; i++)
        assert_null(w.v[i].stride);
    c->compared++;
}

static void pytorchs_archives_become_the_reference_layout(void **state)
{
    struct counts c = {.read = 0};

    (void)state;
    each_row(compare_row, &c);
    assert_int_equal(c.compared, 5);
}

/* A view too large for the writer's buffer. */
static void large_strided_tensors_are_written_in_pieces(void **state)
{
    enum { rows = 300, columns = 501 };

    static uint32_t data[rows * columns];
    int64_t stride[2] = {1, rows};
    struct tg_weight t = {
        .name = "t",
        .type = TG_W_U32,
        .shape = {{columns, rows}, 2},
        .bytes = TG_BYTES_OF(data),
        .stride = stride
    };
    struct tg_weights w = {.v = &t, .n = 1}, back = TG_WEIGHTS_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf out = TG_BUF_INIT(1 << 20);

    (void)state;
    stride[0] = 1;
    stride[1] = columns;
    for (uint32_t i = 0; i < rows * columns; i++)
        data[i] = i;
    write_all(&w, &out);
    assert_ok(tg_weights_parse(tg_buf_view(&out), "t", &back, &err));
    assert_int_equal(back.v[0].bytes.n, sizeof(data));
    for (uint32_t i = 0; i < rows * columns; i++)
        assert_int_equal(tg_get_le32(back.v[0].bytes.p + 4 * (size_t)i),
                         data[i / rows + i % rows * columns]);
    tg_weights_done(&back);
}

/* ---- faults ---- */

static void sweep(const char *path)
{
    TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(1);
    TG_AUTO(tg_buf_done) struct tg_buf out = TG_BUF_INIT(1 << 20);
    const struct tg_weights_sink sink = {to_buf, &out};
    uint64_t nth = 0;
    enum tg_rc rc;

    read_file(path, &file);
    assert_ok(tg_buf_append(&out, (const uint8_t[1 << 16]){0}, 1 << 16)); /* its own memory first */
    do {
        struct tg_weights w = TG_WEIGHTS_INIT;

        tg_buf_clear(&out);
        tg_mem_fault_set(++nth, 0);
        rc = tg_weights_parse(tg_buf_view(&file), "f", &w, &err);
        if (rc == TG_OK)
            rc = tg_weights_pack(&w, &err);
        if (rc == TG_OK)
            rc = tg_safetensors_write(&w, &sink, &err);
        tg_mem_fault_set(0, 0);
        tg_weights_done(&w);
        if (rc != TG_OK && rc != TG_E_NOMEM)
            fail_msg("%s: allocation %u: %s: %s", path, (unsigned)nth, tg_rc_name(rc), err.msg);
    } while (rc != TG_OK && nth < 10000);
    assert_true(nth > 5);
    assert_ok(rc);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    sweep(CORPUS "torch/torch-views.pt");
    sweep(CORPUS "torch/torch-checkpoint.pt");
    sweep(CORPUS "safetensors/torch-state-dict.safetensors");
}

static void a_cut_file_is_refused_wherever_it_is_cut(void **state)
{
    static const char *const files[] = {CORPUS "torch/zip64.pt", CORPUS "torch/torch-views.pt",
                                        CORPUS "safetensors/two.safetensors"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(files); i++) {
        TG_AUTO(tg_buf_done) struct tg_buf file = TG_BUF_INIT(1);
        struct tg_weights w = TG_WEIGHTS_INIT;

        read_file(files[i], &file);
        for (size_t n = 0; n < file.n; n++) {
            uint8_t *exact = malloc(n + 1); /* so that a sanitizer sees a read past the end */

            assert_non_null(exact);
            memcpy(exact, file.data, n);
            assert_int_not_equal(tg_weights_parse(tg_bytes_make(exact, n), "cut", &w, &err), TG_OK);
            free(exact);
        }
    }
}

static void crc_is_that_of_iso_3309(void **state)
{
    (void)state;
    assert_int_equal(tg_zip_crc32(tg_bytes_str("123456789")), 0xcbf43926);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_is_answered_as_listed),
        cmocka_unit_test(pytorchs_archives_become_the_reference_layout),
        cmocka_unit_test(large_strided_tensors_are_written_in_pieces),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_cut_file_is_refused_wherever_it_is_cut),
        cmocka_unit_test(crc_is_that_of_iso_3309),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
