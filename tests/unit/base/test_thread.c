#include <stdatomic.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/thread.h"

static struct tg_err err;

struct marks {
    _Atomic int count[1000];
    _Atomic unsigned highest_worker;
    uint64_t fail_from;
};

static enum tg_rc mark(void *ctx, uint64_t i, unsigned worker, struct tg_err *e)
{
    struct marks *m = ctx;

    if (i >= m->fail_from)
        return TG_FAIL(e, TG_E_AUTH, "item %d", (int)i);
    atomic_fetch_add(&m->count[i], 1);
    if (worker > atomic_load(&m->highest_worker))
        atomic_store(&m->highest_worker, worker);
    return TG_OK;
}

static void every_item_runs_once(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads < 9; threads++) {
        struct marks m;

        memset(&m, 0, sizeof(m));
        m.fail_from = UINT64_MAX;
        assert_ok(tg_thread_run(threads, 1000, mark, &m, &err));
        for (int i = 0; i < 1000; i++)
            assert_int_equal(m.count[i], 1);
        assert_true(m.highest_worker < (threads == 0 ? 1 : threads));
    }
}

static void the_lowest_failure_is_reported_whatever_the_timing(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct marks m;

        memset(&m, 0, sizeof(m));
        m.fail_from = 137;
        assert_rc(tg_thread_run(4, 1000, mark, &m, &err), TG_E_AUTH);
        assert_string_equal(err.msg, "item 137");
        for (int i = 0; i < 137; i++)
            assert_int_equal(m.count[i], 1);
    }
}

static void nothing_to_do_is_fine(void **state)
{
    (void)state;
    assert_ok(tg_thread_run(4, 0, mark, NULL, &err));
    assert_true(tg_thread_cpus() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(the_lowest_failure_is_reported_whatever_the_timing),
        cmocka_unit_test(nothing_to_do_is_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
