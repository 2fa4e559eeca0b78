/* How every program says that it failed: one line for people on standard error and, where --json
 * was asked for, one object on standard output (docs/cli.md). */
#ifndef TG_CODEC_COMPLAIN_H
#define TG_CODEC_COMPLAIN_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"

/* "PROGRAM VERB: message" on stderr (verb may be ""), with everything escaped that could steer a
 * terminal; with json tg_complain_json, too. An err without words gets those of its code. */
void tg_complain(const char *program, const char *verb, bool json, const struct tg_err *err);

/* {"error":"AUTH","exit":5,"message":"…"} as one line on stdout, past stdio: it works in a
 * sandbox and without memory. */
void tg_complain_json(const struct tg_err *err);

/* The members of that object without its braces, for an object that is begun already. */
TG_RC tg_complain_members(const struct tg_err *err, struct tg_buf *out);

#endif
