#include "crypto/x509_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "codec/text.h"

#define CHAIN_MAX 8

static void stack_freep(STACK_OF(X509) * *s)
{
    sk_X509_pop_free(*s, X509_free);
}

/* What libcrypto has to say goes nowhere: our callers say what was wrong with which input. */
enum tg_rc tg_x509i_fail(struct tg_err *err, enum tg_rc rc, const char *what)
{
    ERR_clear_error();
    return TG_FAIL(err, rc, "%s", what);
}

/* Never asks a terminal for a passphrase. */
int tg_x509i_no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

TG_RC tg_x509i_bio(struct tg_bytes pem, const char *what, BIO **out, struct tg_err *err)
{
    if (pem.n == 0 || pem.n > TG_X509_PEM_MAX)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %zu bytes of PEM, expected 1 to %d", what, pem.n,
                       TG_X509_PEM_MAX);
    *out = BIO_new_mem_buf(pem.p, (int)pem.n);
    return *out != NULL ? TG_OK : tg_x509i_fail(err, TG_E_NOMEM, "out of memory");
}

TG_RC tg_x509i_cert_read(struct tg_bytes pem, X509 **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = NULL;

    TG_TRY(tg_x509i_bio(pem, "certificate", &bio, err));
    *out = PEM_read_bio_X509(bio, NULL, tg_x509i_no_passphrase, NULL);
    if (*out == NULL)
        return tg_x509i_fail(err, TG_E_FORMAT, "certificate: not a PEM certificate");
    return TG_OK;
}

bool tg_x509i_cn_ok(const char *cn)
{
    size_t n = cn != NULL ? strlen(cn) : 0;

    if (n == 0 || n > TG_X509_CN_MAX || !tg_utf8_ok(tg_bytes_make(cn, n)))
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)cn[i] < 0x20 || cn[i] == 0x7f)
            return false;
    return true;
}

/* --- facts ----------------------------------------------------------------------------------- */

static TG_RC cn_read(const X509_NAME *name, char out[TG_X509_CN_MAX + 1], struct tg_err *err)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    enum tg_rc rc = TG_OK;
    int n;

    out[0] = '\0';
    if (at < 0)
        return TG_OK;
    n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    /* strlen against n: an embedded NUL would make two names out of one. */
    if (n < 1 || (size_t)n != strlen((const char *)utf8) || !tg_x509i_cn_ok((const char *)utf8))
        rc = tg_x509i_fail(err, TG_E_FORMAT,
                           "certificate: the common name is too long or not printable");
    else
        memcpy(out, utf8, (size_t)n + 1);
    OPENSSL_free(utf8);
    return rc;
}

static TG_RC serial_read(const X509 *cert, char out[TG_X509_SERIAL_TEXT], struct tg_err *err)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    const unsigned char *p = ASN1_STRING_get0_data(serial);
    int n = ASN1_STRING_length(serial);

    while (n > 1 && *p == 0) {
        p++;
        n--;
    }
    if (n < 1 || n > 20 || ASN1_STRING_type(serial) != V_ASN1_INTEGER)
        return TG_FAIL(err, TG_E_FORMAT,
                       "certificate: the serial number is not a positive integer of 1 to 20 bytes");
    tg_hex_encode(tg_bytes_make(p, (size_t)n), out);
    return TG_OK;
}

static TG_RC time_read(const ASN1_TIME *t, int64_t *out)
{
    struct tm tm = {0};
    time_t when;

    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return TG_E_FORMAT;
    when = timegm(&tm);
    *out = (int64_t)when;
    return TG_OK;
}

static TG_RC facts_read(X509 *cert, struct tg_x509_facts *out, struct tg_err *err)
{
    struct tg_x509_facts f = {0};
    unsigned n = 0;

    TG_TRY(serial_read(cert, f.serial, err));
    TG_TRY(cn_read(X509_get_subject_name(cert), f.cn, err));
    TG_TRY(cn_read(X509_get_issuer_name(cert), f.issuer_cn, err));
    if (time_read(X509_get0_notBefore(cert), &f.not_before) != TG_OK ||
        time_read(X509_get0_notAfter(cert), &f.not_after) != TG_OK)
        return tg_x509i_fail(err, TG_E_FORMAT, "certificate: a date cannot be read");
    if (X509_digest(cert, EVP_sha256(), f.fingerprint, &n) != 1 || n != sizeof(f.fingerprint))
        return tg_x509i_fail(err, TG_E_INTERNAL, "certificate: hashing failed");
    f.is_ca = X509_check_ca(cert) == 1;
    *out = f;
    return TG_OK;
}

