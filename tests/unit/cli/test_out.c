/* One set of calls, two forms of an answer. */
#include <stdio.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "cli/out.h"
#include "codec/json.h"

static struct tg_err err;

static void fill(struct cli_out *o)
{
    const char *two[] = {"a", "b\"c"};

    cli_out_str(o, "name", "name", "x");
    cli_out_str(o, "none", "none", NULL);
    cli_out_u64(o, "n", "number", UINT64_MAX);
    cli_out_size(o, "size", "size", 1536);
    cli_out_bool(o, "yes", "yes", true);
    cli_out_time(o, "when", "when", 1700000000);
    cli_out_time(o, "never", "never", 0);
    cli_out_hex(o, "id", "id", tg_bytes_make("\x00\xff", 2));
    cli_out_strs(o, "list", "list", two, 2);
    cli_out_table(o, "rows", NULL);
    for (int i = 0; i < 3; i++) {
        cli_out_row(o);
        cli_out_str(o, "k", "KEY", i == 1 ? "longer" : "k");
        cli_out_u64(o, "v", "VALUE", (uint64_t)i);
    }
    cli_out_table_end(o, "empty");
    cli_out_table(o, "no_rows", NULL);
    cli_out_table_end(o, "nothing here");
    cli_out_raw(o, "raw", "raw", tg_bytes_str("{\"a\":[1,2]}"));
    cli_out_note(o, "bye");
}

static void json_is_one_valid_object(void **state)
{
    struct cli_out o;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(65536);
    (void)state;
    cli_out_init(&o, true);
    fill(&o);
    assert_int_equal(o.rc, TG_OK);
    assert_ok(tg_buf_printf(&b, "{%s}", tg_buf_cstr(&o.buf)));
    assert_string_equal(
        tg_buf_cstr(&b),
        "{\"name\":\"x\",\"none\":null,\"n\":18446744073709551615,\"size\":1536,\"yes\":true,"
        "\"when\":\"2023-11-14T22:13:20Z\",\"never\":null,\"id\":\"00ff\",\"list\":[\"a\","
        "\"b\\\"c\"],"
        "\"rows\":[{\"k\":\"k\",\"v\":0},{\"k\":\"longer\",\"v\":1},{\"k\":\"k\",\"v\":2}],\"no_"
        "rows\":[],"
        "\"raw\":{\"a\":[1,2]}}");
    cli_out_done(&o);
}

static void text_is_aligned(void **state)
{
    struct cli_out o;

    (void)state;
    cli_out_init(&o, false);
    fill(&o);
    assert_int_equal(o.rc, TG_OK);
    const char *text = tg_buf_cstr(&o.buf);
    assert_non_null(strstr(text, "name                x\n"));
    assert_non_null(strstr(text, "size                1.5 KiB\n"));
    assert_non_null(strstr(text, "KEY     VALUE\nk       0\nlonger  1\nk       2\n"));
    assert_non_null(strstr(text, "nothing here\n"));
    assert_string_equal(tg_buf_cstr(&o.note), "bye\n");
    cli_out_done(&o);
}

static void a_full_memory_is_told_at_the_end(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++)
        for (uint64_t nth = 1; nth < 200; nth++) {
            struct cli_out o;
            tg_mem_fault_set(nth, 1);
            cli_out_init(&o, json == 1);
            fill(&o);
            uint64_t all = tg_mem_fault_count();
            tg_mem_fault_set(0, 0);
            if (all >= nth) {
                assert_int_equal(o.rc, TG_E_NOMEM);
                assert_int_equal(cli_out_print(&o, &err), TG_E_NOMEM);
            } else {
                assert_int_equal(o.rc, TG_OK);
            }
            cli_out_done(&o);
            if (all < nth)
                break;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_one_valid_object),
        cmocka_unit_test(text_is_aligned),
        cmocka_unit_test(a_full_memory_is_told_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
