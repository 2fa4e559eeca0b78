/* Range, Content-Range and entity tags. The first 8 bytes are the size; the rest is the header. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "net/http_range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void range(const char *text, uint64_t size)
{
    struct tg_range r = tg_range_decide(text, NULL, "\"a\"", size);
    char content[TG_RANGE_TEXT];
    uint64_t off, len, total;

    tg_range_format_content(&r, size, content);
    if (r.kind == TG_RANGE_PART) {
        check(r.len > 0 && r.off < size && r.len <= size - r.off);
        /* Beyond 10^18 - 1 our own reader of Content-Range takes nothing. */
        if (size < UINT64_C(1000000000000000000))
            check(tg_content_range_parse(content, &off, &len, &total) == TG_OK && off == r.off &&
                  len == r.len && total == size);
    } else if (r.kind == TG_RANGE_NONE) {
        check(r.off == 0 && r.len == size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_buf b = TG_BUF_INIT(1 << 20);
    uint64_t off, len, total;
    const char *text;

    if (n < 8 || n > 65536 || memchr(data + 8, 0, n - 8) != NULL)
        return 0;
    check(tg_buf_append(&b, data + 8, n - 8) == TG_OK);
    text = tg_buf_cstr(&b);
    range(text, tg_get_be64(data));
    if (tg_content_range_parse(text, &off, &len, &total) == TG_OK)
        check(len > 0 && off < total && len <= total - off);
    if (tg_etag_ok(text))
        check(tg_etag_in(text, text) && tg_etag_in_strong(text, text));
    if (tg_etag_in_strong(text, "\"a\""))
        check(tg_etag_in(text, "\"a\""));
    tg_buf_done(&b);
    return 0;
}
