/* The walk over a model's protobuf that finds initializers and data in other files. */
#include <stdint.h>

#include "tensor/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_onnx found;

    if (tg_onnx_scan(tg_bytes_make(data, n), &found, &err) == TG_OK)
        tg_onnx_done(&found);
    return 0;
}
