#include "moai/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/region.h"
#include "crypto/random.h"

#define PAGE 4096
#define PAGE_WORDS 8   /* different words of a cluster in one page: a piece of the model */
#define TOTAL_WORDS 60 /* in all: a copy that is spread out */
#define CLUSTER_BYTES ((size_t)TG_SCAN_WORDS * 4)
#define PLAIN_PER_CLUSTER 32768
#define CLUSTERS_LEAST 16
#define FILTER_BITS 20
#define SLOTS (1u << 19) /* more than twice the words there can be */
#define MAPS_MAX (4u << 20)

struct slot {
    uint32_t masked;
    uint32_t id; /* cluster * TG_SCAN_WORDS + word, + 1; 0: free */
};

struct bits {
    uint64_t v[2];
};

struct side {
    struct bits total[TG_SCAN_CLUSTERS_MAX];
    uint8_t found[TG_SCAN_CLUSTERS_MAX];
    struct tg_scan_found sum;
};

struct tg_scan {
    uint32_t mask;
    uint32_t n;                                          /* clusters */
    size_t at[TG_SCAN_CLUSTERS_MAX];                     /* where they were */
    uint32_t words[TG_SCAN_CLUSTERS_MAX][TG_SCAN_WORDS]; /* masked */
    struct slot slots[SLOTS];
    uint64_t filter[(1u << FILTER_BITS) / 64];
    struct side sides[TG_SCAN_SIDES];
    struct bits page[TG_SCAN_CLUSTERS_MAX];
    uint16_t touched[TG_SCAN_CLUSTERS_MAX];
    size_t n_touched;
};

enum tg_rc tg_scan_new(struct tg_scan **out, struct tg_err *err)
{
    struct tg_scan *s = tg_calloc(1, sizeof(*s));

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (tg_random(&s->mask, sizeof(s->mask)) != TG_OK) {
        tg_free(s);
        return TG_FAIL(err, TG_E_INTERNAL, "the search: the system gives no random bytes");
    }
    *out = s;
    return TG_OK;
}

void tg_scan_free(struct tg_scan *s)
{
    if (s != NULL)
        tg_wipe(s, sizeof(*s));
    tg_free(s);
}

void tg_scan_freep(struct tg_scan **s)
{
    tg_scan_free(*s);
}

static uint32_t hash(uint32_t w)
{
    return w * 2654435761U;
}

/* As the processor has them: weights lie so in memory. */
static uint32_t word_at(const uint8_t *p)
{
    uint32_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

static void put_word(uint8_t *p, uint32_t w)
{
    memcpy(p, &w, sizeof(w));
}

/* ---- planting ---- */

/* As weights are: neither tiny nor large, and not a round number, which any memory may hold. */
static bool is_weight(uint32_t w)
{
    uint32_t exponent = w >> 23 & 0xFF;

    return exponent >= 127 - 24 && exponent <= 127 + 10 && (w & 0x7FF) != 0;
}

/* Is every word of it a float like a weight? Or, with `any`, is it at least no filler? All
 * different either way. */
static bool is_cluster(const uint8_t *p, bool any)
{
    for (size_t i = 0; i < TG_SCAN_WORDS; i++) {
        uint32_t w = word_at(p + i * 4);

        if (any ? (w & 0xFFFF) == 0 || w >> 16 == 0 : !is_weight(w))
            return false;
        for (size_t k = 0; k < i; k++)
            if (word_at(p + k * 4) == w)
                return false;
    }
    return true;
}

static void add_word(struct tg_scan *s, uint32_t w, uint32_t id)
{
    uint32_t at = hash(w) >> (32 - 19);
    uint32_t bit = hash(w) >> (32 - FILTER_BITS);

    s->filter[bit / 64] |= UINT64_C(1) << (bit % 64);
    while (s->slots[at].id != 0) {
        if (s->slots[at].masked == (w ^ s->mask))
            return; /* another cluster's too: it counts there */
        at = (at + 1) % SLOTS;
    }
    s->slots[at] = (struct slot){w ^ s->mask, id + 1};
}

/* Clusters must not share bytes: one that is found would show as two. */
static bool is_taken(const struct tg_scan *s, size_t at)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->at[i] < at + CLUSTER_BYTES && at < s->at[i] + CLUSTER_BYTES)
            return true;
    return false;
}

static void add_cluster(struct tg_scan *s, const uint8_t *p, size_t at)
{
    s->at[s->n] = at;
    for (uint32_t i = 0; i < TG_SCAN_WORDS; i++) {
        uint32_t w = word_at(p + i * 4);

        s->words[s->n][i] = w ^ s->mask;
        add_word(s, w, s->n * TG_SCAN_WORDS + i);
    }
    s->n++;
}

