/* Files beneath a folder, whatever the path or the folder's owner tries: each segment is opened
 * relative to the one before it, without following a link, so that no name leads outside. */
#ifndef TG_CLI_BENEATH_H
#define TG_CLI_BENEATH_H

#include <fcntl.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"

/* Is this a path that a package may carry (docs/spec/tgsp-1.0.md §3)? On failure *why says why not.
 */
bool cli_path_ok(struct tg_bytes path, const char **why);

/* Create a new file (0600) and the folders on its way (0700).
 * @retval TG_E_EXISTS the name is taken   @retval TG_E_DENIED a segment is a link
 * @retval TG_E_USAGE  cli_path_ok says no */
TG_RC cli_beneath_create(int root, const char *path, int *fd_out, struct tg_err *err);

/* Open an existing regular file with these flags (O_RDONLY, O_WRONLY). */
TG_RC cli_beneath_open(int root, const char *path, int flags, int *fd_out, struct tg_err *err);

#endif
