/* Shared by decode and encode. */
#ifndef TG_CODEC_JSON_INTERNAL_H
#define TG_CODEC_JSON_INTERNAL_H

#include <jansson.h>

#include "codec/json.h"

static inline void tg_json_decrefp(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

/* Parse under the strict rules; the top is an object. Free with json_decref. */
TG_RC tg_json_parse(struct tg_bytes text, const char *what, json_t **out, struct tg_err *err);

/* The weight of a text (see tg_json_scan), or of a part of one, that tg_json_scan has passed. */
uint64_t tg_json_weight(struct tg_bytes text);
/* Has the tree everything that a text of this weight has? jansson loses bytes without a word when
 * memory is out. */
bool tg_json_whole(const json_t *root, uint64_t weight);

/* A long array at the top of a document, so that it need not all be a tree at once: n entries in
 * text[from, to), between the brackets. n == 0: there is none. */
struct tg_json_list {
    size_t from, to, n;
};

/* The array that is the member `name` of the top, its name written without escapes. For text that
 * tg_json_scan has passed; what is no JSON is not found. */
struct tg_json_list tg_json_list_find(struct tg_bytes text, const char *name);
/* The lexical rules alone. *weight, unless NULL: the decoded bytes of all names and strings, and
 * the numbers, added up. */
TG_RC tg_json_scan(struct tg_bytes text, const char *what, uint64_t *weight, struct tg_err *err);
/* As tg_json_parse, but with that array empty. NULL: some error, which tg_json_parse would say. */
json_t *tg_json_parse_without(struct tg_bytes text, const struct tg_json_list *list);
/* The entry that begins at or after *at, in its list; *at moves behind it and the comma. NULL: some
 * error in the text, which tg_json_parse would say. */
json_t *tg_json_list_next(struct tg_bytes text, const struct tg_json_list *list, size_t *at);

#endif