/* Try around one place: floats at any of the four phases first. */
static bool try_place(struct tg_scan *s, struct tg_bytes plain, size_t at, bool any)
{
    for (size_t phase = 0; phase < (any ? 1 : 4); phase++) {
        struct tg_bytes b = tg_bytes_sub(plain, at + phase, CLUSTER_BYTES);

        if (b.n == CLUSTER_BYTES && !is_taken(s, at + phase) && is_cluster(b.p, any)) {
            add_cluster(s, b.p, at + phase);
            return true;
        }
    }
    return false;
}

enum tg_rc tg_scan_plant(struct tg_scan *s, struct tg_bytes plain, struct tg_err *err)
{
    size_t want = plain.n / PLAIN_PER_CLUSTER;

    if (want < CLUSTERS_LEAST)
        want = CLUSTERS_LEAST;
    if (want > TG_SCAN_CLUSTERS_MAX)
        want = TG_SCAN_CLUSTERS_MAX;
    for (unsigned pass = 0; pass < 2 && s->n < CLUSTERS_LEAST / 2; pass++)
        for (size_t tries = want * 16; tries > 0 && s->n < want; tries--) {
            uint64_t r = 0;

            if (tg_random(&r, sizeof(r)) != TG_OK)
                return TG_FAIL(err, TG_E_INTERNAL, "the search: the system gives no random bytes");
            (void)try_place(s, plain, plain.n > 0 ? (size_t)(r % plain.n) : 0, pass == 1);
        }
    if (s->n < CLUSTERS_LEAST / 2)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "only %" PRIu32 " places of the model can be told from other memory; a "
                       "larger model is needed",
                       s->n);
    return TG_OK;
}

bool tg_scan_any(const struct tg_scan_found *f)
{
    return f->pages > 0 || f->clusters > 0;
}

size_t tg_scan_clusters(const struct tg_scan *s)
{
    return s->n;
}

void tg_scan_control(const struct tg_scan *s, size_t cluster, uint8_t *out)
{
    for (size_t i = 0; i < TG_SCAN_WORDS; i++)
        put_word(out + i * 4, s->words[cluster][i] ^ s->mask);
}

/* ---- searching ---- */

static unsigned count(struct bits b)
{
    return (unsigned)(__builtin_popcountll(b.v[0]) + __builtin_popcountll(b.v[1]));
}

static void hit(struct tg_scan *s, uint32_t id)
{
    uint32_t cluster = id / TG_SCAN_WORDS, word = id % TG_SCAN_WORDS;
    struct bits *page = &s->page[cluster];

    if (page->v[0] == 0 && page->v[1] == 0)
        s->touched[s->n_touched++] = (uint16_t)cluster;
    page->v[word / 64] |= UINT64_C(1) << (word % 64);
}

static void look(struct tg_scan *s, uint32_t w)
{
    uint32_t at = hash(w) >> (32 - 19);

    for (; s->slots[at].id != 0; at = (at + 1) % SLOTS)
        if (s->slots[at].masked == (w ^ s->mask)) {
            hit(s, s->slots[at].id - 1);
            return;
        }
}

static bool end_page(struct tg_scan *s, struct side *side)
{
    bool piece = false;

    for (size_t i = 0; i < s->n_touched; i++) {
        uint32_t c = s->touched[i];
        struct bits *page = &s->page[c];

        side->total[c].v[0] |= page->v[0];
        side->total[c].v[1] |= page->v[1];
        if (count(*page) >= PAGE_WORDS) {
            side->found[c] = 1;
            side->sum.words += count(*page);
            piece = true;
        }
        *page = (struct bits){
            {0, 0}
        };
    }
    s->n_touched = 0;
    return piece;
}

/* A word may begin in one page and end in the next: it counts in the first. */
void tg_scan_range(struct tg_scan *s, const void *p, size_t n, enum tg_scan_side whose)
{
    struct side *side = &s->sides[whose];
    struct tg_bytes all = tg_bytes_make(p, n);

    for (size_t from = 0; from + 4 <= n; from += PAGE) {
        struct tg_bytes b = tg_bytes_sub(all, from, PAGE + 3);
        size_t end = b.n >= 4 ? b.n - 3 : 0;

        for (size_t i = 0; i < end; i++) {
            uint32_t w = word_at(b.p + i);
            uint32_t bit = hash(w) >> (32 - FILTER_BITS);

            if ((s->filter[bit / 64] >> (bit % 64) & 1) != 0)
                look(s, w);
        }
        if (end_page(s, side))
            side->sum.pages++;
    }
    side->sum.searched += n;
}

