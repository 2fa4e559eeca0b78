#include "platform/keys.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/keyfile.h"
#include "crypto/random.h"

#define CA_DAYS 3650
#define SERVER_DAYS 90
#define FILE_MAX 65536

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* The passphrase everything is sealed under, from whichever file was chosen. */
static enum tg_rc load_passphrase(struct tg_keys *k, const struct tg_keys_opts *o,
                                  struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *own = tg_path_join(o->data_dir, "vault.key");
    uint8_t raw[32];
    char hex[2 * sizeof(raw) + 2];

    if (own == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "keys: out of memory");
    if (o->passphrase_file != NULL)
        return tg_passphrase_load_file(o->passphrase_file, out, err);
    if (o->key_file != NULL)
        return tg_passphrase_load_file(o->key_file, out, err);
    k->own_key_file = true;
    if (!exists(own)) {
        if (tg_random(raw, sizeof(raw)) != TG_OK)
            return TG_FAIL(err, TG_E_INTERNAL, "%s: " TG_NO_RANDOMNESS, own);
        tg_hex_encode(TG_BYTES_OF(raw), hex);
        tg_wipe(raw, sizeof(raw));
        hex[sizeof(hex) - 2] = '\n';
        enum tg_rc rc = tg_file_write(own, tg_bytes_make(hex, sizeof(hex) - 1), 0600, false, err);
        tg_wipe(hex, sizeof(hex));
        TG_TRY(rc);
    }
    return tg_passphrase_load_file(own, out, err);
}

static enum tg_rc open_hybrid(struct tg_keys *k, const char *dir, struct tg_bytes passphrase,
                              struct tg_err *err)
{
    TG_AUTO(tg_freep) char *vault = tg_path_join(dir, "keys/vault.priv");
    TG_AUTO(tg_freep) char *platform = tg_path_join(dir, "keys/platform.priv");

    if (vault == NULL || platform == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "keys: out of memory");
    if (exists(vault)) {
        TG_TRY(tg_kem_sk_load_file(vault, passphrase, &k->vault, err));
    } else {
        k->made = true;
        TG_TRY(tg_kem_sk_generate(NULL, &k->vault));
        TG_TRY(tg_kem_sk_save_file(k->vault, passphrase, vault, false, err));
    }
    if (exists(platform)) {
        TG_TRY(tg_sign_sk_load_file(platform, passphrase, &k->platform, err));
    } else {
        TG_TRY(tg_sign_sk_generate(NULL, &k->platform));
        TG_TRY(tg_sign_sk_save_file(k->platform, passphrase, platform, false, err));
    }
    TG_TRY(tg_kem_pk_to_pem(tg_kem_sk_pk(k->vault), &k->vault_pub));
    return tg_sign_pk_to_pem(tg_sign_sk_pk(k->platform), &k->platform_pub);
}

struct ca_spec {
    const char *cn, *sealed, *cert; /* file names in the data folder */
    struct tg_x509_ca **ca;
    struct tg_buf *pem;
};

static enum tg_rc make_ca(struct tg_keys *k, const struct ca_spec *s, const char *sealed_path,
                          const char *cert_path, int64_t now, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf key = TG_BUF_SECRET(FILE_MAX);
    TG_AUTO(bufp) struct tg_buf sealed = TG_BUF_INIT(FILE_MAX);

    TG_TRY(tg_x509_ca_make(s->cn, now, CA_DAYS, s->ca, err));
    TG_TRY(tg_x509_ca_key_pem(*s->ca, &key, err));
    TG_TRY(tg_x509_ca_cert_pem(*s->ca, s->pem, err));
    TG_TRY(tg_seal(tg_kem_sk_pk(k->vault), s->sealed, tg_buf_view(&key), &sealed));
    TG_TRY(tg_file_write(sealed_path, tg_buf_view(&sealed), 0600, true, err));
    /* The certificate comes last: without it a start that was cut off makes both anew. */
    return tg_file_write(cert_path, tg_buf_view(s->pem), 0644, true, err);
}

static enum tg_rc open_ca(struct tg_keys *k, const char *dir, const struct ca_spec *s, int64_t now,
                          struct tg_err *err)
{
    TG_AUTO(tg_freep) char *sealed_path = tg_path_join(dir, s->sealed);
    TG_AUTO(tg_freep) char *cert_path = tg_path_join(dir, s->cert);
    TG_AUTO(bufp) struct tg_buf key = TG_BUF_SECRET(FILE_MAX);
    TG_AUTO(bufp) struct tg_buf sealed = TG_BUF_INIT(FILE_MAX);

    if (sealed_path == NULL || cert_path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "keys: out of memory");
    if (!exists(cert_path))
        return make_ca(k, s, sealed_path, cert_path, now, err);
    TG_TRY(tg_file_read(cert_path, s->pem, err));
    TG_TRY(tg_file_read(sealed_path, &sealed, err));
    if (tg_seal_open(k->vault, s->sealed, tg_buf_view(&sealed), &key) != TG_OK)
        return TG_FAIL(err, TG_E_AUTH, "%s: not sealed by this platform's vault, or altered",
                       sealed_path);
    return tg_x509_ca_load(tg_buf_view(s->pem), tg_buf_view(&key), s->ca, err);
}

