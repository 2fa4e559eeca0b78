/* Signed deployments `.tgdeploy` (docs/spec/tgsp-1.0.md §9): the platform says which package goes
 * where. They let a device go back below K, never below F, and never make it run what an author did
 * not sign. */
#ifndef TG_TGSP_DEPLOYMENT_H
#define TG_TGSP_DEPLOYMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/sign.h"
#include "tgsp/format.h"
#include "tgsp/trust.h"

#define TG_DEPLOYMENT_ID_MAX 64

struct tg_deployment_fields {
    const char *deployment_id; /* 1..64 bytes */
    uint8_t header_sha256[TG_TGSP_H_LEN];
    const char *fleet;  /* 1..256 bytes */
    const char *device; /* NULL: every device of the fleet */
    bool allow_rollback;
    int64_t issued_at, not_after; /* valid while now < not_after; a clock up to 5 minutes behind
                                     issued_at is accepted */
};

struct tg_deployment;

/* Append the signed document. The signer needs the role `platform` in the devices' trust stores. */
TG_RC tg_deployment_make(const struct tg_deployment_fields *f, const struct tg_sign_sk *signer,
                         struct tg_buf *out, struct tg_err *err);

/* Parse; nothing is believed yet. name is for error texts. */
TG_RC tg_deployment_decode(struct tg_bytes text, const char *name, struct tg_deployment **out,
                           struct tg_err *err);
void tg_deployment_free(struct tg_deployment *d);
TG_DEFINE_AUTO(struct tg_deployment, tg_deployment_freep, tg_deployment_free);

/* Borrowed. Unverified until tg_deployment_verify succeeded. */
const struct tg_deployment_fields *tg_deployment_fields_get(const struct tg_deployment *d);
bool tg_deployment_verified(const struct tg_deployment *d);

/* Signature by a `platform` key, times, fleet, device (device NULL: this device has no id to
 * compare and only fleet-wide deployments pass).
 * @retval TG_E_AUTH no trusted key signed, or a trusted one's signature is invalid
 * @retval TG_E_DENIED the signer lacks the role; another fleet or device  @retval TG_E_EXPIRED */
TG_RC tg_deployment_verify(struct tg_deployment *d, const struct tg_trust *trust, int64_t now,
                           const char *fleet, const char *device, struct tg_err *err);

#endif
