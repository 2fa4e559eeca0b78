/* The device's TLS identity: its key (P-256, 0600, never leaves the folder) and its certificate. */
#ifndef TG_AGENT_IDENTITY_H
#define TG_AGENT_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/device.h"
#include "agent/records.h"
#include "agent/state.h"
#include "base/bytes.h"
#include "base/err.h"

/* Make device.key unless it is there. */
TG_RC tg_identity_key(const struct tg_state *s, struct tg_err *err);
/* A certification request for it; appended as PEM. */
TG_RC tg_identity_csr(const struct tg_state *s, const char *cn, struct tg_buf *out,
                      struct tg_err *err);
/* Store a certificate if it is this key's. */
TG_RC tg_identity_store(const struct tg_state *s, struct tg_bytes cert_pem, struct tg_err *err);
/* Validity of the stored certificate. */
TG_RC tg_identity_times(const struct tg_state *s, int64_t *not_before, int64_t *not_after,
                        struct tg_err *err);
/* Of its life: then it is renewed, unless the operator says otherwise. */
#define TG_RENEW_PERCENT 50
/* When `percent` (0..99) of its life have passed. Pure. */
int64_t tg_identity_renew_at(int64_t not_before, int64_t not_after, unsigned percent);
/* A call to the platform failed with err: if that is because of the certificate, say so and what to
 * do. refused: the platform did not take it. Returns err's code, now TG_E_EXPIRED if it has. */
enum tg_rc tg_identity_explain(const struct tg_state *s, int64_t now, bool refused,
                               struct tg_err *err);
/* Ask for a new certificate with the present one and store it. The key stays. */
TG_RC tg_identity_renew(const struct tg_state *s, const struct tg_settings *set,
                        struct tg_device *d, int64_t now, struct tg_err *err);

#endif
