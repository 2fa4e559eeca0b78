/* The author's list of devices' keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "cli/pins.h"

#define D1 "00112233445566778899aabbccddeeff"
#define D2 "ffeeddccbbaa99887766554433221100"
#define K1 "0123456789abcdef0123456789abcdef"

static char path[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof(path), "/tmp/tg-pins-XXXXXX");
    int fd = mkstemp(path);
    if (fd >= 0)
        (void)close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static enum tg_rc load(const char *text, struct cli_pins *pins, struct tg_err *why)
{
    struct tg_err err = TG_ERR_INIT;

    assert_ok(tg_file_write(path, tg_bytes_str(text), 0600, true, &err));
    return cli_pins_load(path, pins, why);
}

static void lines_are_read(void **state)
{
    struct cli_pins pins = {0};
    struct tg_err err = TG_ERR_INIT;

    (void)state;
    assert_ok(
        load("# devices\n\n" D1 " " K1 "\r\n  " D2 "\t" K1 "   the one in hall 3\n", &pins, &err));
    assert_int_equal(pins.n, 2);
    assert_int_equal(cli_pins_find(&pins, D1)->kem_key_id[1], 0x23);
    assert_non_null(cli_pins_find(&pins, D2));
    assert_null(cli_pins_find(&pins, K1));
    cli_pins_done(&pins);
    assert_ok(load("", &pins, &err));
    assert_int_equal(pins.n, 0);
    cli_pins_done(&pins);
}

static void anything_else_is_refused_with_its_line(void **state)
{
    static const char *const bad[] = {
        "x\n",
        D1 "\n",
        D1 " \n",
        D1 K1 "\n",
        D1 " " K1 "0\n",
        D1 " 0123456789ABCDEF0123456789abcdef\n",
        D1 " " K1 "\n" D1 " " K1 "\n",
        "\n" D1 " 0123\n",
    };
    struct cli_pins pins = {0};
    struct tg_err err = TG_ERR_INIT;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        assert_int_equal(load(bad[i], &pins, &err), TG_E_FORMAT);
        assert_non_null(strstr(err.msg, "line"));
        assert_int_equal(pins.n, 0);
    }
}

static void adding_keeps_what_is_there(void **state)
{
    struct cli_pins pins = {0};
    struct tg_err err = TG_ERR_INIT;
    struct cli_pin more = {.device = D2, .kem_key_id = {0xab}};
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(4096);

    (void)state;
    assert_ok(load("# mine, without a line's end: " D1, &pins, &err));
    cli_pins_done(&pins);
    assert_ok(cli_pins_add(path, &more, 1, &err));
    assert_ok(tg_file_read(path, &text, &err));
    assert_string_equal(tg_buf_cstr(&text), "# mine, without a line's end: " D1 "\n" D2
                                            " ab000000000000000000000000000000\n");
    assert_int_equal(unlink(path), 0);
    assert_ok(cli_pins_add(path, &more, 1, &err));
    assert_ok(cli_pins_load(path, &pins, &err));
    assert_int_equal(cli_pins_find(&pins, D2)->kem_key_id[0], 0xab);
    cli_pins_done(&pins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(anything_else_is_refused_with_its_line),
        cmocka_unit_test(adding_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
