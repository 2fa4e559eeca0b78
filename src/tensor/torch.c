/* PyTorch archives: a ZIP of NAME/data.pkl, which describes tensors, and NAME/data/KEY, which are
 * their storages. The pickle becomes a tree (pickle.h); what is found there is checked against the
 * storages and viewed where it lies. */
#include <inttypes.h>
#include <string.h>

#include "tensor/pickle.h"
#include "tensor/weights_internal.h"
#include "tensor/zip.h"

struct torch {
    const char *what;
    uint64_t size; /* of the file */
    /* A file that is not in memory: what is brought of it, and the tensor that is wanted. Where
     * others lie is not found out: each has a header of its own, anywhere in the file. */
    struct tg_pieces *pieces;
    struct tg_bytes want;
    bool wanted; /* the tensor that is being read is it */
    struct tg_zip zip;
    struct tg_bytes prefix; /* "NAME/" */
    struct tg_arena *nodes; /* goes with the call; names and strides live in w.arena */
    struct tg_weights w;
    size_t strided; /* bytes that packing will take */
    struct tg_err *err;
};

#define ORDER_MAX 64 /* bytes of an entry that says "little" or "big" */
#define TEXT_ARG(b) (int)((b).n < 200 ? (b).n : 200), (const char *)(b).p

static enum tg_rc no_memory(const struct torch *t)
{
    return TG_FAIL(t->err, TG_E_NOMEM, "%s: out of memory", t->what);
}

/* ---- entries ---- */

static const struct tg_zip_entry *entry(const struct torch *t, const char *dir, struct tg_bytes key)
{
    char name[TG_ZIP_NAME_MAX];
    size_t n = strlen(dir);

    if (t->prefix.n + n + key.n > sizeof(name))
        return NULL;
    memcpy(name, t->prefix.p, t->prefix.n);
    memcpy(name + t->prefix.n, dir, n);
    if (key.n > 0)
        memcpy(name + t->prefix.n + n, key.p, key.n);
    return tg_zip_find(&t->zip, tg_bytes_make(name, t->prefix.n + n + key.n));
}

static const struct tg_zip_entry *plain_entry(const struct torch *t, const char *name)
{
    return entry(t, name, TG_BYTES_NONE);
}

/* Where an entry's data begins. */
static enum tg_rc entry_at(const struct torch *t, const struct tg_zip_entry *e, uint64_t *at)
{
    struct tg_bytes head = TG_BYTES_NONE;
    uint64_t n = t->size - e->header_offset; /* before the directory: that was checked */

    *at = e->at;
    if (t->pieces == NULL)
        return TG_OK;
    if (n > TG_ZIP_LOCAL + e->name.n)
        n = TG_ZIP_LOCAL + e->name.n;
    TG_TRY(tg_pieces_get(t->pieces, e->header_offset, n, &head, t->err));
    return tg_zip_locate(&t->zip, e, head, t->what, at, t->err);
}

static enum tg_rc entry_data(const struct torch *t, const struct tg_zip_entry *e,
                             struct tg_bytes *out)
{
    uint64_t at = 0;

    *out = e->data;
    if (t->pieces == NULL)
        return TG_OK;
    TG_TRY(entry_at(t, e, &at));
    return tg_pieces_get(t->pieces, at, e->size, out, t->err);
}

/* All entries lie in one folder, whose name is the writer's choice. */
static enum tg_rc find_prefix(struct torch *t)
{
    struct tg_bytes first = t->zip.v[0].name;
    size_t n = 0;

    while (n < first.n && first.p[n] != '/')
        n++;
    t->prefix = tg_bytes_sub(first, 0, n + 1);
    for (size_t i = 0; i < t->zip.n; i++)
        if (n == first.n || n == 0 ||
            !tg_bytes_eq(tg_bytes_sub(t->zip.v[i].name, 0, n + 1), t->prefix))
            return TG_FAIL(t->err, TG_E_FORMAT,
                           "%s: not a PyTorch archive: entry '%.*s' is not in the one folder that "
                           "torch.save makes",
                           t->what, TEXT_ARG(t->zip.v[i].name));
    return TG_OK;
}

