#include "moai/named.h"

#include <string.h>

#include "tensor/onnx.h"

static const char *from_metadata(const struct tg_tgsp_manifest *m)
{
    const struct tg_jpair *v = m->model.metadata.items;

    for (size_t i = 0; i < m->model.metadata.n; i++)
        if (strcmp(v[i].key, TG_WEIGHTS_KEY) == 0)
            return v[i].value;
    return NULL;
}

struct source {
    char *name; /* for errors; NULL: the graph takes nothing by name */
    struct tg_bytes bytes;
};

static enum tg_rc find_source(const struct tg_model_files *files,
                              const struct tg_session_spec *spec, const struct tg_onnx *onnx,
                              struct source *out, struct tg_err *err)
{
    const char *path = from_metadata(files->manifest);
    struct tg_bytes location = TG_BYTES_NONE;
    enum tg_rc rc;

    TG_TRY(tg_onnx_named_file(onnx, &location, err));
    if (path == NULL && location.n == 0)
        return TG_OK;
    out->name = path != NULL ? tg_strdup(path)
                             : tg_asprintf("%.*s", (int)(location.n < 4096 ? location.n : 4096),
                                           (const char *)location.p);
    if (out->name == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    rc = path != NULL ? tg_model_file(files, path, &out->bytes)
                      : spec->file(spec->file_arg, location, &out->bytes);
    return rc == TG_OK
               ? TG_OK
               : TG_FAIL(err, rc,
                         "%s names the file of weights '%.200s', which is not in the "
                         "package",
                         path != NULL ? "metadata " TG_WEIGHTS_KEY : "the model", out->name);
}

static enum tg_rc fill(struct tg_named *out, struct tg_err *err)
{
    out->v = tg_calloc(out->file.n + 1, sizeof(*out->v));
    if (out->v == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < out->file.n; i++) {
        const struct tg_weight *w = &out->file.v[i];

        out->v[out->n++] = (struct tg_session_weights){
            .name = w->name, .type = tg_wtype_onnx(w->type), .shape = w->shape, .bytes = w->bytes};
    }
    return TG_OK;
}

static enum tg_rc load(const struct source *s, const struct tg_onnx *onnx, struct tg_named *out,
                       struct tg_err *err)
{
    TG_TRY(tg_weights_parse(s->bytes, s->name, &out->file, err));
    TG_TRY(tg_onnx_check_named(onnx, &out->file, s->name, err));
    TG_TRY(tg_weights_pack(&out->file, err));
    return fill(out, err);
}

enum tg_rc tg_named_load(const struct tg_model_files *files, struct tg_session_spec *spec,
                         struct tg_named *out, struct tg_err *err)
{
    TG_AUTO(tg_named_done) struct tg_named named = TG_NAMED_INIT;
    TG_AUTO(tg_onnx_done) struct tg_onnx onnx = {.n_inits = 0};
    struct source s = {.name = NULL};
    enum tg_rc rc;

    TG_TRY(tg_onnx_scan(spec->model, &onnx, err));
    rc = find_source(files, spec, &onnx, &s, err);
    if (rc == TG_OK && s.name != NULL)
        rc = load(&s, &onnx, &named, err);
    tg_free(s.name);
    TG_TRY(rc);
    if (named.v == NULL)
        return TG_OK;
    *out = named;
    named = (struct tg_named)TG_NAMED_INIT;
    spec->weights = out->v;
    spec->n_weights = out->n;
    return TG_OK;
}

void tg_named_done(struct tg_named *n)
{
    tg_free(n->v);
    tg_weights_done(&n->file);
    *n = (struct tg_named)TG_NAMED_INIT;
}
