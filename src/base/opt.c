#include "base/opt.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"

#define SEEN_MAX 64

static const struct tg_opt *find(const struct tg_cmd *cmd, const char *name, size_t n)
{
    const struct tg_opt *o = cmd->opts;

    for (; o != NULL && o->kind != TG_OPT_END; o++)
        if (strlen(o->name) == n && strncmp(o->name, name, n) == 0)
            return o;
    return NULL;
}

static enum tg_rc push(struct tg_opt_list *l, const char *s, struct tg_err *err)
{
    const char **v;

    if (l->n >= TG_OPT_LIST_MAX)
        return TG_FAIL(err, TG_E_USAGE, "more than %d values", TG_OPT_LIST_MAX);
    v = tg_realloc(l->v, (l->n + 1) * sizeof(*v));
    if (v == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    l->v = v;
    l->v[l->n++] = s;
    return TG_OK;
}

static enum tg_rc store(const struct tg_opt *o, const char *value, void *into, struct tg_err *err)
{
    void *at = (char *)into + o->off;

    switch (o->kind) {
    case TG_OPT_FLAG:
        *(bool *)at = true;
        return TG_OK;
    case TG_OPT_STR:
        *(const char **)at = value;
        return TG_OK;
    case TG_OPT_U64:
        if (tg_parse_u64(value, UINT64_MAX, (uint64_t *)at) != TG_OK)
            return TG_FAIL(err, TG_E_USAGE, "--%s: '%s' is not a whole number", o->name, value);
        return TG_OK;
    case TG_OPT_LIST:
        return push(at, value, err);
    case TG_OPT_END:
        break;
    }
    return TG_FAIL(err, TG_E_INTERNAL, "--%s: bad option table", o->name);
}

struct parse {
    const struct tg_cmd *cmd;
    int argc;
    char **argv;
    int i;
    void *into;
    bool seen[SEEN_MAX];
};

/* argv[i] begins with "--" and has a name. */
static enum tg_rc one_option(struct parse *p, struct tg_err *err)
{
    const char *name = p->argv[p->i] + 2;
    const char *eq = strchr(name, '=');
    size_t n = eq != NULL ? (size_t)(eq - name) : strlen(name);
    const struct tg_opt *o = find(p->cmd, name, n);
    const char *value = eq != NULL ? eq + 1 : NULL;
    size_t at;

    if (o == NULL)
        return TG_FAIL(err, TG_E_USAGE, "unknown option --%.*s (see --help)", (int)n, name);
    at = (size_t)(o - p->cmd->opts);
    if (o->kind != TG_OPT_LIST && at < SEEN_MAX && p->seen[at])
        return TG_FAIL(err, TG_E_USAGE, "--%s is given twice", o->name);
    if (o->kind == TG_OPT_FLAG && value != NULL)
        return TG_FAIL(err, TG_E_USAGE, "--%s takes no value", o->name);
    if (o->kind != TG_OPT_FLAG && value == NULL) {
        if (p->i + 1 >= p->argc)
            return TG_FAIL(err, TG_E_USAGE, "--%s needs a value", o->name);
        value = p->argv[++p->i];
    }
    if (at < SEEN_MAX)
        p->seen[at] = true;
    return store(o, value, p->into, err);
}

static enum tg_rc check(const struct parse *p, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct tg_opt *o = p->cmd->opts;

    for (size_t at = 0; o != NULL && o[at].kind != TG_OPT_END; at++)
        if (o[at].required && at < SEEN_MAX && !p->seen[at])
            return TG_FAIL(err, TG_E_USAGE, "--%s is required (see --help)", o[at].name);
    if (args->n < p->cmd->args_min)
        return TG_FAIL(err, TG_E_USAGE, "missing argument: %s (see --help)",
                       p->cmd->args != NULL ? p->cmd->args : "");
    if (args->n > p->cmd->args_max)
        return TG_FAIL(err, TG_E_USAGE, "unexpected argument '%s' (see --help)",
                       args->v[p->cmd->args_max]);
    return TG_OK;
}

enum tg_rc tg_opt_parse(const struct tg_cmd *cmd, int argc, char **argv, void *into,
                        struct tg_opt_list *args, bool *help_out, struct tg_err *err)
{
    struct parse p = {.cmd = cmd, .argc = argc, .argv = argv, .into = into};
    bool only_args = false;

