#include <string.h>

#include "../tg_cmocka.h"
#include "native/layout.h"

static struct tg_err err;

/* What a client's own implementation relies on (docs/spec/native-1.0.md §3). */
static void words_lie_where_the_document_says(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct tg_native_shared, submitted), 0);
    assert_int_equal(offsetof(struct tg_native_shared, client_waits), 4);
    assert_int_equal(offsetof(struct tg_native_shared, completed), 64);
    assert_int_equal(offsetof(struct tg_native_shared, worker_waits), 68);
    assert_int_equal(offsetof(struct tg_native_shared, leaving), 72);
    assert_int_equal(offsetof(struct tg_native_shared, worker_bell), 128);
    assert_int_equal(offsetof(struct tg_native_shared, client_bell), 192);
    assert_int_equal(sizeof(struct tg_native_shape), 136);
    assert_int_equal(sizeof(struct tg_native_answer), 256);
}

static void nothing_overlaps(void **state)
{
    struct tg_native_layout l;
    struct tg_native_ring ring = {
        .slots = 8, .n = 5, .bytes = {1, 0, 64, 65, 1000}
    };
    uint64_t at;

    (void)state;
    assert_ok(tg_native_layout_make(&ring, 2, 3, &l, &err));
    at = l.answer + sizeof(struct tg_native_answer) + 3 * sizeof(struct tg_native_shape);
    assert_true(l.answer >= l.shapes + 2 * sizeof(struct tg_native_shape));
    for (size_t i = 0; i < 5; i++) {
        assert_true(l.data[i] >= at && l.data[i] % 64 == 0);
        at = l.data[i] + l.bytes[i];
    }
    assert_true(at <= l.slot_size && l.slot_size % 4096 == 0);
    assert_int_equal(l.inputs_bytes, 64);
    assert_int_equal(l.outputs_bytes, 64 + 128 + 1024);
    assert_int_equal(l.map_size, 4096 + 8 * l.slot_size);
    assert_int_equal(tg_native_slot(&l, 0), 4096);
    assert_int_equal(tg_native_slot(&l, 9), 4096 + l.slot_size);
    assert_int_equal(tg_native_slot(&l, UINT32_MAX), 4096 + 7 * l.slot_size);
}

static void too_much_is_refused(void **state)
{
    struct tg_native_layout l = {.slots = 77};
    struct tg_native_ring ring = {
        .slots = 1, .n = 2, .bytes = {TG_NATIVE_MAP_MAX, 1}
    };

    (void)state;
    assert_rc(tg_native_layout_make(&ring, 1, 1, &l, &err), TG_E_LIMIT);
    ring.bytes[0] = UINT64_MAX - 10;
    assert_rc(tg_native_layout_make(&ring, 1, 1, &l, &err), TG_E_LIMIT);
    ring.bytes[0] = TG_NATIVE_MAP_MAX / 8;
    assert_ok(tg_native_layout_make(&ring, 1, 1, &l, &err));
    ring.slots = 16;
    assert_rc(tg_native_layout_make(&ring, 1, 1, &l, &err), TG_E_LIMIT);
    assert_rc(tg_native_layout_make(&ring, 1, 2, &l, &err), TG_E_USAGE);
    assert_rc(tg_native_layout_make(&ring, 65, UINT32_MAX - 62, &l, &err), TG_E_USAGE);
    assert_int_equal(l.slots, 1);
}

static void shapes_are_checked(void **state)
{
    static const struct {
        uint32_t n;
        int64_t d[3];
        enum tg_rc rc;
        uint64_t bytes;
    } rows[] = {
        {2,  {1, 8},                TG_OK,      32},
        {2,  {0, 8},                TG_OK,      0 },
        {2,  {2, 8},                TG_OK,      64},
        {2,  {3, 8},                TG_E_USAGE, 0 },
        {2,  {1, 7},                TG_E_USAGE, 0 },
        {2,  {-1, 8},               TG_E_USAGE, 0 },
        {1,  {8},                   TG_E_USAGE, 0 },
        {3,  {1, 8, 1},             TG_E_USAGE, 0 },
        {17, {1},                   TG_E_USAGE, 0 },
        {2,  {INT64_MAX, 8},        TG_E_USAGE, 0 },
        {2,  {INT64_C(1) << 61, 8}, TG_E_USAGE, 0 },
    };
    struct tg_native_port port = {
        .name = "x", .n_dims = 2, .dims = {-1, 8}
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_native_shape given = {.n = rows[i].n};
        uint64_t bytes = 99;

        memcpy(given.d, rows[i].d, sizeof(rows[i].d));
        if (tg_native_shape_check(&port, &given, 4, 64, &bytes, &err) != rows[i].rc)
            fail_msg("row %zu", i);
        assert_int_equal(bytes, rows[i].rc == TG_OK ? rows[i].bytes : 99);
    }
    port.n_dims = 0; /* nothing declared: any rank */
    assert_ok(tg_native_shape_check(&port, &(struct tg_native_shape){.n = 0}, 4, 64, &(uint64_t){0},
                                    &err));
    assert_ok(tg_native_shape_check(&port, &(struct tg_native_shape){.n = 1, .d = {16}}, 4, 64,
                                    &(uint64_t){0}, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_lie_where_the_document_says),
        cmocka_unit_test(nothing_overlaps),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(shapes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
