#include "cli/provenance.h"

#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "codec/json.h"

struct statement {
    const char *type;
    const char *predicate_type;
};

static const struct tg_jfield STATEMENT_FIELDS[] = {
    {.name = "_type",
     .type = TG_JT_STR,
     .off = offsetof(struct statement, type),
     .has_off = SIZE_MAX,
     .min = 1,
     .max = 256 },
    {.name = "predicateType",
     .type = TG_JT_STR,
     .off = offsetof(struct statement, predicate_type),
     .has_off = SIZE_MAX,
     .min = 1,
     .max = 1024},
};

static const struct tg_jschema STATEMENT =
    TG_J_SCHEMA(struct statement, STATEMENT_FIELDS, TG_J_IGNORE_UNKNOWN);

static enum tg_rc load_statement(const char *file, struct tg_buf *text, struct tg_err *err)
{
    static const char type[] = "https://in-toto.io/Statement/";
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct statement s;
    bool subject = false;

    TG_TRY(tg_file_read(file, text, err));
    if (tg_arena_new(8 * CLI_STATEMENT_MAX, &arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_json_decode(&STATEMENT, tg_buf_view(text), file, arena, &s, err));
    TG_TRY(tg_json_has_path(tg_buf_view(text), "subject", &subject, err));
    if (strncmp(s.type, type, sizeof(type) - 1) != 0 || !subject)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: is no in-toto statement (\"_type\" under %s and a \"subject\")", file,
                       type);
    return TG_OK;
}

enum tg_rc cli_provenance_make(const char *statement_file, int64_t now, struct tg_buf *out,
                               struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf statement = TG_BUF_INIT(CLI_STATEMENT_MAX);
    char when[TG_TIME_TEXT];

    if (statement_file != NULL)
        TG_TRY(load_statement(statement_file, &statement, err));
    enum tg_rc rc = tg_time_format(now, when);
    if (rc == TG_OK)
        rc = tg_buf_printf(out,
                           "{\"builder\":{\"name\":\"tensorguard\",\"version\":\"%s\"},"
                           "\"built_at\":\"%s\"%s",
                           TG_VERSION, when, statement.n > 0 ? ",\"statement\":" : "");
    if (rc == TG_OK)
        rc = tg_buf_bytes(out, tg_buf_view(&statement));
    if (rc == TG_OK)
        rc = tg_buf_str(out, "}");
    return rc == TG_OK ? TG_OK : TG_FAIL(err, rc, "provenance: %s", tg_rc_text(rc));
}
