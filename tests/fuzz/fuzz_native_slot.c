/* A ring's layout from a client's figures, and shapes out of a slot: sizes that are accepted fit.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "native/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void layout(const uint8_t *data)
{
    struct tg_native_ring ring = {.slots = 1u << (data[0] % 5), .n = data[1] % 12};
    struct tg_native_layout l;
    struct tg_err err = TG_ERR_INIT;
    uint32_t n_in = data[2] % 12;

    memcpy(ring.bytes, data + 8, 12 * sizeof(ring.bytes[0]));
    for (uint32_t i = 0; i < ring.n; i++)
        ring.bytes[i] >>= data[3] % 64;
    if (n_in > ring.n || tg_native_layout_make(&ring, n_in, ring.n - n_in, &l, &err) != TG_OK)
        return;
    for (uint32_t i = 0; i < ring.n; i++)
        if (l.data[i] + l.bytes[i] > l.slot_size ||
            (i > 0 && l.data[i] < l.data[i - 1] + l.bytes[i - 1]) ||
            l.data[i] % TG_NATIVE_LINE != 0)
            abort();
    if (l.map_size > TG_NATIVE_MAP_MAX || tg_native_slot(&l, UINT32_MAX) + l.slot_size > l.map_size)
        abort();
}

static void shape(const uint8_t *data)
{
    struct tg_native_port port = {.name = "x", .n_dims = data[0] % 17};
    struct tg_native_shape given;
    struct tg_err err = TG_ERR_INIT;
    uint64_t bytes = 0, product = 4;

    memcpy(&given, data + 8, sizeof(given));
    for (uint32_t i = 0; i < port.n_dims; i++)
        port.dims[i] = (data[1] >> (i % 8) & 1) != 0 ? -1 : given.d[i];
    if (tg_native_shape_check(&port, &given, 4, 1 << 20, &bytes, &err) != TG_OK)
        return;
    for (uint32_t i = 0; i < given.n; i++)
        product *= (uint64_t)given.d[i];
    if (bytes > 1 << 20 || (bytes != product && product != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 8 + sizeof(struct tg_native_shape))
        return 0;
    layout(data);
    shape(data);
    return 0;
}
