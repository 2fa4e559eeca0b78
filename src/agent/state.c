#include "agent/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"

#define LOCK_TRIES 5
#define LOCK_PAUSE_MS 20
#define TMP_EXT ".tmp" /* of base/file.c's temporary names */

static const char *const subdirs[] = {"packages", "grants", "deployments", "bakes", "kem", "run"};

static TG_RC check_dir(const char *dir, struct tg_err *err)
{
    struct stat st;
    if (lstat(dir, &st) != 0) {
        if (errno == ENOENT)
            return TG_FAIL(err, TG_E_NOTFOUND,
                           "%s: no such state folder; enrol this device first "
                           "(tensorguard-agent enroll --help)",
                           dir);
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", dir);
    }
    if (!S_ISDIR(st.st_mode))
        return TG_FAIL(err, TG_E_IO, "%s: is not a directory", dir);
    if (st.st_uid != geteuid())
        return TG_FAIL(err, TG_E_DENIED, "%s: belongs to uid %u; run the agent as that user", dir,
                       (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return TG_FAIL(err, TG_E_DENIED, "%s: mode is %04o; others must not get in: chmod 0700 it",
                       dir, (unsigned)(st.st_mode & 07777));
    return TG_OK;
}

TG_RC tg_state_open(struct tg_state *s, const char *dir, bool make, struct tg_err *err)
{
    struct stat st;
    if (make && lstat(dir, &st) != 0)
        TG_TRY(tg_dir_make(dir, 0700, err));
    TG_TRY(check_dir(dir, err));
    char real[PATH_MAX];
    if (!realpath(dir, real))
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", dir);
    if (strlen(real) >= sizeof s->dir)
        return TG_FAIL(err, TG_E_LIMIT, "%s: the path is longer than %zu bytes", real,
                       sizeof s->dir - 1);
    memcpy(s->dir, real, strlen(real) + 1);
    s->lock_fd = -1;
    char path[TG_STATE_PATH_MAX];
    for (size_t i = 0; i < TG_ARRAY_LEN(subdirs); i++) {
        TG_TRY(tg_state_path(s, path, err, "%s", subdirs[i]));
        /* one that an older version did not have is made too */
        if (!make && strcmp(subdirs[i], "bakes") != 0)
            continue;
        TG_TRY(tg_dir_make(path, 0700, err));
    }
    return TG_OK;
}

TG_RC tg_state_lock(struct tg_state *s, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "lock"));
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    char pid[32] = "";
    int got = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; got != 0 && i < LOCK_TRIES; i++) { /* `status` looks for a moment, too */
        tg_clock_sleep_ms(LOCK_PAUSE_MS);
        got = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (got != 0) {
        ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return TG_FAIL(err, TG_E_STATE, "%s: another agent (pid %s) works on this folder", s->dir,
                       pid[0] ? pid : "unknown");
    }
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    /* in this order no room is given up that is needed again */
    if (pwrite(fd, pid, (size_t)n, 0) != n || ftruncate(fd, n) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    s->lock_fd = fd;
    fd = -1;
    return TG_OK;
}

void tg_state_done(struct tg_state *s)
{
    tg_fd_close(s->lock_fd);
    s->lock_fd = -1;
}

TG_RC tg_state_path(const struct tg_state *s, char out[TG_STATE_PATH_MAX], struct tg_err *err,
                    const char *fmt, ...)
{
    char tail[TG_STATE_PATH_MAX - TG_STATE_DIR_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(tail, sizeof tail, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof tail)
        return TG_FAIL(err, TG_E_LIMIT, "%s: a name below it is too long", s->dir);
    (void)snprintf(out, TG_STATE_PATH_MAX, "%s/%s", s->dir, tail);
    return TG_OK;
}

static void hash_path(const struct tg_state *s, const char *sub, const char *ext,
                      const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    char hex[TG_HASH_HEX];
    tg_hex_encode(tg_bytes_make(h, 32), hex);
    (void)snprintf(out, TG_STATE_PATH_MAX, "%s/%s/%s.%s", s->dir, sub, hex, ext);
}

void tg_state_package(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "packages", "tgsp", h, out);
}

void tg_state_part(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "packages", "part", h, out);
}

void tg_state_grant(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "grants", "tgrant", h, out);
}

void tg_state_grant_new(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "grants", "new.tgrant", h, out);
}

void tg_state_deployment(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "deployments", "tgdeploy", h, out);
}

void tg_state_bake(const struct tg_state *s, const uint8_t h[32], char out[TG_STATE_PATH_MAX])
{
    hash_path(s, "bakes", "bake", h, out);
}

bool tg_state_has(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

TG_RC tg_state_remove(const char *path, struct tg_err *err)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: cannot remove", path);
    return TG_OK;
}

static bool kept(const char *name, const uint8_t (*keep)[32], size_t n)
{
    char hex[TG_HASH_HEX];
    for (size_t i = 0; i < n; i++) {
        tg_hex_encode(tg_bytes_make(keep[i], 32), hex);
        if (strncmp(name, hex, TG_HASH_HEX - 1) == 0)
            return true;
    }
    return false;
}

/* Which names of a folder go. */
struct weeding {
    const uint8_t (*keep)[32];
    size_t n;
    bool temporaries; /* names that end in .tmp, and nothing else */
};

static bool goes(const char *name, const struct weeding *w)
{
    size_t len = strlen(name), ext = strlen(TMP_EXT);
    if (w->temporaries)
        return len > ext && strcmp(name + len - ext, TMP_EXT) == 0;
    return name[0] != '.' && !kept(name, w->keep, w->n);
}

static TG_RC weed(const struct tg_state *s, const char *sub, const struct weeding *w,
                  struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "%s", sub));
    DIR *d = opendir(path);
    if (!d)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    enum tg_rc rc = TG_OK;
    const struct dirent *e;
    while (rc == TG_OK && (e = readdir(d)) != NULL) {
        if (!goes(e->d_name, w))
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) != 0 && errno != ENOENT)
            rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s: cannot remove", path, e->d_name);
    }
    (void)closedir(d);
    return rc;
}

TG_RC tg_state_prune(const struct tg_state *s, const uint8_t (*keep)[32], size_t n,
                     struct tg_err *err)
{
    const struct weeding w = {.keep = keep, .n = n};
    TG_TRY(weed(s, "packages", &w, err));
    TG_TRY(weed(s, "grants", &w, err));
    TG_TRY(weed(s, "bakes", &w, err));
    return weed(s, "deployments", &w, err);
}

TG_RC tg_state_tidy(const struct tg_state *s, struct tg_err *err)
{
    const struct weeding w = {.temporaries = true};
    TG_TRY(weed(s, ".", &w, err));
    for (size_t i = 0; i < TG_ARRAY_LEN(subdirs); i++)
        TG_TRY(weed(s, subdirs[i], &w, err));
    return TG_OK;
}
