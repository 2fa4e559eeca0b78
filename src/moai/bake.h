/* Baking: ONNX Runtime optimizes a model once for this processor, and what it made is arranged so
 * that it is used where it lies (moai/bake_layout.h). The image of it is the only copy of the
 * weights from then on. docs/adr/005-one-copy.md has the figures behind this. */
#ifndef TG_MOAI_BAKE_H
#define TG_MOAI_BAKE_H

#include <stddef.h>

#include "base/secret.h"
#include "moai/session.h"

/* Over this many bytes of model and weights there is no bake: FlatBuffers end at 2 GiB, and
 * optimizing can make a model larger. */
#define TG_BAKE_INPUT_MAX ((size_t)1792 << 20)

struct tg_bake {
    struct tg_secret *image; /* the model in ONNX Runtime's format */
    size_t keep;             /* of its bytes; what follows is only needed while loading */
};

/* The way out of ONNX Runtime, which writes a model to a path only: a pipe, opened by it as
 * /proc/self/fd/N. To be made before the sandbox is entered. */
struct tg_bake_pipe {
    int in, out; /* -1: closed */
};

#define TG_BAKE_PIPE_INIT ((struct tg_bake_pipe){-1, -1})
TG_RC tg_bake_pipe_new(struct tg_bake_pipe *p, struct tg_err *err);
void tg_bake_pipe_done(struct tg_bake_pipe *p);

/* Bake a model. The pipe serves once: it is closed. The spec's bytes are not needed afterwards.
 * Whatever fails, the model may still run by tg_session_open.
 * @retval TG_E_LIMIT       larger than TG_BAKE_INPUT_MAX
 * @retval TG_E_UNSUPPORTED this ONNX Runtime's format is not known here */
TG_RC tg_bake_make(struct tg_ort *ort, const struct tg_session_spec *spec, struct tg_bake_pipe *p,
                   struct tg_bake *out, struct tg_err *err);
void tg_bake_done(struct tg_bake *b);

/* A session that runs in the image. On success the image is the session's: sealed, and without the
 * part that loading alone needed; b is empty then. */
TG_RC tg_session_baked(struct tg_ort *ort, struct tg_bake *b, struct tg_session **out,
                       struct tg_err *err);
/* What a session keeps of the image it runs in, borrowed; empty when it was not made from one. */
struct tg_bytes tg_session_image(const struct tg_session *s);

#endif
