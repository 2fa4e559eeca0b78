#include <stddef.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "crypto/keyfile.h"
#include "wire/access.h"

struct login {
    bool json;
    const char *server, *token_file, *ca, *config, *name;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"server", TG_OPT_STR, offsetof(struct login, server), true, "URL", "https://host:port of the platform's API"},
    {"token-file", TG_OPT_STR, offsetof(struct login, token_file), true, "FILE", "a token, or the one-time administrator token of the platform's first start"},
    {"ca", TG_OPT_STR, offsetof(struct login, ca), true, "ca.pem", "what the platform's certificate is checked against (DATA-DIR/ca.pem)"},
    {"name", TG_OPT_STR, offsetof(struct login, name), false, "NAME", "what the lasting token is called when a one-time token is exchanged (default: cli)"},
    CLI_OPT_CONFIG(struct login),
    CLI_OPT_END,
};

/* clang-format on */

/* Who does the platform take us for? @retval TG_E_AUTH it does not know the token */
static enum tg_rc who_am_i(struct cli_api *api, struct tg_wire_token *me, struct tg_err *err)
{
    struct cli_call call = {
        .target = TG_API_PREFIX "/me", .answer_schema = &tg_wire_token, .answer = me};

    return cli_api_call(api, &call, err);
}

/* A one-time token: exchange it, and from now on use the lasting one. */
static enum tg_rc exchange(struct cli_api *api, const struct login *o, struct tg_buf *token,
                           struct tg_wire_token *me, struct tg_err *err)
{
    struct tg_wire_login send = {.token = tg_buf_cstr(token),
                                 .name = o->name != NULL ? o->name : "cli"};
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/login",
                            .send_schema = &tg_wire_login,
                            .send = &send,
                            .answer_schema = &tg_wire_token,
                            .answer = me};

    TG_TRY(cli_api_call(api, &call, err));
    tg_buf_clear(token);
    if (me->token == NULL || tg_buf_str(token, me->token) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "the platform's answer holds no token");
    return tg_http_client_bearer(api->http, tg_buf_cstr(token));
}

/* The served key must be the one whose id is served beside it: a slip would be pinned for good. */
static enum tg_rc save_vault(const char *dir, const struct tg_wire_platform *p, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, "vault.pub");
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    struct tg_bytes pem = tg_bytes_str(p->vault_public_key);

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_kem_pk_from_pem(pem, "the platform's vault key", &pk, err));
    if (!tg_mem_eq(tg_kem_pk_id(pk), p->vault_key_id, TG_KEM_ID_LEN))
        return TG_FAIL(err, TG_E_AUTH, "the platform's vault key is not the one of its id");
    return tg_file_write(path, pem, 0644, true, err);
}

static enum tg_rc save_platform(const char *dir, const struct tg_wire_platform *p,
                                struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, "platform.pub");
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    struct tg_bytes pem = tg_bytes_str(p->platform_public_key);

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_sign_pk_from_pem(pem, "the platform's signing key", &pk, err));
    if (!tg_mem_eq(tg_sign_pk_id(pk), p->platform_key_id, TG_SIGN_ID_LEN))
        return TG_FAIL(err, TG_E_AUTH, "the platform's signing key is not the one of its id");
    return tg_file_write(path, pem, 0644, true, err);
}

static void answer(struct cli_out *out, const struct login *o, const char *dir,
                   const struct tg_wire_platform *p, const struct tg_wire_token *me)
{
    TG_AUTO(tg_freep) char *vault = tg_path_join(dir, "vault.pub");
    TG_AUTO(tg_freep) char *platform = tg_path_join(dir, "platform.pub");

    cli_out_str(out, "server", "server", o->server);
    cli_out_str(out, "platform", "platform", p->name);
    cli_out_str(out, "platform_version", "version", p->version);
    cli_out_str(out, "device_url", "devices go to", p->device_url);
    cli_out_str(out, "token_name", "token", me->name);
    cli_out_str(out, "role", "role", tg_access_names[me->role]);
    cli_out_time(out, "token_expires_at", "expires", me->expires_at);
    cli_out_hex(out, "vault_key_id", "vault key", TG_BYTES_OF(p->vault_key_id));
    cli_out_hex(out, "platform_key_id", "platform key", TG_BYTES_OF(p->platform_key_id));
    cli_out_str(out, "vault_pub", "vault.pub", vault);
    cli_out_str(out, "platform_pub", "platform.pub", platform);
    cli_out_str(out, "config", "saved in", dir);
    cli_out_note(out, "\nCompare both key ids with what the platform showed at its first start.");
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct login *o = opts;
    TG_AUTO(tg_buf_done) struct tg_buf token = TG_BUF_SECRET(1024);
    TG_AUTO(tg_buf_done) struct tg_buf ca = TG_BUF_INIT(1u << 20);
    TG_AUTO(tg_freep) char *dir = NULL;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    struct tg_wire_token me = {0};
    struct tg_wire_platform p = {0};

    (void)args;
    TG_TRY(cli_token_load(o->token_file, &token, err));
    TG_TRY(tg_file_read(o->ca, &ca, err));
    TG_TRY(cli_config_dir(o->config, &dir, err));
    TG_TRY(tg_dir_make(dir, 0700, err)); /* before a one-time token is used up */
    cli_signals_catch();
    TG_TRY(cli_api_connect(o->server, o->ca, tg_buf_cstr(&token), &api, err));
    enum tg_rc rc = who_am_i(&api, &me, err);
    if (rc == TG_E_AUTH && err->msg[0] != 0)
        rc = exchange(&api, o, &token, &me, err);
    if (rc == TG_E_NOTFOUND)
        tg_err_wrap(err,
                    "%s: give the platform's address for people (port 8443 unless told "
                    "otherwise), not the one for devices",
                    o->server);
    TG_TRY(rc);
    TG_TRY(cli_config_save(dir, o->server, tg_buf_cstr(&token), tg_buf_view(&ca), err));
    struct cli_call call = {
        .target = TG_API_PREFIX "/platform", .answer_schema = &tg_wire_platform, .answer = &p};
    TG_TRY(cli_api_call(&api, &call, err));
    TG_TRY(save_vault(dir, &p, err));
    TG_TRY(save_platform(dir, &p, err));
    answer(&c->out, o, dir, &p, &me);
    return TG_OK;
}

const struct cli_verb cli_login = {
    .cmd = {.name = "login",
            .args = "",
            .summary = "remember a platform: its address, your token, its public keys",
            .details =
                "Saves the address, the token (0600) and the CA, the vault's public key "
                "(vault.pub, for\n"
                "`build --recipient`) and the platform's signing key (platform.pub, for\n"
                "`tensorguard-agent enroll --platform-key`). The one-time administrator token that "
                "the\n"
                "platform printed at its first start is exchanged for a lasting one.\n\n"
                "  tensorguard login --server https://127.0.0.1:8443 --token-file admin.token \\\n"
                "                    --ca platform/ca.pem\n", .opts = OPTS},
    .opts_size = sizeof(struct login),
    .run = run,
};
