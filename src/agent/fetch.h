/* Fetching one package: ranges, in whatever order serves, into packages/H.part; what has come is
 * recorded beside it (H.part.tag) and kept after any break, also across restarts; checked; renamed
 * to packages/H.tgsp. Nothing but ciphertext, nothing believed before its digest.
 *
 * What is read first comes first: the signature section at the end, then the sections before the
 * payload, then the payload. A worker may follow (tg_fetch_arrival). */
#ifndef TG_AGENT_FETCH_H
#define TG_AGENT_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/device.h"
#include "agent/records.h"
#include "agent/state.h"
#include "base/err.h"
#include "base/spans.h"
#include "crypto/hash.h"
#include "net/http_client.h"
#include "tgsp/src.h"

/* Bytes asked for in one call: at first, at least and at most; and how long it should take. Between
 * calls the agent checks in, reports, and may give up; but each call begins with a round trip in
 * which nothing comes. One that takes much longer than it should is ended. */
#define TG_FETCH_FIRST (UINT64_C(1) << 20)
#define TG_FETCH_LEAST (UINT64_C(256) << 10)
#define TG_FETCH_MOST (UINT64_C(256) << 20)
#define TG_FETCH_CALL_NS UINT64_C(2000000000)
#define TG_FETCH_CALL_MAX_NS UINT64_C(15000000000)
/* Left free on the disk beside the package. */
#define TG_FETCH_SPARE (UINT64_C(4) << 20)

struct tg_fetch;

/* Begin, or go on with what H.part.tag says is in H.part (the rest of the file counts for nothing).
 * A part of another file for the same H, or one of another size, starts over. */
TG_RC tg_fetch_open(const struct tg_state *s, const struct tg_held *pkg, struct tg_fetch **out,
                    struct tg_err *err);
/* Keeps, and records, what was fetched. A worker that waits for more is told that none will come.
 */
void tg_fetch_free(struct tg_fetch *f);
TG_DEFINE_AUTO(struct tg_fetch, tg_fetch_freep, tg_fetch_free);

uint64_t tg_fetch_have(const struct tg_fetch *f); /* bytes */
bool tg_fetch_complete(const struct tg_fetch *f);
/* The arrival page (tgsp/arrival.h) a worker is handed with the part; borrowed. */
TG_RC tg_fetch_arrival(struct tg_fetch *f, int *fd, struct tg_err *err);

/* The part as a package's source, as far as it is there. A read of what is not fails with
 * TG_E_AGAIN, and tg_fetch_wanted fetches that. */
void tg_fetch_src(struct tg_fetch *f, struct tg_src *out);

/* Each fetches some of what is missing: what is read first of all (the file's end); what a read
 * failed for (@retval TG_E_STATE there was none); the next slice, from the front on; [off, off + n)
 * once more, although it is there. What arrived before a break is kept.
 * @retval TG_E_LIMIT    not enough room on the disk; err says how much is needed and free
 * @retval TG_E_NOTFOUND the platform does not have that file any more
 * Others as tg_http_client_do and the problem's code. */
TG_RC tg_fetch_tail(struct tg_fetch *f, struct tg_device *d, struct tg_err *err);
TG_RC tg_fetch_wanted(struct tg_fetch *f, struct tg_device *d, struct tg_err *err);
TG_RC tg_fetch_slice(struct tg_fetch *f, struct tg_device *d, struct tg_err *err);
TG_RC tg_fetch_again(struct tg_fetch *f, struct tg_device *d, const struct tg_span *range,
                     struct tg_err *err);

/* How much to ask for in the next call, after one for n bytes that took `ns`: what comes within
 * TG_FETCH_CALL_NS at that speed, at most four times n, inside the bounds above. Pure. */
uint64_t tg_fetch_next(uint64_t n, uint64_t ns);

/* Put bytes of the file where they belong; what each of the above does with each piece. Show them
 * to the worker now and then, in the end by tg_fetch_show. @retval TG_E_FORMAT beyond the file */
TG_RC tg_fetch_take(struct tg_fetch *f, uint64_t at, struct tg_bytes piece, struct tg_err *err);
void tg_fetch_show(struct tg_fetch *f);
/* Record durably what is there: the bytes first. */
TG_RC tg_fetch_save(struct tg_fetch *f, struct tg_err *err);

/* All there: make it durable and compare its digest. On a mismatch the part is removed, unless
 * `keep`: then a worker may still say which bytes are wrong.
 * @retval TG_E_AUTH the bytes are not those the platform named */
TG_RC tg_fetch_finish(struct tg_fetch *f, bool keep, struct tg_err *err);

/* Rename H.part to H.tgsp. */
TG_RC tg_fetch_commit(const struct tg_state *s, const struct tg_held *pkg, struct tg_err *err);

#endif
