/* Structured log lines on stderr, written by the programs (libraries return errors instead):
 *     2026-01-31T12:00:00.123Z info  agent.fetch package=3f2a... bytes=1048576
 * One line per event: an event name and typed fields. Control characters in values are escaped.
 * Secrets have no formatter and so cannot be logged. */
#ifndef TG_BASE_LOG_H
#define TG_BASE_LOG_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum tg_log_level { TG_LOG_ERROR, TG_LOG_WARN, TG_LOG_INFO, TG_LOG_DEBUG };

/* Process-wide; the default is info. */
void tg_log_level_set(enum tg_log_level level);
TG_RC tg_log_level_parse(const char *s, enum tg_log_level *out);

/* event: dotted name. fmt: "key=%s key=%" PRIu64 ... ; the caller keeps to key=value pairs. */
void tg_log(enum tg_log_level level, const char *event, const char *fmt, ...) TG_PRINTF(3, 4);
/* A line that another process wrote, passed on as it came but for control characters, with `mark`
 * behind it so that it is nobody else's. Cut to what a log line may have. */
void tg_log_line(struct tg_bytes line, const char *mark);
/* Log a failure once: level error, fields rc= and msg=. */
void tg_log_err(const char *event, const struct tg_err *err);

#endif
