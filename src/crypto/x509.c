#include "crypto/x509_internal.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/mem.h"

#define SERVER_NAMES_MAX 64

struct tg_x509_key {
    EVP_PKEY *pkey;
};

struct tg_x509_ca {
    EVP_PKEY *pkey;
    X509 *cert;
};

TG_DEFINE_AUTO(X509_REQ, req_freep, X509_REQ_free);

static bool is_p256(const EVP_PKEY *pkey)
{
    char group[32];
    size_t n = 0;

    return EVP_PKEY_is_a(pkey, "EC") &&
           EVP_PKEY_get_group_name(pkey, group, sizeof(group), &n) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0);
}

/* --- PEM ------------------------------------------------------------------------------------- */

static TG_RC pkey_read(struct tg_bytes pem, EVP_PKEY **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = NULL;

    TG_TRY(tg_x509i_bio(pem, "private key", &bio, err));
    *out = PEM_read_bio_PrivateKey(bio, NULL, tg_x509i_no_passphrase, NULL);
    if (*out == NULL)
        return tg_x509i_fail(err, TG_E_FORMAT, "private key: not an unencrypted PEM private key");
    if (!is_p256(*out)) {
        EVP_PKEY_free(*out);
        *out = NULL;
        return TG_FAIL(err, TG_E_UNSUPPORTED, "private key: not ECDSA P-256");
    }
    return TG_OK;
}

static TG_RC bio_append(BIO *bio, struct tg_buf *out, struct tg_err *err)
{
    char *p = NULL;
    long n = BIO_get_mem_data(bio, &p);
    enum tg_rc rc;

    if (n <= 0)
        return tg_x509i_fail(err, TG_E_INTERNAL, "PEM encoding failed");
    rc = tg_buf_append(out, p, (size_t)n);
    return rc == TG_OK ? TG_OK : TG_FAIL(err, rc, "no room for the PEM text");
}

static TG_RC cert_write(X509 *cert, struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
        return tg_x509i_fail(err, TG_E_NOMEM, "certificate: cannot be encoded");
    return bio_append(bio, out, err);
}

static TG_RC pkey_write(EVP_PKEY *pkey, struct tg_buf *out, struct tg_err *err)
{
    /* secmem or not, BIO_s_secmem's buffer is cleansed when freed. */
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = BIO_new(BIO_s_secmem());

    if (!out->secret)
        return TG_FAIL(err, TG_E_INTERNAL, "a private key needs a secret buffer");
    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, tg_x509i_no_passphrase, NULL) != 1)
        return tg_x509i_fail(err, TG_E_NOMEM, "private key: cannot be encoded");
    return bio_append(bio, out, err);
}

/* --- keys ------------------------------------------------------------------------------------ */

static TG_RC pkey_make(EVP_PKEY **out, struct tg_err *err)
{
    *out = EVP_EC_gen("P-256");
    return *out != NULL ? TG_OK : tg_x509i_fail(err, TG_E_INTERNAL, "P-256 key generation failed");
}

static TG_RC key_wrap(EVP_PKEY **pkey, struct tg_x509_key **out, struct tg_err *err)
{
    struct tg_x509_key *key = tg_calloc(1, sizeof(*key));

    if (key == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    key->pkey = tg_steal(pkey);
    *out = key;
    return TG_OK;
}

TG_RC tg_x509_key_make(struct tg_x509_key **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;

    TG_TRY(pkey_make(&pkey, err));
    return key_wrap(&pkey, out, err);
}

TG_RC tg_x509_key_from_pem(struct tg_bytes pem, struct tg_x509_key **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;

    TG_TRY(pkey_read(pem, &pkey, err));
    return key_wrap(&pkey, out, err);
}

TG_RC tg_x509_key_to_pem(const struct tg_x509_key *key, struct tg_buf *out, struct tg_err *err)
{
    return pkey_write(key->pkey, out, err);
}

void tg_x509_key_free(struct tg_x509_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->pkey); /* libcrypto cleanses private scalars */
    tg_free(key);
}

TG_RC tg_x509_key_matches(const struct tg_x509_key *key, struct tg_bytes cert_pem,
                          struct tg_err *err)
{
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;

    TG_TRY(tg_x509i_cert_read(cert_pem, &cert, err));
    if (X509_check_private_key(cert, key->pkey) != 1)
        return tg_x509i_fail(err, TG_E_STATE, "the private key is not the certificate's");
    return TG_OK;
}

/* --- building certificates ------------------------------------------------------------------- */

struct profile {
    const char *cn;
    int64_t from, to;
    const char *key_usage;
    const char *ext_usage; /* NULL: none */
    const char *alt_names; /* NULL: none */
    const char *basic;
};

