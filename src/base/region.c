#include "base/region.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/region_internal.h"

/* The range is tiled by pieces, free or not, of whole units. A piece is known at its first unit
 * (head) and at its last (tail); the fields of units inside it are zero. Free pieces hang in lists
 * by the logarithm of their length. A free unit of a usable segment holds zeros. */

enum state { INSIDE, FREE, USED, WIPING };

struct unit {
    uint32_t len;        /* head: units of the piece */
    uint32_t back;       /* tail: units of the piece */
    uint32_t prev, next; /* head of a free piece: its neighbours in the list, + 1 */
    uint32_t state;      /* head: enum state */
};

/* KEEPING: a hurry is over, what it kept is not given back yet. */
enum pace { EASY, HURRIED, KEEPING };

struct segment {
    uint8_t usable;
    uint8_t units; /* handed out: at most PER_SEGMENT */
};

#define PER_SEGMENT ((uint32_t)(TG_REGION_SEGMENT / TG_REGION_UNIT))
#define BINS 32
#define TRIES 64 /* pieces looked at in the list where some are too small */
#define BASE_ALIGN ((size_t)64 << 20)
/* Idle segments that are kept: some, and a part of what is in use. */
#define KEEP_LEAST 4
#define KEEP_PART 16
/* Units are counted in 32 bits. */
#define MAX_BYTES ((size_t)16 << 40)
#define MIN_BYTES ((size_t)1 << 30)

static const char *const level_names[TG_LEVELS] = {
    [TG_LEVEL_NONE] = "none",
    [TG_LEVEL_LOCKED] = "locked",
    [TG_LEVEL_SECRET] = "secret",
};

static struct {
    pthread_mutex_t lock; /* guards all below but base and size, which never change once open */
    _Atomic bool open;
    uint8_t *base;
    size_t size;
    struct unit *units;
    struct segment *segments;
    uint32_t n_units;
    uint32_t bins[BINS]; /* first free piece + 1 */
    enum tg_level want, level;
    bool settle;
    enum pace pace;
    unsigned threads;         /* HURRIED: that make pages */
    uint32_t usable, idle;    /* segments: mapped; of those, without a unit in use */
    uint32_t peak, most_busy; /* at most so far: usable; not idle */
    uint64_t used;            /* units */
    int why;                  /* errno of the last failure, 0: the range is full */
    int below;                /* errno of what lowered the level */
} region = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = TG_LEVEL_SECRET};

const char *tg_level_name(enum tg_level level)
{
    return level_names[level];
}

/* ---- free pieces ---- */

static unsigned bin_of(uint32_t len)
{
    return 31U - (unsigned)__builtin_clz(len);
}

static void set_piece(uint32_t at, uint32_t len, enum state state)
{
    region.units[at].len = len;
    region.units[at].state = (uint32_t)state;
    region.units[at + len - 1].back = len;
}

static void clear_piece(uint32_t at)
{
    struct unit *head = &region.units[at];

    region.units[at + head->len - 1].back = 0;
    *head = (struct unit){0};
}

static void list_add(uint32_t at, uint32_t len)
{
    uint32_t *first = &region.bins[bin_of(len)];
    struct unit *u = &region.units[at];

    set_piece(at, len, FREE);
    u->prev = 0;
    u->next = *first;
    if (*first != 0)
        region.units[*first - 1].prev = at + 1;
    *first = at + 1;
}

static void list_remove(uint32_t at)
{
    struct unit *u = &region.units[at];

    if (u->prev != 0)
        region.units[u->prev - 1].next = u->next;
    else
        region.bins[bin_of(u->len)] = u->next;
    if (u->next != 0)
        region.units[u->next - 1].prev = u->prev;
    clear_piece(at);
}

