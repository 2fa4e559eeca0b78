/* Result codes and error texts.
 *
 * A fallible function returns TG_RC. The codes are few and named by what the caller can do; the
 * words are in struct tg_err, which the caller owns (fixed size, never allocated, never shared).
 * Crypto primitives take no struct tg_err: they fail silently and alike.
 *
 *     if (size > max)
 *         return TG_FAIL(err, TG_E_LIMIT, "manifest: %" PRIu64 " bytes, at most %" PRIu64, size,
 * max);
 */
#ifndef TG_BASE_ERR_H
#define TG_BASE_ERR_H

#include "base/macros.h"

enum tg_rc {
    TG_OK = 0,
    TG_E_NOMEM,       /* out of memory, or memory could not be locked */
    TG_E_IO,          /* a file, socket, disk or the system failed */
    TG_E_AGAIN,       /* not now: try later */
    TG_E_CLOSED,      /* the other side went away */
    TG_E_TIMEOUT,     /* took too long */
    TG_E_FORMAT,      /* bytes are not what their format says */
    TG_E_AUTH,        /* not authentic: signature, tag, digest, commitment, certificate */
    TG_E_DENIED,      /* authentic, but not allowed */
    TG_E_NOTFOUND,    /* no such thing (file, row, recipient block for this key) */
    TG_E_EXISTS,      /* already there */
    TG_E_LIMIT,       /* over a documented limit */
    TG_E_UNSUPPORTED, /* well formed, but this build or version can't do it */
    TG_E_STATE,       /* not in this state (conflict, wrong order) */
    TG_E_EXPIRED,     /* outside its time of validity */
    TG_E_ROLLBACK,    /* older than what was already accepted */
    TG_E_USAGE,       /* the caller (a person at a command line, a client) asked wrongly */
    TG_E_NOTFORKEY,   /* package or grant has no block for this key */
    TG_E_INTERNAL,    /* a bug, or a library failed where it must not */
    TG_RC_COUNT
};

#define TG_RC TG_MUST_USE enum tg_rc

#define TG_ERR_MAX 1024

/* What went wrong, in words. TG_ERR_INIT is a valid empty value. */
struct tg_err {
    enum tg_rc rc;
    char msg[TG_ERR_MAX];
};

#define TG_ERR_INIT                                                                                \
    {                                                                                              \
        .rc = TG_OK, .msg = { 0 }                                                                  \
    }

/* Set rc and text (cut at TG_ERR_MAX-1). err may be NULL. Text must hold no secret. */
void tg_err_set(struct tg_err *err, enum tg_rc rc, const char *fmt, ...) TG_PRINTF(3, 4);

/* Put "<text>: " before what err says; keeps the code. err may be NULL. */
void tg_err_wrap(struct tg_err *err, const char *fmt, ...) TG_PRINTF(2, 3);

/* Append " (<strerror>)" style errno text: sets "<text>: <strerror(errnum)>". */
void tg_err_errno(struct tg_err *err, enum tg_rc rc, int errnum, const char *fmt, ...)
    TG_PRINTF(4, 5);

/* One table for all: name ("FORMAT"), plain words, exit status (docs/cli.md), HTTP status. */
const char *tg_rc_name(enum tg_rc rc);
const char *tg_rc_text(enum tg_rc rc);
/* `words` where rc is a verdict on bytes (FORMAT, AUTH, DENIED, LIMIT, UNSUPPORTED); otherwise,
 * when memory is out or a library failed, tg_rc_text(rc): the bytes are not to blame. */
const char *tg_rc_verdict(enum tg_rc rc, const char *words);
int tg_rc_exit(enum tg_rc rc);
int tg_rc_http(enum tg_rc rc);
/* @retval TG_RC_COUNT no code has this name */
enum tg_rc tg_rc_from_name(const char *name);

#define TG_FAIL(err, rc, ...) (tg_err_set((err), (rc), __VA_ARGS__), (rc))
#define TG_FAIL_ERRNO(err, rc, ...) (tg_err_errno((err), (rc), errno, __VA_ARGS__), (rc))

#define TG_TRY(x)                                                                                  \
    do {                                                                                           \
        enum tg_rc rc_ = (x);                                                                      \
        if (rc_ != TG_OK)                                                                          \
            return rc_;                                                                            \
    } while (0)

#endif
