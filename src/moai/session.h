/* Running an ONNX model with ONNX Runtime's C API, from memory.
 *
 * ONNX Runtime's words never leave this folder: they can name the insides of a protected model.
 * Errors say what kind of failure it was, and what a user or operator can do. */
#ifndef TG_MOAI_SESSION_H
#define TG_MOAI_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/oip.h"
#include "tensor/tensor.h"

/* ONNX Runtime's environment: one per process, made before the sandbox is entered (it reads /proc
 * and /sys, and starts every thread it will ever have: `threads` - 1). No log, no telemetry; idle
 * threads sleep rather than spin. Standard error may lead nowhere meanwhile: no other thread may
 * need it. */
struct tg_ort;
TG_RC tg_ort_new(unsigned threads, struct tg_ort **out, struct tg_err *err);
void tg_ort_free(struct tg_ort *o);
TG_DEFINE_AUTO(struct tg_ort, tg_ort_freep, tg_ort_free);
const char *tg_ort_version(void); /* "1.27.0" */

/* One input or output as the model declares it. Negative dimensions take any size. */
struct tg_port {
    char *name;
    enum tg_dtype dtype;
    struct tg_shape shape;
};

struct tg_ports {
    struct tg_port *v;
    size_t n;
};

/* One tensor of weights that an initializer of the graph takes by its name: read from another file
 * of the package (safetensors, a PyTorch archive). Little-endian, packed, row-major. */
struct tg_session_weights {
    const char *name;
    uint32_t
        type; /* as in ONNX (TensorProto.DataType): 1 float, 7 int64, 10 float16, 16 bfloat16 */
    struct tg_shape shape;
    struct tg_bytes bytes;
};

/* The bytes of a file of the package, by the name that ONNX external data gives (relative to the
 * model's folder, unchecked). @retval TG_E_NOTFOUND the package does not hold it */
typedef enum tg_rc tg_session_file_fn(void *arg, struct tg_bytes location, struct tg_bytes *out);

struct tg_session_spec {
    struct tg_bytes model; /* the .onnx file */
    /* For initializers whose data is not in the model: those marked external, and names that nodes
     * use and nothing gives. Names the graph does not use are skipped. */
    const struct tg_session_weights *weights;
    size_t n_weights;
    /* For initializers marked external that are not among weights. NULL: there are no files. */
    tg_session_file_fn *file;
    void *file_arg;
};

/* A loaded model. ONNX Runtime uses weights and files of the spec where they lie: they must outlive
 * the session; the model and the spec itself the call only. ort must outlive the session.
 * @retval TG_E_FORMAT       not a valid ONNX model; a tensor's data is cut, misplaced, or of
 *                           another type or shape than the graph says
 * @retval TG_E_NOTFOUND     an initializer's data is nowhere; err names the file
 * @retval TG_E_UNSUPPORTED  an operator or type this ONNX Runtime doesn't have, an input or output
 *                           that is no tensor or of a type outside the protocol, external data
 *                           elsewhere than in the main graph's initializers */
struct tg_session;
TG_RC tg_session_open(struct tg_ort *ort, const struct tg_session_spec *spec,
                      struct tg_session **out, struct tg_err *err);
/* A model that holds all its weights. */
TG_RC tg_session_new(struct tg_ort *ort, struct tg_bytes model, struct tg_session **out,
                     struct tg_err *err);
void tg_session_free(struct tg_session *s);
TG_DEFINE_AUTO(struct tg_session, tg_session_freep, tg_session_free);
const struct tg_ports *tg_session_inputs(const struct tg_session *s);
const struct tg_ports *tg_session_outputs(const struct tg_session *s);

/* Nanoseconds, for the metrics. */
struct tg_session_times {
    uint64_t input, infer, output;
};

/* Run request->tensors, which must be the model's inputs, each once, in type and shape. Appends to
 * reply->tensors the outputs named in request->wanted, in that order (all, when none is named);
 * data is copied into the reply's own memory and ONNX Runtime's is wiped. times may be NULL.
 * @retval TG_E_USAGE     unknown, missing or wrong inputs or outputs; err names them
 * @retval TG_E_INTERNAL  the model failed on this input */
TG_RC tg_session_run(struct tg_session *s, const struct tg_oip *request, struct tg_oip *reply,
                     struct tg_session_times *times, struct tg_err *err);

#endif
