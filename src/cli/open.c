#include <stddef.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "cli/signals.h"
#include "tgsp/extract.h"
#include "tgsp/grant.h"

struct open_opts {
    bool json;
    const char *key;
    const char *grant;
    const char *out_dir;
    const char *passphrase_file;
    struct cli_trust_opts trust;
    struct tg_opt_list files;
};

static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"key",     TG_OPT_STR, offsetof(struct open_opts, key),     true,  "KEY",      "your encryption.priv"},
    CLI_OPT_TRUST(struct open_opts, trust),
    {"out-dir", TG_OPT_STR, offsetof(struct open_opts, out_dir), true,  "DIR",
      "folder to make; it must not exist, or be empty"                                                     },
    {"grant",   TG_OPT_STR, offsetof(struct open_opts, grant),   false, "G.tgrant",
      "the grant that gives your key access, if the package itself does not"                               },
    CLI_OPT_FILES(struct open_opts),
    CLI_OPT_PASSPHRASE(struct open_opts),
    CLI_OPT_END,
};

static enum tg_rc unwrap(struct tg_tgsp *p, const struct open_opts *o, const struct tg_trust *trust,
                         const struct tg_kem_sk *key, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;

    if (o->grant == NULL)
        return tg_tgsp_unwrap(p, key, err);
    TG_TRY(tg_file_read(o->grant, &text, err));
    TG_TRY(tg_grant_decode(tg_buf_view(&text), o->grant, &g, err));
    return tg_tgsp_unwrap_grant(p, g, trust, tg_clock_now(), key, err);
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct open_opts *o = opts;
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *key = NULL;

    TG_TRY(cli_trust_from_opts(&o->trust, &trust, err));
    TG_TRY(cli_kem_sk_load(o->key, o->passphrase_file, &key, err));
    cli_signals_catch();
    TG_TRY(cli_package_open(args->v[0], &p, err));
    TG_TRY(cli_package_verify(&p, trust, err));
    TG_TRY(unwrap(p.tgsp, o, trust, key, err));
    TG_AUTO(tg_tgsp_select_freep) struct tg_tgsp_select *only = NULL;
    TG_TRY(cli_package_select(&p, &o->files, &only, err));
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar =
        tg_progress_new("opening", only != NULL ? tg_tgsp_select_bytes(only)
                                                : tg_tgsp_geometry_get(p.tgsp)->plain_len);
    struct tg_tgsp_run how = {.progress = bar, .only = only};
    TG_TRY(tg_tgsp_extract(p.tgsp, o->out_dir, &how, err));
    cli_out_str(&c->out, "out_dir", "opened to", o->out_dir);
    cli_out_bool(&c->out, "verified", "verified", true);
    cli_package_show_select(&c->out, p.tgsp, only);
    cli_package_show_signers(&c->out, p.tgsp);
    cli_package_show(&c->out, p.tgsp);
    return TG_OK;
}

const struct cli_verb cli_open = {
    .cmd =
        {.name = "open",
              .args = "F.tgsp",
              .summary = "verify a package, then decrypt its files into a new folder",
              .details =
             "Nothing is written before the signatures are verified, no file has its name before\n"
             "all its chunks passed, and nothing stays behind when anything fails. Files are made\n"
             "0600 and folders 0700, inside DIR and nowhere else. With --files only these are\n"
             "made, and only their chunks are read. (Devices never do this: they decrypt straight\n"
             "into locked memory.)\n\n"
             "  tensorguard open m.tgsp --key keys/encryption.priv --trust keys/signing.pub \\\n"
             "                   --out-dir ./restored\n", .opts = OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct open_opts),
    .run = run,
};
