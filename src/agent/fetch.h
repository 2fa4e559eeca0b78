/* Fetching one package: ranges into packages/H.part, resumed after any break, also across restarts;
 * checked; renamed to packages/H.tgsp. Nothing but ciphertext, nothing believed before its digest.
 */
#ifndef TG_AGENT_FETCH_H
#define TG_AGENT_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/device.h"
#include "agent/records.h"
#include "agent/state.h"
#include "base/err.h"
#include "crypto/hash.h"
#include "net/http_client.h"

/* Bytes asked for in one call: between calls the agent checks in, reports, and may give up. */
#define TG_FETCH_SLICE (UINT64_C(8) << 20)
/* Left free on the disk beside the package. */
#define TG_FETCH_SPARE (UINT64_C(4) << 20)

struct tg_fetch;

/* Begin, or go on where packages/H.part ends (its bytes are hashed again). A part of another file
 * for the same H, or one that is too long, starts over. */
TG_RC tg_fetch_open(const struct tg_state *s, const struct tg_held *pkg, struct tg_fetch **out,
                    struct tg_err *err);
void tg_fetch_free(struct tg_fetch *f); /* keeps what was fetched */
TG_DEFINE_AUTO(struct tg_fetch, tg_fetch_freep, tg_fetch_free);

uint64_t tg_fetch_have(const struct tg_fetch *f);
bool tg_fetch_complete(const struct tg_fetch *f);

/* Fetch the next slice. What arrived before a break is kept.
 * @retval TG_E_LIMIT    not enough room on the disk; err says how much is needed and free
 * @retval TG_E_NOTFOUND the platform does not have that file any more
 * Others as tg_http_client_do and the problem's code. */
TG_RC tg_fetch_slice(struct tg_fetch *f, struct tg_device *d, struct tg_err *err);

/* Put the bytes of one answer where they belong; what tg_fetch_slice does with each piece. at:
 * offset in the file that the piece begins at. @retval TG_E_FORMAT beyond the file, or a gap */
TG_RC tg_fetch_take(struct tg_fetch *f, uint64_t at, struct tg_bytes piece, struct tg_err *err);

/* All there: make it durable and compare its digest. On a mismatch the part is removed.
 * @retval TG_E_AUTH the bytes are not those the platform named */
TG_RC tg_fetch_finish(struct tg_fetch *f, struct tg_err *err);

/* Rename H.part to H.tgsp. */
TG_RC tg_fetch_commit(const struct tg_state *s, const struct tg_held *pkg, struct tg_err *err);

#endif
