/* Showing wire documents: tables of chosen fields for people, the whole document in JSON. */
#ifndef TG_CLI_SHOW_H
#define TG_CLI_SHOW_H

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "codec/json.h"

/* One column or line: a field of the document ("model.name" for a nested one) and what people call
 * it. How it looks follows from its type in the schema. */
struct cli_col {
    const char *field;
    const char *label;

    enum {
        CLI_COL_PLAIN,
        CLI_COL_SIZE,
        CLI_COL_SHORT, /* first 12 characters */
        CLI_COL_LIMIT  /* a list that limits: an empty one says "all" */
    } how;
};

struct cli_cols {
    const struct cli_col *v;
    size_t n;
};

#define CLI_COLS(table) ((struct cli_cols){.v = (table), .n = TG_ARRAY_LEN(table)})

/* A whole document: lines for people, its fields at the top level in JSON. */
void cli_show_document(struct cli_out *o, const struct tg_jschema *schema, const void *doc,
                       struct cli_cols cols);

/* How a kind of list looks. */
struct cli_list_look {
    const char *key; /* in JSON */
    const struct tg_jschema *item;
    struct cli_cols cols;
    const char *empty; /* what people see without elements */
};

void cli_show_list(struct cli_out *o, const struct cli_list_look *look,
                   const struct tg_jlist *list);

/* Every wire list has this shape. */
struct cli_page {
    struct tg_jlist items;
    const char *next;
};

/* Read a list to its end, page by page. target: without "after"; it may hold a query already.
 * item_size: sizeof an element. The elements live in api->arena. */
TG_RC cli_api_list(struct cli_api *api, const char *target, const struct tg_jschema *page_schema,
                   size_t item_size, struct tg_jlist *out, struct tg_err *err);

#endif
