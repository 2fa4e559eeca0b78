/* Request targets: what is taken has the properties net/http.h promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int ok)
{
    if (!ok)
        abort();
}

static int clean(const char *s)
{
    for (const char *p = s; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return 0;
    return tg_utf8_ok(tg_bytes_str(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_http_target t = TG_HTTP_TARGET_INIT, again = TG_HTTP_TARGET_INIT;
    struct tg_buf b = TG_BUF_INIT(1 << 20);
    struct tg_err err = TG_ERR_INIT;

    if (tg_http_target_parse(tg_bytes_make(data, n), &t, &err) != TG_OK) {
        check(err.msg[0] != '\0' && t.mem == NULL);
        return 0;
    }
    check(t.path[0] == '/' && clean(t.path) && strstr(t.path, "//") == NULL);
    check(strstr(t.path, "/../") == NULL && strstr(t.path, "/./") == NULL);
    check(t.args_n <= TG_HTTP_ARGS_MAX);
    check(tg_buf_str(&b, "/?") == TG_OK);
    for (size_t i = 0; i < t.args_n; i++) {
        check(clean(t.args[i].name) && clean(t.args[i].value));
        check(tg_http_encode(&b, t.args[i].name) == TG_OK && tg_buf_u8(&b, '=') == TG_OK &&
              tg_http_encode(&b, t.args[i].value) == TG_OK && tg_buf_u8(&b, '&') == TG_OK);
    }
    /* Encoded and read again, the arguments are the same. */
    if (tg_http_target_parse(tg_buf_view(&b), &again, &err) == TG_OK) {
        check(again.args_n == t.args_n);
        for (size_t i = 0; i < t.args_n; i++)
            check(strcmp(again.args[i].name, t.args[i].name) == 0 &&
                  strcmp(again.args[i].value, t.args[i].value) == 0);
    } else {
        check(b.n > TG_HTTP_TARGET_MAX);
    }
    tg_http_target_done(&t);
    tg_http_target_done(&again);
    tg_buf_done(&b);
    return 0;
}
