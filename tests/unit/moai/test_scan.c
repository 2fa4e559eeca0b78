/* The search for weights: what counts as a copy, in the layouts a runtime gives them, and what does
 * not. */
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/mem.h"
#include "moai/scan.h"

#define FLOATS ((size_t)2 << 20)
#define BYTES (FLOATS * sizeof(float))
#define PANEL 16 /* columns that a packed matrix keeps together */
#define ROWS ((size_t)1024)

static struct tg_err err;

struct place {
    float *weights, *other;
    struct tg_scan *scan;
};

/* About normal: a sum of four, so that single values come up again and again by chance. */
static void fill(float *v, uint64_t seed)
{
    for (size_t i = 0; i < FLOATS; i++) {
        float sum = 0;

        for (int k = 0; k < 4; k++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            sum += (float)((int64_t)(seed >> 40) - (1 << 23)) / (float)(1 << 23);
        }
        v[i] = sum * 0.05F;
    }
}

static int setup(void **state)
{
    struct place *p = tg_calloc(1, sizeof(*p));

    assert_non_null(p);
    p->weights = tg_alloc(BYTES);
    p->other = tg_alloc(BYTES);
    assert_non_null(p->weights);
    assert_non_null(p->other);
    fill(p->weights, 1);
    assert_ok(tg_scan_new(&p->scan, &err));
    assert_ok(tg_scan_plant(p->scan, tg_bytes_make((const uint8_t *)p->weights, BYTES), &err));
    assert_in_range(tg_scan_clusters(p->scan), 200, 300); /* one for each 32 KiB */
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;

    tg_scan_free(p->scan);
    tg_free(p->other);
    tg_free(p->weights);
    tg_free(p);
    return 0;
}

/* Hundredths of a copy in what was searched since tg_scan_begin. */
static unsigned copies(struct tg_scan *s, bool inside)
{
    struct tg_scan_found f;

    tg_scan_result(s, inside, &f);
    return (unsigned)(f.words * 100 / (tg_scan_clusters(s) * TG_SCAN_WORDS));
}

static uint64_t clusters(struct tg_scan *s, bool inside)
{
    struct tg_scan_found f;

    tg_scan_result(s, inside, &f);
    return f.clusters;
}

static void copies_are_counted_whole(void **state)
{
    struct place *p = *state;

    for (unsigned times = 1; times <= 3; times++) {
        tg_scan_begin(p->scan);
        for (unsigned i = 0; i < times; i++)
            tg_scan_range(p->scan, p->weights, BYTES, true);
        assert_in_range(copies(p->scan, true), 97 * times, 100 * times);
        assert_int_equal(clusters(p->scan, true), tg_scan_clusters(p->scan));
        assert_int_equal(copies(p->scan, false), 0);
    }
}

static void other_weights_of_the_same_kind_are_none(void **state)
{
    struct place *p = *state;
    struct tg_scan_found f;

    fill(p->other, 2);
    tg_scan_range(p->scan, p->other, BYTES, false);
    tg_scan_result(p->scan, false, &f);
    assert_int_equal(f.pages, 0);
    assert_int_equal(f.words, 0);
    assert_int_equal(f.searched, BYTES);
}

static void a_copy_at_odd_addresses_is_found(void **state)
{
    struct place *p = *state;

    memcpy((uint8_t *)p->other + 3, p->weights, BYTES - 3);
    tg_scan_range(p->scan, p->other, BYTES, false);
    assert_in_range(copies(p->scan, false), 96, 100);
}

/* As matrix products keep them: 16 columns side by side, all rows of them, then the next 16. */
static void a_packed_matrix_is_one_copy(void **state)
{
    struct place *p = *state;
    size_t columns = FLOATS / ROWS, to = 0;

    for (size_t c = 0; c < columns; c += PANEL)
        for (size_t r = 0; r < ROWS; r++, to += PANEL)
            memcpy(p->other + to, p->weights + r * columns + c, PANEL * sizeof(float));
    tg_scan_range(p->scan, p->other, BYTES, true);
    assert_int_equal(clusters(p->scan, true), tg_scan_clusters(p->scan));
    assert_in_range(copies(p->scan, true), 90, 100);
}

/* One row's neighbours end up a column's length apart: no page holds several. */
static void a_transposed_matrix_is_found(void **state)
{
    struct place *p = *state;
    size_t columns = FLOATS / ROWS;

    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < columns; c++)
            p->other[c * ROWS + r] = p->weights[r * columns + c];
    tg_scan_range(p->scan, p->other, BYTES, false);
    assert_int_equal(clusters(p->scan, false), tg_scan_clusters(p->scan));
}

static void one_cluster_among_others_is_found(void **state)
{
    struct place *p = *state;

    fill(p->other, 3);
    tg_scan_control(p->scan, 7, (uint8_t *)(p->other + FLOATS / 2));
    tg_scan_range(p->scan, p->other, BYTES, false);
    assert_int_equal(clusters(p->scan, false), 1);
}

static void what_cannot_be_told_apart_is_refused(void **state)
{
    struct place *p = *state;
    TG_AUTO(tg_scan_freep) struct tg_scan *s = NULL;

    memset(p->other, 0, BYTES);
    assert_ok(tg_scan_new(&s, &err));
    assert_rc(tg_scan_plant(s, tg_bytes_make((const uint8_t *)p->other, BYTES), &err),
              TG_E_UNSUPPORTED);
    assert_contains(err.msg, "larger model");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(copies_are_counted_whole),
        T(other_weights_of_the_same_kind_are_none),
        T(a_copy_at_odd_addresses_is_found),
        T(a_packed_matrix_is_one_copy),
        T(a_transposed_matrix_is_found),
        T(one_cluster_among_others_is_found),
        T(what_cannot_be_told_apart_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
