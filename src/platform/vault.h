/* The vault: publishers' keys as a trust store, and grants made with the vault's key. */
#ifndef TG_PLATFORM_VAULT_H
#define TG_PLATFORM_VAULT_H

#include "platform/call.h"
#include "store/package.h"
#include "tgsp/trust.h"

/* Registered publishers as a trust store with these roles (tgsp/trust.h). A publisher limited to
 * model names has the author role for those; limits don't apply to grants. */
TG_RC tg_vault_trust(struct tg_call *c, struct tg_trust **out, struct tg_err *err);

/* Both must outlive long absences from the network, and are made anew at half their life. A
 * platform can be told another life of its vault's grants. */
#define TG_GRANT_LIFE (INT64_C(10) * 365 * 86400)
#define TG_DOCUMENT_LIFE (INT64_C(365) * 86400)

/* Make the grant of one package for one KEM key: unwrap with the vault's key, wrap, sign, wipe. The
 * row's document is in the arena.
 * @retval TG_E_AUTH, TG_E_DENIED the package's publisher is not (any longer) registered */
TG_RC tg_vault_grant(struct tg_call *c, const struct tg_package_row *package,
                     struct tg_bytes kem_public_key, struct tg_grant_row *out, struct tg_err *err);

#endif
