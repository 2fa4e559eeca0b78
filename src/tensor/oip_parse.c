#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tensor/num.h"
#include "tensor/oip.h"
#include "tensor/oip_internal.h"
#include "tensor/scan.h"

struct parse {
    struct tg_scan s;
    struct tg_rd binary; /* what is left of the bytes behind the JSON */
    struct tg_oip *m;
    uint64_t total; /* bytes of tensors so far */
    struct tg_err *err;
};

/* What is known of the tensor (or wanted output) being read. Its members come in any order, so data
 * is skipped first and read once type and shape are known. */
struct item {
    const char *list; /* "inputs" or "outputs" */
    size_t index;
    struct tg_oip_tensor *tensor;
    struct tg_oip_wanted *wanted;
    unsigned seen; /* bits of the member table's rows */
    size_t data_at;
    bool has_size, says_binary;
    uint64_t size;
};

typedef enum tg_rc member_fn(struct parse *p, struct item *it);

struct member {
    const char *name;
    member_fn *fn;
};

#define KEY_MAX 64

static const char *what(const struct parse *p)
{
    return p->m->kind == TG_OIP_REQUEST ? "request" : "reply";
}

static enum tg_rc bad(const struct parse *p, enum tg_rc rc, const char *why)
{
    return TG_FAIL(p->err, rc, "%s body, offset %zu: %s", what(p), p->s.i, why);
}

static enum tg_rc skip(struct parse *p)
{
    enum tg_rc rc = tg_scan_skip(&p->s, TG_OIP_DEPTH_MAX);

    if (rc == TG_E_LIMIT)
        return bad(p, rc, "nested too deep, or a number is too long");
    return rc == TG_OK ? TG_OK : bad(p, rc, "not a JSON value");
}

static enum tg_rc text(struct parse *p, const char *name, char *out, size_t cap)
{
    enum tg_rc rc = tg_scan_text(&p->s, out, cap);

    if (rc == TG_OK)
        return TG_OK;
    return TG_FAIL(p->err, rc, "%s body, offset %zu: %s must be a string of at most %zu bytes",
                   what(p), p->s.i, name, cap - 1);
}

/* The row of a key, taken with its colon; n when it is none of the table's. */
static enum tg_rc take_key(struct parse *p, const struct member *table, size_t n, size_t *row)
{
    char key[KEY_MAX];
    struct tg_bytes raw;
    enum tg_rc rc = tg_scan_text(&p->s, key, sizeof(key));

    *row = n;
    if (rc == TG_OK) {
        for (size_t i = 0; i < n; i++)
            if (strcmp(key, table[i].name) == 0)
                *row = i;
    } else if (tg_scan_string(&p->s, &raw) != TG_OK) {
        return bad(p, TG_E_FORMAT, "expected a member name");
    }
    return tg_scan_take(&p->s, ':') ? TG_OK : bad(p, TG_E_FORMAT, "expected ':'");
}

/* One object by its table; members that are not in it are skipped. */
static enum tg_rc object(struct parse *p, const struct member *table, size_t n, struct item *it,
                         unsigned *seen)
{
    if (!tg_scan_take(&p->s, '{'))
        return bad(p, TG_E_FORMAT, "expected an object");
    *seen = 0;
    if (tg_scan_take(&p->s, '}'))
        return TG_OK;
    do {
        size_t row = n;

        TG_TRY(take_key(p, table, n, &row));
        if (row == n) {
            TG_TRY(skip(p));
            continue;
        }
        if ((*seen >> row & 1) != 0)
            return TG_FAIL(p->err, TG_E_FORMAT, "%s body, offset %zu: '%s' is there twice", what(p),
                           p->s.i, table[row].name);
        *seen |= 1u << row;
        TG_TRY(table[row].fn(p, it));
    } while (tg_scan_take(&p->s, ','));
    return tg_scan_take(&p->s, '}') ? TG_OK : bad(p, TG_E_FORMAT, "expected ',' or '}'");
}

/* ---- values of parameters ---- */

static enum tg_rc flag(struct parse *p, const char *name, bool *out)
{
    if (tg_scan_word(&p->s, "true")) {
        *out = true;
        return TG_OK;
    }
    *out = false;
    if (tg_scan_word(&p->s, "false"))
        return TG_OK;
    return TG_FAIL(p->err, TG_E_FORMAT, "%s body, offset %zu: parameter %s must be true or false",
                   what(p), p->s.i, name);
}

static enum tg_rc number(struct parse *p, const char *name, uint64_t max, uint64_t *out)
{
    struct tg_num num = {0};

