#include "base/progress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define SECOND UINT64_C(1000000000)
#define REDRAW (SECOND / 10)

struct tg_progress {
    const char *label;
    bool count; /* of things, not of bytes */
    uint64_t total;
    uint64_t start;
    _Atomic uint64_t done;
    _Atomic uint64_t drawn; /* when last; 0: never */
};

struct tg_progress *tg_progress_new(const char *label, uint64_t total)
{
    struct tg_progress *p;

    if (!isatty(STDERR_FILENO))
        return NULL;
    p = tg_calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->label = label;
    p->total = total;
    p->start = tg_clock_mono_ns();
    return p;
}

struct tg_progress *tg_progress_new_count(const char *label, uint64_t total)
{
    struct tg_progress *p = tg_progress_new(label, total);

    if (p != NULL)
        p->count = true;
    return p;
}

struct tg_progress *tg_progress_new_wait(const char *what)
{
    struct tg_progress *p = tg_progress_new(what, 0);

    if (p == NULL)
        return NULL;
    fprintf(stderr, "\r\033[K%s", what);
    (void)fflush(stderr);
    atomic_store(&p->drawn, p->start);
    return p;
}

static void draw(const struct tg_progress *p, uint64_t now)
{
    enum { WIDTH = 30 };

    uint64_t done = atomic_load(&p->done);
    double part = p->total != 0 ? (double)done / (double)p->total : 1.0;
    double secs = (double)(now - p->start) / (double)SECOND;
    double mib = (double)done / (1024.0 * 1024.0);
    int full = (int)((part < 1.0 ? part : 1.0) * WIDTH);

    fprintf(stderr, "\r\033[K%-10s [%.*s%*s] %3d %%  ", p->label, full,
            "##############################", WIDTH - full, "", (int)(part * 100));
    if (p->count)
        fprintf(stderr, "%" PRIu64 " of %" PRIu64, done, p->total);
    else
        fprintf(stderr, "%.0f MiB  %.0f MiB/s", mib, secs > 0 ? mib / secs : 0);
    if (part > 0.02 && part < 1.0)
        fprintf(stderr, "  %.0f s left", secs / part * (1 - part));
    (void)fflush(stderr);
}

void tg_progress_add(struct tg_progress *p, uint64_t n)
{
    uint64_t now, last;

    if (p == NULL)
        return;
    atomic_fetch_add(&p->done, n);
    now = tg_clock_mono_ns();
    if (now - p->start < SECOND)
        return;
    last = atomic_load(&p->drawn);
    /* Whoever moves the mark draws; the others go on. */
    if (now - last >= REDRAW && atomic_compare_exchange_strong(&p->drawn, &last, now))
        draw(p, now);
}

void tg_progress_free(struct tg_progress *p)
{
    if (p == NULL)
        return;
    if (atomic_load(&p->drawn) != 0) {
        fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
    }
    tg_free(p);
}
