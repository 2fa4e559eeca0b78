/* A model in ONNX Runtime's own format, rearranged so that it can be used where it lies.
 *
 * The format is a FlatBuffer (onnxruntime/core/flatbuffers/schema/ort.fbs): tables whose offsets
 * are relative. As ONNX Runtime writes it, weights begin wherever they come, which costs
 * convolutions up to 1.4 times. Here the data of tensors is taken out, the rest moves together, and
 * the data follows it, each at a multiple of 64: first what the runtime uses in place, then, from a
 * page on, what it keeps its own packed copy of, so that this part can be given back after loading.
 *
 * Pure but for memory; bounded; nothing is believed about the input. */
#ifndef TG_MOAI_BAKE_LAYOUT_H
#define TG_MOAI_BAKE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/secret.h"

/* FlatBuffers' offsets are signed 32-bit numbers in places. */
#define TG_BAKE_MAX ((size_t)INT32_MAX - 65536)
#define TG_BAKE_ALIGN 64
#define TG_BAKE_PAGE 4096
/* Smaller data stays among the rest: ONNX Runtime copies it. */
#define TG_BAKE_DATA_MIN 128

struct tg_bake_data {
    uint32_t at, n; /* of the bytes in the input */
    uint32_t to;    /* and in the output */
    bool main;      /* an initializer of the main graph */
    bool packed;    /* set by the caller: the runtime keeps a copy of its own */
};

struct tg_bake_link; /* an offset in the input, and where it leads */

struct tg_bake_layout {
    struct tg_bytes in;        /* borrowed */
    struct tg_bake_data *data; /* sorted by place */
    size_t n_data, cap_data;
    struct tg_bake_link *links;
    size_t n_links, cap_links;
};

/* Find the data and every offset.
 * @retval TG_E_FORMAT      not such a file, or a broken one
 * @retval TG_E_UNSUPPORTED it has fields this code does not know (a newer ONNX Runtime)
 * @retval TG_E_LIMIT       over TG_BAKE_MAX */
TG_RC tg_bake_layout_read(struct tg_bytes in, struct tg_bake_layout *out, struct tg_err *err);
/* Write it anew. *keep: bytes from the start without the packed data. */
TG_RC tg_bake_layout_write(struct tg_bake_layout *l, struct tg_secret **out, size_t *keep,
                           struct tg_err *err);
void tg_bake_layout_done(struct tg_bake_layout *l);

#endif
