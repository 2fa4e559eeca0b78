/* safetensors: eight bytes of header length, a JSON header, the tensors' bytes. Read in place. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/scan.h"
#include "tensor/weights_internal.h"

#define META_MAX 10000 /* pairs of __metadata__ */

/* A tensor of the header, before its offsets were checked. */
struct entry {
    struct tg_weight w;
    uint64_t begin, end;
};

/* What follows the header. */
struct data {
    bool here;             /* in memory */
    struct tg_bytes bytes; /* if so */
    uint64_t at, n;        /* in the file */
};

struct reader {
    const char *what;
    struct tg_scan s;
    struct tg_arena *arena;
    struct entry *v;
    size_t n, cap;
    bool meta;
    struct tg_err *err;
};

static enum tg_rc no_memory(const struct reader *r)
{
    return TG_FAIL(r->err, TG_E_NOMEM, "%s: out of memory", r->what);
}

/* What is expected, where. */
static enum tg_rc broken(const struct reader *r, const char *why)
{
    return TG_FAIL(r->err, TG_E_FORMAT, "%s: header, offset %zu: %s", r->what, 8 + r->s.i, why);
}

static enum tg_rc take_number(struct reader *r, uint64_t *out)
{
    struct tg_scan *s = &r->s;
    uint64_t v = 0;
    int first = tg_scan_peek(s);
    size_t from = s->i;

    for (; s->i < s->in.n && s->in.p[s->i] >= '0' && s->in.p[s->i] <= '9'; s->i++)
        if (!tg_mul_u64(v, 10, &v) || !tg_add_u64(v, (uint64_t)(s->in.p[s->i] - '0'), &v))
            return broken(r, "a number over 64 bits");
    if (s->i == from || (first == '0' && s->i > from + 1) ||
        (s->i < s->in.n && strchr(".eE+-", s->in.p[s->i]) != NULL && s->in.p[s->i] != 0))
        return broken(r, "not a whole number from 0 up");
    *out = v;
    return TG_OK;
}

static enum tg_rc take_shape(struct reader *r, struct tg_shape *shape)
{
    uint64_t v = 0;

    if (!tg_scan_take(&r->s, '['))
        return broken(r, "'shape' is not a list");
    shape->n = 0;
    if (tg_scan_take(&r->s, ']'))
        return TG_OK;
    do {
        TG_TRY(take_number(r, &v));
        if (shape->n == TG_DIMS_MAX)
            return TG_FAIL(r->err, TG_E_LIMIT, "%s: header, offset %zu: over %d dimensions",
                           r->what, 8 + r->s.i, TG_DIMS_MAX);
        if (v > INT64_MAX)
            return broken(r, "a size over 63 bits");
        shape->d[shape->n++] = (int64_t)v;
    } while (tg_scan_take(&r->s, ','));
    return tg_scan_take(&r->s, ']') ? TG_OK : broken(r, "'shape' does not end");
}

static enum tg_rc take_offsets(struct reader *r, struct entry *e)
{
    if (!tg_scan_take(&r->s, '['))
        return broken(r, "'data_offsets' is not a list");
    TG_TRY(take_number(r, &e->begin));
    if (!tg_scan_take(&r->s, ','))
        return broken(r, "'data_offsets' has not two numbers");
    TG_TRY(take_number(r, &e->end));
    return tg_scan_take(&r->s, ']') ? TG_OK : broken(r, "'data_offsets' has not two numbers");
}

static enum tg_rc take_dtype(struct reader *r, struct entry *e)
{
    struct tg_bytes raw = TG_BYTES_NONE;

    if (tg_scan_string(&r->s, &raw) != TG_OK)
        return broken(r, "'dtype' is not a string");
    e->w.type = tg_wtype_from_name(raw);
    if (e->w.type == TG_W_COUNT)
        return TG_FAIL(r->err, TG_E_UNSUPPORTED,
                       "%s: header, offset %zu: element type '%.*s' is not known", r->what,
                       8 + r->s.i, (int)(raw.n < 32 ? raw.n : 32), (const char *)raw.p);
    return TG_OK;
}

enum { KEY_DTYPE = 1, KEY_SHAPE = 2, KEY_OFFSETS = 4, KEY_ALL = 7 };

static enum tg_rc take_member(struct reader *r, struct entry *e, unsigned *seen)
{
    struct tg_bytes key = TG_BYTES_NONE;
    unsigned bit;

    if (tg_scan_string(&r->s, &key) != TG_OK || !tg_scan_take(&r->s, ':'))
        return broken(r, "not a member of a tensor's entry");
    bit = tg_bytes_eq(key, tg_bytes_str("dtype"))          ? KEY_DTYPE
          : tg_bytes_eq(key, tg_bytes_str("shape"))        ? KEY_SHAPE
          : tg_bytes_eq(key, tg_bytes_str("data_offsets")) ? KEY_OFFSETS
                                                           : 0;
    if (bit == 0 || (*seen & bit) != 0)
        return broken(r, "an unknown or repeated member in a tensor's entry");
    *seen |= bit;
    if (bit == KEY_DTYPE)
        return take_dtype(r, e);
    return bit == KEY_SHAPE ? take_shape(r, &e->w.shape) : take_offsets(r, e);
}

