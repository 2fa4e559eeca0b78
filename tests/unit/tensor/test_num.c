#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "tensor/half.h"
#include "tensor/num.h"

static struct tg_err err;

static enum tg_rc scan(const char *s, struct tg_num *n)
{
    return tg_num_scan(tg_bytes_str(s), n);
}

static void grammar_is_that_of_json(void **state)
{
    static const char *const good[] = {
        "0",       "-0",   "1",   "10",  "1.5",
        "-1.5e10", "1E+2", "0.0", "0e0", "123456789012345678901234567890"};
    static const char *const bad[] = {"",    "-",        "+1",        ".5", "01",  "-01",
                                      "1.",  "1.e5",     "1e",        "e5", "1e+", "NaN",
                                      "nan", "Infinity", "-Infinity", "x"};
    struct tg_num n;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(good); i++) {
        assert_ok(scan(good[i], &n));
        assert_int_equal(n.text.n, strlen(good[i]));
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(scan(bad[i], &n), TG_E_FORMAT);
    assert_ok(scan("12,3", &n));
    assert_int_equal(n.text.n, 2);
}

static void length_is_bounded(void **state)
{
    char text[TG_NUM_TEXT_MAX + 3];
    struct tg_num n;

    (void)state;
    memset(text, '1', sizeof(text));
    assert_rc(tg_num_scan(tg_bytes_make(text, TG_NUM_TEXT_MAX + 1), &n), TG_E_LIMIT);
    assert_ok(tg_num_scan(tg_bytes_make(text, TG_NUM_TEXT_MAX), &n));
}

/* Against the C library, which rounds correctly, on random and on awkward numbers. */
static void rounds_as_the_c_library_does(void **state)
{
    static const char *const rows[] = {"0.1",
                                       "16777217",
                                       "16777219",
                                       "9007199254740993",
                                       "0.14117647707462310791015625",
                                       "1.00000005960464477539062500",
                                       "1.00000005960464477539062501",
                                       "3.4028234e38",
                                       "1e-45",
                                       "7e-46",
                                       "1.1754943508222875e-38",
                                       "5e-324",
                                       "2.2250738585072011e-308",
                                       "1e22",
                                       "1e23",
                                       "8.5",
                                       "123456789.987654321",
                                       "1.7976931348623157e308",
                                       "-0.0",
                                       "65504",
                                       "0.33333334"};
    struct tg_num n;
    unsigned seed = 20260131;

    (void)state;
    for (size_t i = 0; i < 200000; i++) {
        char text[64];
        double d = -1;
        float f = -1;

        if (i < TG_ARRAY_LEN(rows)) {
            (void)snprintf(text, sizeof(text), "%s", rows[i]);
        } else {
            uint64_t bits = ((uint64_t)(unsigned)rand_r(&seed) << 33) ^
                            ((uint64_t)(unsigned)rand_r(&seed) << 11) ^ (unsigned)rand_r(&seed);

            (void)snprintf(text, sizeof(text), "%s%.*fe%d", (bits & 1) != 0 ? "-" : "",
                           (int)(bits >> 8 & 15), (double)(bits >> 20) / 1048576.0,
                           (int)(bits >> 12 & 31) - 16);
        }
        assert_ok(scan(text, &n));
        assert_ok(tg_num_f64(&n, &d));
        if (memcmp(&d, &(double){strtod(text, NULL)}, sizeof(d)) != 0)
            fail_msg("%s as double", text);
        if (isfinite(strtof(text, NULL))) {
            assert_ok(tg_num_f32(&n, &f));
            if (memcmp(&f, &(float){strtof(text, NULL)}, sizeof(f)) != 0)
                fail_msg("%s as float", text);
        }
    }
}

static void too_large_is_refused(void **state)
{
    struct tg_num n;
    double d;
    float f;
    uint16_t h;

    (void)state;
    assert_ok(scan("1e309", &n));
    assert_rc(tg_num_f64(&n, &d), TG_E_LIMIT);
    assert_ok(scan("1e999999999999999999999", &n));
    assert_rc(tg_num_f64(&n, &d), TG_E_LIMIT);
    assert_ok(scan("-3.5e38", &n));
    assert_rc(tg_num_f32(&n, &f), TG_E_LIMIT);
    assert_ok(scan("65520", &n));
    assert_rc(tg_num_f16(&n, &h), TG_E_LIMIT);
    assert_ok(scan("65519", &n));
    assert_ok(tg_num_f16(&n, &h));
    assert_int_equal(h, 0x7bff);
}

static void integers_keep_their_range(void **state)
{
    struct tg_num n;
    uint64_t u = 7;
    int64_t i = 7;

    (void)state;
    assert_ok(scan("18446744073709551615", &n));
    assert_ok(tg_num_u64(&n, UINT64_MAX, &u));
    assert_true(u == UINT64_MAX);
    assert_ok(scan("18446744073709551616", &n));
    assert_rc(tg_num_u64(&n, UINT64_MAX, &u), TG_E_LIMIT);
    assert_ok(scan("99999999999999999999", &n));
    assert_rc(tg_num_u64(&n, UINT64_MAX, &u), TG_E_LIMIT);
    assert_ok(scan("256", &n));
    assert_rc(tg_num_u64(&n, 255, &u), TG_E_LIMIT);
    assert_ok(scan("-1", &n));
    assert_rc(tg_num_u64(&n, 255, &u), TG_E_LIMIT);
    assert_ok(scan("1.0", &n));
    assert_rc(tg_num_u64(&n, 255, &u), TG_E_FORMAT);
    assert_ok(scan("1e2", &n));
    assert_rc(tg_num_i64(&n, INT64_MIN, INT64_MAX, &i), TG_E_FORMAT);
    assert_ok(scan("-9223372036854775808", &n));
    assert_ok(tg_num_i64(&n, INT64_MIN, INT64_MAX, &i));
    assert_true(i == INT64_MIN);
    assert_ok(scan("9223372036854775808", &n));
    assert_rc(tg_num_i64(&n, INT64_MIN, INT64_MAX, &i), TG_E_LIMIT);
    assert_ok(scan("-129", &n));
    assert_rc(tg_num_i64(&n, -128, 127, &i), TG_E_LIMIT);
}

/* Every half there is, there and back; and ties go to even. */
static void halves_are_exact(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = tg_half_to_f32((uint16_t)h);

        if (isnan(f))
            assert_true(isnan(tg_half_to_f32(tg_half_from_f64((double)f))));
        else
            assert_int_equal(tg_half_from_f64((double)f), h);
    }
    assert_int_equal(tg_half_from_f64(1.0 + 0x1p-11), 0x3c00);
    assert_int_equal(tg_half_from_f64(1.0 + 0x1p-11 + 0x1p-40), 0x3c01);
    assert_int_equal(tg_half_from_f64(1.0 + 0x3p-11), 0x3c02);
    assert_int_equal(tg_half_from_f64(0x1p-25), 0);
    assert_int_equal(tg_half_from_f64(0x1.8p-25), 1);
    assert_int_equal(tg_half_from_f64(-65520.0), 0xfc00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammar_is_that_of_json),      cmocka_unit_test(length_is_bounded),
        cmocka_unit_test(rounds_as_the_c_library_does), cmocka_unit_test(too_large_is_refused),
        cmocka_unit_test(integers_keep_their_range),    cmocka_unit_test(halves_are_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
