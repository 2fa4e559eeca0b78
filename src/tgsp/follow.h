/* Reading a package while it is being downloaded: a source whose reads wait for their bytes, and
 * the order in which chunks come (tg_tgsp_run.follow). Chunks are taken as they arrive, whatever
 * their order; one whose digest is wrong is asked for once more.
 *
 * Any number of threads at once. Nothing here believes the downloader: what is read is verified by
 * whoever reads it. */
#ifndef TG_TGSP_FOLLOW_H
#define TG_TGSP_FOLLOW_H

#include <stdint.h>

#include "base/err.h"
#include "tgsp/format.h"
#include "tgsp/src.h"

struct tg_follow;

struct tg_follow_opts {
    int file;         /* the file that is being filled; borrowed */
    int arrival;      /* its arrival page (tgsp/arrival.h); only mapped here */
    const char *name; /* for error texts; borrowed */
    /* Ask the downloader for [off, off + n) once more. NULL: nothing is asked for again. */
    enum tg_rc (*again)(void *arg, uint64_t off, uint64_t n, struct tg_err *err);
    void *arg;
};

/* @retval TG_E_FORMAT the page is none, or of a file of another size  @retval TG_E_NOMEM */
TG_RC tg_follow_new(const struct tg_follow_opts *opts, struct tg_follow **out, struct tg_err *err);
void tg_follow_free(struct tg_follow *f);
TG_DEFINE_AUTO(struct tg_follow, tg_follow_freep, tg_follow_free);

/* Reads wait. @retval TG_E_CLOSED (of a read) the download ended before the bytes were there, or
 * tg_follow_stop's code */
void tg_follow_src(struct tg_follow *f, struct tg_src *out);

/* Where the chunks are; before the first _next. payload: offset of the payload in the file. */
TG_RC tg_follow_plan(struct tg_follow *f, uint64_t payload, const struct tg_tgsp_geometry *g,
                     struct tg_err *err);
/* A chunk that is there and was not handed out before. Waits for one. To be called at most as
 * often as there are chunks. */
TG_RC tg_follow_next(struct tg_follow *f, uint64_t *chunk, struct tg_err *err);
/* The chunk's bytes are wrong (err says how): TG_OK when they were fetched again and should be
 * tried once more; the second time, or where nobody can be asked, `why` and err as it is. */
TG_RC tg_follow_again(struct tg_follow *f, uint64_t chunk, enum tg_rc why, struct tg_err *err);
/* Everything was read once, so it is all there: reads wait for nothing any more, whatever becomes
 * of the arrival page. What is read is as unverified as before. */
void tg_follow_settle(struct tg_follow *f);
/* End every wait, now and later, with this failure (the first one counts). */
void tg_follow_stop(struct tg_follow *f, enum tg_rc rc, const struct tg_err *err);

#endif
