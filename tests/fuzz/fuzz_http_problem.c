/* Problem details from a server: always an error code, always a text, never our own OK. */
#include <stdint.h>
#include <stdlib.h>

#include "net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = tg_http_problem_decode(403, tg_bytes_make(data, n), &err);

    if (rc == TG_OK || rc >= TG_RC_COUNT || err.rc != rc || err.msg[0] == '\0')
        abort();
    return 0;
}
