#include <string.h>
#include <time.h>

#include "../tg_cmocka.h"
#include "base/clock.h"

static struct tg_err err;

/* Against the C library's own calendar, which nobody here wrote. */
static void agrees_with_gmtime_over_eight_thousand_years(void **state)
{
    (void)state;
    for (int64_t t = 0; t <= INT64_C(253402300799); t += 86399 * 37 + 1) {
        char ours[TG_TIME_TEXT], theirs[64];
        time_t tt = (time_t)t;
        struct tm tm;
        int64_t back = -1;

        assert_non_null(gmtime_r(&tt, &tm));
        strftime(theirs, sizeof(theirs), "%Y-%m-%dT%H:%M:%SZ", &tm);
        assert_ok(tg_time_format(t, ours));
        assert_string_equal(ours, theirs);
        assert_ok(tg_time_parse(ours, strlen(ours), &back));
        assert_true(back == t);
    }
}

static void refuses_what_is_no_time(void **state)
{
    static const char *const bad[] = {"2026-02-29T00:00:00Z",
                                      "2026-13-01T00:00:00Z",
                                      "2026-00-01T00:00:00Z",
                                      "2026-01-00T00:00:00Z",
                                      "2026-01-32T00:00:00Z",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:60:00Z",
                                      "2026-01-01T00:00:60Z",
                                      "2026-01-01 00:00:00Z",
                                      "2026-01-01T00:00:00",
                                      "2026-01-01T00:00:00+0000",
                                      "1969-12-31T23:59:59Z",
                                      "2026-1-01T00:00:00Z",
                                      "2100-02-29T00:00:00Z",
                                      "+026-01-01T00:00:00Z",
                                      "2026-01-01t00:00:00z",
                                      "",
                                      "2026-01-01T00:00:00.0Z"};
    int64_t t = 77;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_time_parse(bad[i], strlen(bad[i]), &t), TG_E_FORMAT);
    assert_true(t == 77);
    assert_ok(tg_time_parse("2000-02-29T23:59:59Z", 20, &t));
}

static void formats_only_four_digit_years(void **state)
{
    char out[TG_TIME_TEXT] = "same";

    (void)state;
    assert_rc(tg_time_format(-1, out), TG_E_LIMIT);
    assert_rc(tg_time_format(INT64_C(253402300800), out), TG_E_LIMIT);
    assert_string_equal(out, "same");
}

static void monotonic_clock_moves_forward(void **state)
{
    uint64_t a = tg_clock_mono_ns();

    (void)state;
    tg_clock_sleep_ms(2);
    assert_true(tg_clock_mono_ns() - a >= 2000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_gmtime_over_eight_thousand_years),
        cmocka_unit_test(refuses_what_is_no_time),
        cmocka_unit_test(formats_only_four_digit_years),
        cmocka_unit_test(monotonic_clock_moves_forward),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
