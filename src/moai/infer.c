#include "moai/infer.h"

#include <string.h>

#include "base/clock.h"
#include "tensor/oip.h"

/* How much of the body is JSON. */
static enum tg_rc split(struct tg_bytes body, const char *header_len, size_t *json_len,
                        struct tg_err *err)
{
    uint64_t n = 0;

    *json_len = body.n;
    if (header_len == NULL)
        return TG_OK;
    if (tg_parse_u64(header_len, TG_OIP_BODY_MAX, &n) != TG_OK || n > body.n)
        return TG_FAIL(err, TG_E_FORMAT,
                       TG_OIP_HEADER " is not a number between 0 and the body's %zu bytes", body.n);
    *json_len = (size_t)n;
    return TG_OK;
}

static void name_reply(const struct tg_model *m, const struct tg_oip *in, struct tg_oip *out)
{
    memcpy(out->model_name, m->name, strlen(m->name) + 1);
    memcpy(out->model_version, m->version, strlen(m->version) + 1);
    out->has_id = in->has_id;
    memcpy(out->id, in->id, sizeof(out->id));
}

enum tg_rc tg_infer(const struct tg_model *m, struct tg_bytes body, const char *header_len,
                    struct tg_buf *out, struct tg_infer_facts *facts, struct tg_err *err)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *in = NULL;
    TG_AUTO(tg_oip_freep) struct tg_oip *reply = tg_oip_new(TG_OIP_REPLY);
    uint64_t start = tg_clock_mono_ns(), written;
    size_t json_len = 0;

    if (reply == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (m->session == NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "this package is handed over to programs that run it, not run here");
    TG_TRY(split(body, header_len, &json_len, err));
    TG_TRY(tg_oip_parse(TG_OIP_REQUEST, tg_bytes_sub(body, 0, json_len),
                        tg_bytes_sub(body, json_len, body.n - json_len), &in, err));
    facts->parse_ns = tg_clock_mono_ns() - start;
    TG_TRY(tg_session_run(m->session, in, reply, &facts->times, err));
    written = tg_clock_mono_ns();
    name_reply(m, in, reply);
    TG_TRY(tg_oip_write(reply, out, &facts->json_len, &facts->has_binary, err));
    facts->write_ns = tg_clock_mono_ns() - written;
    return TG_OK;
}
