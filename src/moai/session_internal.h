/* Between loading (session.c) and running (session_run.c). */
#ifndef TG_MOAI_SESSION_INTERNAL_H
#define TG_MOAI_SESSION_INTERNAL_H

#include <onnxruntime_c_api.h>

#include "base/secret.h"
#include "moai/session.h"

struct tg_ort {
    const OrtApi *api;
    OrtEnv *env;
    OrtMemoryInfo *cpu;
};

struct tg_session {
    struct tg_secret *image; /* what it runs in, when it was baked */
    struct tg_ort *ort;
    OrtSession *session;
    struct tg_ports in, out;
};

/* Turn a status into a code and words of ours; releases it. NULL is TG_OK. `doing` begins the text.
 */
TG_RC tg_ort_check(const struct tg_ort *o, OrtStatus *status, const char *doing,
                   struct tg_err *err);

/* Options by name, in ONNX Runtime's words. */
struct tg_ort_entry {
    const char *key, *value;
};

/* Set them, and what all our sessions have in common. */
TG_RC tg_ort_configure(const struct tg_ort *o, OrtSessionOptions *opts,
                       const struct tg_ort_entry *entries, size_t n, struct tg_err *err);

/* Bytes of external data that a model asks for; 0 when it can't be read. */
size_t tg_session_external(const struct tg_session_spec *spec);

/* What ONNX Runtime is given besides the model's bytes (session_weights.c). */
struct tg_session_extra {
    struct tg_bytes model; /* the spec's, or `own` */
    struct tg_buf own;     /* the model with initializers declared that it only used */
    char **names;          /* n of them, NUL-terminated */
    OrtValue **values;
    size_t n;
};

/* Find the data of every initializer that is not in the model. */
TG_RC tg_session_gather(struct tg_ort *o, const struct tg_session_spec *spec,
                        struct tg_session_extra *out, struct tg_err *err);
/* Hand it over. After the session is made `extra` may go. */
TG_RC tg_session_supply(struct tg_ort *o, const struct tg_session_extra *extra,
                        OrtSessionOptions *opts, struct tg_err *err);
void tg_session_extra_done(struct tg_ort *o, struct tg_session_extra *extra);

/* Between the two kinds of element type. false: not one of ours. */
bool tg_ort_dtype(ONNXTensorElementDataType t, enum tg_dtype *out);
ONNXTensorElementDataType tg_ort_type(enum tg_dtype t);

#endif
