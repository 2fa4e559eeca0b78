/* Files to a folder: made under a temporary name beside it, renamed once everything has passed. */
#include "tgsp/extract.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/random.h"
#include "tgsp/beneath_internal.h"
#include "tgsp/package_internal.h"
#include "tgsp/path.h"

#define DIR_MODE 0700
#define FILE_MODE 0600

struct extraction {
    struct tg_tgsp *p;
    const struct tg_tgsp_run *run;
    char *tmp; /* the folder being filled; removed unless renamed */
    int dirfd;
};

static void extraction_done(struct extraction *x)
{
    tg_fd_close(x->dirfd);
    if (x->tmp)
        (void)!tg_dir_remove(x->tmp, NULL);
    tg_free(x->tmp);
}

/* "<dir>.tmp-<random>" beside dir, made by us and nobody else. */
static enum tg_rc tmp_make(struct extraction *x, const char *dir, struct tg_err *err)
{
    uint8_t random[8];
    char hex[17];
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    TG_TRY(tg_random(random, sizeof random));
    tg_hex_encode(TG_BYTES_OF(random), hex);
    char *tmp = tg_asprintf("%.*s.tmp-%s", (int)n, dir, hex);
    if (!tmp)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", dir);
    if (mkdir(tmp, DIR_MODE) != 0) {
        enum tg_rc rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s", tmp);
        tg_free(tmp);
        return rc;
    }
    x->tmp = tmp;
    x->dirfd = open(tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return x->dirfd >= 0 ? TG_OK : TG_FAIL_ERRNO(err, TG_E_IO, "%s", tmp);
}

/* Is file i of the manifest to be restored? */
static bool wanted(const struct extraction *x, size_t i)
{
    const struct tg_tgsp_file *v = x->p->manifest.files.items;
    return !tg_tgsp_path_reserved(v[i].path) &&
           (!x->run || !x->run->only || tg_tgsp_select_has(x->run->only, i));
}

/* Make the folders on the way to path. */
static enum tg_rc parents_make(const struct extraction *x, const char *path, struct tg_err *err)
{
    char part[TG_TGSP_PATH_MAX + 1];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        memcpy(part, path, n);
        part[n] = '\0';
        /* Nothing but our own folders is beneath tmp: no link can lead mkdirat astray. */
        if (mkdirat(x->dirfd, part, DIR_MODE) != 0 && errno != EEXIST)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", x->tmp, part);
    }
    return TG_OK;
}

static enum tg_rc files_make(const struct extraction *x, struct tg_err *err)
{
    const struct tg_tgsp_file *v = x->p->manifest.files.items;
    for (size_t i = 0; i < x->p->manifest.files.n; i++) {
        if (!wanted(x, i))
            continue;
        TG_TRY(parents_make(x, v[i].path, err));
        TG_AUTO(tg_fd_closep)
        int fd = tg_open_beneath(x->dirfd, v[i].path, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
        if (fd < 0 || ftruncate(fd, (off_t)v[i].size) != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", x->tmp, v[i].path);
    }
    return TG_OK;
}

/* Pages of zeros at both ends of a part are left out: the file already has its size, so that long
 * stretches of them stay holes on disk. at: where the part begins in its file; moves with it. */
static struct tg_bytes without_zeros(struct tg_bytes part, uint64_t *at)
{
    static const uint8_t zeros[TG_TGSP_ALIGN];

    while (part.n >= sizeof(zeros) && tg_mem_eq(part.p, zeros, sizeof(zeros))) {
        part = tg_bytes_sub(part, sizeof(zeros), part.n);
        *at += sizeof(zeros);
    }
    while (part.n >= sizeof(zeros) &&
           tg_mem_eq(tg_bytes_sub(part, part.n - sizeof(zeros), sizeof(zeros)).p, zeros,
                     sizeof(zeros)))
        part.n -= sizeof(zeros);
    return part;
}

static enum tg_rc part_write(const struct extraction *x, const struct tg_tgsp_file *f,
                             struct tg_bytes part, uint64_t at, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = tg_open_beneath(x->dirfd, f->path, O_WRONLY, 0);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s/%s", x->tmp, f->path);
    part = without_zeros(part, &at);
    return part.n == 0 ? TG_OK : tg_fd_pwrite(fd, f->path, part.p, part.n, at, err);
}

static enum tg_rc chunk_write(void *ctx, uint64_t off, struct tg_bytes plain, struct tg_err *err)
{
    const struct extraction *x = ctx;
    const struct tg_tgsp_file *v = x->p->manifest.files.items;
    size_t n = x->p->manifest.files.n;
    uint64_t end = off + plain.n;
    for (size_t i = tg_tgsp_file_after(v, n, off); i < n && v[i].offset < end; i++) {
        uint64_t from = v[i].offset > off ? v[i].offset : off;
        uint64_t to = v[i].offset + v[i].size < end ? v[i].offset + v[i].size : end;
        if (to <= from || !wanted(x, i))
            continue;
        TG_TRY(part_write(x, &v[i], tg_bytes_sub(plain, (size_t)(from - off), (size_t)(to - from)),
                          from - v[i].offset, err));
    }
    return TG_OK;
}

/* rename(2) replaces an empty folder and refuses one that is not. */
static enum tg_rc publish(struct extraction *x, const char *dir, struct tg_err *err)
{
    if (rename(x->tmp, dir) != 0) {
        if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
            return TG_FAIL(err, TG_E_EXISTS,
                           "%s: exists already; give a new folder or an empty one", dir);
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", dir);
    }
    tg_free(x->tmp);
    x->tmp = NULL;
    return TG_OK;
}

/* "." and "..", which no rename can replace. */
static bool has_own_name(const char *dir)
{
    size_t n = strlen(dir), from;
    while (n > 0 && dir[n - 1] == '/')
        n--;
    for (from = n; from > 0 && dir[from - 1] != '/'; from--)
        continue;
    struct tg_bytes name = tg_bytes_make(dir + from, n - from);
    return name.n > 0 && !tg_bytes_eq(name, tg_bytes_str(".")) &&
           !tg_bytes_eq(name, tg_bytes_str(".."));
}

static void dir_closep(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

/* Said before the work is done; the rename at the end holds it. */
static enum tg_rc target_check(const char *dir, struct tg_err *err)
{
    TG_AUTO(dir_closep) DIR *d = opendir(dir);
    if (!d && errno == ENOENT)
        return TG_OK;
    if (!d && errno == ENOTDIR)
        return TG_FAIL(err, TG_E_EXISTS, "%s: exists and is not a folder", dir);
    if (!d)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", dir);
    for (const struct dirent *e = readdir(d); e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return TG_FAIL(err, TG_E_EXISTS,
                           "%s: exists and is not empty; give a new folder or an empty one", dir);
    return TG_OK;
}

enum tg_rc tg_tgsp_extract(struct tg_tgsp *p, const char *dir, const struct tg_tgsp_run *run,
                           struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    if (!has_own_name(dir))
        return TG_FAIL(err, TG_E_USAGE, "%s: name the folder to make, or an empty one, by its name",
                       dir);
    TG_TRY(target_check(dir, err));
    TG_AUTO(extraction_done) struct extraction x = {.p = p, .dirfd = -1, .run = run};
    TG_TRY(tmp_make(&x, dir, err));
    TG_TRY(files_make(&x, err));
    TG_TRY(tg_tgsp_each(p, chunk_write, &x, run, err));
    return publish(&x, dir, err);
}
