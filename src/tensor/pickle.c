#include "tensor/pickle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/pickle_internal.h"

struct vm {
    struct tg_bytes pickle;
    const char *what;
    struct tg_arena *arena;
    struct tg_pickle_node **stack, **memo;
    size_t n, stack_cap, memo_cap;
    size_t *marks; /* heights of the stack */
    size_t n_marks, marks_cap;
    size_t at; /* offset of the opcode, for errors */
    uint8_t code;
    bool stopped;
    struct tg_err *err;
};

/* ---- words ---- */

#define REMEDY "save the weights alone: torch.save(model.state_dict(), \"weights.pt\")"

static enum tg_rc say(const struct vm *m, enum tg_rc rc, const char *why)
{
    return TG_FAIL(m->err, rc, "%s, offset %zu, opcode %s: %s", m->what, m->at,
                   tg_pickle_op(m->code)->name != NULL ? tg_pickle_op(m->code)->name : "?", why);
}

static enum tg_rc broken(const struct vm *m, const char *why)
{
    return say(m, TG_E_FORMAT, why);
}

static enum tg_rc no_memory(const struct vm *m)
{
    return say(m, TG_E_NOMEM, "out of memory, or over the limit for a pickle's objects");
}

/* Printable, and not long: it comes from the file. */
static void word(struct tg_bytes in, char out[96])
{
    size_t n = 0;

    for (; n < in.n && n < 95; n++)
        out[n] = (char)(in.p[n] > 0x20 && in.p[n] < 0x7f ? in.p[n] : '?');
    out[n] = '\0';
}

static enum tg_rc refuse_name(const struct vm *m, struct tg_bytes module, struct tg_bytes name)
{
    char a[96], b[96];

    word(module, a);
    word(name, b);
    return TG_FAIL(m->err, TG_E_DENIED,
                   "%s, offset %zu: this file calls %s.%s: a model must not; " REMEDY, m->what,
                   m->at, a, b);
}

/* ---- nodes ---- */

static enum tg_rc push(struct vm *m, struct tg_pickle_node *v)
{
    if (m->n == m->stack_cap) {
        size_t cap = m->stack_cap == 0 ? 256 : 2 * m->stack_cap;
        struct tg_pickle_node **p;

        if (m->n >= TG_PICKLE_STACK_MAX)
            return say(m, TG_E_LIMIT, "the stack is too high");
        p = tg_realloc((void *)m->stack, cap * sizeof(*p));
        if (p == NULL)
            return no_memory(m);
        m->stack = p;
        m->stack_cap = cap;
    }
    m->stack[m->n++] = v;
    return TG_OK;
}

static enum tg_rc push_new(struct vm *m, struct tg_pickle_node init)
{
    struct tg_pickle_node *v = tg_arena_alloc(m->arena, 1, sizeof(*v));

    if (v == NULL)
        return no_memory(m);
    *v = init;
    return push(m, v);
}

/* The height below which the innermost open mark does not let anything be taken. */
static size_t floor_of(const struct vm *m)
{
    return m->n_marks == 0 ? 0 : m->marks[m->n_marks - 1];
}

static enum tg_rc pop(struct vm *m, struct tg_pickle_node **out)
{
    if (m->n <= floor_of(m))
        return broken(m, "the stack is empty");
    *out = m->stack[--m->n];
    return TG_OK;
}

static enum tg_rc top(const struct vm *m, struct tg_pickle_node **out)
{
    if (m->n <= floor_of(m))
        return broken(m, "the stack is empty");
    *out = m->stack[m->n - 1];
    return TG_OK;
}

static enum tg_rc deepen(const struct vm *m, struct tg_pickle_node *v,
                         const struct tg_pickle_node *child)
{
    if (child->depth >= TG_PICKLE_DEPTH_MAX)
        return say(m, TG_E_LIMIT, "nested too deep");
    if (v->depth <= child->depth)
        v->depth = (uint8_t)(child->depth + 1);
    return TG_OK;
}

static enum tg_rc add(struct vm *m, struct tg_pickle_node *v, struct tg_pickle_node *child)
{
    TG_TRY(deepen(m, v, child));
    if (v->n == v->cap) {
        size_t cap = v->cap == 0 ? 4 : 2 * v->cap;
        struct tg_pickle_node **p = tg_arena_alloc(m->arena, cap, sizeof(*p));

        if (p == NULL)
            return no_memory(m);
        if (v->n > 0)
            memcpy((void *)p, (const void *)v->items, v->n * sizeof(*p));
        v->items = p;
        v->cap = cap;
    }
    v->items[v->n++] = child;
    return TG_OK;
}

