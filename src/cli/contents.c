#include "cli/contents.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

#include "base/file.h"
#include "cli/contents_internal.h"
#include "cli/package.h"
#include "tensor/format.h"
#include "tensor/onnx.h"
#include "tensor/zip.h"

/* ---- small things ---- */

enum tg_rc cli_map_open(const struct tg_tgsp_inputs *in, size_t i, struct cli_map *out,
                        struct tg_err *err)
{
    const struct tg_tgsp_input *f = tg_tgsp_inputs_at(in, i);
    TG_AUTO(tg_fd_closep) int fd = -1;

    TG_TRY(tg_tgsp_inputs_open(in, i, &fd, err));
    if (f->size > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "%s: too large to be looked at", f->path);
    out->n = (size_t)f->size;
    out->p = out->n == 0 ? NULL : mmap(NULL, out->n, PROT_READ, MAP_PRIVATE, fd, 0);
    if (out->p == MAP_FAILED) {
        out->p = NULL;
        return TG_FAIL_ERRNO(err, errno == ENOMEM ? TG_E_NOMEM : TG_E_IO, "%s", f->path);
    }
    return TG_OK;
}

void cli_map_done(struct cli_map *m)
{
    if (m->p != NULL)
        (void)munmap(m->p, m->n);
    *m = (struct cli_map)CLI_MAP_INIT;
}

struct tg_bytes cli_map_view(const struct cli_map *m)
{
    return tg_bytes_make(m->p, m->p == NULL ? 0 : m->n);
}

struct tg_jpair *cli_metadata_find(const struct tg_jlist *metadata, const char *key)
{
    struct tg_jpair *v = metadata->items;

    for (size_t i = 0; i < metadata->n; i++)
        if (strcmp(v[i].key, key) == 0)
            return &v[i];
    return NULL;
}

bool cli_name_ends(const char *name, const char *tail)
{
    size_t n = strlen(name), k = strlen(tail);

    return n > k && strcasecmp(name + n - k, tail) == 0;
}

static size_t find_path(const struct tg_tgsp_inputs *in, const char *path, size_t n)
{
    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++) {
        const char *have = tg_tgsp_inputs_at(in, i)->path;

        if (strlen(have) == n && tg_mem_eq(have, path, n))
            return i;
    }
    return SIZE_MAX;
}

/* ---- files of weights ---- */

static enum tg_rc check_weights(const struct tg_tgsp_inputs *in, size_t i,
                                struct tg_progress *progress, struct tg_err *err)
{
    const char *path = tg_tgsp_inputs_at(in, i)->path;
    TG_AUTO(cli_map_done) struct cli_map map = CLI_MAP_INIT;
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    TG_AUTO(tg_zip_done) struct tg_zip zip = TG_ZIP_INIT;

    TG_TRY(cli_map_open(in, i, &map, err));
    TG_TRY(tg_weights_parse(cli_map_view(&map), path, &w, err));
    if (map.n < 2 || !tg_mem_eq(map.p, "PK", 2))
        return TG_OK;
    TG_TRY(tg_zip_open(cli_map_view(&map), path, &zip, err));
    return tg_zip_check(&zip, path, progress, err);
}

/* ---- ONNX ---- */

struct model {
    const struct tg_tgsp_inputs *in;
    const struct tg_jlist *metadata;
    const char *path;
    bool runs; /* it is the one that the worker runs */
    struct tg_onnx onnx;
    const struct tg_weights *named;
    struct tg_err *err;
};

#define TEXT_ARG(b) (int)((b).n < 200 ? (b).n : 200), (const char *)(b).p

/* A file that the model names, relative to its own folder. */
static enum tg_rc find_beside(const struct model *m, struct tg_bytes location, size_t *out)
{
    const char *slash = strrchr(m->path, '/');
    TG_AUTO(tg_freep) char *path = NULL;

    if (location.n > 2 && tg_mem_eq(location.p, "./", 2))
        location = tg_bytes_sub(location, 2, location.n - 2);
    if (location.n > 0 && location.n <= 4096 && memchr(location.p, 0, location.n) == NULL) {
        path = tg_asprintf("%.*s%.*s", slash == NULL ? 0 : (int)(slash - m->path) + 1, m->path,
                           (int)location.n, (const char *)location.p);
        if (path == NULL)
            return TG_FAIL(m->err, TG_E_NOMEM, "out of memory");
        *out = find_path(m->in, path, strlen(path));
        if (*out != SIZE_MAX)
            return TG_OK;
    }
    return TG_FAIL(
        m->err, TG_E_NOTFOUND,
        "%s: keeps weights in another file, '%.*s', which is not in the package; add it, "
        "or save the model as one file",
        m->path, TEXT_ARG(location));
}

static enum tg_rc check_external(const struct model *m, const struct tg_onnx_init *t)
{
    size_t size = tg_onnx_type_size(t->type), count = 0, i = 0;
    uint64_t end = 0, have;

    if (m->named != NULL && tg_weights_find(m->named, t->name) != NULL)
        return TG_OK;
    TG_TRY(find_beside(m, t->location, &i));
    have = tg_tgsp_inputs_at(m->in, i)->size;
    if (size == 0)
        return TG_FAIL(m->err, TG_E_UNSUPPORTED,
                       "%s: initializer '%.*s': ONNX type %" PRIu32 " can't lie in another file",
                       m->path, TEXT_ARG(t->name), t->type);
    if (tg_shape_count(&t->shape, SIZE_MAX / size, &count) != TG_OK ||
        (t->length != UINT64_MAX && t->length != count * size))
        return TG_FAIL(m->err, TG_E_FORMAT,
                       "%s: initializer '%.*s': its data has another length than its shape asks "
                       "for",
                       m->path, TEXT_ARG(t->name));
    if (!tg_add_u64(t->offset, count * size, &end) || end > have)
        return TG_FAIL(m->err, TG_E_FORMAT,
                       "%s: initializer '%.*s': bytes %" PRIu64 " to %" PRIu64
                       " of '%.*s' are asked for, which has %" PRIu64,
                       m->path, TEXT_ARG(t->name), t->offset, end, TEXT_ARG(t->location), have);
    return TG_OK;
}

