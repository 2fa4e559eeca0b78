/* The folder a package is built from: only what can be restored as it was goes in. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tgsp/beneath_internal.h"
#include "tgsp/build.h"
#include "tgsp/path.h"

struct tg_tgsp_inputs {
    int dirfd;
    char *dir; /* for error texts */
    struct tg_tgsp_input *v;
    size_t n, cap;
    uint64_t bytes;
};

/* Folders still to be read: a stack instead of recursion. */
struct todo {
    char **v;
    size_t n, cap;
};

static void todo_done(struct todo *t)
{
    for (size_t i = 0; i < t->n; i++)
        tg_free(t->v[i]);
    tg_free(t->v);
}

static enum tg_rc grow(void **v, size_t *cap, size_t n, size_t item)
{
    if (n < *cap)
        return TG_OK;
    size_t more = *cap ? 2 * *cap : 64;
    void *p = tg_realloc(*v, more * item);
    if (!p)
        return TG_E_NOMEM;
    *v = p;
    *cap = more;
    return TG_OK;
}

static void dir_closep(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

static const char *kind_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFLNK:
        return "a symbolic link; copy what it points to, or leave it out";
    case S_IFIFO:
        return "a FIFO; remove it";
    case S_IFSOCK:
        return "a socket; remove it";
    case S_IFBLK:
    case S_IFCHR:
        return "a device; remove it";
    default:
        return "of an unknown kind; remove it";
    }
}

static enum tg_rc file_add(struct tg_tgsp_inputs *in, char *path, uint64_t size, struct tg_err *err)
{
    if (tg_tgsp_path_reserved(path))
        return TG_FAIL(err, TG_E_FORMAT, "%s/%s: '%s' is reserved for TensorGuard; rename it",
                       in->dir, path, TG_TGSP_RESERVED_DIR);
    if (in->n >= TG_TGSP_FILES_MAX - 1) /* one is for the inputs' digests */
        return TG_FAIL(err, TG_E_LIMIT, "%s: more than %d files; pack them into fewer", in->dir,
                       TG_TGSP_FILES_MAX - 1);
    void *v = in->v;
    if (grow(&v, &in->cap, in->n, sizeof *in->v) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", in->dir);
    in->v = v;
    in->v[in->n++] = (struct tg_tgsp_input){path, size, -1};
    in->bytes += size;
    return TG_OK;
}

/* Takes path. */
static enum tg_rc entry_add(struct tg_tgsp_inputs *in, struct todo *todo, int fd, const char *name,
                            char *path, struct tg_err *err)
{
    struct stat st;
    TG_AUTO(tg_freep) char *own = path;
    if (!own)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", in->dir);
    enum tg_rc rc = tg_tgsp_path_check(tg_bytes_str(own), err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s: can't be packed, rename it", in->dir);
        return rc;
    }
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", in->dir, own);
    if (S_ISDIR(st.st_mode)) {
        void *v = todo->v;
        if (grow(&v, &todo->cap, todo->n, sizeof *todo->v) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", in->dir);
        todo->v = v;
        todo->v[todo->n++] = tg_steal(&own);
        return TG_OK;
    }
    if (!S_ISREG(st.st_mode))
        return TG_FAIL(err, TG_E_FORMAT, "%s/%s: is %s", in->dir, own, kind_name(st.st_mode));
    TG_TRY(file_add(in, own, (uint64_t)st.st_size, err));
    own = NULL; /* now the list's */
    return TG_OK;
}

static enum tg_rc dir_read(struct tg_tgsp_inputs *in, struct todo *todo, const char *rel,
                           struct tg_err *err)
{
    int fd = rel[0] ? tg_open_beneath(in->dirfd, rel, O_RDONLY | O_DIRECTORY, 0)
                    : openat(in->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    TG_AUTO(dir_closep) DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        enum tg_rc rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", in->dir, rel);
        tg_fd_close(fd);
        return rc;
    }
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e)
            break;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *path = rel[0] ? tg_path_join(rel, e->d_name) : tg_strdup(e->d_name);
        TG_TRY(entry_add(in, todo, dirfd(d), e->d_name, path, err));
    }
    return errno ? TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", in->dir, rel) : TG_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct tg_tgsp_input *)a)->path, ((const struct tg_tgsp_input *)b)->path);
}

