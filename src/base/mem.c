#include "base/mem.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static _Atomic uint64_t alloc_count;
static _Atomic uint64_t fault_at;
static _Atomic int fault_persistent;

void tg_mem_fault_set(uint64_t nth, int persistent)
{
    atomic_store(&alloc_count, 0);
    atomic_store(&fault_persistent, persistent);
    atomic_store(&fault_at, nth);
}

uint64_t tg_mem_fault_count(void)
{
    return atomic_load(&alloc_count);
}

static bool fault_fires(void)
{
    uint64_t at = atomic_load_explicit(&fault_at, memory_order_relaxed);
    uint64_t n = atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed) + 1;

    return at != 0 && (n == at || (n > at && atomic_load(&fault_persistent) != 0));
}

void *tg_alloc(size_t n)
{
    return fault_fires() ? NULL : malloc(n != 0 ? n : 1);
}

void *tg_calloc(size_t count, size_t size)
{
    size_t n;

    if (fault_fires() || !tg_mul_size(count, size, &n))
        return NULL;
    return calloc(1, n != 0 ? n : 1);
}

void *tg_realloc(void *p, size_t n)
{
    return fault_fires() ? NULL : realloc(p, n != 0 ? n : 1);
}

void tg_free(void *p)
{
    free(p);
}

void tg_freep(void *pp)
{
    void *p;

    /* pp is the address of a pointer of any object type. */
    memcpy(&p, pp, sizeof(p));
    free(p);
}

char *tg_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = tg_alloc(n);

    if (copy != NULL)
        memcpy(copy, s, n);
    return copy;
}

char *tg_asprintf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return NULL;
    s = tg_alloc((size_t)n + 1);
    if (s == NULL)
        return NULL;
    va_start(ap, fmt);
    (void)vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

void tg_wipe(void *p, size_t n)
{
    if (n != 0)
        explicit_bzero(p, n);
}

int tg_ct_eq(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *x = a;
    const volatile uint8_t *y = b;
    uint8_t diff = 0;

    for (size_t i = 0; i < n; i++)
        diff = (uint8_t)(diff | (x[i] ^ y[i]));
    return diff == 0;
}

/* ---- arena ---- */

struct block {
    struct block *next;
    size_t used, cap;
    alignas(max_align_t) uint8_t data[];
};

struct tg_arena {
    struct block *head;
    size_t total, max;
};

enum { ARENA_BLOCK = 4096 };

enum tg_rc tg_arena_new(size_t max, struct tg_arena **out)
{
    struct tg_arena *a = tg_calloc(1, sizeof(*a));

    if (a == NULL)
        return TG_E_NOMEM;
    a->max = max;
    *out = a;
    return TG_OK;
}

void *tg_arena_alloc(struct tg_arena *a, size_t count, size_t size)
{
    struct block *b = a->head;
    size_t n, need;
    void *p;

    if (!tg_mul_size(count, size, &n) || !tg_add_size(n, alignof(max_align_t) - 1, &n))
        return NULL;
    n &= ~(alignof(max_align_t) - 1);
    if (n == 0)
        n = alignof(max_align_t);
    if (b == NULL || b->cap - b->used < n) {
        size_t cap = n > ARENA_BLOCK ? n : ARENA_BLOCK;

        if (!tg_add_size(cap, sizeof(*b), &need) || need > a->max || a->total > a->max - need)
            return NULL;
        b = tg_alloc(need);
        if (b == NULL)
            return NULL;
        b->cap = cap;
        b->used = 0;
        b->next = a->head;
        a->head = b;
        a->total += need;
    }
    p = b->data + b->used;
    b->used += n;
    memset(p, 0, n);
    return p;
}

char *tg_arena_strndup(struct tg_arena *a, const char *s, size_t n)
{
    size_t need;
    char *p;

    if (!tg_add_size(n, 1, &need))
        return NULL;
    p = tg_arena_alloc(a, need, 1);
    if (p != NULL && n != 0)
        memcpy(p, s, n);
    return p;
}

void tg_arena_free(struct tg_arena *a)
{
    struct block *next;

    if (a == NULL)
        return;
    for (struct block *b = a->head; b != NULL; b = next) {
        next = b->next;
        tg_free(b);
    }
    tg_free(a);
}
