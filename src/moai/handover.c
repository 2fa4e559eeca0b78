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
#include "tgsp/package.h"

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

/* The file in which a tensor was looked for last, in the protected region: programs take one tensor
 * of a file after another. */
struct opened {
    const struct tg_tgsp_file *file; /* NULL: none */
    uint64_t used_ns;
    struct tg_secret *bytes;
    struct tg_weights weights;
};

struct tg_handover {
    struct tg_handover_opts o;
    const struct tg_model *model;
    struct opened opened;
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

void tg_handover_forget(struct tg_handover *h)
{
    tg_weights_done(&h->opened.weights);
    tg_secret_free(h->opened.bytes);
    memset(&h->opened, 0, sizeof(h->opened));
}

uint32_t tg_handover_rest(struct tg_handover *h)
{
    uint64_t for_ms = (tg_clock_mono_ns() - h->opened.used_ns) / 1000000;

    if (h->opened.file == NULL)
        return 0;
    if (for_ms < TG_HANDOVER_REST_MS)
        return (uint32_t)(TG_HANDOVER_REST_MS - for_ms);
    tg_handover_forget(h);
    return 0;
}

void tg_handover_free(struct tg_handover *h)
{
    if (h == NULL)
        return;
    tg_handover_forget(h);
    for (size_t i = 0; i < h->n; i++)
        copy_done(&h->copies[i]);
    tg_free(h);
}

void tg_handover_model(struct tg_handover *h, const struct tg_model *m)
{
    tg_handover_forget(h);
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

/* ---- the package ---- */

/* By this thread alone: a worker that serves makes no threads. It was whole when it was loaded, or
 * when its bake was made: that it no longer is must not be known to the client alone. */
static enum tg_rc read_package(const struct tg_model *m, uint64_t off, uint8_t *to, size_t n,
                               struct tg_err *err)
{
    enum tg_rc rc = tg_tgsp_read(m->package, off, to, n, 1, err);

    if (rc != TG_OK)
        tg_log(TG_LOG_WARN, "moai.handover", "state=unreadable code=%s", tg_rc_name(rc));
    return rc;
}

static const struct tg_tgsp_file *files_of(const struct tg_model *m, size_t *n)
{
    const struct tg_tgsp_manifest *manifest =
        m == NULL || m->package == NULL ? NULL : tg_tgsp_manifest_get(m->package);

    *n = manifest == NULL ? 0 : manifest->files.n;
    return manifest == NULL ? NULL : manifest->files.items;
}

static const struct tg_tgsp_file *find_file(const struct tg_model *m, const char *path)
{
    size_t n;
    const struct tg_tgsp_file *v = files_of(m, &n);

    for (size_t i = 0; i < n; i++)
        if (strcmp(v[i].path, path) == 0)
            return &v[i];
    return NULL;
}

/* ---- making a copy ---- */

/* What becomes a copy: bytes that are there, or (p NULL) a range of the package. */
struct origin {
    const struct tg_model *model;
    uint64_t off;
    const uint8_t *p;
    size_t n;
};

static enum tg_rc bring(const struct origin *from, uint8_t *to, struct tg_err *err)
{
    if (from->p == NULL)
        return read_package(from->model, from->off, to, from->n, err);
    memcpy(to, from->p, from->n);
    return TG_OK;
}

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
static enum tg_rc fill(struct copy *c, const struct origin *from, struct tg_err *err)
{
    void *p = NULL;
    enum tg_rc rc;

    if (ftruncate(c->fd, (off_t)from->n) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make %zu bytes of memory", from->n);
    if (from->n > 0) {
        TG_TRY(map_locked(c, PROT_READ | PROT_WRITE, &p, err));
        rc = bring(from, p, err);
        (void)munmap(p, from->n);
        TG_TRY(rc);
    }
    if (fcntl(c->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't seal memory to hand over");
    return from->n > 0 ? map_locked(c, PROT_READ, &c->map, err) : TG_OK;
}

static enum tg_rc make_copy(struct copy *c, const struct origin *from, struct tg_err *err)
{
    enum tg_rc rc;

    c->size = from->n;
    c->fd = memfd_create("tensorguard-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (c->fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make memory to hand over");
    rc = fill(c, from, err);
    if (rc != TG_OK)
        copy_done(c);
    return rc;
}

/* ---- what is asked for ---- */

/* Whoever asks for a tensor of a file that has none must not cost the decryption of all of it. */
static enum tg_rc check_beginning(const struct tg_handover *h, const struct tg_tgsp_file *f,
                                  struct tg_err *err)
{
    uint8_t head[TG_WEIGHTS_HEAD];
    size_t n = f->size < sizeof(head) ? (size_t)f->size : sizeof(head);
    enum tg_rc rc;

    if (f->size > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "%s: too large", f->path);
    TG_TRY(read_package(h->model, f->offset, head, n, err));
    rc = tg_weights_kind(tg_bytes_make(head, n), f->path, err);
    tg_wipe(head, sizeof(head));
    return rc;
}

static enum tg_rc open_file(struct tg_handover *h, const struct tg_tgsp_file *f, struct tg_err *err)
{
    struct opened *o = &h->opened;
    enum tg_rc rc;

    if (o->file == f)
        return TG_OK;
    tg_handover_forget(h);
    TG_TRY(check_beginning(h, f, err));
    TG_TRY(tg_secret_new((size_t)f->size, &o->bytes, err));
    rc = read_package(h->model, f->offset, tg_secret_data(o->bytes), (size_t)f->size, err);
    if (rc == TG_OK)
        rc = tg_secret_seal(o->bytes, err);
    if (rc == TG_OK)
        rc = tg_weights_parse(tg_bytes_make(tg_secret_data(o->bytes), (size_t)f->size), f->path,
                              &o->weights, err);
    if (rc != TG_OK) {
        tg_handover_forget(h);
        return rc;
    }
    o->file = f;
    o->used_ns = tg_clock_mono_ns();
    return TG_OK;
}

static enum tg_rc copy_tensor(struct tg_handover *h, const struct tg_tgsp_file *f, struct copy *c,
                              struct tg_err *err)
{
    const struct tg_weight *found;
    struct origin from = {.model = h->model};

    TG_TRY(open_file(h, f, err));
    found = tg_weights_find(&h->opened.weights, tg_bytes_str(c->tensor));
    if (found == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: no tensor '%s'", c->path, c->tensor);
    if (found->stride != NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "%s: tensor '%s' is not packed; take the file",
                       c->path, c->tensor);
    tg_native_text(c->dtype, sizeof(c->dtype), tg_wtype_name(found->type));
    c->shape = found->shape;
    h->opened.used_ns = tg_clock_mono_ns();
    from.p = found->bytes.p;
    from.n = found->bytes.n;
    return make_copy(c, &from, err);
}

static enum tg_rc copy_file(const struct tg_handover *h, const struct tg_tgsp_file *f,
                            struct copy *c, struct tg_err *err)
{
    const struct origin from = {.model = h->model, .off = f->offset, .n = (size_t)f->size};

    return make_copy(c, &from, err);
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
    const struct tg_tgsp_file *f = find_file(h->model, in->path);
    struct copy *c = &h->copies[h->n];

    if (f == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "the package has no file '%s'", in->path);
    if (h->n == TG_HANDOVER_COPIES_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%d files and tensors are handed over: no more",
                       TG_HANDOVER_COPIES_MAX);
    TG_TRY(check_pace(h, err)); /* before the work: decrypting takes time */
    memset(c, 0, sizeof(*c));
    memcpy(c->path, in->path, sizeof(c->path));
    memcpy(c->tensor, in->tensor, sizeof(c->tensor));
    TG_TRY(c->tensor[0] == '\0' ? copy_file(h, f, c, err) : copy_tensor(h, f, c, err));
    h->n++;
    *out = c;
    return TG_OK;
}

enum tg_rc tg_handover_take(struct tg_handover *h, uid_t uid, const struct tg_native_take *in,
                            union tg_native_msg *out, int *fd, struct tg_err *err)
{
    struct copy *c = find_copy(h, in);
    struct tg_handover_note note = {.file = in->path, .tensor = in->tensor, .uid = (uint32_t)uid};

    TG_TRY(check_user(h, uid, err));
    TG_TRY(c == NULL ? add_copy(h, in, &c, err) : check_pace(h, err));
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
    size_t n;
    const struct tg_tgsp_file *v = files_of(h->model, &n);

    TG_TRY(check_user(h, uid, err));
    tg_native_begin(out, TG_NATIVE_FILES);
    out->files.total = (uint32_t)n;
    for (size_t i = in->from; i < n && out->files.n < TG_NATIVE_FILES_MAX; i++) {
        struct tg_native_file *f = &out->files.files[out->files.n++];

        f->size = v[i].size;
        tg_native_text(f->path, sizeof(f->path), v[i].path);
    }
    return TG_OK;
}
