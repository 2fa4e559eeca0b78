/* PyTorch archives: what is read lies inside the file, and written as safetensors and read again
 * it is the same. */
#include "fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_weights(data, n);
    return 0;
}
