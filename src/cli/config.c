#include "cli/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"

#define CONFIG_MAX 65536

struct saved {
    const char *server;
};

static const struct tg_jfield FIELDS[] = {TG_J_STR(struct saved, server, 1, 512, TG_J_REQ)};
static const struct tg_jschema SCHEMA = TG_J_SCHEMA(struct saved, FIELDS, TG_J_IGNORE_UNKNOWN);

enum tg_rc cli_config_dir(const char *option, char **out, struct tg_err *err)
{
    const char *xdg = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");

    if (option != NULL)
        *out = tg_strdup(option);
    else if (xdg != NULL && xdg[0] == '/')
        *out = tg_path_join(xdg, "tensorguard");
    else if (home != NULL && home[0] == '/')
        *out = tg_path_join(home, ".config/tensorguard");
    else
        return TG_FAIL(err, TG_E_USAGE, "--config DIR is needed: there is no home folder");
    return *out != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

enum tg_rc cli_token_load(const char *path, struct tg_buf *out, struct tg_err *err)
{
    TG_TRY(tg_file_read(path, out, err));
    while (out->n > 0 && (out->data[out->n - 1] == '\n' || out->data[out->n - 1] == '\r'))
        out->data[--out->n] = 0;
    for (size_t i = 0; i < out->n; i++)
        if (out->data[i] <= 0x20 || out->data[i] >= 0x7f)
            return TG_FAIL(err, TG_E_FORMAT, "%s: a token is one line of visible ASCII", path);
    if (out->n == 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: is empty; it must hold a token", path);
    return TG_OK;
}

static enum tg_rc load_server(const char *dir, struct cli_config *c, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, "config.json");
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(CONFIG_MAX);
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct saved s = {0};

    if (path == NULL || tg_arena_new(CONFIG_MAX * 4, &arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    enum tg_rc rc = tg_file_read(path, &text, err);
    if (rc == TG_E_NOTFOUND)
        return TG_FAIL(err, TG_E_STATE, "%s: nobody has logged in there; see `tensorguard login`",
                       dir);
    TG_TRY(rc);
    TG_TRY(tg_json_decode(&SCHEMA, tg_buf_view(&text), path, arena, &s, err));
    c->server = tg_strdup(s.server);
    return c->server != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

enum tg_rc cli_config_load(const char *option, struct cli_config *c, struct tg_err *err)
{
    TG_TRY(cli_config_dir(option, &c->dir, err));
    TG_TRY(load_server(c->dir, c, err));
    TG_AUTO(tg_freep) char *token = tg_path_join(c->dir, "token");
    c->ca_file = tg_path_join(c->dir, "ca.pem");
    if (token == NULL || c->ca_file == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return cli_token_load(token, &c->token, err);
}

enum tg_rc cli_config_save(const char *dir, const char *server, const char *token,
                           struct tg_bytes ca, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *config_path = tg_path_join(dir, "config.json");
    TG_AUTO(tg_freep) char *token_path = tg_path_join(dir, "token");
    TG_AUTO(tg_freep) char *ca_path = tg_path_join(dir, "ca.pem");
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(CONFIG_MAX);
    struct saved s = {.server = server};

    if (config_path == NULL || token_path == NULL || ca_path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_json_encode(&SCHEMA, &s, &text, err));
    if (tg_buf_str(&text, "\n") != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_dir_make(dir, 0700, err));
    TG_TRY(tg_file_write(token_path, tg_bytes_str(token), 0600, true, err));
    TG_TRY(tg_file_write(ca_path, ca, 0644, true, err));
    return tg_file_write(config_path, tg_buf_view(&text), 0600, true, err);
}

void cli_config_done(struct cli_config *c)
{
    tg_free(c->dir);
    tg_free(c->server);
    tg_free(c->ca_file);
    tg_buf_done(&c->token);
    *c = CLI_CONFIG_INIT;
}
