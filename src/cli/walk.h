/* The files of a model folder, as `build` packs them. */
#ifndef TG_CLI_WALK_H
#define TG_CLI_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "base/macros.h"

#define CLI_WALK_FILES_MAX 65536

struct cli_walk_file {
    char *path; /* relative, '/'-separated, a path that a package may carry */
    uint64_t size;
    struct timespec mtime;
};

struct cli_walk {
    int root;                    /* the folder */
    struct cli_walk_file *files; /* ascending by the bytes of their paths */
    size_t n;
    size_t cap;
};

#define CLI_WALK_INIT ((struct cli_walk){.root = -1})

/* Collect every regular file beneath dir. Anything that could not be restored elsewhere is refused
 * by name: links, devices, sockets, FIFOs, names that are no UTF-8, names that differ only in the
 * case of ASCII letters.
 * @retval TG_E_USAGE such an entry   @retval TG_E_LIMIT too many   @retval TG_E_IO, TG_E_NOTFOUND
 */
TG_RC cli_walk_dir(const char *dir, struct cli_walk *w, struct tg_err *err);
void cli_walk_done(struct cli_walk *w);

/* Open file i for reading; it must still have the size and time that were seen.
 * @retval TG_E_STATE it changed meanwhile */
TG_RC cli_walk_open(const struct cli_walk *w, size_t i, int *fd_out, struct tg_err *err);

/* Does `path` (which need not exist) lie in the folder? */
TG_RC cli_walk_contains(const struct cli_walk *w, const char *path, bool *yes, struct tg_err *err);

#endif
