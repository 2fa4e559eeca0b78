/* Inference without end, on zeros, by a thread of its own: what a model does while its memory is
 * searched (moai/verify_memory.h). */
#ifndef TG_MOAI_VERIFY_RUN_H
#define TG_MOAI_VERIFY_RUN_H

#include "base/err.h"
#include "moai/session.h"

struct tg_verify_run;

/* Returns when the model has run once. The session must outlive it.
 * @retval TG_E_NOMEM */
TG_RC tg_verify_run_start(struct tg_session *session, struct tg_verify_run **out,
                          struct tg_err *err);

/* Ends it, and frees it. @retval TG_E_UNSUPPORTED an input takes strings  @retval TG_E_INTERNAL and
 * others: the model failed */
TG_RC tg_verify_run_stop(struct tg_verify_run *r, struct tg_err *err);

#endif
