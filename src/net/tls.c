#include "net/tls_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <signal.h>

TG_DEFINE_AUTO(SSL_CTX, ctx_freep, SSL_CTX_free);
TG_DEFINE_AUTO(BIO, bio_freep, BIO_free_all);
TG_DEFINE_AUTO(EVP_PKEY, pkey_freep, EVP_PKEY_free);

void tg_net_ignore_sigpipe(void)
{
    struct sigaction now;

    if (sigaction(SIGPIPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
        now.sa_handler == SIG_DFL) {
        now.sa_handler = SIG_IGN;
        (void)sigaction(SIGPIPE, &now, NULL);
    }
}

static enum tg_rc fail(struct tg_err *err, enum tg_rc rc, const char *what)
{
    ERR_clear_error();
    return TG_FAIL(err, rc, "TLS: %s", what);
}

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

static BIO *bio_of(struct tg_bytes pem)
{
    return pem.n > 0 && pem.n <= TG_X509_PEM_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
}

static TG_RC chain_use(SSL_CTX *ctx, struct tg_bytes pem, struct tg_err *err)
{
    TG_AUTO(bio_freep) BIO *bio = bio_of(pem);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    int ok;

    if (cert == NULL)
        return fail(err, TG_E_FORMAT, "the server certificate is not PEM");
    ok = SSL_CTX_use_certificate(ctx, cert);
    X509_free(cert);
    while (ok == 1 && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        ok = (int)SSL_CTX_add1_chain_cert(ctx, cert);
        X509_free(cert);
    }
    ERR_clear_error();
    return ok == 1 ? TG_OK : fail(err, TG_E_FORMAT, "the server certificate cannot be used");
}

static TG_RC key_use(SSL_CTX *ctx, struct tg_bytes pem, struct tg_err *err)
{
    TG_AUTO(bio_freep) BIO *bio = bio_of(pem);
    TG_AUTO(pkey_freep) EVP_PKEY *key = NULL;

    if (bio != NULL)
        key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    if (key == NULL)
        return fail(err, TG_E_FORMAT, "the server's private key is not unencrypted PEM");
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return fail(err, TG_E_FORMAT, "the private key is not the server certificate's");
    return TG_OK;
}

static TG_RC client_ca_use(SSL_CTX *ctx, struct tg_bytes pem, struct tg_err *err)
{
    TG_AUTO(bio_freep) BIO *bio = bio_of(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    X509 *cert;
    int n = 0;

    while (bio != NULL && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        int ok = X509_STORE_add_cert(store, cert) == 1 && SSL_CTX_add_client_CA(ctx, cert) == 1;

        X509_free(cert);
        if (!ok)
            return fail(err, TG_E_FORMAT, "a client CA certificate cannot be used");
        n++;
    }
    ERR_clear_error();
    if (n == 0)
        return fail(err, TG_E_FORMAT, "the client CA is not PEM");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_verify_depth(ctx, 4);
    return TG_OK;
}

/* No resumption of any kind: a connection's certificate was verified in its own handshake. */
static TG_RC harden(SSL_CTX *ctx, struct tg_err *err)
{
    static const unsigned char id[] = "tensorguard";
    char groups[] = TG_TLS_SERVER_GROUPS; /* the macro below casts const away */

    SSL_CTX_set_options(ctx,
                        SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ctx, 16384);
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(ctx, TG_TLS_SUITES) != 1 ||
        SSL_CTX_set1_groups_list(ctx, groups) != 1 || SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
        SSL_CTX_set_max_early_data(ctx, 0) != 1 ||
        SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1) != 1)
        return fail(err, TG_E_UNSUPPORTED,
                    "this OpenSSL cannot do TLS 1.3 with X25519MLKEM768 (3.5 or newer is needed)");
    return TG_OK;
}

TG_RC tg_tls_server_ctx(const struct tg_tls_opts *opts, SSL_CTX **out, struct tg_err *err)
{
    TG_AUTO(ctx_freep) SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (ctx == NULL)
        return fail(err, TG_E_NOMEM, "out of memory");
    TG_TRY(harden(ctx, err));
    TG_TRY(chain_use(ctx, opts->cert_pem, err));
    TG_TRY(key_use(ctx, opts->key_pem, err));
    if (opts->client_ca.n > 0)
        TG_TRY(client_ca_use(ctx, opts->client_ca, err));
    *out = tg_steal(&ctx);
    return TG_OK;
}