static enum tg_rc export_public(const struct tg_keys *k, const char *dir, struct tg_err *err)
{
    const struct {
        const char *name;
        const struct tg_buf *pem;
    } files[] = {
        {"vault.pub",    &k->vault_pub   },
        {"platform.pub", &k->platform_pub}
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(files); i++) {
        TG_AUTO(tg_freep) char *path = tg_path_join(dir, files[i].name);
        if (path == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "keys: out of memory");
        TG_TRY(tg_file_write(path, tg_buf_view(files[i].pem), 0644, true, err));
    }
    return TG_OK;
}

TG_RC tg_keys_open(const struct tg_keys_opts *o, struct tg_keys **out, struct tg_err *err)
{
    TG_AUTO(tg_keys_closep) struct tg_keys *k = tg_calloc(1, sizeof(*k));
    TG_AUTO(bufp) struct tg_buf passphrase = TG_BUF_SECRET(TG_PASSPHRASE_MAX + 2);
    TG_AUTO(tg_freep) char *keys_dir = tg_path_join(o->data_dir, "keys");

    if (k == NULL || keys_dir == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "keys: out of memory");
    int e = pthread_mutex_init(&k->ca_lock, NULL);
    if (e != 0) {
        tg_free(tg_steal(&k));
        return TG_FAIL(err, TG_E_INTERNAL, "the keys' lock can't be made: %s: " TG_NO_LOCK_HINT,
                       strerror(e));
    }
    k->vault_pub = k->platform_pub = k->device_ca_pem = k->server_ca_pem = TG_BUF_INIT(FILE_MAX);
    TG_TRY(tg_dir_make(keys_dir, 0700, err));
    TG_TRY(load_passphrase(k, o, &passphrase, err));
    TG_TRY(open_hybrid(k, o->data_dir, tg_buf_view(&passphrase), err));
    const struct ca_spec cas[] = {
        {"TensorGuard device CA", "keys/device-ca.sealed", "device-ca.pem", &k->device_ca,
         &k->device_ca_pem},
        {"TensorGuard server CA", "keys/server-ca.sealed", "ca.pem",        &k->server_ca,
         &k->server_ca_pem},
    };
    for (size_t i = 0; i < TG_ARRAY_LEN(cas); i++)
        TG_TRY(open_ca(k, o->data_dir, &cas[i], o->now, err));
    TG_TRY(export_public(k, o->data_dir, err));
    *out = tg_steal(&k);
    return TG_OK;
}

void tg_keys_close(struct tg_keys *k)
{
    if (k == NULL)
        return;
    tg_kem_sk_free(k->vault);
    tg_sign_sk_free(k->platform);
    tg_x509_ca_free(k->device_ca);
    tg_x509_ca_free(k->server_ca);
    tg_buf_done(&k->vault_pub);
    tg_buf_done(&k->platform_pub);
    tg_buf_done(&k->device_ca_pem);
    tg_buf_done(&k->server_ca_pem);
    pthread_mutex_destroy(&k->ca_lock);
    tg_free(k);
}

void tg_tls_pair_done(struct tg_tls_pair *p)
{
    tg_buf_done(&p->cert);
    tg_buf_done(&p->key);
}

void tg_issued_done(struct tg_issued *i)
{
    tg_buf_done(&i->pem);
}

TG_RC tg_keys_server_cert(struct tg_keys *k, const struct tg_opt_list *names, int64_t now,
                          struct tg_tls_pair *out, struct tg_err *err)
{
    TG_AUTO(tg_x509_key_freep) struct tg_x509_key *key = NULL;
    const struct tg_x509_server_opts opts = {
        .cn = "tensorguard-platform",
        .names = names->v,
        .names_n = names->n,
        .now = now,
        .days = SERVER_DAYS,
    };

    TG_TRY(tg_x509_key_make(&key, err));
    TG_TRY(tg_x509_key_to_pem(key, &out->key, err));
    pthread_mutex_lock(&k->ca_lock);
    enum tg_rc rc = tg_x509_issue_server(k->server_ca, key, &opts, &out->cert, err);
    pthread_mutex_unlock(&k->ca_lock);
    return rc;
}

TG_RC tg_keys_device_cert(struct tg_keys *k, struct tg_bytes csr,
                          const struct tg_x509_device_opts *opts, struct tg_issued *out,
                          struct tg_err *err)
{
    pthread_mutex_lock(&k->ca_lock);
    enum tg_rc rc = tg_x509_issue_device(k->device_ca, csr, opts, &out->pem, err);
    pthread_mutex_unlock(&k->ca_lock);
    TG_TRY(rc);
    return tg_x509_facts_pem(tg_buf_view(&out->pem), &out->facts, err);
}
