#include <string.h>

#include "../tg_cmocka.h"
#include "base/spans.h"

#define N 300

/* Against a plain array of flags. */
static void check(const struct tg_spans *s, const bool flags[N])
{
    struct tg_span hole;
    uint64_t sum = 0, prefix = 0;

    assert_true(tg_spans_valid(s, N));
    for (uint64_t i = 0; i < N; i++)
        sum += flags[i];
    while (prefix < N && flags[prefix])
        prefix++;
    assert_int_equal(tg_spans_bytes(s), sum);
    assert_int_equal(tg_spans_prefix(s), prefix);
    for (uint64_t from = 0; from < N; from += 7) {
        uint64_t a = from, b;

        while (a < N && flags[a])
            a++;
        for (b = a; b < N && !flags[b]; b++)
            ;
        assert_int_equal(tg_spans_hole(s, from, N, &hole), a < N);
        if (a < N) {
            assert_int_equal(hole.off, a);
            assert_int_equal(hole.end, b);
        }
        assert_int_equal(tg_spans_has(s, from, a), true);
        if (a < N)
            assert_false(tg_spans_has(s, from, a + 1));
    }
}

static void any_order_of_arrival(void **state)
{
    uint32_t r = 1;

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct tg_spans s = {.n = 0};
        bool flags[N] = {false};

        for (int i = 0; i < 40; i++) {
            r = r * 1664525 + 1013904223;
            uint64_t off = (r >> 8) % N;
            r = r * 1664525 + 1013904223;
            uint64_t n = (r >> 8) % 20;
            uint64_t end = off + n < N ? off + n : N;

            assert_int_equal(tg_spans_add(&s, off, end), TG_OK);
            for (uint64_t k = off; k < end; k++)
                flags[k] = true;
            check(&s, flags);
        }
    }
}

static void too_many_are_refused(void **state)
{
    struct tg_spans s = {.n = 0}, before;

    (void)state;
    for (uint64_t i = 0; i < TG_SPANS_MAX; i++)
        assert_int_equal(tg_spans_add(&s, i * 10, i * 10 + 5), TG_OK);
    before = s;
    assert_int_equal(tg_spans_add(&s, 1000, 1005), TG_E_LIMIT);
    assert_memory_equal(&s, &before, sizeof(s));
    assert_int_equal(tg_spans_add(&s, 5, 10), TG_OK); /* joins two */
    assert_int_equal(s.n, TG_SPANS_MAX - 1);
    assert_int_equal(tg_spans_add(&s, 1000, 1005), TG_OK);
    assert_int_equal(tg_spans_add(&s, 0, UINT64_MAX), TG_OK);
    assert_int_equal(s.n, 1);
}

static void nonsense_is_seen(void **state)
{
    static const struct tg_spans bad[] = {
        {{{5, 5}},         1               },
        {{{6, 5}},         1               },
        {{{0, 101}},       1               },
        {{{0, 5}, {5, 9}}, 2               },
        {{{4, 5}, {0, 1}}, 2               },
        {{{0, 1}},         TG_SPANS_MAX + 1},
    };
    const struct tg_spans good = {
        {{0, 5}, {6, 100}},
        2
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(tg_spans_valid(&bad[i], 100));
    assert_true(tg_spans_valid(&good, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_of_arrival),
        cmocka_unit_test(too_many_are_refused),
        cmocka_unit_test(nonsense_is_seen),
    };
    return cmocka_run_group_tests_name("base/spans", tests, NULL, NULL);
}
