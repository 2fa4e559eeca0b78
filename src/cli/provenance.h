/* Where a package came from: who built it when, and an in-toto statement if the author has one. */
#ifndef TG_CLI_PROVENANCE_H
#define TG_CLI_PROVENANCE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define CLI_STATEMENT_MAX (1u << 20)

/* Append { "builder": { "name", "version" }, "built_at", "statement" (only with a file) }.
 * The statement (https://in-toto.io/Statement/) is kept as it stands in the file.
 * @retval TG_E_FORMAT it is none, or breaks the container's JSON rules (spec §1) */
TG_RC cli_provenance_make(const char *statement_file, int64_t now, struct tg_buf *out,
                          struct tg_err *err);

#endif
