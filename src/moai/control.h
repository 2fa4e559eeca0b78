/* The worker's half of the control channel: one SOCK_SEQPACKET pair, JSON messages of at most 64
 * KiB (docs/architecture.md, "Agent and worker"). */
#ifndef TG_MOAI_CONTROL_H
#define TG_MOAI_CONTROL_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_CONTROL_MAX 65536

enum tg_control_command {
    TG_CONTROL_SERVE,
    TG_CONTROL_DRAIN,
    TG_CONTROL_PING,
    TG_CONTROL_COMMANDS
};

/* What the worker says once the model answers rightly. */
struct tg_control_healthy {
    const char *event; /* "healthy" */
    const char *model, *version;
    uint64_t sequence, floor;
    uint8_t header_sha256[32];
    uint64_t load_ms, locked_bytes, golden_cases;
    const char *protection; /* level in force: tg_level_name */
};

/* A hand-over, told before it happens. */
struct tg_control_handover {
    const char *event; /* "handover" */
    const char *file, *tensor;
    uint64_t size, uid;
};

/* Write a message's text (pure, for tests). */
TG_RC tg_control_encode_handover(const struct tg_control_handover *h, struct tg_buf *out,
                                 struct tg_err *err);
TG_RC tg_control_encode_state(const char *state, struct tg_buf *out, struct tg_err *err);
TG_RC tg_control_encode_healthy(const struct tg_control_healthy *h, struct tg_buf *out,
                                struct tg_err *err);
TG_RC tg_control_encode_failed(const struct tg_err *why, struct tg_buf *out, struct tg_err *err);
TG_RC tg_control_encode_drained(struct tg_buf *out, struct tg_err *err);
/* "serving": connections are accepted from now on; and "pong". */
TG_RC tg_control_encode_serving(struct tg_buf *out, struct tg_err *err);
TG_RC tg_control_encode_pong(struct tg_buf *out, struct tg_err *err);
/* "again": bytes of the package that is being downloaded are wrong and should be fetched anew. */
TG_RC tg_control_encode_again(uint64_t off, uint64_t n, struct tg_buf *out, struct tg_err *err);

/* Read a command. Unknown members are refused: both halves come from one release.
 * @retval TG_E_FORMAT */
TG_RC tg_control_decode(struct tg_bytes text, enum tg_control_command *out, struct tg_err *err);

/* One message. Never blocks longer than the other side's queue is full; no SIGPIPE.
 * @retval TG_E_CLOSED the agent is gone */
TG_RC tg_control_send(int fd, struct tg_bytes text, struct tg_err *err);
/* One message into out (max TG_CONTROL_MAX). @retval TG_E_CLOSED  @retval TG_E_AGAIN nothing there
 * @retval TG_E_LIMIT cut */
TG_RC tg_control_recv(int fd, struct tg_buf *out, struct tg_err *err);

#endif
