#include "moai/bake_layout.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 48 /* graphs lie in attributes of nodes of graphs */
#define SLOTS_MAX 16

/* The tables of ort.fbs that hold offsets, or lead to one that does. */
enum table {
    T_SESSION,
    T_MODEL,
    T_OPSET,
    T_ENTRY,
    T_GRAPH,
    T_NODE,
    T_EDGES,
    T_ATTR,
    T_TENSOR,
    T_SPARSE,
    T_VALUE_INFO,
    T_TYPE,
    T_TENSOR_TYPE,
    T_SEQUENCE,
    T_MAP,
    T_SHAPE,
    T_DIM,
    T_DIM_VALUE,
    T_OPTS,
    T_OPTS_ENTRY,
    T_OPTS_RECORD,
    T_OPTS_NODES,
    T_RESOLVER,
    T_OP_ARGS,
    T_TYPE_ARGS,
    T_ARG,
    TABLES
};

/* Kinds of fields; for those that lead to a table, its number is added. */
enum kind {
    S = 0x000,  /* scalar */
    L = 0x100,  /* leaf: a string, or a vector of scalars or structs */
    D = 0x200,  /* the data of a tensor */
    LV = 0x300, /* vector of strings */
    X = 0x400,  /* table */
    XV = 0x500, /* vector of tables */
    U = 0x600,  /* union: the table by the scalar before it */
    OLD = 0x700 /* deprecated: not there */
};

#define KIND 0xf00
#define TABLE 0x0ff

/* Fields in the order of the schema. */
static const struct {
    size_t n;
    uint16_t slots[SLOTS_MAX];
} schema[TABLES] = {
    [T_SESSION] = {4,  {L, X + T_MODEL, OLD, X + T_RESOLVER}                         },
    [T_MODEL] = {10, {S, XV + T_OPSET, L, L, L, S, L, X + T_GRAPH, L, XV + T_ENTRY}},
    [T_OPSET] = {2,  {L, S}                                                        },
    [T_ENTRY] = {2,  {L, L}                                                        },
    [T_GRAPH] = {9,
                   {XV + T_TENSOR, XV + T_VALUE_INFO, XV + T_NODE, S, XV + T_EDGES, LV, LV,
                  XV + T_SPARSE, X + T_OPTS}                                         },
    [T_NODE] = {13, {L, L, L, S, S, L, S, L, LV, LV, XV + T_ATTR, L, LV}          },
    [T_EDGES] = {3,  {S, L, L}                                                     },
    [T_ATTR] = {13,
                   {L, L, S, S, S, L, X + T_TENSOR, X + T_GRAPH, L, L, LV, XV + T_TENSOR,
                 XV + T_GRAPH}                                                       },
    [T_TENSOR] = {7,  {L, L, L, S, D, LV, S}                                        },
    [T_SPARSE] = {3,  {X + T_TENSOR, X + T_TENSOR, L}                               },
    [T_VALUE_INFO] = {3,  {L, L, X + T_TYPE}                                            },
    [T_TYPE] = {3,  {L, S, U + T_TENSOR_TYPE}                                     }, /* 1 tensor, 2 sequence, 3 map */
    [T_TENSOR_TYPE] = {2,  {S, X + T_SHAPE}                                              },
    [T_SEQUENCE] = {1,  {X + T_TYPE}                                                  },
    [T_MAP] = {2,  {S, X + T_TYPE}                                               },
    [T_SHAPE] = {1,  {XV + T_DIM}                                                  },
    [T_DIM] = {2,  {X + T_DIM_VALUE, L}                                          },
    [T_DIM_VALUE] = {3,  {S, S, L}                                                     },
    [T_OPTS] = {1,  {XV + T_OPTS_ENTRY}                                           },
    [T_OPTS_ENTRY] = {2,  {L, XV + T_OPTS_RECORD}                                       },
    [T_OPTS_RECORD] = {4,  {L, X + T_OPTS_NODES, OLD, LV}                                },
    [T_OPTS_NODES] = {7,  {L, S, S, S, S, S, S}                                         },
    [T_RESOLVER] = {1,  {XV + T_OP_ARGS}                                              },
    [T_OP_ARGS] = {2,  {L, XV + T_TYPE_ARGS}                                         },
    [T_TYPE_ARGS] = {2,  {L, XV + T_ARG}                                               },
    [T_ARG] = {2,  {S, S}                                                        },
};

static enum table table_of(unsigned slot)
{
    return (enum table)(slot & TABLE);
}

struct tg_bake_link {
    uint32_t at;
    uint32_t to;
    bool back; /* a table's offset to its vtable, which is subtracted */
};

