#include "client/client_internal.h"

static const char *const names[] = {"OK",          "NOMEM",  "IO",     "AGAIN",    "CLOSED",
                                    "TIMEOUT",     "FORMAT", "DENIED", "NOTFOUND", "LIMIT",
                                    "UNSUPPORTED", "STATE",  "USAGE",  "CHANGED",  "INTERNAL"};

/* Codes that a program can't tell apart anyway become one. */
static const enum tg_status statuses[TG_RC_COUNT] = {
    [TG_OK] = TG_STATUS_OK,
    [TG_E_NOMEM] = TG_STATUS_NOMEM,
    [TG_E_IO] = TG_STATUS_IO,
    [TG_E_AGAIN] = TG_STATUS_AGAIN,
    [TG_E_CLOSED] = TG_STATUS_CLOSED,
    [TG_E_TIMEOUT] = TG_STATUS_TIMEOUT,
    [TG_E_FORMAT] = TG_STATUS_FORMAT,
    [TG_E_AUTH] = TG_STATUS_DENIED,
    [TG_E_DENIED] = TG_STATUS_DENIED,
    [TG_E_NOTFOUND] = TG_STATUS_NOTFOUND,
    [TG_E_EXISTS] = TG_STATUS_STATE,
    [TG_E_LIMIT] = TG_STATUS_LIMIT,
    [TG_E_UNSUPPORTED] = TG_STATUS_UNSUPPORTED,
    [TG_E_STATE] = TG_STATUS_STATE,
    [TG_E_EXPIRED] = TG_STATUS_CHANGED, /* our own use: the model has other tensors */
    [TG_E_ROLLBACK] = TG_STATUS_STATE,
    [TG_E_USAGE] = TG_STATUS_USAGE,
    [TG_E_NOTFORKEY] = TG_STATUS_DENIED,
    [TG_E_INTERNAL] = TG_STATUS_INTERNAL,
};

const char *tg_status_name(enum tg_status s)
{
    return (unsigned)s < TG_ARRAY_LEN(names) ? names[s] : "?";
}

const char *tg_library_version(void)
{
    return TG_VERSION;
}

enum tg_status tg_error_say(struct tg_error *to, enum tg_status s, const char *text)
{
    if (to != NULL) {
        to->status = s;
        tg_native_text(to->text, sizeof(to->text), text);
    }
    return s;
}

enum tg_status tg_error_out(const struct tg_err *from, struct tg_error *to)
{
    return tg_error_say(to, statuses[from->rc], from->msg);
}
