#include <stdalign.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/mem.h"

static struct tg_err err;

static void arena_gives_zeroed_aligned_pieces_up_to_its_maximum(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    size_t got = 0;

    (void)state;
    assert_ok(tg_arena_new(100000, &a));
    for (size_t n = 1;; n = n * 3 % 257 + 1) {
        uint8_t *p = tg_arena_alloc(a, n, 1);

        if (p == NULL)
            break;
        assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xAA, n);
        got += n;
    }
    assert_true(got > 50000 && got <= 100000);
    assert_null(tg_arena_alloc(a, SIZE_MAX, 2));
    assert_null(tg_arena_alloc(a, SIZE_MAX, 1));
    assert_null(tg_arena_alloc(a, 200000, 1));
}

static void arena_says_when_memory_is_out(void **state)
{
    struct tg_arena *a = NULL;

    (void)state;
    tg_mem_fault_set(1, 0);
    assert_rc(tg_arena_new(1000, &a), TG_E_NOMEM);
    tg_mem_fault_set(2, 0);
    assert_ok(tg_arena_new(1 << 20, &a));
    assert_null(tg_arena_alloc(a, 8, 8));
    tg_mem_fault_set(0, 0);
    assert_non_null(tg_arena_alloc(a, 8, 8));
    tg_arena_free(a);
}

static void faults_fire_once_or_for_good(void **state)
{
    void *p;

    (void)state;
    tg_mem_fault_set(2, 0);
    p = tg_alloc(1);
    assert_non_null(p);
    tg_free(p);
    assert_null(tg_alloc(1));
    p = tg_alloc(1);
    assert_non_null(p);
    tg_free(p);
    assert_int_equal(tg_mem_fault_count(), 3);
    tg_mem_fault_set(1, 1);
    assert_null(tg_alloc(1));
    assert_null(tg_calloc(1, 1));
    assert_null(tg_strdup("x"));
    assert_null(tg_asprintf("%d", 1));
    tg_mem_fault_set(0, 0);
}

static void calloc_refuses_overflow(void **state)
{
    size_t volatile huge = SIZE_MAX / 2;

    (void)state;
    assert_null(tg_calloc(huge, 3));
}

static void comparison_and_wipe(void **state)
{
    uint8_t a[33], b[33];

    (void)state;
    memset(a, 7, sizeof(a));
    memset(b, 7, sizeof(b));
    assert_true(tg_ct_eq(a, b, sizeof(a)));
    for (size_t i = 0; i < sizeof(a); i++) {
        b[i] ^= 0x80;
        assert_false(tg_ct_eq(a, b, sizeof(a)));
        b[i] ^= 0x80;
    }
    assert_true(tg_ct_eq(a, b, 0));
    tg_wipe(a, sizeof(a));
    for (size_t i = 0; i < sizeof(a); i++)
        assert_int_equal(a[i], 0);
    tg_wipe(NULL, 0);
}

static void steal_leaves_null_behind(void **state)
{
    char *s = tg_asprintf("%s-%d", "a", 5);
    char *t = tg_steal(&s);

    (void)state;
    assert_null(s);
    assert_string_equal(t, "a-5");
    tg_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_zeroed_aligned_pieces_up_to_its_maximum),
        cmocka_unit_test(arena_says_when_memory_is_out),
        cmocka_unit_test(faults_fire_once_or_for_good),
        cmocka_unit_test(calloc_refuses_overflow),
        cmocka_unit_test(comparison_and_wipe),
        cmocka_unit_test(steal_leaves_null_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
