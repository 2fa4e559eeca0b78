/* The protected region: one reserved range of addresses that holds a process's heap and thread
 * stacks, so that one rule protects all of it.
 *
 * Whole segments of 2 MiB are made usable as they are needed and given back when they are idle, so
 * that an idle process locks little. A segment is, by level,
 *
 *     secret   memory of memfd_secret(2): out of the kernel's own map, so that not even root's
 * ptrace, /proc/PID/mem or process_vm_readv reads it; never swapped; not inherited by fork locked
 * anonymous memory, mlocked as it is touched, left out of core dumps, zero in a forked child none
 * as locked, but it can be swapped
 *
 * There is one region in a process because there is one malloc. It is the only lasting state here;
 * all calls may come from any thread. Nothing in it allocates memory. */
#ifndef TG_BASE_REGION_H
#define TG_BASE_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Ascending: a higher level protects from more. */
enum tg_level { TG_LEVEL_NONE, TG_LEVEL_LOCKED, TG_LEVEL_SECRET };

#define TG_LEVELS 3

/* "none", "locked", "secret". */
const char *tg_level_name(enum tg_level level);

#define TG_REGION_SEGMENT ((size_t)2 << 20)

struct tg_region_opts {
    enum tg_level level; /* what to try first */
    /* Where a level cannot be had, go on with the next lower one; else the call that needed it
     * fails. tg_region_hold ends this. */
    bool settle;
    size_t max; /* bytes of address space, at most what 0 stands for: as much as the machine has
                   memory, at least 1 GiB */
};

/* Reserve the range and make its first segment usable. Once in a process.
 * @retval TG_E_NOMEM  no address space, or the level cannot be had (err holds the remedy)
 * @retval TG_E_EXISTS there is a region already */
TG_RC tg_region_open(const struct tg_region_opts *opts, struct tg_err *err);
bool tg_region_is_open(void);

/* The lowest level of any segment in use so far. */
enum tg_level tg_region_level(void);
/* From now on nothing is made usable below `least`: the call fails instead.
 * @retval TG_E_DENIED some of it is below already: err says why, and the remedy */
TG_RC tg_region_hold(enum tg_level least, struct tg_err *err);

/* n > 0 bytes, zeroed, from an address that `align` (a power of two) divides. NULL when the region
 * is full or a segment cannot be had: tg_region_why says which. At least TG_REGION_UNIT large. */
#define TG_REGION_UNIT ((size_t)16 << 10)
void *tg_region_take(size_t n, size_t align);
/* Overwrite and give back what tg_region_take gave. All of it must be writable. */
void tg_region_give(void *p);
/* Keep the first n (> 0) bytes of what tg_region_take gave; overwrite the others, which must be
 * writable, and give back those from the next multiple of TG_REGION_UNIT on. */
void tg_region_cut(void *p, size_t n);
/* How many bytes the piece that starts at p has; 0 when no piece starts there. */
size_t tg_region_size(const void *p);
/* Does p lie in the region? */
bool tg_region_has(const void *p);
/* Why tg_region_take last gave NULL: fills err and returns err->rc. `need` is named in it. */
enum tg_rc tg_region_why(size_t need, struct tg_err *err);

/* A time of much taking and giving back begins, as when a model is loaded; threads 0: it is over.
 *
 * A page of memfd_secret costs a round trip to every processor when it is made and again when it
 * is given back, and meanwhile its thread waits. So until it is over, at level secret only, what is
 * idle is kept for the next piece (as far as it does not raise the most that is ever usable, and no
 * piece is refused for it), and large pieces come with all their pages, made by that many threads
 * side by side: tg_region_take then starts threads. */
void tg_region_hurry(unsigned threads);
/* Give back what was kept, which takes its time; other threads may take and give meanwhile. To be
 * called after tg_region_hurry(0). Another hurry ends it early. */
void tg_region_calm(void);

struct tg_region_facts {
    enum tg_level level;
    uintptr_t base; /* the reserved range */
    size_t reserved;
    size_t committed; /* made usable */
    size_t idle;      /* of that, segments without a piece in them */
    size_t used;      /* handed out */
    size_t peak;      /* most ever committed */
};

/* Zeros when there is no region. */
void tg_region_facts_get(struct tg_region_facts *out);

#endif
