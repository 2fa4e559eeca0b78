#include <string.h>

#include "../tg_cmocka.h"
#include "base/mem.h"
#include "base/opt.h"

static struct tg_err err;

struct opts {
    bool json;
    const char *out;
    uint64_t n;
    struct tg_opt_list trust;
};

static const struct tg_opt rows[] = {
    {"json",      TG_OPT_FLAG, offsetof(struct opts, json),                false,                 NULL,               "print JSON"},
    {"out",           TG_OPT_STR,                  offsetof(struct opts,                  out), true, "FILE",               "where to"},
    {"threshold", TG_OPT_U64,            offsetof(struct opts,                      n),                                false,                      "N",   "how many"},
    {"trust",        TG_OPT_LIST,         offsetof(struct opts,                             trust),                                           false,                         "PUB",             "whom"},
    {NULL,      TG_OPT_END,            0,                          false,    NULL,NULL},
};

static const struct tg_cmd cmd = {
    .name = "open", .args = "FILE", .summary = "Open.", .opts = rows, .args_min = 1, .args_max = 2};

struct run {
    struct opts o;
    struct tg_opt_list args;
    bool help;
};

static enum tg_rc parse(struct run *r, char *line)
{
    char *argv[32];
    int argc = 0;

    memset(r, 0, sizeof(*r));
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    return tg_opt_parse(&cmd, argc, argv, &r->o, &r->args, &r->help, &err);
}

static void options_and_arguments_in_any_order(void **state)
{
    char line[] = "a --trust x --out=o --json b --trust=y --threshold 2";
    struct run r;

    (void)state;
    assert_ok(parse(&r, line));
    assert_true(r.o.json);
    assert_string_equal(r.o.out, "o");
    assert_true(r.o.n == 2);
    assert_int_equal(r.o.trust.n, 2);
    assert_string_equal(r.o.trust.v[1], "y");
    assert_int_equal(r.args.n, 2);
    assert_string_equal(r.args.v[1], "b");
    assert_false(r.help);
    tg_opt_done(&cmd, &r.o, &r.args);
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"a --nope",                "--nope"               },
        {"a",                       "--out is required"    },
        {"--out o",                 "FILE"                 },
        {"--out o a b c",           "'c'"                  },
        {"--out o --out p a",       "--out is given twice" },
        {"a --out",                 "--out needs a value"  },
        {"a --out o --json=1",      "--json takes no value"},
        {"a --out o --threshold x", "--threshold: 'x'"     },
        {"a --out o -x",            "-x"                   },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(cases); i++) {
        char line[64];
        struct run r;

        strcpy(line, cases[i].line);
        assert_rc(parse(&r, line), TG_E_USAGE);
        assert_contains(err.msg, cases[i].says);
        tg_opt_done(&cmd, &r.o, &r.args);
    }
}

static void help_needs_nothing_else_and_dashes_end_options(void **state)
{
    char help[] = "--help", dashes[] = "--out o -- --json";
    struct run r;

    (void)state;
    assert_ok(parse(&r, help));
    assert_true(r.help);
    tg_opt_done(&cmd, &r.o, &r.args);
    assert_ok(parse(&r, dashes));
    assert_false(r.o.json);
    assert_string_equal(r.args.v[0], "--json");
    tg_opt_done(&cmd, &r.o, &r.args);
}

static void a_flag_is_found_in_any_command_line(void **state)
{
    char line[] = "frobnicate --jso --json=1 json --json -- --late";
    char *words[8];
    int n = 0;

    (void)state;
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
        words[n++] = word;
    assert_true(tg_opt_given(n, words, "json"));
    assert_false(tg_opt_given(4, words, "json"));
    assert_false(tg_opt_given(0, NULL, "json"));
    assert_false(tg_opt_given(n, words, "late"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_in_any_order),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(help_needs_nothing_else_and_dashes_end_options),
        cmocka_unit_test(a_flag_is_found_in_any_command_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
