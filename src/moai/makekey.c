#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/keyfile.h"
#include "moai/sandbox.h"
#include "moai/worker.h"

#define PRIV "kem.priv"
#define PUB "kem.pub"

/* In the current folder: make the key unless it is there, print its public half. */
static enum tg_rc make_here(struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    enum tg_rc rc = tg_kem_sk_load_file(PRIV, TG_BYTES_NONE, &sk, err);

    if (rc == TG_E_NOTFOUND) {
        if (tg_kem_sk_generate(NULL, &sk) != TG_OK)
            return TG_FAIL(err, TG_E_INTERNAL, "can't make a key");
        rc = tg_kem_sk_save_file(sk, TG_BYTES_NONE, PRIV, false, err);
    }
    TG_TRY(rc);
    if (tg_kem_pk_to_pem(tg_kem_sk_pk(sk), &pem) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "can't write the public key as PEM");
    return tg_fd_write(STDOUT_FILENO, "stdout", pem.data, pem.n, err);
}

static enum tg_rc make_in(const char *dir, struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_freep) char *priv = tg_path_join(dir, PRIV);
    TG_AUTO(tg_freep) char *pub = tg_path_join(dir, PUB);

    if (priv == NULL || pub == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_dir_make(dir, 0700, err));
    if (access(priv, F_OK) == 0)
        return TG_FAIL(
            err, TG_E_EXISTS,
            "%s: there is a key already; a device that loses its key can open none of its "
            "packages, so remove it by hand if you mean to",
            priv);
    if (tg_kem_sk_generate(NULL, &sk) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "can't make a key");
    TG_TRY(tg_kem_sk_save_file(sk, TG_BYTES_NONE, priv, false, err));
    /* The public half can be made again from the private one; an old one means nothing without it.
     */
    return tg_kem_pk_save_file(tg_kem_sk_pk(sk), pub, true, err);
}

enum tg_rc tg_moai_make_key(const char *dir, const char *user, struct tg_err *err)
{
    TG_TRY(tg_sandbox_begin(err));
    TG_TRY(tg_sandbox_drop_user(user, err));
    return dir == NULL ? make_here(err) : make_in(dir, err);
}
