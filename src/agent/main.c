/* tensorguard-agent: enroll | run | status | trust. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/daemon.h"
#include "agent/enroll.h"
#include "agent/identity.h"
#include "agent/policy.h"
#include "agent/state.h"
#include "agent/status.h"
#include "base/log.h"
#include "base/opt.h"
#include "codec/complain.h"
#include "codec/json.h"

#define PROG "tensorguard-agent"

/* Everything any verb takes; each verb's table says which. */
struct args {
    const char *server, *token_file, *ca, *fleet, *platform_key, *trust_store, *state_dir, *worker,
        *worker_user, *protection, *name, *predict_socket, *native_socket, *socket_group,
        *tcp_token_file, *kill_at, *log_level;
    struct tg_opt_list trust, handover;
    uint64_t native_spin_us, memory_max_mib, predict_tcp, renew_after, check_in_s, load_timeout_s,
        drain_timeout_s, worker_timeout_s;
    bool no_vault_grants, again, once, json;
};

#define OPT(kind_, name_, member, req, arg_, help_)                                                \
    {                                                                                              \
        .name = (name_), .kind = (kind_), .off = offsetof(struct args, member), .required = (req), \
        .arg = (arg_), .help = (help_)                                                             \
    }
#define OPT_STATE OPT(TG_OPT_STR, "state-dir", state_dir, true, "DIR", "the agent's state folder")
#define OPT_LOG                                                                                    \
    OPT(TG_OPT_STR, "log-level", log_level, false, "LEVEL", "error, warn, info or debug")
#define OPT_KILL                                                                                   \
    OPT(TG_OPT_STR, "kill-at", kill_at, false, "STEP",                                             \
        "fault drill: die by SIGKILL right after this step (docs/agent.md)")
#define OPT_END                                                                                    \
    {                                                                                              \
        .kind = TG_OPT_END                                                                         \
    }

static const struct tg_opt enroll_opts[] = {
    OPT(TG_OPT_STR, "server", server, true, "URL",
        "the platform's device address, https://host:8444"),
    OPT(TG_OPT_STR, "token-file", token_file, true, "F", "enrolment token, used once"),
    OPT(TG_OPT_STR, "ca", ca, true, "F", "certificate to believe the platform by, PEM"),
    OPT(TG_OPT_STR, "fleet", fleet, true, "NAME",
        "the fleet; fixed here, the platform cannot change it"),
    OPT(TG_OPT_STR, "platform-key", platform_key, true, "F",
        "platform.pub: who may sign deployments"),
    OPT(TG_OPT_LIST, "trust", trust, false, "PUB", "an author's key: all models (repeatable)"),
    OPT(TG_OPT_STR, "trust-store", trust_store, false, "F",
        "a .tgtrust made by tensorguard trust instead"),
    OPT(TG_OPT_FLAG, "no-vault-grants", no_vault_grants, false, NULL,
        "with --trust: take grants of authors only, not of the platform's vault"),
    OPT_STATE,
    OPT(TG_OPT_STR, "worker", worker, false, "PATH",
        "tensorguard-moai (default: beside this program)"),
    OPT(TG_OPT_STR, "worker-user", worker_user, false, "USER",
        "run the worker as this user (needs root)"),
    OPT(TG_OPT_STR, "protection", protection, false, "LEVEL",
        "what the worker's memory must be at least: secret, locked (default) or any"),
    OPT(TG_OPT_STR, "name", name, false, "NAME",
        "what people call this device (default: host name)"),
    OPT(TG_OPT_STR, "predict-socket", predict_socket, false, "PATH",
        "Unix socket for predictions (default: run/predict.sock in the state folder)"),
    OPT(TG_OPT_STR, "native-socket", native_socket, false, "PATH",
        "Unix socket for libtensorguard (default: that path with .native); off: none"),
    OPT(TG_OPT_U64, "native-spin", native_spin_us, false, "US",
        "a worker looks for the next call through shared memory for so long before it sleeps: no "
        "system call, a busy processor (default 0)"),
    OPT(TG_OPT_LIST, "handover-user", handover, false, "USER",
        "a user who may be handed files of the running package (repeatable; default: nobody)"),
    OPT(TG_OPT_STR, "socket-group", socket_group, false, "GROUP",
        "group of the sockets (mode 0660)"),
    OPT(TG_OPT_U64, "predict-tcp", predict_tcp, false, "PORT",
        "listen on 127.0.0.1, too; 0: any port"),
    OPT(TG_OPT_STR, "tcp-token-file", tcp_token_file, false, "F", "token its clients must send"),
    OPT(TG_OPT_U64, "check-in-interval", check_in_s, false, "S",
        "seconds; default: as the platform says"),
    OPT(TG_OPT_U64, "memory-max", memory_max_mib, false, "MIB",
        "memory that a worker may have for itself (default: 4 GiB and 8 times the package)"),
    OPT(TG_OPT_U64, "load-timeout", load_timeout_s, false, "S",
        "for loading a model (default 300)"),
    OPT(TG_OPT_U64, "drain-timeout", drain_timeout_s, false, "S",
        "for answering what is in flight (default 30)"),
    OPT(TG_OPT_U64, "worker-timeout", worker_timeout_s, false, "S",
        "a serving worker that gives no sign of life for so long is restarted (default 120); above "
        "the longest prediction"),
    OPT(TG_OPT_FLAG, "again", again, false, NULL,
        "get a new certificate with a new token; trust store, packages and rollback record stay"),
    OPT(TG_OPT_FLAG, "json", json, false, NULL, "print the result as JSON"),
    OPT_KILL,
    OPT_LOG,
    OPT_END,
};
static const struct tg_opt run_opts[] = {
    OPT_STATE,
    OPT(TG_OPT_FLAG, "once", once, false, NULL,
        "check in once, do what follows, stop; the exit code tells"),
    OPT(TG_OPT_U64, "renew-after", renew_after, false, "PERCENT",
        "renew the certificate when this much of its life has passed (default 50)"),
    OPT(TG_OPT_STR, "protection", protection, false, "LEVEL",
        "another level than at enrolment: secret, locked or any"),
    OPT(TG_OPT_FLAG, "json", json, false, NULL, "print the status as JSON at the end"),
    OPT_KILL,
    OPT_LOG,
    OPT_END,
};
static const struct tg_opt status_opts[] = {
    OPT_STATE,
    OPT(TG_OPT_FLAG, "json", json, false, NULL, "print JSON"),
    OPT_END,
};
static const struct tg_opt trust_opts[] = {
    OPT_STATE,
    OPT(TG_OPT_STR, "trust-store", trust_store, true, "F",
        "the newer store, signed by keys of the present one"),
    OPT(TG_OPT_FLAG, "json", json, false, NULL, "print JSON"),
    OPT_END,
};

