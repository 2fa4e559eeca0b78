/* What is looked for in an ONNX file before ONNX Runtime sees it, and before it is packed. Pure; a
 * walk over protobuf wire bytes (onnx.proto3), bounded and without recursion. */
#ifndef TG_TENSOR_ONNX_H
#define TG_TENSOR_ONNX_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/tensor.h"
#include "tensor/weights.h"

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

/* Does this initializer take its data by name? So says external data that names a file ending in
 * .safetensors, .pt or .pth and gives neither an offset nor a length. */
bool tg_onnx_by_name(const struct tg_onnx_init *t);
/* The one file that such initializers name; empty when there are none.
 * @retval TG_E_UNSUPPORTED they name several */
TG_RC tg_onnx_named_file(const struct tg_onnx *o, struct tg_bytes *location, struct tg_err *err);
/* Every initializer that takes its data by name is among w; and what is there under the name of an
 * external initializer, or of an input that nothing gives, is of a type that ONNX has, and of the
 * declared type and shape. `what` names the file in err.
 * @retval TG_E_FORMAT  @retval TG_E_NOTFOUND  @retval TG_E_UNSUPPORTED */
TG_RC tg_onnx_check_named(const struct tg_onnx *o, const struct tg_weights *w, const char *what,
                          struct tg_err *err);

/* Bytes of one element; 0 for strings and what this build does not know. */
size_t tg_onnx_type_size(uint32_t type);

/* The paths of a package's files, wherever they are kept. */
struct tg_onnx_files {
    size_t n;
    const char *(*path)(const void *arg, size_t i); /* of file i < n */
    const void *arg;
};

/* Which of an ONNX package's files is run: the one that metadata model_file names (`named`; NULL:
 * it names none); else "model.onnx"; else the only .onnx file outside golden/. The worker asks
 * before it loads, and build before it packs.
 * @retval TG_E_FORMAT none, or several: err says what build is to be told */
TG_RC tg_onnx_pick(const struct tg_onnx_files *files, const char *named, size_t *out,
                   struct tg_err *err);

#endif