static TG_RC time_set(ASN1_TIME *t, int64_t when)
{
    /* RFC 5280 §4.1.2.5: UTCTime to 2049, GeneralizedTime after; ASN1_TIME_set does that. */
    if (when < 0 || when > INT64_C(253402300799))
        return TG_E_LIMIT;
    return ASN1_TIME_set(t, (time_t)when) != NULL ? TG_OK : TG_E_NOMEM;
}

/* 16 random bytes, the top bit clear (a positive INTEGER) and not all zero in front: RFC 5280
 * §4.1.2.2 wants at most 20 octets, and unguessable ones are good practice. */
static TG_RC serial_set(X509 *cert)
{
    uint8_t raw[16];
    BIGNUM *bn = NULL;
    enum tg_rc rc = TG_E_INTERNAL;

    if (RAND_bytes(raw, sizeof(raw)) != 1)
        return TG_E_INTERNAL;
    raw[0] = (uint8_t)((raw[0] & 0x7fU) | 0x40U);
    bn = BN_bin2bn(raw, sizeof(raw), NULL);
    if (bn != NULL && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL)
        rc = TG_OK;
    BN_free(bn);
    return rc;
}

static TG_RC name_set(X509_NAME *name, const char *cn)
{
    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1,
                                      0) == 1
               ? TG_OK
               : TG_E_INTERNAL;
}

static TG_RC ext_add(X509V3_CTX *ctx, X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *ext;
    int ok;

    if (value == NULL)
        return TG_OK;
    ext = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
    if (ext == NULL)
        return TG_E_INTERNAL;
    ok = X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    return ok == 1 ? TG_OK : TG_E_NOMEM;
}

static TG_RC extensions_set(X509 *cert, X509 *issuer, const struct profile *p)
{
    const struct {
        int nid;
        const char *value;
    } table[] = {
        {NID_basic_constraints,        p->basic      },
        {NID_key_usage,                p->key_usage  },
        {NID_ext_key_usage,            p->ext_usage  },
        {NID_subject_alt_name,         p->alt_names  },
        {NID_subject_key_identifier,   "hash"        },
        {NID_authority_key_identifier, "keyid:always"},
    };

    X509V3_CTX ctx;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    for (size_t i = 0; i < TG_ARRAY_LEN(table); i++)
        TG_TRY(ext_add(&ctx, cert, table[i].nid, table[i].value));
    return TG_OK;
}

static TG_RC cert_fill(X509 *cert, X509 *issuer, EVP_PKEY *subject_key, const struct profile *p)
{
    X509 *by = issuer != NULL ? issuer : cert;

    if (X509_set_version(cert, X509_VERSION_3) != 1 || X509_set_pubkey(cert, subject_key) != 1)
        return TG_E_NOMEM;
    TG_TRY(serial_set(cert));
    TG_TRY(name_set(X509_get_subject_name(cert), p->cn));
    if (X509_set_issuer_name(cert, X509_get_subject_name(by)) != 1)
        return TG_E_NOMEM;
    TG_TRY(time_set(X509_getm_notBefore(cert), p->from));
    TG_TRY(time_set(X509_getm_notAfter(cert), p->to));
    return extensions_set(cert, by, p);
}

/* issuer NULL: self-signed. */
static TG_RC cert_make(const struct tg_x509_ca *issuer, EVP_PKEY *subject_key,
                       const struct profile *p, X509 **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_freep) X509 *cert = X509_new();
    EVP_PKEY *signer = issuer != NULL ? issuer->pkey : subject_key;

    if (!tg_x509i_cn_ok(p->cn))
        return TG_FAIL(err, TG_E_USAGE,
                       "certificate: the common name must be 1 to %d printable bytes",
                       TG_X509_CN_MAX);
    if (cert == NULL ||
        cert_fill(cert, issuer != NULL ? issuer->cert : NULL, subject_key, p) != TG_OK ||
        X509_sign(cert, signer, EVP_sha256()) <= 0)
        return tg_x509i_fail(err, TG_E_INTERNAL, "certificate: cannot be made");
    *out = tg_steal(&cert);
    return TG_OK;
}

static TG_RC days_check(unsigned days, unsigned max, struct tg_err *err)
{
    if (days == 0 || days > max)
        return TG_FAIL(err, TG_E_USAGE, "certificate: %u days of validity, expected 1 to %u", days,
                       max);
    return TG_OK;
}

