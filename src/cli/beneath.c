#include "cli/beneath.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { PATH_MAX_BYTES = 1024, SEGMENT_MAX = 255 };

static bool segment_ok(struct tg_bytes s, const char **why)
{
    *why = "it has an empty segment";
    if (s.n == 0)
        return false;
    *why = "a segment is longer than 255 bytes";
    if (s.n > SEGMENT_MAX)
        return false;
    *why = "it has a '.' or '..' segment";
    return !(s.p[0] == '.' && (s.n == 1 || (s.n == 2 && s.p[1] == '.')));
}

bool cli_path_ok(struct tg_bytes path, const char **why)
{
    *why = "it is empty or longer than 1024 bytes";
    if (path.n == 0 || path.n > PATH_MAX_BYTES)
        return false;
    *why = "it is not valid UTF-8";
    if (!tg_utf8_ok(path))
        return false;
    *why = "it has a control character or a backslash";
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] < 0x20 || path.p[i] == 0x7f || path.p[i] == '\\')
            return false;
    for (size_t from = 0, i = 0; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        if (!segment_ok(tg_bytes_sub(path, from, i - from), why))
            return false;
        from = i + 1;
    }
    return true;
}

static enum tg_rc step_error(int errnum, const char *path, struct tg_err *err)
{
    errno = errnum;
    if (errnum == ELOOP || errnum == ENOTDIR)
        return TG_FAIL(err, TG_E_DENIED, "%s: a link or a file stands where a folder must be",
                       path);
    if (errnum == EEXIST)
        return TG_FAIL(err, TG_E_EXISTS, "%s: already exists", path);
    if (errnum == ENOENT)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: no such file", path);
    return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
}

/* Walk to the folder that holds the last segment. *last points into path. */
static enum tg_rc walk(int root, const char *path, bool make, int *dir_out, const char **last,
                       struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int dir = fcntl(root, F_DUPFD_CLOEXEC, 0);
    char seg[SEGMENT_MAX + 1];
    const char *why = NULL;

    if (dir < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    if (!cli_path_ok(tg_bytes_str(path), &why))
        return TG_FAIL(err, TG_E_USAGE, "%s: %s", path, why);
    const char *p = path;
    for (const char *slash = strchr(p, '/'); slash != NULL; slash = strchr(p, '/')) {
        size_t n = (size_t)(slash - p);
        memcpy(seg, p, n); /* at most SEGMENT_MAX: cli_path_ok */
        seg[n] = 0;
        if (make && mkdirat(dir, seg, 0700) != 0 && errno != EEXIST)
            return step_error(errno, path, err);
        int next = openat(dir, seg, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return step_error(errno, path, err);
        tg_fd_close(dir);
        dir = next;
        p = slash + 1;
    }
    *dir_out = dir;
    dir = -1;
    *last = p;
    return TG_OK;
}

enum tg_rc cli_beneath_create(int root, const char *path, int *fd_out, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int dir = -1;
    const char *last = NULL;

    TG_TRY(walk(root, path, true, &dir, &last, err));
    int fd = openat(dir, last, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return step_error(errno, path, err);
    *fd_out = fd;
    return TG_OK;
}

enum tg_rc cli_beneath_open(int root, const char *path, int flags, int *fd_out, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int dir = -1;
    TG_AUTO(tg_fd_closep) int fd = -1;
    const char *last = NULL;
    struct stat st;

    TG_TRY(walk(root, path, false, &dir, &last, err));
    /* O_NONBLOCK: a FIFO put in a file's place must not hang the open; regular files ignore it. */
    fd = openat(dir, last, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return step_error(errno, path, err);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return TG_FAIL(err, TG_E_DENIED, "%s: not a regular file", path);
    *fd_out = fd;
    fd = -1;
    return TG_OK;
}
