/* Messages from the agent to the worker. */
#include <stdint.h>
#include <stdlib.h>

#include "moai/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    enum tg_control_command c = TG_CONTROL_COMMANDS;
    struct tg_err err = TG_ERR_INIT;

    if (tg_control_decode(tg_bytes_make(data, n), &c, &err) == TG_OK &&
        (unsigned)c >= TG_CONTROL_COMMANDS)
        abort();
    return 0;
}