/* A certificate must not outlive its issuer: it would fail later, somewhere else, unexplained. */
static TG_RC end_within(const struct tg_x509_ca *ca, int64_t to, struct tg_err *err)
{
    time_t t = (time_t)to;

    if (X509_cmp_time(X509_get0_notAfter(ca->cert), &t) < 0)
        return TG_FAIL(err, TG_E_EXPIRED,
                       "certificate: would outlive the CA's own; make a new CA first");
    return TG_OK;
}

/* --- the CA ---------------------------------------------------------------------------------- */

static TG_RC ca_wrap(EVP_PKEY **pkey, X509 **cert, struct tg_x509_ca **out, struct tg_err *err)
{
    struct tg_x509_ca *ca = tg_calloc(1, sizeof(*ca));

    if (ca == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    ca->pkey = tg_steal(pkey);
    ca->cert = tg_steal(cert);
    *out = ca;
    return TG_OK;
}

TG_RC tg_x509_ca_make(const char *cn, int64_t now, unsigned days, struct tg_x509_ca **out,
                      struct tg_err *err)
{
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;
    struct profile p = {
        .cn = cn,
        .from = now - TG_X509_SKEW,
        .to = now + (int64_t)days * TG_X509_DAY,
        .basic = "critical,CA:TRUE,pathlen:0",
        .key_usage = "critical,keyCertSign,cRLSign",
    };

    TG_TRY(days_check(days, 36500, err));
    TG_TRY(pkey_make(&pkey, err));
    TG_TRY(cert_make(NULL, pkey, &p, &cert, err));
    return ca_wrap(&pkey, &cert, out, err);
}

TG_RC tg_x509_ca_load(struct tg_bytes cert_pem, struct tg_bytes key_pem, struct tg_x509_ca **out,
                      struct tg_err *err)
{
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;

    TG_TRY(tg_x509i_cert_read(cert_pem, &cert, err));
    TG_TRY(pkey_read(key_pem, &pkey, err));
    if (X509_check_private_key(cert, pkey) != 1)
        return tg_x509i_fail(err, TG_E_STATE, "CA: the private key is not the certificate's");
    if (X509_check_ca(cert) != 1)
        return tg_x509i_fail(err, TG_E_STATE, "CA: the certificate is not one of a CA");
    return ca_wrap(&pkey, &cert, out, err);
}

TG_RC tg_x509_ca_cert_pem(const struct tg_x509_ca *ca, struct tg_buf *out, struct tg_err *err)
{
    return cert_write(ca->cert, out, err);
}

TG_RC tg_x509_ca_key_pem(const struct tg_x509_ca *ca, struct tg_buf *out, struct tg_err *err)
{
    return pkey_write(ca->pkey, out, err);
}

void tg_x509_ca_free(struct tg_x509_ca *ca)
{
    if (ca == NULL)
        return;
    EVP_PKEY_free(ca->pkey);
    X509_free(ca->cert);
    tg_free(ca);
}

/* --- server certificates --------------------------------------------------------------------- */

/* The text goes into libcrypto's extension syntax, where a comma begins the next name: only what
 * host names and addresses consist of gets through. */
static bool dns_ok(const char *s)
{
    size_t n = strlen(s);

    if (n == 0 || n > 253)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '.' || (c == '*' && i == 0);

        if (!ok)
            return false;
    }
    return true;
}

static TG_RC alt_names(const struct tg_x509_server_opts *o, struct tg_buf *out, struct tg_err *err)
{
    uint8_t addr[16];

    if (o->names_n == 0 || o->names_n > SERVER_NAMES_MAX)
        return TG_FAIL(err, TG_E_USAGE, "server certificate: %zu names, expected 1 to %d",
                       o->names_n, SERVER_NAMES_MAX);
    for (size_t i = 0; i < o->names_n; i++) {
        const char *s = o->names[i];
        bool ip = inet_pton(AF_INET, s, addr) == 1 || inet_pton(AF_INET6, s, addr) == 1;

        if (!ip && !dns_ok(s))
            return TG_FAIL(err, TG_E_USAGE,
                           "server certificate: name %zu is neither a DNS name nor an address",
                           i + 1);
        if (tg_buf_printf(out, "%s%s:%s", i > 0 ? "," : "", ip ? "IP" : "DNS", s) != TG_OK)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    return TG_OK;
}

TG_RC tg_x509_issue_server(const struct tg_x509_ca *ca, const struct tg_x509_key *key,
                           const struct tg_x509_server_opts *opts, struct tg_buf *out,
                           struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf names = TG_BUF_INIT(65536);
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_X509_PEM_MAX);
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;
    struct profile p = {
        .cn = opts->cn,
        .from = opts->now - TG_X509_SKEW,
        .to = opts->now + (int64_t)opts->days * TG_X509_DAY,
        .basic = "critical,CA:FALSE",
        .key_usage = "critical,digitalSignature",
        .ext_usage = "serverAuth",
    };
    enum tg_rc rc;

    TG_TRY(days_check(opts->days, 3650, err));
    TG_TRY(end_within(ca, p.to, err));
    TG_TRY(alt_names(opts, &names, err));
    p.alt_names = tg_buf_cstr(&names);
    TG_TRY(cert_make(ca, key->pkey, &p, &cert, err));
    TG_TRY(cert_write(cert, &pem, err));
    TG_TRY(cert_write(ca->cert, &pem, err));
    rc = tg_buf_bytes(out, tg_buf_view(&pem));
    return rc == TG_OK ? TG_OK : TG_FAIL(err, rc, "no room for the PEM text");
}

