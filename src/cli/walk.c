#include "cli/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/beneath.h"

/* Folders still to be read; their paths are relative to the root ("" is the root itself). */
struct todo {
    char **v;
    size_t n;
    size_t cap;
};

static void todo_done(struct todo *t)
{
    for (size_t i = 0; i < t->n; i++)
        tg_free(t->v[i]);
    tg_free(t->v);
}

/* Make room for one more of `size` bytes. */
static enum tg_rc room(void **v, size_t n, size_t *cap, size_t size, struct tg_err *err)
{
    if (n < *cap)
        return TG_OK;
    size_t want = *cap == 0 ? 64 : *cap * 2;
    void *p = tg_realloc(*v, want * size);
    if (p == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    *v = p;
    *cap = want;
    return TG_OK;
}

static const char *kind_of(mode_t mode)
{
    if (S_ISLNK(mode))
        return "a symbolic link";
    if (S_ISFIFO(mode))
        return "a FIFO";
    if (S_ISSOCK(mode))
        return "a socket";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "a device";
    return "no regular file";
}

static enum tg_rc add_file(struct cli_walk *w, char **path, const struct stat *st,
                           struct tg_err *err)
{
    if (w->n == CLI_WALK_FILES_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "more than %d files; pack them into an archive",
                       CLI_WALK_FILES_MAX);
    void *v = w->files;
    TG_TRY(room(&v, w->n, &w->cap, sizeof(*w->files), err));
    w->files = v;
    w->files[w->n++] = (struct cli_walk_file){
        .path = tg_steal(path), .size = (uint64_t)st->st_size, .mtime = st->st_mtim};
    return TG_OK;
}

static enum tg_rc add_dir(struct todo *t, char **path, struct tg_err *err)
{
    void *v = t->v;
    TG_TRY(room(&v, t->n, &t->cap, sizeof(*t->v), err));
    t->v = v;
    t->v[t->n++] = tg_steal(path);
    return TG_OK;
}

static enum tg_rc add_entry(struct cli_walk *w, struct todo *t, int dir, const char *prefix,
                            const char *name, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_asprintf("%s%s%s", prefix, prefix[0] ? "/" : "", name);
    const char *why = NULL;
    struct stat st;

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    if (!cli_path_ok(tg_bytes_str(path), &why))
        return TG_FAIL(err, TG_E_USAGE, "%s: could not be restored elsewhere: %s", path, why);
    if (S_ISDIR(st.st_mode))
        return add_dir(t, &path, err);
    if (S_ISREG(st.st_mode))
        return add_file(w, &path, &st, err);
    return TG_FAIL(err, TG_E_USAGE, "%s: is %s; only regular files are packed", path,
                   kind_of(st.st_mode));
}

static void closedirp(DIR **d)
{
    if (*d != NULL)
        (void)closedir(*d);
}

static enum tg_rc open_folder(int root, const char *path, DIR **out, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char seg[256];

    for (const char *p = path; fd >= 0 && *p != 0;) {
        size_t n = strcspn(p, "/");
        memcpy(seg, p, n); /* at most 255: cli_path_ok */
        seg[n] = 0;
        int next = openat(fd, seg, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        tg_fd_close(fd);
        fd = next;
        p += n + (p[n] == '/');
    }
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path[0] ? path : ".");
    *out = fdopendir(fd);
    if (*out == NULL)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    fd = -1;
    return TG_OK;
}

static enum tg_rc read_folder(struct cli_walk *w, struct todo *t, const char *path,
                              struct tg_err *err)
{
    TG_AUTO(closedirp) DIR *d = NULL;

    TG_TRY(open_folder(w->root, path, &d, err));
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL && errno != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
        if (e == NULL)
            return TG_OK;
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            TG_TRY(add_entry(w, t, dirfd(d), path, e->d_name, err));
    }
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(((const struct cli_walk_file *)a)->path, ((const struct cli_walk_file *)b)->path);
}

/* Case folded, with '/' below everything, so that "a" is followed by what lies in folder "a". */
static int fold_char(char c)
{
    if (c == '/')
        return 1;
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : (uint8_t)c;
}

