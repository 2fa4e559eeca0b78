/* The Open Inference Protocol v2 over the worker's listening sockets (docs/moai.md lists the
 * routes).
 *
 * Handlers run in the loop's thread, one request at a time; the threads are inside the model. */
#ifndef TG_MOAI_SERVICE_H
#define TG_MOAI_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "moai/load.h"
#include "moai/metrics.h"
#include "moai/native_server.h"
#include "net/http_server.h"

#define TG_TOKEN_HASH_LEN 32
#define TG_SERVICE_LISTENERS_MAX 8

/* One listening socket. */
struct tg_service_listener {
    bool needs_token; /* loopback TCP */
};

struct tg_service {
    const struct tg_model *model; /* NULL while loading: everything but "live" says so */
    struct tg_http_server *server;
    const struct tg_native_server *native; /* NULL: there is none */
    bool draining;
    bool all_locked; /* all memory of the process, not only the package's plaintext */
    uint8_t token_sha256[TG_TOKEN_HASH_LEN];
    struct tg_service_listener listeners[TG_SERVICE_LISTENERS_MAX];
    struct tg_metrics metrics;
};

/* For struct tg_http_server_opts; arg is a struct tg_service. Always answers: errors are
 * {"error": "..."} with the status that fits, as the protocol has it. */
enum tg_rc tg_service_handle(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                             struct tg_err *err);
/* Bodies are taken by infer only. */
uint64_t tg_service_limit(void *arg, enum tg_http_method method, const char *path, void *listener);

/* A path of the protocol, split (pure). */
enum tg_route {
    TG_ROUTE_SERVER,      /* v2 */
    TG_ROUTE_LIVE,        /* v2/health/live */
    TG_ROUTE_READY,       /* v2/health/ready */
    TG_ROUTE_MODEL,       /* v2/models/M[/versions/V] */
    TG_ROUTE_MODEL_READY, /* .../ready */
    TG_ROUTE_MODEL_INFER, /* .../infer */
    TG_ROUTE_METRICS,     /* metrics */
    TG_ROUTE_NONE
};

struct tg_route_match {
    enum tg_route route;
    struct tg_bytes model, version; /* views of path; version.p == NULL: none was given */
};

struct tg_route_match tg_route_parse(const char *path);

#endif
