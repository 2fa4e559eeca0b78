#include <signal.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/clock.h"
#include "net/loop.h"

static struct tg_err err;

struct seen {
    struct tg_loop *loop;
    struct tg_loop_item *item;
    int n, until;
};

static void hit(void *arg)
{
    struct seen *s = arg;

    if (++s->n == s->until)
        tg_loop_stop(s->loop);
}

static void free_itself(void *arg)
{
    struct seen *s = arg;

    tg_loop_item_free(s->item);
    s->item = NULL;
    s->n++;
}

static void timers_repeat_and_stop(void **state)
{
    struct seen s = {.until = 5}, once = {0};
    uint64_t t0 = tg_clock_mono_ns();

    (void)state;
    assert_ok(tg_loop_new(&s.loop, &err));
    once.loop = s.loop;
    assert_ok(tg_loop_every(s.loop, 10, hit, &s, NULL));
    assert_ok(tg_loop_after(s.loop, 0, hit, &once, &once.item));
    assert_ok(tg_loop_run(s.loop, &err));
    assert_int_equal(s.n, 5);
    assert_int_equal(once.n, 1);
    assert_true(tg_clock_mono_ns() - t0 >= 49000000);
    assert_ok(tg_loop_rearm(once.item, 1));
    assert_ok(tg_loop_turn(s.loop, 1000, &err));
    assert_int_equal(once.n, 2);
    tg_loop_free(s.loop);
}

static void a_callback_may_free_its_own_item(void **state)
{
    struct seen s = {0};

    (void)state;
    assert_ok(tg_loop_new(&s.loop, &err));
    assert_ok(tg_loop_every(s.loop, 1, free_itself, &s, &s.item));
    for (int i = 0; i < 5; i++)
        assert_ok(tg_loop_turn(s.loop, 10, &err));
    assert_int_equal(s.n, 1);
    tg_loop_free(s.loop);
}

static void descriptors_and_signals(void **state)
{
    struct seen s = {0}, sig = {0};
    int p[2];

    (void)state;
    assert_ok(tg_loop_new(&s.loop, &err));
    sig.loop = s.loop;
    assert_int_equal(pipe(p), 0);
    assert_ok(tg_loop_fd(s.loop, p[0], TG_LOOP_READ, hit, &s, &s.item));
    assert_ok(tg_loop_signal(s.loop, SIGUSR1, hit, &sig, NULL));
    assert_ok(tg_loop_turn(s.loop, 20, &err));
    assert_int_equal(s.n, 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_ok(tg_loop_turn(s.loop, 1000, &err));
    assert_int_equal(s.n, 1);
    tg_loop_item_free(s.item);
    assert_ok(tg_loop_turn(s.loop, 20, &err));
    assert_int_equal(s.n, 1);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_ok(tg_loop_turn(s.loop, 1000, &err));
    assert_int_equal(sig.n, 1);
    (void)close(p[0]);
    (void)close(p[1]);
    tg_loop_free(s.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_repeat_and_stop),
        cmocka_unit_test(a_callback_may_free_its_own_item),
        cmocka_unit_test(descriptors_and_signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
