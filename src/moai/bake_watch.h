/* Which weights ONNX Runtime keeps a copy of its own of: found by watching it load a model with an
 * allocator of ours. It copies every initializer into memory of this allocator, lets kernels pack
 * what they want to pack, and frees those that no kernel needs any more. */
#ifndef TG_MOAI_BAKE_WATCH_H
#define TG_MOAI_BAKE_WATCH_H

#include "moai/bake_layout.h"
#include "moai/session_internal.h"

/* Load l->in and set `packed` of its data. */
TG_RC tg_bake_watch(struct tg_ort *o, struct tg_bake_layout *l, struct tg_err *err);

#endif