/* Archives of PyTorch before 2.0 do not say it. */
static enum tg_rc check_order(const struct torch *t)
{
    const struct tg_zip_entry *e = plain_entry(t, "byteorder");
    struct tg_bytes order = TG_BYTES_NONE;

    if (e == NULL)
        return TG_OK;
    if (e->size <= ORDER_MAX)
        TG_TRY(entry_data(t, e, &order));
    if (!tg_bytes_eq(order, tg_bytes_str("little")))
        return TG_FAIL(t->err, TG_E_UNSUPPORTED,
                       "%s: written with byte order '%.*s'; save it again on a little-endian "
                       "machine",
                       t->what, TEXT_ARG(order));
    return TG_OK;
}

static enum tg_rc check_entries(const struct torch *t)
{
    if (plain_entry(t, "constants.pkl") != NULL)
        return TG_FAIL(t->err, TG_E_UNSUPPORTED,
                       "%s: a TorchScript archive (torch.jit.save), which holds code; save "
                       "model.state_dict() with torch.save",
                       t->what);
    if (plain_entry(t, "data.pkl") == NULL || plain_entry(t, "version") == NULL)
        return TG_FAIL(t->err, TG_E_FORMAT,
                       "%s: a ZIP, but not a PyTorch archive (no data.pkl or no version)", t->what);
    return check_order(t);
}

/* ---- a tensor ---- */

struct storage {
    enum tg_wtype type;   /* TG_W_COUNT: bytes, whose type the tensor says */
    struct tg_bytes data; /* nothing where the file is not in memory */
    uint64_t at, size;    /* in the file; at: of the tensor that is wanted alone */
};

static enum tg_rc bad(const struct torch *t, const char *name, const char *why)
{
    return TG_FAIL(t->err, TG_E_FORMAT, "%s: tensor '%.200s': %s", t->what, name, why);
}

static bool is_str(const struct tg_pickle_node *v, const char *text)
{
    return v->kind == TG_PK_STR && tg_bytes_eq(v->s, tg_bytes_str(text));
}

/* ('storage', torch.FloatStorage, '0', 'cpu', 6) */
static enum tg_rc read_storage(const struct torch *t, const char *name,
                               const struct tg_pickle_node *v, struct storage *out)
{
    const struct tg_pickle_node *id = v->kind == TG_PK_PERSID ? v->items[0] : v;
    const struct tg_zip_entry *e;
    uint64_t bytes = 0;
    size_t size;

    if (v->kind != TG_PK_PERSID || id->kind != TG_PK_TUPLE || id->n != 5 ||
        !is_str(id->items[0], "storage") || id->items[1]->kind != TG_PK_GLOBAL ||
        id->items[2]->kind != TG_PK_STR || id->items[3]->kind != TG_PK_STR ||
        id->items[4]->kind != TG_PK_INT || id->items[4]->i < 0)
        return bad(t, name, "its storage is not described as torch.save does");
    if (id->items[1]->global->kind != TG_PG_STORAGE &&
        id->items[1]->global->kind != TG_PG_UNTYPED_STORAGE)
        return bad(t, name, "its storage is of something that is not a storage");
    out->type = id->items[1]->global->type;
    size = out->type == TG_W_COUNT ? 1 : tg_wtype_bits(out->type) / 8;
    e = entry(t, "data/", id->items[2]->s);
    if (e == NULL)
        return TG_FAIL(t->err, TG_E_FORMAT, "%s: tensor '%.200s': its storage '%.*s' is not there",
                       t->what, name, TEXT_ARG(id->items[2]->s));
    if (!tg_mul_u64((uint64_t)id->items[4]->i, size, &bytes) || bytes != e->size)
        return TG_FAIL(t->err, TG_E_FORMAT,
                       "%s: tensor '%.200s': its storage of %" PRId64 " elements has %" PRIu64
                       " bytes, which is another number",
                       t->what, name, id->items[4]->i, e->size);
    out->data = e->data;
    out->size = e->size;
    out->at = e->at;
    return t->wanted ? entry_at(t, e, &out->at) : TG_OK;
}

