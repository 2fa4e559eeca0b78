/* One form for every program's failures, whatever is in the words and however little memory. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/mem.h"
#include "codec/complain.h"

static struct tg_err err;

static void members(const char *expected)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(65536);

    assert_ok(tg_complain_members(&err, &b));
    assert_string_equal(tg_buf_cstr(&b), expected);
    assert_true(tg_utf8_ok(tg_buf_view(&b)));
}

static void words_are_kept_and_always_json(void **state)
{
    char line[TG_ERR_MAX];

    (void)state;
    tg_err_set(&err, TG_E_AUTH, "naïve \"%s\": no", "a\nb");
    members("\"error\":\"AUTH\",\"exit\":5,\"message\":\"naïve \\\"a\\nb\\\": no\"");
    tg_err_set(&err, TG_E_NOTFOUND, "%s: gone", "\xff\x1b");
    members("\"error\":\"NOTFOUND\",\"exit\":3,\"message\":\"\\\\xff\\\\x1b: gone\"");
    tg_err_set(&err, TG_E_LIMIT, "%s", "");
    members("\"error\":\"LIMIT\",\"exit\":10,\"message\":\"over a limit\"");
    /* cut within a character */
    memset(line, 'a', sizeof(line));
    memcpy(line + sizeof(line) - 3, "\xe2\x82", 3);
    tg_err_set(&err, TG_E_IO, "%s", line);
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(65536);
    assert_ok(tg_complain_members(&err, &b));
    assert_non_null(strstr(tg_buf_cstr(&b), "aa\\\\xe2\\\\x82\""));
    /* the longest there are: bytes that are escaped, and the escapes again */
    memset(line, 0xff, sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    tg_err_set(&err, TG_E_IO, "%s", line);
    tg_buf_clear(&b);
    assert_ok(tg_complain_members(&err, &b));
}

/* What a call writes to standard output, which belongs to the test's own report. */
static void said(char out[512])
{
    int pair[2], kept = dup(STDOUT_FILENO);
    ssize_t n;

    assert_int_equal(pipe(pair), 0);
    assert_int_equal(fflush(stdout), 0);
    assert_int_equal(dup2(pair[1], STDOUT_FILENO), STDOUT_FILENO);
    tg_complain_json(&err);
    assert_int_equal(dup2(kept, STDOUT_FILENO), STDOUT_FILENO);
    n = read(pair[0], out, 511);
    assert_true(n > 0);
    out[n] = '\0';
    (void)close(kept);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void an_object_comes_without_memory(void **state)
{
    char line[512];

    (void)state;
    tg_err_set(&err, TG_E_FORMAT, "m.tgsp: no package");
    said(line);
    assert_string_equal(line,
                        "{\"error\":\"FORMAT\",\"exit\":4,\"message\":\"m.tgsp: no package\"}\n");
    tg_mem_fault_set(1, 1);
    said(line);
    tg_mem_fault_set(0, 0);
    assert_string_equal(line, "{\"error\":\"FORMAT\",\"exit\":4,\"message\":\"malformed\"}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_kept_and_always_json),
        cmocka_unit_test(an_object_comes_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
