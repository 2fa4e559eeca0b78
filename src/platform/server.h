/* The running platform: two listeners, a few threads each with its own loop, server and database
 * connection. */
#ifndef TG_PLATFORM_SERVER_H
#define TG_PLATFORM_SERVER_H

#include "platform/platform.h"

/* Listen, write DIR/run/endpoints.json, serve until SIGTERM or SIGINT, drain, return. */
TG_RC tg_platform_serve(struct tg_platform *p, struct tg_err *err);

#endif