/* --- requests and device certificates -------------------------------------------------------- */

TG_RC tg_x509_csr_make(const struct tg_x509_key *key, const char *cn, struct tg_buf *out,
                       struct tg_err *err)
{
    TG_AUTO(req_freep) X509_REQ *req = X509_REQ_new();
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = BIO_new(BIO_s_mem());

    if (!tg_x509i_cn_ok(cn))
        return TG_FAIL(err, TG_E_USAGE, "request: the common name must be 1 to %d printable bytes",
                       TG_X509_CN_MAX);
    if (req == NULL || bio == NULL || X509_REQ_set_version(req, X509_REQ_VERSION_1) != 1 ||
        name_set(X509_REQ_get_subject_name(req), cn) != TG_OK ||
        X509_REQ_set_pubkey(req, key->pkey) != 1 ||
        X509_REQ_sign(req, key->pkey, EVP_sha256()) <= 0 || PEM_write_bio_X509_REQ(bio, req) != 1)
        return tg_x509i_fail(err, TG_E_INTERNAL, "request: cannot be made");
    return bio_append(bio, out, err);
}

/* The request's public key, once its signature shows that the sender holds the private one. */
static TG_RC csr_key(struct tg_bytes pem, EVP_PKEY **out, struct tg_err *err)
{
    TG_AUTO(tg_x509i_bio_freep) BIO *bio = NULL;
    TG_AUTO(req_freep) X509_REQ *req = NULL;
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;

    TG_TRY(tg_x509i_bio(pem, "request", &bio, err));
    req = PEM_read_bio_X509_REQ(bio, NULL, tg_x509i_no_passphrase, NULL);
    if (req == NULL)
        return tg_x509i_fail(err, TG_E_FORMAT, "request: not a PEM certification request");
    pkey = X509_REQ_get_pubkey(req);
    if (pkey == NULL)
        return tg_x509i_fail(err, TG_E_FORMAT, "request: its public key cannot be read");
    if (!is_p256(pkey))
        return TG_FAIL(err, TG_E_UNSUPPORTED, "request: its key is not ECDSA P-256");
    if (X509_REQ_verify(req, pkey) != 1)
        return tg_x509i_fail(err, TG_E_AUTH, "request: its signature does not verify");
    *out = tg_steal(&pkey);
    return TG_OK;
}

static bool device_id_ok(const char *id)
{
    for (const char *c = id; *c != '\0'; c++)
        if (*c <= 0x20 || *c > 0x7e)
            return false;
    return tg_x509i_cn_ok(id);
}

TG_RC tg_x509_issue_device(const struct tg_x509_ca *ca, struct tg_bytes csr_pem,
                           const struct tg_x509_device_opts *opts, struct tg_buf *out,
                           struct tg_err *err)
{
    TG_AUTO(tg_x509i_pkey_freep) EVP_PKEY *pkey = NULL;
    TG_AUTO(tg_x509i_freep) X509 *cert = NULL;
    struct profile p = {
        .cn = opts->device_id,
        .from = opts->now - TG_X509_SKEW,
        .to = opts->now + (int64_t)opts->days * TG_X509_DAY,
        .basic = "critical,CA:FALSE",
        .key_usage = "critical,digitalSignature",
        .ext_usage = "clientAuth",
    };

    if (!device_id_ok(opts->device_id))
        return TG_FAIL(err, TG_E_USAGE, "device id: expected 1 to %d visible ASCII characters",
                       TG_X509_CN_MAX);
    TG_TRY(days_check(opts->days, 3650, err));
    TG_TRY(end_within(ca, p.to, err));
    TG_TRY(csr_key(csr_pem, &pkey, err));
    TG_TRY(cert_make(ca, pkey, &p, &cert, err));
    return cert_write(cert, out, err);
}
