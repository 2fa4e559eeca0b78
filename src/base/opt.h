/* Command lines as tables: one row per option, one table per verb. */
#ifndef TG_BASE_OPT_H
#define TG_BASE_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum tg_opt_kind {
    TG_OPT_FLAG, /* --json            bool */
    TG_OPT_STR,  /* --out DIR         const char * (borrowed from argv) */
    TG_OPT_U64,  /* --threshold N     uint64_t */
    TG_OPT_LIST, /* --trust PUB ...   struct tg_opt_list, repeatable */
    TG_OPT_END
};

#define TG_OPT_LIST_MAX 4096

struct tg_opt_list {
    const char **v; /* owned by the list; strings borrowed from argv */
    size_t n;
};

struct tg_opt {
    const char *name; /* without dashes */
    enum tg_opt_kind kind;
    size_t off; /* where in the verb's struct */
    bool required;
    const char *arg; /* placeholder in --help */
    const char *help;
};

struct tg_cmd {
    const char *name;    /* "fleet create" */
    const char *args;    /* positional placeholders in --help, e.g. "F.tgsp" */
    const char *summary; /* one line */
    const char *details; /* more for --help; may be NULL */
    const struct tg_opt *opts;
    size_t args_min, args_max;
};

/* Parse argv[0..argc) (after the verb) into `into` by cmd->opts; positionals to *args.
 * Accepts "--x v" and "--x=v"; "--" ends options. Unknown, repeated or missing options are
 * TG_E_USAGE and name the option. *help_out is set when --help was given (nothing is required
 * then). Free with tg_opt_done. */
TG_RC tg_opt_parse(const struct tg_cmd *cmd, int argc, char **argv, void *into,
                   struct tg_opt_list *args, bool *help_out, struct tg_err *err);
/* Does the flag --NAME stand in argv before "--"? For what is asked of a program that cannot make
 * sense of the rest of its command line. */
bool tg_opt_given(int argc, char **argv, const char *name);
void tg_opt_list_done(struct tg_opt_list *l);
void tg_opt_done(const struct tg_cmd *cmd, void *into, struct tg_opt_list *args);
/* Print the --help text of one command; prog is "tensorguard". */
void tg_opt_help(const char *prog, const struct tg_cmd *cmd);

#endif
