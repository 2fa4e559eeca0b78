#include "crypto/sha256_many.h"

#include <stdbool.h>

#include "base/macros.h"
#include "base/mem.h"
#include "crypto/mb_internal.h"

/* Best first; what one leaves over goes to the next, and to libcrypto in the end. */
enum { WIDE, NARROW, WAYS };

static const enum tg_sha256_way order[WAYS] = {
    [WIDE] = TG_SHA256_WIDE, [NARROW] = TG_SHA256_NARROW};

struct tg_sha256_many {
    struct tg_sha256_ctx *one;

    struct {
        struct tg_mb *mb; /* made when first needed: most threads need one kind only */
        unsigned lanes;   /* 0: not to be used */
        unsigned min;     /* fewer messages than this are faster elsewhere */
    } way[WAYS];
};

enum tg_rc tg_sha256_many_new(unsigned ways, struct tg_sha256_many **out)
{
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = tg_calloc(1, sizeof *h);
    if (!h)
        return TG_E_NOMEM;
    TG_TRY(tg_sha256_new(&h->one));
    for (int w = 0; w < WAYS; w++)
        h->way[w].lanes = (ways & order[w]) != 0 ? tg_mb_lanes(order[w]) : 0;
    h->way[NARROW].min = h->way[NARROW].lanes;
    /* Lanes that stay empty cost as much as full ones. With all of them full both ways are about as
     * fast (docs/spec/tgsp-1.0.md §4: a default chunk has 32 pieces); half of them are worth as
     * much as libcrypto. */
    h->way[WIDE].min = h->way[NARROW].lanes ? h->way[WIDE].lanes : h->way[WIDE].lanes / 2 + 1;
    *out = tg_steal(&h);
    return TG_OK;
}

void tg_sha256_many_free(struct tg_sha256_many *h)
{
    if (!h)
        return;
    for (int w = 0; w < WAYS; w++)
        tg_mb_free(h->way[w].mb);
    tg_sha256_free(h->one);
    tg_free(h);
}

unsigned tg_sha256_many_ways(const struct tg_sha256_many *h)
{
    return (h->way[WIDE].lanes ? TG_SHA256_WIDE : 0U) |
           (h->way[NARROW].lanes ? TG_SHA256_NARROW : 0U);
}

/* How many of n messages go this way: whole rounds, and the rest if it is worth one. */
static size_t share(const struct tg_sha256_many *h, int w, size_t n)
{
    size_t lanes = h->way[w].lanes;
    if (lanes == 0)
        return 0;
    return n % lanes >= h->way[w].min ? n : n - n % lanes;
}

const char *tg_sha256_many_how(const struct tg_sha256_many *h, size_t n)
{
    if (share(h, WIDE, n) > 0)
        return h->way[WIDE].lanes == 16 ? "libipsec-mb, 16 lanes" : "libipsec-mb, 8 lanes";
    return share(h, NARROW, n) > 0 ? "libipsec-mb, 2 at a time" : "libcrypto";
}

static enum tg_rc by_libcrypto(struct tg_sha256_many *h, struct tg_bytes in, uint8_t *out)
{
    TG_TRY(tg_sha256_update(h->one, in));
    return tg_sha256_final(h->one, out);
}

struct batch {
    struct tg_bytes in[TG_MB_BATCH];
    uint8_t *out[TG_MB_BATCH];
    size_t n;
};

static enum tg_rc batch_hash(struct tg_sha256_many *h, const struct batch *b)
{
    size_t at = 0;
    for (int w = 0; w < WAYS; w++) {
        size_t n = share(h, w, b->n - at);
        if (n == 0)
            continue;
        if (!h->way[w].mb) {
            enum tg_rc rc = tg_mb_new(order[w], &h->way[w].mb);
            if (rc == TG_E_UNSUPPORTED) {
                h->way[w].lanes = 0; /* the library thinks otherwise of this processor */
                continue;
            }
            TG_TRY(rc);
        }
        TG_TRY(tg_mb_hash(h->way[w].mb, b->in + at, n, b->out + at));
        at += n;
    }
    for (; at < b->n; at++)
        TG_TRY(by_libcrypto(h, b->in[at], b->out[at]));
    return TG_OK;
}

enum tg_rc tg_sha256_many(struct tg_sha256_many *h, const struct tg_bytes *in, size_t n,
                          uint8_t (*out)[TG_SHA256_LEN])
{
    struct batch b = {.n = 0};
    for (size_t i = 0; i < n; i++) {
        if (in[i].n == 0 || in[i].n > TG_SHA256_MANY_LEN) {
            TG_TRY(by_libcrypto(h, in[i], out[i]));
            continue;
        }
        b.in[b.n] = in[i];
        b.out[b.n++] = out[i];
        if (b.n == TG_MB_BATCH) {
            TG_TRY(batch_hash(h, &b));
            b.n = 0;
        }
    }
    return batch_hash(h, &b);
}
