/* One request on its way: who asks, what for, and the helpers every handler uses.
 *
 * A handler reads the request, decides, changes the database (between tg_db_begin and tg_db_commit,
 * with its audit row inside) and sets the answer. What it returns other than TG_OK becomes problem
 * details; the dispatcher undoes an open change and writes the refusal into the audit log where
 * that matters. */
#ifndef TG_PLATFORM_CALL_H
#define TG_PLATFORM_CALL_H

#include "net/http_server.h"
#include "platform/platform.h"
#include "platform/route.h"
#include "store/db.h"
#include "wire/common.h"

enum tg_who { TG_WHO_NOBODY, TG_WHO_TOKEN, TG_WHO_DEVICE, TG_WHO_PLATFORM };

struct tg_principal {
    enum tg_who kind;
    const char *id, *name;
    enum tg_access role; /* of a token */
    int64_t created_at, expires_at;
    const char *fleet; /* of a device */
    uint8_t kem_key_id[16];
};

struct tg_call {
    struct tg_platform *p;
    struct tg_db *db;
    struct tg_arena *arena; /* lives as long as the request */
    const struct tg_http_req *req;
    struct tg_http_res *res;
    const struct tg_route *route;
    const char *params[TG_ROUTE_PARAMS_MAX];
    struct tg_principal who;
    int64_t now;
    char id[17];             /* the request's, for log and problem details */
    enum tg_problem problem; /* TG_PROBLEM_COUNT: by the returned code */
    /* What a refusal is about, for the audit log. */
    const char *target;
    struct tg_bytes package;
    bool refusal_matters; /* write it even though the caller is nobody */
    bool refusal_written; /* the handler wrote it itself */
};

/* Refuse with a precise problem: return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "…"). */
#define TG_REFUSE(c, err, kind, ...)                                                               \
    ((c)->problem = (kind), tg_err_set((err), tg_problem_row(kind)->rc, __VA_ARGS__),              \
     tg_problem_row(kind)->rc)

/* Decode the JSON body. @retval TG_E_FORMAT with problem bad-request */
TG_RC tg_call_body(struct tg_call *c, const struct tg_jschema *schema, void *out,
                   struct tg_err *err);
/* Answer with a JSON document. */
TG_RC tg_call_answer(struct tg_call *c, unsigned status, const struct tg_jschema *schema,
                     const void *in, struct tg_err *err);
/* The same with ETag, and 304 when the client has it. */
TG_RC tg_call_resource(struct tg_call *c, unsigned status, const struct tg_jschema *schema,
                       const void *in, struct tg_err *err);
/* Compare If-Match with the document as it is now (inside the change).
 * @retval TG_E_STATE problem precondition  @retval TG_E_USAGE it is required and missing */
TG_RC tg_call_if_match(struct tg_call *c, bool required, const struct tg_jschema *schema,
                       const void *current, struct tg_err *err);
/* ?limit= and ?after=. */
TG_RC tg_call_page(struct tg_call *c, struct tg_page *page, struct tg_err *err);
/* A query parameter that must be a hex digest; absent gives TG_BYTES_NONE. */
TG_RC tg_call_query_hash(struct tg_call *c, const char *name, struct tg_bytes *out,
                         struct tg_err *err);
const char *tg_call_query(const struct tg_call *c, const char *name);

/* Path parameter i as bytes (it is hex already). */
void tg_call_param_bytes(const struct tg_call *c, size_t i, uint8_t *out, size_t n);

/* Which package a refusal will be about (copied). */
TG_RC tg_call_about(struct tg_call *c, const uint8_t h[32], struct tg_err *err);

/* In the arena. @retval TG_E_NOMEM */
TG_RC tg_call_text(struct tg_call *c, const char **out, struct tg_err *err, const char *fmt, ...)
    TG_PRINTF(4, 5);
TG_RC tg_call_hex(struct tg_call *c, struct tg_bytes bytes, const char **out, struct tg_err *err);
TG_RC tg_call_id(struct tg_call *c, const char **out, struct tg_err *err);
/* n zeroed items of a list. */
TG_RC tg_call_items(struct tg_call *c, struct tg_jlist *list, size_t n, size_t size,
                    struct tg_err *err);
/* A fresh token with this prefix, and its hash. Secret until handed over: never logged. */
TG_RC tg_call_token(struct tg_call *c, const char *prefix, const char **out, uint8_t hash[32],
                    struct tg_err *err);

/* Lists of strings <-> the store's JSON text. */
TG_RC tg_names_encode(struct tg_call *c, const struct tg_jlist *names, const char **out,
                      struct tg_err *err);
TG_RC tg_names_decode(struct tg_arena *arena, const char *text, struct tg_jlist *out,
                      struct tg_err *err);

/* The audit row of this change, inside it. detail may be "". */
struct tg_audit_entry {
    const char *action; /* NULL: the route's */
    const char *target;
    struct tg_bytes package; /* H, or empty */
    const char *detail;
    bool refused;
};

TG_RC tg_audit(struct tg_call *c, const struct tg_audit_entry *e, struct tg_err *err);

/* Answer one request: the handler of the HTTP servers. arg: struct tg_worker *. */
struct tg_worker {
    struct tg_platform *p;
    struct tg_db *db;
    unsigned listener;
};

enum tg_rc tg_dispatch(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                       struct tg_err *err);
uint64_t tg_dispatch_limit(void *arg, enum tg_http_method method, const char *path, void *listener);

#endif
