/* Messages of the native socket, from either side; what is accepted can be sealed and read again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"
#include "native/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void one(struct tg_bytes in, enum tg_native_side from)
{
    union tg_native_msg *m = tg_calloc(2, sizeof(*m));
    struct tg_err err = TG_ERR_INIT;
    struct tg_bytes again;

    if (m == NULL)
        return;
    if (tg_native_parse(in, from, &m[0], &err) == TG_OK) {
        again = tg_native_seal(&m[0]);
        if (!tg_bytes_eq(again, in) || tg_native_parse(again, from, &m[1], &err) != TG_OK)
            abort();
    }
    tg_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    one(tg_bytes_make(data, n), TG_NATIVE_CLIENT);
    one(tg_bytes_make(data, n), TG_NATIVE_WORKER);
    return 0;
}
