/* Grants `.tgrant` (docs/spec/tgsp-1.0.md §5): one more key for one package, beside it. */
#ifndef TG_TGSP_GRANT_H
#define TG_TGSP_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "tgsp/format.h"
#include "tgsp/package.h"
#include "tgsp/trust.h"

struct tg_grant;

/* What a grant says; borrowed from it. Unverified until used. */
struct tg_grant_fields {
    uint8_t package_id[TG_TGSP_PACKAGE_ID_LEN];
    uint8_t header_sha256[TG_TGSP_H_LEN];
    struct tg_tgsp_recipient recipient;
    int64_t issued_at, not_before, not_after; /* valid when not_before <= now < not_after */
};

struct tg_grant_spec {
    const struct tg_kem_pk *recipient;
    const struct tg_sign_sk *signer; /* role `granter` in the device's trust store */
    int64_t issued_at, not_before, not_after;
    const struct tg_rng *rng; /* NULL: the system's */
};

/* Append a signed grant for an unwrapped package. @retval TG_E_STATE not unwrapped */
TG_RC tg_grant_make(struct tg_tgsp *p, const struct tg_grant_spec *spec, struct tg_buf *out,
                    struct tg_err *err);

TG_RC tg_grant_decode(struct tg_bytes text, const char *name, struct tg_grant **out,
                      struct tg_err *err);
void tg_grant_free(struct tg_grant *g);
TG_DEFINE_AUTO(struct tg_grant, tg_grant_freep, tg_grant_free);
const struct tg_grant_fields *tg_grant_fields_get(const struct tg_grant *g);
/* Key ids of its signature entries (unverified), for display. */
const struct tg_tgsp_signatures *tg_grant_signatures_get(const struct tg_grant *g);

/* Signature by a key with the role `granter`, and the times; tg_tgsp_unwrap_grant does this too.
 * The platform uses it on uploaded grants. @retval TG_E_AUTH  @retval TG_E_DENIED  @retval
 * TG_E_EXPIRED */
TG_RC tg_grant_verify(const struct tg_grant *g, const struct tg_trust *trust, int64_t now,
                      struct tg_err *err);

#endif
