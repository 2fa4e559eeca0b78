#include "cli/out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "codec/text.h"

enum { LABEL_WIDTH = 18, CELL_GAP = 2 };

void cli_out_init(struct cli_out *o, bool json)
{
    *o = (struct cli_out){.json = json,
                          .buf = TG_BUF_INIT(CLI_OUT_MAX),
                          .note = TG_BUF_INIT(65536),
                          .cells = TG_BUF_INIT(CLI_OUT_MAX),
                          .text = TG_BUF_INIT(CLI_OUT_MAX)};
}

void cli_out_done(struct cli_out *o)
{
    tg_buf_done(&o->buf);
    tg_buf_done(&o->note);
    tg_buf_done(&o->cells);
    tg_buf_done(&o->text);
}

static void keep(struct cli_out *o, enum tg_rc rc)
{
    if (o->rc == TG_OK)
        o->rc = rc;
}

/* Columns a text takes on a terminal: code points, which is right for what the tables hold. */
static size_t width(const char *s)
{
    size_t w = 0;
    for (; *s != 0; s++)
        w += ((uint8_t)*s & 0xc0) != 0x80;
    return w;
}

/* ---- one fact ---- */

static void json_key(struct cli_out *o, const char *key)
{
    if (o->comma)
        keep(o, tg_buf_str(&o->buf, ","));
    o->comma = true;
    keep(o, tg_json_quote(&o->buf, tg_bytes_str(key)));
    keep(o, tg_buf_str(&o->buf, ":"));
}

static void cell(struct cli_out *o, const char *s)
{
    uint64_t off = o->text.n;
    keep(o, tg_buf_append(&o->cells, &off, sizeof(off)));
    keep(o, tg_buf_append(&o->text, s, strlen(s) + 1));
}

/* Text form of a fact: a line, or a cell; text is already safe. */
static void text_fact(struct cli_out *o, const char *label, const char *text)
{
    if (!o->in_table) {
        if (label[0] != 0)
            keep(o, tg_buf_printf(&o->buf, "%-*s  %s\n", LABEL_WIDTH, label, text));
        else
            keep(o, tg_buf_printf(&o->buf, "%s\n", text));
        return;
    }
    /* Headings come with the first row: cells of row 0 are kept as pairs heading, value. */
    if (o->row == 1)
        cell(o, label);
    cell(o, text);
    o->col++;
}

void cli_out_str(struct cli_out *o, const char *key, const char *label, const char *value)
{
    if (o->json) {
        json_key(o, key);
        keep(o, value == NULL ? tg_buf_str(&o->buf, "null")
                              : tg_json_quote(&o->buf, tg_bytes_str(value)));
        return;
    }
    struct tg_buf b = TG_BUF_INIT(CLI_OUT_MAX);
    keep(o, tg_text_escape(&b, tg_bytes_str(value == NULL ? "-" : value)));
    text_fact(o, label, tg_buf_cstr(&b));
    tg_buf_done(&b);
}

static void plain(struct cli_out *o, const char *key, const char *label, const char *json,
                  const char *text)
{
    if (o->json) {
        json_key(o, key);
        keep(o, tg_buf_str(&o->buf, json));
    } else {
        text_fact(o, label, text);
    }
}

void cli_out_u64(struct cli_out *o, const char *key, const char *label, uint64_t value)
{
    char s[24];
    (void)snprintf(s, sizeof(s), "%" PRIu64, value);
    plain(o, key, label, s, s);
}

void cli_out_size(struct cli_out *o, const char *key, const char *label, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    char exact[24];
    char human[64];
    (void)snprintf(exact, sizeof(exact), "%" PRIu64, bytes);
    double v = (double)bytes;
    size_t u = 0;
    for (; v >= 1024 && u + 1 < TG_ARRAY_LEN(units); u++)
        v /= 1024;
    if (u == 0)
        (void)snprintf(human, sizeof(human), "%s B", exact);
    else
        (void)snprintf(human, sizeof(human), "%.1f %s", v, units[u]);
    plain(o, key, label, exact, human);
}

void cli_out_bool(struct cli_out *o, const char *key, const char *label, bool value)
{
    plain(o, key, label, value ? "true" : "false", value ? "yes" : "no");
}

void cli_out_time(struct cli_out *o, const char *key, const char *label, int64_t t)
{
    char s[TG_TIME_TEXT];
    bool none = t == 0 || tg_time_format(t, s) != TG_OK;
    cli_out_str(o, key, label, none ? NULL : s);
}

void cli_out_hex(struct cli_out *o, const char *key, const char *label, struct tg_bytes v)
{
    char *s = tg_alloc(2 * v.n + 1);
    if (s == NULL) {
        keep(o, TG_E_NOMEM);
        return;
    }
    tg_hex_encode(v, s);
    cli_out_str(o, key, label, s);
    tg_free(s);
}

void cli_out_raw(struct cli_out *o, const char *key, const char *label, struct tg_bytes json)
{
    if (o->json) {
        json_key(o, key);
        keep(o, tg_buf_bytes(&o->buf, json));
        return;
    }
    struct tg_buf b = TG_BUF_INIT(CLI_OUT_MAX);
    struct tg_buf line = TG_BUF_INIT(CLI_OUT_MAX);
    text_fact(o, label, "");
    keep(o, tg_json_pretty(json, &b, NULL));
    /* Escaped line by line, so that only our own line breaks reach the terminal. */
    for (struct tg_bytes rest = tg_buf_view(&b); rest.n > 0;) {
        const uint8_t *nl = memchr(rest.p, '\n', rest.n);
        size_t n = nl == NULL ? rest.n : (size_t)(nl - rest.p);
        tg_buf_clear(&line);
        keep(o, tg_text_escape(&line, tg_bytes_sub(rest, 0, n)));
        keep(o, tg_buf_printf(&o->buf, "    %s\n", tg_buf_cstr(&line)));
        rest = tg_bytes_sub(rest, n + 1, rest.n);
    }
    tg_buf_done(&b);
    tg_buf_done(&line);
}

