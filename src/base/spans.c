#include "base/spans.h"

#include <string.h>

/* The first span whose end is at or after off; n: none. */
static size_t first_reaching(const struct tg_spans *s, uint64_t off)
{
    size_t i = 0;

    while (i < s->n && s->v[i].end < off)
        i++;
    return i;
}

enum tg_rc tg_spans_add(struct tg_spans *s, uint64_t off, uint64_t end)
{
    struct tg_span all = {off, end};
    size_t i, j;

    if (end <= off)
        return TG_OK;
    i = first_reaching(s, off);
    for (j = i; j < s->n && s->v[j].off <= end; j++) {
        all.off = s->v[j].off < all.off ? s->v[j].off : all.off;
        all.end = s->v[j].end > all.end ? s->v[j].end : all.end;
    }
    if (i == j && s->n == TG_SPANS_MAX)
        return TG_E_LIMIT;
    /* i..j become one */
    memmove(&s->v[i + 1], &s->v[j], (s->n - j) * sizeof s->v[0]);
    s->v[i] = all;
    s->n = s->n + 1 - (j - i);
    return TG_OK;
}

bool tg_spans_has(const struct tg_spans *s, uint64_t off, uint64_t end)
{
    struct tg_span hole;

    return !tg_spans_hole(s, off, end, &hole);
}

bool tg_spans_hole(const struct tg_spans *s, uint64_t from, uint64_t to, struct tg_span *hole)
{
    for (size_t i = 0; i < s->n && from < to && s->v[i].off < to; i++) {
        if (s->v[i].end <= from)
            continue;
        if (s->v[i].off > from) {
            *hole = (struct tg_span){from, s->v[i].off};
            return true;
        }
        from = s->v[i].end;
    }
    if (from >= to)
        return false;
    *hole = (struct tg_span){from, to};
    return true;
}

uint64_t tg_spans_prefix(const struct tg_spans *s)
{
    return s->n > 0 && s->v[0].off == 0 ? s->v[0].end : 0;
}

uint64_t tg_spans_bytes(const struct tg_spans *s)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i].end - s->v[i].off;
    return sum;
}

bool tg_spans_valid(const struct tg_spans *s, uint64_t size)
{
    if (s->n > TG_SPANS_MAX)
        return false;
    for (size_t i = 0; i < s->n; i++) {
        const struct tg_span *v = &s->v[i];

        if (v->off >= v->end || v->end > size || (i > 0 && v->off <= v[-1].end))
            return false;
    }
    return true;
}
