/* What has come of a package that is still being downloaded: one page of memory that the process
 * that downloads writes and the one that reads the package maps read-only.
 *
 * The page says where bytes are, never what they are, and the reader believes it for nothing but
 * waiting: each byte it reads is held against the package's own digests and signatures as ever.
 * The writer never reads the page, so a reader that could write to it (it cannot: the memory is
 * sealed) would deceive only itself. */
#ifndef TG_TGSP_ARRIVAL_H
#define TG_TGSP_ARRIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/spans.h"

struct tg_arrival;

/* ---- the writer ---- */

/* A page for a file of `size` bytes of which nothing is there. */
TG_RC tg_arrival_new(uint64_t size, struct tg_arrival **out, struct tg_err *err);
/* Its descriptor, to hand over; borrowed. */
int tg_arrival_fd(const struct tg_arrival *a);
/* These bytes are in the file now. */
void tg_arrival_show(struct tg_arrival *a, const struct tg_spans *there);
/* One more range that the reader asked for again is in the file. */
void tg_arrival_again(struct tg_arrival *a);
/* No more will come: readers that wait give up. */
void tg_arrival_end(struct tg_arrival *a);

/* ---- the reader ---- */

struct tg_arrived {
    struct tg_spans there;
    uint64_t again; /* ranges that were fetched again, so far */
    bool ended;
    uint32_t bell; /* for tg_arrival_wait */
};

/* Map a page that was handed over; fd is borrowed and may be closed afterwards.
 * @retval TG_E_FORMAT it is none  @retval TG_E_NOMEM no memory to map it to */
TG_RC tg_arrival_open(int fd, struct tg_arrival **out, struct tg_err *err);
uint64_t tg_arrival_size(const struct tg_arrival *a);
/* What is there now. @retval TG_E_FORMAT the page makes no sense
 * @retval TG_E_AGAIN the writer was interrupted in the middle of a change; only out->bell is set */
TG_RC tg_arrival_look(const struct tg_arrival *a, struct tg_arrived *out, struct tg_err *err);
/* Sleep until something has changed since a look with that bell, or for `ms` (it may also wake
 * without a reason). */
void tg_arrival_wait(const struct tg_arrival *a, uint32_t bell, uint32_t ms);

void tg_arrival_free(struct tg_arrival *a); /* either side's; NULL is fine */
TG_DEFINE_AUTO(struct tg_arrival, tg_arrival_freep, tg_arrival_free);

#endif
