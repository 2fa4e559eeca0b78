/* One tensor of a file that is not in memory. */
#include <inttypes.h>
#include <string.h>

#include "tensor/weights_internal.h"

/* What describes tensors often stands in so many bytes at the beginning: brought at once, as each
 * read may cost the decryption of a chunk. */
#define HEAD (UINT64_C(64) << 10)

/* ---- pieces ---- */

void tg_pieces_done(struct tg_pieces *p)
{
    for (size_t i = 0; i < p->n; i++)
        tg_secret_free(p->v[i].bytes);
    p->n = 0;
}

static bool have(const struct tg_pieces *p, uint64_t off, uint64_t n, struct tg_bytes *out)
{
    for (size_t i = 0; i < p->n; i++) {
        size_t size = tg_secret_size(p->v[i].bytes);

        if (off < p->v[i].off || off - p->v[i].off > size || n > size - (off - p->v[i].off))
            continue;
        *out = tg_bytes_sub(tg_bytes_make(tg_secret_data(p->v[i].bytes), size),
                            (size_t)(off - p->v[i].off), (size_t)n);
        return true;
    }
    return false;
}

enum tg_rc tg_pieces_get(struct tg_pieces *p, uint64_t off, uint64_t n, struct tg_bytes *out,
                         struct tg_err *err)
{
    struct tg_secret *s = NULL;
    enum tg_rc rc;

    if (off > p->src->size || n > p->src->size - off)
        return TG_FAIL(err, TG_E_FORMAT, "%" PRIu64 " bytes at %" PRIu64 " are not in the file", n,
                       off);
    *out = TG_BYTES_NONE;
    if (n == 0 || have(p, off, n, out))
        return TG_OK;
    if (p->n == TG_PIECES_MAX || n > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "the description of a tensor lies in too many places");
    TG_TRY(tg_secret_new((size_t)n, &s, err));
    rc = p->src->read(p->src->arg, off, tg_secret_data(s), (size_t)n, err);
    if (rc != TG_OK) {
        tg_secret_free(s);
        return rc;
    }
    p->v[p->n].off = off;
    p->v[p->n++].bytes = s;
    *out = tg_bytes_make(tg_secret_data(s), (size_t)n);
    return TG_OK;
}

/* ---- a tensor ---- */

static enum tg_rc read_index(struct tg_pieces *p, const char *what, struct tg_bytes name,
                             struct tg_weights *w, struct tg_err *err)
{
    struct tg_bytes head = TG_BYTES_NONE;

    TG_TRY(tg_pieces_get(p, 0, p->src->size < HEAD ? p->src->size : HEAD, &head, err));
    TG_TRY(tg_weights_kind(tg_bytes_sub(head, 0, TG_WEIGHTS_HEAD), what, err));
    return tg_weights_is_archive(head) ? tg_torch_index(p, what, name, w, err)
                                       : tg_safetensors_index(p, what, w, err);
}

static enum tg_rc place_of(const struct tg_weights *w, const char *what, struct tg_bytes name,
                           struct tg_weight_place *out, struct tg_err *err)
{
    const struct tg_weight *found = tg_weights_find(w, name);

    if (found == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: no tensor '%.*s'", what,
                       (int)(name.n < 200 ? name.n : 200), (const char *)name.p);
    if (found->stride != NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "%s: tensor '%.200s' is not packed; take the file",
                       what, found->name);
    *out = (struct tg_weight_place){found->type, found->shape, found->at, tg_weight_size(found)};
    return TG_OK;
}

enum tg_rc tg_weights_locate(const struct tg_weights_src *src, const char *what,
                             struct tg_bytes name, struct tg_weight_place *out, struct tg_err *err)
{
    TG_AUTO(tg_pieces_done) struct tg_pieces pieces = {.src = src};
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;

    TG_TRY(read_index(&pieces, what, name, &w, err));
    return place_of(&w, what, name, out, err);
}

bool tg_weight_place_holds(const struct tg_weight_place *place, struct tg_bytes data)
{
    return data.n == place->n && tg_weight_bools_ok(place->type, data);
}
