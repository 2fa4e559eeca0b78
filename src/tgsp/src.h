/* Where a package's bytes come from: something that can be read at any offset, by several threads
 * at once. */
#ifndef TG_TGSP_SRC_H
#define TG_TGSP_SRC_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct tg_src {
    /* Exactly n bytes at off, or an error. */
    enum tg_rc (*read)(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                       struct tg_err *err);
    void *ctx;
    const char *name; /* for error texts; borrowed */
    uint64_t size;
};

/* Over an open descriptor (borrowed; must stay open). Its size is read once, here. */
TG_RC tg_src_fd(struct tg_src *src, int fd, const char *name, struct tg_err *err);
/* Over memory (borrowed). */
void tg_src_mem(struct tg_src *src, const struct tg_bytes *mem, const char *name);
TG_RC tg_src_read(const struct tg_src *src, void *p, size_t n, uint64_t off, struct tg_err *err);

#endif
