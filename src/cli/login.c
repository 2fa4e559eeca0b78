#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "codec/text.h"
#include "crypto/keyfile.h"
#include "wire/access.h"

struct login {
    bool json, replace_keys;
    const char *server, *token_file, *ca, *config, *name;
};

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    {"server", TG_OPT_STR, offsetof(struct login, server), true, "URL", "https://host:port of the platform's API"},
    {"token-file", TG_OPT_STR, offsetof(struct login, token_file), true, "FILE", "a token, or the one-time administrator token of the platform's first start"},
    {"ca", TG_OPT_STR, offsetof(struct login, ca), true, "ca.pem", "what the platform's certificate is checked against (DATA-DIR/ca.pem)"},
    {"name", TG_OPT_STR, offsetof(struct login, name), false, "NAME", "what the lasting token is called when a one-time token is exchanged (default: cli)"},
    {"replace-keys", TG_OPT_FLAG, offsetof(struct login, replace_keys), false, NULL, "take the platform's keys although they are not the ones saved before"},
    CLI_OPT_CONFIG(struct login),
    CLI_OPT_END,
};

/* clang-format on */

struct introduction {
    struct tg_buf token;
    struct tg_wire_token me;
    char *spare; /* where the lasting token of an exchange is until all is saved */
    bool exchanged;
};

static void introduction_done(struct introduction *in)
{
    tg_buf_done(&in->token);
    tg_free(in->spare);
}

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

/* ---- the platform's keys ---- */

enum { ID_LEN = TG_KEM_ID_LEN };

_Static_assert((int)TG_KEM_ID_LEN == (int)TG_SIGN_ID_LEN, "one kind of id for both keys");

typedef enum tg_rc id_fn(struct tg_bytes pem, const char *name, uint8_t id[ID_LEN],
                         struct tg_err *err);

static enum tg_rc vault_id(struct tg_bytes pem, const char *name, uint8_t id[ID_LEN],
                           struct tg_err *err)
{
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;

    TG_TRY(tg_kem_pk_from_pem(pem, name, &pk, err));
    memcpy(id, tg_kem_pk_id(pk), ID_LEN);
    return TG_OK;
}

static enum tg_rc signing_id(struct tg_bytes pem, const char *name, uint8_t id[ID_LEN],
                             struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;

    TG_TRY(tg_sign_pk_from_pem(pem, name, &pk, err));
    memcpy(id, tg_sign_pk_id(pk), ID_LEN);
    return TG_OK;
}

/* One of the platform's two keys, as served and as saved. */
struct pinned {
    const char *file, *what;
    id_fn *id_of;
    const char *pem;
    const uint8_t *served_id;
};

/* The served key must be the one whose id is served beside it: a slip would be pinned for good. And
 * it must be the one saved before: a platform that shows another is another one, or has lost its
 * keys, or somebody stands in between. */
static enum tg_rc check_key(const char *dir, const struct pinned *k, bool replace,
                            struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, k->file);
    TG_AUTO(tg_buf_done) struct tg_buf saved = TG_BUF_INIT(1u << 16);
    uint8_t new_id[ID_LEN], old_id[ID_LEN];
    char new_hex[2 * ID_LEN + 1], old_hex[2 * ID_LEN + 1];

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(k->id_of(tg_bytes_str(k->pem), k->what, new_id, err));
    if (!tg_mem_eq(new_id, k->served_id, ID_LEN))
        return TG_FAIL(err, TG_E_AUTH, "%s is not the one of its id", k->what);
    if (replace)
        return TG_OK;
    enum tg_rc rc = tg_file_read(path, &saved, err);
    if (rc == TG_E_NOTFOUND)
        return TG_OK;
    if (rc == TG_OK)
        rc = k->id_of(tg_buf_view(&saved), path, old_id, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "the key saved by an earlier login can't be compared (--replace-keys "
                         "takes the platform's instead)");
        return rc;
    }
    if (tg_mem_eq(old_id, new_id, ID_LEN))
        return TG_OK;
    tg_hex_encode(TG_BYTES_OF(new_id), new_hex);
    tg_hex_encode(TG_BYTES_OF(old_id), old_hex);
    return TG_FAIL(err, TG_E_AUTH,
                   "%s is %s, but %s holds %s from an earlier login; nothing was changed. If the "
                   "platform's owner confirms the new id, --replace-keys takes it; another "
                   "platform belongs in a --config folder of its own",
                   k->what, new_hex, path, old_hex);
}

