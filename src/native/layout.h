/* The shared memory of one client: counters, bells, and slots (docs/spec/native-1.0.md §3).
 *
 * The worker makes it (an ordinary memfd: shared futexes on secret memory fail), seals its size and
 * hands it to the client. Call number n (from 0) uses slot n modulo the slots. Counters only rise
 * (modulo 2^32); neither side believes the other's: the worker keeps its own `completed`, and what
 * it reads from a slot it copies once before it looks at it. */
#ifndef TG_NATIVE_LAYOUT_H
#define TG_NATIVE_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "native/protocol.h"

#define TG_NATIVE_MAP_MAX (UINT64_C(64) << 20)
#define TG_NATIVE_LINE 64 /* bytes of a cache line */

/* The first page. Each group of words lies in a cache line of its own. */
struct tg_native_shared {
    _Alignas(TG_NATIVE_LINE) _Atomic uint32_t submitted;   /* the client: calls handed in */
    _Atomic uint32_t client_waits;                         /* it sleeps on client_bell */
    _Alignas(TG_NATIVE_LINE) _Atomic uint32_t completed;   /* the worker: calls answered */
    _Atomic uint32_t worker_waits;                         /* it sleeps on worker_bell */
    _Atomic uint32_t leaving;                              /* it serves what is in; go elsewhere */
    _Alignas(TG_NATIVE_LINE) _Atomic uint32_t worker_bell; /* rung to wake the worker */
    _Alignas(TG_NATIVE_LINE) _Atomic uint32_t client_bell; /* rung to wake the client */
};

/* A tensor's shape as it stands in a slot. */
struct tg_native_shape {
    uint32_t n, zero;
    int64_t d[TG_NATIVE_DIMS_MAX];
};

/* What a slot says of the answer; the shapes of the outputs follow it. */
struct tg_native_answer {
    uint32_t code; /* enum tg_rc */
    uint32_t zero;
    char reason[248];
};

/* Where everything lies, as offsets from the start of the mapping. */
struct tg_native_layout {
    uint32_t slots, n_in, n_out;
    uint64_t slot_first, slot_size;
    /* within a slot */
    uint64_t shapes; /* struct tg_native_shape [n_in] */
    uint64_t answer; /* struct tg_native_answer, then struct tg_native_shape [n_out] */
    uint64_t data[2 * TG_NATIVE_PORTS_MAX]; /* inputs, then outputs */
    uint64_t bytes[2 * TG_NATIVE_PORTS_MAX];
    uint64_t inputs_bytes, outputs_bytes; /* sums of bytes, each rounded up to a line */
    uint64_t map_size;
};

/* Both sides compute it from the same figures. ring: checked by tg_native_parse.
 * @retval TG_E_USAGE another number of tensors  @retval TG_E_LIMIT over TG_NATIVE_MAP_MAX */
TG_RC tg_native_layout_make(const struct tg_native_ring *ring, uint32_t n_in, uint32_t n_out,
                            struct tg_native_layout *out, struct tg_err *err);

/* Offset of a slot. */
uint64_t tg_native_slot(const struct tg_native_layout *l, uint32_t call);

/* Bytes of the elements of a shape that came from a slot: each dimension as declared where that is
 * fixed, the product within room. element: bytes of one element, not 0.
 * @retval TG_E_USAGE err names the input and what was wrong */
TG_RC tg_native_shape_check(const struct tg_native_port *port, const struct tg_native_shape *given,
                            uint32_t element, uint64_t room, uint64_t *bytes, struct tg_err *err);

#endif
