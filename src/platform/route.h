/* Routes as a table: method, path, who may, how large, what it does to the audit log, what goes in
 * and out. The OpenAPI document is made from it. */
#ifndef TG_PLATFORM_ROUTE_H
#define TG_PLATFORM_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/http.h"
#include "wire/access.h"

struct tg_call;

enum { TG_LISTEN_PEOPLE = 1, TG_LISTEN_DEVICES = 2 };

/* The role column. Nothing in it: open to everyone. */
#define TG_MAY(role) (1U << TG_ACCESS_##role)
#define TG_MAY_READ (TG_MAY(ADMIN) | TG_MAY(PUBLISHER) | TG_MAY(OPERATOR) | TG_MAY(VIEWER))
#define TG_MAY_PUBLISH (TG_MAY(ADMIN) | TG_MAY(PUBLISHER))
#define TG_MAY_OPERATE (TG_MAY(ADMIN) | TG_MAY(OPERATOR))
#define TG_MAY_ADMIN TG_MAY(ADMIN)
#define TG_MAY_DEVICE (1U << 8)
#define TG_MAY_ALL 0U

#define TG_ROUTE_PARAMS_MAX 2

typedef enum tg_rc tg_route_fn(struct tg_call *c, struct tg_err *err);

struct tg_route {
    enum tg_http_method method;
    unsigned listeners;
    const char *pattern; /* "/api/v1/fleets/{fleet}" */
    unsigned roles;
    uint64_t body_max;
    const char *action; /* in the audit log; NULL: changes nothing, hands nothing over */
    const char *in;     /* wire schema by name, "bytes", "grant_document"; NULL: no body */
    const char *out;    /* the same of the answer; "text" */
    unsigned status;    /* when all is well */
    const char *query;  /* query parameters, space-separated; NULL: none */
    const char *summary;
    tg_route_fn *handler;
};

extern const struct tg_route tg_routes[];
extern const size_t tg_routes_n;

/* What a path parameter may look like; others don't match. */
bool tg_route_param_ok(const char *name, size_t name_n, const char *value);

/* What is looked for: a decoded path, by a method, on one listener. */
struct tg_route_query {
    unsigned listener;
    enum tg_http_method method;
    const char *path;
};

/* What was found. */
struct tg_route_found {
    const struct tg_route *route;
    const char *params[TG_ROUTE_PARAMS_MAX]; /* values in order, inside `into` */
    unsigned allow; /* with TG_E_UNSUPPORTED: a bit (1 << method) for each method the path takes */
};

/* HEAD finds GET's. into: at least strlen(path) + 1 bytes, which params point into.
 * @retval TG_E_NOTFOUND no such path   @retval TG_E_UNSUPPORTED it exists, not with this method */
TG_RC tg_route_match(const struct tg_route_query *q, char *into, struct tg_route_found *out);

/* The OpenAPI 3.1 document of the table. */
TG_RC tg_openapi_make(struct tg_buf *out, struct tg_err *err);

#endif
