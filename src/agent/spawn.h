/* Start a worker process with nothing but what it is handed: numbered descriptors, an empty
 * environment, default signals, its own process group, another user where asked. */
#ifndef TG_AGENT_SPAWN_H
#define TG_AGENT_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define TG_SPAWN_FDS_MAX 16
#define TG_SPAWN_FD_FIRST 3

/* Who a worker runs as. */
struct tg_user {
    bool set; /* false: as the agent itself */
    uid_t uid;
    gid_t gid;
    char name[64];
};

/* @retval TG_E_NOTFOUND no such user   @retval TG_E_USAGE it is root */
TG_RC tg_user_find(const char *name, struct tg_user *out, struct tg_err *err);

struct tg_spawn {
    const char *path;        /* the program */
    const char *const *argv; /* NULL-terminated, argv[0] included */
    /* fds[i] becomes descriptor 3 + i in the child; everything else is closed (stdin and stdout are
     * /dev/null). Borrowed. A -1 leaves its number closed. */
    int fds[TG_SPAWN_FDS_MAX];
    size_t n_fds;
    /* Opened read-only by the child, after it took the worker's user, as descriptor 3 + key_at.
     * key_at < 0: none. key_dir is a directory descriptor (O_PATH will do). */
    int key_at;
    int key_dir;
    const char *key_name;
    int work_dir; /* directory descriptor to be the current one; -1: "/" */
    int out;      /* becomes stdout; -1: /dev/null */
    int words;    /* becomes stderr; -1: the caller's own */
    /* The longest file it may write (it is told so, not killed); 0: any. */
    uint64_t file_max;
    struct tg_user user;
};

#define TG_SPAWN_INIT                                                                              \
    ((struct tg_spawn){.key_at = -1, .key_dir = -1, .work_dir = -1, .out = -1, .words = -1})

/* Start it. A failure of the child before the program runs (no such program, no such key, may not
 * take the user) is returned here, with words; the child dies when the agent does.
 * Must be called from a thread that lives as long as the child should. */
TG_RC tg_spawn(const struct tg_spawn *s, pid_t *pid, struct tg_err *err);

/* "exit status 4" or "signal 9 (Killed)". */
void tg_wait_text(int status, char *out, size_t cap);

#endif
