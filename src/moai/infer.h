/* One inference: the body of a request in, the body of a reply out. */
#ifndef TG_MOAI_INFER_H
#define TG_MOAI_INFER_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "moai/load.h"
#include "moai/session.h"

struct tg_infer_facts {
    size_t json_len; /* of the reply; the rest is raw tensors */
    bool has_binary;
    struct tg_session_times times;
    uint64_t parse_ns, write_ns;
};

/* header_len: the value of Inference-Header-Content-Length, NULL without one (then all is JSON).
 * Tensors of request and reply are wiped before the call returns; out is the caller's.
 * Codes of tg_oip_parse, tg_session_run and tg_oip_write. */
TG_RC tg_infer(const struct tg_model *m, struct tg_bytes body, const char *header_len,
               struct tg_buf *out, struct tg_infer_facts *facts, struct tg_err *err);

#endif
