#include "net/wipe.h"

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"

/* Each block carries its size in front; the union keeps what follows aligned for any type. */
union head {
    size_t n;
    max_align_t align;
};

static void *wiped_malloc(size_t n)
{
    size_t total;
    union head *h;

    if (!tg_add_size(n, sizeof(*h), &total))
        return NULL;
    h = tg_alloc(total);
    if (h == NULL)
        return NULL;
    h->n = n;
    return h + 1;
}

static void wiped_free(void *p)
{
    union head *h = p;

    if (p == NULL)
        return;
    h--;
    tg_wipe(h + 1, h->n);
    tg_free(h);
}

/* Never in place and never by the C library: that could leave the old block behind as it was. */
static void *wiped_realloc(void *p, size_t n)
{
    void *q = wiped_malloc(n);

    if (p == NULL || q == NULL)
        return q;
    const union head *h = (const union head *)p - 1;

    memcpy(q, p, h->n < n ? h->n : n);
    wiped_free(p);
    return q;
}

void tg_net_wipe_freed(void)
{
    event_set_mem_functions(wiped_malloc, wiped_realloc, wiped_free);
}
