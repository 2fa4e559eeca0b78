/* Messages side by side, of any lengths and alignments, hash as each does alone. The input is the
 * memory the messages lie in, read again as where they begin and how long they are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/sha256_many.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MESSAGES 40

static void must(int ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_bytes in[MESSAGES];
    uint8_t got[MESSAGES][TG_SHA256_LEN], want[TG_SHA256_LEN];
    struct tg_sha256_many *h = NULL;

    if (n < 2)
        return 0;
    size_t count = data[0] % (MESSAGES + 1);
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)data[(2 * i + 1) % n] * 7 % n;
        size_t len = (size_t)data[(2 * i + 2) % n] * (data[0] / 4 + 1U) % (n - at + 1);
        in[i] = tg_bytes_make(data + at, len);
    }
    must(tg_sha256_many_new(data[1] % 4, &h) == TG_OK);
    must(tg_sha256_many(h, in, count, got) == TG_OK);
    tg_sha256_many_free(h);
    for (size_t i = 0; i < count; i++)
        must(tg_sha256(in[i], want) == TG_OK && memcmp(got[i], want, sizeof want) == 0);
    return 0;
}
