/* The operator's trust store, put in place at enrolment. */
#ifndef TG_AGENT_ENROLL_TRUST_H
#define TG_AGENT_ENROLL_TRUST_H

#include "agent/enroll.h"
#include "agent/state.h"
#include "crypto/sign.h"

/* Write trust.tgtrust: the store of --trust-store as it is, or a first store made of --trust keys
 * (roles author and granter, every model) and --platform-key (role platform; and granter, unless
 * vault grants are not allowed). A --trust-store must hold the platform's key itself: its
 * signatures would not survive a change. An existing store is kept when `again` is set. */
TG_RC tg_enroll_trust(const struct tg_state *s, const struct tg_enroll_opts *o, struct tg_err *err);

TG_RC tg_enroll_platform_id(const char *path, uint8_t id[TG_SIGN_ID_LEN], struct tg_err *err);

#endif
