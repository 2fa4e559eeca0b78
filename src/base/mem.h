/* Heap memory. Everything in the house allocates here, so a test can fail the i-th allocation. */
#ifndef TG_BASE_MEM_H
#define TG_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Freed with tg_free. NULL when memory is out (or the fault counter fires). n = 0 gives a
 * unique pointer. */
void tg_free(void *p);
__attribute__((malloc, alloc_size(1))) void *tg_alloc(size_t n);
/* Zeroed; NULL also when count * size overflows. */
__attribute__((malloc, alloc_size(1, 2))) void *tg_calloc(size_t count, size_t size);
/* As realloc: on NULL the old block is untouched. Never use for secrets. */
void *tg_realloc(void *p, size_t n);
char *tg_strdup(const char *s);
/* printf into fresh memory; NULL when out of memory. */
char *tg_asprintf(const char *fmt, ...) TG_PRINTF(1, 2);

/* Cleanup for locals: TG_AUTO(tg_freep) char *s = ...; */
void tg_freep(void *pp);

/* Overwrite with zeros in a way the compiler keeps. p may be NULL if n is 0. */
void tg_wipe(void *p, size_t n);
/* Compare in time that depends on n alone. 1 equal, 0 different. */
int tg_ct_eq(const void *a, const void *b, size_t n);

/* An arena: many small pieces that live and die together (decoded JSON). Not for secrets.
 * Total size bounded by `max`. */
struct tg_arena;
/* @retval TG_E_NOMEM */
TG_RC tg_arena_new(size_t max, struct tg_arena **out);
/* Zeroed and aligned for any type; NULL when out of memory or over max. */
void *tg_arena_alloc(struct tg_arena *a, size_t count, size_t size);
char *tg_arena_strndup(struct tg_arena *a, const char *s, size_t n);
void tg_arena_free(struct tg_arena *a);
TG_DEFINE_AUTO(struct tg_arena, tg_arena_freep, tg_arena_free);

/* Fault injection for tests: make allocation number `nth` from now fail (0 = never), once or from
 * then on. The count of allocations so far is for the counting pass. Process-wide, thread-safe. */
void tg_mem_fault_set(uint64_t nth, int persistent);
uint64_t tg_mem_fault_count(void);

#endif
