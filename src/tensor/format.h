/* Which kind of model a file is, told by its content, never by its name.
 *
 * Nothing is loaded or run: a few bounded reads look at magic numbers, lengths and field numbers.
 * A wrong answer is harmless (the format is a label in the manifest; a runtime checks for itself),
 * but the checks are strict enough that random bytes, text and archives come out as "other". */
#ifndef TG_TENSOR_FORMAT_H
#define TG_TENSOR_FORMAT_H

#include <stdint.h>

#include "base/err.h"

/* In the order of the manifest's names (docs/spec/tgsp-1.0.md §3), and of precedence when a
 * directory holds several. */
enum tg_format {
    TG_FORMAT_ONNX,
    TG_FORMAT_SAFETENSORS,
    TG_FORMAT_PYTORCH,    /* the ZIP archive of torch.save and torch.jit.save, not a bare pickle */
    TG_FORMAT_SAVEDMODEL, /* TensorFlow's saved_model.pb */
    TG_FORMAT_TFLITE,
    TG_FORMAT_OTHER
};

/* "onnx", "safetensors", "pytorch", "savedmodel", "tflite", "other" */
const char *tg_format_name(enum tg_format f);

/* What the regular file behind fd is; `name` is for error texts only. The descriptor's position is
 * not moved. At most TG_FORMAT_READS_MAX small reads are made, whatever the file says.
 * @retval TG_E_IO  a read failed. Content that is none of ours is TG_OK and TG_FORMAT_OTHER. */
TG_RC tg_format_probe(int fd, const char *name, enum tg_format *out, struct tg_err *err);

#define TG_FORMAT_READS_MAX 8192

/* The better of two labels when a directory holds both: a SavedModel names the whole directory;
 * then ONNX, safetensors, PyTorch, TFLite. */
enum tg_format tg_format_prefer(enum tg_format a, enum tg_format b);

#endif
