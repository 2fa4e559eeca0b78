/* Between the readers of weights. */
#ifndef TG_TENSOR_WEIGHTS_INTERNAL_H
#define TG_TENSOR_WEIGHTS_INTERNAL_H

#include "tensor/weights.h"

#define TG_SAFETENSORS_HEADER_MAX 100000000 /* the format's own limit */
#define TG_WEIGHTS_ARENA_MAX ((size_t)512 << 20)

TG_RC tg_safetensors_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                           struct tg_err *err);
TG_RC tg_torch_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                     struct tg_err *err);

/* Is this a name a tensor may have? */
bool tg_weight_name_ok(struct tg_bytes name);
/* Whole bytes that a shape of this type takes. @retval TG_E_FORMAT @retval TG_E_LIMIT */
TG_RC tg_weight_bytes(enum tg_wtype type, const struct tg_shape *shape, size_t *bytes);
/* Booleans are 0 or 1. */
bool tg_weight_bools_ok(enum tg_wtype type, struct tg_bytes data);
/* Put w->v in order. @retval TG_E_FORMAT a name is there twice */
TG_RC tg_weights_sort(struct tg_weights *w, const char *what, struct tg_err *err);

#endif