TG_RC tg_x509_facts_pem(struct tg_bytes pem, struct tg_x509_facts *out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;

    TG_TRY(tg_x509i_cert_read(pem, &cert, err));
    return facts_read(cert, out, err);
}

TG_RC tg_x509_facts_der(struct tg_bytes der, struct tg_x509_facts *out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;
    const unsigned char *p = der.p;

    if (der.n == 0 || der.n > TG_X509_PEM_MAX)
        return TG_FAIL(err, TG_E_FORMAT, "certificate: %zu bytes of DER, expected 1 to %d", der.n,
                       TG_X509_PEM_MAX);
    cert = d2i_X509(NULL, &p, (long)der.n);
    if (cert == NULL || p != der.p + der.n)
        return tg_x509i_fail(err, TG_E_FORMAT, "certificate: not DER, or bytes after it");
    return facts_read(cert, out, err);
}

/* --- verification ---------------------------------------------------------------------------- */

static TG_RC stack_read(struct tg_bytes pem, const char *what, STACK_OF(X509) * *out,
                        struct tg_err *err)
{
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = NULL;
    TG_AUTO(stack_freep) STACK_OF(X509) *s = sk_X509_new_null();
    X509 *cert;

    TG_TRY(tg_x509i_bio(pem, what, &bio, err));
    while ((cert = PEM_read_bio_X509(bio, NULL, tg_x509i_no_passphrase, NULL)) != NULL) {
        if (s == NULL || sk_X509_num(s) >= CHAIN_MAX || sk_X509_push(s, cert) <= 0) {
            X509_free(cert);
            return TG_FAIL(err, TG_E_LIMIT, "%s: more than %d certificates", what, CHAIN_MAX);
        }
    }
    ERR_clear_error(); /* the end of the text is reported as an error */
    if (s == NULL || sk_X509_num(s) == 0)
        return TG_FAIL(err, TG_E_FORMAT, "%s: no PEM certificate", what);
    *out = tg_steal(&s);
    return TG_OK;
}

static TG_RC verdict(int code, struct tg_err *err)
{
    if (code == X509_V_OK)
        return TG_OK;
    if (code == X509_V_ERR_CERT_HAS_EXPIRED || code == X509_V_ERR_CERT_NOT_YET_VALID)
        return TG_FAIL(err, TG_E_EXPIRED, "certificate: %s", X509_verify_cert_error_string(code));
    return TG_FAIL(err, TG_E_AUTH, "certificate: %s", X509_verify_cert_error_string(code));
}

static TG_RC verify_with(X509_STORE_CTX *ctx, STACK_OF(X509) * roots, struct tg_err *err)
{
    X509_STORE_CTX_set0_trusted_stack(ctx, roots);
    if (X509_verify_cert(ctx) == 1)
        return TG_OK;
    ERR_clear_error();
    return verdict(X509_STORE_CTX_get_error(ctx), err);
}

TG_RC tg_x509_verify(struct tg_bytes cert_pem, struct tg_bytes ca_pem, enum tg_x509_use use,
                     int64_t now, struct tg_err *err)
{
    TG_AUTO(stack_freep) STACK_OF(X509) *chain = NULL;
    TG_AUTO(stack_freep) STACK_OF(X509) *roots = NULL;
    X509_STORE_CTX *ctx;
    enum tg_rc rc = TG_E_NOMEM;

    TG_TRY(stack_read(cert_pem, "certificate", &chain, err));
    TG_TRY(stack_read(ca_pem, "CA certificate", &roots, err));
    ctx = X509_STORE_CTX_new();
    if (ctx != NULL && X509_STORE_CTX_init(ctx, NULL, sk_X509_value(chain, 0), chain) == 1) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);

        X509_VERIFY_PARAM_set_purpose(param, use == TG_X509_SERVER ? X509_PURPOSE_SSL_SERVER
                                                                   : X509_PURPOSE_SSL_CLIENT);
        X509_VERIFY_PARAM_set_time(param, (time_t)now);
        X509_VERIFY_PARAM_set_depth(param, CHAIN_MAX);
        rc = verify_with(ctx, roots, err);
    } else {
        rc = tg_x509i_fail(err, TG_E_NOMEM, "out of memory");
    }
    X509_STORE_CTX_free(ctx);
    return rc;
}
