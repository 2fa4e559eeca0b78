#include <stddef.h>

#include "base/progress.h"
#include "cli/cli.h"
#include "cli/package.h"

struct verify {
    bool json;
    struct cli_trust_opts trust;
    struct tg_opt_list files;
};

static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    CLI_OPT_TRUST(struct verify, trust),
    CLI_OPT_FILES(struct verify),
    CLI_OPT_END,
};

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct verify *o = opts;
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;

    TG_TRY(cli_trust_from_opts(&o->trust, &trust, err));
    TG_TRY(cli_package_open(args->v[0], &p, err));
    TG_TRY(cli_package_verify(&p, trust, err));
    TG_AUTO(tg_tgsp_select_freep) struct tg_tgsp_select *only = NULL;
    TG_TRY(cli_package_select(&p, &o->files, &only, err));
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar =
        tg_progress_new("verifying", only != NULL ? tg_tgsp_select_bytes(only)
                                                  : tg_tgsp_geometry_get(p.tgsp)->plain_len);
    struct tg_tgsp_run how = {.progress = bar, .only = only};
    TG_TRY(tg_tgsp_check_payload(p.tgsp, &how, err));
    cli_out_bool(&c->out, "verified", "verified", true);
    cli_package_show_select(&c->out, p.tgsp, only);
    cli_package_show_signers(&c->out, p.tgsp);
    cli_package_show(&c->out, p.tgsp);
    return TG_OK;
}

const struct cli_verb cli_verify = {
    .cmd =
        {.name = "verify",
              .args = "F.tgsp",
              .summary = "check every byte of a package against keys you trust",
              .details =
             "Both halves of a signature (Ed25519 and ML-DSA-65) must verify, the header must be\n"
             "what was signed, and every section and every stored chunk must be what the header\n"
             "and manifest say. No private key is needed and nothing is decrypted. With --files\n"
             "only the chunks that hold these files are read, and the answer says so.\n\n"
             "  tensorguard verify m.tgsp --trust keys/signing.pub\n"
             "  tensorguard verify m.tgsp --trust a.pub --trust b.pub --threshold 2\n"
             "  tensorguard verify m.tgsp --trust keys/signing.pub --files 'weights/*.bin'\n", .opts = OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct verify),
    .run = run,
};
