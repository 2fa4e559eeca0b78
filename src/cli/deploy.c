#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/package.h"
#include "cli/resolve.h"
#include "cli/signals.h"
#include "cli/updates.h"
#include "codec/text.h"

struct deploy {
    bool json;
    bool wait, allow_rollback;
    const char *config, *package, *fleet, *device, *timeout;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    CLI_OPT_CONFIG(struct deploy),
    {"package", TG_OPT_STR, offsetof(struct deploy, package), true, "H|F.tgsp", "which package: its H, the first 8 or more characters of it, or the file"},
    {"fleet", TG_OPT_STR, offsetof(struct deploy, fleet), false, "NAME", "to every device of this fleet, now and later"},
    {"device", TG_OPT_STR, offsetof(struct deploy, device), false, "ID", "to this device alone"},
    {"allow-rollback", TG_OPT_FLAG, offsetof(struct deploy, allow_rollback), false, NULL, "devices may go back to an older sequence for it (never below their floor)"},
    {"wait", TG_OPT_FLAG, offsetof(struct deploy, wait), false, NULL, "until every device runs it or failed; exit status 9 if one failed"},
    {"timeout", TG_OPT_STR, offsetof(struct deploy, timeout), false, "SPAN", "wait at most this long (default 10m)"},
    CLI_OPT_END,
};

/* clang-format on */

enum { POLL_MS = 500, WAIT_S = 600 };

static void tell(const struct cli_progress_of *p, bool last)
{
    if (!isatty(STDERR_FILENO))
        return;
    (void)fprintf(stderr, "\r\033[Krunning on %zu of %zu devices%s", p->running, p->devices,
                  last            ? "\r\033[K"
                  : p->failed > 0 ? ", some failed"
                                  : "");
    (void)fflush(stderr);
}

static enum tg_rc wait_for(struct cli_api *api, const char *id, int64_t until,
                           struct tg_wire_deployment *d, struct tg_err *err)
{
    for (;;) {
        TG_TRY(cli_deployment_get(api, id, d, err));
        struct cli_progress_of p = cli_deployment_progress(d);
        tell(&p, p.waiting == 0);
        if (p.waiting == 0 || d->state == TG_DEPLOYMENT_CANCELLED)
            return TG_OK;
        if (tg_clock_now() >= until)
            return TG_FAIL(err, TG_E_TIMEOUT,
                           "%zu of %zu devices run it, %zu failed, %zu are still on their way (see "
                           "`tensorguard status %s`)",
                           p.running, p.devices, p.failed, p.waiting, id);
        for (unsigned slept = 0; slept < POLL_MS; slept += 50) {
            TG_TRY(cli_signals_check(err));
            tg_clock_sleep_ms(50);
        }
    }
}

static enum tg_rc wait_and_judge(struct cli *c, struct cli_api *api, const struct deploy *o,
                                 struct tg_wire_deployment *d, struct tg_err *err)
{
    int64_t span = WAIT_S;

    if (o->timeout != NULL) {
        TG_AUTO(tg_freep) char *plus = tg_asprintf("+%s", o->timeout);
        if (plus == NULL || cli_time_parse("", plus, 0, &span, NULL) != TG_OK)
            return TG_FAIL(err, TG_E_USAGE, "--timeout: '%s' is no span; write 90s or 10m",
                           o->timeout);
    }
    TG_TRY(wait_for(api, d->id, tg_clock_now() + span, d, err));
    struct cli_progress_of p = cli_deployment_progress(d);
    cli_deployment_show(&c->out, d);
    if (p.failed == 0)
        return TG_OK;
    c->answered = true; /* the reasons come before the exit status */
    TG_TRY(cli_out_print(&c->out, err));
    return TG_FAIL(err, TG_E_STATE, "%zu of %zu devices failed", p.failed, p.devices);
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct deploy *o = opts;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_deployment_new send = {
        .fleet = o->fleet, .device = o->device, .allow_rollback = o->allow_rollback};
    struct tg_wire_deployment d = {0};
    struct cli_h h = {{0}};

    (void)args;
    if ((o->fleet == NULL) == (o->device == NULL))
        return TG_FAIL(err, TG_E_USAGE, "give either --fleet or --device");
    TG_TRY(cli_api_open(o->config, &api, err));
    TG_TRY(cli_resolve_package(&api, o->package, &h, err));
    if (tg_hex_decode(tg_bytes_str(h.hex), send.package, TG_WIRE_HASH_LEN) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "%s: is no package's H", o->package);
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/deployments",
                            .send_schema = &tg_wire_deployment_new,
                            .send = &send,
                            .answer_schema = &tg_wire_deployment,
                            .answer = &d};
    TG_TRY(cli_api_call(&api, &call, err));
    cli_signals_catch();
    if (o->wait)
        return wait_and_judge(c, &api, o, &d, err);
    TG_TRY(cli_deployment_get(&api, d.id, &d, err));
    cli_deployment_show(&c->out, &d);
    cli_out_note(&c->out, "\n`tensorguard status %s` shows what becomes of it.", d.id);
    return TG_OK;
}

const struct cli_verb cli_deploy = {
    .cmd =
        {.name = "deploy",
              .args = "",
              .summary = "say which package a fleet or a device shall run",
              .details =
             "Devices pick it up at their next check-in. The old package serves until the new one\n"
             "is healthy, and goes on serving if it fails.\n\n"
             "  tensorguard deploy --package m.tgsp --fleet robots --wait\n", .opts = OPTS},
    .opts_size = sizeof(struct deploy),
    .run = run,
};
