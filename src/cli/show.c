#include "cli/show.h"

#include <string.h>

#include "wire/access.h"
#include "wire/deploy.h"
#include "wire/fleet.h"
#include "wire/package.h"

#define SAME_SHAPE(type)                                                                           \
    _Static_assert(sizeof(struct type) == sizeof(struct cli_page) &&                               \
                       offsetof(struct type, items) == offsetof(struct cli_page, items) &&         \
                       offsetof(struct type, next) == offsetof(struct cli_page, next),             \
                   "a wire list has the shape of cli_page")
SAME_SHAPE(tg_wire_fleets);
SAME_SHAPE(tg_wire_devices);
SAME_SHAPE(tg_wire_kem_keys);
SAME_SHAPE(tg_wire_enrolment_tokens);
SAME_SHAPE(tg_wire_publishers);
SAME_SHAPE(tg_wire_packages);
SAME_SHAPE(tg_wire_grants);
SAME_SHAPE(tg_wire_deployments);
SAME_SHAPE(tg_wire_tokens);
SAME_SHAPE(tg_wire_audit);

/* ---- one field ---- */

/* The row of the schema for a dotted name, and *doc moved to the struct it belongs to. */
static const struct tg_jfield *find(const struct tg_jschema *schema, const char *name,
                                    const char **doc)
{
    size_t n = strcspn(name, ".");

    for (size_t i = 0; i < schema->n; i++) {
        const struct tg_jfield *f = &schema->fields[i];
        if (strlen(f->name) != n || strncmp(f->name, name, n) != 0)
            continue;
        if (name[n] == 0)
            return f;
        *doc += f->off;
        return f->type == TG_JT_OBJ ? find(f->sub.schema, name + n + 1, doc) : NULL;
    }
    return NULL;
}

static void show_hex(struct cli_out *o, const struct cli_col *c, const uint8_t *p, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || p[i] != 0;
    if (!any)
        cli_out_str(o, c->field, c->label, NULL);
    else
        cli_out_hex(o, c->field, c->label,
                    tg_bytes_make(p, c->how == CLI_COL_SHORT && n > 6 ? 6 : n));
}

static void show_str(struct cli_out *o, const struct cli_col *c, const char *s)
{
    char cut[13] = {0};

    if (s == NULL || s[0] == 0) {
        cli_out_str(o, c->field, c->label, NULL);
    } else if (c->how == CLI_COL_SHORT && strlen(s) > sizeof(cut) - 1) {
        memcpy(cut, s, sizeof(cut) - 1);
        cli_out_str(o, c->field, c->label, cut);
    } else {
        cli_out_str(o, c->field, c->label, s);
    }
}

static void show_field(struct cli_out *o, const struct cli_col *c, const struct tg_jfield *f,
                       const char *doc)
{
    const void *at = doc + f->off;

    switch (f->type) {
    case TG_JT_STR:
        show_str(o, c, *(const char *const *)at);
        return;
    case TG_JT_U64:
        if (c->how == CLI_COL_SIZE)
            cli_out_size(o, c->field, c->label, *(const uint64_t *)at);
        else
            cli_out_u64(o, c->field, c->label, *(const uint64_t *)at);
        return;
    case TG_JT_BOOL:
        cli_out_bool(o, c->field, c->label, *(const bool *)at);
        return;
    case TG_JT_TIME:
        cli_out_time(o, c->field, c->label, *(const int64_t *)at);
        return;
    case TG_JT_HEX:
    case TG_JT_FIXED:
        show_hex(o, c, at, (size_t)f->max);
        return;
    case TG_JT_ENUM:
        cli_out_str(o, c->field, c->label, f->sub.names[*(const int *)at]);
        return;
    case TG_JT_STRS: {
        const struct tg_jlist *l = at;
        if (l->n == 0 && c->how == CLI_COL_LIMIT)
            cli_out_str(o, c->field, c->label, "all");
        else
            cli_out_strs(o, c->field, c->label, l->items, l->n);
        return;
    }
    case TG_JT_BYTES:
    case TG_JT_OBJ:
    case TG_JT_OBJS:
    case TG_JT_MAP:
    case TG_JT_RAW:
        break;
    }
    cli_out_str(o, c->field, c->label, "(see --json)");
}

