/* Calls that fail in their turn: allocations, reads and writes by the counters of src/base, the
 * others wrapped at link time (meson.build names them). One may be armed at a time. */
#ifndef TG_TESTS_FAILING_H
#define TG_TESTS_FAILING_H

#include <stdint.h>

#include "base/err.h"

enum kind {
    ALLOC,
    ALLOC_ON, /* this one and all after it */
    READ,
    WRITE,
    WRITE_KEPT, /* and the file can't be cut either */
    /* wrapped calls */
    MMAP,
    MLOCK,
    MPROTECT,
    MADVISE,
    PIPE_READ,
    THREAD,
    KINDS
};

#define CAN(rc) (1U << (rc))

struct kind_facts {
    const char *name;
    unsigned codes; /* what a load may then fail with */
    int errnum;
};

extern const struct kind_facts kinds[KINDS];

/* Count from here on, and let the i-th fail (0: none). */
void arm(enum kind k, uint64_t i);
uint64_t counted(enum kind k);

#endif
