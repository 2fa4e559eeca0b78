/* tensorguard: the author's and operator's command line. */
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "codec/complain.h"

static const char PROG[] = "tensorguard";

/* Every verb, in the order of the help text. A row with a title opens a group. */
struct row {
    const char *title;
    const struct cli_verb *verb;
};

static const struct row ROWS[] = {
    {"Keys and packages", &cli_keygen       },
    {NULL,                &cli_build        },
    {NULL,                &cli_inspect      },
    {NULL,                &cli_verify       },
    {NULL,                &cli_open         },
    {NULL,                &cli_sign         },
    {NULL,                &cli_grant        },
    {"Trust stores",      &cli_trust_init   },
    {NULL,                &cli_trust_add    },
    {NULL,                &cli_trust_remove },
    {NULL,                &cli_trust_sign   },
    {NULL,                &cli_trust_show   },
    {"Platform",          &cli_login        },
    {NULL,                &cli_publish      },
    {NULL,                &cli_package_grant},
    {NULL,                &cli_deploy       },
    {NULL,                &cli_status       },
    {NULL,                &cli_audit        },
    {"Device",            &cli_predict      },
};

static const char HELP_TAIL[] =
    "\n`tensorguard COMMAND --help` says more about one command; `tensorguard tgsp build` and the\n"
    "like are the same commands. Exit status: 0 done, 2 usage, 3 I/O, 4 format, 5 not authentic,\n"
    "6 not for this key, 7 expired or rolled back; the full table is in docs/cli.md.\n";

static size_t words(const char *name)
{
    return strchr(name, ' ') == NULL ? 1 : 2;
}

/* Does the verb's name stand at argv[0..]? */
static bool named(const struct cli_verb *v, int argc, char **argv)
{
    const char *space = strchr(v->cmd.name, ' ');
    if (argc < (int)words(v->cmd.name))
        return false;
    if (space == NULL)
        return strcmp(argv[0], v->cmd.name) == 0;
    size_t n = (size_t)(space - v->cmd.name);
    return strlen(argv[0]) == n && strncmp(argv[0], v->cmd.name, n) == 0 &&
           strcmp(argv[1], space + 1) == 0;
}

/* The verb at argv[0..]; of "audit" and "audit verify" the longer name. */
static const struct cli_verb *find(int argc, char **argv)
{
    const struct cli_verb *best = NULL;

    for (size_t i = 0; i < TG_ARRAY_LEN(ROWS); i++)
        if (named(ROWS[i].verb, argc, argv))
            best = ROWS[i].verb;
    for (const struct cli_verb *v = cli_resource_verbs; v->cmd.name != NULL; v++)
        if (named(v, argc, argv) && (best == NULL || words(v->cmd.name) > words(best->cmd.name)))
            best = v;
    return best;
}

static void help_line(const struct cli_verb *v)
{
    (void)printf("  %-26s %s\n", v->cmd.name, v->cmd.summary);
}

static bool in_group(const struct cli_verb *v, const char *group)
{
    size_t n = strlen(group);
    return strncmp(v->cmd.name, group, n) == 0 && v->cmd.name[n] == ' ';
}

/* Help on "trust", "fleet" and the like; false when there is no such group. */
static bool help_group(const char *group)
{
    bool any = false;
    for (size_t i = 0; i < TG_ARRAY_LEN(ROWS); i++)
        any = any || in_group(ROWS[i].verb, group);
    for (const struct cli_verb *v = cli_resource_verbs; v->cmd.name != NULL; v++)
        any = any || in_group(v, group);
    if (!any)
        return false;
    (void)printf("Usage: %s %s COMMAND [options]\n\n", PROG, group);
    for (size_t i = 0; i < TG_ARRAY_LEN(ROWS); i++)
        if (in_group(ROWS[i].verb, group))
            help_line(ROWS[i].verb);
    for (const struct cli_verb *v = cli_resource_verbs; v->cmd.name != NULL; v++)
        if (in_group(v, group))
            help_line(v);
    return true;
}