struct reader {
    struct tg_bake_layout *l;
    struct tg_err *err;
    size_t budget; /* tables still allowed: a shared table may be visited more than once */
};

static enum tg_rc broken(const struct reader *r, size_t at)
{
    return TG_FAIL(r->err, TG_E_FORMAT, "ONNX Runtime's model is broken at offset %zu", at);
}

/* ---- reading numbers ---- */

static bool get32(const struct reader *r, size_t at, uint32_t *out)
{
    const uint8_t *p = r->l->in.p + at;

    if (at % 4 != 0 || at > r->l->in.n || r->l->in.n - at < 4)
        return false;
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

static bool get16(const struct reader *r, size_t at, uint32_t *out)
{
    const uint8_t *p = r->l->in.p + at;

    if (at % 2 != 0 || at > r->l->in.n || r->l->in.n - at < 2)
        return false;
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    return true;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* ---- what is found ---- */

static enum tg_rc room(const struct reader *r, void **v, size_t n, size_t *cap, size_t size)
{
    size_t more = *cap == 0 ? 256 : 2 * *cap;
    void *p;

    if (n < *cap)
        return TG_OK;
    p = tg_realloc(*v, more * size);
    if (p == NULL)
        return TG_FAIL(r->err, TG_E_NOMEM, "out of memory");
    *v = p;
    *cap = more;
    return TG_OK;
}

static enum tg_rc add_link(struct reader *r, size_t at, size_t to, bool back)
{
    struct tg_bake_layout *l = r->l;
    void *v = l->links;
    enum tg_rc rc = room(r, &v, l->n_links, &l->cap_links, sizeof(*l->links));

    l->links = v;
    TG_TRY(rc);
    l->links[l->n_links++] = (struct tg_bake_link){(uint32_t)at, (uint32_t)to, back};
    return TG_OK;
}

static enum tg_rc add_data(struct reader *r, size_t at, size_t n, bool in_main)
{
    struct tg_bake_layout *l = r->l;
    void *v = l->data;
    enum tg_rc rc = room(r, &v, l->n_data, &l->cap_data, sizeof(*l->data));

    l->data = v;
    TG_TRY(rc);
    l->data[l->n_data++] =
        (struct tg_bake_data){.at = (uint32_t)at, .n = (uint32_t)n, .main = in_main};
    return TG_OK;
}

/* An offset at `at`: where it leads, which must be inside. */
static enum tg_rc follow(struct reader *r, size_t at, size_t *to)
{
    uint32_t off = 0;

    if (!get32(r, at, &off) || off == 0 || off > r->l->in.n || at + off > r->l->in.n - 4)
        return broken(r, at);
    *to = at + off;
    return add_link(r, at, *to, false);
}

/* The length of the vector at `at`, whose elements have at least `size` bytes. */
static enum tg_rc vector(const struct reader *r, size_t at, size_t size, uint32_t *n)
{
    if (!get32(r, at, n) || *n > (r->l->in.n - at - 4) / size)
        return broken(r, at);
    return TG_OK;
}

/* ---- the walk ---- */

struct place {
    enum table table;
    size_t at;
    unsigned depth;
    bool main; /* a graph: the main one; a tensor: an initializer of it */
};

static enum tg_rc walk(struct reader *r, struct place p);

static enum tg_rc walk_data(struct reader *r, size_t field, bool in_main)
{
    size_t to = 0;
    uint32_t n = 0;

    TG_TRY(follow(r, field, &to));
    TG_TRY(vector(r, to, 1, &n));
    return n < TG_BAKE_DATA_MIN ? TG_OK : add_data(r, to + 4, n, in_main);
}

static enum tg_rc walk_vector(struct reader *r, size_t field, unsigned slot, struct place from)
{
    size_t to = 0, item = 0;
    uint32_t n = 0;

    TG_TRY(follow(r, field, &to));
    TG_TRY(vector(r, to, 4, &n));
    for (uint32_t i = 0; i < n; i++) {
        struct place p = {.table = table_of(slot), .depth = from.depth + 1};

        TG_TRY(follow(r, to + 4 + 4 * (size_t)i, &item));
        p.at = item;
        p.main = from.main && from.table == T_GRAPH && p.table == T_TENSOR;
        if ((slot & KIND) == XV)
            TG_TRY(walk(r, p));
    }
    return TG_OK;
}

static enum tg_rc walk_table(struct reader *r, size_t field, unsigned slot, struct place from)
{
    struct place p = {.table = table_of(slot), .depth = from.depth + 1};

    p.main = from.table == T_MODEL && p.table == T_GRAPH;
    TG_TRY(follow(r, field, &p.at));
    return walk(r, p);
}

/* The scalar before a union says which of the tables from s->to on it is. */
static enum tg_rc walk_union(struct reader *r, size_t field, size_t type_field, unsigned slot,
                             struct place from)
{
    uint8_t type;

    if (type_field == 0 || type_field >= r->l->in.n)
        return broken(r, field);
    type = r->l->in.p[type_field];
    if (type == 0 || type > 3)
        return TG_FAIL(r->err, TG_E_UNSUPPORTED, "ONNX Runtime's model has a type of another kind");
    return walk_table(r, field, slot + type - 1, from);
}

static enum tg_rc walk_field(struct reader *r, const size_t *fields, size_t i, struct place p)
{
    unsigned slot = schema[p.table].slots[i];
    size_t to = 0;

    if (fields[i] == 0)
        return TG_OK;
    switch ((enum kind)(slot & KIND)) {
    case S:
        return TG_OK;
    case L:
        return follow(r, fields[i], &to);
    case D:
        return walk_data(r, fields[i], p.main);
    case LV:
    case XV:
        return walk_vector(r, fields[i], slot, p);
    case X:
        return walk_table(r, fields[i], slot, p);
    case U:
        return walk_union(r, fields[i], fields[i - 1], slot, p);
    case OLD:
        return TG_FAIL(r->err, TG_E_UNSUPPORTED, "ONNX Runtime's model has a deprecated field");
    }
    return broken(r, p.at);
}

/* Where the fields of a table are (0: left out), by its vtable. */
static enum tg_rc read_vtable(struct reader *r, struct place p, size_t fields[SLOTS_MAX])
{
    uint32_t back = 0, size = 0, off = 0;
    size_t vt, n;

    if (!get32(r, p.at, &back))
        return broken(r, p.at);
    vt = p.at - (size_t)(int64_t)(int32_t)back;
    if (vt > r->l->in.n || !get16(r, vt, &size) || size < 4 || size > r->l->in.n - vt)
        return broken(r, p.at);
    TG_TRY(add_link(r, p.at, vt, true));
    n = (size - 4) / 2;
    for (size_t i = 0; i < n; i++) {
        if (!get16(r, vt + 4 + 2 * i, &off) || off > r->l->in.n - p.at)
            return broken(r, vt);
        if (i >= schema[p.table].n && off != 0)
            return TG_FAIL(r->err, TG_E_UNSUPPORTED,
                           "ONNX Runtime's model has a field that is not known here");
        if (i < schema[p.table].n)
            fields[i] = off == 0 ? 0 : p.at + off;
    }
    return TG_OK;
}

static enum tg_rc walk(struct reader *r, struct place p)
{
    size_t fields[SLOTS_MAX] = {0};

    if (p.depth > DEPTH_MAX)
        return TG_FAIL(r->err, TG_E_FORMAT, "ONNX Runtime's model is nested over %d levels deep",
                       DEPTH_MAX);
    if (r->budget == 0)
        return broken(r, p.at);
    r->budget--;
    TG_TRY(read_vtable(r, p, fields));
    for (size_t i = 0; i < schema[p.table].n; i++)
        TG_TRY(walk_field(r, fields, i, p));
    return TG_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct tg_bake_data *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Sorted and apart, their lengths before them included. */
static enum tg_rc check_data(const struct reader *r)
{
    struct tg_bake_layout *l = r->l;

    if (l->n_data > 0)
        qsort(l->data, l->n_data, sizeof(*l->data), by_place);
    for (size_t i = 1; i < l->n_data; i++)
        if (l->data[i].at - 4 < l->data[i - 1].at + l->data[i - 1].n)
            return broken(r, l->data[i].at);
    return TG_OK;
}

enum tg_rc tg_bake_layout_read(struct tg_bytes in, struct tg_bake_layout *out, struct tg_err *err)
{
    struct tg_bake_layout l = {.in = in};
    struct reader r = {&l, err, in.n / 8};
    struct place root = {.table = T_SESSION};
    enum tg_rc rc;

    if (in.n > TG_BAKE_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "a model of %zu bytes can't be baked", in.n);
    if (in.n < 16 || !tg_mem_eq(in.p + 4, "ORTM", 4))
        return TG_FAIL(err, TG_E_FORMAT, "not a model in ONNX Runtime's format");
    rc = follow(&r, 0, &root.at);
    if (rc == TG_OK)
        rc = walk(&r, root);
    if (rc == TG_OK)
        rc = check_data(&r);
    if (rc != TG_OK) {
        tg_bake_layout_done(&l);
        return rc;
    }
    *out = l;
    return TG_OK;
}

/* ---- writing ---- */

/* What is taken out for one piece of data: its length and itself, down to a multiple of 8, so that
 * everything else keeps its alignment. */
static size_t cut(const struct tg_bake_data *d)
{
    return ((size_t)d->n + 4) & ~(size_t)7;
}

struct writer {
    struct tg_bake_layout *l;
    size_t *gone; /* bytes taken out before data[i] */
    uint8_t *out;
};

/* The last data that begins (with its length) at or before `at`; n_data: none. */
static size_t data_before(const struct tg_bake_layout *l, size_t at)
{
    size_t lo = 0, hi = l->n_data;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (l->data[mid].at - 4 <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo == 0 ? l->n_data : lo - 1;
}

/* Where a place of the input is in the output. false: inside data. */
static bool map(const struct writer *w, size_t at, size_t *to)
{
    size_t i = data_before(w->l, at);
    const struct tg_bake_data *d = &w->l->data[i];

    if (i == w->l->n_data) {
        *to = at;
        return true;
    }
    if (at == d->at - 4) {
        *to = d->to - 4;
        return true;
    }
    if (at < (size_t)d->at + d->n)
        return false;
    *to = at - w->gone[i] - cut(d);
    return true;
}

static size_t up(size_t v, size_t to)
{
    return (v + to - 1) / to * to;
}

/* Places for the data of one kind from `at` on. Returns where they end. */
static size_t place(struct writer *w, bool packed, size_t at)
{
    for (size_t i = 0; i < w->l->n_data; i++) {
        struct tg_bake_data *d = &w->l->data[i];

        if (d->packed != packed)
            continue;
        at = up(at + 4, TG_BAKE_ALIGN);
        d->to = (uint32_t)at;
        at += d->n;
    }
    return at;
}

static size_t plan(struct writer *w, size_t *keep)
{
    size_t gone = 0, at;

    for (size_t i = 0; i < w->l->n_data; i++) {
        w->gone[i] = gone;
        gone += cut(&w->l->data[i]);
    }
    at = place(w, false, up(w->l->in.n - gone, TG_BAKE_ALIGN));
    *keep = at;
    return place(w, true, up(at, TG_BAKE_PAGE));
}

static void copy(const struct writer *w)
{
    const struct tg_bake_layout *l = w->l;
    size_t from = 0;
    uint8_t *out = w->out;

    for (size_t i = 0; i < l->n_data; i++) {
        const struct tg_bake_data *d = &l->data[i];
        size_t n = d->at - 4 - from;

        memcpy(out, l->in.p + from, n);
        out += n;
        from = (size_t)d->at - 4 + cut(d);
        put32(w->out + d->to - 4, d->n);
        memcpy(w->out + d->to, l->in.p + d->at, d->n);
    }
    memcpy(out, l->in.p + from, l->in.n - from);
}

static enum tg_rc relink(const struct writer *w, struct tg_err *err)
{
    for (size_t i = 0; i < w->l->n_links; i++) {
        const struct tg_bake_link *k = &w->l->links[i];
        size_t at = 0, to = 0;

        if (!map(w, k->at, &at) || !map(w, k->to, &to) || (!k->back && to <= at))
            return TG_FAIL(err, TG_E_FORMAT, "ONNX Runtime's model has data inside data");
        put32(w->out + at, (uint32_t)(k->back ? at - to : to - at));
    }
    return TG_OK;
}

enum tg_rc tg_bake_layout_write(struct tg_bake_layout *l, struct tg_secret **out, size_t *keep,
                                struct tg_err *err)
{
    TG_AUTO(tg_secret_freep) struct tg_secret *s = NULL;
    TG_AUTO(tg_freep) size_t *gone = tg_calloc(l->n_data + 1, sizeof(*gone));
    struct writer w = {.l = l, .gone = gone};
    size_t n, kept = 0;

    if (gone == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    n = plan(&w, &kept);
    if (n > TG_BAKE_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "a model of %zu bytes can't be baked", n);
    TG_TRY(tg_secret_new(n, &s, err));
    w.out = tg_secret_data(s);
    copy(&w);
    TG_TRY(relink(&w, err));
    *out = tg_steal(&s);
    *keep = kept;
    return TG_OK;
}

void tg_bake_layout_done(struct tg_bake_layout *l)
{
    tg_free(l->data);
    tg_free(l->links);
    *l = (struct tg_bake_layout){.n_data = 0};
}
