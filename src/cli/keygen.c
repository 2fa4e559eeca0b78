#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/signals.h"

struct keygen {
    bool json;
    const char *type;
    const char *out;
    const char *passphrase_file;
    bool force;
};

static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"type",            TG_OPT_STR,  offsetof(struct keygen, type),            true,  "signing|encryption",
      "signing: ed25519 + ML-DSA-65; encryption: x25519 + ML-KEM-768"  },
    {"out",             TG_OPT_STR,  offsetof(struct keygen, out),             true,  "DIR",
      "folder for TYPE.priv and TYPE.pub; made if missing"             },
    {"passphrase-file", TG_OPT_STR,  offsetof(struct keygen, passphrase_file), false, "FILE",
      "encrypt the private key under the passphrase in FILE (one line)"},
    {"force",           TG_OPT_FLAG, offsetof(struct keygen, force),           false, NULL,
      "replace existing key files; the old key is gone for good"       },
    CLI_OPT_END,
};

static void answer(struct cli *c, const struct keygen *o, struct tg_bytes id, const char *id_name)
{
    TG_AUTO(tg_freep) char *priv = tg_asprintf("%s/%s.priv", o->out, o->type);
    TG_AUTO(tg_freep) char *pub = tg_asprintf("%s/%s.pub", o->out, o->type);

    cli_out_str(&c->out, "type", "type", o->type);
    cli_out_hex(&c->out, id_name, "key id", id);
    cli_out_str(&c->out, "private_key", "private key", priv);
    cli_out_str(&c->out, "public_key", "public key", pub);
    cli_out_bool(&c->out, "encrypted", "encrypted", o->passphrase_file != NULL);
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct keygen *o = opts;
    TG_AUTO(tg_buf_done) struct tg_buf pass = CLI_PASSPHRASE_INIT;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *sign = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *kem = NULL;

    (void)args;
    cli_signals_catch();
    bool signing = strcmp(o->type, "signing") == 0;
    if (!signing && strcmp(o->type, "encryption") != 0)
        return TG_FAIL(err, TG_E_USAGE, "--type: '%s' is neither signing nor encryption", o->type);
    if (o->passphrase_file != NULL)
        TG_TRY(tg_passphrase_load_file(o->passphrase_file, &pass, err));
    enum tg_rc rc = signing ? tg_sign_sk_generate(NULL, &sign) : tg_kem_sk_generate(NULL, &kem);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "no key could be made: %s", tg_rc_text(rc));
    if (signing) {
        TG_TRY(cli_sign_pair_save(sign, cli_passphrase_view(&pass), o->out, o->force, err));
        answer(c, o, tg_bytes_make(tg_sign_pk_id(tg_sign_sk_pk(sign)), TG_SIGN_ID_LEN), "key_id");
    } else {
        TG_TRY(cli_kem_pair_save(kem, cli_passphrase_view(&pass), o->out, o->force, err));
        answer(c, o, tg_bytes_make(tg_kem_pk_id(tg_kem_sk_pk(kem)), TG_KEM_ID_LEN), "key_id");
    }
    cli_out_note(&c->out, "Keep the .priv file to yourself; the .pub file is for others.");
    return TG_OK;
}

const struct cli_verb cli_keygen = {
    .cmd = {.name = "keygen",
            .args = "",
            .summary = "make a hybrid key pair (signing or encryption)",
            .details =
                "Key files are PEM that `openssl pkey` (3.5 or newer) reads: two blocks, the\n"
                "classical and then the post-quantum one. Private files are created 0600.\n\n"
                "  tensorguard keygen --type signing --out ./keys\n", .opts = OPTS},
    .opts_size = sizeof(struct keygen),
    .run = run,
};
