#include <unistd.h>

#include "base/region_internal.h"
#include "base/thread.h"

#define STEP ((size_t)256 << 10)

struct touch {
    uint8_t *p;
    size_t n, page;
};

/* Written to without a change: reading alone would map a page read-only. */
static enum tg_rc touch(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    const struct touch *t = ctx;
    size_t end = ((size_t)i + 1) * STEP < t->n ? ((size_t)i + 1) * STEP : t->n;

    (void)worker;
    (void)err;
    for (size_t at = (size_t)i * STEP; at < end; at += t->page)
        (void)__atomic_fetch_or(t->p + at, 0, __ATOMIC_RELAXED);
    return TG_OK;
}

/* Where no thread can be had, the pages come later, one by one. */
void tg_region_touch(uint8_t *p, size_t n, unsigned threads)
{
    struct touch t = {.p = p, .n = n, .page = (size_t)sysconf(_SC_PAGESIZE)};
    struct tg_err why = TG_ERR_INIT;

    (void)!tg_thread_run(threads, (n + STEP - 1) / STEP, touch, &t, &why);
}