static enum tg_rc take_entry(struct reader *r, struct entry *e)
{
    unsigned seen = 0;

    if (!tg_scan_take(&r->s, '{'))
        return broken(r, "a tensor's entry is not an object");
    do
        TG_TRY(take_member(r, e, &seen));
    while (tg_scan_take(&r->s, ','));
    if (!tg_scan_take(&r->s, '}') || seen != KEY_ALL)
        return broken(r, "a tensor's entry is not exactly dtype, shape and data_offsets");
    return TG_OK;
}

/* Unescaped, in the arena. */
static enum tg_rc take_name(struct reader *r, char **out, size_t *n)
{
    struct tg_bytes raw = TG_BYTES_NONE;

    if (tg_scan_string(&r->s, &raw) != TG_OK)
        return broken(r, "not a string (UTF-8, JSON escapes) where a name must stand");
    *out = tg_arena_alloc(r->arena, raw.n + 1, 1);
    if (*out == NULL)
        return no_memory(r);
    *n = tg_scan_unescape(raw, (uint8_t *)*out);
    return tg_scan_take(&r->s, ':') ? TG_OK : broken(r, "':' is missing after a name");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "__metadata__": strings to strings, each key once. */
static enum tg_rc take_metadata(struct reader *r)
{
    TG_AUTO(tg_freep) char **keys = tg_calloc(META_MAX, sizeof(*keys));
    struct tg_bytes value;
    size_t n = 0, len = 0;

    if (keys == NULL)
        return no_memory(r);
    if (r->meta || !tg_scan_take(&r->s, '{'))
        return broken(r, "__metadata__ is repeated or not an object");
    r->meta = true;
    if (tg_scan_take(&r->s, '}'))
        return TG_OK;
    do {
        if (n == META_MAX)
            return TG_FAIL(r->err, TG_E_LIMIT, "%s: __metadata__ has over %d pairs", r->what,
                           META_MAX);
        TG_TRY(take_name(r, &keys[n++], &len));
        if (tg_scan_string(&r->s, &value) != TG_OK)
            return broken(r, "a value of __metadata__ is not a string");
    } while (tg_scan_take(&r->s, ','));
    if (!tg_scan_take(&r->s, '}'))
        return broken(r, "__metadata__ does not end");
    qsort(keys, n, sizeof(*keys), by_text);
    for (size_t i = 1; i < n; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return broken(r, "a key of __metadata__ is there twice");
    return TG_OK;
}

static enum tg_rc grow(struct reader *r)
{
    size_t cap = r->cap == 0 ? 64 : 2 * r->cap;
    struct entry *v;

    if (r->n < r->cap)
        return TG_OK;
    if (r->n >= TG_WEIGHTS_MAX)
        return TG_FAIL(r->err, TG_E_LIMIT, "%s: over %d tensors", r->what, TG_WEIGHTS_MAX);
    v = tg_realloc(r->v, cap * sizeof(*v));
    if (v == NULL)
        return no_memory(r);
    r->v = v;
    r->cap = cap;
    return TG_OK;
}

static enum tg_rc take_tensor(struct reader *r)
{
    char *name = NULL;
    size_t n = 0;