    *help_out = false;
    for (p.i = 0; p.i < argc; p.i++) {
        const char *a = argv[p.i];

        if (only_args || a[0] != '-' || a[1] == '\0') {
            TG_TRY(push(args, a, err));
        } else if (strcmp(a, "--") == 0) {
            only_args = true;
        } else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            *help_out = true;
        } else if (a[1] != '-') {
            return TG_FAIL(err, TG_E_USAGE, "unknown option %s (see --help)", a);
        } else {
            TG_TRY(one_option(&p, err));
        }
    }
    return *help_out ? TG_OK : check(&p, args, err);
}

bool tg_opt_given(int argc, char **argv, const char *name)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0)
            return true;
    return false;
}

void tg_opt_list_done(struct tg_opt_list *l)
{
    tg_free(l->v);
    l->v = NULL;
    l->n = 0;
}

void tg_opt_done(const struct tg_cmd *cmd, void *into, struct tg_opt_list *args)
{
    for (const struct tg_opt *o = cmd->opts; o != NULL && o->kind != TG_OPT_END; o++)
        if (o->kind == TG_OPT_LIST)
            tg_opt_list_done((struct tg_opt_list *)(void *)((char *)into + o->off));
    tg_opt_list_done(args);
}

enum { HELP_LEFT = 26, HELP_WIDTH = 80 };

/* Words of `text` from column `left` to HELP_WIDTH; the cursor stands at column `at`. */
static void print_wrapped(const char *text, size_t at, size_t left)
{
    bool first = true;

    for (const char *p = text; *p != '\0';) {
        size_t n = strcspn(p, " ");

        if (!first && at + 1 + n > HELP_WIDTH) {
            printf("\n%*s", (int)left, "");
            at = left;
        } else if (!first) {
            printf(" ");
            at++;
        }
        printf("%.*s", (int)n, p);
        at += n;
        first = false;
        p += n;
        p += strspn(p, " ");
    }
    printf("\n");
}

static void print_option(const struct tg_opt *o)
{
    char left[64];
    char text[512];
    int n = snprintf(left, sizeof(left), "  --%s%s%s", o->name, o->arg != NULL ? " " : "",
                     o->arg != NULL ? o->arg : "");

    (void)snprintf(text, sizeof(text), "%s%s%s", o->help != NULL ? o->help : "",
                   o->kind == TG_OPT_LIST ? " (repeatable)" : "", o->required ? " (required)" : "");
    if (n >= HELP_LEFT)
        printf("%s\n%*s", left, HELP_LEFT, "");
    else
        printf("%-*s", HELP_LEFT, left);
    print_wrapped(text, HELP_LEFT, HELP_LEFT);
}

void tg_opt_help(const char *prog, const struct tg_cmd *cmd)
{
    static const struct tg_opt help = {.name = "help", .help = "show this text"};
    bool args = cmd->args != NULL && cmd->args[0] != '\0';

    printf("Usage: %s%s%s%s%s [options]\n\n", prog, cmd->name[0] != '\0' ? " " : "", cmd->name,
           args ? " " : "", args ? cmd->args : "");
    print_wrapped(cmd->summary, 0, 0);
    if (cmd->details != NULL)
        printf("\n%s%s", cmd->details, cmd->details[strlen(cmd->details) - 1] == '\n' ? "" : "\n");
    printf("\nOptions:\n");
    for (const struct tg_opt *o = cmd->opts; o != NULL && o->kind != TG_OPT_END; o++)
        print_option(o);
    print_option(&help);
}
