/* Between the bookkeeping of the region (region.c) and its mappings (region_map.c). */
#ifndef TG_BASE_REGION_INTERNAL_H
#define TG_BASE_REGION_INTERNAL_H

#include "base/region.h"

/* Reserve about `max` bytes of addresses (less when there are not as many), aligned to `align`.
 * Sets *size. NULL: errno. */
uint8_t *tg_region_reserve(size_t max, size_t align, size_t *size);
/* Memory for bookkeeping: zeroed, outside the region, costs nothing until it is touched. */
void *tg_region_table(size_t n);

/* Make [p, p+n), whole segments, usable at that level. `huge`: large pages where the kernel has
 * them. 0, or the errno of what failed; then all of it is as before. */
int tg_region_map(uint8_t *p, size_t n, enum tg_level level, bool huge);
/* The reverse: only addresses stay. 0 or errno. */
int tg_region_unmap(uint8_t *p, size_t n);

/* Pieces that are likely to be used as a whole. Larger than a thread's stack: making their pages
 * takes threads, and those take stacks. */
#define TG_REGION_LARGE ((size_t)4 << 20)
/* Make every page of [p, p+n), which must be usable, and hold zeros, and be nobody's yet, by at
 * most that many threads. */
void tg_region_touch(uint8_t *p, size_t n, unsigned threads);

/* What to do about a failure to have `need` bytes at that level. */
enum tg_rc tg_region_remedy(enum tg_level level, int errnum, size_t need, struct tg_err *err);

#endif