/* Join a piece that is in no list with free neighbours, and put the whole into its list. */
static uint32_t set_free(uint32_t at, uint32_t len)
{
    uint32_t end = at + len;

    if (at > 0) {
        uint32_t before = at - region.units[at - 1].back;

        if (region.units[before].state == FREE) {
            list_remove(before);
            at = before;
        }
    }
    if (end < region.n_units && region.units[end].state == FREE) {
        uint32_t after = region.units[end].len;

        list_remove(end);
        end += after;
    }
    list_add(at, end - at);
    return at;
}

/* The first unit from `at` on whose address `align` divides. */
static uint64_t aligned_from(uint32_t at, size_t align)
{
    uintptr_t p = (uintptr_t)region.base + (uintptr_t)at * TG_REGION_UNIT;

    return at + (align - p % align) % align / TG_REGION_UNIT;
}

static bool find(uint32_t len, size_t align, uint32_t *piece, uint32_t *start)
{
    for (unsigned b = bin_of(len); b < BINS; b++) {
        unsigned tries = TRIES;

        for (uint32_t i = region.bins[b]; i != 0 && tries > 0; tries--) {
            const struct unit *u = &region.units[i - 1];
            uint64_t at = aligned_from(i - 1, align);

            if (at + len <= (uint64_t)i - 1 + u->len) {
                *piece = i - 1;
                *start = (uint32_t)at;
                return true;
            }
            i = u->next;
        }
    }
    return false;
}

/* Cut [start, start + len) out of a free piece. */
static void carve(uint32_t piece, uint32_t start, uint32_t len)
{
    uint32_t end = piece + region.units[piece].len;

    list_remove(piece);
    if (start > piece)
        list_add(piece, start - piece);
    if (start + len < end)
        list_add(start + len, end - start - len);
    set_piece(start, len, USED);
}

/* ---- segments ---- */

static uint8_t *segment_at(uint32_t s)
{
    return region.base + (size_t)s * TG_REGION_SEGMENT;
}

static void set_usable(uint32_t first, uint32_t n, bool usable)
{
    for (uint32_t s = first; s < first + n; s++)
        region.segments[s].usable = usable;
    region.usable = usable ? region.usable + n : region.usable - n;
    region.idle = usable ? region.idle + n : region.idle - n;
    if (region.usable > region.peak)
        region.peak = region.usable;
}

static uint32_t busy(void)
{
    return region.usable - region.idle;
}

/* How many idle segments there are beyond those that are always kept. */
static uint32_t spare(void)
{
    uint32_t keep = KEEP_LEAST + busy() / KEEP_PART;

    return region.idle > keep ? region.idle - keep : 0;
}

/* The first run of idle segments in a free piece from segment `from` on, at most `most`. */
static bool idle_run(uint32_t piece, uint32_t from, uint32_t most, uint32_t *first, uint32_t *n)
{
    uint32_t s = (piece + PER_SEGMENT - 1) / PER_SEGMENT;
    uint32_t end = (piece + region.units[piece].len) / PER_SEGMENT;

    if (most == 0)
        return false;
    for (s = s > from ? s : from; s < end && region.segments[s].usable == 0; s++)
        ;
    *first = s;
    for (*n = 0; s < end && region.segments[s].usable != 0 && *n < most; s++)
        (*n)++;
    return *n > 0;
}

/* Give at most `most` idle segments of a free piece back to the machine. How many it were. */
static uint32_t give_back(uint32_t piece, uint32_t most)
{
    uint32_t sum = 0;

    for (uint32_t s = 0, n = 0; idle_run(piece, s + n, most - sum, &s, &n); sum += n) {
        if (tg_region_unmap(segment_at(s), (size_t)n * TG_REGION_SEGMENT) != 0)
            break; /* they stay, wiped */
        set_usable(s, n, false);
    }
    return sum;
}

static uint32_t give_back_any(uint32_t most)
{
    uint32_t sum = 0;

    for (uint32_t at = 0; at < region.n_units && sum < most; at += region.units[at].len)
        if (region.units[at].state == FREE)
            sum += give_back(at, most - sum);
    return sum;
}

