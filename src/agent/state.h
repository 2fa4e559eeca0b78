/* The agent's state folder: its paths, its lock, what is where (docs/agent.md). Mode 0700. */
#ifndef TG_AGENT_STATE_H
#define TG_AGENT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define TG_STATE_PATH_MAX 1024 /* longest path below the folder, NUL included */
#define TG_STATE_DIR_MAX 700   /* longest name of the folder itself */
#define TG_HASH_HEX 65         /* SHA-256 in hex and NUL */

struct tg_state {
    char dir[TG_STATE_DIR_MAX]; /* absolute */
    int lock_fd;                /* -1: not locked */
};

#define TG_STATE_INIT ((struct tg_state){.lock_fd = -1})

/* make: create the folder and those below it. Otherwise a missing one is TG_E_NOTFOUND and the text
 * says to enrol. A folder others may write or read is refused. */
TG_RC tg_state_open(struct tg_state *s, const char *dir, bool make, struct tg_err *err);
/* One agent per folder. @retval TG_E_STATE another process holds it; the text says its pid */
TG_RC tg_state_lock(struct tg_state *s, struct tg_err *err);
/* Remove what a kill in the middle of a write left behind (*.tmp; one in kem/ may hold a key). Only
 * with the lock held. */
TG_RC tg_state_tidy(const struct tg_state *s, struct tg_err *err);
void tg_state_done(struct tg_state *s);

/* printf a path below the folder. @retval TG_E_LIMIT */
TG_RC tg_state_path(const struct tg_state *s, char out[TG_STATE_PATH_MAX], struct tg_err *err,
                    const char *fmt, ...) TG_PRINTF(4, 5);

/* The files that hold a package, its grant, its download, and a deployment. (Always short enough.)
 */
void tg_state_package(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX]);
void tg_state_part(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX]);
void tg_state_grant(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX]);
/* A later grant of the same package, until it has opened the package in a worker. */
void tg_state_grant_new(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX]);
void tg_state_deployment(const struct tg_state *s, const uint8_t h[32],
                         char out[TG_STATE_PATH_MAX]);

/* The sealed bake of a package's model, which only the worker can read. */
void tg_state_bake(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX]);

/* Is there a regular file? */
bool tg_state_has(const char *path);
/* Remove a file; a missing one is fine. */
TG_RC tg_state_remove(const char *path, struct tg_err *err);

/* Remove packages, grants, deployments, bakes and downloads of every H not in keep[0..n). */
TG_RC tg_state_prune(const struct tg_state *s, const uint8_t (*keep)[32], size_t n,
                     struct tg_err *err);

#endif
