/* The walk over a model's protobuf that looks for data in other files. */
#include <stdint.h>

#include "moai/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    bool yes;

    (void)!tg_onnx_has_external_data(tg_bytes_make(data, n), &yes, &err);
    return 0;
}
