/* Messages of the native socket in and out, with at most one descriptor each. */
#ifndef TG_NATIVE_CHANNEL_H
#define TG_NATIVE_CHANNEL_H

#include "base/bytes.h"
#include "base/err.h"

/* Send one message; fd: goes along, -1: none (borrowed). Never waits, no SIGPIPE.
 * @retval TG_E_AGAIN the other side does not read  @retval TG_E_CLOSED it is gone */
TG_RC tg_channel_send(int sock, struct tg_bytes bytes, int fd, struct tg_err *err);

/* Take one message into at[cap]; *n: its length. fd (may be NULL: a descriptor is closed unseen):
 * the one that came along, close-on-exec, or -1. Never waits.
 * @retval TG_E_AGAIN nothing there   @retval TG_E_CLOSED the other side is gone
 * @retval TG_E_FORMAT longer than cap, or several descriptors */
TG_RC tg_channel_recv(int sock, void *at, size_t cap, size_t *n, int *fd, struct tg_err *err);

#endif