static int by_fold(const void *a, const void *b)
{
    const char *p = *(const char *const *)a;
    const char *q = *(const char *const *)b;

    for (; *p != 0 && fold_char(*p) == fold_char(*q); p++)
        q++;
    return fold_char(*p) - fold_char(*q);
}

/* On a file system that ignores case, two such files would be one. */
static enum tg_rc check_case(const struct cli_walk *w, struct tg_err *err)
{
    TG_AUTO(tg_freep) const char **v = tg_calloc(w->n + 1, sizeof(*v));

    if (v == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < w->n; i++)
        v[i] = w->files[i].path;
    qsort(v, w->n, sizeof(*v), by_fold);
    for (size_t i = 1; i < w->n; i++) {
        const char *p = v[i - 1];
        const char *q = v[i];
        while (*p != 0 && fold_char(*p) == fold_char(*q)) {
            p++;
            q++;
        }
        if (*p == 0 && (*q == 0 || *q == '/'))
            return TG_FAIL(err, TG_E_USAGE,
                           "%s and %s: differ only in upper and lower case; could not be restored "
                           "on every file system",
                           v[i - 1], v[i]);
    }
    return TG_OK;
}

enum tg_rc cli_walk_dir(const char *dir, struct cli_walk *w, struct tg_err *err)
{
    TG_AUTO(todo_done) struct todo t = {0};
    TG_AUTO(tg_freep) char *top = tg_strdup("");

    w->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->root < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", dir);
    if (top == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    enum tg_rc rc = add_dir(&t, &top, err);
    while (rc == TG_OK && t.n > 0) {
        TG_AUTO(tg_freep) char *path = t.v[--t.n];
        rc = read_folder(w, &t, path, err);
    }
    if (rc == TG_OK && w->n > 1) {
        qsort(w->files, w->n, sizeof(*w->files), by_bytes);
        rc = check_case(w, err);
    }
    if (rc != TG_OK)
        tg_err_wrap(err, "%s", dir);
    return rc;
}

void cli_walk_done(struct cli_walk *w)
{
    for (size_t i = 0; i < w->n; i++)
        tg_free(w->files[i].path);
    tg_free(w->files);
    tg_fd_closep(&w->root);
    *w = CLI_WALK_INIT;
}

enum tg_rc cli_walk_open(const struct cli_walk *w, size_t i, int *fd_out, struct tg_err *err)
{
    const struct cli_walk_file *f = &w->files[i];
    TG_AUTO(tg_fd_closep) int fd = -1;
    struct stat st;

    TG_TRY(cli_beneath_open(w->root, f->path, O_RDONLY, &fd, err));
    if (fstat(fd, &st) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", f->path);
    if ((uint64_t)st.st_size != f->size || st.st_mtim.tv_sec != f->mtime.tv_sec ||
        st.st_mtim.tv_nsec != f->mtime.tv_nsec)
        return TG_FAIL(err, TG_E_STATE, "%s: changed while it was being packed", f->path);
    *fd_out = fd;
    fd = -1;
    return TG_OK;
}

enum tg_rc cli_walk_contains(const struct cli_walk *w, const char *path, bool *yes,
                             struct tg_err *err)
{
    TG_AUTO(tg_freep) char *dir = tg_strdup(path);
    TG_AUTO(tg_fd_closep) int fd = -1;
    struct stat root;
    struct stat at;
    struct stat up;

    if (dir == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    char *slash = strrchr(dir, '/');
    if (slash != NULL)
        slash[slash == dir] = 0;
    fd = open(slash != NULL ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s",
                             slash != NULL ? dir : ".");
    if (fstat(w->root, &root) != 0 || fstat(fd, &at) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    /* Upwards, folder by folder, until the root of the file system, which is its own parent. */
    for (;;) {
        if (at.st_dev == root.st_dev && at.st_ino == root.st_ino) {
            *yes = true;
            return TG_OK;
        }
        int parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0 || fstat(parent, &up) != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
        tg_fd_close(fd);
        fd = parent;
        if (up.st_dev == at.st_dev && up.st_ino == at.st_ino)
            break;
        at = up;
    }
    *yes = false;
    return TG_OK;
}
