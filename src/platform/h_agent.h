/* What the devices' handlers share. */
#ifndef TG_PLATFORM_H_AGENT_H
#define TG_PLATFORM_H_AGENT_H

#include "platform/call.h"
#include "store/package.h"

/* The grant this device may use: the author's, or the vault's where the fleet's policy (enum
 * tg_grant_policy) allows it. @retval TG_E_NOTFOUND */
TG_RC tg_grant_usable(struct tg_call *c, const uint8_t h[32], int policy, struct tg_grant_row *out,
                      struct tg_err *err);

#endif
