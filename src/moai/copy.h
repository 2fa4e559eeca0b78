/* One copy of a file of the package, or of one tensor of it, for a hand-over: a memfd outside the
 * protected region, decrypted from the package straight into it, sealed, locked as long as it is
 * here. No chunks are decrypted but those it lies in and those that describe a tensor. */
#ifndef TG_MOAI_COPY_H
#define TG_MOAI_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "moai/load.h"
#include "native/protocol.h"

struct tg_copy {
    int fd;
    void *map; /* read-only; NULL for an empty one */
    size_t size;
    char path[TG_NATIVE_PATH_TEXT];
    char tensor[TG_NATIVE_NAME_TEXT];
    char dtype[TG_NATIVE_DTYPE_TEXT]; /* "": a file */
    struct tg_shape shape;
};

/* Between the thread that makes a copy and others. */
struct tg_copy_watch {
    atomic_bool stop;   /* it is not wanted any more: ends within a few MiB */
    atomic_size_t size; /* bytes of it that lie outside the region, whole or not */
};

/* The package's file of this name; NULL: there is none, or no package. */
const struct tg_tgsp_file *tg_copy_file(const struct tg_model *m, const char *path);

/* Make what `in` names; the file was found. By the calling thread alone: a worker that serves makes
 * no threads. What was decrypted is wiped on failure. *out is for tg_copy_done.
 * @retval TG_E_CLOSED watch->stop
 * @retval others as tg_handover_take */
TG_RC tg_copy_make(const struct tg_model *m, const struct tg_native_take *in,
                   struct tg_copy_watch *watch, struct tg_copy *out, struct tg_err *err);
/* Unlock and drop it; programs keep what they were handed. */
void tg_copy_done(struct tg_copy *c);

#endif