/* A piece has become free. */
static void trim(uint32_t piece)
{
    if (region.pace == EASY)
        (void)give_back(piece, spare());
}

/* What is kept costs no memory: before n more segments are mapped, as many go that there are never
 * more than there would have been without it. */
static void make_room(uint32_t n)
{
    uint32_t need = busy() + n > region.most_busy ? busy() + n : region.most_busy;
    uint32_t allowed = need + KEEP_LEAST + need / KEEP_PART;

    if (region.pace != EASY && region.usable + n > allowed)
        (void)give_back_any(region.usable + n - allowed);
}

/* Map a run of segments at the level wanted, or, where we may settle, at the best there is. */
static bool map_run(uint32_t first, uint32_t n, bool huge)
{
    int e;

    make_room(n);
    while ((e = tg_region_map(segment_at(first), (size_t)n * TG_REGION_SEGMENT, region.want,
                              huge)) != 0) {
        region.why = e;
        if (give_back_any(UINT32_MAX) > 0)
            continue; /* what is idle may be what is missing */
        if (!region.settle || region.want == TG_LEVEL_NONE)
            return false;
        region.below = e;
        region.want--;
    }
    if (region.want < region.level)
        region.level = region.want;
    set_usable(first, n, true);
    return true;
}

/* Make every segment that the units touch usable. *fresh: some were not. */
static bool map_units(uint32_t at, uint32_t len, bool huge, bool *fresh)
{
    uint32_t last = (at + len - 1) / PER_SEGMENT;

    for (uint32_t s = at / PER_SEGMENT; s <= last;) {
        uint32_t n = 0;

        while (s + n <= last && region.segments[s + n].usable == 0)
            n++;
        if (n > 0 && !map_run(s, n, huge))
            return false;
        *fresh = *fresh || n > 0;
        s += n > 0 ? n : 1;
    }
    return true;
}

/* Count units in (sign 1) or out (-1). */
static void count_units(uint32_t at, uint32_t len, int sign)
{
    uint32_t end = at + len;

    region.used = sign > 0 ? region.used + len : region.used - len;
    while (at < end) {
        struct segment *s = &region.segments[at / PER_SEGMENT];
        uint32_t next = (at / PER_SEGMENT + 1) * PER_SEGMENT;
        uint32_t n = (next < end ? next : end) - at;

        if (sign > 0 && s->units == 0)
            region.idle--;
        s->units = (uint8_t)(sign > 0 ? s->units + n : s->units - n);
        if (sign < 0 && s->units == 0)
            region.idle++;
        at += n;
    }
    if (busy() > region.most_busy)
        region.most_busy = busy();
}

/* ---- the calls ---- */

static size_t default_max(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    size_t n = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;

    return n < MIN_BYTES ? MIN_BYTES : n;
}

static enum tg_rc make_tables(size_t max, struct tg_err *err)
{
    region.base = tg_region_reserve(max < MAX_BYTES ? max : MAX_BYTES, BASE_ALIGN, &region.size);
    if (region.base == NULL)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't reserve %zu bytes of addresses", max);
    region.n_units = (uint32_t)(region.size / TG_REGION_UNIT);
    region.units = tg_region_table((size_t)region.n_units * sizeof(*region.units));
    region.segments = tg_region_table(region.size / TG_REGION_SEGMENT * sizeof(*region.segments));
    if (region.units == NULL || region.segments == NULL)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't keep account of %zu bytes", region.size);
    list_add(0, region.n_units);
    return TG_OK;
}

enum tg_rc tg_region_open(const struct tg_region_opts *opts, struct tg_err *err)
{
    size_t most = default_max();
    bool fresh = false;

    if (region.base != NULL)
        return TG_FAIL(err, TG_E_EXISTS, "there is a region already");
    TG_TRY(make_tables(opts->max != 0 && opts->max < most ? opts->max : most, err));
    region.want = opts->level;
    region.settle = opts->settle;
    if (!map_units(0, PER_SEGMENT, false, &fresh))
        return tg_region_why(TG_REGION_SEGMENT, err);
    atomic_store(&region.open, true);
    return TG_OK;
}

