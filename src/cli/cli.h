/* What the verbs of `tensorguard` share: the shape of a verb and what it is handed. */
#ifndef TG_CLI_CLI_H
#define TG_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/opt.h"
#include "cli/out.h"

struct cli_verb;

struct cli {
    struct cli_out out; /* printed by main when the verb succeeded, so that no answer is half one */
    const struct cli_verb *verb;
    bool answered; /* the verb printed its answer itself, although it failed */
};

/* opts: the verb's own struct, filled by its option table; its first member is `bool json`.
 * args: the positional arguments, within the verb's args_min..args_max. */
typedef enum tg_rc cli_fn(struct cli *c, void *opts, const struct tg_opt_list *args,
                          struct tg_err *err);

struct cli_verb {
    struct tg_cmd cmd;
    size_t opts_size;
    cli_fn *run;
    const void *data; /* for functions that several verbs share */
};

/* Every option table starts with this row. */
#define CLI_OPT_JSON                                                                               \
    {                                                                                              \
        "json", TG_OPT_FLAG, 0, false, NULL, "print the result as one JSON object"                 \
    }
#define CLI_OPT_END                                                                                \
    {                                                                                              \
        NULL, TG_OPT_END, 0, false, NULL, NULL                                                     \
    }

/* Verbs, by the file they live in. */
extern const struct cli_verb cli_keygen, cli_build, cli_inspect, cli_verify, cli_open, cli_sign,
    cli_grant;
extern const struct cli_verb cli_trust_init, cli_trust_add, cli_trust_remove, cli_trust_sign,
    cli_trust_show;
extern const struct cli_verb cli_login, cli_publish, cli_package_grant, cli_deploy, cli_status,
    cli_audit, cli_predict;
extern const struct cli_verb cli_resource_verbs[]; /* fleet, device, ...; ends with a NULL name */

#endif
