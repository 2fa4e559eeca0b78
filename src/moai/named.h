/* Weights that a graph takes by name, out of a safetensors file or a PyTorch archive in the same
 * package. They are used where they lie in the payload; only strided tensors are copied, into
 * locked memory. */
#ifndef TG_MOAI_NAMED_H
#define TG_MOAI_NAMED_H

#include "moai/golden.h"
#include "moai/session.h"
#include "tensor/weights.h"

/* The package's metadata that names the file, from the package's root. */
#define TG_WEIGHTS_KEY "weights_file"

struct tg_named {
    struct tg_weights file;
    struct tg_session_weights *v; /* all of the file's tensors */
    size_t n;
};

#define TG_NAMED_INIT                                                                              \
    {                                                                                              \
        .file = TG_WEIGHTS_INIT, .v = NULL, .n = 0                                                 \
    }

/* Find the file (metadata weights_file; else the one that external data names without an offset),
 * read it, and add its tensors to spec->weights. *out must outlive whatever uses spec. A package
 * without such a file leaves both as they are.
 * @retval TG_E_NOTFOUND the file, or a tensor the graph wants, is not there; else the codes of
 * tg_onnx_scan, tg_weights_parse, tg_weights_pack and tg_onnx_check_named */
TG_RC tg_named_load(const struct tg_model_files *files, struct tg_session_spec *spec,
                    struct tg_named *out, struct tg_err *err);
void tg_named_done(struct tg_named *n);

#endif
