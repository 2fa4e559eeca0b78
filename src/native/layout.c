#include "native/layout.h"

#include <inttypes.h>
#include <stdio.h>

#define PAGE 4096

static uint64_t up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Add n bytes to *at, which stays a multiple of a line. false: over the limit. */
static bool place(uint64_t *at, uint64_t n)
{
    if (n > TG_NATIVE_MAP_MAX)
        return false;
    *at += up(n, TG_NATIVE_LINE);
    return *at <= TG_NATIVE_MAP_MAX;
}

enum tg_rc tg_native_layout_make(const struct tg_native_ring *ring, uint32_t n_in, uint32_t n_out,
                                 struct tg_native_layout *out, struct tg_err *err)
{
    struct tg_native_layout l = {.slots = ring->slots, .n_in = n_in, .n_out = n_out};
    uint64_t at = 0;
    bool fits;

    if (n_in > TG_NATIVE_PORTS_MAX || n_out > TG_NATIVE_PORTS_MAX || ring->n != n_in + n_out)
        return TG_FAIL(err, TG_E_USAGE, "ring: room for %u tensors, the model has %u", ring->n,
                       n_in + n_out);
    fits = place(&at, n_in * sizeof(struct tg_native_shape));
    l.answer = at;
    fits = fits &&
           place(&at, sizeof(struct tg_native_answer) + n_out * sizeof(struct tg_native_shape));
    for (uint32_t i = 0; fits && i < n_in + n_out; i++) {
        l.data[i] = at;
        l.bytes[i] = ring->bytes[i];
        fits = place(&at, ring->bytes[i]);
        *(i < n_in ? &l.inputs_bytes : &l.outputs_bytes) += up(ring->bytes[i], TG_NATIVE_LINE);
    }
    l.slot_first = up(sizeof(struct tg_native_shared), PAGE);
    l.slot_size = up(at, PAGE);
    l.map_size = l.slot_first + l.slots * l.slot_size;
    if (!fits || l.map_size > TG_NATIVE_MAP_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "ring: over %" PRIu64 " MiB of shared memory",
                       TG_NATIVE_MAP_MAX >> 20);
    *out = l;
    return TG_OK;
}

uint64_t tg_native_slot(const struct tg_native_layout *l, uint32_t call)
{
    return l->slot_first + (call & (l->slots - 1)) * l->slot_size;
}

enum tg_rc tg_native_shape_check(const struct tg_native_port *port,
                                 const struct tg_native_shape *given, uint32_t element,
                                 uint64_t room, uint64_t *bytes, struct tg_err *err)
{
    uint64_t n = element;

    if (given->n > TG_NATIVE_DIMS_MAX || given->zero != 0 ||
        (port->n_dims != 0 && given->n != port->n_dims))
        return TG_FAIL(err, TG_E_USAGE, "input '%s' has %u dimensions, not %u", port->name,
                       port->n_dims, given->n);
    for (uint32_t i = 0; i < given->n; i++) {
        int64_t d = given->d[i], want = port->n_dims != 0 ? port->dims[i] : -1;

        if (d < 0 || (want >= 0 && d != want))
            return TG_FAIL(err, TG_E_USAGE,
                           "input '%s': dimension %u is %" PRId64 " (-1 takes any size), not "
                           "%" PRId64,
                           port->name, i, want, d);
        if (!tg_mul_u64(n, (uint64_t)d, &n))
            return TG_FAIL(err, TG_E_USAGE, "input '%s': its size overflows", port->name);
    }
    if (n > room)
        return TG_FAIL(err, TG_E_USAGE, "input '%s' takes %" PRIu64 " bytes, its room is %" PRIu64,
                       port->name, n, room);
    *bytes = n;
    return TG_OK;
}
