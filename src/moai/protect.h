/* The level of protection that a worker's memory has, and what was asked for. The heap (heap.c)
 * has made the region before main; here it is judged. */
#ifndef TG_MOAI_PROTECT_H
#define TG_MOAI_PROTECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/region.h"

/* The options that name the level, and the most memory in MiB (0: as much as the machine has). The
 * heap reads them from the command line before main: the region's range of addresses is all memory
 * that the process will ever have for itself, as the limit on addresses (moai/sandbox.h) is set
 * around it. What the program needs without any model comes on top. */
#define TG_PROTECT_OPTION "protection"
#define TG_PROTECT_MEMORY "memory-max"
#define TG_PROTECT_MEMORY_MAX (UINT64_C(1) << 23)
#define TG_PROTECT_OWN_MIB 256

/* What people write for the least level: "secret", "locked", or "any" (TG_LEVEL_NONE: whatever
 * there is). false: none of them. */
bool tg_protect_parse(const char *text, enum tg_level *out);

/* Make the region before anything allocates: at the level asked for, or, for "any", locked; where
 * that can't be had at the next lower one, so that the process lives to say so. */
void tg_protect_begin(int argc, char *const *argv);

/* Refuse to go on below `least`, now and when more memory is needed later.
 * @retval TG_E_NOMEM        RLIMIT_MEMLOCK is in the way: err says how much, and the remedy
 * @retval TG_E_UNSUPPORTED  this kernel has no memfd_secret: as above
 * @retval TG_E_STATE        there is no region at all */
TG_RC tg_protect_require(enum tg_level least, struct tg_err *err);

/* Does malloc lie in the region? false in builds with a sanitizer, which brings its own. */
bool tg_protect_heap(void);

#endif
