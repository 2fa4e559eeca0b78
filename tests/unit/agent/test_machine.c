/* The two machines: each row's meaning, what is ignored, and that no state is a trap. */
#include "../tg_cmocka.h"

#include <string.h>

#include "agent/machine.h"

static uint32_t in(enum tg_install_state *s, enum tg_install_event e, unsigned failures)
{
    struct tg_machine_facts f = {.failures = failures};
    return tg_install_step(s, e, &f);
}

static uint32_t sv(enum tg_serving_state *s, enum tg_serving_event e, unsigned failures, bool back)
{
    struct tg_machine_facts f = {.failures = failures, .can_fall_back = back};
    return tg_serving_step(s, e, &f);
}

static void test_update_that_works(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_IDLE;
    assert_int_equal(in(&s, TG_INE_OFFER, 0), TG_ACT_RESET | TG_ACT_FETCH);
    assert_int_equal(s, TG_IN_FETCHING);
    assert_int_equal(in(&s, TG_INE_FETCHED, 0), TG_ACT_RESET | TG_ACT_SPAWN);
    assert_int_equal(s, TG_IN_TRIAL);
    assert_int_equal(in(&s, TG_INE_HEALTHY, 1), TG_ACT_SERVE);
    assert_int_equal(s, TG_IN_SWITCHING);
    assert_int_equal(in(&s, TG_INE_SERVING, 1), TG_ACT_COMMIT | TG_ACT_RESET);
    assert_int_equal(s, TG_IN_IDLE);
}

