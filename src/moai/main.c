#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/opt.h"
#include "codec/complain.h"
#include "moai/protect.h"
#include "moai/sandbox.h"
#include "moai/verify_memory.h"
#include "moai/worker.h"

#define PROG "tensorguard-moai"

#ifdef TG_SANITIZED
/* The leak check at exit needs ptrace, which an undumpable process forbids. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

struct worker_args {
    uint64_t package, grant, trust, key, rollback, deployment, bake_in, bake_out, arrival;
    uint64_t control, token, threads, native, native_spin, memory_max;
    struct tg_opt_list listen, takers;
    const char *fleet, *device_id, *user, *protection, *log_level;
    bool json;
};

#define JSON(type, text)                                                                           \
    {                                                                                              \
        "json", TG_OPT_FLAG, offsetof(type, json), false, NULL, text                               \
    }

#define FD(option, member, req, text)                                                              \
    {                                                                                              \
        option, TG_OPT_U64, offsetof(struct worker_args, member), req, "N", text                   \
    }

// clang-format off
#define STR(option, member, req, arg, text)                                                        \
    {                                                                                              \
        option, TG_OPT_STR, offsetof(struct worker_args, member), req, arg, text                   \
    }

static const struct tg_opt worker_opts[] = {
    FD("package-fd", package, true, "descriptor of the .tgsp"),
    FD("grant-fd", grant, false, "descriptor of a .tgrant, where the package has no block for us"),
    FD("trust-fd", trust, true, "descriptor of the .tgtrust"),
    FD("key-fd", key, true, "descriptor of kem.priv"),
    FD("rollback-fd", rollback, true, "descriptor of the rollback record"),
    FD("deployment-fd", deployment, false, "descriptor of the .tgdeploy"),
    FD("bake-in-fd", bake_in, false, "descriptor of a sealed bake of an earlier start"),
    FD("bake-out-fd", bake_out, false, "descriptor of an empty file for a new one"),
    FD("arrival-fd", arrival, false, "descriptor of the page that says what of the .tgsp has come"),
    FD("control-fd", control, true, "descriptor of the control channel (SOCK_SEQPACKET)"),
    FD("token-fd", token, false, "descriptor of the TCP token's SHA-256 in hex"),
    FD("native-fd", native, false, "descriptor of the native socket (SOCK_SEQPACKET, listening)"),
    FD("native-spin-us", native_spin, false,
       "microseconds to look for the next call through shared memory before sleeping (default 0)"),
    {"listen-fd", TG_OPT_LIST, offsetof(struct worker_args, listen), true, "N",
     "descriptor of a listening socket, Unix or loopback TCP (repeatable)"},
    {"handover-uid", TG_OPT_LIST, offsetof(struct worker_args, takers), false, "UID",
     "a user that may be handed files of the package over the native socket (repeatable)"},
    STR("fleet", fleet, true, "NAME", "this device's fleet, as fixed at enrolment"),
    STR("device-id", device_id, true, "ID", "this device"),
    FD("threads", threads, false,
       "threads inside the model and for decryption (default: all processors)"),
    FD(TG_PROTECT_MEMORY, memory_max, false,
       "MiB of memory that may be used beyond what the program itself needs (default: as much as "
       "the machine has)"),
    STR("user", user, false, "U", "become this user first (needs root)"),
    STR(TG_PROTECT_OPTION, protection, false, "LEVEL",
        "what memory must be at least: secret, locked (default) or any"),
    STR("log-level", log_level, false, "L", "error, warn, info (default) or debug"),
    JSON(struct worker_args, "print a failure as one JSON object, besides the log"),
    {NULL, TG_OPT_END, 0, false, NULL, NULL},
};
// clang-format on

static const struct tg_cmd worker_cmd = {
    "worker",
    "",
    "verify, decrypt and serve one package; started by tensorguard-agent",
    "Takes descriptors, never paths. See docs/moai.md and docs/architecture.md.\n",
    worker_opts,
    0,
    0,
};

struct memory_args {
    bool verify, json;
    const char *package, *next, *trust, *key, *fleet, *device_id, *protection;
    struct tg_opt_list handover;
    uint64_t threads;
};

#define MEMORY(kind, option, member, req, arg, text)                                               \
    {                                                                                              \
        option, kind, offsetof(struct memory_args, member), req, arg, text                         \
    }

static const struct tg_opt memory_opts[] = {
    MEMORY(TG_OPT_FLAG, "verify-memory", verify, true, NULL,
           "load a model as the worker does, and search all of this process for its weights"),
    MEMORY(TG_OPT_STR, "package", package, true, "F", "the .tgsp"),
    MEMORY(TG_OPT_STR, "next", next, false, "F", "a later version to swap to (default: the same)"),
    MEMORY(TG_OPT_STR, "trust", trust, true, "F", "the .tgtrust"),
    MEMORY(TG_OPT_STR, "key", key, true, "F", "a kem.priv that the packages have a block for"),
    MEMORY(TG_OPT_LIST, "handover", handover, false, "FILE",
           "a file of the package to hand over, and list with its size (repeatable)"),
    MEMORY(TG_OPT_STR, "fleet", fleet, false, "NAME", "as on the worker's command line"),
    MEMORY(TG_OPT_STR, "device-id", device_id, false, "ID", "as on the worker's command line"),
    MEMORY(TG_OPT_STR, TG_PROTECT_OPTION, protection, false, "LEVEL",
           "secret, locked (default) or any"),
    MEMORY(TG_OPT_U64, "threads", threads, false, "N", "default: all processors"),
    JSON(struct memory_args, "print what was found as one JSON object"),
    {NULL, TG_OPT_END, 0, false, NULL, NULL},
};

static const struct tg_cmd memory_cmd = {
    "", "", "search the worker's memory for weights", NULL, memory_opts, 0, 0,
};

struct key_args {
    bool make_key, json;
    const char *out, *user;
};

#define KEY(kind, option, member, req, arg, text)                                                  \
    {                                                                                              \
        option, kind, offsetof(struct key_args, member), req, arg, text                            \
    }

// clang-format off
static const struct tg_opt key_opts[] = {
    KEY(TG_OPT_FLAG, "make-key", make_key, true, NULL, "make this device's KEM key"),
    KEY(TG_OPT_STR, "out", out, false, "DIR",
        "where kem.priv (0600) and kem.pub go; without it: kem.priv here, the public half to stdout"),
    KEY(TG_OPT_STR, "user", user, false, "U", "become this user first (needs root)"),
    JSON(struct key_args, "print paths, key id and public half as one JSON object"),
    {NULL, TG_OPT_END, 0, false, NULL, NULL},
};
// clang-format on

static const struct tg_cmd key_cmd = {
    "", "", "make the device's KEM key pair", NULL, key_opts, 0, 0,
};

static enum tg_rc to_fd(const char *name, uint64_t n, int *out, struct tg_err *err)
{
    if (n == UINT64_MAX) {
        *out = -1;
        return TG_OK;
    }
    if (n < 3 || n > 65535)
        return TG_FAIL(err, TG_E_USAGE, "--%s: descriptors are 3 to 65535", name);
    *out = (int)n;
    return TG_OK;
}

static enum tg_rc to_takers(const struct worker_args *a, struct tg_worker_opts *o,
                            struct tg_err *err)
{
    if (a->takers.n > TG_HANDOVER_USERS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--handover-uid: at most %d", TG_HANDOVER_USERS_MAX);
    for (; o->n_takers < a->takers.n; o->n_takers++) {
        uint64_t uid = 0;

        if (tg_parse_u64(a->takers.v[o->n_takers], UINT32_MAX - 1, &uid) != TG_OK)
            return TG_FAIL(err, TG_E_USAGE, "--handover-uid: '%s' is no number of a user",
                           a->takers.v[o->n_takers]);
        o->takers[o->n_takers] = (uid_t)uid;
    }
    return TG_OK;
}

static enum tg_rc to_opts(const struct worker_args *a, struct tg_worker_opts *o, struct tg_err *err)
{
    const struct {
        const char *name;
        uint64_t from;
        int *to;
    } fds[] = {
        {"package-fd",    a->package,    &o->package   },
        {"grant-fd",      a->grant,      &o->grant     },
        {"trust-fd",      a->trust,      &o->trust     },
        {"key-fd",        a->key,        &o->key       },
        {"rollback-fd",   a->rollback,   &o->rollback  },
        {"deployment-fd", a->deployment, &o->deployment},
        {"bake-in-fd",    a->bake_in,    &o->bake_in   },
        {"bake-out-fd",   a->bake_out,   &o->bake_out  },
        {"arrival-fd",    a->arrival,    &o->arrival   },
        {"control-fd",    a->control,    &o->control   },
        {"token-fd",      a->token,      &o->token     },
        {"native-fd",     a->native,     &o->native    },
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(fds); i++)
        TG_TRY(to_fd(fds[i].name, fds[i].from, fds[i].to, err));
    if (a->listen.n > TG_SERVICE_LISTENERS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--listen-fd: at most %d", TG_SERVICE_LISTENERS_MAX);
    for (; o->n_listen < a->listen.n; o->n_listen++) {
        uint64_t n = 0;

        if (tg_parse_u64(a->listen.v[o->n_listen], 65535, &n) != TG_OK)
            return TG_FAIL(err, TG_E_USAGE, "--listen-fd: '%s' is not a descriptor",
                           a->listen.v[o->n_listen]);
        TG_TRY(to_fd("listen-fd", n, &o->listen[o->n_listen], err));
    }
    if (a->threads > 1024)
        return TG_FAIL(err, TG_E_USAGE, "--threads: at most 1024");
    TG_TRY(to_takers(a, o, err));
    if (a->native_spin > 1000000)
        return TG_FAIL(err, TG_E_USAGE, "--native-spin-us: at most 1000000");
    o->native_spin_us = a->native_spin;
    if (a->memory_max > TG_PROTECT_MEMORY_MAX) /* tg_protect_begin went by it */
        return TG_FAIL(err, TG_E_USAGE, "--" TG_PROTECT_MEMORY ": at most %" PRIu64 " MiB",
                       TG_PROTECT_MEMORY_MAX);
    o->threads = (unsigned)a->threads;
    o->fleet = a->fleet;
    o->device_id = a->device_id;
    o->user = a->user;
    o->protection = TG_LEVEL_LOCKED;
    if (a->protection != NULL && !tg_protect_parse(a->protection, &o->protection))
        return TG_FAIL(err, TG_E_USAGE, "--" TG_PROTECT_OPTION ": secret, locked or any");
    return TG_OK;
}