bool tg_region_is_open(void)
{
    return atomic_load_explicit(&region.open, memory_order_acquire);
}

enum tg_level tg_region_level(void)
{
    struct tg_region_facts f;

    tg_region_facts_get(&f);
    return f.level;
}

enum tg_rc tg_region_hold(enum tg_level least, struct tg_err *err)
{
    enum tg_rc rc = TG_OK;

    if (!tg_region_is_open())
        return TG_FAIL(err, TG_E_STATE, "this process has no protected region");
    pthread_mutex_lock(&region.lock);
    if (region.level < least) {
        rc = tg_region_remedy(region.level + 1, region.below, TG_REGION_SEGMENT, err);
        tg_err_wrap(err, "--protection %s", tg_level_name(least));
    }
    region.settle = region.settle && rc == TG_OK && least == TG_LEVEL_NONE;
    pthread_mutex_unlock(&region.lock);
    return rc;
}

void *tg_region_take(size_t n, size_t align)
{
    uint32_t piece = 0, start = 0;
    uint64_t len = (uint64_t)n / TG_REGION_UNIT + (n % TG_REGION_UNIT != 0);
    bool large = n >= TG_REGION_LARGE && align <= TG_REGION_SEGMENT; /* and not mimalloc's */
    bool fresh = false;
    unsigned touch = 0;
    void *p = NULL;

    if (!tg_region_is_open() || n == 0 || len > region.n_units)
        return NULL;
    if (align < TG_REGION_UNIT)
        align = TG_REGION_UNIT;
    pthread_mutex_lock(&region.lock);
    region.why = 0;
    if (find((uint32_t)len, align, &piece, &start)) {
        carve(piece, start, (uint32_t)len);
        if (map_units(start, (uint32_t)len, large, &fresh)) {
            count_units(start, (uint32_t)len, 1);
            p = region.base + (size_t)start * TG_REGION_UNIT;
            if (large && fresh && region.pace == HURRIED)
                touch = region.threads;
        } else {
            clear_piece(start);
            trim(set_free(start, (uint32_t)len));
        }
    }
    pthread_mutex_unlock(&region.lock);
    if (touch > 0)
        tg_region_touch(p, n, touch);
    return p;
}

static bool head_of(const void *p, uint32_t *at)
{
    uintptr_t off = (uintptr_t)p - (uintptr_t)region.base;

    if (!tg_region_is_open() || off >= region.size || off % TG_REGION_UNIT != 0)
        return false;
    *at = (uint32_t)(off / TG_REGION_UNIT);
    return true;
}

size_t tg_region_size(const void *p)
{
    uint32_t at;
    size_t n = 0;

    if (!head_of(p, &at))
        return 0;
    pthread_mutex_lock(&region.lock);
    if (region.units[at].state == USED)
        n = (size_t)region.units[at].len * TG_REGION_UNIT;
    pthread_mutex_unlock(&region.lock);
    return n;
}

void tg_region_give(void *p)
{
    uint32_t at, len = 0;

    if (!head_of(p, &at))
        return;
    pthread_mutex_lock(&region.lock);
    if (region.units[at].state == USED) {
        region.units[at].state = WIPING; /* nobody takes it, nobody joins it */
        len = region.units[at].len;
    }
    pthread_mutex_unlock(&region.lock);
    if (len == 0)
        return;
    tg_wipe(p, (size_t)len * TG_REGION_UNIT);
    pthread_mutex_lock(&region.lock);
    count_units(at, len, -1);
    clear_piece(at);
    trim(set_free(at, len));
    pthread_mutex_unlock(&region.lock);
}

