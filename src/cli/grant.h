/* Grants as the commands `grant` and `publish` make them. */
#ifndef TG_CLI_GRANT_H
#define TG_CLI_GRANT_H

#include <stdint.h>

#include "base/err.h"
#include "cli/package.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "tgsp/grant.h"

/* A grant lives this long unless --not-after says otherwise, and starts this much early for
 * devices whose clocks are behind. */
#define CLI_GRANT_DAYS 365
#define CLI_GRANT_EARLY_S 300

/* Verify a package by the signer's own key (and those of `extra`, may be empty), then unwrap it:
 * what comes before making any grant for it. */
TG_RC cli_grant_prepare(struct cli_package *p, const struct tg_sign_sk *signer,
                        const struct tg_kem_sk *key, const struct tg_opt_list *extra,
                        struct tg_err *err);

#endif