/* The code that the process exits with is the one that is told. */
static const struct tg_err *failure(struct tg_err *err, enum tg_rc rc)
{
    err->rc = rc;
    return err;
}

static enum tg_rc worker_verb(int argc, char **argv, struct tg_err *err)
{
    struct worker_args a = {.package = UINT64_MAX,
                            .grant = UINT64_MAX,
                            .trust = UINT64_MAX,
                            .key = UINT64_MAX,
                            .rollback = UINT64_MAX,
                            .deployment = UINT64_MAX,
                            .bake_in = UINT64_MAX,
                            .bake_out = UINT64_MAX,
                            .arrival = UINT64_MAX,
                            .control = UINT64_MAX,
                            .token = UINT64_MAX,
                            .native = UINT64_MAX};
    struct tg_opt_list rest = {NULL, 0};
    struct tg_worker_opts o = {.n_listen = 0};
    enum tg_log_level level = TG_LOG_INFO;
    bool help = false;
    enum tg_rc rc = tg_opt_parse(&worker_cmd, argc, argv, &a, &rest, &help, err);

    if (rc == TG_OK && help)
        tg_opt_help(PROG, &worker_cmd);
    if (rc == TG_OK && !help && a.log_level != NULL &&
        tg_log_level_parse(a.log_level, &level) != TG_OK)
        rc = TG_FAIL(err, TG_E_USAGE, "--log-level: error, warn, info or debug");
    tg_log_level_set(level);
    if (rc == TG_OK && !help)
        rc = to_opts(&a, &o, err);
    if (rc == TG_OK && !help) {
        rc = tg_worker_run(&o, err);
        if (rc != TG_OK) {
            tg_log_err("moai.failed", err);
            if (a.json)
                tg_complain_json(failure(err, rc));
        }
    } else if (rc != TG_OK) {
        tg_complain(PROG, "worker", tg_opt_given(argc, argv, "json"), failure(err, rc));
    }
    tg_opt_done(&worker_cmd, &a, &rest);
    return rc;
}

