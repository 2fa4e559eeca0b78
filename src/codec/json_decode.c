#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "codec/json_internal.h"
#include "codec/text.h"

/* Where we are, for error texts: a chain on the stack, printed only when something is wrong. */
struct at {
    const struct at *up;
    const char *name; /* NULL: an index */
    size_t index;
};

struct dec {
    struct tg_arena *arena;
    struct tg_err *err;
    struct tg_bytes text;
    const char *what;
    const struct tg_jfield *long_field; /* whose entries are not in the tree; NULL: none */
    struct tg_json_list long_list;
};

static void path_text(const struct at *at, char *out, size_t n)
{
    size_t used;

    if (at->up != NULL)
        path_text(at->up, out, n);
    else
        out[0] = '\0';
    used = strlen(out);
    if (at->name != NULL)
        (void)snprintf(out + used, n - used, "%s%.200s", at->up != NULL ? "." : "", at->name);
    else
        (void)snprintf(out + used, n - used, "[%zu]", at->index);
}

static enum tg_rc TG_PRINTF(3, 4)
    bad(const struct dec *d, const struct at *at, const char *fmt, ...)
{
    char path[512], why[256];
    va_list ap;

    path_text(at, path, sizeof(path));
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return TG_FAIL(d->err, TG_E_FORMAT, "%s: %s", path, why);
}

static enum tg_rc nomem(const struct dec *d)
{
    return TG_FAIL(d->err, TG_E_NOMEM, "out of memory while decoding JSON");
}

static enum tg_rc decode_struct(const struct dec *d, const struct tg_jschema *s, const json_t *j,
                                const struct at *at, void *out);

typedef enum tg_rc decode_fn(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                             const struct at *at, void *to);

static enum tg_rc copy_string(const struct dec *d, const json_t *j, const struct at *at,
                              uint64_t min, uint64_t max, const char **out)
{
    size_t n = json_string_length(j);
    char *s;

    if (!json_is_string(j))
        return bad(d, at, "must be a string");
    if (n < min || n > max)
        return bad(d, at, "string of %zu bytes; %" PRIu64 " to %" PRIu64 " are allowed", n, min,
                   max);
    s = tg_arena_strndup(d->arena, json_string_value(j), n);
    if (s == NULL)
        return nomem(d);
    *out = s;
    return TG_OK;
}

static enum tg_rc dec_str(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    return copy_string(d, j, at, f->min, f->max, to);
}

static enum tg_rc dec_u64(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    uint64_t v;

    if (!json_is_integer(j))
        return bad(d, at, "must be an integer");
    v = (uint64_t)json_integer_value(j);
    if (v < f->min || v > f->max)
        return bad(d, at, "%" PRIu64 " is not in %" PRIu64 " to %" PRIu64, v, f->min, f->max);
    memcpy(to, &v, sizeof(v));
    return TG_OK;
}

static enum tg_rc dec_bool(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                           const struct at *at, void *to)
{
    (void)f;
    if (!json_is_boolean(j))
        return bad(d, at, "must be true or false");
    *(bool *)to = json_is_true(j);
    return TG_OK;
}

static enum tg_rc dec_time(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                           const struct at *at, void *to)
{
    int64_t t;

    (void)f;
    if (!json_is_string(j) ||
        tg_time_parse(json_string_value(j), json_string_length(j), &t) != TG_OK)
        return bad(d, at, "must be a time like 2026-01-31T12:00:00Z");
    memcpy(to, &t, sizeof(t));
    return TG_OK;
}

static struct tg_bytes string_view(const json_t *j)
{
    return tg_bytes_make(json_string_value(j), json_string_length(j));
}

static enum tg_rc dec_fixed(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                            const struct at *at, void *to)
{
    size_t n = 0;

    if (!json_is_string(j) || json_string_length(j) != tg_b64url_len((size_t)f->max) ||
        tg_b64url_decode(string_view(j), to, (size_t)f->max, &n) != TG_OK || n != f->max)
        return bad(d, at, "must be %" PRIu64 " bytes in unpadded base64url", f->max);
    return TG_OK;
}

static enum tg_rc dec_hex(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    if (!json_is_string(j) || tg_hex_decode(string_view(j), to, (size_t)f->max) != TG_OK)
        return bad(d, at, "must be %" PRIu64 " bytes in lower-case hex", f->max);
    return TG_OK;
}

static enum tg_rc dec_bytes(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                            const struct at *at, void *to)
{
    struct tg_bytes v;
    size_t n = json_string_length(j);
    size_t cap = n / 4 * 3 + 2;
    uint8_t *p;

