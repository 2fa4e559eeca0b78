/* Heartbeats: what check-ins say, and when tokens were used last, gathered for at most a second and
 * written in one transaction. The only thing a kill may lose, and it comes again with the next
 * check-in. */
#ifndef TG_PLATFORM_BEAT_H
#define TG_PLATFORM_BEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "store/db.h"
#include "wire/common.h"

struct tg_beats;

struct tg_beat {
    char id[33];
    bool token; /* a token's use; else a device's check-in */
    int64_t at;
    char agent_version[65];
    bool separation;
    char protection[TG_WIRE_LEVEL_MAX + 1];
    bool has_running;
    uint8_t running[32];
    char status[1025];
};

TG_RC tg_beats_new(struct tg_beats **out);
void tg_beats_free(struct tg_beats *b);
/* Copied; the newest of one id counts. Thread-safe. Over 65,536 ids between flushes more are
 * dropped. */
void tg_beats_add(struct tg_beats *b, const struct tg_beat *beat);
/* Write what was gathered. On failure it is dropped (the next check-in says it again). */
TG_RC tg_beats_flush(struct tg_beats *b, struct tg_db *db, struct tg_err *err);

#endif
