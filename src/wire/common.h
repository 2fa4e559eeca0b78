/* What every wire document shares: limits, paths, identifiers, problem details.
 *
 * A wire document is one C struct, one `const struct tg_jschema tg_wire_<name>` and nothing else:
 * the schema decodes requests and encodes answers, feeds the OpenAPI document, and is what both
 * ends compile against. Identifiers made by the platform (tokens, uploads, devices, deployments)
 * are 16 random bytes as 32 lower-case hex characters. Digests and key ids are lower-case hex; a
 * digest of all zeros never occurs and stands for "absent". Times are YYYY-MM-DDTHH:MM:SSZ.
 */
#ifndef TG_WIRE_COMMON_H
#define TG_WIRE_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "codec/json.h"

#define TG_WIRE_ID_CHARS 32   /* identifiers, without the NUL */
#define TG_WIRE_NAME_MAX 64   /* fleets, tokens, publishers, devices */
#define TG_WIRE_LEVEL_MAX 16  /* "secret", "locked", "none" */
#define TG_WIRE_TEXT_MAX 1024 /* reasons, notes, descriptions */
#define TG_WIRE_PEM_MAX 8192
#define TG_WIRE_TOKEN_MAX 128
#define TG_WIRE_URL_MAX 512
#define TG_WIRE_PAGE_DEFAULT 100
#define TG_WIRE_PAGE_MAX 1000
#define TG_WIRE_PART_MAX (UINT64_C(8) << 20) /* one part of an upload */
#define TG_WIRE_PART_MIN                                                                           \
    (UINT64_C(64) << 10) /* all but the last part have one size, at least this */
#define TG_WIRE_PARTS_MAX 1048576
#define TG_WIRE_BODY_MAX                                                                           \
    (UINT64_C(64) << 10) /* JSON request bodies, unless a route says otherwise */
#define TG_WIRE_ANSWER_MAX (UINT64_C(4) << 20)
#define TG_WIRE_KEM_KEY_LEN 1216
#define TG_WIRE_KEY_ID_LEN 16
#define TG_WIRE_HASH_LEN 32
#define TG_WIRE_GRANT_MAX (UINT64_C(64) << 10)
#define TG_WIRE_DEPLOYMENT_DOC_MAX (UINT64_C(64) << 10)

/* A field that holds an identifier. */
#define TG_WIRE_J_ID(t, m, fl) TG_J_STR(t, m, TG_WIRE_ID_CHARS, TG_WIRE_ID_CHARS, fl)

/* Paths are "<prefix>/<collection>[/<id>…]"; docs/api.md has the table. */
#define TG_API_PREFIX "/api/v1"
#define TG_DEVICE_PREFIX "/device/v1"

#define TG_WIRE_TYPE_JSON "application/json"
#define TG_WIRE_TYPE_PROBLEM "application/problem+json"
#define TG_WIRE_TYPE_BYTES "application/octet-stream"

/* RFC 9457. type is "urn:tensorguard:problem:<slug>" with a slug of the table in docs/api.md;
 * code is the name of a base/err.h code ("AUTH"): what a client can decide by. */
struct tg_wire_problem {
    const char *type;
    const char *title;
    uint64_t status;
    const char *detail;
    const char *code;
    const char *instance; /* the request's id, also in the platform's log; may be NULL */
};
extern const struct tg_jschema tg_wire_problem;

/* The kinds of refusal, each with one slug, title, HTTP status and code. */
enum tg_problem {
    TG_PROBLEM_BAD_REQUEST,        /* 400 body, query or header is not what the route takes */
    TG_PROBLEM_UNAUTHENTICATED,    /* 401 no, unknown, expired or used token */
    TG_PROBLEM_NO_CERTIFICATE,     /* 401 the route needs a device certificate */
    TG_PROBLEM_FORBIDDEN,          /* 403 the role may not */
    TG_PROBLEM_CERTIFICATE,        /* 403 expired, superseded or unknown device certificate */
    TG_PROBLEM_REVOKED,            /* 403 the device was revoked */
    TG_PROBLEM_NOT_FOUND,          /* 404 */
    TG_PROBLEM_METHOD,             /* 405 */
    TG_PROBLEM_CONFLICT,           /* 409 not in this state */
    TG_PROBLEM_EXISTS,             /* 409 the name is taken, or a different part is already there */
    TG_PROBLEM_INCOMPLETE,         /* 409 parts are missing; detail names them */
    TG_PROBLEM_SUPERSEDED,         /* 409 report about an update that is over */
    TG_PROBLEM_PRECONDITION,       /* 412 If-Match does not match */
    TG_PROBLEM_TOO_LARGE,          /* 413 */
    TG_PROBLEM_RANGE,              /* 416 */
    TG_PROBLEM_DIGEST,             /* 422 bytes are not what their digest says */
    TG_PROBLEM_PACKAGE,            /* 422 not a valid package or grant */
    TG_PROBLEM_PUBLISHER,          /* 422 not signed by a registered publisher */
    TG_PROBLEM_NEEDS_PRECONDITION, /* 428 If-Match is required */
    TG_PROBLEM_RATE,               /* 429 with Retry-After */
    TG_PROBLEM_INTERNAL,           /* 500 */
    TG_PROBLEM_BUSY,               /* 503 draining, or too much at once; with Retry-After */
    TG_PROBLEM_STORAGE,            /* 507 the platform's disk is full */
    TG_PROBLEM_COUNT
};

struct tg_problem_row {
    const char *slug;
    const char *title;
    unsigned status;
    enum tg_rc rc;
};
const struct tg_problem_row *tg_problem_row(enum tg_problem p);
/* The problem a failure turns into when the handler says nothing more precise. */
enum tg_problem tg_problem_of_rc(enum tg_rc rc);

/* For clients: turn an answer of status >= 400 into a result code and text. body may be anything; a
 * body that is no problem document gives the code of the status alone ("HTTP 502"). */
enum tg_rc tg_wire_problem_to_err(unsigned status, struct tg_bytes body, struct tg_err *err);

/* RFC 9530 `Content-Digest: sha-256=:<base64>:`, which the upload of a part must carry. */
#define TG_WIRE_DIGEST_TEXT 64
void tg_wire_digest_format(const uint8_t sha256[TG_WIRE_HASH_LEN], char out[TG_WIRE_DIGEST_TEXT]);
/* @retval TG_E_FORMAT  @retval TG_E_UNSUPPORTED no sha-256 in it */
TG_RC tg_wire_digest_parse(const char *text, uint8_t sha256[TG_WIRE_HASH_LEN]);

/* Exactly 32 lower-case hex characters. */
bool tg_wire_id_ok(const char *s);
/* Names of fleets, devices, tokens, publishers: 1–64 of A–Z a–z 0–9 . _ - and not first a dot or
 * '-'. */
bool tg_wire_name_ok(const char *s);

/* Every named schema, for the OpenAPI document and for round-trip tests. */
struct tg_wire_schema {
    const char *name;
    const struct tg_jschema *schema;
};
extern const struct tg_wire_schema tg_wire_schemas[];
extern const size_t tg_wire_schemas_n;

#endif
