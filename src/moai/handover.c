#include "moai/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "tensor/weights.h"

/* Each is told to the agent, which takes a worker that says too much for one that was taken over:
 * so many at once (TG_HANDOVER_BURST), then one in so long. */
#define EACH_NS UINT64_C(1000000000)

/* One copy outside the region: locked as long as it is here. */
struct copy {
    int fd;
    void *map; /* read-only; NULL for an empty one */
    size_t size;
    char path[TG_NATIVE_PATH_TEXT];
    char tensor[TG_NATIVE_NAME_TEXT];
    char dtype[TG_NATIVE_DTYPE_TEXT]; /* "": a file */
    struct tg_shape shape;
};

struct tg_handover {
    struct tg_handover_opts o;
    const struct tg_model *model;
    struct copy copies[TG_HANDOVER_COPIES_MAX];
    size_t n;
    uint64_t handed, handed_bytes;
    unsigned allowance; /* hand-overs that may follow at once */
    uint64_t counted_ns;
};

enum tg_rc tg_handover_new(const struct tg_handover_opts *opts, struct tg_handover **out,
                           struct tg_err *err)
{
    struct tg_handover *h = tg_calloc(1, sizeof(*h));

    if (h == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    h->o = *opts;
    h->allowance = TG_HANDOVER_BURST;
    h->counted_ns = tg_clock_mono_ns();
    *out = h;
    return TG_OK;
}

static void copy_done(struct copy *c)
{
    if (c->map != NULL)
        (void)munmap(c->map, c->size);
    tg_fd_close(c->fd);
}

void tg_handover_free(struct tg_handover *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < h->n; i++)
        copy_done(&h->copies[i]);
    tg_free(h);
}

void tg_handover_model(struct tg_handover *h, const struct tg_model *m)
{
    h->model = m;
}

bool tg_handover_allows(const struct tg_handover *h, uid_t uid)
{
    for (size_t i = 0; i < h->o.n_users; i++)
        if (h->o.users[i] == uid)
            return true;
    return false;
}

struct tg_handover_facts tg_handover_facts(const struct tg_handover *h)
{
    struct tg_handover_facts f = {
        .handed = h->handed, .handed_bytes = h->handed_bytes, .held = h->n};

    for (size_t i = 0; i < h->n; i++)
        f.held_bytes += h->copies[i].size;
    return f;
}

bool tg_handover_copy(const struct tg_handover *h, size_t i, struct tg_handover_copy *out)
{
    if (i >= h->n)
        return false;
    *out = (struct tg_handover_copy){h->copies[i].path, h->copies[i].tensor, h->copies[i].map,
                                     h->copies[i].size};
    return true;
}

/* ---- making a copy ---- */

static enum tg_rc map_locked(const struct copy *c, int prot, void **out, struct tg_err *err)
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
static enum tg_rc fill(struct copy *c, struct tg_bytes bytes, struct tg_err *err)
{
    void *p = NULL;

