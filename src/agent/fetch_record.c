#include "agent/fetch_record.h"

#include <stdio.h>
#include <string.h>

#include "agent/state.h"
#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"

#define RECORD_MAX 16384

static const struct tg_jfield span_fields[] = {
    TG_J_U64(struct tg_span, off, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_span, end, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
static const struct tg_jschema span_schema =
    TG_J_SCHEMA(struct tg_span, span_fields, TG_J_REFUSE_UNKNOWN);

struct record {
    const char *etag;
    uint64_t size;
    struct tg_jlist have;
};
static const struct tg_jfield record_fields[] = {
    TG_J_STR(struct record, etag, 1, 128, TG_J_REQ),
    TG_J_U64(struct record, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_OBJS(struct record, have, &span_schema, 0, TG_SPANS_MAX, TG_J_REQ),
};
static const struct tg_jschema record_schema =
    TG_J_SCHEMA(struct record, record_fields, TG_J_REFUSE_UNKNOWN);

static void record_path(const char *part, char out[TG_STATE_PATH_MAX + 8])
{
    (void)snprintf(out, TG_STATE_PATH_MAX + 8, "%s.tag", part);
}

TG_RC tg_fetch_record_load(const char *part, const char *etag, uint64_t size, struct tg_spans *out)
{
    char path[TG_STATE_PATH_MAX + 8];
    struct record r = {0};
    struct tg_spans have = {.n = 0};
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(RECORD_MAX);
    record_path(part, path);
    TG_TRY(tg_file_read(path, &text, NULL));
    TG_TRY(tg_arena_new(4 * RECORD_MAX, &arena));
    TG_TRY(tg_json_decode(&record_schema, tg_buf_view(&text), path, arena, &r, NULL));
    const struct tg_span *v = r.have.items;
    for (; have.n < r.have.n; have.n++)
        have.v[have.n] = v[have.n];
    if (strcmp(r.etag, etag) != 0 || r.size != size || !tg_spans_valid(&have, size))
        return TG_E_FORMAT;
    *out = have;
    return TG_OK;
}

TG_RC tg_fetch_record_save(const char *part, const char *etag, uint64_t size,
                           const struct tg_spans *have, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX + 8];
    struct tg_spans copy = *have; /* lists are not const */
    const struct record r = {
        .etag = etag, .size = size, .have = {copy.v, copy.n}
    };
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(RECORD_MAX);
    record_path(part, path);
    TG_TRY(tg_json_encode(&record_schema, &r, &text, err));
    return tg_file_write(path, tg_buf_view(&text), 0600, true, err);
}
