/* What `tensorguard login` keeps about one platform, and where.
 *
 *     DIR/config.json   server             DIR/ca.pem        what its certificate is checked
 * against DIR/token         0600               DIR/vault.pub     for `build --recipient`
 *     DIR/uploads/      uploads begun      DIR/platform.pub  for `tensorguard-agent enroll`
 *
 * DIR is --config, else $XDG_CONFIG_HOME/tensorguard, else ~/.config/tensorguard. One DIR, one
 * platform. */
#ifndef TG_CLI_CONFIG_H
#define TG_CLI_CONFIG_H

#include "base/bytes.h"
#include "base/err.h"

#define CLI_OPT_CONFIG(type)                                                                       \
    {                                                                                              \
        "config", TG_OPT_STR, offsetof(type, config), false, "DIR",                                \
            "where login saved the platform (default: ~/.config/tensorguard)"                      \
    }

struct cli_config {
    char *dir;
    char *server;
    char *ca_file;
    struct tg_buf token; /* secret */
};

#define CLI_CONFIG_INIT ((struct cli_config){.token = TG_BUF_SECRET(1024)})

/* The folder, in fresh memory. @retval TG_E_USAGE there is neither an option nor a home */
TG_RC cli_config_dir(const char *option, char **out, struct tg_err *err);
/* @retval TG_E_STATE nobody has logged in there */
TG_RC cli_config_load(const char *option, struct cli_config *c, struct tg_err *err);
/* Write server and token, and copy the CA. DIR is made 0700. */
TG_RC cli_config_save(const char *dir, const char *server, const char *token, struct tg_bytes ca,
                      struct tg_err *err);
void cli_config_done(struct cli_config *c);

/* One line of a file that holds a token: visible ASCII. out: TG_BUF_SECRET(1024) */
TG_RC cli_token_load(const char *path, struct tg_buf *out, struct tg_err *err);

#endif
