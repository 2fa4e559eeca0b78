#include "cli/api.h"

#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "cli/signals.h"
#include "wire/common.h"

enum { ATTEMPTS = 6, FIRST_PAUSE_MS = 200, LONGEST_PAUSE_MS = 8000 };

static enum tg_rc connect_to(const char *server, const char *ca_file, const char *token,
                             struct tg_http_client **out, struct tg_err *err)
{
    struct tg_http_client_opts opts = {.base_url = server, .ca_file = ca_file, .bearer = token};

    return tg_http_client_new(&opts, out, err);
}

enum tg_rc cli_api_connect(const char *server, const char *ca_file, const char *token,
                           struct cli_api *api, struct tg_err *err)
{
    if (tg_arena_new(256u << 20, &api->arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return connect_to(server, ca_file, token, &api->http, err);
}

enum tg_rc cli_api_open(const char *config_option, struct cli_api *api, struct tg_err *err)
{
    TG_TRY(cli_config_load(config_option, &api->config, err));
    return cli_api_connect(api->config.server, api->config.ca_file, tg_buf_cstr(&api->config.token),
                           api, err);
}

enum tg_rc cli_api_clone(const struct cli_api *api, struct tg_http_client **out, struct tg_err *err)
{
    return connect_to(api->config.server, api->config.ca_file, tg_buf_cstr(&api->config.token), out,
                      err);
}

void cli_api_done(struct cli_api *api)
{
    tg_http_client_free(api->http);
    tg_arena_free(api->arena);
    cli_config_done(&api->config);
    *api = CLI_API_INIT;
}

static enum tg_rc stop_on_signal(void *arg)
{
    (void)arg;
    return cli_signals_check(NULL);
}

/* May this outcome change by itself? rc: of the call; status: of its answer, 0 without one. */
static bool worth_repeating(enum tg_http_method method, enum tg_rc rc, unsigned status)
{
    bool harmless = method != TG_HTTP_POST && method != TG_HTTP_PATCH;

    if (rc == TG_OK)
        return status == 429 || status == 503 || (harmless && (status == 408 || status >= 500));
    return harmless && (rc == TG_E_CLOSED || rc == TG_E_TIMEOUT);
}

static void pause_before(unsigned attempt, uint32_t retry_after_s)
{
    uint32_t ms = (uint32_t)FIRST_PAUSE_MS << attempt;
    uint8_t jitter = 0;

    if (ms > LONGEST_PAUSE_MS)
        ms = LONGEST_PAUSE_MS;
    if (getrandom(&jitter, 1, 0) == 1)
        ms = ms / 2 + ms * jitter / 512;
    if (retry_after_s > 0 && retry_after_s * 1000 > ms)
        ms = retry_after_s < 60 ? retry_after_s * 1000 : 60000;
    for (uint32_t slept = 0; slept < ms && cli_signals_check(NULL) == TG_OK; slept += 100)
        tg_clock_sleep_ms(ms - slept < 100 ? ms - slept : 100);
}

static enum tg_rc repeat(struct tg_http_client *http, const struct tg_http_call *call,
                         struct tg_http_answer *answer, struct tg_err *err)
{
    for (unsigned attempt = 0;; attempt++) {
        enum tg_rc rc = tg_http_client_do(http, call, answer, err);
        TG_TRY(cli_signals_check(err));
        unsigned status = rc == TG_OK ? answer->status : 0;
        if (attempt + 1 == ATTEMPTS || !worth_repeating(call->method, rc, status))
            return rc;
        pause_before(attempt, rc == TG_OK ? answer->retry_after_s : 0);
    }
}

enum tg_rc cli_api_call_on(struct tg_http_client *http, struct tg_arena *arena,
                           const struct cli_call *call, struct tg_err *err)
{
    TG_AUTO(tg_http_answer_done) struct tg_http_answer answer = TG_HTTP_ANSWER_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(CLI_API_ANSWER_MAX);
    struct tg_http_call http_call = {.method = call->method,
                                     .target = call->target,
                                     .headers = call->headers,
                                     .headers_n = call->headers_n,
                                     .if_match = call->if_match,
                                     .body = call->raw,
                                     .type = call->raw_type,
                                     .has_body = call->raw_type != NULL,
                                     .max_body = CLI_API_ANSWER_MAX,
                                     .tick = stop_on_signal};

    if (call->send_schema != NULL) {
        TG_TRY(tg_json_encode(call->send_schema, call->send, &body, err));
        http_call.body = tg_buf_view(&body);
        http_call.type = TG_WIRE_TYPE_JSON;
        http_call.has_body = true;
    }
    TG_TRY(repeat(http, &http_call, &answer, err));
    TG_TRY(tg_http_answer_check(&answer, err));
    if (call->etag_out != NULL)
        memcpy(call->etag_out, answer.etag, TG_ETAG_MAX);
    if (call->answer_schema == NULL)
        return TG_OK;
    return tg_json_decode(call->answer_schema, tg_buf_view(&answer.body), "the platform's answer",
                          arena, call->answer, err);
}

enum tg_rc cli_api_call(struct cli_api *api, const struct cli_call *call, struct tg_err *err)
{
    return cli_api_call_on(api->http, api->arena, call, err);
}

enum tg_rc cli_api_path(const char *prefix, const char *a, const char *suffix, char **out,
                        struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_HTTP_TARGET_MAX);
    enum tg_rc rc = tg_buf_str(&b, prefix);

    if (rc == TG_OK && a != NULL)
        rc = tg_buf_str(&b, "/");
    if (rc == TG_OK && a != NULL)
        rc = tg_http_encode(&b, a);
    if (rc == TG_OK)
        rc = tg_buf_str(&b, suffix);
    *out = rc == TG_OK ? tg_strdup(tg_buf_cstr(&b)) : NULL;
    if (*out == NULL)
        return TG_FAIL(err, rc == TG_OK ? TG_E_NOMEM : rc, "%s: too long", prefix);
    return TG_OK;
}
