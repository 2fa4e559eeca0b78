/* Calls to the platform (docs/api.md), with typed documents both ways. */
#ifndef TG_CLI_API_H
#define TG_CLI_API_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "cli/config.h"
#include "codec/json.h"
#include "net/http_client.h"

#define CLI_API_ANSWER_MAX (8u << 20)

/* A connection to the platform of a config folder, and what its answers live in. */
struct cli_api {
    struct cli_config config;
    struct tg_http_client *http;
    struct tg_arena *arena;
};

#define CLI_API_INIT ((struct cli_api){.config = CLI_CONFIG_INIT})

/* From the folder that login filled. */
TG_RC cli_api_open(const char *config_option, struct cli_api *api, struct tg_err *err);
/* Before there is such a folder: token may be NULL. */
TG_RC cli_api_connect(const char *server, const char *ca_file, const char *token,
                      struct cli_api *api, struct tg_err *err);
void cli_api_done(struct cli_api *api);
/* One more connection with the same credentials, for another thread. */
TG_RC cli_api_clone(const struct cli_api *api, struct tg_http_client **out, struct tg_err *err);

struct cli_call {
    enum tg_http_method method;
    const char *target;
    const struct tg_jschema *send_schema; /* NULL: no document is sent, */
    const void *send;
    struct tg_bytes raw; /*   but perhaps these bytes */
    const char *raw_type;
    const struct tg_http_header *headers;
    size_t headers_n;
    const char *if_match;
    const struct tg_jschema *answer_schema; /* NULL: any answer's body is ignored */
    void *answer;                           /* strings in it live in api->arena */
    char *etag_out;                         /* TG_ETAG_MAX bytes, or NULL */
};

/* One call. Busy answers (429, 503) are repeated with a growing pause; broken connections and 5xx
 * only where repeating is harmless (GET, PUT, DELETE). Refusals come back with the platform's own
 * words and code. */
TG_RC cli_api_call(struct cli_api *api, const struct cli_call *call, struct tg_err *err);
/* The same on another connection (its own arena). */
TG_RC cli_api_call_on(struct tg_http_client *http, struct tg_arena *arena,
                      const struct cli_call *call, struct tg_err *err);

/* "prefix/<encoded a><suffix>" in fresh memory; a NULL: prefix alone. */
TG_RC cli_api_path(const char *prefix, const char *a, const char *suffix, char **out,
                   struct tg_err *err);

#endif
