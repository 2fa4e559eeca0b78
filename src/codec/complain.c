#include "codec/complain.h"

#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "codec/json.h"
#include "codec/text.h"

#define TEXT_MAX ((size_t)16 * TG_ERR_MAX) /* each byte may be escaped, and that for JSON again */

static const char *words(const struct tg_err *err)
{
    return err->msg[0] != '\0' ? err->msg : tg_rc_text(err->rc);
}

/* Names of files need not be UTF-8, and the end of a long message may be cut within a character:
 * then it is escaped as for a terminal. */
static TG_RC message(const struct tg_err *err, struct tg_buf *out)
{
    TG_AUTO(tg_buf_done) struct tg_buf escaped = TG_BUF_INIT(TEXT_MAX);
    struct tg_bytes text = tg_bytes_str(words(err));

    if (!tg_utf8_ok(text)) {
        TG_TRY(tg_text_escape(&escaped, text));
        text = tg_buf_view(&escaped);
    }
    return tg_json_quote(out, text);
}

enum tg_rc tg_complain_members(const struct tg_err *err, struct tg_buf *out)
{
    TG_TRY(tg_buf_printf(out, "\"error\":\"%s\",\"exit\":%d,\"message\":", tg_rc_name(err->rc),
                         tg_rc_exit(err->rc)));
    return message(err, out);
}

void tg_complain_json(const struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf line = TG_BUF_INIT(TEXT_MAX);
    enum tg_rc rc = tg_buf_str(&line, "{");

    if (rc == TG_OK)
        rc = tg_complain_members(err, &line);
    if (rc == TG_OK)
        rc = tg_buf_str(&line, "}\n");
    (void)fflush(stdout); /* what was said before comes before */
    if (rc == TG_OK)
        (void)!tg_fd_write(STDOUT_FILENO, "standard output", line.data, line.n, NULL);
    else /* no memory for the words: those of the code need none */
        (void)dprintf(STDOUT_FILENO, "{\"error\":\"%s\",\"exit\":%d,\"message\":\"%s\"}\n",
                      tg_rc_name(err->rc), tg_rc_exit(err->rc), tg_rc_text(err->rc));
}

void tg_complain(const char *program, const char *verb, bool json, const struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf line = TG_BUF_INIT(TEXT_MAX);

    if (tg_text_escape(&line, tg_bytes_str(words(err))) != TG_OK)
        tg_buf_clear(&line);
    (void)fprintf(stderr, "%s%s%s: %s\n", program, verb[0] != '\0' ? " " : "", verb,
                  line.n > 0 ? tg_buf_cstr(&line) : tg_rc_text(err->rc));
    if (json)
        tg_complain_json(err);
}