    TG_TRY(take_name(r, &name, &n));
    if (strcmp(name, "__metadata__") == 0)
        return take_metadata(r);
    if (!tg_weight_name_ok(tg_bytes_make(name, n)))
        return broken(r, "a tensor's name is empty, too long or has control characters");
    TG_TRY(grow(r));
    r->v[r->n] = (struct entry){.w = {.name = name}};
    TG_TRY(take_entry(r, &r->v[r->n]));
    r->n++;
    return TG_OK;
}

static enum tg_rc take_header(struct reader *r)
{
    if (r->s.in.n == 0 || r->s.in.p[0] != '{')
        return broken(r, "does not begin with '{'");
    (void)tg_scan_take(&r->s, '{');
    if (!tg_scan_take(&r->s, '}')) {
        do
            TG_TRY(take_tensor(r));
        while (tg_scan_take(&r->s, ','));
        if (!tg_scan_take(&r->s, '}'))
            return broken(r, "',' or '}' is missing");
    }
    for (; r->s.i < r->s.in.n; r->s.i++)
        if (r->s.in.p[r->s.i] != ' ')
            return broken(r, "something other than spaces follows the header's object");
    return TG_OK;
}

/* ---- offsets ---- */

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static enum tg_rc check_entry(const struct reader *r, struct entry *e, uint64_t at,
                              const struct data *data)
{
    size_t bytes = 0;
    const char *name = e->w.name;

    if (e->begin != at || e->end < e->begin)
        return TG_FAIL(r->err, TG_E_FORMAT,
                       "%s: tensor '%.200s' begins at %" PRIu64 ", the one before it ends at "
                       "%" PRIu64 " (gaps, overlaps and reversed offsets are refused)",
                       r->what, name, e->begin, at);
    if (e->end > data->n)
        return TG_FAIL(r->err, TG_E_FORMAT,
                       "%s: tensor '%.200s' ends at %" PRIu64 ", the data at %" PRIu64, r->what,
                       name, e->end, data->n);
    if (tg_weight_bytes(e->w.type, &e->w.shape, &bytes) != TG_OK || bytes != e->end - e->begin)
        return TG_FAIL(r->err, TG_E_FORMAT,
                       "%s: tensor '%.200s' has %" PRIu64
                       " bytes, which is not what its shape and type take",
                       r->what, name, e->end - e->begin);
    e->w.at = data->at + e->begin;
    if (data->here)
        e->w.bytes = tg_bytes_sub(data->bytes, (size_t)e->begin, bytes);
    if (!tg_weight_bools_ok(e->w.type, e->w.bytes))
        return TG_FAIL(r->err, TG_E_FORMAT, "%s: tensor '%.200s': a BOOL is neither 0 nor 1",
                       r->what, name);
    return TG_OK;
}

static enum tg_rc place(struct reader *r, const struct data *data, struct tg_weights *w)
{
    uint64_t at = 0;

    if (r->n > 0)
        qsort(r->v, r->n, sizeof(*r->v), by_place);
    w->v = tg_arena_alloc(r->arena, r->n + 1, sizeof(*w->v));
    if (w->v == NULL)
        return no_memory(r);
    for (size_t i = 0; i < r->n; i++) {
        TG_TRY(check_entry(r, &r->v[i], at, data));
        at = r->v[i].end;
        w->v[w->n++] = r->v[i].w;
    }
    if (at != data->n)
        return TG_FAIL(r->err, TG_E_FORMAT, "%s: %" PRIu64 " bytes after the last tensor", r->what,
                       data->n - at);
    return tg_weights_sort(w, r->what, r->err);
}

/* How long the header of a file of `size` bytes is, by how it begins. */
static enum tg_rc header_len(struct tg_bytes head, uint64_t size, const char *what, size_t *out,
                             struct tg_err *err)
{
    uint64_t n = 0;

    if (head.n < 8)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes, too short for safetensors", what, head.n);
    for (size_t i = 8; i > 0; i--)
        n = n << 8 | head.p[i - 1];
    if (n > TG_SAFETENSORS_HEADER_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%s: a header of %" PRIu64 " bytes, at most %d", what, n,
                       TG_SAFETENSORS_HEADER_MAX);
    if (n > size - 8)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: cut: a header of %" PRIu64 " bytes, %" PRIu64 " are there", what, n,
                       size - 8);
    *out = (size_t)n;
    return TG_OK;
}

static enum tg_rc read_file(struct tg_bytes header, const struct data *data, const char *what,
                            struct tg_weights *out, struct tg_err *err)
{
    TG_AUTO(tg_weights_done) struct tg_weights w = TG_WEIGHTS_INIT;
    struct reader r = {.what = what, .s.in = header, .err = err};
    enum tg_rc rc;

    if (tg_arena_new(TG_WEIGHTS_ARENA_MAX, &w.arena) != TG_OK)
        return no_memory(&r);
    r.arena = w.arena;
    rc = take_header(&r);
    if (rc == TG_OK)
        rc = place(&r, data, &w);
    tg_free(r.v);
    TG_TRY(rc);
    *out = w;
    w = (struct tg_weights)TG_WEIGHTS_INIT;
    return TG_OK;
}

enum tg_rc tg_safetensors_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                                struct tg_err *err)
{
    struct data data = {.here = true};
    size_t n = 0;

    TG_TRY(header_len(file, file.n, what, &n, err));
    data.at = 8 + n;
    data.n = file.n - data.at;
    data.bytes = tg_bytes_sub(file, 8 + n, file.n);
    return read_file(tg_bytes_sub(file, 8, n), &data, what, out, err);
}

enum tg_rc tg_safetensors_index(struct tg_pieces *pieces, const char *what, struct tg_weights *out,
                                struct tg_err *err)
{
    struct data data = {.here = false};
    uint64_t size = pieces->src->size;
    struct tg_bytes b = TG_BYTES_NONE;
    size_t n = 0;

    TG_TRY(tg_pieces_get(pieces, 0, size < 8 ? size : 8, &b, err));
    TG_TRY(header_len(b, size, what, &n, err));
    TG_TRY(tg_pieces_get(pieces, 8, n, &b, err));
    data.at = 8 + n;
    data.n = size - data.at;
    return read_file(b, &data, what, out, err);
}
