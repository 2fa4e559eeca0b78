/* `tensorguard-agent status`: what the running (or stopped) agent last wrote into status.json. */
#ifndef TG_AGENT_STATUS_H
#define TG_AGENT_STATUS_H

#include <stdbool.h>

#include "base/err.h"

/* Print it: a few lines for people, or the JSON with "agent": "running" | "stopped". */
TG_RC tg_status_show(const char *state_dir, bool json, struct tg_err *err);

#endif