/* The file that initializers come from by name; SIZE_MAX: there is none. */
static enum tg_rc find_named(const struct model *m, size_t *out)
{
    const struct tg_jpair *named = m->runs ? cli_metadata_find(m->metadata, "weights_file") : NULL;
    struct tg_bytes location = TG_BYTES_NONE;

    *out = SIZE_MAX;
    TG_TRY(tg_onnx_named_file(&m->onnx, &location, m->err));
    if (named == NULL)
        return location.n == 0 ? TG_OK : find_beside(m, location, out);
    *out = find_path(m->in, named->value, strlen(named->value));
    if (*out != SIZE_MAX)
        return TG_OK;
    return TG_FAIL(m->err, TG_E_NOTFOUND,
                   "--metadata weights_file names '%.200s', which is not in the folder",
                   named->value);
}

static enum tg_rc check_graph(struct model *m)
{
    TG_AUTO(cli_map_done) struct cli_map map = CLI_MAP_INIT;
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    size_t named = SIZE_MAX;

    if (m->onnx.buried_external)
        return TG_FAIL(m->err, TG_E_UNSUPPORTED,
                       "%s: keeps data of a subgraph or an attribute in another file, which the "
                       "worker refuses; save it as one file",
                       m->path);
    TG_TRY(find_named(m, &named));
    if (named != SIZE_MAX) {
        const char *path = tg_tgsp_inputs_at(m->in, named)->path;

        TG_TRY(cli_map_open(m->in, named, &map, m->err));
        TG_TRY(tg_weights_parse(cli_map_view(&map), path, &w, m->err));
        TG_TRY(tg_onnx_check_named(&m->onnx, &w, path, m->err));
        m->named = &w;
    }
    for (size_t i = 0; i < m->onnx.n_inits; i++)
        if (m->onnx.inits[i].external)
            TG_TRY(check_external(m, &m->onnx.inits[i]));
    return TG_OK;
}

static enum tg_rc check_onnx(const struct tg_tgsp_inputs *in, size_t i, bool runs,
                             const struct tg_jlist *metadata, struct tg_err *err)
{
    struct model m = {.in = in,
                      .metadata = metadata,
                      .path = tg_tgsp_inputs_at(in, i)->path,
                      .runs = runs,
                      .err = err};
    TG_AUTO(cli_map_done) struct cli_map map = CLI_MAP_INIT;
    enum tg_rc rc;

    TG_TRY(cli_map_open(in, i, &map, err));
    rc = tg_onnx_scan(cli_map_view(&map), &m.onnx, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", m.path);
        return rc;
    }
    rc = check_graph(&m);
    tg_onnx_done(&m.onnx);
    return rc;
}

/* ---- all of them ---- */

static bool named_like_weights(const char *path)
{
    return cli_name_ends(path, ".safetensors") || cli_name_ends(path, ".pt") ||
           cli_name_ends(path, ".pth");
}

static const char *path_at(const void *in, size_t i)
{
    return tg_tgsp_inputs_at(in, i)->path;
}

/* The file that the worker runs; SIZE_MAX: it runs none of this format. */
static enum tg_rc find_model(const struct tg_tgsp_inputs *in, enum tg_format format,
                             const struct tg_jlist *metadata, size_t *out, struct tg_err *err)
{
    const struct tg_onnx_files files = {.n = tg_tgsp_inputs_count(in), .path = path_at, .arg = in};
    const struct tg_jpair *named = cli_metadata_find(metadata, "model_file");

    *out = SIZE_MAX;
    if (format != TG_FORMAT_ONNX)
        return TG_OK;
    return tg_onnx_pick(&files, named == NULL ? NULL : named->value, out, err);
}

enum tg_rc cli_contents_check(const struct tg_tgsp_inputs *in, enum tg_format format,
                              const struct tg_jlist *metadata, struct tg_err *err)
{
    size_t model = SIZE_MAX;
    /* Archives are read to their last byte; of other files little is. */
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar = tg_progress_new("checking", tg_tgsp_inputs_bytes(in));

    TG_TRY(find_model(in, format, metadata, &model, err));
    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++) {
        const char *path = tg_tgsp_inputs_at(in, i)->path;
        TG_AUTO(tg_fd_closep) int fd = -1;
        enum tg_format f = TG_FORMAT_OTHER;

        TG_TRY(tg_tgsp_inputs_open(in, i, &fd, err));
        TG_TRY(tg_format_probe(fd, path, &f, err));
        if (f == TG_FORMAT_SAFETENSORS || f == TG_FORMAT_PYTORCH || named_like_weights(path))
            TG_TRY(check_weights(in, i, bar, err));
        if (f == TG_FORMAT_ONNX || i == model)
            TG_TRY(check_onnx(in, i, i == model, metadata, err));
        if (f != TG_FORMAT_PYTORCH)
            tg_progress_add(bar, tg_tgsp_inputs_at(in, i)->size);
    }
    return TG_OK;
}
