/* NumPy's .npy files (format versions 1.0, 2.0, 3.0): one array, little-endian, C order.
 *
 * The header is a Python literal; only the form that NumPy itself writes (three known keys, a tuple
 * of integers) is read, and nothing is ever evaluated. Object arrays (pickles) are refused. */
#ifndef TG_TENSOR_NPY_H
#define TG_TENSOR_NPY_H

#include "base/bytes.h"
#include "base/err.h"
#include "tensor/tensor.h"

#define TG_NPY_HEADER_MAX (UINT32_C(64) << 10)

struct tg_npy {
    enum tg_dtype dtype; /* never TG_DT_BYTES when read */
    struct tg_shape shape;
    struct tg_bytes data; /* a view of the file, exactly as long as type and shape say */
};

/* name is for error texts ("golden/case0.input.npy").
 * @retval TG_E_FORMAT       not a .npy file, or its sizes do not fit together
 * @retval TG_E_UNSUPPORTED  big-endian, Fortran order, objects, strings, complex, ...: err says
 *                           what to do
 * @retval TG_E_LIMIT        over TG_DIMS_MAX dimensions */
TG_RC tg_npy_parse(struct tg_bytes file, const char *name, struct tg_npy *out, struct tg_err *err);

/* Append a version 1.0 file. @retval TG_E_UNSUPPORTED TG_DT_BYTES */
TG_RC tg_npy_write(const struct tg_npy *in, struct tg_buf *out, struct tg_err *err);

#endif