/* The old worker is let go by COMMIT only: a new one that dies before it serves costs nothing. */
static void test_worker_that_dies_before_it_serves(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_SWITCHING;
    assert_int_equal(in(&s, TG_INE_TRIAL_BROKE, 1), TG_ACT_KILL | TG_ACT_ARM);
    assert_int_equal(s, TG_IN_TRIAL_WAIT);
    s = TG_IN_SWITCHING;
    assert_int_equal(in(&s, TG_INE_TRIAL_BROKE, TG_TRIES_MAX), TG_ACT_KILL | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
    s = TG_IN_SWITCHING;
    assert_int_equal(in(&s, TG_INE_REFUSED, 1), TG_ACT_KILL | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
    s = TG_IN_SWITCHING; /* its first answers may be under way */
    assert_int_equal(in(&s, TG_INE_WITHDRAWN, 1), 0);
    assert_int_equal(s, TG_IN_SWITCHING);
}

static void test_breaks_of_the_download_never_end_it(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_FETCHING;
    for (unsigned i = 1; i < 1000; i++) {
        assert_int_equal(in(&s, TG_INE_FETCH_BROKE, i), TG_ACT_ARM);
        assert_int_equal(s, TG_IN_FETCH_WAIT);
        assert_int_equal(in(&s, TG_INE_TIMER, i), TG_ACT_FETCH);
        assert_int_equal(s, TG_IN_FETCHING);
    }
}

static void test_refused_package_never_starts_a_worker(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_FETCHING;
    assert_int_equal(in(&s, TG_INE_REFUSED, 0), TG_ACT_KILL | TG_ACT_STOP_FETCH | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
    s = TG_IN_FETCH_WAIT; /* by the worker that follows the download */
    assert_int_equal(in(&s, TG_INE_REFUSED, 0), TG_ACT_KILL | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
}

/* Not a try, and not its end: another grant is fetched, then the same package is tried. */
static void test_trial_without_a_grant_goes_back_for_one(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_TRIAL;
    assert_int_equal(in(&s, TG_INE_LAPSED, TG_TRIES_MAX), TG_ACT_KILL | TG_ACT_ARM);
    assert_int_equal(s, TG_IN_FETCH_WAIT);
    assert_int_equal(in(&s, TG_INE_TIMER, 1), TG_ACT_FETCH);
    assert_int_equal(in(&s, TG_INE_FETCHED, 1), TG_ACT_RESET | TG_ACT_SPAWN);
    assert_int_equal(s, TG_IN_TRIAL);
    for (int from = 0; from < TG_IN_STATES; from++) {
        s = (enum tg_install_state)from;
        assert_true(from == TG_IN_TRIAL || in(&s, TG_INE_LAPSED, 1) == 0);
    }
}

static void test_trial_is_tried_three_times(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_TRIAL;
    for (unsigned i = 1; i < TG_TRIES_MAX; i++) {
        assert_int_equal(in(&s, TG_INE_TRIAL_BROKE, i), TG_ACT_KILL | TG_ACT_ARM);
        assert_int_equal(s, TG_IN_TRIAL_WAIT);
        assert_int_equal(in(&s, TG_INE_TIMER, i), TG_ACT_SPAWN);
        assert_int_equal(s, TG_IN_TRIAL);
    }
    assert_int_equal(in(&s, TG_INE_TRIAL_BROKE, TG_TRIES_MAX), TG_ACT_KILL | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
}

static void test_tries_count_across_restarts(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_IDLE;
    assert_int_equal(in(&s, TG_INE_FETCHED, TG_TRIES_MAX - 1), TG_ACT_SPAWN);
    assert_int_equal(s, TG_IN_TRIAL);
    s = TG_IN_IDLE;
    assert_int_equal(in(&s, TG_INE_FETCHED, TG_TRIES_MAX), TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
}

static void test_worker_that_refuses_is_not_asked_again(void **state)
{
    (void)state;
    enum tg_install_state s = TG_IN_TRIAL;
    assert_int_equal(in(&s, TG_INE_REFUSED, 1), TG_ACT_KILL | TG_ACT_GIVE_UP);
    assert_int_equal(s, TG_IN_IDLE);
}

/* Whatever is under way, but for the moment of the switch, the platform can call it off, and
 * nothing of it stays. */
static void test_withdrawn_from_every_state(void **state)
{
    (void)state;
    for (int from = TG_IN_FETCHING; from < TG_IN_SWITCHING; from++) {
        enum tg_install_state s = (enum tg_install_state)from;
        uint32_t a = in(&s, TG_INE_WITHDRAWN, 1);
        assert_int_equal(s, TG_IN_IDLE);
        assert_true(a & TG_ACT_DROP);
        /* before the trial a worker may follow the download */
        assert_int_equal(!!(a & TG_ACT_KILL), from != TG_IN_TRIAL_WAIT);
        assert_int_equal(!!(a & TG_ACT_STOP_FETCH), from == TG_IN_FETCHING);
    }
}

/* The new package's worker is told to serve only when it is healthy, and the old one let go
 * (COMMIT) only when the new one serves. */
static void test_only_health_commits(void **state)
{
    (void)state;
    for (int from = 0; from < TG_IN_STATES; from++) {
        for (int ev = 0; ev < TG_INE_EVENTS; ev++) {
            for (unsigned tries = 0; tries <= TG_TRIES_MAX; tries++) {
                enum tg_install_state s = (enum tg_install_state)from;
                uint32_t a = in(&s, (enum tg_install_event)ev, tries);
                bool commits = (a & TG_ACT_COMMIT) != 0;
                assert_int_equal(commits, from == TG_IN_SWITCHING && ev == TG_INE_SERVING);
                assert_int_equal((a & TG_ACT_SERVE) != 0,
                                 from == TG_IN_TRIAL && ev == TG_INE_HEALTHY);
                if (a == 0)
                    assert_int_equal(s, from); /* ignored events move nothing */
                if (a & TG_ACT_SPAWN)
                    assert_int_equal(s, TG_IN_TRIAL);
                if (a & TG_ACT_GIVE_UP)
                    assert_int_equal(s, TG_IN_IDLE);
                if (a & TG_ACT_ARM)
                    assert_true(s == TG_IN_FETCH_WAIT || s == TG_IN_TRIAL_WAIT);
            }
        }
    }
}

static void test_serving_restarts_then_falls_back(void **state)
{
    (void)state;
    enum tg_serving_state s = TG_SV_NONE;
    assert_int_equal(sv(&s, TG_SVE_START, 0, true), TG_ACT_SPAWN);
    assert_int_equal(sv(&s, TG_SVE_HEALTHY, 0, true), TG_ACT_SERVE);
    assert_int_equal(s, TG_SV_SERVING);
    for (unsigned i = 1; i < TG_TRIES_MAX; i++) {
        assert_int_equal(sv(&s, TG_SVE_BROKE, i, true), TG_ACT_KILL | TG_ACT_ARM);
        assert_int_equal(s, TG_SV_WAIT);
        assert_int_equal(sv(&s, TG_SVE_TIMER, i, true), TG_ACT_SPAWN);
        assert_int_equal(sv(&s, TG_SVE_HEALTHY, i, true), TG_ACT_SERVE);
    }
    uint32_t a = sv(&s, TG_SVE_BROKE, TG_TRIES_MAX, true);
    assert_int_equal(a, TG_ACT_KILL | TG_ACT_FALL_BACK | TG_ACT_RESET | TG_ACT_SPAWN);
    assert_int_equal(s, TG_SV_STARTING);
}

static void test_without_another_package_it_keeps_trying(void **state)
{
    (void)state;
    enum tg_serving_state s = TG_SV_STARTING;
    for (unsigned i = 1; i < 100; i++) {
        assert_int_equal(sv(&s, TG_SVE_BROKE, i, false), TG_ACT_KILL | TG_ACT_ARM);
        assert_int_equal(s, TG_SV_WAIT);
        assert_int_equal(sv(&s, TG_SVE_TIMER, i, false), TG_ACT_SPAWN);
        assert_int_equal(s, TG_SV_STARTING);
    }
}

static void test_refused_package_falls_back_at_once(void **state)
{
    (void)state;
    enum tg_serving_state s = TG_SV_SERVING;
    assert_true(sv(&s, TG_SVE_REFUSED, 1, true) & TG_ACT_FALL_BACK);
    assert_int_equal(s, TG_SV_STARTING);
    s = TG_SV_SERVING;
    assert_int_equal(sv(&s, TG_SVE_REFUSED, 1, false), TG_ACT_KILL | TG_ACT_ARM);
    assert_int_equal(s, TG_SV_WAIT);
}

/* A grant that has lapsed says nothing about the package: no number of failures before, and no
 * package to go back to, makes it one to leave. */
static void test_lapsed_grant_is_waited_for(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * (TG_TRIES_MAX + 1); i++) {
        enum tg_serving_state s = TG_SV_STARTING;
        bool back = i % 2;
        assert_int_equal(sv(&s, TG_SVE_LAPSED, i / 2, back), TG_ACT_KILL | TG_ACT_ARM);
        assert_int_equal(s, TG_SV_GRANT);
        for (unsigned look = 0; look < 1000; look++)
            assert_int_equal(sv(&s, TG_SVE_TIMER, i / 2, back), TG_ACT_ARM);
        assert_int_equal(s, TG_SV_GRANT);
        assert_int_equal(sv(&s, TG_SVE_GRANTED, i / 2, back), TG_ACT_RESET | TG_ACT_SPAWN);
        assert_int_equal(s, TG_SV_STARTING);
        assert_int_equal(sv(&s, TG_SVE_HEALTHY, i / 2, back), TG_ACT_SERVE);
    }
    for (int from = 0; from < TG_SV_STATES; from++) { /* nowhere else do the two mean anything */
        enum tg_serving_state s = (enum tg_serving_state)from;
        if (from != TG_SV_STARTING)
            assert_int_equal(sv(&s, TG_SVE_LAPSED, 1, true), 0);
        if (from != TG_SV_GRANT)
            assert_int_equal(sv(&s, TG_SVE_GRANTED, 1, true), 0);
    }
}

/* An update's worker may take over whatever the serving side is doing, and is never killed by it.
 */
static void test_taken_from_every_state(void **state)
{
    (void)state;
    for (int from = 0; from < TG_SV_STATES; from++) {
        enum tg_serving_state s = (enum tg_serving_state)from;
        assert_int_equal(sv(&s, TG_SVE_TAKEN, 2, true), TG_ACT_RESET);
        assert_int_equal(s, TG_SV_SERVING);
    }
}

static void test_backoff(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 200; n++) {
        uint64_t full = n < 10 ? UINT64_C(500) << (n - 1) : 60000;
        if (full > 60000)
            full = 60000;
        for (uint32_t r = 0; r < 2000; r += 37) {
            uint64_t ms = tg_backoff_ms(n, 500, 60000, r);
            assert_in_range(ms, full / 2, full);
        }
    }
    assert_int_equal(tg_backoff_ms(1, 1000, 1000, 500), 1000);
    assert_int_equal(tg_backoff_ms(1, 1000, 1000, 0), 500);
}

static void test_poll_jitter(void **state)
{
    (void)state;
    uint64_t low = UINT64_MAX, high = 0;
    for (uint32_t r = 0; r < 100000; r++) {
        uint64_t ms = tg_poll_ms(60, r);
        assert_in_range(ms, 48000, 72000);
        low = ms < low ? ms : low;
        high = ms > high ? ms : high;
    }
    assert_int_equal(low, 48000);
    assert_int_equal(high, 72000);
    assert_int_equal(tg_poll_ms(0, 7), 0);
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < TG_IN_STATES; i++)
        assert_string_not_equal(tg_install_state_name((enum tg_install_state)i), "?");
    for (int i = 0; i < TG_SV_STATES; i++)
        assert_string_not_equal(tg_serving_state_name((enum tg_serving_state)i), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update_that_works),
        cmocka_unit_test(test_worker_that_dies_before_it_serves),
        cmocka_unit_test(test_breaks_of_the_download_never_end_it),
        cmocka_unit_test(test_refused_package_never_starts_a_worker),
        cmocka_unit_test(test_trial_is_tried_three_times),
        cmocka_unit_test(test_trial_without_a_grant_goes_back_for_one),
        cmocka_unit_test(test_tries_count_across_restarts),
        cmocka_unit_test(test_worker_that_refuses_is_not_asked_again),
        cmocka_unit_test(test_withdrawn_from_every_state),
        cmocka_unit_test(test_only_health_commits),
        cmocka_unit_test(test_serving_restarts_then_falls_back),
        cmocka_unit_test(test_without_another_package_it_keeps_trying),
        cmocka_unit_test(test_refused_package_falls_back_at_once),
        cmocka_unit_test(test_lapsed_grant_is_waited_for),
        cmocka_unit_test(test_taken_from_every_state),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_poll_jitter),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("agent/machine", tests, NULL, NULL);
}