static void help_all(void)
{
    (void)printf("Usage: %s COMMAND [options]\n\n"
                 "Pack, encrypt and sign models; decide who may open them and where they run.\n",
                 PROG);
    for (size_t i = 0; i < TG_ARRAY_LEN(ROWS); i++) {
        if (ROWS[i].title != NULL)
            (void)printf("\n%s\n", ROWS[i].title);
        help_line(ROWS[i].verb);
        if (ROWS[i].verb == &cli_audit)
            for (const struct cli_verb *v = cli_resource_verbs; v->cmd.name != NULL; v++)
                help_line(v);
    }
    (void)fputs(HELP_TAIL, stdout);
}

static enum tg_rc run_verb(const struct cli_verb *v, int argc, char **argv, bool *json,
                           struct tg_err *err)
{
    TG_AUTO(tg_freep) void *opts = tg_calloc(1, v->opts_size);
    struct tg_opt_list args = {0};
    struct cli c = {.verb = v};
    bool help = false;

    if (opts == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    enum tg_rc rc = tg_opt_parse(&v->cmd, argc, argv, opts, &args, &help, err);
    *json = *(const bool *)opts || (rc != TG_OK && tg_opt_given(argc, argv, "json"));
    cli_out_init(&c.out, *json);
    if (rc == TG_OK && help) {
        tg_opt_help(PROG, &v->cmd);
    } else if (rc == TG_OK) {
        rc = v->run(&c, opts, &args, err);
        if (rc == TG_OK)
            rc = cli_out_print(&c.out, err);
    }
    *json = *json && !c.answered;
    cli_out_done(&c.out);
    tg_opt_done(&v->cmd, opts, &args);
    return rc;
}

static bool is_help(const char *s)
{
    return strcmp(s, "--help") == 0 || strcmp(s, "-h") == 0 || strcmp(s, "help") == 0;
}

/* Nothing has that name; of "trust" and the like the help says which commands there are. */
static int no_verb(int argc, char **argv)
{
    struct tg_err err = TG_ERR_INIT;
    bool second = argc > 1 && argv[1][0] != '-';

    if ((argc == 1 || is_help(argv[1])) && help_group(argv[0]))
        return argc == 1 ? tg_rc_exit(TG_E_USAGE) : 0;
    if (argv[0][0] == '-')
        tg_err_set(&err, TG_E_USAGE, "%s: the command comes first (see %s --help)", argv[0], PROG);
    else
        tg_err_set(&err, TG_E_USAGE, "no command '%s%s%s' (see %s --help)", argv[0],
                   second ? " " : "", second ? argv[1] : "", PROG);
    tg_complain(PROG, "", tg_opt_given(argc, argv, "json"), &err);
    return tg_rc_exit(TG_E_USAGE);
}

int main(int argc, char **argv)
{
    struct tg_err err = TG_ERR_INIT;
    bool json = false;
    int at = 1;

    if (argc < 2) {
        help_all();
        return tg_rc_exit(TG_E_USAGE);
    }
    if (is_help(argv[1]) && argc == 2) {
        help_all();
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("%s " TG_VERSION "\n", PROG);
        return 0;
    }
    if (strcmp(argv[1], "tgsp") == 0 && argc > 2)
        at = 2;
    const struct cli_verb *v = find(argc - at, argv + at);
    if (v == NULL)
        return no_verb(argc - at, argv + at);
    int skip = at + (int)words(v->cmd.name);
    enum tg_rc rc = run_verb(v, argc - skip, argv + skip, &json, &err);
    if (rc != TG_OK) {
        err.rc = rc;
        (void)!cli_signals_check(&err); /* then what failed is not the news */
        tg_complain(PROG, v->cmd.name, json, &err);
        cli_signals_die();
    }
    return tg_rc_exit(rc);
}
