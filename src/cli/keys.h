/* Keys as commands take them: files, with a passphrase from a file or from the terminal. Never from
 * an argument's text and never from the environment. */
#ifndef TG_CLI_KEYS_H
#define TG_CLI_KEYS_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/kem.h"
#include "crypto/keyfile.h"
#include "crypto/sign.h"

#define CLI_OPT_PASSPHRASE(type)                                                                   \
    {                                                                                              \
        "passphrase-file", TG_OPT_STR, offsetof(type, passphrase_file), false, "FILE",             \
            "passphrase of an encrypted private key (one line); else asked on the terminal"        \
    }

/* A passphrase that was found out for a key; wiped by tg_buf_done. Empty: the key has none. */
#define CLI_PASSPHRASE_INIT TG_BUF_SECRET(TG_PASSPHRASE_MAX + 2)

/* Load a private key. passphrase_file may be NULL: then, if the key is encrypted, the terminal is
 * asked. `used` (may be NULL, else CLI_PASSPHRASE_INIT) gets the passphrase that opened it.
 * @retval TG_E_USAGE encrypted, no passphrase file, and no terminal to ask on
 * @retval TG_E_AUTH the passphrase is wrong   and what crypto/keyfile.h says */
TG_RC cli_sign_sk_load(const char *path, const char *passphrase_file, struct tg_sign_sk **out,
                       struct tg_buf *used, struct tg_err *err);
TG_RC cli_kem_sk_load(const char *path, const char *passphrase_file, struct tg_kem_sk **out,
                      struct tg_err *err);

/* Write DIR/encryption.priv and .pub, DIR/signing.priv and .pub. DIR is made if missing (0700).
 * Nothing is left behind when one of the two can't be written.
 * @retval TG_E_EXISTS one of the files is there and force is not set */
TG_RC cli_kem_pair_save(const struct tg_kem_sk *sk, struct tg_bytes passphrase, const char *dir,
                        bool force, struct tg_err *err);
TG_RC cli_sign_pair_save(const struct tg_sign_sk *sk, struct tg_bytes passphrase, const char *dir,
                         bool force, struct tg_err *err);

/* The folder a path lies in ("." when it names none), in fresh memory; NULL: out of memory. */
char *cli_dir_of(const char *path);

struct tg_bytes cli_passphrase_view(const struct tg_buf *b); /* TG_BYTES_NONE when empty */

#endif