/* A tuple of whole numbers from 0 up. PyTorch allows 64 of them; we stay at what every shape here
 * has room for, to the structures shared with clients: more could not be fed to a model. */
static enum tg_rc read_numbers(const struct torch *t, const char *name,
                               const struct tg_pickle_node *v, struct tg_shape *out)
{
    if (v->kind != TG_PK_TUPLE)
        return bad(t, name, "its shape or strides are not a tuple");
    if (v->n > TG_DIMS_MAX)
        return TG_FAIL(t->err, TG_E_LIMIT, "%s: tensor '%.200s': over %d dimensions", t->what, name,
                       TG_DIMS_MAX);
    for (size_t i = 0; i < v->n; i++) {
        if (v->items[i]->kind != TG_PK_INT || v->items[i]->i < 0)
            return bad(t, name, "its shape or strides hold something other than numbers from 0 up");
        out->d[i] = v->items[i]->i;
    }
    out->n = v->n;
    return TG_OK;
}

/* How far from its first element the last one is. */
static bool reach(const struct tg_shape *shape, const struct tg_shape *stride, uint64_t *out)
{
    uint64_t sum = 0, step = 0;

    for (size_t i = 0; i < shape->n; i++)
        if (!tg_mul_u64((uint64_t)shape->d[i] - 1, (uint64_t)stride->d[i], &step) ||
            !tg_add_u64(sum, step, &sum))
            return false;
    *out = sum;
    return true;
}

static bool is_packed(const struct tg_shape *shape, const struct tg_shape *stride)
{
    int64_t want = 1;

    for (size_t i = shape->n; i > 0; i--) {
        if (shape->d[i - 1] != 1 && stride->d[i - 1] != want)
            return false;
        want *= shape->d[i - 1]; /* the shape's product was checked */
    }
    return true;
}

static enum tg_rc keep_strides(struct torch *t, const struct tg_shape *stride,
                               struct tg_weight *out, size_t bytes)
{
    int64_t *copy = tg_arena_alloc(t->w.arena, stride->n, sizeof(*copy));

    if (copy == NULL)
        return no_memory(t);
    memcpy(copy, stride->d, stride->n * sizeof(*copy));
    out->stride = copy;
    if (!tg_add_size(t->strided, bytes, &t->strided) || t->strided / 2 > t->size)
        return TG_FAIL(t->err, TG_E_LIMIT,
                       "%s: tensor '%.200s': views that are not contiguous would take over twice "
                       "the file's size; save them with .contiguous()",
                       t->what, out->name);
    return TG_OK;
}

static enum tg_rc place(struct torch *t, const struct storage *s, uint64_t offset,
                        const struct tg_shape *stride, struct tg_weight *out)
{
    size_t size = tg_wtype_bits(out->type) / 8, bytes = 0;
    uint64_t numel = s->size / size, last = 0, end = 0;

    if (stride->n != out->shape.n)
        return bad(t, out->name, "shape and strides differ in length");
    if (tg_weight_bytes(out->type, &out->shape, &bytes) != TG_OK)
        return bad(t, out->name, "its shape overflows");
    if (offset > numel)
        return bad(t, out->name, "it begins after the end of its storage");
    if (bytes == 0)
        return TG_OK;
    if (!reach(&out->shape, stride, &last) || !tg_add_u64(offset, last, &end) || end >= numel)
        return bad(t, out->name, "it reaches past the end of its storage");
    out->at = s->at + offset * size;
    if (t->pieces == NULL)
        out->bytes =
            tg_bytes_sub(s->data, (size_t)(offset * size), (size_t)((end - offset + 1) * size));
    if (!tg_weight_bools_ok(out->type, out->bytes))
        return bad(t, out->name, "a bool is neither 0 nor 1");
    return is_packed(&out->shape, stride) ? TG_OK : keep_strides(t, stride, out, bytes);
}

/* The arguments of _rebuild_tensor_v2 (6) or _v3 (7 or 8: a dtype, metadata). torch.save writes the
 * second for types without a storage class: uint16 to uint64 and the 8-bit floats. */
