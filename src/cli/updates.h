/* Deployments and what became of them, as `deploy` and `status` show them. */
#ifndef TG_CLI_UPDATES_H
#define TG_CLI_UPDATES_H

#include <stdbool.h>

#include "base/err.h"
#include "cli/api.h"
#include "cli/out.h"
#include "wire/deploy.h"

/* One deployment with all its updates (every page). Strings live in api->arena. */
TG_RC cli_deployment_get(struct cli_api *api, const char *id, struct tg_wire_deployment *out,
                         struct tg_err *err);

/* How far it is. */
struct cli_progress_of {
    size_t devices, running, failed, waiting; /* failed: also rolled back */
};
struct cli_progress_of cli_deployment_progress(const struct tg_wire_deployment *d);

/* The deployment's facts, then a table of its updates with their reasons. */
void cli_deployment_show(struct cli_out *o, const struct tg_wire_deployment *d);

#endif
