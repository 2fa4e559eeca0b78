#include "base/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct rc_row {
    const char *name;
    const char *text;
    int exit;
    int http;
};

/* Exit statuses are part of the command line's interface: docs/cli.md. */
static const struct rc_row rc_table[TG_RC_COUNT] = {
    [TG_OK] = {"OK",          "ok",                                   0,  200},
    [TG_E_NOMEM] = {"NOMEM",       "out of memory",                        12, 500},
    [TG_E_IO] = {"IO",          "input/output error",                   3,  500},
    [TG_E_AGAIN] = {"AGAIN",       "try again later",                      9,  503},
    [TG_E_CLOSED] = {"CLOSED",      "connection closed",                    3,  502},
    [TG_E_TIMEOUT] = {"TIMEOUT",     "timed out",                            3,  504},
    [TG_E_FORMAT] = {"FORMAT",      "malformed",                            4,  400},
    [TG_E_AUTH] = {"AUTH",        "not authentic",                        5,  401},
    [TG_E_DENIED] = {"DENIED",      "not allowed",                          8,  403},
    [TG_E_NOTFOUND] = {"NOTFOUND",    "not found",                            3,  404},
    [TG_E_EXISTS] = {"EXISTS",      "already exists",                       3,  409},
    [TG_E_LIMIT] = {"LIMIT",       "over a limit",                         10, 413},
    [TG_E_UNSUPPORTED] = {"UNSUPPORTED", "not supported",                        11, 415},
    [TG_E_STATE] = {"STATE",       "not possible now",                     9,  409},
    [TG_E_EXPIRED] = {"EXPIRED",     "outside its time of validity",         7,  403},
    [TG_E_ROLLBACK] = {"ROLLBACK",    "older than what was already accepted", 7,  409},
    [TG_E_USAGE] = {"USAGE",       "usage",                                2,  400},
    [TG_E_NOTFORKEY] = {"NOTFORKEY",   "not for this key",                     6,  403},
    [TG_E_INTERNAL] = {"INTERNAL",    "internal error",                       70, 500},
};

static const struct rc_row *row(enum tg_rc rc)
{
    size_t i = (size_t)rc;

    return &rc_table[i < TG_RC_COUNT ? i : (size_t)TG_E_INTERNAL];
}

const char *tg_rc_name(enum tg_rc rc)
{
    return row(rc)->name;
}

const char *tg_rc_text(enum tg_rc rc)
{
    return row(rc)->text;
}

const char *tg_rc_verdict(enum tg_rc rc, const char *words)
{
    bool verdict = rc == TG_E_FORMAT || rc == TG_E_AUTH || rc == TG_E_DENIED || rc == TG_E_LIMIT ||
                   rc == TG_E_UNSUPPORTED;

    return verdict ? words : tg_rc_text(rc);
}

int tg_rc_exit(enum tg_rc rc)
{
    return row(rc)->exit;
}

int tg_rc_http(enum tg_rc rc)
{
    return row(rc)->http;
}

enum tg_rc tg_rc_from_name(const char *name)
{
    for (size_t i = 0; i < TG_RC_COUNT; i++)
        if (strcmp(rc_table[i].name, name) == 0)
            return (enum tg_rc)i;
    return TG_RC_COUNT;
}

void tg_err_set(struct tg_err *err, enum tg_rc rc, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return;
    err->rc = rc;
    va_start(ap, fmt);
    if (vsnprintf(err->msg, sizeof(err->msg), fmt, ap) < 0)
        err->msg[0] = '\0';
    va_end(ap);
}

void tg_err_wrap(struct tg_err *err, const char *fmt, ...)
{
    char before[TG_ERR_MAX];
    size_t n, rest;
    va_list ap;

    if (err == NULL)
        return;
    va_start(ap, fmt);
    if (vsnprintf(before, sizeof(before) - 2, fmt, ap) < 0)
        before[0] = '\0';
    va_end(ap);
    n = strlen(before);
    before[n++] = ':';
    before[n++] = ' ';
    rest = strlen(err->msg);
    if (rest > sizeof(err->msg) - 1 - n)
        rest = sizeof(err->msg) - 1 - n;
    memmove(err->msg + n, err->msg, rest);
    memcpy(err->msg, before, n);
    err->msg[n + rest] = '\0';
}

void tg_err_errno(struct tg_err *err, enum tg_rc rc, int errnum, const char *fmt, ...)
{
    char reason[128] = "";
    va_list ap;
    int n;

    if (err == NULL)
        return;
    err->rc = rc;
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof(err->msg))
        (void)snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s",
                       strerror_r(errnum, reason, sizeof(reason)));
}