static enum tg_rc order(struct tg_tgsp_inputs *in, struct tg_err *err)
{
    if (in->n == 0)
        return TG_OK;
    qsort(in->v, in->n, sizeof *in->v, by_path);
    TG_AUTO(tg_freep) const char **paths = tg_calloc(in->n, sizeof *paths);
    if (!paths)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", in->dir);
    for (size_t i = 0; i < in->n; i++)
        paths[i] = in->v[i].path;
    enum tg_rc rc = tg_tgsp_paths_check(paths, in->n, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s", in->dir);
    return rc;
}

static enum tg_rc walk(struct tg_tgsp_inputs *in, struct tg_err *err)
{
    TG_AUTO(todo_done) struct todo todo = {NULL, 0, 0};
    TG_TRY(dir_read(in, &todo, "", err));
    while (todo.n) {
        TG_AUTO(tg_freep) char *rel = todo.v[--todo.n];
        TG_TRY(dir_read(in, &todo, rel, err));
    }
    return order(in, err);
}

enum tg_rc tg_tgsp_inputs_scan(const char *dir, struct tg_tgsp_inputs **out, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = tg_calloc(1, sizeof *in);
    if (!in)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", dir);
    in->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in->dirfd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", dir);
    in->dir = tg_strdup(dir);
    if (!in->dir)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", dir);
    TG_TRY(walk(in, err));
    *out = tg_steal(&in);
    return TG_OK;
}

void tg_tgsp_inputs_free(struct tg_tgsp_inputs *in)
{
    if (!in)
        return;
    for (size_t i = 0; i < in->n; i++) {
        tg_free((void *)(uintptr_t)in->v[i].path);
        tg_fd_close(in->v[i].fd);
    }
    tg_free(in->v);
    tg_free(in->dir);
    tg_fd_close(in->dirfd);
    tg_free(in);
}

size_t tg_tgsp_inputs_count(const struct tg_tgsp_inputs *in)
{
    return in->n;
}

const struct tg_tgsp_input *tg_tgsp_inputs_at(const struct tg_tgsp_inputs *in, size_t i)
{
    return &in->v[i];
}

enum tg_rc tg_tgsp_inputs_replace(struct tg_tgsp_inputs *in, size_t i, const char *path, int *fd,
                                  struct tg_err *err)
{
    struct tg_tgsp_input old = in->v[i];
    uint64_t size = 0;

    TG_TRY(tg_tgsp_path_check(tg_bytes_str(path), err));
    TG_TRY(tg_fd_size(*fd, path, &size, err));
    TG_AUTO(tg_freep) char *own = tg_strdup(path);
    if (!own)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", in->dir);
    in->v[i] = (struct tg_tgsp_input){own, size, *fd};
    enum tg_rc rc = order(in, err);
    if (rc != TG_OK) {
        for (i = 0; in->v[i].path != own; i++)
            ;
        in->v[i] = old; /* out of place until it is sorted again */
        qsort(in->v, in->n, sizeof *in->v, by_path);
        return rc;
    }
    own = NULL;
    *fd = -1;
    in->bytes = in->bytes - old.size + size;
    tg_free((void *)(uintptr_t)old.path);
    tg_fd_close(old.fd);
    return TG_OK;
}

uint64_t tg_tgsp_inputs_bytes(const struct tg_tgsp_inputs *in)
{
    return in->bytes;
}

enum tg_rc tg_tgsp_inputs_open(const struct tg_tgsp_inputs *in, size_t i, int *fd,
                               struct tg_err *err)
{
    struct stat st;
    /* Nothing blocks here, even if a FIFO took the file's place since the scan. */
    TG_AUTO(tg_fd_closep)
    int got = in->v[i].fd >= 0
                  ? fcntl(in->v[i].fd, F_DUPFD_CLOEXEC, 0)
                  : tg_open_beneath(in->dirfd, in->v[i].path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (got < 0 || fstat(got, &st) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", in->dir, in->v[i].path);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != in->v[i].size)
        return TG_FAIL(err, TG_E_STATE,
                       "%s/%s: changed while it was being packed (%" PRIu64 " bytes, now %" PRIu64
                       "); build again when nothing writes to it",
                       in->dir, in->v[i].path, in->v[i].size, (uint64_t)st.st_size);
    *fd = got;
    got = -1;
    return TG_OK;
}
