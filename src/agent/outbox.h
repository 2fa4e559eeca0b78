/* Reports on their way to the platform: a queue that survives restarts (outbox.json, replaced as a
 * whole with each change). Sequence numbers rise for ever, over all deployments: they are written
 * down before they are used, and are never given twice. */
#ifndef TG_AGENT_OUTBOX_H
#define TG_AGENT_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/records.h"
#include "agent/state.h"
#include "base/err.h"
#include "wire/deploy.h"

/* Of a device that is offline for long, the newest reports are kept; the last one about a
 * deployment is never dropped for an earlier one. */
#define TG_OUTBOX_MAX 64

struct tg_outbox_item {
    uint64_t seq;
    char deployment_id[TG_ID_TEXT];
    enum tg_update_state state;
    char code[TG_CODE_TEXT]; /* "" unless failed or rolled back */
    char reason[TG_REASON_TEXT];
    bool handover; /* an account of a hand-over, in reason: not a state, and never overtaken */
};

struct tg_outbox {
    struct tg_outbox_item items[TG_OUTBOX_MAX]; /* oldest first */
    size_t n;
    uint64_t last_seq; /* highest ever given */
};

/* A missing file is an empty queue. */
TG_RC tg_outbox_load(const struct tg_state *s, struct tg_outbox *out, struct tg_err *err);
/* Queue a report (durably). A queued report of the same deployment in the same state is replaced.
 */
TG_RC tg_outbox_add(const struct tg_state *s, struct tg_outbox *o,
                    const struct tg_outbox_item *item, struct tg_err *err);
/* The oldest, NULL when empty. */
const struct tg_outbox_item *tg_outbox_first(const struct tg_outbox *o);
/* The platform took (or will never take) the report `seq`. */
TG_RC tg_outbox_drop(const struct tg_state *s, struct tg_outbox *o, uint64_t seq,
                     struct tg_err *err);
/* The platform has seen `seq` for one of our deployments (say, before a state folder was restored
 * from a backup): go on above it. Queued reports are numbered anew if they are not above. */
TG_RC tg_outbox_raise(const struct tg_state *s, struct tg_outbox *o, uint64_t seq,
                      struct tg_err *err);

#endif