/* A heading in capitals, as the label of a line. */
static const char *line_label(const char *label, char out[64])
{
    size_t n = 0;

    for (; label[n] != 0 && n < 63; n++) {
        if (label[n] >= 'a' && label[n] <= 'z')
            return label;
        out[n] = label[n] >= 'A' && label[n] <= 'Z' ? (char)(label[n] - 'A' + 'a') : label[n];
    }
    out[n] = 0;
    return out;
}

static void show_cols(struct cli_out *o, const struct tg_jschema *schema, const void *doc,
                      struct cli_cols cols)
{
    for (size_t i = 0; i < cols.n; i++) {
        const char *at = doc;
        const struct tg_jfield *f = find(schema, cols.v[i].field, &at);
        struct cli_col col = cols.v[i];
        char label[64];
        if (!o->in_table)
            col.label = line_label(col.label, label);
        if (f != NULL)
            show_field(o, &col, f, at);
        else
            cli_out_str(o, col.field, col.label, NULL);
    }
}

/* ---- documents and lists ---- */

void cli_show_document(struct cli_out *o, const struct tg_jschema *schema, const void *doc,
                       struct cli_cols cols)
{
    if (o->json)
        cli_out_document(o, schema, doc);
    else
        show_cols(o, schema, doc, cols);
}

void cli_show_list(struct cli_out *o, const struct cli_list_look *look, const struct tg_jlist *list)
{
    const char *items = list->items;

    cli_out_table(o, look->key, NULL);
    for (size_t i = 0; i < list->n; i++) {
        cli_out_row(o);
        cli_show_document(o, look->item, items + i * look->item->size, look->cols);
    }
    cli_out_table_end(o, look->empty);
}

static enum tg_rc append(struct cli_api *api, struct tg_jlist *all, const struct tg_jlist *page,
                         size_t item_size, struct tg_err *err)
{
    char *v = tg_arena_alloc(api->arena, all->n + page->n, item_size);

    if (v == NULL)
        return TG_FAIL(err, TG_E_LIMIT, "the platform's list is too long to be shown at once");
    if (all->n > 0)
        memcpy(v, all->items, all->n * item_size);
    if (page->n > 0)
        memcpy(v + all->n * item_size, page->items, page->n * item_size);
    all->items = v;
    all->n += page->n;
    return TG_OK;
}

enum tg_rc cli_api_list(struct cli_api *api, const char *target,
                        const struct tg_jschema *page_schema, size_t item_size,
                        struct tg_jlist *out, struct tg_err *err)
{
    struct tg_jlist all = {0};
    struct cli_page page = {0};

    do {
        TG_AUTO(tg_buf_done) struct tg_buf at = TG_BUF_INIT(TG_HTTP_TARGET_MAX);
        enum tg_rc rc =
            tg_buf_printf(&at, "%s%climit=1000", target, strchr(target, '?') != NULL ? '&' : '?');
        if (rc == TG_OK && page.next != NULL)
            rc = tg_buf_str(&at, "&after=");
        if (rc == TG_OK && page.next != NULL)
            rc = tg_http_encode(&at, page.next);
        if (rc != TG_OK)
            return TG_FAIL(err, rc, "%s: too long", target);
        struct cli_call call = {
            .target = tg_buf_cstr(&at), .answer_schema = page_schema, .answer = &page};
        page = (struct cli_page){0};
        TG_TRY(cli_api_call(api, &call, err));
        TG_TRY(append(api, &all, &page.items, item_size, err));
    } while (page.next != NULL && page.next[0] != 0 && page.items.n > 0);
    *out = all;
    return TG_OK;
}