static enum tg_rc read_args(struct torch *t, const struct tg_pickle_node *call,
                            struct tg_weight *out)
{
    bool v3 = call->global->kind == TG_PG_REBUILD_TENSOR_V3;
    struct tg_pickle_node *const *a = call->items;
    struct tg_shape stride = {.n = 0};
    struct storage s;

    if (v3 ? call->n != 7 && call->n != 8 : call->n != 6 && call->n != 7)
        return bad(t, out->name, "a wrong number of arguments to rebuild it");
    TG_TRY(read_storage(t, out->name, a[0], &s));
    out->type = s.type;
    if (v3 && (a[6]->kind != TG_PK_GLOBAL || a[6]->global->kind != TG_PG_DTYPE))
        return bad(t, out->name, "its dtype is not one");
    if (v3)
        out->type = a[6]->global->type;
    if (out->type == TG_W_COUNT)
        return bad(t, out->name, "its storage has no element type");
    if (a[1]->kind != TG_PK_INT || a[1]->i < 0)
        return bad(t, out->name, "its offset is not a number from 0 up");
    if (a[4]->kind != TG_PK_BOOL || a[5]->kind != TG_PK_DICT || a[5]->n != 0)
        return bad(t, out->name, "it has hooks; save model.state_dict()");
    TG_TRY(read_numbers(t, out->name, a[2], &out->shape));
    TG_TRY(read_numbers(t, out->name, a[3], &stride));
    return place(t, &s, (uint64_t)a[1]->i, &stride, out);
}

/* The call that makes a tensor, out of its Parameter if it is one. NULL: it is no tensor. */
static const struct tg_pickle_node *tensor_call(const struct tg_pickle_node *v)
{
    if (v->kind == TG_PK_CALL && v->global->kind == TG_PG_REBUILD_PARAMETER && v->n == 3)
        v = v->items[0];
    return v->kind == TG_PK_CALL && v->global->kind != TG_PG_REBUILD_PARAMETER ? v : NULL;
}

/* ---- the state_dict ---- */

static bool holds_tensors(const struct tg_pickle_node *v)
{
    if (v->kind != TG_PK_DICT)
        return false;
    for (size_t i = 1; i < v->n; i += 2)
        if (tensor_call(v->items[i]) != NULL)
            return true;
    return false;
}

/* The root itself, or the member of a checkpoint that is called what people call it. */
static const struct tg_pickle_node *find_state(const struct tg_pickle_node *root)
{
    static const char *const names[] = {"state_dict", "model_state_dict", "model", "weights"};

    if (root->kind != TG_PK_DICT || holds_tensors(root))
        return root->kind == TG_PK_DICT ? root : NULL;
    for (size_t k = 0; k < TG_ARRAY_LEN(names); k++)
        for (size_t i = 0; i + 1 < root->n; i += 2)
            if (is_str(root->items[i], names[k]) && holds_tensors(root->items[i + 1]))
                return root->items[i + 1];
    return root->n == 0 ? root : NULL;
}

static enum tg_rc read_weight(struct torch *t, const struct tg_pickle_node *key,
                              const struct tg_pickle_node *call)
{
    struct tg_weight *out = &t->w.v[t->w.n];

    if (key->kind != TG_PK_STR || !tg_weight_name_ok(key->s))
        return TG_FAIL(t->err, TG_E_FORMAT,
                       "%s: tensor %zu: its name is no string, empty, too long or has control "
                       "characters",
                       t->what, t->w.n);
    out->name = tg_arena_strndup(t->w.arena, (const char *)key->s.p, key->s.n);
    if (out->name == NULL)
        return no_memory(t);
    t->wanted = t->pieces != NULL && tg_bytes_eq(key->s, t->want);
    TG_TRY(read_args(t, call, out));
    t->w.n++;
    return TG_OK;
}

static enum tg_rc read_state(struct torch *t, const struct tg_pickle_node *root)
{
    const struct tg_pickle_node *state = find_state(root);

