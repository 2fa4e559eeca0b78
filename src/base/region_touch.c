#include <unistd.h>

#include "base/region_internal.h"
#include "base/thread.h"

#define STEP ((size_t)256 << 10)
/* A thread costs a stack, whose pages are made too: one is worth its while for so much. */
#define EACH ((size_t)8 << 20)

_Static_assert(TG_THREAD_STACK + TG_REGION_UNIT < TG_REGION_LARGE, "no thread for a stack");

struct touch {
    uint8_t *p;
    size_t n, page;
};

/* One zero is written to each page. (Reading would map it read-only, and of an atomic "or" with
 * nothing some compilers leave nothing.) */
static enum tg_rc touch(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    const struct touch *t = ctx;
    size_t at = (size_t)i * STEP, end = at + STEP < t->n ? at + STEP : t->n;

    (void)worker;
    (void)err;
    for (; at < end; at += t->page)
        *(volatile uint8_t *)(t->p + at) = 0;
    return TG_OK;
}

/* Where memory for it is missing the pages come later, one by one. */
void tg_region_touch(uint8_t *p, size_t n, unsigned threads)
{
    struct touch t = {.p = p, .n = n, .page = (size_t)sysconf(_SC_PAGESIZE)};
    size_t worth = 1 + n / EACH;

    (void)!tg_thread_run(threads < worth ? threads : (unsigned)worth, (n + STEP - 1) / STEP, touch,
                         &t, NULL);
}
