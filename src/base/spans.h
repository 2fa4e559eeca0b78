/* Which bytes of a file are there: ascending byte ranges that do not touch. A plain value. */
#ifndef TG_BASE_SPANS_H
#define TG_BASE_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TG_SPANS_MAX 64

/* [off, end) */
struct tg_span {
    uint64_t off, end;
};

struct tg_spans {
    struct tg_span v[TG_SPANS_MAX];
    size_t n;
};

/* Add [off, end); what it overlaps or touches becomes one span with it. Nothing to do when empty.
 * @retval TG_E_LIMIT there would be more than TG_SPANS_MAX; s is unchanged */
TG_RC tg_spans_add(struct tg_spans *s, uint64_t off, uint64_t end);
/* Is all of [off, end) there? True when empty. */
bool tg_spans_has(const struct tg_spans *s, uint64_t off, uint64_t end);
/* The first hole in [from, to), cut to it. false: there is none. */
bool tg_spans_hole(const struct tg_spans *s, uint64_t from, uint64_t to, struct tg_span *hole);
/* How many bytes from 0 on are there without a hole. */
uint64_t tg_spans_prefix(const struct tg_spans *s);
/* Bytes in all of them. */
uint64_t tg_spans_bytes(const struct tg_spans *s);
/* n <= TG_SPANS_MAX, none empty, ascending, not touching, none beyond size? */
bool tg_spans_valid(const struct tg_spans *s, uint64_t size);

#endif
