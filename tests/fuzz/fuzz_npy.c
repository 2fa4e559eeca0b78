/* .npy files: what parses, written again and parsed again, is the same. */
#include <stdint.h>
#include <stdlib.h>

#include "tensor/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf out = TG_BUF_INIT(n + 4096);
    struct tg_npy a, b;

    if (tg_npy_parse(tg_bytes_make(data, n), "fuzz", &a, &err) != TG_OK)
        return 0;
    if (tg_npy_write(&a, &out, &err) != TG_OK ||
        tg_npy_parse(tg_buf_view(&out), "again", &b, &err) != TG_OK || a.dtype != b.dtype ||
        !tg_shape_eq(&a.shape, &b.shape) || !tg_bytes_eq(a.data, b.data))
        abort();
    tg_buf_done(&out);
    return 0;
}