void tg_region_cut(void *p, size_t n)
{
    size_t len = tg_region_size(p) / TG_REGION_UNIT;
    size_t keep = n / TG_REGION_UNIT + (n % TG_REGION_UNIT != 0);
    uint32_t at, rest;

    if (n == 0 || n >= len * TG_REGION_UNIT || !head_of(p, &at))
        return;
    tg_wipe((uint8_t *)p + n, len * TG_REGION_UNIT - n);
    if (keep == len)
        return;
    rest = at + (uint32_t)keep;
    pthread_mutex_lock(&region.lock);
    region.units[at + len - 1].back = 0;
    set_piece(at, (uint32_t)keep, USED);
    count_units(rest, (uint32_t)(len - keep), -1);
    trim(set_free(rest, (uint32_t)(len - keep)));
    pthread_mutex_unlock(&region.lock);
}

void tg_region_hurry(unsigned threads)
{
    if (!tg_region_is_open())
        return;
    pthread_mutex_lock(&region.lock);
    if (threads > 0 && region.want == TG_LEVEL_SECRET)
        region.pace = HURRIED;
    else if (region.pace == HURRIED)
        region.pace = KEEPING;
    region.threads = threads;
    pthread_mutex_unlock(&region.lock);
}

/* Take an idle segment out of the free pieces, as a piece that is WIPING. */
static bool set_aside(uint32_t *segment)
{
    uint32_t most = spare(), n = 0;

    for (uint32_t at = 0; at < region.n_units; at += region.units[at].len) {
        if (region.units[at].state != FREE || !idle_run(at, 0, most, segment, &n))
            continue;
        carve(at, *segment * PER_SEGMENT, PER_SEGMENT);
        region.units[*segment * PER_SEGMENT].state = WIPING;
        set_usable(*segment, 1, false);
        return true;
    }
    return false;
}

/* Piecemeal and without the lock, so that nobody waits long: the kernel keeps all of a process's
 * mappings to itself meanwhile, for milliseconds per segment. */
void tg_region_calm(void)
{
    uint32_t s = 0;
    int e = 0;

    if (!tg_region_is_open())
        return;
    pthread_mutex_lock(&region.lock);
    while (e == 0 && region.pace == KEEPING && set_aside(&s)) {
        pthread_mutex_unlock(&region.lock);
        e = tg_region_unmap(segment_at(s), TG_REGION_SEGMENT);
        pthread_mutex_lock(&region.lock);
        if (e != 0) /* it stays, wiped */
            set_usable(s, 1, true);
        clear_piece(s * PER_SEGMENT);
        (void)set_free(s * PER_SEGMENT, PER_SEGMENT);
    }
    if (region.pace == KEEPING)
        region.pace = EASY;
    pthread_mutex_unlock(&region.lock);
}

bool tg_region_has(const void *p)
{
    return (uintptr_t)p - (uintptr_t)region.base < region.size;
}

enum tg_rc tg_region_why(size_t need, struct tg_err *err)
{
    enum tg_level want;
    int why;

    pthread_mutex_lock(&region.lock);
    want = region.want;
    why = region.why;
    pthread_mutex_unlock(&region.lock);
    if (why == 0)
        return TG_FAIL(
            err, TG_E_NOMEM,
            "%zu bytes do not fit into the protected region of %zu (--memory-max, or the "
            "machine's memory)",
            need, region.size);
    return tg_region_remedy(want, why, need, err);
}

void tg_region_facts_get(struct tg_region_facts *out)
{
    if (!tg_region_is_open()) {
        *out = (struct tg_region_facts){.level = TG_LEVEL_NONE};
        return;
    }
    pthread_mutex_lock(&region.lock);
    *out = (struct tg_region_facts){
        .level = region.level,
        .base = (uintptr_t)region.base,
        .reserved = region.size,
        .committed = (size_t)region.usable * TG_REGION_SEGMENT,
        .idle = (size_t)region.idle * TG_REGION_SEGMENT,
        .used = (size_t)region.used * TG_REGION_UNIT,
        .peak = (size_t)region.peak * TG_REGION_SEGMENT,
    };
    pthread_mutex_unlock(&region.lock);
}
