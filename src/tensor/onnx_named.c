/* Initializers whose data is found by name in a file of weights. */
#include <string.h>
#include <strings.h>

#include "tensor/onnx.h"

#define NAME_ARG(b) (int)((b).n < 200 ? (b).n : 200), (const char *)(b).p

static bool ends(struct tg_bytes s, const char *tail)
{
    size_t n = strlen(tail);

    return s.n > n && strncasecmp((const char *)s.p + s.n - n, tail, n) == 0;
}

bool tg_onnx_by_name(const struct tg_onnx_init *t)
{
    return t->external && t->length == UINT64_MAX && t->offset == 0 &&
           (ends(t->location, ".safetensors") || ends(t->location, ".pt") ||
            ends(t->location, ".pth"));
}

enum tg_rc tg_onnx_named_file(const struct tg_onnx *o, struct tg_bytes *location,
                              struct tg_err *err)
{
    struct tg_bytes found = TG_BYTES_NONE;

    for (size_t i = 0; i < o->n_inits; i++) {
        const struct tg_onnx_init *t = &o->inits[i];

        if (!tg_onnx_by_name(t))
            continue;
        if (found.n > 0 && !tg_bytes_eq(found, t->location))
            return TG_FAIL(err, TG_E_UNSUPPORTED,
                           "the model takes weights by name from '%.*s' and from '%.*s'; put them "
                           "into one file",
                           NAME_ARG(found), NAME_ARG(t->location));
        found = t->location;
    }
    *location = found;
    return TG_OK;
}

static enum tg_rc check_declared(const struct tg_onnx_init *t, const struct tg_weight *w,
                                 const char *what, struct tg_err *err)
{
    char ours[TG_SHAPE_TEXT], theirs[TG_SHAPE_TEXT];

    if (tg_wtype_onnx(w->type) == t->type && tg_shape_eq(&w->shape, &t->shape))
        return TG_OK;
    tg_shape_text(&t->shape, ours);
    tg_shape_text(&w->shape, theirs);
    return TG_FAIL(err, TG_E_FORMAT,
                   "%s: tensor '%.200s' is %s %s; the model declares ONNX type %u, shape %s", what,
                   w->name, tg_wtype_name(w->type), theirs, (unsigned)t->type, ours);
}

static enum tg_rc check_init(const struct tg_onnx_init *t, const struct tg_weights *w,
                             const char *what, struct tg_err *err)
{
    const struct tg_weight *hit = tg_weights_find(w, t->name);

    if (hit == NULL && tg_onnx_by_name(t))
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: the model's initializer '%.*s' is not in it", what,
                       NAME_ARG(t->name));
    return hit == NULL || !t->external ? TG_OK : check_declared(t, hit, what, err);
}

enum tg_rc tg_onnx_check_named(const struct tg_onnx *o, const struct tg_weights *w,
                               const char *what, struct tg_err *err)
{
    for (size_t i = 0; i < o->n_inits; i++)
        TG_TRY(check_init(&o->inits[i], w, what, err));
    for (size_t i = 0; i < w->n; i++)
        if (tg_wtype_onnx(w->v[i].type) == 0 && tg_onnx_uses(o, tg_bytes_str(w->v[i].name)))
            return TG_FAIL(err, TG_E_UNSUPPORTED,
                           "%s: tensor '%.200s', which the model uses, is of type %s, which ONNX "
                           "does not have",
                           what, w->v[i].name, tg_wtype_name(w->v[i].type));
    return TG_OK;
}
