/* A long array at the top of a document, entry by entry: a tree of 65,000 small objects would take
 * twenty times the text. Whatever is wrong with the text is left to the ordinary parser to say. */
#include <string.h>

#include "codec/json_internal.h"

static size_t skip_space(struct tg_bytes text, size_t i)
{
    while (i < text.n &&
           (text.p[i] == ' ' || text.p[i] == '\t' || text.p[i] == '\n' || text.p[i] == '\r'))
        i++;
    return i;
}

/* From an opening quote to behind the closing one. */
static size_t skip_string(struct tg_bytes text, size_t i)
{
    for (i++; i < text.n && text.p[i] != '"'; i++)
        if (text.p[i] == '\\')
            i++;
    return i + 1;
}

/* list->from is set: find the end, and count the commas between entries. */
static void list_measure(struct tg_bytes text, struct tg_json_list *list)
{
    unsigned depth = 0;
    size_t commas = 0;

    for (size_t i = list->from; i < text.n; i++) {
        uint8_t c = text.p[i];

        if (c == '"') {
            i = skip_string(text, i) - 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c == ']') {
            list->to = i;
            list->n = skip_space(text, list->from) == i ? 0 : commas + 1;
            return;
        } else if (c == ',' && depth == 0) {
            commas++;
        }
    }
}

struct tg_json_list tg_json_list_find(struct tg_bytes text, const char *name)
{
    struct tg_json_list list = {0, 0, 0};
    struct tg_bytes want = tg_bytes_str(name);
    unsigned depth = 0;

    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i];

        if (c == '{' || c == '[')
            depth++;
        if ((c == '}' || c == ']') && depth > 0)
            depth--;
        if (c != '"')
            continue;
        size_t end = skip_string(text, i), colon = skip_space(text, end);
        size_t value = skip_space(text, colon + 1);
        struct tg_bytes key = tg_bytes_sub(text, i + 1, end > i + 2 ? end - i - 2 : 0);

        i = end - 1;
        if (depth != 1 || value >= text.n || text.p[colon] != ':' || text.p[value] != '[' ||
            !tg_bytes_eq(key, want))
            continue;
        list.from = value + 1;
        list_measure(text, &list);
        break;
    }
    return list;
}

/* The text without the list's entries, read in order. */
struct reader {
    struct tg_bytes part[2];
};

static size_t read_on(void *to, size_t n, void *ctx)
{
    struct reader *r = ctx;
    struct tg_bytes *from = r->part[0].n > 0 ? &r->part[0] : &r->part[1];

    if (n > from->n)
        n = from->n;
    if (n > 0)
        memcpy(to, from->p, n);
    *from = tg_bytes_sub(*from, n, from->n);
    return n;
}

json_t *tg_json_parse_without(struct tg_bytes text, const struct tg_json_list *list)
{
    struct reader r = {
        {tg_bytes_sub(text, 0, list->from), tg_bytes_sub(text, list->to, text.n)}
    };
    json_t *root = json_load_callback(read_on, &r, JSON_REJECT_DUPLICATES, NULL);

    if (json_is_object(root) &&
        tg_json_whole(root, tg_json_weight(tg_bytes_sub(text, 0, list->from)) +
                                tg_json_weight(tg_bytes_sub(text, list->to, text.n - list->to))))
        return root;
    json_decref(root);
    return NULL;
}

json_t *tg_json_list_next(struct tg_bytes text, const struct tg_json_list *list, size_t *at)
{
    json_error_t where;
    size_t from = skip_space(text, *at);
    struct tg_bytes left = tg_bytes_sub(text, from, list->to > from ? list->to - from : 0);
    json_t *entry =
        json_loadb((const char *)left.p, left.n,
                   JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK | JSON_DECODE_ANY, &where);
    if (entry == NULL)
        return NULL;
    if (!tg_json_whole(entry, tg_json_weight(tg_bytes_sub(left, 0, (size_t)where.position)))) {
        json_decref(entry);
        return NULL;
    }
    size_t next = skip_space(text, from + (size_t)where.position);
    if (next < list->to && text.p[next] == ',' && skip_space(text, next + 1) < list->to) {
        *at = next + 1;
        return entry;
    }
    *at = list->to;
    if (next == list->to)
        return entry;
    json_decref(entry); /* something else than a comma follows, or a comma and nothing */
    return NULL;
}
