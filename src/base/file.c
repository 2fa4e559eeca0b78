#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

/* ---- fault injection ---- */

static _Atomic uint64_t io_count[TG_IO_OPS];
static _Atomic uint64_t io_fault_at[TG_IO_OPS];
static _Atomic int io_fault_errno[TG_IO_OPS];

void tg_io_fault_set(enum tg_io_op op, uint64_t nth, int errnum)
{
    atomic_store(&io_count[op], 0);
    atomic_store(&io_fault_errno[op], errnum);
    atomic_store(&io_fault_at[op], nth);
}

uint64_t tg_io_fault_count(enum tg_io_op op)
{
    return atomic_load(&io_count[op]);
}

/* Set from signal handlers: lock-free, or it would not compile below. */
static _Atomic int io_cancelled;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "tg_io_cancel runs in signal handlers");

void tg_io_cancel(void)
{
    atomic_store_explicit(&io_cancelled, 1, memory_order_relaxed);
}

/* Counts the call; true (and errno set) when it must fail. */
static bool io_fault(enum tg_io_op op)
{
    if (atomic_load_explicit(&io_cancelled, memory_order_relaxed) != 0) {
        errno = ECANCELED;
        return true;
    }
    uint64_t n = atomic_fetch_add_explicit(&io_count[op], 1, memory_order_relaxed) + 1;

    if (n != atomic_load_explicit(&io_fault_at[op], memory_order_relaxed))
        return false;
    errno = atomic_load(&io_fault_errno[op]);
    return true;
}

/* ---- descriptors ---- */

void tg_fd_close(int fd)
{
    int saved = errno;

    if (fd >= 0)
        (void)close(fd);
    errno = saved;
}

void tg_fd_closep(int *fd)
{
    tg_fd_close(*fd);
    *fd = -1;
}

enum tg_rc tg_fd_size(int fd, const char *name, uint64_t *size, struct tg_err *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't stat", name);
    if (!S_ISREG(st.st_mode))
        return TG_FAIL(err, TG_E_IO, "%s: not a regular file", name);
    *size = (uint64_t)st.st_size;
    return TG_OK;
}

enum tg_rc tg_fd_pread(int fd, const char *name, void *p, size_t n, uint64_t off,
                       struct tg_err *err)
{
    uint8_t *to = p;
    size_t done = 0;

    if (off > INT64_MAX || n > INT64_MAX - off)
        return TG_FAIL(err, TG_E_LIMIT, "%s: offset %" PRIu64 " is out of range", name, off);
    while (done < n) {
        ssize_t got =
            io_fault(TG_IO_READ) ? -1 : pread(fd, to + done, n - done, (off_t)(off + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't read at offset %" PRIu64, name,
                                 off + done);
        if (got == 0)
            return TG_FAIL(err, TG_E_FORMAT,
                           "%s: ends at offset %" PRIu64 ", but %" PRIu64 " bytes are needed", name,
                           off + done, off + n);
        done += (size_t)got;
    }
    return TG_OK;
}

enum tg_rc tg_fd_pwrite(int fd, const char *name, const void *p, size_t n, uint64_t off,
                        struct tg_err *err)
{
    const uint8_t *from = p;
    size_t done = 0;

    if (off > INT64_MAX || n > INT64_MAX - off)
        return TG_FAIL(err, TG_E_LIMIT, "%s: offset %" PRIu64 " is out of range", name, off);
    while (done < n) {
        ssize_t put =
            io_fault(TG_IO_WRITE) ? -1 : pwrite(fd, from + done, n - done, (off_t)(off + done));

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't write at offset %" PRIu64, name,
                                 off + done);
        done += (size_t)put;
    }
    return TG_OK;
}

enum tg_rc tg_fd_write(int fd, const char *name, const void *p, size_t n, struct tg_err *err)
{
    const uint8_t *from = p;
    size_t done = 0;

    while (done < n) {
        ssize_t put = io_fault(TG_IO_WRITE) ? -1 : write(fd, from + done, n - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't write", name);
        done += (size_t)put;
    }
    return TG_OK;
}

enum tg_rc tg_fd_sync(int fd, const char *name, struct tg_err *err)
{
    if (io_fault(TG_IO_SYNC) || fsync(fd) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't sync to disk", name);
    return TG_OK;
}

enum tg_rc tg_fd_read_all(int fd, const char *name, struct tg_buf *buf, struct tg_err *err)
{
    uint64_t size;
    uint8_t *where;

    TG_TRY(tg_fd_size(fd, name, &size, err));
    if (size > buf->max - buf->n)
        return TG_FAIL(err, TG_E_LIMIT, "%s: %" PRIu64 " bytes, at most %zu are allowed", name,
                       size, buf->max);
    if (tg_buf_reserve(buf, (size_t)size, &where) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory for %" PRIu64 " bytes", name, size);
    TG_TRY(tg_fd_pread(fd, name, where, (size_t)size, 0, err));
    tg_buf_grow(buf, (size_t)size);
    return TG_OK;
}

enum tg_rc tg_file_read(const char *path, struct tg_buf *buf, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s: can't open",
                             path);
    return tg_fd_read_all(fd, path, buf, err);
}

/* ---- new files ---- */

/* The folder part of path in fresh memory ("." when there is none). */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir;

