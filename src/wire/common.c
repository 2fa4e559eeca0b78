#include "wire/common.h"

#include <stdio.h>
#include <string.h>

#include "codec/text.h"

#define URN "urn:tensorguard:problem:"

static const struct tg_jfield problem_fields[] = {
    TG_J_STR(struct tg_wire_problem, type, 1, 256, TG_J_REQ),
    TG_J_STR(struct tg_wire_problem, title, 1, 256, TG_J_REQ),
    TG_J_U64(struct tg_wire_problem, status, 400, 599, TG_J_REQ),
    TG_J_STR(struct tg_wire_problem, detail, 0, 4096, TG_J_SKIP0),
    TG_J_STR(struct tg_wire_problem, code, 1, 32, TG_J_REQ),
    TG_J_STR(struct tg_wire_problem, instance, 1, 64, TG_J_SKIP0),
};
const struct tg_jschema tg_wire_problem =
    TG_J_SCHEMA(struct tg_wire_problem, problem_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_problem_row rows[TG_PROBLEM_COUNT] = {
    [TG_PROBLEM_BAD_REQUEST] = {"bad-request",           "The request is not what this route takes", 400,
                                TG_E_FORMAT                                                                            },
    [TG_PROBLEM_UNAUTHENTICATED] = {"unauthenticated",       "A valid token is needed",                  401, TG_E_AUTH    },
    [TG_PROBLEM_NO_CERTIFICATE] = {"no-certificate",        "A device certificate is needed",           401,
                                TG_E_AUTH                                                                              },
    [TG_PROBLEM_FORBIDDEN] = {"forbidden",             "Not allowed",                              403, TG_E_DENIED  },
    [TG_PROBLEM_CERTIFICATE] = {"certificate",           "The device certificate is not valid",      403,
                                TG_E_EXPIRED                                                                           },
    [TG_PROBLEM_REVOKED] = {"device-revoked",        "The device was revoked",                   403, TG_E_DENIED  },
    [TG_PROBLEM_NOT_FOUND] = {"not-found",             "No such thing",                            404, TG_E_NOTFOUND},
    [TG_PROBLEM_METHOD] = {"method",                "The route does not take this method",      405, TG_E_USAGE   },
    [TG_PROBLEM_CONFLICT] = {"conflict",              "Not possible in this state",               409, TG_E_STATE   },
    [TG_PROBLEM_EXISTS] = {"exists",                "Already there",                            409, TG_E_EXISTS  },
    [TG_PROBLEM_INCOMPLETE] = {"upload-incomplete",     "Parts are missing",                        409, TG_E_STATE   },
    [TG_PROBLEM_SUPERSEDED] = {"update-over",           "This update is over",                      409, TG_E_STATE   },
    [TG_PROBLEM_PRECONDITION] = {"precondition",          "It was changed meanwhile",                 412, TG_E_STATE   },
    [TG_PROBLEM_TOO_LARGE] = {"too-large",             "Over a limit",                             413, TG_E_LIMIT   },
    [TG_PROBLEM_RANGE] = {"range",                 "The range is outside the blob",            416, TG_E_LIMIT   },
    [TG_PROBLEM_DIGEST] = {"digest-mismatch",       "The bytes are not what their digest says", 422,
                                TG_E_AUTH                                                                              },
    [TG_PROBLEM_PACKAGE] = {"package-invalid",       "Not a valid document",                     422, TG_E_FORMAT  },
    [TG_PROBLEM_PUBLISHER] = {"publisher-unknown",     "Not signed by a registered publisher",     422,
                                TG_E_AUTH                                                                              },
    [TG_PROBLEM_NEEDS_PRECONDITION] = {"precondition-required", "If-Match is required",                     428,
                                TG_E_USAGE                                                                             },
    [TG_PROBLEM_RATE] = {"rate",                  "Too many requests",                        429, TG_E_AGAIN   },
    [TG_PROBLEM_INTERNAL] = {"internal",              "The platform failed",                      500, TG_E_INTERNAL},
    [TG_PROBLEM_BUSY] = {"busy",                  "Not now",                                  503, TG_E_AGAIN   },
    [TG_PROBLEM_STORAGE] = {"storage-full",          "The platform has no room",                 507, TG_E_IO      },
};

static const enum tg_problem by_rc[TG_RC_COUNT] = {
    [TG_OK] = TG_PROBLEM_INTERNAL,
    [TG_E_NOMEM] = TG_PROBLEM_BUSY,
    [TG_E_IO] = TG_PROBLEM_INTERNAL,
    [TG_E_AGAIN] = TG_PROBLEM_BUSY,
    [TG_E_CLOSED] = TG_PROBLEM_INTERNAL,
    [TG_E_TIMEOUT] = TG_PROBLEM_BUSY,
    [TG_E_FORMAT] = TG_PROBLEM_BAD_REQUEST,
    [TG_E_AUTH] = TG_PROBLEM_UNAUTHENTICATED,
    [TG_E_DENIED] = TG_PROBLEM_FORBIDDEN,
    [TG_E_NOTFOUND] = TG_PROBLEM_NOT_FOUND,
    [TG_E_EXISTS] = TG_PROBLEM_EXISTS,
    [TG_E_LIMIT] = TG_PROBLEM_TOO_LARGE,
    [TG_E_UNSUPPORTED] = TG_PROBLEM_BAD_REQUEST,
    [TG_E_STATE] = TG_PROBLEM_CONFLICT,
    [TG_E_EXPIRED] = TG_PROBLEM_CONFLICT,
    [TG_E_ROLLBACK] = TG_PROBLEM_CONFLICT,
    [TG_E_USAGE] = TG_PROBLEM_BAD_REQUEST,
    [TG_E_NOTFORKEY] = TG_PROBLEM_CONFLICT,
    [TG_E_INTERNAL] = TG_PROBLEM_INTERNAL,
};

const struct tg_problem_row *tg_problem_row(enum tg_problem p)
{
    return p < TG_PROBLEM_COUNT ? &rows[p] : &rows[TG_PROBLEM_INTERNAL];
}

enum tg_problem tg_problem_of_rc(enum tg_rc rc)
{
    return rc < TG_RC_COUNT ? by_rc[rc] : TG_PROBLEM_INTERNAL;
}

static enum tg_rc rc_of_status(unsigned status)
{
    for (size_t i = 0; i < TG_PROBLEM_COUNT; i++)
        if (rows[i].status == status)
            return rows[i].rc;
    return status >= 500 ? TG_E_AGAIN : TG_E_USAGE;
}

enum tg_rc tg_wire_problem_to_err(unsigned status, struct tg_bytes body, struct tg_err *err)
{
    struct tg_wire_problem p;
    struct tg_err ignored = TG_ERR_INIT;
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;

    if (tg_arena_new(64 << 10, &arena) != TG_OK ||
        tg_json_decode(&tg_wire_problem, body, "problem", arena, &p, &ignored) != TG_OK)
        return TG_FAIL(err, rc_of_status(status), "the platform answered HTTP %u", status);
    enum tg_rc rc = tg_rc_from_name(p.code);
    if (rc == TG_RC_COUNT || rc == TG_OK)
        rc = rc_of_status(status);
    return TG_FAIL(err, rc, "%s%s%s (HTTP %u)", p.title, p.detail != NULL ? ": " : "",
                   p.detail != NULL ? p.detail : "", status);
}

#define DIGEST_PREFIX "sha-256=:"

void tg_wire_digest_format(const uint8_t sha256[TG_WIRE_HASH_LEN], char out[TG_WIRE_DIGEST_TEXT])
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *o = out + sizeof(DIGEST_PREFIX) - 1;

    memcpy(out, DIGEST_PREFIX, sizeof(DIGEST_PREFIX));
    for (size_t i = 0; i < TG_WIRE_HASH_LEN; i += 3) {
        size_t left = TG_WIRE_HASH_LEN - i;
        uint32_t v = (uint32_t)sha256[i] << 16 | (left > 1 ? (uint32_t)sha256[i + 1] << 8 : 0) |
                     (left > 2 ? sha256[i + 2] : 0U);
        *o++ = alphabet[v >> 18];
        *o++ = alphabet[v >> 12 & 63];
        *o++ = left > 1 ? alphabet[v >> 6 & 63] : '=';
        *o++ = left > 2 ? alphabet[v & 63] : '=';
    }
    *o++ = ':';
    *o = '\0';
}