static enum tg_rc check_key_of(const struct introduction *in, const char *dir,
                               const struct pinned *k, bool replace, struct tg_err *err)
{
    enum tg_rc rc = check_key(dir, k, replace, err);

    if (rc != TG_OK && in->exchanged)
        tg_err_wrap(err,
                    "the one-time token is used up; what it was exchanged for is in %s (for "
                    "--token-file)",
                    in->spare);
    return rc;
}

static enum tg_rc save_key(const char *dir, const struct pinned *k, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, k->file);

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return tg_file_write(path, tg_bytes_str(k->pem), 0644, true, err);
}

/* Who are we? A one-time token is exchanged first, and what it was exchanged for is kept in *spare
 * until all is saved: it cannot be got again. */
static enum tg_rc introduce(struct cli_api *api, const struct login *o, struct introduction *in,
                            struct tg_err *err)
{
    enum tg_rc rc = who_am_i(api, &in->me, err);

    if (rc == TG_E_AUTH && err->msg[0] != 0) {
        TG_TRY(exchange(api, o, &in->token, &in->me, err));
        in->exchanged = true;
        return tg_file_write(in->spare, tg_buf_view(&in->token), 0600, true, err);
    }
    if (rc == TG_E_NOTFOUND)
        tg_err_wrap(err,
                    "%s: give the platform's address for people (port 8443 unless told "
                    "otherwise), not the one for devices",
                    o->server);
    return rc;
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
    TG_AUTO(tg_buf_done) struct tg_buf ca = TG_BUF_INIT(1u << 20);
    TG_AUTO(tg_freep) char *dir = NULL;
    TG_AUTO(cli_api_done) struct cli_api api = CLI_API_INIT;
    TG_AUTO(introduction_done) struct introduction in = {.token = TG_BUF_SECRET(1024)};
    struct tg_wire_platform p = {0};

    (void)args;
    TG_TRY(cli_token_load(o->token_file, &in.token, err));
    TG_TRY(tg_file_read(o->ca, &ca, err));
    TG_TRY(cli_config_dir(o->config, &dir, err));
    TG_TRY(tg_dir_make(dir, 0700, err)); /* before a one-time token is used up */
    in.spare = tg_path_join(dir, "token.new");
    if (in.spare == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    cli_signals_catch();
    TG_TRY(cli_api_connect(o->server, o->ca, tg_buf_cstr(&in.token), &api, err));
    TG_TRY(introduce(&api, o, &in, err));
    struct cli_call call = {
        .target = TG_API_PREFIX "/platform", .answer_schema = &tg_wire_platform, .answer = &p};
    TG_TRY(cli_api_call(&api, &call, err));
    const struct pinned keys[] = {
        {"vault.pub",    "the platform's vault key",   vault_id,   p.vault_public_key,    p.vault_key_id},
        {"platform.pub", "the platform's signing key", signing_id, p.platform_public_key,
         p.platform_key_id                                                                              },
    };
    for (size_t i = 0; i < TG_ARRAY_LEN(keys); i++)
        TG_TRY(check_key_of(&in, dir, &keys[i], o->replace_keys, err));
    TG_TRY(cli_config_save(dir, o->server, tg_buf_cstr(&in.token), tg_buf_view(&ca), err));
    for (size_t i = 0; i < TG_ARRAY_LEN(keys); i++)
        TG_TRY(save_key(dir, &keys[i], err));
    (void)unlink(in.spare);
    answer(&c->out, o, dir, &p, &in.me);
    return TG_OK;
}

const struct cli_verb cli_login = {
    .cmd =
        {.name = "login",
              .args = "",
              .summary = "remember a platform: its address, your token, its public keys",
              .details =
             "Saves the address, the token (0600) and the CA, the vault's public key "
             "(vault.pub, for\n"
             "`build --recipient`) and the platform's signing key (platform.pub, for\n"
             "`tensorguard-agent enroll --platform-key`). The one-time administrator token that "
             "the\n"
             "platform printed at its first start is exchanged for a lasting one. Keys that differ "
             "from\n"
             "those saved by an earlier login are refused (--replace-keys).\n\n"
             "  tensorguard login --server https://127.0.0.1:8443 --token-file admin.token \\\n"
             "                    --ca platform/ca.pem\n", .opts = OPTS},
    .opts_size = sizeof(struct login),
    .run = run,
};