/* Everything from height `from` up becomes items of v. */
static enum tg_rc add_from(struct vm *m, struct tg_pickle_node *v, size_t from)
{
    for (size_t i = from; i < m->n; i++)
        TG_TRY(add(m, v, m->stack[i]));
    m->n = from;
    return TG_OK;
}

/* ---- opcodes ---- */

static uint64_t le(struct tg_bytes b)
{
    uint64_t v = 0;

    for (size_t i = b.n; i > 0; i--)
        v = v << 8 | b.p[i - 1];
    return v;
}

/* Other protocols spell names in other ways; if there is a bad one, it is the better answer. */
static enum tg_rc refuse_protocol(const struct vm *m)
{
    struct tg_bytes module, name;

    if (tg_pickle_culprit(m->pickle, &module, &name))
        return refuse_name(m, module, name);
    return TG_FAIL(m->err, TG_E_UNSUPPORTED,
                   "%s: not pickle protocol 2, which torch.save uses; save without "
                   "pickle_protocol=",
                   m->what);
}

static enum tg_rc op_proto(struct vm *m, struct tg_bytes arg)
{
    if (m->at != 0)
        return broken(m, "stands elsewhere than at the beginning");
    return arg.p[0] == 2 ? TG_OK : refuse_protocol(m);
}

static enum tg_rc op_mark(struct vm *m, struct tg_bytes arg)
{
    (void)arg;
    if (m->n_marks == m->marks_cap) {
        size_t cap = m->marks_cap == 0 ? 64 : 2 * m->marks_cap;
        size_t *p;

        if (cap > TG_PICKLE_STACK_MAX)
            return say(m, TG_E_LIMIT, "too many open marks");
        p = tg_realloc(m->marks, cap * sizeof(*p));
        if (p == NULL)
            return no_memory(m);
        m->marks = p;
        m->marks_cap = cap;
    }
    m->marks[m->n_marks++] = m->n;
    return TG_OK;
}

static enum tg_rc take_mark(struct vm *m, size_t *height)
{
    if (m->n_marks == 0)
        return broken(m, "there is no open mark");
    *height = m->marks[--m->n_marks];
    return TG_OK;
}

static enum tg_rc op_stop(struct vm *m, struct tg_bytes arg)
{
    (void)arg;
    m->stopped = true;
    return m->n == 1 && m->n_marks == 0 ? TG_OK : broken(m, "the stack does not hold one object");
}

static enum tg_rc op_none(struct vm *m, struct tg_bytes arg)
{
    (void)arg;
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_NONE});
}

static enum tg_rc op_bool(struct vm *m, struct tg_bytes arg)
{
    (void)arg;
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_BOOL, .i = m->code == 0x88});
}

static enum tg_rc op_int(struct vm *m, struct tg_bytes arg)
{
    uint64_t v = le(arg);

    /* BININT is signed, the shorter ones are not. */
    return push_new(
        m, (struct tg_pickle_node){.kind = TG_PK_INT,
                                   .i = m->code == 'J' ? (int32_t)(uint32_t)v : (int64_t)v});
}

static enum tg_rc op_long1(struct vm *m, struct tg_bytes arg)
{
    uint64_t v = le(arg);

    if (arg.n > 8)
        return say(m, TG_E_LIMIT, "a number over 64 bits");
    if (arg.n > 0 && arg.n < 8 && (arg.p[arg.n - 1] & 0x80) != 0)
        v |= UINT64_MAX << (8 * arg.n);
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_INT, .i = (int64_t)v});
}

static enum tg_rc op_float(struct vm *m, struct tg_bytes arg)
{
    (void)arg; /* no tensor is described by one */
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_FLOAT});
}

static enum tg_rc op_string(struct vm *m, struct tg_bytes arg)
{
    if (!tg_utf8_ok(arg))
        return broken(m, "a string that is not UTF-8");
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_STR, .s = arg});
}

static enum tg_rc op_empty(struct vm *m, struct tg_bytes arg)
{
    enum tg_pickle_kind kind = m->code == '}'   ? TG_PK_DICT
                               : m->code == ']' ? TG_PK_LIST
                               : m->code == ')' ? TG_PK_TUPLE
                                                : TG_PK_SET;

    (void)arg;
    return push_new(m, (struct tg_pickle_node){.kind = kind});
}

static enum tg_rc tuple_from(struct vm *m, size_t height)
{
    struct tg_pickle_node *v = tg_arena_alloc(m->arena, 1, sizeof(*v));

    if (v == NULL)
        return no_memory(m);
    v->kind = TG_PK_TUPLE;
    TG_TRY(add_from(m, v, height));
    return push(m, v);
}

