/* What a command answers: facts and tables, as aligned text for people or as one JSON object.
 *
 * The calls are the same for both. Between out_row calls facts become the cells of a table. The
 * first failure (memory, a value that is no UTF-8) is kept and returned by cli_out_print, so that
 * callers need no check per line. Text from files and servers is untrusted: control characters and
 * direction overrides are escaped on their way to a terminal. */
#ifndef TG_CLI_OUT_H
#define TG_CLI_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "codec/json.h"

#define CLI_OUT_MAX (64u << 20)

struct cli_out {
    bool json;
    enum tg_rc rc;
    struct tg_buf buf;
    struct tg_buf note; /* one closing line for people, left out of JSON */
    /* the table being filled */
    bool in_table;
    size_t row;
    size_t col;
    size_t cols;
    struct tg_buf cells; /* offsets into text, row by row; the first row is the headings */
    struct tg_buf text;
    bool comma;
};

void cli_out_init(struct cli_out *o, bool json);
void cli_out_done(struct cli_out *o);

/* key names the fact in JSON, label in text. A NULL string is null and "-". */
void cli_out_str(struct cli_out *o, const char *key, const char *label, const char *value);
void cli_out_u64(struct cli_out *o, const char *key, const char *label, uint64_t value);
void cli_out_size(struct cli_out *o, const char *key, const char *label, uint64_t bytes);
void cli_out_bool(struct cli_out *o, const char *key, const char *label, bool value);
/* Unix seconds; 0 is null and "-". */
void cli_out_time(struct cli_out *o, const char *key, const char *label, int64_t t);
/* Lower-case hex. */
void cli_out_hex(struct cli_out *o, const char *key, const char *label, struct tg_bytes v);
/* Text that already is JSON: kept in JSON, shown indented for people. */
void cli_out_raw(struct cli_out *o, const char *key, const char *label, struct tg_bytes json);
/* Strings joined with ", " for people, an array in JSON. */
void cli_out_strs(struct cli_out *o, const char *key, const char *label, const char *const *v,
                  size_t n);

/* Every field of a document, at the present level. JSON only. */
void cli_out_document(struct cli_out *o, const struct tg_jschema *schema, const void *doc);

/* An array of records. title may be NULL. Without rows people see `empty`, if it is not
 * NULL. */
void cli_out_table(struct cli_out *o, const char *key, const char *title);
void cli_out_row(struct cli_out *o);
void cli_out_table_end(struct cli_out *o, const char *empty);

/* An empty line for people. */
void cli_out_blank(struct cli_out *o);
/* A closing sentence for people only. */
void cli_out_note(struct cli_out *o, const char *fmt, ...) TG_PRINTF(2, 3);

/* Write everything to stdout. */
TG_RC cli_out_print(struct cli_out *o, struct tg_err *err);

#endif
