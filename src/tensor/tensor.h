/* What a tensor is in this house: an element type, a shape, and packed row-major little-endian
 * bytes. Names of types are those of the Open Inference Protocol. */
#ifndef TG_TENSOR_TENSOR_H
#define TG_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum tg_dtype {
    TG_DT_BOOL,
    TG_DT_UINT8,
    TG_DT_UINT16,
    TG_DT_UINT32,
    TG_DT_UINT64,
    TG_DT_INT8,
    TG_DT_INT16,
    TG_DT_INT32,
    TG_DT_INT64,
    TG_DT_FP16,
    TG_DT_FP32,
    TG_DT_FP64,
    TG_DT_BYTES, /* strings: each element is a 4-byte little-endian length and that many bytes */
    TG_DT_COUNT
};

/* "FP32"; never NULL. */
const char *tg_dtype_name(enum tg_dtype t);
/* Bytes of one element; 0 for TG_DT_BYTES, whose elements differ in size. */
size_t tg_dtype_size(enum tg_dtype t);
/* @retval TG_DT_COUNT no type has this name */
enum tg_dtype tg_dtype_from_name(struct tg_bytes name);

#define TG_DIMS_MAX 16

/* n dimensions, outermost first; n = 0 is a scalar. Negative means "any" and is used only where a
 * model's signature is described. */
struct tg_shape {
    int64_t d[TG_DIMS_MAX];
    size_t n;
};

/* Number of elements, checked against overflow and max.
 * @retval TG_E_LIMIT over max   @retval TG_E_FORMAT a dimension is negative */
TG_RC tg_shape_count(const struct tg_shape *s, uint64_t max, size_t *count);
/* "[1,1,28,28]" for error texts. out is always terminated. */
#define TG_SHAPE_TEXT 352
void tg_shape_text(const struct tg_shape *s, char out[TG_SHAPE_TEXT]);
bool tg_shape_eq(const struct tg_shape *a, const struct tg_shape *b);

/* Check that packed data has exactly the size that type and shape ask for; for TG_DT_BYTES that
 * the lengths add up. Booleans must be 0 or 1. `what` names the tensor in err.
 * @retval TG_E_FORMAT  @retval TG_E_LIMIT */
TG_RC tg_tensor_check(const char *what, enum tg_dtype t, const struct tg_shape *s,
                      struct tg_bytes data, struct tg_err *err);

/* Element i of packed data as a number (booleans 0 and 1); 64-bit integers lose precision beyond
 * 2^53. i is in range and the type is not TG_DT_BYTES: the caller checked. */
double tg_tensor_f64(enum tg_dtype t, struct tg_bytes data, size_t i);

/* Little-endian 32-bit lengths of TG_DT_BYTES elements. */
uint32_t tg_get_le32(const uint8_t in[4]);
void tg_put_le32(uint8_t out[4], uint32_t v);

#endif
