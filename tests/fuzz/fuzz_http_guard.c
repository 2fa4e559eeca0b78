/* Heads of requests: one that passes, written anew in the plainest form, passes again and means the
 * same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http_guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_http_head head = {0}, again = {0};
    struct tg_buf b = TG_BUF_INIT(1 << 20);
    const char *why = NULL;
    unsigned status = tg_http_guard_check(tg_bytes_make(data, n), 64, &head, &why);

    if (status != 0) {
        check(status >= 400 && status < 600 && why != NULL && head.target.p == NULL);
        return 0;
    }
    check(n >= 4 && data[n - 1] == '\n' && data[n - 2] == '\r' && memchr(data, 0, n) == NULL);
    check(head.target.n > 0 && head.target.p[0] == '/');
    check(tg_buf_printf(&b, "%s ", tg_http_method_name(head.method)) == TG_OK &&
          tg_buf_bytes(&b, head.target) == TG_OK &&
          tg_buf_printf(&b, " HTTP/1.1\r\nHost: x\r\nContent-Length: %llu\r\n\r\n",
                        (unsigned long long)head.body) == TG_OK);
    check(tg_http_guard_check(tg_buf_view(&b), 64, &again, &why) == 0);
    check(again.method == head.method && again.body == head.body &&
          tg_bytes_eq(again.target, head.target));
    tg_buf_done(&b);
    return 0;
}
