/* Values as people write them. */
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "cli/config.h"
#include "cli/keys.h"
#include "cli/package.h"

#define NOW INT64_C(1700000000) /* 2023-11-14T22:13:20Z */

static void times(void **state)
{
    static const struct {
        const char *text;
        int64_t t;
    } rows[] = {
        {"2023-11-14T22:13:20Z", NOW              },
        {"2023-11-14",           1699920000       },
        {"+0s",                  NOW              },
        {"+90s",                 NOW + 90         },
        {"+5m",                  NOW + 300        },
        {"+2h",                  NOW + 7200       },
        {"+365d",                NOW + 365 * 86400},
        {"2024-02-29",           1709164800       },
        {"1970-01-01",           0                },
    };

    static const char *const bad[] = {"",
                                      "now",
                                      "+",
                                      "+d",
                                      "+1",
                                      "+1w",
                                      "+-1d",
                                      "+99999999d",
                                      "2023-02-29",
                                      "2023-1-1",
                                      "2023-11-14 22:13:20",
                                      "+1.5h",
                                      "+ 1h",
                                      "2023-11-14T22:13:20"};
    struct tg_err err = TG_ERR_INIT;
    int64_t t = 0;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        assert_ok(cli_time_parse("--x", rows[i].text, NOW, &t, &err));
        assert_int_equal(t, rows[i].t);
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        assert_int_equal(cli_time_parse("--x", bad[i], NOW, &t, &err), TG_E_USAGE);
        assert_non_null(strstr(err.msg, "--x"));
    }
}

static void numbers(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    uint64_t n = 7;

    (void)state;
    assert_ok(cli_number_parse("--n", "16", 16, &n, &err));
    assert_int_equal(n, 16);
    assert_int_equal(cli_number_parse("--n", "17", 16, &n, &err), TG_E_USAGE);
    assert_int_equal(cli_number_parse("--n", "-1", 16, &n, &err), TG_E_USAGE);
    assert_int_equal(cli_number_parse("--n", "0x1", 16, &n, &err), TG_E_USAGE);
    assert_int_equal(n, 16);
}

static void folders(void **state)
{
    static const char *const rows[][2] = {
        {"a",                   "."     },
        {"a/b",                 "a"     },
        {"/a",                  "/"     },
        {"./keys/signing.priv", "./keys"},
        {"a/b/",                "a/b"   }
    };
    struct tg_err err = TG_ERR_INIT;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        TG_AUTO(tg_freep) char *dir = cli_dir_of(rows[i][0]);
        assert_string_equal(dir, rows[i][1]);
    }
    TG_AUTO(tg_freep) char *one = NULL;
    TG_AUTO(tg_freep) char *two = NULL;
    TG_AUTO(tg_freep) char *three = NULL;
    assert_ok(cli_config_dir("given", &one, &err));
    assert_string_equal(one, "given");
    assert_int_equal(setenv("XDG_CONFIG_HOME", "/x", 1), 0);
    assert_ok(cli_config_dir(NULL, &two, &err));
    assert_string_equal(two, "/x/tensorguard");
    assert_int_equal(setenv("XDG_CONFIG_HOME", "relative", 1),
                     0); /* to be ignored, says its spec */
    assert_int_equal(setenv("HOME", "/h", 1), 0);
    assert_ok(cli_config_dir(NULL, &three, &err));
    assert_string_equal(three, "/h/.config/tensorguard");
    TG_AUTO(tg_freep) char *none = NULL;
    assert_int_equal(unsetenv("HOME"), 0);
    assert_int_equal(cli_config_dir(NULL, &none, &err), TG_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),
        cmocka_unit_test(numbers),
        cmocka_unit_test(folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
