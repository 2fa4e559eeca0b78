#include <stddef.h>
#include <stdio.h>

#include "cli/api.h"
#include "cli/cli.h"
#include "cli/show.h"
#include "cli/updates.h"
#include "wire/fleet.h"

struct status {
    bool json;
    const char *config, *fleet;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    CLI_OPT_CONFIG(struct status),
    {"fleet", TG_OPT_STR, offsetof(struct status, fleet), false, "NAME", "of this fleet only"},
    CLI_OPT_END,
};

static const struct cli_col DEVICES[] = {{"id", "DEVICE", 0}, {"name", "NAME", 0}, {"fleet", "FLEET", 0}, {"state", "STATE", 0}, {"running", "RUNNING", CLI_COL_SHORT}, {"update_state", "UPDATE", 0}, {"last_seen", "LAST SEEN", 0}, {"update_reason", "REASON", 0}, {"status", "SAYS", 0}};
static const struct cli_col DEPLOYMENTS[] = {{"id", "DEPLOYMENT", 0}, {"state", "STATE", 0}, {"model", "MODEL", 0}, {"version", "VERSION", 0}, {"package", "PACKAGE", CLI_COL_SHORT}, {"fleet", "FLEET", 0}, {"device", "DEVICE", CLI_COL_SHORT}, {"counts.running", "RUNNING", 0}, {"counts.failed", "FAILED", 0}, {"counts.rolled_back", "WENT BACK", 0}, {"created_at", "CREATED", 0}};

/* clang-format on */

static const struct cli_list_look DEPLOYMENT_LOOK = {
    .key = "deployments",
    .item = &tg_wire_deployment,
    .cols = {DEPLOYMENTS, TG_ARRAY_LEN(DEPLOYMENTS)},
    .empty = "There are no deployments."
};
static const struct cli_list_look DEVICE_LOOK = {
    .key = "devices",
    .item = &tg_wire_device,
    .cols = {DEVICES, TG_ARRAY_LEN(DEVICES)},
    .empty = "There are no devices."
};

static enum tg_rc target_of(const char *path, const char *fleet, char **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_HTTP_TARGET_MAX);
    enum tg_rc rc = tg_buf_printf(&b, "%s%s", path, fleet != NULL ? "?fleet=" : "");

    if (rc == TG_OK && fleet != NULL)
        rc = tg_http_encode(&b, fleet);
    *out = rc == TG_OK ? tg_strdup(tg_buf_cstr(&b)) : NULL;
    return *out != NULL ? TG_OK : TG_FAIL(err, TG_E_USAGE, "--fleet: too long");
}

/* Without this the operator could take one user's worker for a protected one. */
static void note_separation(struct cli_out *o, const struct tg_jlist *devices)
{
    const struct tg_wire_device *v = devices->items;
    size_t n = 0;

    for (size_t i = 0; i < devices->n; i++)
        n += v[i].state == TG_DEVICE_ACTIVE && !v[i].separation;
    if (n > 0)
        cli_out_note(
            o,
            "\nOn %zu device%s agent and worker run as one user: the agent could read the KEM "
            "key there (SECURITY.md).",
            n, n == 1 ? "" : "s");
}

static enum tg_rc overview(struct cli *c, struct cli_api *api, const struct status *o,
                           struct tg_err *err)
{
    TG_AUTO(tg_freep) char *devices_at = NULL;
    TG_AUTO(tg_freep) char *deployments_at = NULL;
    struct tg_jlist devices = {0};
    struct tg_jlist deployments = {0};

    TG_TRY(target_of(TG_API_PREFIX "/devices", o->fleet, &devices_at, err));
    TG_TRY(target_of(TG_API_PREFIX "/deployments", o->fleet, &deployments_at, err));
    TG_TRY(cli_api_list(api, deployments_at, &tg_wire_deployments,
                        sizeof(struct tg_wire_deployment), &deployments, err));
    TG_TRY(cli_api_list(api, devices_at, &tg_wire_devices, sizeof(struct tg_wire_device), &devices,
                        err));
    cli_show_list(&c->out, &DEPLOYMENT_LOOK, &deployments);
    cli_out_blank(&c->out);
    cli_show_list(&c->out, &DEVICE_LOOK, &devices);
    note_separation(&c->out, &devices);
    return TG_OK;
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct status *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_deployment d = {0};

    TG_TRY(cli_api_open(o->config, &api, err));
    if (args->n == 0)
        return overview(c, &api, o, err);
    TG_TRY(cli_deployment_get(&api, args->v[0], &d, err));
    cli_deployment_show(&c->out, &d);
    return TG_OK;
}

const struct cli_verb cli_status = {
    .cmd = {.name = "status",
            .args = "[DEPLOYMENT]",
            .summary = "show what runs where, and why not",
            .details =
                "Without an argument: deployments and devices. With a deployment's id: each\n"
                "device's state, and the reason when an update failed or waits.\n", .opts = OPTS,
            .args_max = 1},
    .opts_size = sizeof(struct status),
    .run = run,
};