    if (!json_is_string(j))
        return bad(d, at, "must be a base64url string");
    if (cap > f->max + 2)
        return bad(d, at, "about %zu bytes; at most %" PRIu64 " are allowed", cap, f->max);
    p = tg_arena_alloc(d->arena, cap, 1);
    if (p == NULL)
        return nomem(d);
    if (tg_b64url_decode(string_view(j), p, cap, &v.n) != TG_OK)
        return bad(d, at, "not canonical unpadded base64url");
    if (v.n < f->min || v.n > f->max)
        return bad(d, at, "%zu bytes; %" PRIu64 " to %" PRIu64 " are allowed", v.n, f->min, f->max);
    v.p = p;
    memcpy(to, &v, sizeof(v));
    return TG_OK;
}

static enum tg_rc dec_enum(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                           const struct at *at, void *to)
{
    if (!json_is_string(j))
        return bad(d, at, "must be a string");
    for (int i = 0; f->sub.names[i] != NULL; i++) {
        if (tg_bytes_eq(string_view(j), tg_bytes_str(f->sub.names[i]))) {
            memcpy(to, &i, sizeof(i));
            return TG_OK;
        }
    }
    return bad(d, at, "'%.40s' is not one of the known values", json_string_value(j));
}

static enum tg_rc dec_obj(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    return decode_struct(d, f->sub.schema, j, at, to);
}

static enum tg_rc list_size(const struct dec *d, const struct tg_jfield *f, const struct at *at,
                            size_t n, size_t item, struct tg_jlist *list)
{
    if (n < f->min || n > f->max)
        return bad(d, at, "%zu entries; %" PRIu64 " to %" PRIu64 " are allowed", n, f->min, f->max);
    list->items = tg_arena_alloc(d->arena, n, item);
    list->n = n;
    return list->items != NULL ? TG_OK : nomem(d);
}

/* What the ordinary parser says of text that the entry-by-entry one did not get through. */
static enum tg_rc explain(const struct dec *d)
{
    TG_AUTO(tg_json_decrefp) json_t *root = NULL;

    TG_TRY(tg_json_parse(d->text, d->what, &root, d->err));
    return nomem(d); /* nothing is wrong with it, then */
}

static enum tg_rc dec_long(const struct dec *d, const struct tg_jfield *f, const struct at *at,
                           struct tg_jlist *list)
{
    const struct tg_jschema *s = f->sub.schema;
    size_t next = d->long_list.from;

    TG_TRY(list_size(d, f, at, d->long_list.n, s->size, list));
    for (size_t i = 0; i < list->n; i++) {
        struct at here = {.up = at, .index = i};
        TG_AUTO(tg_json_decrefp) json_t *j = tg_json_list_next(d->text, &d->long_list, &next);

        if (j == NULL)
            return explain(d);
        TG_TRY(decode_struct(d, s, j, &here, (char *)list->items + i * s->size));
    }
    return next == d->long_list.to ? TG_OK : explain(d);
}

static enum tg_rc dec_objs(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                           const struct at *at, void *to)
{
    const struct tg_jschema *s = f->sub.schema;
    struct tg_jlist list;

    if (!json_is_array(j))
        return bad(d, at, "must be an array");
    if (f == d->long_field) {
        TG_TRY(dec_long(d, f, at, &list));
        memcpy(to, &list, sizeof(list));
        return TG_OK;
    }
    TG_TRY(list_size(d, f, at, json_array_size(j), s->size, &list));
    for (size_t i = 0; i < list.n; i++) {
        struct at here = {.up = at, .index = i};

        TG_TRY(decode_struct(d, s, json_array_get(j, i), &here, (char *)list.items + i * s->size));
    }
    memcpy(to, &list, sizeof(list));
    return TG_OK;
}

static enum tg_rc dec_strs(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                           const struct at *at, void *to)
{
    struct tg_jlist list;

    if (!json_is_array(j))
        return bad(d, at, "must be an array");
    TG_TRY(list_size(d, f, at, json_array_size(j), sizeof(char *), &list));
    for (size_t i = 0; i < list.n; i++) {
        struct at here = {.up = at, .index = i};

        TG_TRY(copy_string(d, json_array_get(j, i), &here, 1, 4096, (const char **)list.items + i));
    }
    memcpy(to, &list, sizeof(list));
    return TG_OK;
}

static enum tg_rc dec_map(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    struct tg_jlist list;
    struct tg_jpair *pair;
    /* jansson's iterator takes a non-const object but changes nothing. */
    json_t *obj = (json_t *)(uintptr_t)j;

    if (!json_is_object(j))
        return bad(d, at, "must be an object");
    TG_TRY(list_size(d, f, at, json_object_size(j), sizeof(*pair), &list));
    pair = list.items;
    for (void *it = json_object_iter(obj); it != NULL; it = json_object_iter_next(obj, it)) {
        struct at here = {.up = at, .name = json_object_iter_key(it)};

        pair->key = tg_arena_strndup(d->arena, here.name, strlen(here.name));
        if (pair->key == NULL)
            return nomem(d);
        TG_TRY(copy_string(d, json_object_iter_value(it), &here, 0, 65536, &pair->value));
        pair++;
    }
    memcpy(to, &list, sizeof(list));
    return TG_OK;
}

