/* For the HTTP server: the libevent base under a loop. */
#ifndef TG_NET_LOOP_INTERNAL_H
#define TG_NET_LOOP_INTERNAL_H

#include <event2/event.h>

#include "net/loop.h"

struct event_base *tg_loop_base(struct tg_loop *loop);

#endif
