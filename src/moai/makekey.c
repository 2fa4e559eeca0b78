#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"
#include "crypto/keyfile.h"
#include "moai/sandbox.h"
#include "moai/worker.h"

#define PRIV "kem.priv"
#define PUB "kem.pub"
#define PATH_BYTES 4096

static enum tg_rc generate(const char *path, struct tg_kem_sk **out, struct tg_err *err)
{
    enum tg_rc rc = tg_kem_sk_generate(NULL, out);

    if (rc == TG_OK)
        return TG_OK;
    return TG_FAIL(
        err, rc,
        "%s: no X25519 + ML-KEM-768 key could be made: %s; it takes the default provider "
        "of OpenSSL 3.5 or newer, and lockable memory (ulimit -l)",
        path, tg_rc_text(rc));
}

struct made {
    uint8_t key_id[TG_KEM_ID_LEN];
    const char *private_key; /* paths */
    const char *public_key;  /* NULL: the PEM is all there is of it */
    const char *pem;
};

#define T struct made
static const struct tg_jfield made_fields[] = {
    TG_J_HEX(T, key_id, TG_J_REQ),
    TG_J_STR(T, private_key, 1, PATH_BYTES, TG_J_REQ),
    TG_J_STR(T, public_key, 1, PATH_BYTES, TG_J_SKIP0),
    TG_J_STR(T, pem, 1, TG_KEYFILE_MAX, TG_J_REQ),
};
static const struct tg_jschema made_schema = TG_J_SCHEMA(T, made_fields, TG_J_IGNORE_UNKNOWN);
#undef T

/* What stdout gets: JSON for whoever asked for it, else the PEM, unless that is in a file. */
static enum tg_rc tell(const struct tg_kem_sk *sk, struct made *made, bool json, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf out = TG_BUF_INIT(4 * TG_KEYFILE_MAX + 8 * PATH_BYTES);

    if (!json && made->public_key != NULL)
        return TG_OK;
    if (tg_kem_pk_to_pem(tg_kem_sk_pk(sk), &pem) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "%s: its public half could not be written as PEM",
                       made->private_key);
    if (!json)
        return tg_fd_write(STDOUT_FILENO, "stdout", pem.data, pem.n, err);
    made->pem = tg_buf_cstr(&pem);
    memcpy(made->key_id, tg_kem_pk_id(tg_kem_sk_pk(sk)), TG_KEM_ID_LEN);
    TG_TRY(tg_json_encode(&made_schema, made, &out, err));
    TG_TRY(tg_buf_str(&out, "\n"));
    return tg_fd_write(STDOUT_FILENO, "stdout", out.data, out.n, err);
}

/* In the current folder: make the key unless it is there. */
static enum tg_rc make_here(bool json, struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    struct made made = {.private_key = PRIV};
    enum tg_rc rc = tg_kem_sk_load_file(PRIV, TG_BYTES_NONE, &sk, err);

    if (rc == TG_E_NOTFOUND) {
        TG_TRY(generate(PRIV, &sk, err));
        rc = tg_kem_sk_save_file(sk, TG_BYTES_NONE, PRIV, false, err);
    }
    TG_TRY(rc);
    return tell(sk, &made, json, err);
}

static enum tg_rc make_in(const char *dir, bool json, struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_freep) char *priv = tg_path_join(dir, PRIV);
    TG_AUTO(tg_freep) char *pub = tg_path_join(dir, PUB);

    if (priv == NULL || pub == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    struct made made = {.private_key = priv, .public_key = pub};
    TG_TRY(tg_dir_make(dir, 0700, err));
    if (access(priv, F_OK) == 0)
        return TG_FAIL(
            err, TG_E_EXISTS,
            "%s: there is a key already; a device that loses its key can open none of its "
            "packages, so remove it by hand if you mean to",
            priv);
    TG_TRY(generate(priv, &sk, err));
    TG_TRY(tg_kem_sk_save_file(sk, TG_BYTES_NONE, priv, false, err));
    /* The public half can be made again from the private one; an old one means nothing without it.
     */
    TG_TRY(tg_kem_pk_save_file(tg_kem_sk_pk(sk), pub, true, err));
    return tell(sk, &made, json, err);
}

enum tg_rc tg_moai_make_key(const struct tg_make_key_opts *o, struct tg_err *err)
{
    TG_TRY(tg_sandbox_begin(err));
    TG_TRY(tg_sandbox_drop_user(o->user, err));
    return o->dir == NULL ? make_here(o->json, err) : make_in(o->dir, o->json, err);
}
