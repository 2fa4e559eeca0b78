#include <errno.h>
#include <string.h>

#include "../tg_cmocka.h"

static void every_code_has_a_name_and_back(void **state)
{
    (void)state;
    for (int i = 0; i < TG_RC_COUNT; i++) {
        const char *name = tg_rc_name((enum tg_rc)i);

        assert_non_null(name);
        assert_int_equal(tg_rc_from_name(name), i);
        assert_true(strlen(tg_rc_text((enum tg_rc)i)) > 1);
        assert_true(tg_rc_http((enum tg_rc)i) >= 200);
    }
    assert_int_equal(tg_rc_from_name("NONESUCH"), TG_RC_COUNT);
}

/* The classes that the command line promises to keep apart (docs/cli.md). */
static void promised_exit_codes_are_distinct(void **state)
{
    static const enum tg_rc kinds[] = {TG_OK,     TG_E_USAGE,     TG_E_IO,      TG_E_FORMAT,
                                       TG_E_AUTH, TG_E_NOTFORKEY, TG_E_EXPIRED, TG_E_DENIED};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(kinds); i++)
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(tg_rc_exit(kinds[i]), tg_rc_exit(kinds[k]));
    assert_int_equal(tg_rc_exit(TG_E_EXPIRED), tg_rc_exit(TG_E_ROLLBACK));
    assert_int_equal(tg_rc_exit(TG_OK), 0);
    for (int i = 1; i < TG_RC_COUNT; i++)
        assert_int_not_equal(tg_rc_exit((enum tg_rc)i), 0);
}

static void wrapping_keeps_the_code_and_puts_words_before(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = TG_FAIL(&err, TG_E_AUTH, "tag of chunk %d is wrong", 7);

    (void)state;
    assert_int_equal(rc, TG_E_AUTH);
    tg_err_wrap(&err, "%s: payload", "m.tgsp");
    assert_int_equal(err.rc, TG_E_AUTH);
    assert_string_equal(err.msg, "m.tgsp: payload: tag of chunk 7 is wrong");
}

static void long_texts_are_cut_not_overrun(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    char big[3000];

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    tg_err_set(&err, TG_E_IO, "%s", big);
    assert_int_equal(strlen(err.msg), TG_ERR_MAX - 1);
    tg_err_wrap(&err, "%s", big);
    assert_true(strlen(err.msg) < TG_ERR_MAX);
    tg_err_wrap(&err, "head");
    assert_memory_equal(err.msg, "head: xxx", 9);
    assert_true(strlen(err.msg) < TG_ERR_MAX);
    tg_err_set(NULL, TG_E_IO, "nobody asked");
    tg_err_wrap(NULL, "nobody asked");
}

static void errno_is_said_in_words(void **state)
{
    struct tg_err err = TG_ERR_INIT;

    (void)state;
    tg_err_errno(&err, TG_E_IO, ENOSPC, "%s: can't write", "f");
    assert_string_equal(err.msg, "f: can't write: No space left on device");
}

/* What is said of bytes is not said when memory was out. */
static void test_verdicts(void **state)
{
    (void)state;
    assert_string_equal(tg_rc_verdict(TG_E_AUTH, "forged"), "forged");
    assert_string_equal(tg_rc_verdict(TG_E_FORMAT, "broken"), "broken");
    assert_string_equal(tg_rc_verdict(TG_E_NOMEM, "forged"), "out of memory");
    assert_string_equal(tg_rc_verdict(TG_E_INTERNAL, "forged"), "internal error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(every_code_has_a_name_and_back),
        cmocka_unit_test(promised_exit_codes_are_distinct),
        cmocka_unit_test(wrapping_keeps_the_code_and_puts_words_before),
        cmocka_unit_test(long_texts_are_cut_not_overrun),
        cmocka_unit_test(errno_is_said_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
