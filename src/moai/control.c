#include "moai/control.h"

#include <errno.h>
#include <sys/socket.h>

#include "codec/json.h"

struct state_msg {
    const char *event, *state;
};

struct failed_msg {
    const char *event, *code, *reason;
};

struct plain_msg { /* an event that says all by its name */
    const char *event;
};

struct again_msg {
    const char *event;
    uint64_t offset, length;
};

struct command_msg {
    int command;
};

static const char *const commands[] = {"serve", "drain", "ping", NULL};

static const struct tg_jfield state_fields[] = {
    TG_J_STR(struct state_msg, event, 1, 32, TG_J_REQ),
    TG_J_STR(struct state_msg, state, 1, 32, TG_J_REQ),
};
static const struct tg_jfield healthy_fields[] = {
    TG_J_STR(struct tg_control_healthy, event, 1, 32, TG_J_REQ),
    TG_J_STR(struct tg_control_healthy, model, 1, 256, TG_J_REQ),
    TG_J_STR(struct tg_control_healthy, version, 0, 128, TG_J_REQ),
    TG_J_U64(struct tg_control_healthy, sequence, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_control_healthy, floor, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_HEX(struct tg_control_healthy, header_sha256, TG_J_REQ),
    TG_J_U64(struct tg_control_healthy, load_ms, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_control_healthy, locked_bytes, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_control_healthy, golden_cases, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_STR(struct tg_control_healthy, protection, 1, 16, TG_J_REQ),
};
static const struct tg_jfield handover_fields[] = {
    TG_J_STR(struct tg_control_handover, event, 1, 32, TG_J_REQ),
    TG_J_STR(struct tg_control_handover, file, 1, 1024, TG_J_REQ),
    TG_J_STR(struct tg_control_handover, tensor, 1, 256, TG_J_SKIP0),
    TG_J_U64(struct tg_control_handover, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_control_handover, uid, 0, UINT32_MAX, TG_J_REQ),
};
static const struct tg_jfield failed_fields[] = {
    TG_J_STR(struct failed_msg, event, 1, 32, TG_J_REQ),
    TG_J_STR(struct failed_msg, code, 1, 32, TG_J_REQ),
    TG_J_STR(struct failed_msg, reason, 0, TG_ERR_MAX, TG_J_REQ),
};
static const struct tg_jfield plain_fields[] = {
    TG_J_STR(struct plain_msg, event, 1, 32, TG_J_REQ),
};
static const struct tg_jfield again_fields[] = {
    TG_J_STR(struct again_msg, event, 1, 32, TG_J_REQ),
    TG_J_U64(struct again_msg, offset, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct again_msg, length, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
static const struct tg_jfield command_fields[] = {
    TG_J_ENUM(struct command_msg, command, commands, TG_J_REQ),
};

static const struct tg_jschema state_schema =
    TG_J_SCHEMA(struct state_msg, state_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema healthy_schema =
    TG_J_SCHEMA(struct tg_control_healthy, healthy_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema handover_schema =
    TG_J_SCHEMA(struct tg_control_handover, handover_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema failed_schema =
    TG_J_SCHEMA(struct failed_msg, failed_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema plain_schema =
    TG_J_SCHEMA(struct plain_msg, plain_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema again_schema =
    TG_J_SCHEMA(struct again_msg, again_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jschema command_schema =
    TG_J_SCHEMA(struct command_msg, command_fields, TG_J_REFUSE_UNKNOWN);

enum tg_rc tg_control_encode_state(const char *state, struct tg_buf *out, struct tg_err *err)
{
    const struct state_msg m = {"state", state};

    return tg_json_encode(&state_schema, &m, out, err);
}

enum tg_rc tg_control_encode_healthy(const struct tg_control_healthy *h, struct tg_buf *out,
                                     struct tg_err *err)
{
    struct tg_control_healthy m = *h;

    m.event = "healthy";
    return tg_json_encode(&healthy_schema, &m, out, err);
}

enum tg_rc tg_control_encode_handover(const struct tg_control_handover *h, struct tg_buf *out,
                                      struct tg_err *err)
{
    struct tg_control_handover m = *h;

    m.event = "handover";
    return tg_json_encode(&handover_schema, &m, out, err);
}

enum tg_rc tg_control_encode_failed(const struct tg_err *why, struct tg_buf *out,
                                    struct tg_err *err)
{
    struct failed_msg m = {"failed", tg_rc_name(why->rc), why->msg};

    /* A reason can quote what a package says; cut in the middle of a character it is no UTF-8. */
    if (!tg_utf8_ok(tg_bytes_str(why->msg)))
        m.reason = tg_rc_text(why->rc);
    return tg_json_encode(&failed_schema, &m, out, err);
}

static enum tg_rc encode_plain(const char *event, struct tg_buf *out, struct tg_err *err)
{
    const struct plain_msg m = {event};

    return tg_json_encode(&plain_schema, &m, out, err);
}

enum tg_rc tg_control_encode_drained(struct tg_buf *out, struct tg_err *err)
{
    return encode_plain("drained", out, err);
}

enum tg_rc tg_control_encode_serving(struct tg_buf *out, struct tg_err *err)
{
    return encode_plain("serving", out, err);
}

enum tg_rc tg_control_encode_pong(struct tg_buf *out, struct tg_err *err)
{
    return encode_plain("pong", out, err);
}

enum tg_rc tg_control_encode_again(uint64_t off, uint64_t n, struct tg_buf *out, struct tg_err *err)
{
    const struct again_msg m = {"again", off, n};

    return tg_json_encode(&again_schema, &m, out, err);
}

enum tg_rc tg_control_decode(struct tg_bytes text, enum tg_control_command *out, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct command_msg m = {0};

    if (tg_arena_new(TG_CONTROL_MAX, &arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_json_decode(&command_schema, text, "control message", arena, &m, err));
    *out = (enum tg_control_command)m.command;
    return TG_OK;
}

enum tg_rc tg_control_send(int fd, struct tg_bytes text, struct tg_err *err)
{
    ssize_t n;

    do
        n = send(fd, text.p, text.n, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return TG_OK;
    return TG_FAIL_ERRNO(err, errno == EPIPE || errno == ECONNRESET ? TG_E_CLOSED : TG_E_IO,
                         "control channel");
}

enum tg_rc tg_control_recv(int fd, struct tg_buf *out, struct tg_err *err)
{
    uint8_t *at = NULL;
    ssize_t n;

    tg_buf_clear(out);
    if (tg_buf_reserve(out, TG_CONTROL_MAX, &at) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    do
        n = recv(fd, at, TG_CONTROL_MAX, MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return TG_FAIL(err, TG_E_AGAIN, "control channel: nothing there");
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return TG_FAIL(err, TG_E_CLOSED, "control channel: closed by the agent");
    if (n < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "control channel");
    if (n > TG_CONTROL_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "control channel: a message of %zd bytes, at most %d", n,
                       TG_CONTROL_MAX);
    tg_buf_grow(out, (size_t)n);
    return TG_OK;
}
