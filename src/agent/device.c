#include "agent/device.h"

#include <stdio.h>
#include <string.h>

#include "codec/json.h"
#include "codec/text.h"

#define TARGET_MAX 512

void tg_device_done(struct tg_device *d)
{
    tg_http_client_free(d->http);
    d->http = NULL;
}

TG_RC tg_device_open(const struct tg_state *s, const char *server, bool cert, struct tg_device *out,
                     struct tg_err *err)
{
    char ca[TG_STATE_PATH_MAX], crt[TG_STATE_PATH_MAX], key[TG_STATE_PATH_MAX];
    TG_TRY(tg_state_path(s, ca, err, "ca.pem"));
    TG_TRY(tg_state_path(s, crt, err, "device.crt"));
    TG_TRY(tg_state_path(s, key, err, "device.key"));
    struct tg_http_client_opts o = {.base_url = server,
                                    .ca_file = ca,
                                    .cert_file = cert ? crt : NULL,
                                    .key_file = cert ? key : NULL,
                                    .connect_timeout_ms = 10000,
                                    .stall_timeout_s = 30};
    return tg_http_client_new(&o, &out->http, err);
}

/* One small exchange: a JSON body (schema NULL: none) there, a body back. */
struct exchange {
    enum tg_http_method method;
    const char *target;
    const struct tg_jschema *schema;
    const void *in;
    struct tg_http_answer answer;
};

static TG_RC exchange(struct tg_device *d, struct exchange *x, struct tg_err *err)
{
    struct tg_buf body = TG_BUF_INIT(TG_WIRE_BODY_MAX);
    struct tg_http_call call = {.method = x->method,
                                .target = x->target,
                                .type = TG_WIRE_TYPE_JSON,
                                .tick = d->tick,
                                .tick_arg = d->tick_arg,
                                .max_body = TG_WIRE_ANSWER_MAX};
    enum tg_rc rc = TG_OK;
    if (x->schema) {
        rc = tg_json_encode(x->schema, x->in, &body, err);
        call.has_body = true;
        call.body = tg_buf_view(&body);
    }
    if (rc == TG_OK)
        rc = tg_http_client_do(d->http, &call, &x->answer, err);
    if (rc == TG_OK)
        rc = tg_http_answer_check(&x->answer, err);
    tg_buf_done(&body);
    return rc;
}

TG_RC tg_device_enrol(struct tg_device *d, const struct tg_wire_enrol *in, struct tg_arena *arena,
                      struct tg_wire_enrolled *out, struct tg_err *err)
{
    struct exchange x = {.method = TG_HTTP_POST,
                         .target = TG_DEVICE_PREFIX "/enrol",
                         .schema = &tg_wire_enrol,
                         .in = in};
    enum tg_rc rc = exchange(d, &x, err);
    if (rc == TG_OK)
        rc = tg_json_decode(&tg_wire_enrolled, tg_buf_view(&x.answer.body), "platform's answer",
                            arena, out, err);
    tg_http_answer_done(&x.answer);
    return rc;
}

TG_RC tg_device_checkin(struct tg_device *d, const struct tg_wire_checkin *in,
                        struct tg_arena *arena, struct tg_wire_directions *out, uint32_t *retry_s,
                        struct tg_err *err)
{
    struct exchange x = {.method = TG_HTTP_POST,
                         .target = TG_DEVICE_PREFIX "/checkin",
                         .schema = &tg_wire_checkin,
                         .in = in};
    enum tg_rc rc = exchange(d, &x, err);
    *retry_s = x.answer.retry_after_s;
    if (rc == TG_OK)
        rc = tg_json_decode(&tg_wire_directions, tg_buf_view(&x.answer.body), "platform's answer",
                            arena, out, err);
    tg_http_answer_done(&x.answer);
    return rc;
}

TG_RC tg_device_report(struct tg_device *d, const struct tg_outbox_item *item, bool *over,
                       struct tg_err *err)
{
    char target[TARGET_MAX];
    (void)snprintf(target, sizeof target, TG_DEVICE_PREFIX "/updates/%s/reports",
                   item->deployment_id);
    struct tg_wire_report in = {.seq = item->seq,
                                .state = (int)item->state,
                                .code = item->code[0] ? item->code : NULL,
                                .reason = item->reason[0] && !item->handover ? item->reason : NULL,
                                .handover = item->handover ? item->reason : NULL};
    struct exchange x = {
        .method = TG_HTTP_POST, .target = target, .schema = &tg_wire_report, .in = &in};
    *over = false;
    enum tg_rc rc = exchange(d, &x, err);
    unsigned status = x.answer.status;
    if (rc != TG_OK && (status == 400 || status == 404 || status == 409 || status == 422)) {
        *over = true; /* final by docs/api.md: kept, it would block the queue for ever */
        rc = TG_OK;
    }
    tg_http_answer_done(&x.answer);
    return rc;
}

TG_RC tg_device_grant(struct tg_device *d, const uint8_t h[32], struct tg_buf *out,
                      struct tg_err *err)
{
    char hex[TG_HASH_HEX], target[TARGET_MAX];
    tg_hex_encode(tg_bytes_make(h, 32), hex);
    (void)snprintf(target, sizeof target, TG_DEVICE_PREFIX "/packages/%s/grant", hex);
    struct exchange x = {.method = TG_HTTP_GET, .target = target};
    enum tg_rc rc = exchange(d, &x, err);
    if (rc == TG_OK)
        rc = tg_buf_bytes(out, tg_buf_view(&x.answer.body));
    tg_http_answer_done(&x.answer);
    return rc;
}

TG_RC tg_device_renew(struct tg_device *d, const char *csr, struct tg_buf *pem, struct tg_err *err)
{
    struct tg_wire_renew in = {.csr = csr};
    struct tg_wire_renewed out;
    struct exchange x = {.method = TG_HTTP_POST,
                         .target = TG_DEVICE_PREFIX "/renew",
                         .schema = &tg_wire_renew,
                         .in = &in};
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(65536, &arena));
    enum tg_rc rc = exchange(d, &x, err);
    if (rc == TG_OK)
        rc = tg_json_decode(&tg_wire_renewed, tg_buf_view(&x.answer.body), "platform's answer",
                            arena, &out, err);
    if (rc == TG_OK)
        rc = tg_buf_str(pem, out.certificate);
    tg_http_answer_done(&x.answer);
    return rc;
}
