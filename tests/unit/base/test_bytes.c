#include <string.h>

#include "../tg_cmocka.h"
#include "base/bytes.h"
#include "base/mem.h"

static struct tg_err err;

static void buffer_grows_to_its_maximum_and_no_further(void **state)
{
    struct tg_buf b = TG_BUF_INIT(100);

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_ok(tg_buf_u8(&b, (uint8_t)i));
    assert_rc(tg_buf_u8(&b, 1), TG_E_LIMIT);
    assert_int_equal(b.n, 100);
    assert_int_equal(b.data[99], 99);
    assert_int_equal(b.data[100], 0);
    tg_buf_done(&b);
    assert_null(b.data);
}

static void secret_buffer_moves_without_leaving_a_copy(void **state)
{
    struct tg_buf b = TG_BUF_SECRET(4096);

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_ok(tg_buf_append(&b, "key!", 4));
    assert_int_equal(b.n, 4000);
    for (int i = 0; i < 1000; i++)
        assert_memory_equal(b.data + 4 * i, "key!", 4);
    tg_buf_clear(&b);
    for (size_t i = 0; i < b.cap; i++)
        assert_int_equal(b.data[i], 0);
    tg_buf_done(&b);
}

static void buffer_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth < 8; nth++) {
        struct tg_buf b = TG_BUF_INIT(1 << 20);
        size_t before = 0;
        enum tg_rc rc = TG_OK;

        tg_mem_fault_set(nth, 0);
        for (int i = 0; i < 2000 && rc == TG_OK; i++) {
            before = b.n;
            rc = tg_buf_append(&b, "0123456789", 10);
        }
        tg_mem_fault_set(0, 0);
        if (rc != TG_OK) {
            assert_rc(rc, TG_E_NOMEM);
            assert_int_equal(b.n, before);
        }
        tg_buf_done(&b);
    }
}

static void reader_stops_at_the_end_and_does_not_move(void **state)
{
    static const uint8_t raw[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
    struct tg_rd r = tg_rd_init(TG_BYTES_OF(raw));
    struct tg_bytes b;
    uint32_t v32;
    uint64_t v64;
    uint8_t v8;

    (void)state;
    assert_ok(tg_rd_be32(&r, &v32));
    assert_int_equal(v32, 0x01020304);
    assert_ok(tg_rd_be64(&r, &v64));
    assert_true(v64 == UINT64_C(0x05060708090a0b0c));
    assert_rc(tg_rd_be32(&r, &v32), TG_E_FORMAT);
    assert_int_equal(r.off, 12);
    assert_rc(tg_rd_bytes(&r, SIZE_MAX, &b), TG_E_FORMAT);
    assert_ok(tg_rd_u8(&r, &v8));
    assert_int_equal(v8, 13);
    assert_rc(tg_rd_u8(&r, &v8), TG_E_FORMAT);
}

static void big_endian_round_trips(void **state)
{
    uint8_t raw[8];

    (void)state;
    tg_put_be64(raw, UINT64_C(0xfedcba9876543210));
    assert_int_equal(raw[0], 0xfe);
    assert_true(tg_get_be64(raw) == UINT64_C(0xfedcba9876543210));
    tg_put_be32(raw, 0x89abcdef);
    assert_true(tg_get_be32(raw) == 0x89abcdef);
}

static void sub_views_are_clamped(void **state)
{
    struct tg_bytes b = tg_bytes_str("abcdef");

    (void)state;
    assert_true(tg_bytes_eq(tg_bytes_sub(b, 2, 3), tg_bytes_str("cde")));
    assert_int_equal(tg_bytes_cmp(tg_bytes_str("cde"), tg_bytes_str("cde")), 0);
    assert_true(tg_bytes_cmp(tg_bytes_str("cd"), tg_bytes_str("cde")) < 0);
    assert_true(tg_bytes_cmp(tg_bytes_str("cf"), tg_bytes_str("cde")) > 0);
    assert_true(tg_bytes_cmp(TG_BYTES_NONE, tg_bytes_str("a")) < 0);
    assert_true(tg_mem_eq("abcx", "abcy", 3));
    assert_false(tg_mem_eq("abcx", "abcy", 4));
    assert_true(tg_mem_eq(NULL, "x", 0));
    assert_int_equal(tg_bytes_sub(b, 4, SIZE_MAX).n, 2);
    assert_int_equal(tg_bytes_sub(b, 7, 1).n, 0);
}

static void arithmetic_says_when_it_overflows(void **state)
{
    uint64_t v = 7;
    size_t s = 7;

    (void)state;
    assert_true(tg_add_u64(UINT64_MAX - 1, 1, &v) && v == UINT64_MAX);
    assert_false(tg_add_u64(UINT64_MAX, 1, &v));
    assert_true(v == UINT64_MAX);
    assert_false(tg_mul_u64(UINT64_C(1) << 33, UINT64_C(1) << 31, &v));
    assert_false(tg_add_size(SIZE_MAX, 1, &s));
    assert_false(tg_mul_size(SIZE_MAX, 2, &s));
    assert_int_equal(s, 7);
}

static void utf8_is_strict(void **state)
{
    static const char *const good[] = {"",
                                       "abc",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\xa4\x96",
                                       "\xef\xbf\xbf",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\xaf",
                                      "\xc1\x81",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xc3",
                                      "\xe2\x82",
                                      "\xf0\x9f\xa4",
                                      "a\xff"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(good); i++)
        assert_true(tg_utf8_ok(tg_bytes_str(good[i])));
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_false(tg_utf8_ok(tg_bytes_str(bad[i])));
}

static void numbers_have_one_text(void **state)
{
    static const char *const bad[] = {"", "-1", "+1", "01", "00", " 1", "1 ", "1e3", "0x10", "1.0"};
    uint64_t v = 5;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_parse_u64(bad[i], UINT64_MAX, &v), TG_E_FORMAT);
    assert_rc(tg_parse_u64("18446744073709551616", UINT64_MAX, &v), TG_E_LIMIT);
    assert_rc(tg_parse_u64("101", 100, &v), TG_E_LIMIT);
    assert_true(v == 5);
    assert_ok(tg_parse_u64("18446744073709551615", UINT64_MAX, &v));
    assert_true(v == UINT64_MAX);
    assert_ok(tg_parse_u64("0", 0, &v));
    assert_true(v == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_to_its_maximum_and_no_further),
        cmocka_unit_test(secret_buffer_moves_without_leaving_a_copy),
        cmocka_unit_test(buffer_survives_every_failed_allocation),
        cmocka_unit_test(reader_stops_at_the_end_and_does_not_move),
        cmocka_unit_test(big_endian_round_trips),
        cmocka_unit_test(sub_views_are_clamped),
        cmocka_unit_test(arithmetic_says_when_it_overflows),
        cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(numbers_have_one_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