    (void)tg_scan_peek(&p->s);
    if (tg_num_scan(tg_bytes_sub(p->s.in, p->s.i, p->s.in.n), &num) != TG_OK ||
        tg_num_u64(&num, max, out) != TG_OK)
        return TG_FAIL(p->err, TG_E_FORMAT,
                       "%s body, offset %zu: %s must be a whole number, 0 to %" PRIu64, what(p),
                       p->s.i, name, max);
    p->s.i += num.text.n;
    return TG_OK;
}

static enum tg_rc param_size(struct parse *p, struct item *it)
{
    it->has_size = true;
    return number(p, "binary_data_size", TG_OIP_DATA_MAX, &it->size);
}

static enum tg_rc param_binary(struct parse *p, struct item *it)
{
    it->says_binary = true;
    return flag(p, "binary_data", &it->wanted->binary);
}

static enum tg_rc param_binary_all(struct parse *p, struct item *it)
{
    (void)it;
    return flag(p, "binary_data_output", &p->m->binary_outputs);
}

static const struct member tensor_params[] = {
    {"binary_data_size", param_size}
};
static const struct member wanted_params[] = {
    {"binary_data", param_binary}
};
static const struct member body_params[] = {
    {"binary_data_output", param_binary_all}
};

/* ---- members of a tensor ---- */

static enum tg_rc tensor_name(struct parse *p, struct item *it)
{
    return text(p, "name", it->tensor->name, sizeof(it->tensor->name));
}

static enum tg_rc tensor_type(struct parse *p, struct item *it)
{
    char name[16];

    TG_TRY(text(p, "datatype", name, sizeof(name)));
    it->tensor->dtype = tg_dtype_from_name(tg_bytes_str(name));
    if (it->tensor->dtype == TG_DT_COUNT)
        return TG_FAIL(
            p->err, TG_E_FORMAT,
            "%s[%zu].datatype: unknown; one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, "
            "INT16, INT32, INT64, FP16, FP32, FP64, BYTES",
            it->list, it->index);
    return TG_OK;
}

static enum tg_rc tensor_shape(struct parse *p, struct item *it)
{
    struct tg_shape *s = &it->tensor->shape;

    s->n = 0;
    if (!tg_scan_take(&p->s, '['))
        return bad(p, TG_E_FORMAT, "shape must be an array of sizes");
    if (tg_scan_take(&p->s, ']'))
        return TG_OK;
    do {
        uint64_t d = 0;

        if (s->n == TG_DIMS_MAX)
            return TG_FAIL(p->err, TG_E_LIMIT, "%s[%zu].shape: over %d dimensions", it->list,
                           it->index, TG_DIMS_MAX);
        TG_TRY(number(p, "a size in shape", INT64_MAX, &d));
        s->d[s->n++] = (int64_t)d;
    } while (tg_scan_take(&p->s, ','));
    return tg_scan_take(&p->s, ']') ? TG_OK : bad(p, TG_E_FORMAT, "expected ',' or ']'");
}

static enum tg_rc tensor_data(struct parse *p, struct item *it)
{
    if (tg_scan_peek(&p->s) != '[')
        return bad(p, TG_E_FORMAT, "data must be an array");
    it->data_at = p->s.i;
    return skip(p);
}

static enum tg_rc tensor_parameters(struct parse *p, struct item *it)
{
    unsigned seen;

    return object(p, tensor_params, TG_ARRAY_LEN(tensor_params), it, &seen);
}

enum { T_NAME = 1, T_TYPE = 2, T_SHAPE = 4, T_DATA = 8, T_NEEDED = 7 };

static const struct member tensor_members[] = {
    {"name",       tensor_name      },
    {"datatype",   tensor_type      },
    {"shape",      tensor_shape     },
    {"data",       tensor_data      },
    {"parameters", tensor_parameters},
};

/* ---- a whole tensor ---- */

static enum tg_rc count_bytes(struct parse *p, const struct item *it, uint64_t n)
{
    if (n > TG_OIP_DATA_MAX || p->total + n > TG_OIP_DATA_MAX)
        return TG_FAIL(p->err, TG_E_LIMIT, "%s[%zu]: tensors of one %s may take %" PRIu64 " bytes",
                       it->list, it->index, what(p), (uint64_t)TG_OIP_DATA_MAX);
    p->total += n;
    return TG_OK;
}

static enum tg_rc data_from_json(struct parse *p, const struct item *it, size_t count)
{
    struct tg_oip_tensor *t = it->tensor;
    size_t size = t->dtype == TG_DT_BYTES ? 4 : tg_dtype_size(t->dtype);
    struct tg_oip_place place;
    uint64_t room;
    TG_AUTO(tg_buf_done) struct tg_buf buf = TG_BUF_INIT(0);

