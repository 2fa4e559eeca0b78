/* malloc and its kin for the whole process: the program's own come first, whoever calls (ONNX
 * Runtime, libcrypto, libstdc++'s new, the C library itself).
 *
 * Large blocks are pieces of the protected region by themselves. Small ones are mimalloc's, over
 * pieces of the region handed to it one by one; it may not ask the system for any (its own account
 * of them lies outside). A block is overwritten when it is freed.
 *
 * All is set up before anything allocates (.preinit_array); should something come earlier still, a
 * small static buffer serves it. */
#include <errno.h>
#include <malloc.h>
#include <mimalloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "moai/protect.h"
#include "moai/sandbox.h"

#ifdef TG_MIMALLOC_DISALLOW
#define OPTION_NO_OS_MEMORY mi_option_disallow_os_alloc
#else
#define OPTION_NO_OS_MEMORY mi_option_limit_os_alloc
#endif

/* From here on a block is a piece of the region. */
#define LARGE_FROM ((size_t)128 << 10)
#define LARGE_ALIGN ((size_t)4096)
/* What mimalloc is handed at a time: what it works in, then more, as it has few places for them. */
#define CHUNK ((size_t)32 << 20)
#define CHUNKS_A_SIZE 8

#ifndef TG_SANITIZED

static struct {
    _Atomic bool ready;
    pthread_mutex_t lock; /* to be held for what is below */
    unsigned chunks;
    _Atomic size_t early_used;
    _Alignas(64) uint8_t early[65536];
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_early(const void *p)
{
    return (uintptr_t)p - (uintptr_t)heap.early < sizeof(heap.early);
}

static void *early_take(size_t n)
{
    size_t need = (n + 63) / 64 * 64;
    size_t at = atomic_fetch_add(&heap.early_used, need);

    return need >= n && need <= sizeof(heap.early) && at <= sizeof(heap.early) - need
               ? heap.early + at
               : NULL;
}

/* Another piece for mimalloc. */
static bool add_chunk(void)
{
    size_t size = CHUNK << (heap.chunks / CHUNKS_A_SIZE);
    void *p = tg_region_take(size, CHUNK);

    if (p == NULL)
        return false;
    /* "large" pages: mimalloc then never gives any of it back to the system by itself. */
    if (!mi_manage_os_memory(p, size, true, true, true, -1)) {
        tg_region_give(p);
        return false;
    }
    heap.chunks++;
    return true;
}

/* What is handed over is there already: nothing is committed late. mimalloc 3 would reserve an
 * arena of its own, outside the region, even where it may not ask the system for memory. */
static void set_up(int argc, char **argv, char **envp)
{
    static const struct {
        mi_option_t option;
        long value;
    } options[] =
        {
            {OPTION_NO_OS_MEMORY,          1},
#ifdef TG_MIMALLOC_DISALLOW
            {mi_option_arena_reserve,      0},
#endif
            {mi_option_eager_commit_delay, 0},
            {mi_option_use_numa_nodes,     1}, /* else it reads /sys, which the sandbox forbids */
            {mi_option_show_errors,        0},
            {mi_option_show_stats,         0},
            {mi_option_verbose,            0},
    };

    (void)envp;
    tg_protect_begin(argc, argv);
    for (size_t i = tg_region_is_open() ? 0 : 1; i < TG_ARRAY_LEN(options); i++)
        mi_option_set(options[i].option, options[i].value);
    if (tg_region_is_open())
        (void)add_chunk();
    atomic_store(&heap.ready, true);
}

/* ---- small blocks ---- */

static void *small_once(size_t n, size_t align, bool zero)
{
    if (align > sizeof(void *) * 2)
        return zero ? mi_zalloc_aligned(n, align) : mi_malloc_aligned(n, align);
    return zero ? mi_zalloc(n) : mi_malloc(n);
}

/* A thread that is inside mimalloc may take what was just brought for us: so a few times. */
static void *small(size_t n, size_t align, bool zero)
{
    void *p = small_once(n, align, zero);

    if (p != NULL || !tg_region_is_open())
        return p;
    pthread_mutex_lock(&heap.lock);
    for (unsigned tries = 8; tries > 0; tries--) {
        p = small_once(n, align, zero);
        if (p != NULL || !add_chunk())
            break;
    }
    pthread_mutex_unlock(&heap.lock);
    return p;
}

/* ---- all blocks ---- */

static void *take(size_t n, size_t align, bool zero)
{
    void *p;

    if (!atomic_load_explicit(&heap.ready, memory_order_acquire))
        p = early_take(n);
    else if (tg_region_is_open() && (n >= LARGE_FROM || align > LARGE_ALIGN))
        p = tg_region_take(n != 0 ? n : 1, align);
    else
        p = small(n, align, zero);
    if (p == NULL)
        errno = ENOMEM;
    return p;
}

static size_t usable(void *p)
{
    size_t n = 0;

    if (p == NULL)
        return 0;
    if (is_early(p))
        return sizeof(heap.early) - (size_t)((uintptr_t)p - (uintptr_t)heap.early);
    if ((uintptr_t)p % TG_REGION_UNIT == 0)
        n = tg_region_size(p);
    return n != 0 ? n : mi_usable_size(p);
}

static void give(void *p)
{
    int e = errno;

    if (p == NULL || is_early(p))
        return;
    if ((uintptr_t)p % TG_REGION_UNIT == 0 && tg_region_size(p) != 0) {
        tg_region_give(p);
    } else {
        tg_wipe(p, mi_usable_size(p));
        mi_free(p);
    }
    errno = e;
}

void *malloc(size_t n)
{
    return take(n, 1, false);
}

void free(void *p)
{
    give(p);
}

void *calloc(size_t count, size_t size)
{
    size_t n;

    if (!tg_mul_size(count, size, &n)) {
        errno = ENOMEM;
        return NULL;
    }
    return take(n, 1, true);
}

/* In place where the block is large enough and not twice as large as needed. */
void *realloc(void *p, size_t n)
{
    size_t had = usable(p);
    void *q;

    if (p != NULL && n != 0 && n <= had && n >= had / 2 && !is_early(p))
        return p;
    if (p != NULL && n == 0) {
        give(p);
        return NULL;
    }
    q = take(n, 1, false);
    if (q != NULL && p != NULL) {
        memcpy(q, p, had < n ? had : n);
        give(p);
    }
    return q;
}

static bool power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

int posix_memalign(void **out, size_t align, size_t n)
{
    int e = errno;
    void *p;

    if (!power_of_two(align) || align % sizeof(void *) != 0)
        return EINVAL;
    p = take(n, align, false);
    errno = e;
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

void *aligned_alloc(size_t align, size_t n)
{
    if (!power_of_two(align)) {
        errno = EINVAL;
        return NULL;
    }
    return take(n, align, false);
}

void *memalign(size_t align, size_t n)
{
    return aligned_alloc(align, n);
}

void *valloc(size_t n)
{
    return aligned_alloc((size_t)sysconf(_SC_PAGESIZE), n);
}

void *pvalloc(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (!tg_add_size(n, page - 1, &n)) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned_alloc(page, n / page * page);
}

size_t malloc_usable_size(void *p)
{
    return usable(p);
}

#else /* a sanitizer brings its own malloc; keys, plaintext and stacks are in the region all the   \
         same */

static void set_up(int argc, char **argv, char **envp)
{
    (void)envp;
    tg_protect_begin(argc, argv);
}

#endif

__attribute__((section(".preinit_array"), used)) static void (*const before_all)(int, char **,
                                                                                 char **) = set_up;
