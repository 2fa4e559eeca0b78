/* What the worker looks for in an ONNX file before ONNX Runtime sees it. Pure; a walk over protobuf
 * wire bytes (onnx.proto3), bounded and without recursion. */
#ifndef TG_MOAI_ONNX_H
#define TG_MOAI_ONNX_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"

/* Does any tensor (initializers, constants, also in subgraphs and functions) keep its data in
 * another file? ONNX Runtime would try to open it, which the sandbox answers by killing the
 * process; a clear refusal is better.
 * @retval TG_E_FORMAT not a protobuf ONNX model, cut, or nested too deep (err gives the offset) */
TG_RC tg_onnx_has_external_data(struct tg_bytes model, bool *yes, struct tg_err *err);

#endif