    /* Each element takes a character and a comma, so a huge shape can't ask for memory that its
     * text does not pay for. */
    if (count > p->s.in.n / 2 + 1)
        return TG_FAIL(p->err, TG_E_FORMAT, "%s[%zu].data: does not have the shape's %zu elements",
                       it->list, it->index, count);
    room = (uint64_t)count * size + (t->dtype == TG_DT_BYTES ? p->s.in.n : 0);
    TG_TRY(count_bytes(p, it, room));
    buf = TG_BUF_SECRET((size_t)room + 1);
    if (room > 0) {
        uint8_t *where;

        if (tg_buf_reserve(&buf, (size_t)room, &where) != TG_OK)
            return TG_FAIL(p->err, TG_E_NOMEM, "out of memory");
    }
    place = (struct tg_oip_place){it->list, it->index, it->data_at};
    TG_TRY(tg_oip_elements(p->s.in, &place, t, count, &buf, p->err));
    t->data.n = buf.n;
    t->owned = tg_buf_take(&buf, &t->data.n);
    t->data.p = t->owned;
    return TG_OK;
}

static enum tg_rc data_from_binary(struct parse *p, const struct item *it)
{
    struct tg_oip_tensor *t = it->tensor;
    struct tg_bytes part = TG_BYTES_NONE;
    char name[64];

    if (tg_rd_bytes(&p->binary, (size_t)it->size, &part) != TG_OK)
        return TG_FAIL(p->err, TG_E_FORMAT,
                       "%s[%zu]: binary_data_size is %" PRIu64
                       ", but %zu bytes are left behind the "
                       "JSON (is %s right?)",
                       it->list, it->index, it->size, p->binary.rest.n, TG_OIP_HEADER);
    TG_TRY(count_bytes(p, it, part.n));
    t->owned = tg_alloc(part.n);
    if (t->owned == NULL)
        return TG_FAIL(p->err, TG_E_NOMEM, "out of memory");
    if (part.n > 0)
        memcpy(t->owned, part.p, part.n);
    t->data = tg_bytes_make(t->owned, part.n);
    t->binary = true;
    (void)snprintf(name, sizeof(name), "%s[%zu]", it->list, it->index);
    return tg_tensor_check(name, t->dtype, &t->shape, t->data, p->err);
}

static enum tg_rc finish_tensor(struct parse *p, struct item *it)
{
    struct tg_oip_tensor *t = it->tensor;
    size_t count = 0;
    enum tg_rc rc;

    if ((it->seen & T_NEEDED) != T_NEEDED)
        return TG_FAIL(p->err, TG_E_FORMAT, "%s[%zu]: name, datatype and shape are required",
                       it->list, it->index);
    rc = tg_shape_count(&t->shape, TG_OIP_DATA_MAX, &count);
    if (rc != TG_OK)
        return TG_FAIL(p->err, rc, "%s[%zu].shape: too many elements", it->list, it->index);
    if (it->has_size == ((it->seen & T_DATA) != 0))
        return TG_FAIL(p->err, TG_E_FORMAT,
                       "%s[%zu]: either data or the parameter binary_data_size is required",
                       it->list, it->index);
    return it->has_size ? data_from_binary(p, it) : data_from_json(p, it, count);
}

static enum tg_rc add_tensor(struct parse *p, const char *list)
{
    struct tg_oip *m = p->m;
    struct item it = {.list = list, .index = m->n};

    if (m->n == TG_OIP_TENSORS_MAX)
        return TG_FAIL(p->err, TG_E_LIMIT, "%s: over %d tensors", list, TG_OIP_TENSORS_MAX);
    it.tensor = &m->tensors[m->n++]; /* counted at once: whatever it comes to own is freed */
    TG_TRY(object(p, tensor_members, TG_ARRAY_LEN(tensor_members), &it, &it.seen));
    for (size_t i = 0; i + 1 < m->n; i++)
        if (strcmp(m->tensors[i].name, it.tensor->name) == 0)
            return TG_FAIL(p->err, TG_E_FORMAT, "%s[%zu] and [%zu] have the same name", list, i,
                           it.index);
    return finish_tensor(p, &it);
}

/* ---- wanted outputs ---- */

static enum tg_rc wanted_name(struct parse *p, struct item *it)
{
    return text(p, "name", it->wanted->name, sizeof(it->wanted->name));
}

static enum tg_rc wanted_parameters(struct parse *p, struct item *it)
{
    unsigned seen;

    return object(p, wanted_params, TG_ARRAY_LEN(wanted_params), it, &seen);
}

static const struct member wanted_members[] = {
    {"name",       wanted_name      },
    {"parameters", wanted_parameters},
};

/* says_binary is kept in the caller's mask until binary_data_output is known, which may come later.
 */
static enum tg_rc add_wanted(struct parse *p, const char *list, uint64_t *says)
{
    struct tg_oip *m = p->m;
    struct item it = {.list = list, .index = m->n_wanted};

