/* Packages as people name them: H in hex, the beginning of it, or the package file itself. */
#ifndef TG_CLI_RESOLVE_H
#define TG_CLI_RESOLVE_H

#include "base/err.h"
#include "cli/api.h"
#include "tgsp/format.h"

struct cli_h {
    char hex[2 * TG_TGSP_H_LEN + 1];
};

/* 64 hex characters are taken as they are; a file is opened for its H; 8 or more hex characters are
 * looked up on the platform. @retval TG_E_NOTFOUND  @retval TG_E_USAGE more than one package */
TG_RC cli_resolve_package(struct cli_api *api, const char *name, struct cli_h *out,
                          struct tg_err *err);

#endif
