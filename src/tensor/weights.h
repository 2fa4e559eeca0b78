/* Named weights as they lie in a file's bytes: safetensors files and PyTorch archives through one
 * view. Nothing in such a file is run. Contiguous tensors are never copied. */
#ifndef TG_TENSOR_WEIGHTS_H
#define TG_TENSOR_WEIGHTS_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/secret.h"
#include "tensor/tensor.h"

/* Element types of safetensors, in that format's own order (a writer sorts by it, descending). */
enum tg_wtype {
    TG_W_BOOL,
    TG_W_F4,
    TG_W_F6_E2M3,
    TG_W_F6_E3M2,
    TG_W_U8,
    TG_W_I8,
    TG_W_F8_E5M2,
    TG_W_F8_E4M3,
    TG_W_F8_E8M0,
    TG_W_I16,
    TG_W_U16,
    TG_W_F16,
    TG_W_BF16,
    TG_W_I32,
    TG_W_U32,
    TG_W_F32,
    TG_W_C64,
    TG_W_F64,
    TG_W_I64,
    TG_W_U64,
    TG_W_COUNT
};

const char *tg_wtype_name(enum tg_wtype t); /* "F32" */
size_t tg_wtype_bits(enum tg_wtype t);      /* of one element */
/* TensorProto.DataType of ONNX; 0: ONNX has no such type that a worker could be fed with. */
uint32_t tg_wtype_onnx(enum tg_wtype t);
/* @retval TG_W_COUNT no type has this name */
enum tg_wtype tg_wtype_from_name(struct tg_bytes name);

#define TG_WEIGHTS_MAX 100000 /* tensors in one file */
#define TG_WEIGHT_NAME_MAX 1024

struct tg_weight {
    const char *name; /* UTF-8 without control characters, 1 to TG_WEIGHT_NAME_MAX bytes */
    enum tg_wtype type;
    struct tg_shape shape;
    /* Little-endian. Packed and row-major if stride is NULL; else from the tensor's first element
     * to its last. Offsets in the file may be of any alignment. */
    struct tg_bytes bytes;
    uint64_t at;           /* where in the file they begin */
    const int64_t *stride; /* of each dimension, in elements */
};

struct tg_weights {
    struct tg_weight *v; /* in strcmp order of name; each name once */
    size_t n;
    struct tg_arena *arena;   /* names, strides, the list itself */
    struct tg_secret *copies; /* tensors that were packed */
};

#define TG_WEIGHTS_INIT                                                                            \
    {                                                                                              \
        .v = NULL, .n = 0                                                                          \
    }

/* Read a safetensors file or a PyTorch archive, told by content. `what` names the file in errors.
 * out looks into `file`, which must outlive it; *out is untouched on failure.
 * @retval TG_E_FORMAT       broken, ambiguous, or not a file of weights
 * @retval TG_E_DENIED       a pickle that does more than describe tensors; err names what it calls
 * @retval TG_E_UNSUPPORTED  well formed, but in a form that is not read; err has the remedy
 * @retval TG_E_LIMIT  @retval TG_E_NOMEM */
TG_RC tg_weights_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                       struct tg_err *err);
void tg_weights_done(struct tg_weights *w);

#define TG_WEIGHTS_HEAD 512
/* Could a file that begins so be one? head: its first TG_WEIGHTS_HEAD bytes, or all it has.
 * @retval TG_E_FORMAT, TG_E_UNSUPPORTED no, as tg_weights_parse would say */
TG_RC tg_weights_kind(struct tg_bytes head, const char *what, struct tg_err *err);

/* A file of weights that is not in memory. */
struct tg_weights_src {
    /* Bytes [off, off + n), all of them in the file. */
    enum tg_rc (*read)(void *arg, uint64_t off, uint8_t *to, size_t n, struct tg_err *err);
    void *arg;
    uint64_t size;
};

/* One tensor in it. */
struct tg_weight_place {
    enum tg_wtype type;
    struct tg_shape shape;
    uint64_t at;
    size_t n; /* its bytes */
};

/* Find a packed tensor by what describes it: of a safetensors file the header is read; of a PyTorch
 * archive end, directory, pickle and the header before the tensor's storage. Wherever
 * tg_weights_parse accepts the file, the tensor is the same; what is wrong in other tensors' bytes,
 * or in the headers before them, is not seen. What was read is wiped.
 * @retval TG_E_NOTFOUND no such tensor  @retval TG_E_UNSUPPORTED it is not packed
 * @retval others as tg_weights_parse, or what the source said */
TG_RC tg_weights_locate(const struct tg_weights_src *src, const char *what, struct tg_bytes name,
                        struct tg_weight_place *out, struct tg_err *err);
/* Are these, brought from there, bytes that such a tensor may have? */
bool tg_weight_place_holds(const struct tg_weight_place *place, struct tg_bytes data);

/* NULL: no such tensor. */
const struct tg_weight *tg_weights_find(const struct tg_weights *w, struct tg_bytes name);

/* Bytes of the tensor when packed. */
size_t tg_weight_size(const struct tg_weight *w);
/* Write elements [from, from + n) in row-major order to out. The range was checked by the caller;
 * the type has whole bytes. */
void tg_weight_copy(const struct tg_weight *w, size_t from, size_t n, uint8_t *out);

/* Give every strided tensor a packed copy in one locked region (base/secret.h).
 * The reader has bounded what that takes: at most twice the file's size.
 * @retval TG_E_NOMEM */
TG_RC tg_weights_pack(struct tg_weights *w, struct tg_err *err);

/* Where tg_safetensors_write puts its bytes, in order. */
struct tg_weights_sink {
    enum tg_rc (*write)(void *arg, const void *p, size_t n, struct tg_err *err);
    void *arg;
};

/* Write a safetensors file, byte for byte as the reference library lays it out: descending type,
 * then name; header padded with spaces to 8; metadata {"format":"pt"}.
 * @retval TG_E_LIMIT header over the format's 100 MB  @retval TG_E_NOMEM, or what the sink said */
TG_RC tg_safetensors_write(const struct tg_weights *w, const struct tg_weights_sink *sink,
                           struct tg_err *err);

#endif
