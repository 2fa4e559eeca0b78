/* What build looks at inside the files it packs. */
#ifndef TG_CLI_CONTENTS_H
#define TG_CLI_CONTENTS_H

#include "codec/json.h"
#include "tensor/format.h"
#include "tgsp/build.h"

/* Refuse what the worker would refuse: safetensors files and PyTorch archives that it does not read
 * (told by content, and by the names .safetensors, .pt, .pth), ONNX packages of which it can't tell
 * the file to run (tg_onnx_pick), and ONNX models whose data in other files is not in the package,
 * out of its file's bounds, or not what the model declares. format: the package's. metadata: pairs
 * of the manifest (model_file, weights_file). The error names the file and the place in it. The
 * files are mapped: one that another program cuts meanwhile ends the build (SIGBUS). */
TG_RC cli_contents_check(const struct tg_tgsp_inputs *in, enum tg_format format,
                         const struct tg_jlist *metadata, struct tg_err *err);

/* Pack a safetensors file in the place of every PyTorch archive: NAME.safetensors for NAME.pt,
 * NAME.pth or NAME. It is written to nameless files in the folder of `out`; the input is only read.
 * A weights_file in metadata that names one of them is changed with it (*renamed owns the new text;
 * NULL: it was not). *n: how many were converted. */
TG_RC cli_contents_convert(struct tg_tgsp_inputs *in, const char *out, struct tg_jlist *metadata,
                           char **renamed, size_t *n, struct tg_err *err);

#endif