void cli_out_strs(struct cli_out *o, const char *key, const char *label, const char *const *v,
                  size_t n)
{
    struct tg_buf b = TG_BUF_INIT(CLI_OUT_MAX);
    for (size_t i = 0; i < n; i++) {
        keep(o, i == 0 ? TG_OK : tg_buf_str(&b, o->json ? "," : ", "));
        keep(o, o->json ? tg_json_quote(&b, tg_bytes_str(v[i]))
                        : tg_text_escape(&b, tg_bytes_str(v[i])));
    }
    if (o->json) {
        json_key(o, key);
        keep(o, tg_buf_printf(&o->buf, "[%s]", tg_buf_cstr(&b)));
    } else {
        text_fact(o, label, n == 0 ? "-" : tg_buf_cstr(&b));
    }
    tg_buf_done(&b);
}

void cli_out_document(struct cli_out *o, const struct tg_jschema *schema, const void *doc)
{
    struct tg_buf b = TG_BUF_INIT(CLI_OUT_MAX);

    keep(o, tg_json_encode(schema, doc, &b, NULL));
    if (o->rc == TG_OK && b.n > 2) {
        if (o->comma)
            keep(o, tg_buf_str(&o->buf, ","));
        o->comma = true;
        keep(o, tg_buf_append(&o->buf, b.data + 1, b.n - 2)); /* without the braces */
    }
    tg_buf_done(&b);
}

/* ---- tables ---- */

void cli_out_table(struct cli_out *o, const char *key, const char *title)
{
    if (o->json) {
        json_key(o, key);
        keep(o, tg_buf_str(&o->buf, "["));
    } else if (title != NULL) {
        keep(o, tg_buf_printf(&o->buf, "%s%s\n", o->buf.n > 0 ? "\n" : "", title));
    }
    o->in_table = true;
    o->row = 0;
    o->col = 0;
    o->cols = 0;
    tg_buf_clear(&o->cells);
    tg_buf_clear(&o->text);
}

void cli_out_row(struct cli_out *o)
{
    if (o->row == 1)
        o->cols = o->col;
    o->row++;
    o->col = 0;
    if (o->json) {
        keep(o, tg_buf_str(&o->buf, o->row > 1 ? "},{" : "{"));
        o->comma = false;
    }
}

/* Cell c of line r (0: headings). Row 1 is stored as heading, value, heading, value ... */
static const char *cell_at(const struct cli_out *o, size_t r, size_t c)
{
    size_t i = r == 0 ? 2 * c : r == 1 ? 2 * c + 1 : (r * o->cols) + c;
    uint64_t off = 0;
    memcpy(&off, o->cells.data + i * sizeof(off), sizeof(off));
    return (const char *)o->text.data + off;
}

static void print_table(struct cli_out *o)
{
    size_t widths[32] = {0};
    size_t cols = o->cols < TG_ARRAY_LEN(widths) ? o->cols : TG_ARRAY_LEN(widths);
    for (size_t r = 0; r <= o->row; r++)
        for (size_t c = 0; c < cols; c++) {
            size_t w = width(cell_at(o, r, c));
            widths[c] = w > widths[c] ? w : widths[c];
        }
    for (size_t r = 0; r <= o->row; r++) {
        for (size_t c = 0; c < cols; c++) {
            const char *s = cell_at(o, r, c);
            size_t pad = c + 1 < cols ? widths[c] - width(s) + CELL_GAP : 0;
            keep(o, tg_buf_printf(&o->buf, "%s%*s", s, (int)pad, ""));
        }
        keep(o, tg_buf_str(&o->buf, "\n"));
    }
}

void cli_out_table_end(struct cli_out *o, const char *empty)
{
    if (o->row == 1)
        o->cols = o->col;
    if (o->json) {
        keep(o, tg_buf_str(&o->buf, o->row > 0 ? "}]" : "]"));
        o->comma = true;
    } else if (o->row == 0 && empty != NULL) {
        keep(o, tg_buf_printf(&o->buf, "%s\n", empty));
    } else if (o->row > 0 && o->rc == TG_OK) {
        print_table(o);
    }
    o->in_table = false;
}

void cli_out_blank(struct cli_out *o)
{
    if (!o->json)
        keep(o, tg_buf_str(&o->buf, "\n"));
}

void cli_out_note(struct cli_out *o, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (line[0] == '\n') /* our own blank line before it */
        keep(o, tg_buf_str(&o->note, "\n"));
    keep(o, tg_text_escape(&o->note, tg_bytes_str(line + (line[0] == '\n'))));
    keep(o, tg_buf_str(&o->note, "\n"));
}

TG_RC cli_out_print(struct cli_out *o, struct tg_err *err)
{
    if (o->rc != TG_OK)
        return TG_FAIL(err, o->rc, "the answer could not be put into words: %s", tg_rc_text(o->rc));
    int bad = 0;
    if (o->json)
        bad = printf("{%s}\n", tg_buf_cstr(&o->buf)) < 0;
    else
        bad = printf("%s%s", tg_buf_cstr(&o->buf), tg_buf_cstr(&o->note)) < 0;
    if (bad || fflush(stdout) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "standard output");
    return TG_OK;
}