static enum tg_rc key_verb(int argc, char **argv, struct tg_err *err)
{
    struct key_args a = {.make_key = false};
    struct tg_opt_list rest = {NULL, 0};
    bool help = false;
    enum tg_rc rc = tg_opt_parse(&key_cmd, argc, argv, &a, &rest, &help, err);

    if (rc == TG_OK && help) {
        tg_opt_help(PROG, &key_cmd);
        tg_opt_help(PROG, &memory_cmd);
        tg_opt_help(PROG, &worker_cmd);
    } else if (rc == TG_OK) {
        const struct tg_make_key_opts o = {a.out, a.user, a.json};

        rc = tg_moai_make_key(&o, err);
    }
    if (rc != TG_OK)
        tg_complain(PROG, "", tg_opt_given(argc, argv, "json"), failure(err, rc));
    tg_opt_done(&key_cmd, &a, &rest);
    return rc;
}

static enum tg_rc memory_run(const struct memory_args *a, bool *answered, struct tg_err *err)
{
    struct tg_verify_memory_opts o = {
        .package = a->package,
        .next = a->next,
        .trust = a->trust,
        .key = a->key,
        .fleet = a->fleet != NULL ? a->fleet : "",
        .device_id = a->device_id != NULL ? a->device_id : "",
        .protection = TG_LEVEL_LOCKED,
        .handover = a->handover.v,
        .n_handover = a->handover.n,
        .threads = (unsigned)a->threads,
        .json = a->json,
        .answered = answered,
    };