TG_RC tg_wire_digest_parse(const char *text, uint8_t sha256[TG_WIRE_HASH_LEN])
{
    enum { CHARS = 43 }; /* 32 bytes without padding */

    const char *p = text != NULL ? strstr(text, DIGEST_PREFIX) : NULL;
    char url[CHARS];
    uint8_t raw[TG_WIRE_HASH_LEN];
    size_t n = 0;

    if (p == NULL)
        return TG_E_UNSUPPORTED;
    p += sizeof(DIGEST_PREFIX) - 1;
    if (strlen(p) < CHARS + 2 || p[CHARS] != '=' || p[CHARS + 1] != ':')
        return TG_E_FORMAT;
    for (size_t i = 0; i < CHARS; i++) {
        if (p[i] == '-' || p[i] == '_')
            return TG_E_FORMAT;
        url[i] = (char)(p[i] == '+' ? '-' : p[i] == '/' ? '_' : p[i]);
    }
    TG_TRY(tg_b64url_decode(tg_bytes_make(url, CHARS), raw, sizeof(raw), &n));
    if (n != sizeof(raw))
        return TG_E_FORMAT;
    memcpy(sha256, raw, sizeof(raw));
    return TG_OK;
}

bool tg_wire_id_ok(const char *s)
{
    return s != NULL && strlen(s) == TG_WIRE_ID_CHARS &&
           strspn(s, "0123456789abcdef") == TG_WIRE_ID_CHARS;
}

bool tg_wire_name_ok(const char *s)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    if (s == NULL)
        return false;
    size_t n = strlen(s);
    return n >= 1 && n <= TG_WIRE_NAME_MAX && s[0] != '.' && s[0] != '-' && strspn(s, chars) == n;
}