static enum tg_rc op_tuple(struct vm *m, struct tg_bytes arg)
{
    size_t height = 0;

    (void)arg;
    TG_TRY(take_mark(m, &height));
    return tuple_from(m, height);
}

static enum tg_rc op_tuple_n(struct vm *m, struct tg_bytes arg)
{
    size_t n = (size_t)m->code - 0x84; /* TUPLE1, TUPLE2, TUPLE3 */

    (void)arg;
    if (m->n < floor_of(m) + n)
        return broken(m, "the stack is empty");
    return tuple_from(m, m->n - n);
}

static enum tg_rc op_append(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *list = NULL;
    size_t height = m->n - 1;

    (void)arg;
    if (m->code == 'e')
        TG_TRY(take_mark(m, &height));
    else if (m->n < floor_of(m) + 2)
        return broken(m, "the stack is empty");
    if (height <= floor_of(m) || (list = m->stack[height - 1])->kind != TG_PK_LIST)
        return broken(m, "appends to something that is not a list");
    return add_from(m, list, height);
}

static enum tg_rc op_set_items(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *dict = NULL;
    size_t height = m->n - 2;

    (void)arg;
    if (m->code == 'u')
        TG_TRY(take_mark(m, &height));
    else if (m->n < floor_of(m) + 3)
        return broken(m, "the stack is empty");
    if (height <= floor_of(m) || (dict = m->stack[height - 1])->kind != TG_PK_DICT)
        return broken(m, "sets items of something that is not a dict");
    if ((m->n - height) % 2 != 0)
        return broken(m, "a key without a value");
    for (size_t i = height; i < m->n; i += 2)
        if (m->stack[i]->kind != TG_PK_STR && m->stack[i]->kind != TG_PK_INT)
            return broken(m, "a dict's key that is neither a string nor a number");
    return add_from(m, dict, height);
}

static enum tg_rc op_put(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *v = NULL;
    size_t i = (size_t)le(arg);

    TG_TRY(top(m, &v));
    if (i >= TG_PICKLE_MEMO_MAX)
        return say(m, TG_E_LIMIT, "too many remembered objects");
    if (i >= m->memo_cap) {
        size_t cap = i < 512 ? 1024 : 2 * i;
        struct tg_pickle_node **p = tg_realloc((void *)m->memo, cap * sizeof(*p));

        if (p == NULL)
            return no_memory(m);
        memset((void *)(p + m->memo_cap), 0, (cap - m->memo_cap) * sizeof(*p));
        m->memo = p;
        m->memo_cap = cap;
    }
    m->memo[i] = v;
    return TG_OK;
}

static enum tg_rc op_get(struct vm *m, struct tg_bytes arg)
{
    size_t i = (size_t)le(arg);

    if (i >= m->memo_cap || m->memo[i] == NULL)
        return broken(m, "recalls what was not remembered");
    return push(m, m->memo[i]);
}

static enum tg_rc op_global(struct vm *m, struct tg_bytes arg)
{
    struct tg_bytes module, name;
    const struct tg_pickle_global *g;

    if (!tg_pickle_split(arg, &module, &name))
        return broken(m, "a name without a module");
    g = tg_pickle_global(module, name);
    if (g == NULL)
        return refuse_name(m, module, name);
    return push_new(m, (struct tg_pickle_node){.kind = TG_PK_GLOBAL, .global = g});
}

static enum tg_rc op_persid(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *id = NULL;
    struct tg_pickle_node *v = tg_arena_alloc(m->arena, 1, sizeof(*v));

    (void)arg;
    if (v == NULL)
        return no_memory(m);
    v->kind = TG_PK_PERSID;
    TG_TRY(pop(m, &id));
    TG_TRY(add(m, v, id));
    return push(m, v);
}

static bool callable(const struct tg_pickle_node *f)
{
    return f->kind == TG_PK_GLOBAL && f->global->kind != TG_PG_STORAGE &&
           f->global->kind != TG_PG_UNTYPED_STORAGE && f->global->kind != TG_PG_DTYPE;
}