    if (m->n_wanted == TG_OIP_TENSORS_MAX)
        return TG_FAIL(p->err, TG_E_LIMIT, "%s: over %d names", list, TG_OIP_TENSORS_MAX);
    it.wanted = &m->wanted[m->n_wanted];
    TG_TRY(object(p, wanted_members, TG_ARRAY_LEN(wanted_members), &it, &it.seen));
    if ((it.seen & T_NAME) == 0)
        return TG_FAIL(p->err, TG_E_FORMAT, "%s[%zu]: name is required", list, it.index);
    for (size_t i = 0; i < m->n_wanted; i++)
        if (strcmp(m->wanted[i].name, it.wanted->name) == 0)
            return TG_FAIL(p->err, TG_E_FORMAT, "%s[%zu] and [%zu] have the same name", list, i,
                           it.index);
    if (it.says_binary)
        *says |= UINT64_C(1) << m->n_wanted;
    m->n_wanted++;
    return TG_OK;
}

/* ---- the body ---- */

struct body {
    struct item it; /* first: the member functions are handed this */
    uint64_t says;  /* wanted outputs that say whether they are binary */
};

static enum tg_rc body_id(struct parse *p, struct item *it)
{
    (void)it;
    p->m->has_id = true;
    return text(p, "id", p->m->id, sizeof(p->m->id));
}

static enum tg_rc body_model_name(struct parse *p, struct item *it)
{
    (void)it;
    return text(p, "model_name", p->m->model_name, sizeof(p->m->model_name));
}

static enum tg_rc body_model_version(struct parse *p, struct item *it)
{
    (void)it;
    return text(p, "model_version", p->m->model_version, sizeof(p->m->model_version));
}

static enum tg_rc body_parameters(struct parse *p, struct item *it)
{
    unsigned seen;

    return object(p, body_params, TG_ARRAY_LEN(body_params), it, &seen);
}

static enum tg_rc list_of(struct parse *p, const char *list, bool tensors, uint64_t *says)
{
    if (!tg_scan_take(&p->s, '['))
        return TG_FAIL(p->err, TG_E_FORMAT, "%s body, offset %zu: %s must be an array", what(p),
                       p->s.i, list);
    if (tg_scan_take(&p->s, ']'))
        return TG_OK;
    do
        TG_TRY(tensors ? add_tensor(p, list) : add_wanted(p, list, says));
    while (tg_scan_take(&p->s, ','));
    return tg_scan_take(&p->s, ']') ? TG_OK : bad(p, TG_E_FORMAT, "expected ',' or ']'");
}

static enum tg_rc body_inputs(struct parse *p, struct item *it)
{
    (void)it;
    return p->m->kind == TG_OIP_REQUEST ? list_of(p, "inputs", true, NULL) : skip(p);
}

static enum tg_rc body_outputs(struct parse *p, struct item *it)
{
    struct body *b = (struct body *)it;

    return list_of(p, "outputs", p->m->kind == TG_OIP_REPLY, &b->says);
}

enum { B_INPUTS = 1, B_OUTPUTS = 2 };

static const struct member body_members[] = {
    {"inputs",        body_inputs       },
    {"outputs",       body_outputs      },
    {"id",            body_id           },
    {"model_name",    body_model_name   },
    {"model_version", body_model_version},
    {"parameters",    body_parameters   },
};

static enum tg_rc parse_body(struct parse *p)
{
    struct body b = {.it = {.list = "body"}};
    unsigned need = p->m->kind == TG_OIP_REQUEST ? B_INPUTS : B_OUTPUTS;

    TG_TRY(object(p, body_members, TG_ARRAY_LEN(body_members), &b.it, &b.it.seen));
    if (tg_scan_peek(&p->s) != -1)
        return bad(p, TG_E_FORMAT, "text after the object");
    if ((b.it.seen & need) == 0)
        return TG_FAIL(p->err, TG_E_FORMAT, "%s body: '%s' is required", what(p),
                       need == B_INPUTS ? "inputs" : "outputs");
    if (p->binary.rest.n != 0)
        return TG_FAIL(p->err, TG_E_FORMAT,
                       "%s body: %zu bytes behind the JSON belong to no tensor", what(p),
                       p->binary.rest.n);
    for (size_t i = 0; i < p->m->n_wanted; i++)
        if ((b.says >> i & 1) == 0)
            p->m->wanted[i].binary = p->m->binary_outputs;
    return TG_OK;
}

enum tg_rc tg_oip_parse(enum tg_oip_kind kind, struct tg_bytes json, struct tg_bytes binary,
                        struct tg_oip **out, struct tg_err *err)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *m = tg_oip_new(kind);
    struct parse p = {
        .s = {json, 0},
          .binary = tg_rd_init(binary), .m = m, .err = err
    };

    if (m == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(parse_body(&p));
    *out = tg_steal(&m);
    return TG_OK;
}
