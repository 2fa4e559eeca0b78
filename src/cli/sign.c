#include <stddef.h>

#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "cli/signals.h"
#include "tgsp/build.h"

struct sign {
    bool json;
    const char *signing_key;
    const char *out;
    const char *passphrase_file;
    struct cli_trust_opts trust;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"signing-key", TG_OPT_STR, offsetof(struct sign, signing_key), true, "KEY", "your signing.priv"},
    CLI_OPT_PASSPHRASE(struct sign),
    {"out", TG_OPT_STR, offsetof(struct sign, out), false, "FILE", "write the co-signed copy there instead of replacing F.tgsp"},
    CLI_OPT_TRUST(struct sign, trust),
    CLI_OPT_END,
};

/* clang-format on */

/* Who co-signs without looking can ask to have the first signatures checked. */
static enum tg_rc check_first(const struct sign *o, struct cli_package *p, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;

    if (o->trust.trust.n == 0 && o->trust.store == NULL)
        return TG_OK;
    TG_TRY(cli_trust_from_opts(&o->trust, &trust, err));
    return cli_package_verify(p, trust, err);
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct sign *o = opts;
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *key = NULL;
    const char *out = o->out != NULL ? o->out : args->v[0];

    TG_TRY(cli_sign_sk_load(o->signing_key, o->passphrase_file, &key, NULL, err));
    cli_signals_catch();
    TG_TRY(cli_package_open(args->v[0], &p, err));
    TG_TRY(check_first(o, &p, err));
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar = tg_progress_new("signing", 2 * p.src.size);
    TG_TRY(tg_tgsp_cosign(&p.src, key, out, true, bar, err));
    /* Told of the source, which the copy has one signature more than: a copy that is complete must
     * not be followed by a failure to read it again. */
    cli_out_str(&c->out, "file", "package", out);
    cli_out_hex(&c->out, "package", "package (H)", tg_bytes_make(tg_tgsp_h(p.tgsp), TG_TGSP_H_LEN));
    cli_out_hex(&c->out, "signed_by", "co-signed by",
                tg_bytes_make(tg_sign_pk_id(tg_sign_sk_pk(key)), TG_SIGN_ID_LEN));
    cli_out_u64(&c->out, "signatures", "signatures",
                tg_tgsp_signatures_get(p.tgsp)->signatures.n + 1);
    return TG_OK;
}

const struct cli_verb cli_sign = {
    .cmd =
        {.name = "sign",
              .args = "F.tgsp",
              .summary = "add a co-signature to a package",
              .details =
             "The package's structure, hashes and chunk digests are checked first: nobody signs\n"
             "broken bytes. Its identity (H) stays the same. With --trust the signatures that are\n"
             "already there are verified before yours is added.\n\n"
             "  tensorguard sign m.tgsp --signing-key reviewer/signing.priv\n", .opts = OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct sign),
    .run = run,
};
