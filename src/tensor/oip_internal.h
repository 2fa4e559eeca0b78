/* Between the parts of the Open Inference Protocol reader. */
#ifndef TG_TENSOR_OIP_INTERNAL_H
#define TG_TENSOR_OIP_INTERNAL_H

#include "tensor/oip.h"

/* Where a tensor's "data" array stands in the text, and what to call it in error texts. */
struct tg_oip_place {
    const char *list; /* "inputs" or "outputs" */
    size_t index;
    size_t at; /* offset of its '[' */
};

/* Append the packed elements of the array at place->at, which was already skipped once and so is
 * valid JSON: flat, or nested exactly as t's shape says; `count` elements of t's type. out has
 * room.
 * @retval TG_E_FORMAT  @retval TG_E_LIMIT an element outside its type's range  @retval TG_E_NOMEM
 */
TG_RC tg_oip_elements(struct tg_bytes json, const struct tg_oip_place *place,
                      const struct tg_oip_tensor *t, size_t count, struct tg_buf *out,
                      struct tg_err *err);

#endif