    if (slash == NULL)
        return tg_strdup(".");
    if (slash == path)
        return tg_strdup("/");
    dir = tg_strdup(path);
    if (dir != NULL)
        dir[slash - path] = '\0';
    return dir;
}

enum tg_rc tg_newfile_open(struct tg_newfile *f, const char *path, mode_t mode, bool replace,
                           struct tg_err *err)
{
    struct tg_newfile n = TG_NEWFILE_INIT;
    struct stat st;
    uint64_t salt;

    if (!replace && lstat(path, &st) == 0)
        return TG_FAIL(err, TG_E_EXISTS, "%s: already exists", path);
    if (getrandom(&salt, sizeof(salt), 0) != (ssize_t)sizeof(salt))
        return TG_FAIL_ERRNO(err, TG_E_IO,
                             "a name for a temporary file: the system gives no random bytes");
    n.path = tg_strdup(path);
    n.tmp = tg_asprintf("%s.%016" PRIx64 ".tmp", path, salt);
    n.replace = replace;
    if (n.path == NULL || n.tmp == NULL) {
        tg_free(n.path);
        tg_free(n.tmp);
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    n.fd = open(n.tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (n.fd < 0 || fchmod(n.fd, mode) != 0) {
        enum tg_rc rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't create", path);

        tg_newfile_abort(&n);
        return rc;
    }
    *f = n;
    return TG_OK;
}

void tg_newfile_abort(struct tg_newfile *f)
{
    if (f->tmp != NULL) {
        if (f->fd >= 0)
            (void)unlink(f->tmp);
        tg_fd_closep(&f->fd);
    }
    tg_free(f->tmp);
    tg_free(f->path);
    *f = TG_NEWFILE_INIT;
}

enum tg_rc tg_newfile_commit(struct tg_newfile *f, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *dir = dir_of(f->path);
    enum tg_rc rc = TG_OK;
    int moved;

    if (dir == NULL)
        rc = TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (rc == TG_OK && !f->fleeting)
        rc = tg_fd_sync(f->fd, f->path, err);
    if (rc == TG_OK) {
        if (io_fault(TG_IO_RENAME))
            moved = -1;
        else
            moved =
                renameat2(AT_FDCWD, f->tmp, AT_FDCWD, f->path, f->replace ? 0 : RENAME_NOREPLACE);
        if (moved != 0)
            rc = TG_FAIL_ERRNO(err, errno == EEXIST ? TG_E_EXISTS : TG_E_IO,
                               "%s: can't put the new file in place", f->path);
    }
    if (rc == TG_OK) {
        /* The name is there: what is left of f must not remove it. */
        tg_fd_closep(&f->fd);
        if (!f->fleeting)
            rc = tg_dir_sync(dir, err);
    }
    tg_newfile_abort(f);
    return rc;
}

static enum tg_rc fill(struct tg_newfile *f, struct tg_bytes data, struct tg_err *err)
{
    TG_TRY(tg_fd_write(f->fd, f->path, data.p, data.n, err));
    return tg_newfile_commit(f, err);
}

enum tg_rc tg_file_write(const char *path, struct tg_bytes data, mode_t mode, bool replace,
                         struct tg_err *err)
{
    TG_AUTO(tg_newfile_abort) struct tg_newfile f = TG_NEWFILE_INIT;

    TG_TRY(tg_newfile_open(&f, path, mode, replace, err));
    return fill(&f, data, err);
}

enum tg_rc tg_file_write_fleeting(const char *path, struct tg_bytes data, mode_t mode,
                                  struct tg_err *err)
{
    TG_AUTO(tg_newfile_abort) struct tg_newfile f = TG_NEWFILE_INIT;

    TG_TRY(tg_newfile_open(&f, path, mode, true, err));
    f.fleeting = true;
    return fill(&f, data, err);
}

/* ---- folders ---- */

enum tg_rc tg_dir_sync(const char *path, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't open the folder", path);
    return tg_fd_sync(fd, path, err);
}

enum tg_rc tg_dir_make(const char *path, mode_t mode, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *part = tg_strdup(path);
    size_t n = strlen(path);
    struct stat st;

    if (part == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't make the folder", part);
        part[i] = path[i];
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return TG_FAIL(err, TG_E_IO, "%s: is not a folder", path);
    return TG_OK;
}

/* What is in the folder `fd` (taken over) goes; depth bounds the recursion. */
static enum tg_rc empty_dir(int fd, const char *name, unsigned depth, struct tg_err *err)
{
    DIR *dir = fdopendir(fd);
    enum tg_rc rc = TG_OK;
    struct dirent *e;

    if (dir == NULL) {
        tg_fd_close(fd);
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't list", name);
    }
    while (rc == TG_OK && (errno = 0, e = readdir(dir)) != NULL) {
        int child;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno != EISDIR && errno != EPERM) {
            rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s: can't remove", name, e->d_name);
            break;
        }
        child = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0 || depth == 0) {
            tg_fd_close(child);
            rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s: can't remove", name, e->d_name);
            break;
        }
        rc = empty_dir(child, e->d_name, depth - 1, err);
        if (rc == TG_OK && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) != 0)
            rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s: can't remove", name, e->d_name);
    }
    (void)closedir(dir);
    return rc;
}

enum tg_rc tg_dir_remove(const char *path, struct tg_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return TG_OK;
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't open the folder", path);
    TG_TRY(empty_dir(fd, path, 600, err));
    if (rmdir(path) != 0 && errno != ENOENT)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: can't remove", path);
    return TG_OK;
}

char *tg_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);

    return tg_asprintf("%s%s%s", dir, n > 0 && dir[n - 1] == '/' ? "" : "/", name);
}
