/* Path rules, against a plain quadratic model of them. */
#include "../tg_cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tgsp/path.h"

static void test_single(void **state)
{
    static const struct {
        const char *path;
        const char *fault; /* NULL: fine */
    } rows[] = {
        {"a",                       NULL           },
        {"a/b/c",                   NULL           },
        {"größe/Modell (1).onnx", NULL           },
        {"...",                     NULL           },
        {".hidden",                 NULL           },
        {"a b",                     NULL           },
        {"",                        "1 to 1024"    },
        {"/a",                      "empty segment"},
        {"a/",                      "empty segment"},
        {"a//b",                    "empty segment"},
        {".",                       "'.' or '..'"  },
        {"..",                      "'.' or '..'"  },
        {"a/../b",                  "'.' or '..'"  },
        {"a/.",                     "'.' or '..'"  },
        {"a\\b",                    "backslash"    },
        {"a\tb",                    "control"      },
        {"a\x7f",                   "control"      },
        {"\xc3",                    "UTF-8"        },
        {"\xc0\xaf",                "UTF-8"        },
        {"\xed\xa0\x80",            "UTF-8"        },
        {"\xf4\x90\x80\x80",        "UTF-8"        },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_err err = TG_ERR_INIT;
        enum tg_rc rc = tg_tgsp_path_check(tg_bytes_str(rows[i].path), &err);
        assert_int_equal(rc, rows[i].fault ? TG_E_FORMAT : TG_OK);
        if (rows[i].fault)
            assert_contains(err.msg, rows[i].fault);
    }
    struct tg_err err = TG_ERR_INIT;
    assert_rc(tg_tgsp_path_check(tg_bytes_make("a\0b", 3), &err), TG_E_FORMAT);
}

static void test_lengths(void **state)
{
    char p[1100];
    struct tg_err err = TG_ERR_INIT;
    (void)state;
    memset(p, 'a', sizeof p);
    assert_rc(tg_tgsp_path_check(tg_bytes_make(p, 255), &err), TG_OK);
    assert_rc(tg_tgsp_path_check(tg_bytes_make(p, 256), &err), TG_E_FORMAT);
    for (size_t i = 200; i < sizeof p; i += 201)
        p[i] = '/';
    assert_rc(tg_tgsp_path_check(tg_bytes_make(p, 1024), &err), TG_OK);
    assert_rc(tg_tgsp_path_check(tg_bytes_make(p, 1025), &err), TG_E_FORMAT);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The rule as the spec says it, pair by pair. */
static bool model_ok(const char *const *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(v[i - 1], v[i]) >= 0)
            return false;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            size_t len = strlen(v[i]), m = 0;
            while (m < len && lower(v[i][m]) == lower(v[k][m]))
                m++;
            if (i != k && m == len && (v[k][m] == '\0' || v[k][m] == '/'))
                return false;
        }
    return true;
}

static int by_strcmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Short paths over a tiny alphabet collide often: both answers come up thousands of times. */
static void test_against_model(void **state)
{
    static const char *const alphabet[] = {"a", "A", "b", "/", "-", "0"};
    uint32_t x = 12345;
    size_t accepted = 0, refused = 0;
    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        char text[6][16];
        const char *v[6];
        size_t n = 1 + round % 5, kept = 0;
        for (size_t i = 0; i < n; i++) {
            text[i][0] = '\0';
            x = x * 1664525U + 1013904223U;
            size_t len = 1 + (x >> 28) % 4;
            for (size_t k = 0; k < len; k++) {
                x = x * 1664525U + 1013904223U;
                strcat(text[i], alphabet[(x >> 24) % 6]);
            }
            if (tg_tgsp_path_check(tg_bytes_str(text[i]), NULL) == TG_OK)
                v[kept++] = text[i];
        }
        qsort(v, kept, sizeof *v, by_strcmp);
        bool want = model_ok(v, kept);
        bool got = tg_tgsp_paths_check(v, kept, NULL) == TG_OK;
        if (want != got)
            fail_msg("round %u: %s %s...", round, kept ? v[0] : "", kept > 1 ? v[1] : "");
        accepted += got;
        refused += !got;
    }
    assert_true(accepted > 1000 && refused > 1000);
}

static void test_reserved_and_show(void **state)
{
    char out[64];
    (void)state;
    assert_true(tg_tgsp_path_reserved(".tensorguard"));
    assert_true(tg_tgsp_path_reserved(".TensorGuard/x"));
    assert_false(tg_tgsp_path_reserved(".tensorguards"));
    assert_false(tg_tgsp_path_reserved("a/.tensorguard"));
    tg_tgsp_path_show(tg_bytes_str("a\n\xff"), out, sizeof out);
    assert_string_equal(out, "a\\x0a\\xff");
    tg_tgsp_path_show(tg_bytes_str("größe"), out, sizeof out);
    assert_string_equal(out, "größe");
    tg_tgsp_path_show(tg_bytes_str("abcdefgh"), out, 8);
    assert_true(strlen(out) < 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_reserved_and_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
