/* A search of the process's own memory for the weights of a model.
 *
 * From a model's plaintext it takes clusters of 96 neighbouring 4-byte words (floats, found by how
 * they look; other types as they lie), and then looks for them at every byte of every mapping. A
 * page that holds 8 different words of one cluster holds a piece of the model: as it was, or
 * re-packed (blocked convolutions, packed matrices: the words of a cluster then lie 32 to 64 bytes
 * apart). A transposed copy, which spreads a cluster over many pages, shows as 60 of its 96 words
 * in all. What it looks for it keeps masked, so as not to find itself. */
#ifndef TG_MOAI_SCAN_H
#define TG_MOAI_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "moai/handover.h"

#define TG_SCAN_WORDS 96
#define TG_SCAN_CLUSTERS_MAX 2048

struct tg_scan;

/* @retval TG_E_NOMEM */
TG_RC tg_scan_new(struct tg_scan **out, struct tg_err *err);
void tg_scan_free(struct tg_scan *s);
void tg_scan_freep(struct tg_scan **s);

/* Take clusters of `plain`: about one for each 32 KiB, at least 16 if it has them, at random
 * places. Once. @retval TG_E_UNSUPPORTED hardly anything in it can be told from other memory */
TG_RC tg_scan_plant(struct tg_scan *s, struct tg_bytes plain, struct tg_err *err);
size_t tg_scan_clusters(const struct tg_scan *s);
/* The words of one cluster, for a control: writes TG_SCAN_WORDS * 4 bytes. */
void tg_scan_control(const struct tg_scan *s, size_t cluster, uint8_t *out);

struct tg_scan_found {
    uint64_t searched; /* bytes */
    uint64_t pages;    /* of 4 KiB that hold a piece */
    uint64_t clusters; /* of which a piece was found */
    /* In such pieces: by clusters and TG_SCAN_WORDS, how many copies there are. A word by itself
     * does not count: among millions of weights each value comes up again by chance. */
    uint64_t words;
};

bool tg_scan_any(const struct tg_scan_found *f);

/* Whose a place in memory is. */
enum tg_scan_side {
    TG_SCAN_OUTSIDE,
    TG_SCAN_INSIDE, /* the protected region */
    TG_SCAN_HANDED, /* copies of what was handed over: outside, and meant to be */
    TG_SCAN_SIDES
};

/* Forget what was found. */
void tg_scan_begin(struct tg_scan *s);
/* Search [p, p + n): memory that can be read. */
void tg_scan_range(struct tg_scan *s, const void *p, size_t n, enum tg_scan_side side);
/* What was found since tg_scan_begin. */
void tg_scan_result(struct tg_scan *s, enum tg_scan_side side, struct tg_scan_found *out);

struct tg_scan_process_opts {
    int maps;  /* open descriptor of /proc/self/maps */
    bool tell; /* name mappings outside where something is found, in log lines (moai.scan mapping=)
                */
    const struct tg_handover *handover; /* whose copies are TG_SCAN_HANDED; NULL: nobody's */
};

/* Every readable mapping of this process. @retval TG_E_IO */
TG_RC tg_scan_process(struct tg_scan *s, const struct tg_scan_process_opts *o, struct tg_err *err);

#endif
