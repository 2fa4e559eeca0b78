#include "tgsp/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define PAGE_BYTES 4096
#define MARK UINT64_C(0x5447415252495645) /* "TGARRIVE" */
#define LOOKS 100 /* a writer that runs is done in less than a microsecond */

/* A sequence lock: `turn` is odd while the writer is at it. */
struct page {
    _Atomic uint64_t mark, size, turn;
    _Atomic uint64_t ended, again, n;
    _Atomic uint64_t off[TG_SPANS_MAX], end[TG_SPANS_MAX];
    _Atomic uint32_t bell;
};

_Static_assert(sizeof(struct page) <= PAGE_BYTES, "one page");

struct tg_arrival {
    struct page *page;
    int fd; /* the writer's; -1 */
    uint64_t size;
};

static enum tg_rc page_map(struct tg_arrival *a, int fd, int prot, struct tg_err *err)
{
    void *at = mmap(NULL, PAGE_BYTES, prot, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return TG_FAIL_ERRNO(err, errno == ENOMEM ? TG_E_NOMEM : TG_E_IO,
                             "arrival page: cannot map it");
    a->page = at;
    return TG_OK;
}

void tg_arrival_free(struct tg_arrival *a)
{
    if (!a)
        return;
    if (a->page)
        (void)munmap(a->page, PAGE_BYTES);
    tg_fd_close(a->fd);
    tg_free(a);
}

/* ---- the writer ---- */

enum tg_rc tg_arrival_new(uint64_t size, struct tg_arrival **out, struct tg_err *err)
{
    TG_AUTO(tg_arrival_freep) struct tg_arrival *a = tg_calloc(1, sizeof *a);
    if (!a)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    a->size = size;
    a->fd = memfd_create("arrival", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (a->fd < 0 || ftruncate(a->fd, PAGE_BYTES) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "arrival page");
    TG_TRY(page_map(a, a->fd, PROT_READ | PROT_WRITE, err));
    /* Nobody else can map it writable, or make it shorter under us. */
    if (fcntl(a->fd, F_ADD_SEALS,
              F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "arrival page: cannot seal it");
    atomic_store(&a->page->size, size);
    atomic_store(&a->page->mark, MARK);
    *out = tg_steal(&a);
    return TG_OK;
}

int tg_arrival_fd(const struct tg_arrival *a)
{
    return a->fd;
}

static long futex(const _Atomic uint32_t *word, int op, uint32_t val, const struct timespec *t)
{
    return syscall(SYS_futex, word, op, val, t, NULL, 0);
}

static void turn_begin(struct page *p)
{
    uint64_t t = atomic_load_explicit(&p->turn, memory_order_relaxed);
    atomic_store_explicit(&p->turn, t + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void turn_end(struct page *p)
{
    uint64_t t = atomic_load_explicit(&p->turn, memory_order_relaxed);
    atomic_store_explicit(&p->turn, t + 1, memory_order_release);
    atomic_fetch_add(&p->bell, 1);
    (void)futex(&p->bell, FUTEX_WAKE, INT32_MAX, NULL);
}

void tg_arrival_show(struct tg_arrival *a, const struct tg_spans *there)
{
    struct page *p = a->page;
    turn_begin(p);
    for (size_t i = 0; i < there->n; i++) {
        atomic_store_explicit(&p->off[i], there->v[i].off, memory_order_relaxed);
        atomic_store_explicit(&p->end[i], there->v[i].end, memory_order_relaxed);
    }
    atomic_store_explicit(&p->n, there->n, memory_order_relaxed);
    turn_end(p);
}

void tg_arrival_again(struct tg_arrival *a)
{
    turn_begin(a->page);
    atomic_fetch_add_explicit(&a->page->again, 1, memory_order_relaxed);
    turn_end(a->page);
}

void tg_arrival_end(struct tg_arrival *a)
{
    turn_begin(a->page);
    atomic_store_explicit(&a->page->ended, 1, memory_order_relaxed);
    turn_end(a->page);
}

/* ---- the reader ---- */

enum tg_rc tg_arrival_open(int fd, struct tg_arrival **out, struct tg_err *err)
{
    struct stat st;
    TG_AUTO(tg_arrival_freep) struct tg_arrival *a = tg_calloc(1, sizeof *a);
    if (!a)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    a->fd = -1;
    if (fstat(fd, &st) != 0 || st.st_size != PAGE_BYTES) /* mapped and short: SIGBUS */
        return TG_FAIL(err, TG_E_FORMAT, "arrival page: not one page of memory");
    TG_TRY(page_map(a, fd, PROT_READ, err));
    if (atomic_load(&a->page->mark) != MARK)
        return TG_FAIL(err, TG_E_FORMAT, "arrival page: not one of ours");
    a->size = atomic_load(&a->page->size);
    *out = tg_steal(&a);
    return TG_OK;
}

uint64_t tg_arrival_size(const struct tg_arrival *a)
{
    return a->size;
}

/* One try; false: the writer was at it. */
static bool copy_out(const struct page *p, struct tg_arrived *out)
{
    uint64_t t = atomic_load_explicit(&p->turn, memory_order_acquire);
    if (t & 1)
        return false;
    uint64_t n = atomic_load_explicit(&p->n, memory_order_relaxed);
    out->there.n = n <= TG_SPANS_MAX ? (size_t)n : TG_SPANS_MAX + 1;
    for (size_t i = 0; i < n && i < TG_SPANS_MAX; i++) {
        out->there.v[i].off = atomic_load_explicit(&p->off[i], memory_order_relaxed);
        out->there.v[i].end = atomic_load_explicit(&p->end[i], memory_order_relaxed);
    }
    out->again = atomic_load_explicit(&p->again, memory_order_relaxed);
    out->ended = atomic_load_explicit(&p->ended, memory_order_relaxed) != 0;
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&p->turn, memory_order_relaxed) == t;
}

enum tg_rc tg_arrival_look(const struct tg_arrival *a, struct tg_arrived *out, struct tg_err *err)
{
    /* before the look: what changes after it rings again */
    out->bell = atomic_load(&a->page->bell);
    for (int i = 0; i < LOOKS; i++) {
        if (!copy_out(a->page, out)) {
            (void)sched_yield();
            continue;
        }
        if (tg_spans_valid(&out->there, a->size))
            return TG_OK;
        return TG_FAIL(err, TG_E_FORMAT, "arrival page: what it says makes no sense");
    }
    return TG_E_AGAIN;
}

void tg_arrival_wait(const struct tg_arrival *a, uint32_t bell, uint32_t ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)futex(&a->page->bell, FUTEX_WAIT, bell, &t);
}