void tg_scan_begin(struct tg_scan *s)
{
    memset(s->sides, 0, sizeof(s->sides));
}

void tg_scan_result(struct tg_scan *s, enum tg_scan_side whose, struct tg_scan_found *out)
{
    struct side *side = &s->sides[whose];

    side->sum.clusters = 0;
    for (size_t c = 0; c < s->n; c++)
        side->sum.clusters += side->found[c] != 0 || count(side->total[c]) >= TOTAL_WORDS;
    *out = side->sum;
}

/* ---- the whole process ---- */

struct mapping {
    uintptr_t from, to;
    bool readable;
    struct tg_bytes name;
};

static bool number(struct tg_rd *r, uint8_t until, uintptr_t *out)
{
    uint8_t c = 0;

    *out = 0;
    while (tg_rd_u8(r, &c) == TG_OK && c != until) {
        if (c >= '0' && c <= '9')
            *out = *out << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            *out = *out << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return false;
    }
    return c == until;
}

/* Where the words after `fields` fields begin: a name may hold spaces ("/memfd:x (deleted)"). */
static size_t after_fields(struct tg_bytes line, size_t fields)
{
    size_t at = 0;

    for (; fields > 0; fields--) {
        while (at < line.n && line.p[at] != ' ')
            at++;
        while (at < line.n && line.p[at] == ' ')
            at++;
    }
    return at;
}

/* "from-to rwxp offset device inode   name" */
static bool parse(struct tg_bytes line, struct mapping *m)
{
    struct tg_rd r = tg_rd_init(line);
    struct tg_bytes mode = TG_BYTES_NONE;
    size_t name = after_fields(line, 5);

    if (!number(&r, '-', &m->from) || !number(&r, ' ', &m->to) ||
        tg_rd_bytes(&r, 4, &mode) != TG_OK)
        return false;
    m->readable = mode.p[0] == 'r';
    m->name = tg_bytes_sub(line, name, line.n - name);
    return m->from < m->to;
}

/* Memory of the kernel's that only looks like ours. */
static bool is_kernels(struct tg_bytes name)
{
    return name.n >= 2 && name.p[0] == '[' && name.p[1] == 'v';
}

/* A copy is a mapping by itself. */
static enum tg_scan_side side_of(const struct tg_scan_process_opts *o, const void *p)
{
    struct tg_handover_copy copy;

    if (tg_region_has(p))
        return TG_SCAN_INSIDE;
    for (size_t i = 0; o->handover != NULL && tg_handover_copy(o->handover, i, &copy); i++)
        if (copy.map == p)
            return TG_SCAN_HANDED;
    return TG_SCAN_OUTSIDE;
}

static void scan_mapping(struct tg_scan *s, const struct mapping *m,
                         const struct tg_scan_process_opts *o)
{
    const void *p;
    const struct tg_scan_found *outside = &s->sides[TG_SCAN_OUTSIDE].sum;
    uint64_t before = outside->pages;

    memcpy(&p, &m->from, sizeof(p));
    tg_scan_range(s, p, m->to - m->from, side_of(o, p));
    if (o->tell && outside->pages > before)
        tg_log(TG_LOG_WARN, "moai.scan", "mapping=\"%.*s\" pages=%" PRIu64, (int)m->name.n,
               (const char *)m->name.p, outside->pages - before);
}

/* All of it before anything is searched: searching changes nothing, reading the list might. */
static enum tg_rc read_maps(int fd, struct tg_buf *text, struct tg_err *err)
{
    if (lseek(fd, 0, SEEK_SET) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "/proc/self/maps");
    for (;;) {
        uint8_t *at = NULL;
        ssize_t n;

        if (tg_buf_reserve(text, 65536, &at) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        n = read(fd, at, 65536);
        if (n < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "/proc/self/maps");
        if (n == 0)
            return TG_OK;
        tg_buf_grow(text, (size_t)n);
    }
}

enum tg_rc tg_scan_process(struct tg_scan *s, const struct tg_scan_process_opts *o,
                           struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(MAPS_MAX);
    struct tg_bytes all;

    TG_TRY(read_maps(o->maps, &text, err));
    all = tg_buf_view(&text);
    while (all.n > 0) {
        const uint8_t *end = memchr(all.p, '\n', all.n);
        size_t n = end != NULL ? (size_t)(end - all.p) : all.n;
        struct mapping m;

        if (parse(tg_bytes_sub(all, 0, n), &m) && m.readable && !is_kernels(m.name))
            scan_mapping(s, &m, o);
        all = tg_bytes_sub(all, n + 1, all.n);
    }
    return TG_OK;
}
