#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "codec/text.h"

static struct tg_err err;

/* RFC 4648 §10, without the padding. */
static void base64url_published_vectors(void **state)
{
    static const char *const rows[][2] = {
        {"",             ""        },
        {"f",            "Zg"      },
        {"fo",           "Zm8"     },
        {"foo",          "Zm9v"    },
        {"foob",         "Zm9vYg"  },
        {"fooba",        "Zm9vYmE" },
        {"foobar",       "Zm9vYmFy"},
        {"\xfb\xff\xfe", "-__-"    }
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_buf b = TG_BUF_INIT(100);
        uint8_t back[100];
        size_t n = 99;

        assert_ok(tg_b64url_encode(tg_bytes_str(rows[i][0]), &b));
        assert_string_equal(tg_buf_cstr(&b), rows[i][1]);
        assert_int_equal(b.n, tg_b64url_len(strlen(rows[i][0])));
        assert_ok(tg_b64url_decode(tg_buf_view(&b), back, sizeof(back), &n));
        assert_true(tg_bytes_eq(tg_bytes_make(back, n), tg_bytes_str(rows[i][0])));
        tg_buf_done(&b);
    }
}

static void base64url_has_one_form(void **state)
{
    static const char *const bad[] = {
        "Z",    "Zg=",   "Zg==",           "Zh", "Zm9", "Zm8=", "Zm 9v", "Zm9v\n", "+__-",
        "/__-", "Zm9vY", "Zm9v\xc3\xa9xx", "Zn", "Zm!v"};
    uint8_t out[64];
    size_t n = 42;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_b64url_decode(tg_bytes_str(bad[i]), out, sizeof(out), &n), TG_E_FORMAT);
    assert_rc(tg_b64url_decode(tg_bytes_str("Zm9vYmFy"), out, 5, &n), TG_E_LIMIT);
    assert_int_equal(n, 42);
}

/* Every text of up to three characters: what decodes must encode to the same text. */
static void base64url_is_a_bijection(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 1u << 24; v += 7) {
        char text[4] = {(char)(v & 255), (char)(v >> 8 & 255), (char)(v >> 16), 0};
        size_t len = 2 + (v & 1), n;
        uint8_t out[4];
        struct tg_buf b;

        if (tg_b64url_decode(tg_bytes_make(text, len), out, sizeof(out), &n) != TG_OK)
            continue;
        b = TG_BUF_INIT(16);
        assert_ok(tg_b64url_encode(tg_bytes_make(out, n), &b));
        assert_true(tg_bytes_eq(tg_buf_view(&b), tg_bytes_make(text, len)));
        tg_buf_done(&b);
    }
}

static void hex_is_lower_case_and_exact(void **state)
{
    uint8_t raw[3] = {0, 0xab, 0xff}, back[3] = {9, 9, 9};
    char text[7];

    (void)state;
    tg_hex_encode(TG_BYTES_OF(raw), text);
    assert_string_equal(text, "00abff");
    assert_rc(tg_hex_decode(tg_bytes_str("00ABff"), back, 3), TG_E_FORMAT);
    assert_rc(tg_hex_decode(tg_bytes_str("00abf"), back, 3), TG_E_FORMAT);
    assert_rc(tg_hex_decode(tg_bytes_str("00abff0"), back, 3), TG_E_FORMAT);
    assert_rc(tg_hex_decode(tg_bytes_str("00abfg"), back, 3), TG_E_FORMAT);
    assert_int_equal(back[0], 9);
    assert_ok(tg_hex_decode(tg_bytes_str(text), back, 3));
    assert_memory_equal(raw, back, 3);
}

static void pem_blocks_one_after_the_other(void **state)
{
    static const char text[] = "\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
                               "-----BEGIN PUBLIC KEY-----\nBB==\n-----END PUBLIC KEY-----\n\n";
    struct tg_bytes in = tg_bytes_str(text), label, block;

    (void)state;
    assert_ok(tg_pem_next(&in, &label, &block));
    assert_true(tg_bytes_eq(label, tg_bytes_str("PRIVATE KEY")));
    assert_memory_equal(block.p, "-----BEGIN PRIVATE KEY-----\n", 28);
    assert_memory_equal(block.p + block.n - 25, "-----END PRIVATE KEY-----", 25);
    assert_ok(tg_pem_next(&in, &label, &block));
    assert_true(tg_bytes_eq(label, tg_bytes_str("PUBLIC KEY")));
    assert_rc(tg_pem_next(&in, &label, &block), TG_E_NOTFOUND);
}

static void pem_garbage_is_refused(void **state)
{
    static const char *const bad[] = {"x",
                                      "-----BEGIN A-----",
                                      "-----BEGIN A-----\nAA\n-----END B-----\n",
                                      "-----BEGIN A----\nAA\n-----END A-----\n",
                                      "-----END A-----\n",
                                      "-----BEGIN A-----\nAA\n-----END A",
                                      "hello\n-----BEGIN A-----\nAA\n-----END A-----\n"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        struct tg_bytes in = tg_bytes_str(bad[i]), label, block;

        assert_rc(tg_pem_next(&in, &label, &block), TG_E_FORMAT);
    }
}

static void nothing_steers_a_terminal(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain",               "plain"            },
        {"naïve 日本",       "naïve 日本"    },
        {"\x1b[2J",             "\\x1b[2J"         },
        {"a\nb\r\t",            "a\\x0ab\\x0d\\x09"},
        {"\x7f",                "\\x7f"            },
        {"\xc2\x9b"
         "31m",        "\\u009b31m"       }, /* C1 control sequence introducer */
        {"\xe2\x80\xaegnp.exe", "\\u202egnp.exe"   }, /* right-to-left override */
        {"\xe2\x81\xa6x",       "\\u2066x"         }, /* isolate */
        {"\xff\xc3",            "\\xff\\xc3"       }, /* no UTF-8 */
        {"\xe2\x82",            "\\xe2\\x82"       }, /* cut */
        {"\xf0\x9f\xa4\x96",    "\xf0\x9f\xa4\x96" }, /* four bytes */
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1024);
        assert_ok(tg_text_escape(&b, tg_bytes_str(rows[i].in)));
        assert_string_equal(tg_buf_cstr(&b), rows[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64url_published_vectors),
        cmocka_unit_test(base64url_has_one_form),
        cmocka_unit_test(base64url_is_a_bijection),
        cmocka_unit_test(hex_is_lower_case_and_exact),
        cmocka_unit_test(pem_blocks_one_after_the_other),
        cmocka_unit_test(pem_garbage_is_refused),
        cmocka_unit_test(nothing_steers_a_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
