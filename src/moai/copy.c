#include "moai/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "tensor/weights.h"
#include "tgsp/package.h"

/* Decrypted between two looks at whether it is still wanted: a few milliseconds' worth. */
#define STEP (UINT64_C(4) << 20)

/* ---- the package ---- */

const struct tg_tgsp_file *tg_copy_file(const struct tg_model *m, const char *path)
{
    const struct tg_tgsp_manifest *manifest =
        m == NULL || m->package == NULL ? NULL : tg_tgsp_manifest_get(m->package);

    return manifest == NULL ? NULL : tg_tgsp_manifest_file(manifest, path);
}

/* A file, for whoever reads parts of it. */
struct origin {
    const struct tg_model *model;
    const struct tg_tgsp_file *file;
    struct tg_copy_watch *watch;
};

/* So many bytes at `off` that the next read begins with a chunk: none is decrypted twice. */
static size_t step(const struct tg_tgsp *p, uint64_t off, size_t n)
{
    uint64_t chunk = tg_tgsp_geometry_get(p)->chunk_size;
    uint64_t steps = chunk < STEP ? STEP / chunk * chunk : chunk;
    uint64_t most = steps - off % chunk;

    return n < most ? n : (size_t)most;
}

static enum tg_rc read_steps(const struct origin *from, uint64_t off, uint8_t *to, size_t n,
                             size_t *done, struct tg_err *err)
{
    struct tg_tgsp *p = from->model->package;

    for (*done = 0; *done < n;) {
        size_t now = step(p, off + *done, n - *done);

        if (atomic_load(&from->watch->stop))
            return TG_FAIL(err, TG_E_CLOSED, "%s: not wanted any more", from->file->path);
        TG_TRY(tg_tgsp_read(p, off + *done, to + *done, now, 1, err));
        *done += now;
    }
    return TG_OK;
}

/* Bytes [off, off + n) of the file. It was whole when it was loaded, or when its bake was made:
 * that it no longer is must not be known to the client alone. */
static enum tg_rc read_file(void *arg, uint64_t off, uint8_t *to, size_t n, struct tg_err *err)
{
    const struct origin *from = arg;
    size_t done = 0;
    enum tg_rc rc = read_steps(from, from->file->offset + off, to, n, &done, err);

    if (rc == TG_OK)
        return TG_OK;
    tg_wipe(to, done); /* the step that failed is wiped already */
    if (rc != TG_E_CLOSED)
        tg_log(TG_LOG_WARN, "moai.handover", "state=unreadable code=%s", tg_rc_name(rc));
    return rc;
}

/* ---- what is asked for ---- */

/* A range of the file, and what it must be. */
struct part {
    uint64_t off;
    size_t n;
    struct tg_weight_place place; /* of a tensor */
    bool tensor;
};

static enum tg_rc find_part(struct origin *from, struct tg_copy *c, struct part *out,
                            struct tg_err *err)
{
    const struct tg_weights_src src = {read_file, from, from->file->size};

    if (from->file->size > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "%s: too large", c->path);
    *out = (struct part){.n = (size_t)from->file->size, .tensor = c->tensor[0] != '\0'};
    if (!out->tensor)
        return TG_OK;
    TG_TRY(tg_weights_locate(&src, c->path, tg_bytes_str(c->tensor), &out->place, err));
    out->off = out->place.at;
    out->n = out->place.n;
    tg_native_text(c->dtype, sizeof(c->dtype), tg_wtype_name(out->place.type));
    c->shape = out->place.shape;
    return TG_OK;
}

static enum tg_rc bring(struct origin *from, const struct part *part, const struct tg_copy *c,
                        uint8_t *to, struct tg_err *err)
{
    TG_TRY(read_file(from, part->off, to, part->n, err));
    if (!part->tensor || tg_weight_place_holds(&part->place, tg_bytes_make(to, part->n)))
        return TG_OK;
    tg_wipe(to, part->n);
    return TG_FAIL(err, TG_E_FORMAT, "%s: tensor '%s': a BOOL is neither 0 nor 1", c->path,
                   c->tensor);
}

/* ---- making it ---- */

static enum tg_rc map_locked(const struct tg_copy *c, int prot, void **out, struct tg_err *err)
{
    void *p = mmap(NULL, c->size, prot, MAP_SHARED, c->fd, 0);
    int e;

    if (p == MAP_FAILED)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't map %zu bytes of memory", c->size);
    if (mlock(p, c->size) != 0) {
        e = errno;
        (void)munmap(p, c->size);
        tg_err_errno(err, TG_E_NOMEM, e,
                     "can't lock %zu bytes of memory; raise LimitMEMLOCK= in the service unit or "
                     "`ulimit -l`",
                     c->size);
        return TG_E_NOMEM;
    }
    *out = p;
    return TG_OK;
}

/* Locked before the first byte is in it. A mapping that could write must be gone before the seal:
 * between the two the pages are unlocked for the time of two system calls. */
static enum tg_rc fill(struct tg_copy *c, struct origin *from, const struct part *part,
                       struct tg_err *err)
{
    void *p = NULL;
    enum tg_rc rc;

    if (ftruncate(c->fd, (off_t)c->size) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make %zu bytes of memory", c->size);
    if (c->size > 0) {
        TG_TRY(map_locked(c, PROT_READ | PROT_WRITE, &p, err));
        rc = bring(from, part, c, p, err);
        (void)munmap(p, c->size);
        TG_TRY(rc);
    }
    if (fcntl(c->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't seal memory to hand over");
    return c->size > 0 ? map_locked(c, PROT_READ, &c->map, err) : TG_OK;
}

static enum tg_rc make(struct tg_copy *c, struct origin *from, const struct part *part,
                       struct tg_err *err)
{
    enum tg_rc rc;

    c->size = part->n;
    c->fd = memfd_create("tensorguard-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (c->fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make memory to hand over");
    atomic_store(&from->watch->size, c->size);
    rc = fill(c, from, part, err);
    if (rc != TG_OK) {
        tg_copy_done(c);
        atomic_store(&from->watch->size, 0);
    }
    return rc;
}

enum tg_rc tg_copy_make(const struct tg_model *m, const struct tg_native_take *in,
                        struct tg_copy_watch *watch, struct tg_copy *out, struct tg_err *err)
{
    struct origin from = {m, tg_copy_file(m, in->path), watch};
    struct tg_copy c = {.fd = -1};
    struct part part;

    if (from.file == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "the package has no file '%s'", in->path);
    memcpy(c.path, in->path, sizeof(c.path));
    memcpy(c.tensor, in->tensor, sizeof(c.tensor));
    TG_TRY(find_part(&from, &c, &part, err));
    TG_TRY(make(&c, &from, &part, err));
    *out = c;
    return TG_OK;
}

void tg_copy_done(struct tg_copy *c)
{
    if (c->map != NULL)
        (void)munmap(c->map, c->size);
    tg_fd_close(c->fd);
}
