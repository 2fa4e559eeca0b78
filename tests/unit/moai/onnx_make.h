/* Writes tiny ONNX models by hand, so that tests need no Python and no checked-in blobs:
 * y = Identity(x) of any type and shape, optionally with a weight that claims to live in another
 * file. */
#ifndef TG_TESTS_ONNX_MAKE_H
#define TG_TESTS_ONNX_MAKE_H

#include "base/bytes.h"

struct onnx_make {
    int type;             /* TensorProto.DataType: 1 FLOAT, 2 UINT8, ... */
    const char *dims[16]; /* "3", or a name for any size */
    size_t n_dims;
    const char *op; /* "Identity" */
    bool external;  /* an initializer with data_location EXTERNAL */
    size_t nest;    /* wrap the external tensor in this many subgraphs */
    /* The node's second input is "w". With external: its length (0 is 1), and where in weights.bin
     * it lies. Without: nothing gives it. */
    bool uses_w;
    size_t w_len;
    const char *w_offset, *w_length; /* decimal; NULL: not written */
};

TG_RC onnx_make(const struct onnx_make *m, struct tg_buf *out);

#endif
