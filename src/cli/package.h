/* What the commands on packages share: opening the file, whose signatures count, showing facts. */
#ifndef TG_CLI_PACKAGE_H
#define TG_CLI_PACKAGE_H

#include <stdint.h>

#include "base/err.h"
#include "base/opt.h"
#include "base/progress.h"
#include "cli/out.h"
#include "tgsp/package.h"
#include "tgsp/src.h"
#include "tgsp/trust.h"

/* A package file; CLI_PACKAGE_INIT is always legal to cli_package_done. */
struct cli_package {
    int fd;
    struct tg_src src;
    struct tg_tgsp *tgsp;
};

#define CLI_PACKAGE_INIT ((struct cli_package){.fd = -1})

TG_RC cli_package_open(const char *path, struct cli_package *p, struct tg_err *err);
void cli_package_done(struct cli_package *p);

TG_DEFINE_AUTO(struct tg_progress, cli_progress_freep, tg_progress_free);

/* The options --trust, --trust-store and --threshold of a command. */
struct cli_trust_opts {
    struct tg_opt_list trust; /* signing.pub files: roles author and granter, for every model */
    const char *store;        /* a .tgtrust file, instead */
    const char *threshold;    /* signatures needed, with --trust only; NULL: 1 */
};

#define CLI_OPT_TRUST(type, member)                                                                \
    {"trust", TG_OPT_LIST, offsetof(type, member.trust),                                           \
     false,   "PUB",       "believe signatures of this key"},                                      \
        {"trust-store", TG_OPT_STR, offsetof(type, member.store),                                  \
         false,         "FILE",     "believe the keys of this trust store instead"},               \
    {                                                                                              \
        "threshold", TG_OPT_STR, offsetof(type, member.threshold), false, "N",                     \
            "signatures of N distinct --trust keys are needed (default 1)"                         \
    }

/* @retval TG_E_USAGE neither or both of --trust and --trust-store, or a threshold that could never
 *                    be met */
TG_RC cli_trust_from_opts(const struct cli_trust_opts *o, struct tg_trust **out,
                          struct tg_err *err);
TG_RC cli_trust_load(const char *path, struct tg_trust **out, struct tg_err *err);
/* Add the key in a .pub file. */
TG_RC cli_trust_add_pub(struct tg_trust *t, const char *path, unsigned roles, struct tg_err *err);

/* Signatures, trust, model name, threshold, and time against the clock. */
TG_RC cli_package_verify(struct cli_package *p, const struct tg_trust *trust, struct tg_err *err);

/* The option --files of a command: which files of the package it is about. */
#define CLI_OPT_FILES(type)                                                                        \
    {                                                                                              \
        "files", TG_OPT_LIST, offsetof(type, files), false, "PATTERN",                             \
            "only these files; a folder stands for all beneath it, * stops at /"                   \
    }

/* *out stays NULL when no pattern is given: everything. After cli_package_verify. */
TG_RC cli_package_select(const struct cli_package *p, const struct tg_opt_list *patterns,
                         struct tg_tgsp_select **out, struct tg_err *err);
/* Which part of the package that was; nothing when s is NULL. */
void cli_package_show_select(struct cli_out *o, const struct tg_tgsp *p,
                             const struct tg_tgsp_select *s);

/* Facts of a parsed package: identity, model, validity, constraints, payload. */
void cli_package_show(struct cli_out *o, const struct tg_tgsp *p);
/* The key ids that verified and counted. */
void cli_package_show_signers(struct cli_out *o, const struct tg_tgsp *p);

/* A time a person wrote: YYYY-MM-DDTHH:MM:SSZ, YYYY-MM-DD (midnight UTC), or +N with s, m, h, d
 * from now. `what` names the option in errors. @retval TG_E_USAGE */
TG_RC cli_time_parse(const char *what, const char *text, int64_t now, int64_t *out,
                     struct tg_err *err);
/* A whole number up to max. @retval TG_E_USAGE */
TG_RC cli_number_parse(const char *what, const char *text, uint64_t max, uint64_t *out,
                       struct tg_err *err);

#endif
