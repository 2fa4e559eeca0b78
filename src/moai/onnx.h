/* What the worker looks for in an ONNX file before ONNX Runtime sees it. Pure; a walk over protobuf
 * wire bytes (onnx.proto3), bounded and without recursion. */
#ifndef TG_MOAI_ONNX_H
#define TG_MOAI_ONNX_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/tensor.h"

#define TG_ONNX_INITIALIZERS_MAX 100000
#define TG_ONNX_USES_MAX 1000000

/* One initializer of the main graph. Views into the model. */
struct tg_onnx_init {
    struct tg_bytes name;
    uint32_t type; /* TensorProto.DataType */
    struct tg_shape shape;
    bool external;            /* its data is in another file */
    struct tg_bytes location; /* that file, as written */
    uint64_t offset;
    uint64_t length; /* UINT64_MAX: not given */
};

struct tg_onnx {
    struct tg_onnx_init *inits; /* sorted by name */
    size_t n_inits;
    struct tg_bytes *uses; /* inputs of nodes, subgraphs' included; sorted */
    size_t n_uses;
    size_t n_external;    /* of them */
    bool buried_external; /* a tensor elsewhere (attribute, subgraph, function) is external */
};

/* Find the initializers of the main graph and whatever keeps its data in another file, which ONNX
 * Runtime would try to open: the sandbox kills for that; a clear refusal is better.
 * @retval TG_E_FORMAT not a protobuf ONNX model, cut, or nested too deep (err gives the offset)
 * @retval TG_E_LIMIT  over TG_ONNX_INITIALIZERS_MAX initializers or TG_ONNX_USES_MAX inputs */
TG_RC tg_onnx_scan(struct tg_bytes model, struct tg_onnx *out, struct tg_err *err);
void tg_onnx_done(struct tg_onnx *o);
/* NULL: the main graph has no such initializer. */
const struct tg_onnx_init *tg_onnx_find(const struct tg_onnx *o, struct tg_bytes name);
/* Is it an input of any node? */
bool tg_onnx_uses(const struct tg_onnx *o, struct tg_bytes name);

/* Bytes of one element; 0 for strings and what this build does not know. */
size_t tg_onnx_type_size(uint32_t type);

#endif