    if (state == NULL)
        return TG_FAIL(t->err, TG_E_FORMAT,
                       "%s: no dictionary of tensors in it (looked at the object itself, and at "
                       "its members state_dict, model_state_dict, model, weights); save "
                       "model.state_dict()",
                       t->what);
    if (state->n / 2 > TG_WEIGHTS_MAX)
        return TG_FAIL(t->err, TG_E_LIMIT, "%s: over %d tensors", t->what, TG_WEIGHTS_MAX);
    t->w.v = tg_arena_alloc(t->w.arena, state->n / 2 + 1, sizeof(*t->w.v));
    if (t->w.v == NULL)
        return no_memory(t);
    for (size_t i = 0; i + 1 < state->n; i += 2) {
        const struct tg_pickle_node *call = tensor_call(state->items[i + 1]);

        if (call != NULL)
            TG_TRY(read_weight(t, state->items[i], call));
    }
    return tg_weights_sort(&t->w, t->what, t->err);
}

static enum tg_rc read_entries(struct torch *t)
{
    TG_AUTO(tg_freep) char *name = tg_asprintf("%s: data.pkl", t->what);
    const struct tg_pickle_node *root = NULL;
    struct tg_bytes pickle = TG_BYTES_NONE;
    const struct tg_zip_entry *e;

    if (name == NULL || tg_arena_new(TG_WEIGHTS_ARENA_MAX, &t->w.arena) != TG_OK ||
        tg_arena_new(TG_PICKLE_ARENA_MAX, &t->nodes) != TG_OK)
        return no_memory(t);
    TG_TRY(find_prefix(t));
    TG_TRY(check_entries(t));
    e = plain_entry(t, "data.pkl");
    if (e->size > TG_PICKLE_MAX)
        return TG_FAIL(t->err, TG_E_LIMIT, "%s: a pickle of %" PRIu64 " bytes, at most %zu", name,
                       e->size, TG_PICKLE_MAX);
    TG_TRY(entry_data(t, e, &pickle));
    TG_TRY(tg_pickle_read(pickle, name, t->nodes, &root, t->err));
    return read_state(t, root);
}

static enum tg_rc end(struct torch *t, enum tg_rc rc, struct tg_weights *out)
{
    tg_zip_done(&t->zip);
    tg_arena_free(t->nodes);
    if (rc != TG_OK)
        tg_weights_done(&t->w);
    else
        *out = t->w;
    return rc;
}

enum tg_rc tg_torch_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                          struct tg_err *err)
{
    struct torch t = {.what = what, .size = file.n, .err = err};
    enum tg_rc rc = tg_zip_open(file, what, &t.zip, err);

    if (rc == TG_OK)
        rc = read_entries(&t);
    return end(&t, rc, out);
}

/* The directory and what follows it. */
static enum tg_rc bring_tail(const struct torch *t, struct tg_bytes *tail)
{
    uint64_t n = t->size < TG_ZIP_END ? t->size : TG_ZIP_END, at = 0;

    TG_TRY(tg_pieces_get(t->pieces, t->size - n, n, tail, t->err));
    TG_TRY(tg_zip_directory(*tail, t->size, t->what, &at, t->err));
    if (t->size - at > TG_SAFETENSORS_HEADER_MAX) /* what describes tensors has one limit */
        return TG_FAIL(t->err, TG_E_LIMIT, "%s: ZIP: a directory of %" PRIu64 " bytes, at most %d",
                       t->what, t->size - at, TG_SAFETENSORS_HEADER_MAX);
    return tg_pieces_get(t->pieces, at, t->size - at, tail, t->err);
}

enum tg_rc tg_torch_index(struct tg_pieces *pieces, const char *what, struct tg_bytes want,
                          struct tg_weights *out, struct tg_err *err)
{
    struct torch t = {
        .what = what, .size = pieces->src->size, .pieces = pieces, .want = want, .err = err};
    struct tg_bytes tail = TG_BYTES_NONE;
    enum tg_rc rc = bring_tail(&t, &tail);

    if (rc == TG_OK)
        rc = tg_zip_open_tail(tail, t.size, what, &t.zip, err);
    if (rc == TG_OK)
        rc = read_entries(&t);
    return end(&t, rc, out);
}
