#include "agent/outbox.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"

#define OUTBOX_FILE_MAX (512 * 1024)

struct item_doc {
    uint64_t seq;
    const char *deployment_id;
    int state;
    const char *code, *reason;
    bool handover;
};

static const struct tg_jfield item_fields[] = {
    TG_J_U64(struct item_doc, seq, 1, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_STR(struct item_doc, deployment_id, 1, TG_ID_TEXT - 1, TG_J_REQ),
    TG_J_ENUM(struct item_doc, state, tg_update_state_names, TG_J_REQ),
    TG_J_STR(struct item_doc, code, 0, TG_CODE_TEXT - 1, TG_J_REQ),
    TG_J_STR(struct item_doc, reason, 0, TG_REASON_TEXT - 1, TG_J_REQ),
    TG_J_BOOL(struct item_doc, handover, TG_J_SKIP0),
};
static const struct tg_jschema item_schema =
    TG_J_SCHEMA(struct item_doc, item_fields, TG_J_REFUSE_UNKNOWN);

struct outbox_doc {
    uint64_t last_seq;
    struct tg_jlist reports;
};
static const struct tg_jfield outbox_fields[] = {
    TG_J_U64(struct outbox_doc, last_seq, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_OBJS(struct outbox_doc, reports, &item_schema, 0, TG_OUTBOX_MAX, TG_J_REQ),
};
static const struct tg_jschema outbox_schema =
    TG_J_SCHEMA(struct outbox_doc, outbox_fields, TG_J_REFUSE_UNKNOWN);

static void item_from(const struct item_doc *d, struct tg_outbox_item *out)
{
    *out = (struct tg_outbox_item){
        .seq = d->seq, .state = (enum tg_update_state)d->state, .handover = d->handover};
    TG_TEXT_SET(out->deployment_id, d->deployment_id);
    TG_TEXT_SET(out->code, d->code);
    TG_TEXT_SET(out->reason, d->reason);
}

TG_RC tg_outbox_load(const struct tg_state *s, struct tg_outbox *out, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "outbox.json"));
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(2 * OUTBOX_FILE_MAX, &arena));
    struct tg_buf buf = TG_BUF_INIT(OUTBOX_FILE_MAX);
    struct outbox_doc d = {0};
    enum tg_rc rc = tg_file_read(path, &buf, err);
    if (rc == TG_OK)
        rc = tg_json_decode(&outbox_schema, tg_buf_view(&buf), path, arena, &d, err);
    tg_buf_done(&buf);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    memset(out, 0, sizeof *out);
    out->last_seq = d.last_seq;
    const struct item_doc *items = d.reports.items;
    for (size_t i = 0; i < d.reports.n; i++)
        item_from(&items[i], &out->items[out->n++]);
    return TG_OK;
}

static TG_RC save(const struct tg_state *s, const struct tg_outbox *o, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, path, err, "outbox.json"));
    struct item_doc items[TG_OUTBOX_MAX];
    for (size_t i = 0; i < o->n; i++) {
        const struct tg_outbox_item *it = &o->items[i];
        items[i] = (struct item_doc){it->seq,  it->deployment_id, (int)it->state,
                                     it->code, it->reason,        it->handover};
    }
    struct outbox_doc d = {
        .last_seq = o->last_seq, .reports = {.items = items, .n = o->n}
    };
    struct tg_buf text = TG_BUF_INIT(OUTBOX_FILE_MAX);
    enum tg_rc rc = tg_json_encode(&outbox_schema, &d, &text, err);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&text), 0600, true, err);
    tg_buf_done(&text);
    return rc;
}

static void remove_at(struct tg_outbox *o, size_t i)
{
    memmove(&o->items[i], &o->items[i + 1], (o->n - i - 1) * sizeof o->items[0]);
    o->n--;
}

/* Which one to lose when the queue is full: the oldest that a later one about the same deployment
 * overtakes, else the oldest. (Accounts of hand-overs overtake nothing.) */
static size_t least_missed(const struct tg_outbox *o)
{
    for (size_t i = 0; i < o->n; i++)
        for (size_t j = i + 1; j < o->n && !o->items[i].handover; j++)
            if (!o->items[j].handover &&
                strcmp(o->items[i].deployment_id, o->items[j].deployment_id) == 0)
                return i;
    return 0;
}

/* Change a copy, write it, and only then the caller's. */
static TG_RC save_and_set(const struct tg_state *s, struct tg_outbox *o, struct tg_outbox *next,
                          struct tg_err *err)
{
    enum tg_rc rc = save(s, next, err);
    if (rc == TG_OK)
        memcpy(o, next, sizeof *o);
    tg_free(next);
    return rc;
}

static struct tg_outbox *copy_of(const struct tg_outbox *o)
{
    struct tg_outbox *c = tg_alloc(sizeof *c);
    if (c)
        memcpy(c, o, sizeof *c);
    return c;
}

TG_RC tg_outbox_add(const struct tg_state *s, struct tg_outbox *o,
                    const struct tg_outbox_item *item, struct tg_err *err)
{
    struct tg_outbox *next = copy_of(o);
    if (!next)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < next->n; i++) {
        const struct tg_outbox_item *old = &next->items[i];
        if (!item->handover && !old->handover && old->state == item->state &&
            strcmp(old->deployment_id, item->deployment_id) == 0) {
            remove_at(next, i);
            break;
        }
    }
    if (next->n == TG_OUTBOX_MAX)
        remove_at(next, least_missed(next));
    next->items[next->n] = *item;
    next->items[next->n++].seq = ++next->last_seq;
    return save_and_set(s, o, next, err);
}

const struct tg_outbox_item *tg_outbox_first(const struct tg_outbox *o)
{
    return o->n ? &o->items[0] : NULL;
}

TG_RC tg_outbox_drop(const struct tg_state *s, struct tg_outbox *o, uint64_t seq,
                     struct tg_err *err)
{
    for (size_t i = 0; i < o->n; i++) {
        if (o->items[i].seq != seq)
            continue;
        struct tg_outbox *next = copy_of(o);
        if (!next)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        remove_at(next, i);
        return save_and_set(s, o, next, err);
    }
    return TG_OK;
}

TG_RC tg_outbox_raise(const struct tg_state *s, struct tg_outbox *o, uint64_t seq,
                      struct tg_err *err)
{
    if (seq <= o->last_seq && (o->n == 0 || o->items[0].seq > seq))
        return TG_OK;
    if (seq > TG_JSON_INT_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "the platform's sequence number is out of all reason");
    struct tg_outbox *next = copy_of(o);
    if (!next)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (seq > next->last_seq)
        next->last_seq = seq;
    for (size_t i = 0; i < next->n; i++)
        if (next->items[i].seq <= seq)
            next->items[i].seq = ++next->last_seq;
    return save_and_set(s, o, next, err);
}
