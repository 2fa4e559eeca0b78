/* Path rules of the manifest (docs/spec/tgsp-1.0.md §3). Pure. */
#ifndef TG_TGSP_PATH_H
#define TG_TGSP_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

/* One path: valid UTF-8, 1..1024 bytes, relative, segments of 1..255 bytes that are not "." or
 * "..", no byte below 0x20, no 0x7F, no backslash. @retval TG_E_FORMAT err says what is wrong with
 * it */
TG_RC tg_tgsp_path_check(struct tg_bytes path, struct tg_err *err);

/* A path made printable for error texts: control and non-UTF-8 bytes as \xNN; cut at cap - 1. */
void tg_tgsp_path_show(struct tg_bytes path, char *out, size_t cap);

/* All paths together: ascending strictly by bytes; with ASCII case folded no path equals, or is a
 * directory prefix of, another. `paths` NUL-terminated. @retval TG_E_FORMAT err names both
 * @retval TG_E_NOMEM */
TG_RC tg_tgsp_paths_check(const char *const *paths, size_t n, struct tg_err *err);

/* The folder that build reserves inside a payload: ".tensorguard/" (case folded). */
#define TG_TGSP_RESERVED_DIR ".tensorguard"
/* "<sha256 hex>  <path>\n" of every other file, in manifest order: what went in, kept inside. */
#define TG_TGSP_INPUTS_PATH TG_TGSP_RESERVED_DIR "/inputs.sha256"
bool tg_tgsp_path_reserved(const char *path);

#endif
