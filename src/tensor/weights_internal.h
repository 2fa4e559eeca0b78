/* Between the readers of weights. */
#ifndef TG_TENSOR_WEIGHTS_INTERNAL_H
#define TG_TENSOR_WEIGHTS_INTERNAL_H

#include "tensor/weights.h"

#define TG_SAFETENSORS_HEADER_MAX 100000000 /* the format's own limit */
#define TG_WEIGHTS_ARENA_MAX ((size_t)512 << 20)

/* What was brought of a file that is not in memory: in memory for secrets. */
#define TG_PIECES_MAX 16

struct tg_pieces {
    const struct tg_weights_src *src;

    struct {
        uint64_t off;
        struct tg_secret *bytes;
    } v[TG_PIECES_MAX];

    size_t n;
};

void tg_pieces_done(struct tg_pieces *p);
/* Bytes [off, off + n): a view, valid until _done. @retval TG_E_FORMAT beyond the file
 * @retval TG_E_LIMIT too many pieces  @retval TG_E_NOMEM, or what the source says */
TG_RC tg_pieces_get(struct tg_pieces *p, uint64_t off, uint64_t n, struct tg_bytes *out,
                    struct tg_err *err);

TG_RC tg_safetensors_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                           struct tg_err *err);
TG_RC tg_torch_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                     struct tg_err *err);

/* The same by what describes the tensors alone: each says where in the file it lies (`at`), and has
 * no bytes. Of PyTorch archives that is so for the tensor called `want`; of others only the rest.
 */
TG_RC tg_safetensors_index(struct tg_pieces *pieces, const char *what, struct tg_weights *out,
                           struct tg_err *err);
TG_RC tg_torch_index(struct tg_pieces *pieces, const char *what, struct tg_bytes want,
                     struct tg_weights *out, struct tg_err *err);

/* Does a file that begins so go to the reader of PyTorch archives? */
bool tg_weights_is_archive(struct tg_bytes head);

/* Is this a name a tensor may have? */
bool tg_weight_name_ok(struct tg_bytes name);
/* Whole bytes that a shape of this type takes. @retval TG_E_FORMAT @retval TG_E_LIMIT */
TG_RC tg_weight_bytes(enum tg_wtype type, const struct tg_shape *shape, size_t *bytes);
/* Booleans are 0 or 1. */
bool tg_weight_bools_ok(enum tg_wtype type, struct tg_bytes data);
/* Put w->v in order. @retval TG_E_FORMAT a name is there twice */
TG_RC tg_weights_sort(struct tg_weights *w, const char *what, struct tg_err *err);

#endif
