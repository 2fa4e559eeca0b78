#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/region_internal.h"
#include "base/thread.h"

#define STEP ((size_t)256 << 10)
/* A thread costs a stack, whose pages are made too: one is worth its while for so much. */
#define EACH ((size_t)8 << 20)
#define STACK ((size_t)128 << 10)
#define HELPERS_MAX 63U

struct touch {
    uint8_t *p;
    size_t n, page;
    _Atomic size_t next;
};

/* Nobody else has the piece yet, and it holds zeros: one is written to each page. (Reading would
 * map it read-only, and of an atomic "or" with nothing some compilers leave nothing.) */
static void touch(void *arg)
{
    struct touch *t = arg;
    size_t at;

    while ((at = atomic_fetch_add(&t->next, STEP)) < t->n)
        for (size_t end = at + STEP < t->n ? at + STEP : t->n; at < end; at += t->page)
            *(volatile uint8_t *)(t->p + at) = 0;
}

/* Where no thread can be had, the caller does it alone. */
void tg_region_touch(uint8_t *p, size_t n, unsigned threads)
{
    struct touch t = {.p = p, .n = n, .page = (size_t)sysconf(_SC_PAGESIZE)};
    struct tg_thread *helpers[HELPERS_MAX];
    unsigned want = threads > HELPERS_MAX ? HELPERS_MAX : threads - 1, got = 0;

    if (want > n / EACH)
        want = (unsigned)(n / EACH);
    while (got < want && tg_thread_start(touch, &t, STACK, &helpers[got], NULL) == TG_OK)
        got++;
    touch(&t);
    while (got > 0)
        tg_thread_join(helpers[--got]);
}