    if (ftruncate(c->fd, (off_t)bytes.n) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make %zu bytes of memory", bytes.n);
    if (bytes.n > 0) {
        TG_TRY(map_locked(c, PROT_READ | PROT_WRITE, &p, err));
        memcpy(p, bytes.p, bytes.n);
        (void)munmap(p, bytes.n);
    }
    if (fcntl(c->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't seal memory to hand over");
    return bytes.n > 0 ? map_locked(c, PROT_READ, &c->map, err) : TG_OK;
}

static enum tg_rc make_copy(struct copy *c, struct tg_bytes bytes, struct tg_err *err)
{
    enum tg_rc rc;

    c->size = bytes.n;
    c->fd = memfd_create("tensorguard-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (c->fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make memory to hand over");
    rc = fill(c, bytes, err);
    if (rc != TG_OK)
        copy_done(c);
    return rc;
}

/* ---- what is asked for ---- */

static const struct tg_kept_file *find_file(const struct tg_model *m, const char *path)
{
    for (size_t i = 0; m != NULL && i < m->n_files; i++)
        if (strcmp(m->files[i].path, path) == 0)
            return &m->files[i];
    return NULL;
}

static enum tg_rc find_tensor(struct copy *c, struct tg_bytes file, struct tg_err *err)
{
    struct tg_weights w = TG_WEIGHTS_INIT;
    const struct tg_weight *found;
    enum tg_rc rc;

    TG_TRY(tg_weights_parse(file, c->path, &w, err));
    found = tg_weights_find(&w, tg_bytes_str(c->tensor));
    if (found == NULL) {
        rc = TG_FAIL(err, TG_E_NOTFOUND, "%s: no tensor '%s'", c->path, c->tensor);
    } else if (found->stride != NULL) {
        rc = TG_FAIL(err, TG_E_UNSUPPORTED, "%s: tensor '%s' is not packed; take the file", c->path,
                     c->tensor);
    } else {
        tg_native_text(c->dtype, sizeof(c->dtype), tg_wtype_name(found->type));
        c->shape = found->shape;
        rc = make_copy(c, found->bytes, err);
    }
    tg_weights_done(&w);
    return rc;
}

static struct copy *find_copy(struct tg_handover *h, const struct tg_native_take *in)
{
    for (size_t i = 0; i < h->n; i++)
        if (strcmp(h->copies[i].path, in->path) == 0 &&
            strcmp(h->copies[i].tensor, in->tensor) == 0)
            return &h->copies[i];
    return NULL;
}

static enum tg_rc add_copy(struct tg_handover *h, const struct tg_native_take *in,
                           struct copy **out, struct tg_err *err)
{
    const struct tg_kept_file *f = find_file(h->model, in->path);
    struct copy *c = &h->copies[h->n];
    struct tg_bytes bytes;

    if (f == NULL || h->model->region == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "the package has no file '%s'", in->path);
    if (h->n == TG_HANDOVER_COPIES_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%d files and tensors are handed over: no more",
                       TG_HANDOVER_COPIES_MAX);
    bytes = tg_bytes_sub(
        tg_bytes_make(tg_secret_data(h->model->region), tg_secret_size(h->model->region)),
        (size_t)f->offset, (size_t)f->size);
    memset(c, 0, sizeof(*c));
    memcpy(c->path, in->path, sizeof(c->path));
    memcpy(c->tensor, in->tensor, sizeof(c->tensor));
    TG_TRY(c->tensor[0] == '\0' ? make_copy(c, bytes, err) : find_tensor(c, bytes, err));
    h->n++;
    *out = c;
    return TG_OK;
}

static enum tg_rc check_user(const struct tg_handover *h, uid_t uid, struct tg_err *err)
{
    if (tg_handover_allows(h, uid))
        return TG_OK;
    return TG_FAIL(err, TG_E_DENIED,
                   "user %u may not be handed files of the package (the agent's configuration "
                   "names who may)",
                   (unsigned)uid);
}

static enum tg_rc check_pace(struct tg_handover *h, struct tg_err *err)
{
    uint64_t now = tg_clock_mono_ns(), more = (now - h->counted_ns) / EACH_NS;

    if (more >= TG_HANDOVER_BURST - h->allowance) {
        h->allowance = TG_HANDOVER_BURST;
        h->counted_ns = now;
    } else {
        h->allowance += (unsigned)more;
        h->counted_ns += more * EACH_NS;
    }
    if (h->allowance == 0)
        return TG_FAIL(err, TG_E_AGAIN, "too many hand-overs at a time: ask again in a second");
    h->allowance--;
    return TG_OK;
}

enum tg_rc tg_handover_take(struct tg_handover *h, uid_t uid, const struct tg_native_take *in,
                            union tg_native_msg *out, int *fd, struct tg_err *err)
{
    struct copy *c = find_copy(h, in);
    struct tg_handover_note note = {.file = in->path, .tensor = in->tensor, .uid = (uint32_t)uid};

    TG_TRY(check_user(h, uid, err));
    if (c == NULL)
        TG_TRY(add_copy(h, in, &c, err));
    TG_TRY(check_pace(h, err));
    note.size = c->size;
    TG_TRY(h->o.tell(h->o.arg, &note, err));
    h->handed++;
    h->handed_bytes += c->size;
    tg_log(TG_LOG_INFO, "moai.handover", "uid=%u bytes=%zu", (unsigned)uid, c->size);
    tg_native_begin(out, TG_NATIVE_TAKEN);
    out->taken.size = c->size;
    memcpy(out->taken.dtype, c->dtype, sizeof(c->dtype));
    out->taken.n_dims = (uint32_t)c->shape.n;
    memcpy(out->taken.dims, c->shape.d, c->shape.n * sizeof(c->shape.d[0]));
    *fd = c->fd;
    return TG_OK;
}

enum tg_rc tg_handover_list(const struct tg_handover *h, uid_t uid, const struct tg_native_list *in,
                            union tg_native_msg *out, struct tg_err *err)
{
    size_t total = h->model == NULL ? 0 : h->model->n_files;

    TG_TRY(check_user(h, uid, err));
    tg_native_begin(out, TG_NATIVE_FILES);
    out->files.total = (uint32_t)total;
    for (size_t i = in->from; i < total && out->files.n < TG_NATIVE_FILES_MAX; i++) {
        struct tg_native_file *f = &out->files.files[out->files.n++];

        f->size = h->model->files[i].size;
        tg_native_text(f->path, sizeof(f->path), h->model->files[i].path);
    }
    return TG_OK;
}
