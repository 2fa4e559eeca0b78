/* The lexical rules that jansson does not hold to by itself: depth, how many values there are, and
 * numbers that are plain non-negative integers up to 2^53-1. A cheap scan before the parser sees
 * the text, so neither a depth bomb, nor a text that is small but huge in memory, nor a number
 * whose value would be rounded ever reaches it. */

#include <inttypes.h>
#include <string.h>

#include "codec/json_internal.h"

struct scan {
    struct tg_bytes text;
    size_t i;
    unsigned depth;
    unsigned marks;  /* { [ , : so far: at least one for each value */
    uint64_t weight; /* so far (see tg_json_weight) */
    const char *what;
};

static enum tg_rc bad(const struct scan *s, size_t at, const char *why, struct tg_err *err)
{
    return TG_FAIL(err, TG_E_FORMAT, "%s: offset %zu: %s", s->what, at, why);
}

/* text.p[i] follows a backslash: how many bytes of UTF-8 come of it; leaves i after it. Of a
 * surrogate pair, the second half counts for nothing. */
static unsigned escape(struct scan *s)
{
    unsigned v = 0;

    if (s->i >= s->text.n || s->text.p[s->i++] != 'u')
        return 1;
    for (size_t end = s->i + 4; s->i < end && s->i < s->text.n && s->text.p[s->i] != '"'; s->i++) {
        uint8_t c = s->text.p[s->i];

        v = v << 4 | (c <= '9' ? c & 15U : (c & 7U) + 9);
    }
    if (v < 0x80)
        return 1;
    if (v < 0x800)
        return 2;
    return v < 0xd800 || v > 0xdfff ? 3 : v < 0xdc00 ? 4 : 0;
}

/* text.p[i] is the opening quote; leaves i after the closing one. */
static enum tg_rc skip_string(struct scan *s, struct tg_err *err)
{
    size_t start = s->i++;

    while (s->i < s->text.n) {
        uint8_t c = s->text.p[s->i++];

        if (c == '"')
            return TG_OK;
        s->weight += c == '\\' ? escape(s) : 1;
    }
    return bad(s, start, "string without end", err);
}

static bool number_char(uint8_t c)
{
    return (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.' || c == 'e' || c == 'E';
}

static enum tg_rc number(struct scan *s, struct tg_err *err)
{
    size_t start = s->i;
    uint64_t v = 0;

    for (; s->i < s->text.n && number_char(s->text.p[s->i]); s->i++) {
        uint8_t c = s->text.p[s->i];

        if (c < '0' || c > '9')
            return bad(s, start, "numbers must be integers without sign, fraction or exponent",
                       err);
        if (s->i > start && s->text.p[start] == '0')
            return bad(s, start, "number with a leading zero", err);
        v = v * 10 + (uint64_t)(c - '0');
        if (v > TG_JSON_INT_MAX)
            return bad(s, start, "number above 2^53-1", err);
    }
    s->weight += v;
    return TG_OK;
}

static enum tg_rc scan_one(struct scan *s, struct tg_err *err)
{
    uint8_t c = s->text.p[s->i];

    if (c == '"')
        return skip_string(s, err);
    if (c == '-' || (c >= '0' && c <= '9'))
        return number(s, err);
    if ((c == '{' || c == '[' || c == ',' || c == ':') && ++s->marks > TG_JSON_MARKS_MAX)
        return bad(s, s->i, "more values than a document may have", err);
    if (c == '{' || c == '[') {
        if (++s->depth > TG_JSON_DEPTH_MAX)
            return bad(s, s->i, "nested deeper than 16", err);
    } else if ((c == '}' || c == ']') && s->depth > 0) {
        s->depth--;
    } else if (c == 0) {
        return bad(s, s->i, "NUL byte", err);
    }
    s->i++;
    return TG_OK;
}

enum tg_rc tg_json_scan(struct tg_bytes text, const char *what, uint64_t *weight,
                        struct tg_err *err)
{
    struct scan s = {.text = text, .what = what};

    while (s.i < text.n)
        TG_TRY(scan_one(&s, err));
    if (weight != NULL)
        *weight = s.weight;
    return TG_OK;
}

/* ---- jansson without memory ----
 * It tells a failed allocation within a token as a syntax error. Worse, while it gathers a token it
 * ignores that its buffer could not grow: a byte of a name, a string or a number is then missing,
 * and nothing is said. So a text that it refuses is given to it once more, and a tree is held
 * against the text. */

uint64_t tg_json_weight(struct tg_bytes text)
{
    uint64_t weight = 0;

    /* It can't fail where the whole has passed; a weight of 0 would fit no tree that has one. */
    return tg_json_scan(text, "", &weight, NULL) == TG_OK ? weight : 0;
}

static uint64_t weigh(const json_t *j)
{
    uint64_t sum = 0;

    if (json_is_string(j))
        return json_string_length(j);
    if (json_is_integer(j))
        return (uint64_t)json_integer_value(j);
    for (size_t i = 0; i < json_array_size(j); i++)
        sum += weigh(json_array_get(j, i));
    for (void *at = json_object_iter((json_t *)(uintptr_t)j); at != NULL;
         at = json_object_iter_next((json_t *)(uintptr_t)j, at))
        sum += strlen(json_object_iter_key(at)) + weigh(json_object_iter_value(at));
    return sum;
}

bool tg_json_whole(const json_t *root, uint64_t weight)
{
    return weigh(root) == weight;
}

/* NULL: where says why; a place below the first line stands for no memory. */
static json_t *load(struct tg_bytes text, json_error_t *where)
{
    json_t *root = NULL;

    for (int i = 0; root == NULL && i < 2; i++)
        root = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, where);
    return root;
}

enum tg_rc tg_json_parse(struct tg_bytes text, const char *what, json_t **out, struct tg_err *err)
{
    json_error_t where;
    uint64_t weight = 0;
    json_t *root;

    TG_TRY(tg_json_scan(text, what, &weight, err));
    if (text.n == 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: empty", what);
    root = load(text, &where);
    if (root == NULL && (json_error_code(&where) == json_error_out_of_memory || where.line < 1))
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", what);
    if (root == NULL)
        return TG_FAIL(err, TG_E_FORMAT, "%s: line %d, column %d: %s", what, where.line,
                       where.column, where.text);
    if (!tg_json_whole(root, weight)) {
        json_decref(root);
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", what);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return TG_FAIL(err, TG_E_FORMAT, "%s: not a JSON object", what);
    }
    *out = root;
    return TG_OK;
}

enum tg_rc tg_json_check(struct tg_bytes text, const char *what, struct tg_err *err)
{
    TG_AUTO(tg_json_decrefp) json_t *root = NULL;

    return tg_json_parse(text, what, &root, err);
}

enum tg_rc tg_json_has_path(struct tg_bytes text, const char *path, bool *yes, struct tg_err *err)
{
    TG_AUTO(tg_json_decrefp) json_t *root = NULL;
    const json_t *at;

    TG_TRY(tg_json_parse(text, "JSON", &root, err));
    at = root;
    while (at != NULL && path[0] != '\0') {
        size_t n = strcspn(path, ".");

        at = json_is_object(at) ? json_object_getn(at, path, n) : NULL;
        path += n;
        if (path[0] == '.')
            path++;
    }
    *yes = at != NULL;
    return TG_OK;
}
