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

#endif
