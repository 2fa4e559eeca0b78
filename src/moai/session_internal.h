/* Between loading (session.c) and running (session_run.c). */
#ifndef TG_MOAI_SESSION_INTERNAL_H
#define TG_MOAI_SESSION_INTERNAL_H

#include <onnxruntime_c_api.h>

#include "moai/session.h"

struct tg_ort {
    const OrtApi *api;
    OrtEnv *env;
    OrtMemoryInfo *cpu;
};

struct tg_session {
    struct tg_ort *ort;
    OrtSession *session;
    struct tg_ports in, out;
};

/* Turn a status into a code and words of ours; releases it. NULL is TG_OK. `doing` begins the text.
 */
TG_RC tg_ort_check(const struct tg_ort *o, OrtStatus *status, const char *doing,
                   struct tg_err *err);

/* Between the two kinds of element type. false: not one of ours. */
bool tg_ort_dtype(ONNXTensorElementDataType t, enum tg_dtype *out);
ONNXTensorElementDataType tg_ort_type(enum tg_dtype t);

#endif