    if (a->protection != NULL && !tg_protect_parse(a->protection, &o.protection))
        return TG_FAIL(err, TG_E_USAGE, "--" TG_PROTECT_OPTION ": secret, locked or any");
    if (a->threads > 1024)
        return TG_FAIL(err, TG_E_USAGE, "--threads: at most 1024");
    if (a->handover.n > TG_HANDOVER_BURST)
        return TG_FAIL(err, TG_E_USAGE, "--handover: at most %d", TG_HANDOVER_BURST);
    return tg_verify_memory(&o, err);
}

static enum tg_rc memory_verb(int argc, char **argv, struct tg_err *err)
{
    struct memory_args a = {.verify = false};
    struct tg_opt_list rest = {NULL, 0};
    bool help = false, answered = false;
    enum tg_rc rc = tg_opt_parse(&memory_cmd, argc, argv, &a, &rest, &help, err);

    if (rc == TG_OK && help)
        tg_opt_help(PROG, &memory_cmd);
    else if (rc == TG_OK)
        rc = memory_run(&a, &answered, err);
    if (rc != TG_OK)
        tg_complain(PROG, "--verify-memory", !answered && tg_opt_given(argc, argv, "json"),
                    failure(err, rc));
    tg_opt_done(&memory_cmd, &a, &rest);
    return rc;
}

int main(int argc, char **argv)
{
    struct tg_err err = TG_ERR_INIT;

    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return tg_rc_exit(worker_verb(argc - 2, argv + 2, &err));
    if (argc > 1 && strcmp(argv[1], "--verify-memory") == 0)
        return tg_rc_exit(memory_verb(argc - 1, argv + 1, &err));
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        (void)printf(PROG " %s\n", TG_VERSION);
        return 0;
    }
    return tg_rc_exit(key_verb(argc - 1, argv + 1, &err));
}