static enum tg_rc op_reduce(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *args = NULL, *f = NULL, *v;

    (void)arg;
    TG_TRY(pop(m, &args));
    TG_TRY(pop(m, &f));
    if (args->kind != TG_PK_TUPLE)
        return broken(m, "arguments that are not a tuple");
    if (!callable(f))
        return f->kind == TG_PK_GLOBAL
                   ? refuse_name(m, tg_bytes_str(f->global->module), tg_bytes_str(f->global->name))
                   : say(m, TG_E_DENIED,
                         "this file calls an object it made itself: a model must not; " REMEDY);
    if (f->global->kind == TG_PG_ORDERED_DICT) {
        if (args->n != 0)
            return broken(m, "OrderedDict with arguments");
        return push_new(m, (struct tg_pickle_node){.kind = TG_PK_DICT, .ordered = true});
    }
    v = tg_arena_alloc(m->arena, 1, sizeof(*v));
    if (v == NULL)
        return no_memory(m);
    *v = *args; /* a tuple never changes, so its items can be shared */
    v->kind = f->global->kind == TG_PG_SIZE ? TG_PK_TUPLE : TG_PK_CALL;
    v->global = f->global;
    if (v->kind == TG_PK_TUPLE) { /* torch.Size((2, 3)) */
        if (args->n != 1 || args->items[0]->kind != TG_PK_TUPLE)
            return broken(m, "torch.Size of something that is not a tuple");
        *v = *args->items[0];
    }
    return push(m, v);
}

/* An OrderedDict's attributes (state_dict's _metadata): dropped. */
static enum tg_rc op_build(struct vm *m, struct tg_bytes arg)
{
    struct tg_pickle_node *state = NULL, *v = NULL;

    (void)arg;
    TG_TRY(pop(m, &state));
    TG_TRY(top(m, &v));
    return v->kind == TG_PK_DICT && v->ordered
               ? TG_OK
               : say(m, TG_E_DENIED,
                     "this file sets the state of an object that is not an OrderedDict; " REMEDY);
}

static const struct {
    uint8_t code;
    enum tg_rc (*run)(struct vm *m, struct tg_bytes arg);
} handlers[] = {
    {0x80, op_proto    },
    {'(',  op_mark     },
    {'.',  op_stop     },
    {'N',  op_none     },
    {0x88, op_bool     },
    {0x89, op_bool     },
    {'J',  op_int      },
    {'K',  op_int      },
    {'M',  op_int      },
    {0x8a, op_long1    },
    {'G',  op_float    },
    {'X',  op_string   },
    {'U',  op_string   },
    {'}',  op_empty    },
    {']',  op_empty    },
    {')',  op_empty    },
    {0x8f, op_empty    },
    {'t',  op_tuple    },
    {0x85, op_tuple_n  },
    {0x86, op_tuple_n  },
    {0x87, op_tuple_n  },
    {'a',  op_append   },
    {'e',  op_append   },
    {'s',  op_set_items},
    {'u',  op_set_items},
    {'q',  op_put      },
    {'r',  op_put      },
    {'h',  op_get      },
    {'j',  op_get      },
    {'c',  op_global   },
    {'Q',  op_persid   },
    {'R',  op_reduce   },
    {'b',  op_build    },
};

static enum tg_rc refuse_op(const struct vm *m)
{
    struct tg_bytes module, name;

    if (tg_pickle_culprit(m->pickle, &module, &name))
        return refuse_name(m, module, name);
    return say(m, TG_E_UNSUPPORTED, "not an opcode that describing tensors takes; " REMEDY);
}

static enum tg_rc step(struct vm *m, struct tg_rd *r)
{
    struct tg_bytes arg;

    m->at = r->off;
    m->code = 0;
    if (r->rest.n == 0)
        return TG_FAIL(m->err, TG_E_FORMAT, "%s, offset %zu: ends without STOP", m->what, m->at);
    m->code = r->rest.p[0];
    if (tg_pickle_next(r, &m->code, &arg) != TG_OK)
        return broken(m, "cut, or no opcode of pickle");
    for (size_t i = 0; i < TG_ARRAY_LEN(handlers); i++)
        if (handlers[i].code == m->code)
            return handlers[i].run(m, arg);
    return refuse_op(m);
}

static enum tg_rc run(struct vm *m)
{
    struct tg_rd r = tg_rd_init(m->pickle);

    if (m->pickle.n == 0 || m->pickle.p[0] != 0x80)
        return refuse_protocol(m);
    while (!m->stopped)
        TG_TRY(step(m, &r));
    return r.rest.n == 0 ? TG_OK : broken(m, "something follows it");
}

enum tg_rc tg_pickle_read(struct tg_bytes pickle, const char *what, struct tg_arena *arena,
                          const struct tg_pickle_node **root, struct tg_err *err)
{
    struct vm m = {.pickle = pickle, .what = what, .arena = arena, .err = err};
    enum tg_rc rc;

    if (pickle.n > TG_PICKLE_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%s: %zu bytes of pickle, at most %zu", what, pickle.n,
                       TG_PICKLE_MAX);
    rc = run(&m);
    if (rc == TG_OK)
        *root = m.stack[0];
    tg_free((void *)m.stack);
    tg_free((void *)m.memo);
    tg_free(m.marks);
    return rc;
}
