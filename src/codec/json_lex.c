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
    unsigned marks; /* { [ , : so far: at least one for each value */
    const char *what;
};

static enum tg_rc bad(const struct scan *s, size_t at, const char *why, struct tg_err *err)
{
    return TG_FAIL(err, TG_E_FORMAT, "%s: offset %zu: %s", s->what, at, why);
}

/* text.p[i] is the opening quote; leaves i after the closing one. */
static enum tg_rc skip_string(struct scan *s, struct tg_err *err)
{
    size_t start = s->i++;

    while (s->i < s->text.n) {
        uint8_t c = s->text.p[s->i++];

        if (c == '"')
            return TG_OK;
        if (c == '\\')
            s->i++;
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

enum tg_rc tg_json_scan(struct tg_bytes text, const char *what, struct tg_err *err)
{
    struct scan s = {.text = text, .what = what};

    while (s.i < text.n)
        TG_TRY(scan_one(&s, err));
    return TG_OK;
}

enum tg_rc tg_json_parse(struct tg_bytes text, const char *what, json_t **out, struct tg_err *err)
{
    json_error_t where;
    json_t *root;

    TG_TRY(tg_json_scan(text, what, err));
    if (text.n == 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: empty", what);
    root = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL && json_error_code(&where) == json_error_out_of_memory)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", what);
    if (root == NULL)
        return TG_FAIL(err, TG_E_FORMAT, "%s: line %d, column %d: %s", what, where.line,
                       where.column, where.text);
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