static enum tg_rc dec_raw(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                          const struct at *at, void *to)
{
    struct tg_bytes v;
    size_t n = json_dumpb(j, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
    char *p;

    if (n > f->max)
        return bad(d, at, "%zu bytes of JSON; at most %" PRIu64 " are allowed", n, f->max);
    p = tg_arena_alloc(d->arena, n + 1, 1);
    if (p == NULL || n == 0 || json_dumpb(j, p, n, JSON_COMPACT | JSON_ENCODE_ANY) != n)
        return nomem(d);
    v = tg_bytes_make(p, n);
    memcpy(to, &v, sizeof(v));
    return TG_OK;
}

static decode_fn *const decoders[] = {
    [TG_JT_STR] = dec_str,   [TG_JT_U64] = dec_u64,     [TG_JT_BOOL] = dec_bool,
    [TG_JT_TIME] = dec_time, [TG_JT_FIXED] = dec_fixed, [TG_JT_BYTES] = dec_bytes,
    [TG_JT_HEX] = dec_hex,   [TG_JT_ENUM] = dec_enum,   [TG_JT_OBJ] = dec_obj,
    [TG_JT_OBJS] = dec_objs, [TG_JT_STRS] = dec_strs,   [TG_JT_MAP] = dec_map,
    [TG_JT_RAW] = dec_raw,
};

static enum tg_rc decode_field(const struct dec *d, const struct tg_jfield *f, const json_t *j,
                               const struct at *at, void *out)
{
    struct at here = {.up = at, .name = f->name};
    bool yes = true;

    if (j == NULL && (f->flags & (TG_J_OPT | TG_J_SKIP0)) != 0)
        return TG_OK;
    if (j == NULL)
        return bad(d, &here, "is missing");
    TG_TRY(decoders[f->type](d, f, j, &here, (char *)out + f->off));
    if (f->has_off != SIZE_MAX)
        memcpy((char *)out + f->has_off, &yes, sizeof(yes));
    return TG_OK;
}

static enum tg_rc refuse_unknown(const struct dec *d, const struct tg_jschema *s, const json_t *j,
                                 const struct at *at)
{
    TG_AUTO(tg_json_decrefp) json_t *copy = json_copy((json_t *)(uintptr_t)j);

    if (copy == NULL)
        return nomem(d);
    for (size_t i = 0; i < s->n; i++)
        (void)json_object_del(copy, s->fields[i].name);
    if (json_object_size(copy) != 0) {
        struct at here = {.up = at, .name = json_object_iter_key(json_object_iter(copy))};

        return bad(d, &here, "is not a known field here");
    }
    return TG_OK;
}

static enum tg_rc decode_struct(const struct dec *d, const struct tg_jschema *s, const json_t *j,
                                const struct at *at, void *out)
{
    if (!json_is_object(j))
        return bad(d, at, "must be an object");
    if (s->unknown == TG_J_REFUSE_UNKNOWN)
        TG_TRY(refuse_unknown(d, s, j, at));
    for (size_t i = 0; i < s->n; i++)
        TG_TRY(decode_field(d, &s->fields[i], json_object_get(j, s->fields[i].name), at, out));
    return TG_OK;
}

/* Lists from this length on are decoded entry by entry. */
#define LONG_LIST 256

/* The tree, without the entries of the first long list at the top. */
static enum tg_rc parse(struct dec *d, const struct tg_jschema *schema, json_t **root)
{
    TG_TRY(tg_json_scan(d->text, d->what, NULL, d->err));
    for (size_t i = 0; i < schema->n && d->long_field == NULL; i++) {
        if (schema->fields[i].type != TG_JT_OBJS)
            continue;
        d->long_list = tg_json_list_find(d->text, schema->fields[i].name);
        if (d->long_list.n >= LONG_LIST)
            d->long_field = &schema->fields[i];
    }
    if (d->long_field != NULL)
        *root = tg_json_parse_without(d->text, &d->long_list);
    if (*root != NULL)
        return TG_OK;
    d->long_field = NULL;
    return tg_json_parse(d->text, d->what, root, d->err);
}

enum tg_rc tg_json_decode(const struct tg_jschema *schema, struct tg_bytes text, const char *what,
                          struct tg_arena *arena, void *out, struct tg_err *err)
{
    TG_AUTO(tg_json_decrefp) json_t *root = NULL;
    struct dec d = {.arena = arena, .err = err, .text = text, .what = what};
    struct at top = {.name = what};
    void *fresh = tg_arena_alloc(arena, 1, schema->size);

    if (fresh == NULL)
        return nomem(&d);
    TG_TRY(parse(&d, schema, &root));
    TG_TRY(decode_struct(&d, schema, root, &top, fresh));
    memcpy(out, fresh, schema->size);
    return TG_OK;
}
