#include "cli/grant.h"

#include <stddef.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/signals.h"

struct grant {
    bool json;
    const char *key, *signing_key, *recipient, *out;
    const char *not_before, *not_after;
    const char *passphrase_file, *key_passphrase_file;
    struct tg_opt_list trust;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"key", TG_OPT_STR, offsetof(struct grant, key), true, "KEY", "your encryption.priv: one of the package's recipients"},
    {"signing-key", TG_OPT_STR, offsetof(struct grant, signing_key), true, "KEY", "your signing.priv; devices must trust it as a granter"},
    {"recipient", TG_OPT_STR, offsetof(struct grant, recipient), true, "PUB", "the device's kem.pub: who may open the package from now on"},
    {"out", TG_OPT_STR, offsetof(struct grant, out), true, "G.tgrant", "grant to write (replaced if it exists)"},
    {"not-before", TG_OPT_STR, offsetof(struct grant, not_before), false, "TIME", "valid from then (default: 5 minutes ago)"},
    {"not-after", TG_OPT_STR, offsetof(struct grant, not_after), false, "TIME", "valid until then (default: +365d)"},
    {"trust", TG_OPT_LIST, offsetof(struct grant, trust), false, "PUB", "the package's author, if that is not your own signing key"},
    CLI_OPT_PASSPHRASE(struct grant),
    {"key-passphrase-file", TG_OPT_STR, offsetof(struct grant, key_passphrase_file), false, "FILE", "passphrase of --key, if it is not that of --signing-key"},
    CLI_OPT_END,
};

/* clang-format on */

enum tg_rc cli_grant_prepare(struct cli_package *p, const struct tg_sign_sk *signer,
                             const struct tg_kem_sk *key, const struct tg_opt_list *extra,
                             struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;

    if (tg_trust_new(&trust) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct tg_trust_key own = {.pk = tg_sign_sk_pk(signer),
                               .roles = TG_ROLE_AUTHOR | TG_ROLE_GRANTER};
    TG_TRY(tg_trust_add(trust, &own, err));
    for (size_t i = 0; i < extra->n; i++) {
        TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
        TG_TRY(tg_sign_pk_load_file(extra->v[i], &pk, err));
        if (!tg_mem_eq(tg_sign_pk_id(pk), tg_sign_pk_id(own.pk), TG_SIGN_ID_LEN))
            TG_TRY(cli_trust_add_pub(trust, extra->v[i], TG_ROLE_AUTHOR, err));
    }
    TG_TRY(cli_package_verify(p, trust, err));
    return tg_tgsp_unwrap(p->tgsp, key, err);
}

static enum tg_rc times(const struct grant *o, struct tg_grant_spec *spec, struct tg_err *err)
{
    int64_t now = tg_clock_now();

    spec->issued_at = now;
    spec->not_before = now - CLI_GRANT_EARLY_S;
    spec->not_after = now + (int64_t)CLI_GRANT_DAYS * 86400;
    if (o->not_before != NULL)
        TG_TRY(cli_time_parse("--not-before", o->not_before, now, &spec->not_before, err));
    if (o->not_after != NULL)
        TG_TRY(cli_time_parse("--not-after", o->not_after, now, &spec->not_after, err));
    if (spec->not_after <= spec->not_before)
        return TG_FAIL(err, TG_E_USAGE, "--not-after is not later than --not-before");
    return TG_OK;
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct grant *o = opts;
    TG_AUTO(cli_package_done) struct cli_package p = CLI_PACKAGE_INIT;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *signer = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *key = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *recipient = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    struct tg_grant_spec spec = {0};

    TG_TRY(times(o, &spec, err));
    TG_TRY(tg_kem_pk_load_file(o->recipient, &recipient, err));
    TG_TRY(cli_sign_sk_load(o->signing_key, o->passphrase_file, &signer, NULL, err));
    TG_TRY(cli_kem_sk_load(
        o->key, o->key_passphrase_file != NULL ? o->key_passphrase_file : o->passphrase_file, &key,
        err));
    cli_signals_catch();
    TG_TRY(cli_package_open(args->v[0], &p, err));
    TG_TRY(cli_grant_prepare(&p, signer, key, &o->trust, err));
    spec.recipient = recipient;
    spec.signer = signer;
    TG_TRY(tg_grant_make(p.tgsp, &spec, &text, err));
    TG_TRY(tg_file_write(o->out, tg_buf_view(&text), 0644, true, err));
    cli_out_str(&c->out, "file", "grant", o->out);
    cli_out_hex(&c->out, "package", "package (H)", tg_bytes_make(tg_tgsp_h(p.tgsp), TG_TGSP_H_LEN));
    cli_out_hex(&c->out, "recipient", "recipient",
                tg_bytes_make(tg_kem_pk_id(recipient), TG_KEM_ID_LEN));
    cli_out_hex(&c->out, "signed_by", "signed by",
                tg_bytes_make(tg_sign_pk_id(tg_sign_sk_pk(signer)), TG_SIGN_ID_LEN));
    cli_out_time(&c->out, "not_before", "valid from", spec.not_before);
    cli_out_time(&c->out, "not_after", "valid until", spec.not_after);
    return TG_OK;
}

const struct cli_verb cli_grant = {
    .cmd =
        {.name = "grant",
              .args = "F.tgsp",
              .summary = "give one more key access to a package, in a file beside it",
              .details =
             "The package itself does not change. It must be signed by --signing-key (or by a\n"
             "--trust key), and --key must be one of its recipients. A grant is end to end only "
             "if\n"
             "you know whose key --recipient is: compare its id with the device's own.\n\n"
             "  tensorguard grant m.tgsp --key keys/encryption.priv \\\n"
             "      --signing-key keys/signing.priv --recipient robot-7.pub --out robot-7.tgrant\n", .opts = OPTS,
              .args_min = 1,
              .args_max = 1},
    .opts_size = sizeof(struct grant),
    .run = run,
};
