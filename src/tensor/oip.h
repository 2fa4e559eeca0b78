/* Bodies of the Open Inference Protocol v2, REST form, with the binary tensor data extension:
 *     https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md)
 *     https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md)
 *
 * A body is JSON, followed (when Inference-Header-Content-Length says how long the JSON is) by the
 * raw bytes of tensors in the order in which they are named. One type serves requests and replies,
 * for server and client. JSON is read in one pass over the text, without a tree: numbers go
 * straight into the tensor. Strict: RFC 8259, no NaN or infinity, integers without fraction, known
 * keys at most once. Unknown keys and parameters are skipped.  Pure. */
#ifndef TG_TENSOR_OIP_H
#define TG_TENSOR_OIP_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/tensor.h"

#define TG_OIP_TENSORS_MAX 64
#define TG_OIP_NAME_MAX 256
#define TG_OIP_DEPTH_MAX 32
#define TG_OIP_DATA_MAX (UINT64_C(256) << 20) /* bytes of all tensors of one message */
#define TG_OIP_BODY_MAX (UINT64_C(64) << 20)  /* bytes of one body, as the worker accepts it */
#define TG_OIP_HEADER "Inference-Header-Content-Length"

enum tg_oip_kind { TG_OIP_REQUEST, TG_OIP_REPLY };

struct tg_oip_tensor {
    char name[TG_OIP_NAME_MAX + 1];
    enum tg_dtype dtype;
    struct tg_shape shape;
    struct tg_bytes data; /* packed; checked against type and shape when parsed */
    uint8_t *owned;       /* NULL, or data.p in this message's own memory, wiped when freed */
    bool binary;          /* its data stands (or shall stand) behind the JSON */
};

struct tg_oip_wanted {
    char name[TG_OIP_NAME_MAX + 1];
    bool binary;
};

struct tg_oip {
    enum tg_oip_kind kind;
    bool has_id;
    char id[TG_OIP_NAME_MAX + 1];
    char model_name[TG_OIP_NAME_MAX + 1];             /* replies */
    char model_version[TG_OIP_NAME_MAX + 1];          /* replies; "" none */
    struct tg_oip_tensor tensors[TG_OIP_TENSORS_MAX]; /* inputs of a request, outputs of a reply */
    size_t n;
    struct tg_oip_wanted wanted[TG_OIP_TENSORS_MAX]; /* outputs a request asks for; none: all */
    size_t n_wanted;
    bool binary_outputs; /* request parameter binary_data_output: for outputs that don't say */
};

/* An empty message. NULL: out of memory. */
struct tg_oip *tg_oip_new(enum tg_oip_kind kind);
void tg_oip_free(struct tg_oip *m); /* wipes tensor data it owns */
TG_DEFINE_AUTO(struct tg_oip, tg_oip_freep, tg_oip_free);

/* Parse JSON and the bytes behind it. Tensor data is copied into aligned memory of the message.
 * @retval TG_E_FORMAT  err names the place: "inputs[0].data[3]: ..." or "request body, offset 17:
 * ..."
 * @retval TG_E_LIMIT   @retval TG_E_UNSUPPORTED an element type  @retval TG_E_NOMEM */
TG_RC tg_oip_parse(enum tg_oip_kind kind, struct tg_bytes json, struct tg_bytes binary,
                   struct tg_oip **out, struct tg_err *err);

/* Append the body: the JSON, then the data of binary tensors. *json_len is the JSON's length;
 * *has_binary whether the header above must be sent.
 * @retval TG_E_UNSUPPORTED a NaN or an infinity, or a string that is not UTF-8, would have to be
 * JSON */
TG_RC tg_oip_write(const struct tg_oip *m, struct tg_buf *out, size_t *json_len, bool *has_binary,
                   struct tg_err *err);

#endif
