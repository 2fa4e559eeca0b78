/* The level of protection that a worker's memory has, and what was asked for. The heap (heap.c)
 * has made the region before main; here it is judged. */
#ifndef TG_MOAI_PROTECT_H
#define TG_MOAI_PROTECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/region.h"

/* The option that names the level. The heap reads it from the command line before main. */
#define TG_PROTECT_OPTION "protection"

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
