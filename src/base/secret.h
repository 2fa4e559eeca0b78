/* Memory for secrets: page-aligned, guard pages on both sides, mlocked, left out of core dumps,
 * not inherited by fork (zeroed in the child), wiped when released.
 * For long-lived keys and for a model's plaintext. In a process with a protected region
 * (base/region.h) it is a piece of that, at the level that the region has. */
#ifndef TG_BASE_SECRET_H
#define TG_BASE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tg_secret;

/* Map n bytes (> 0), zeroed. The start is aligned to a page.
 * @retval TG_E_NOMEM  not enough memory, or it could not be locked: err says what RLIMIT_MEMLOCK
 *                     is, what is needed, and how to raise it
 * @retval TG_E_LIMIT  n overflows */
TG_RC tg_secret_new(size_t n, struct tg_secret **out, struct tg_err *err);
uint8_t *tg_secret_data(struct tg_secret *s);
size_t tg_secret_size(const struct tg_secret *s);
/* From now on the bytes can be read but not written. */
TG_RC tg_secret_seal(struct tg_secret *s, struct tg_err *err);
/* Keep the first `keep` bytes (> 0, rounded up to a page); wipe and give back the others. What is
 * kept stays where it is, sealed if it was. @retval TG_E_IO nothing was given back */
TG_RC tg_secret_trim(struct tg_secret *s, size_t keep, struct tg_err *err);
/* Wipe, unlock, unmap. NULL is fine. */
void tg_secret_free(struct tg_secret *s);
TG_DEFINE_AUTO(struct tg_secret, tg_secret_freep, tg_secret_free);

#endif
