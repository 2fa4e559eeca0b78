#include "tgsp/src.h"

#include <inttypes.h>
#include <string.h>

#include "base/file.h"

/* The descriptor travels in the context pointer: nothing to allocate, nothing to free. */
static enum tg_rc fd_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                          struct tg_err *err)
{
    return tg_fd_pread((int)(intptr_t)ctx, name, p, n, off, err);
}

enum tg_rc tg_src_fd(struct tg_src *src, int fd, const char *name, struct tg_err *err)
{
    uint64_t size;
    TG_TRY(tg_fd_size(fd, name, &size, err));
    *src = (struct tg_src){fd_read, (void *)(intptr_t)fd, name, size};
    return TG_OK;
}

static enum tg_rc mem_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                           struct tg_err *err)
{
    const struct tg_bytes *mem = ctx;
    if (off > mem->n || n > mem->n - off)
        return TG_FAIL(err, TG_E_FORMAT, "%s: ends at %zu, need %zu bytes at %" PRIu64, name,
                       mem->n, n, off);
    memcpy(p, mem->p + off, n);
    return TG_OK;
}

void tg_src_mem(struct tg_src *src, const struct tg_bytes *mem, const char *name)
{
    /* Only read; the context pointer has no const. */
    *src = (struct tg_src){mem_read, (void *)(uintptr_t)mem, name, mem->n};
}

enum tg_rc tg_src_read(const struct tg_src *src, void *p, size_t n, uint64_t off,
                       struct tg_err *err)
{
    return n ? src->read(src->ctx, src->name, p, n, off, err) : TG_OK;
}
