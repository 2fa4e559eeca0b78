/* Calls through shared memory, as ONNX Runtime sees them: a slot in, the same slot out.
 *
 * Nothing of a slot is read twice: shapes and inputs are copied into protected memory, and looked
 * at there. What a client writes meanwhile reaches its own next call at most. */
#ifndef TG_MOAI_NATIVE_RUN_H
#define TG_MOAI_NATIVE_RUN_H

#include "base/err.h"
#include "moai/session.h"
#include "native/layout.h"

/* The model's inputs and outputs in the words of the native protocol. Borrowed from nobody. */
struct tg_native_ports {
    uint32_t n_in, n_out;
    bool can_run; /* false: strings, which have no place in shared memory */
    struct tg_native_port v[2 * TG_NATIVE_PORTS_MAX];
};

void tg_native_ports_fill(const struct tg_session *s, struct tg_native_ports *out);

/* One client's place in the model: locked memory for its inputs and outputs, and what ONNX Runtime
 * has been told of them. Used by one thread; the session by any number of them. session and ports
 * are borrowed for its life.
 * @retval TG_E_NOMEM also: memory can't be locked */
struct tg_runner;
TG_RC tg_runner_new(struct tg_session *s, const struct tg_native_ports *ports,
                    const struct tg_native_layout *layout, struct tg_runner **out,
                    struct tg_err *err);
/* Wipes inputs and outputs. */
void tg_runner_free(struct tg_runner *r);
TG_DEFINE_AUTO(struct tg_runner, tg_runner_freep, tg_runner_free);

/* Run what stands in the slot, and write shapes and bytes of the outputs there. The caller writes
 * the answer's code.
 * @retval TG_E_USAGE a wrong shape  @retval TG_E_LIMIT an output is larger than its room
 * @retval TG_E_INTERNAL the model failed on this input */
TG_RC tg_runner_call(struct tg_runner *r, uint8_t *slot, struct tg_err *err);

/* From any thread: end the present call soon. No call can be run afterwards. */
void tg_runner_cancel(struct tg_runner *r);

#endif