static const struct tg_cmd cmds[] = {
    {.name = "enroll",
     .args = "",
     .summary = "make this machine a device of a fleet",
     .details =
         "Can be repeated until it succeeds: nothing half-made counts. --token-file must hold an\n"
         "unused token. The fleet, the platform's key and the trust store are fixed here.", .opts = enroll_opts},
    {.name = "run",
     .args = "",
     .summary = "check in, fetch, verify, serve",
     .details = "SIGTERM drains the worker and exits 0; SIGHUP checks in now.",
     .opts = run_opts},
    {.name = "status",
     .args = "",
     .summary = "what the agent is doing, and why",
     .opts = status_opts                                                                           },
    {.name = "trust", .args = "", .summary = "take a newer trust store",              .opts = trust_opts},
};

/* ---- verbs ---- */

static TG_RC print_enrolled(const struct tg_enrolled *d, bool json, struct tg_err *err)
{
    if (!json) {
        printf("%s as device %s\n", d->already ? "already enrolled" : "enrolled", d->device_id);
        printf("key id %s (an author who makes grants pins this)\n", d->kem_key_id);
        if (!d->separate)
            printf("agent and worker run as one user: the separation of users is absent "
                   "(--worker-user)\n");
        return TG_OK;
    }
    struct tg_buf out = TG_BUF_INIT(4096);
    enum tg_rc rc = tg_buf_str(&out, "{\"device_id\":");
    if (rc == TG_OK)
        rc = tg_json_quote(&out, tg_bytes_str(d->device_id));
    if (rc == TG_OK)
        rc = tg_buf_printf(&out, ",\"kem_key_id\":\"%s\",\"separation\":%s,\"already\":%s}",
                           d->kem_key_id, d->separate ? "true" : "false",
                           d->already ? "true" : "false");
    if (rc == TG_OK)
        printf("%s\n", tg_buf_cstr(&out));
    else
        tg_err_set(err, rc, "output: %s", tg_rc_text(rc));
    tg_buf_done(&out);
    return rc;
}

