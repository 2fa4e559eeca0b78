/* Rearranging a model in ONNX Runtime's format. */
#include <stdint.h>

#include "moai/bake_layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_bake_layout l = {.n_data = 0};
    struct tg_secret *out = NULL;
    size_t keep = 0;

    if (tg_bake_layout_read(tg_bytes_make(data, n), &l, &err) != TG_OK)
        return 0;
    for (size_t i = 0; i < l.n_data; i += 2)
        l.data[i].packed = true;
    if (tg_bake_layout_write(&l, &out, &keep, &err) == TG_OK)
        tg_secret_free(out);
    tg_bake_layout_done(&l);
    return 0;
}
