/* What the command line reads from people's files and shows on their terminals: pins and escaped
 * text. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cli/package.h"
#include "cli/pins.h"
#include "codec/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pins(const uint8_t *data, size_t size)
{
    struct cli_pins p = {0};

    if (cli_pins_parse(tg_bytes_make(data, size), "pins", &p, NULL) == TG_OK)
        for (size_t i = 0; i < p.n; i++)
            if (strlen(p.v[i].device) != 32 || cli_pins_find(&p, p.v[i].device) != &p.v[i])
                __builtin_trap();
    cli_pins_done(&p);
}

static void escaped(const uint8_t *data, size_t size)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(8 * size + 8);

    if (tg_text_escape(&b, tg_bytes_make(data, size)) != TG_OK)
        __builtin_trap();
    if (!tg_utf8_ok(tg_buf_view(&b)))
        __builtin_trap();
    for (size_t i = 0; i < b.n; i++)
        if (b.data[i] < 0x20 || b.data[i] == 0x7f)
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[64] = {0};
    int64_t t = 0;

    pins(data, size);
    escaped(data, size);
    memcpy(text, data, size < sizeof(text) - 1 ? size : sizeof(text) - 1);
    (void)!cli_time_parse("--x", text, 0, &t, NULL);
    return 0;
}