static TG_RC do_enroll(const struct args *a, struct tg_err *err)
{
    struct tg_enroll_opts o = {.server = a->server,
                               .token_file = a->token_file,
                               .ca = a->ca,
                               .fleet = a->fleet,
                               .platform_key = a->platform_key,
                               .trust = a->trust.v,
                               .n_trust = a->trust.n,
                               .trust_store = a->trust_store,
                               .no_vault_grants = a->no_vault_grants,
                               .state_dir = a->state_dir,
                               .worker = a->worker,
                               .worker_user = a->worker_user,
                               .protection = a->protection,
                               .name = a->name,
                               .predict_socket = a->predict_socket,
                               .native_socket = a->native_socket,
                               .native_spin_us = a->native_spin_us,
                               .memory_max_mib = a->memory_max_mib,
                               .handover = a->handover.v,
                               .n_handover = a->handover.n,
                               .socket_group = a->socket_group,
                               .tcp = a->predict_tcp != UINT64_MAX,
                               .tcp_port = a->predict_tcp,
                               .tcp_token_file = a->tcp_token_file,
                               .check_in_s = a->check_in_s,
                               .load_timeout_s = a->load_timeout_s,
                               .drain_timeout_s = a->drain_timeout_s,
                               .worker_timeout_s = a->worker_timeout_s,
                               .again = a->again,
                               .kill_at = a->kill_at};
    struct tg_enrolled done = {0};
    if (o.tcp && o.tcp_port > 65535)
        return TG_FAIL(err, TG_E_USAGE, "--predict-tcp: %" PRIu64 " is no port", o.tcp_port);
    if (!o.tcp)
        o.tcp_port = 0;
    TG_TRY(tg_enroll(&o, &done, err));
    return print_enrolled(&done, a->json, err);
}

static TG_RC do_run(const struct args *a, struct tg_err *err)
{
    struct tg_run_opts o = {.state_dir = a->state_dir,
                            .once = a->once,
                            .protection = a->protection,
                            .renew_percent = (unsigned)a->renew_after,
                            .kill_at = a->kill_at};
    if (a->renew_after > 99)
        return TG_FAIL(err, TG_E_USAGE, "--renew-after: 0 to 99");
    TG_TRY(tg_daemon_run(&o, err));
    return a->json ? tg_status_show(a->state_dir, true, err) : TG_OK;
}

static TG_RC do_status(const struct args *a, struct tg_err *err)
{
    return tg_status_show(a->state_dir, a->json, err);
}

static TG_RC do_trust(const struct args *a, struct tg_err *err)
{
    struct tg_state s = TG_STATE_INIT;
    uint64_t version = 0;
    TG_TRY(tg_state_open(&s, a->state_dir, false, err));
    TG_TRY(tg_policy_trust_replace(&s, a->trust_store, &version, err));
    if (a->json)
        printf("{\"version\":%" PRIu64 "}\n", version);
    else
        printf("trust store version %" PRIu64
               " taken; a running agent heeds it at its next check-in (SIGHUP: now)\n",
               version);
    return TG_OK;
}

static enum tg_rc (*const verbs[])(const struct args *, struct tg_err *) = {do_enroll, do_run,
                                                                            do_status, do_trust};

/* ---- the frame ---- */

static void usage(FILE *to)
{
    (void)fprintf(to, PROG " " TG_VERSION ": the device's daemon\n\n");
    for (size_t i = 0; i < TG_ARRAY_LEN(cmds); i++)
        (void)fprintf(to, "  " PROG " %-8s %s\n", cmds[i].name, cmds[i].summary);
    (void)fprintf(to, "\n" PROG " <command> --help says more.\n");
}

static int run_verb(size_t i, int argc, char **argv)
{
    struct args a = {.predict_tcp = UINT64_MAX, .renew_after = TG_RENEW_PERCENT};
    struct tg_opt_list rest = {0};
    struct tg_err err = TG_ERR_INIT;
    bool help = false;
    enum tg_log_level level = TG_LOG_INFO;
    enum tg_rc rc = tg_opt_parse(&cmds[i], argc, argv, &a, &rest, &help, &err);
    if (rc == TG_OK && help)
        tg_opt_help(PROG, &cmds[i]);
    if (rc == TG_OK && a.log_level && tg_log_level_parse(a.log_level, &level) != TG_OK)
        rc = TG_FAIL(&err, TG_E_USAGE, "--log-level: '%s' is none of error, warn, info, debug",
                     a.log_level);
    tg_log_level_set(level);
    if (rc == TG_OK && !help)
        rc = verbs[i](&a, &err);
    tg_opt_done(&cmds[i], &a, &rest);
    if (rc != TG_OK) {
        err.rc = rc;
        tg_complain(PROG, cmds[i].name, a.json || tg_opt_given(argc, argv, "json"), &err);
    }
    return tg_rc_exit(rc);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < TG_ARRAY_LEN(cmds); i++)
        if (strcmp(verb, cmds[i].name) == 0)
            return run_verb(i, argc - 2, argv + 2);
    if (strcmp(verb, "--version") == 0) {
        printf(PROG " " TG_VERSION "\n");
        return 0;
    }
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "help") == 0) {
        usage(stdout);
        return 0;
    }
    if (argc < 2) {
        usage(stderr);
        return tg_rc_exit(TG_E_USAGE);
    }
    struct tg_err err = TG_ERR_INIT;
    tg_err_set(&err, TG_E_USAGE, "no command '%s' (see " PROG " --help)", verb);
    tg_complain(PROG, "", tg_opt_given(argc - 1, argv + 1, "json"), &err);
    return tg_rc_exit(TG_E_USAGE);
}
