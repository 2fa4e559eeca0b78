/* The sockets clients predict through. The agent makes and owns them, so that they outlive workers
 * and no connection is refused while one worker takes over from another. */
#ifndef TG_AGENT_LISTEN_H
#define TG_AGENT_LISTEN_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Listen on a Unix socket at path: 0660, group `group` (NULL or "": the process's own). A socket
 * left behind there is replaced; anything else at the path is TG_E_EXISTS. The caller holds the
 * state folder's lock, so no other agent of this folder listens there. */
TG_RC tg_listen_unix(const char *path, const char *group, int *fd, struct tg_err *err);

/* @retval TG_E_NOTFOUND no such group */
TG_RC tg_group_find(const char *name, gid_t *gid, struct tg_err *err);

/* The same for the native socket: SOCK_SEQPACKET (docs/spec/native-1.0.md). */
TG_RC tg_listen_native(const char *path, const char *group, int *fd, struct tg_err *err);

/* Listen on 127.0.0.1. port 0: the system chooses; *port_out says which. */
TG_RC tg_listen_loopback(uint16_t port, int *fd, uint16_t *port_out, struct tg_err *err);

/* A descriptor on a small anonymous file with these bytes (for --token-fd), readable, sealed. */
TG_RC tg_memfd(const char *name, const void *p, size_t n, int *fd, struct tg_err *err);

#endif
