#include "crypto/keyfile.h"

#include <fcntl.h>
#include <openssl/encoder.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/text.h"
#include "crypto/openssl_internal.h"

#define SCRYPT_N 16384
#define SCRYPT_R 8
#define SCRYPT_P 5
#define SCRYPT_SALT 16

#define SPKI(text)                                                                                 \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

TG_DEFINE_AUTO(BIO, bio_freep, BIO_free_all);
TG_DEFINE_AUTO(PKCS8_PRIV_KEY_INFO, p8_freep, PKCS8_PRIV_KEY_INFO_free);
TG_DEFINE_AUTO(X509_SIG, x509_sig_freep, X509_SIG_free);
TG_DEFINE_AUTO(X509_ALGOR, algor_freep, X509_ALGOR_free);
TG_DEFINE_AUTO(OSSL_ENCODER_CTX, encoder_freep, OSSL_ENCODER_CTX_free);

/* DER from OpenSSL, wiped when done. */
struct der {
    unsigned char *p;
    size_t n;
};

static void der_done(struct der *d)
{
    OPENSSL_clear_free(d->p, d->n);
}

static enum tg_rc encode_key(const EVP_PKEY *key, bool private, const char *form, struct der *out)
{
    int selection = private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
    const char *structure = private ? "PrivateKeyInfo" : "SubjectPublicKeyInfo";
    TG_AUTO(encoder_freep)
    OSSL_ENCODER_CTX *ctx = OSSL_ENCODER_CTX_new_for_pkey(key, selection, form, structure, NULL);
    if (!ctx || OSSL_ENCODER_CTX_get_num_encoders(ctx) == 0 ||
        OSSL_ENCODER_to_data(ctx, &out->p, &out->n) != 1)
        return tg_ossl_rc(TG_E_INTERNAL);
    return TG_OK;
}

static enum tg_rc plain_pem(const EVP_PKEY *key, bool private, struct tg_buf *out)
{
    TG_AUTO(der_done) struct der text = {NULL, 0};
    TG_TRY(encode_key(key, private, "PEM", &text));
    return tg_buf_append(out, text.p, text.n);
}

/* PKCS#8 PBES2 with scrypt: OSSL_ENCODER knows only PBKDF2, so put the pieces together. */
static enum tg_rc encrypted_pem(const EVP_PKEY *key, struct tg_bytes pass, struct tg_buf *out)
{
    TG_AUTO(der_done) struct der plain = {NULL, 0};
    TG_TRY(encode_key(key, true, "DER", &plain));
    const unsigned char *at = plain.p;
    TG_AUTO(p8_freep) PKCS8_PRIV_KEY_INFO *p8 = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)plain.n);
    uint8_t salt[SCRYPT_SALT], iv[16];
    TG_TRY(tg_random(salt, sizeof salt));
    TG_TRY(tg_random(iv, sizeof iv));
    TG_AUTO(algor_freep)
    X509_ALGOR *algor = PKCS5_pbe2_set_scrypt(EVP_aes_256_cbc(), salt, sizeof salt, iv, SCRYPT_N,
                                              SCRYPT_R, SCRYPT_P);
    if (!p8 || !algor)
        return tg_ossl_rc(TG_E_INTERNAL);
    TG_AUTO(x509_sig_freep)
    X509_SIG *sig = PKCS8_set0_pbe((const char *)pass.p, (int)pass.n, p8, algor);
    if (!sig)
        return tg_ossl_rc(TG_E_INTERNAL);
    algor = NULL; /* now the signature's */
    TG_AUTO(bio_freep) BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (!bio || PEM_write_bio_PKCS8(bio, sig) != 1)
        return tg_ossl_rc(TG_E_INTERNAL);
    long n = BIO_get_mem_data(bio, &text);
    return n > 0 ? tg_buf_append(out, text, (size_t)n) : tg_ossl_rc(TG_E_INTERNAL);
}

static enum tg_rc private_pem(const EVP_PKEY *classic, const EVP_PKEY *pqc, struct tg_bytes pass,
                              struct tg_buf *out)
{
    TG_QUIET_OPENSSL;
    if (!pass.p) {
        TG_TRY(plain_pem(classic, true, out));
        return plain_pem(pqc, true, out);
    }
    if (pass.n == 0 || pass.n > TG_PASSPHRASE_MAX)
        return TG_E_USAGE;
    TG_TRY(encrypted_pem(classic, pass, out));
    return encrypted_pem(pqc, pass, out);
}

static enum tg_rc public_pem(const EVP_PKEY *classic, const EVP_PKEY *pqc, struct tg_buf *out)
{
    TG_QUIET_OPENSSL;
    TG_TRY(plain_pem(classic, false, out));
    return plain_pem(pqc, false, out);
}

enum tg_rc tg_sign_sk_to_pem(const struct tg_sign_sk *sk, struct tg_bytes passphrase,
                             struct tg_buf *out)
{
    return private_pem(sk->ed25519, sk->mldsa, passphrase, out);
}

enum tg_rc tg_sign_pk_to_pem(const struct tg_sign_pk *pk, struct tg_buf *out)
{
    return public_pem(pk->ed25519, pk->mldsa, out);
}

enum tg_rc tg_kem_sk_to_pem(const struct tg_kem_sk *sk, struct tg_bytes passphrase,
                            struct tg_buf *out)
{
    return private_pem(sk->x25519, sk->mlkem, passphrase, out);
}

enum tg_rc tg_kem_pk_to_pem(const struct tg_kem_pk *pk, struct tg_buf *out)
{
    return public_pem(pk->x25519, pk->mlkem, out);
}

/* What a key file of one kind must hold. */
struct kind {
    const char *article, *what; /* for error texts */
    const char *types[2];       /* OpenSSL's names, classical first */
};

static const struct kind kind_sign = {
    "a", "signing", {"ED25519", "ML-DSA-65"}
};
static const struct kind kind_kem = {
    "an", "encryption", {"X25519", "ML-KEM-768"}
};

static const struct kind *const kinds[] = {&kind_sign, &kind_kem};

enum form { FORM_PUBLIC, FORM_PRIVATE, FORM_ENCRYPTED, FORM_COUNT };

static const char *const form_labels[FORM_COUNT] = {
    [FORM_PUBLIC] = "PUBLIC KEY",
    [FORM_PRIVATE] = "PRIVATE KEY",
    [FORM_ENCRYPTED] = "ENCRYPTED PRIVATE KEY",
};

static enum form form_of(struct tg_bytes label)
{
    for (int f = 0; f < FORM_COUNT; f++)
        if (tg_bytes_eq(label, tg_bytes_str(form_labels[f])))
            return (enum form)f;
    return FORM_COUNT;
}

/* The DER of one PEM block; headers (old-style encryption) are refused. */
static enum tg_rc pem_body(struct tg_bytes block, struct tg_buf *out)
{
    TG_AUTO(bio_freep) BIO *bio = BIO_new_mem_buf(block.p, (int)block.n);
    TG_AUTO(der_done) struct der der = {NULL, 0};
    char *name = NULL, *header = NULL;
    long n = 0;
    if (!bio)
        return TG_E_NOMEM;
    int ok = PEM_read_bio(bio, &name, &header, &der.p, &n);
    bool bare = ok == 1 && header[0] == 0;
    OPENSSL_free(name);
    OPENSSL_free(header);
    der.n = n > 0 ? (size_t)n : 0;
    return bare ? tg_buf_append(out, der.p, der.n) : tg_ossl_rc(TG_E_FORMAT);
}

/* The rest of a file being read. */
struct reading {
    struct tg_bytes rest;
    const char *name;
    struct tg_bytes pass;
    const struct kind *kind;
    bool private;
};

static enum tg_rc unusable(enum tg_rc rc, const char *name, const char *words, struct tg_err *err)
{
    return TG_FAIL(err, rc, "%s: %s", name, tg_rc_verdict(rc, words));
}

/* A SubjectPublicKeyInfo of each type (RFC 8410 for the first two) is these bytes and the raw key.
 * OpenSSL's decoder would read it as well, with thousands of allocations more, and where one fails
 * it forgets that it was that. */
static const struct {
    const char *type;
    struct tg_bytes head;
    size_t raw;
} spki[] = {
    {"ED25519",    SPKI("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"), 32},
    {"X25519",     SPKI("\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00"), 32},
    {"ML-DSA-65",
     SPKI("\x30\x82\x07\xb2\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12\x03\x82\x07\xa1"
          "\x00"),
     1952                                                                      },
    {"ML-KEM-768",
     SPKI("\x30\x82\x04\xb2\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02\x03\x82\x04\xa1"
          "\x00"),
     1184                                                                      },
};

/* Any other public key is OpenSSL's to read: to say what it is, since it is not one of ours. */
static enum tg_rc public_key(struct tg_bytes der, EVP_PKEY **out)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(spki); i++) {
        size_t head = spki[i].head.n;
        if (der.n == head + spki[i].raw && tg_mem_eq(der.p, spki[i].head.p, head))
            return tg_evp_public(spki[i].type, tg_bytes_sub(der, head, spki[i].raw), out);
    }
    const unsigned char *at = der.p;
    *out = d2i_PUBKEY_ex(NULL, &at, (long)der.n, NULL, NULL);
    return *out && at == der.p + der.n ? TG_OK : tg_ossl_rc(TG_E_FORMAT);
}

/* PKCS#8 info from DER, with nothing behind it. (OpenSSL's decoder does not say when it failed for
 * want of memory, and having failed once it may fail again: that is told as FORMAT.) */
static enum tg_rc p8_to_key(PKCS8_PRIV_KEY_INFO *p8, EVP_PKEY **out)
{
    *out = p8 ? EVP_PKCS82PKEY_ex(p8, NULL, NULL) : NULL;
    return *out ? TG_OK : tg_ossl_rc(TG_E_FORMAT);
}

static enum tg_rc private_key(struct tg_bytes der, EVP_PKEY **out)
{
    const unsigned char *at = der.p;
    TG_AUTO(p8_freep) PKCS8_PRIV_KEY_INFO *p8 = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.n);
    TG_TRY(p8_to_key(p8, out));
    return at == der.p + der.n ? TG_OK : TG_E_FORMAT;
}

static enum tg_rc decrypt_p8(const struct reading *r, struct tg_bytes der, EVP_PKEY **out,
                             struct tg_err *err)
{
    const unsigned char *at = der.p;
    TG_AUTO(x509_sig_freep) X509_SIG *sig = d2i_X509_SIG(NULL, &at, (long)der.n);
    if (!sig || at != der.p + der.n)
        return unusable(tg_ossl_rc(TG_E_FORMAT), r->name, "not an encrypted PKCS#8 key", err);
    if (!r->pass.p)
        return TG_FAIL(err, TG_E_USAGE,
                       "%s: the key is encrypted; give its passphrase with --passphrase-file",
                       r->name);
    TG_AUTO(p8_freep)
    PKCS8_PRIV_KEY_INFO *p8 = PKCS8_decrypt(sig, (const char *)r->pass.p, (int)r->pass.n);
    if (!p8)
        return unusable(tg_ossl_rc(TG_E_AUTH), r->name, "the passphrase does not open this key",
                        err);
    enum tg_rc rc = p8_to_key(p8, out);
    return rc == TG_OK ? rc : unusable(rc, r->name, "a private key that OpenSSL can't read", err);
}

static enum tg_rc der_to_key(const struct reading *r, enum form form, struct tg_bytes der,
                             EVP_PKEY **out, struct tg_err *err)
{
    if (form == FORM_ENCRYPTED)
        return decrypt_p8(r, der, out, err);
    enum tg_rc rc = form == FORM_PUBLIC ? public_key(der, out) : private_key(der, out);
    if (rc != TG_OK) {
        EVP_PKEY_free(*out);
        *out = NULL;
        return TG_FAIL(err, rc, "%s: a %s block: %s", r->name, form_labels[form],
                       tg_rc_verdict(rc, "OpenSSL can't read it"));
    }
    return TG_OK;
}

static enum tg_rc wrong_type(const struct reading *r, const EVP_PKEY *key, int i,
                             struct tg_err *err)
{
    const char *got = EVP_PKEY_get0_type_name(key);
    for (size_t k = 0; k < TG_ARRAY_LEN(kinds); k++)
        if (kinds[k] != r->kind &&
            (EVP_PKEY_is_a(key, kinds[k]->types[0]) || EVP_PKEY_is_a(key, kinds[k]->types[1])))
            return TG_FAIL(err, TG_E_FORMAT, "%s: this is %s %s key (%s); %s %s key is needed here",
                           r->name, kinds[k]->article, kinds[k]->what, got ? got : "?",
                           r->kind->article, r->kind->what);
    return TG_FAIL(err, TG_E_FORMAT,
                   "%s: block %d holds %s, not %s: a hybrid %s key is %s, then %s", r->name, i + 1,
                   got ? got : "an unknown key", r->kind->types[i], r->kind->what,
                   r->kind->types[0], r->kind->types[1]);
}

static enum tg_rc next_key(struct reading *r, int i, EVP_PKEY **out, struct tg_err *err)
{
    struct tg_bytes label, body;
    enum tg_rc rc = tg_pem_next(&r->rest, &label, &body);
    if (rc == TG_E_NOTFOUND)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %s; a hybrid key file holds two", r->name,
                       i == 0 ? "no PEM block" : "only one PEM block");
    if (rc != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "%s: not a PEM key file", r->name);
    enum form form = form_of(label);
    if (form == FORM_COUNT)
        return TG_FAIL(err, TG_E_FORMAT, "%s: PEM block %d is a '%.*s', not a key", r->name, i + 1,
                       label.n > 40 ? 40 : (int)label.n, (const char *)label.p);
    if (r->private && form == FORM_PUBLIC)
        return TG_FAIL(err, TG_E_FORMAT, "%s: a public key; the private one is needed here",
                       r->name);
    if (!r->private && form != FORM_PUBLIC)
        return TG_FAIL(err, TG_E_FORMAT, "%s: a private key; give the public one (.pub)", r->name);
    TG_AUTO(tg_buf_done) struct tg_buf der = TG_BUF_SECRET(TG_KEYFILE_MAX);
    rc = pem_body(body, &der);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: PEM block %d: %s", r->name, i + 1,
                       tg_rc_verdict(rc, "not base64"));
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *key = NULL;
    TG_TRY(der_to_key(r, form, tg_buf_view(&der), &key, err));
    if (!EVP_PKEY_is_a(key, r->kind->types[i]))
        return wrong_type(r, key, i, err);
    *out = tg_steal(&key);
    return TG_OK;
}

static enum tg_rc read_two(struct reading *r, EVP_PKEY **classic, EVP_PKEY **pqc,
                           struct tg_err *err)
{
    struct tg_bytes label, body;
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *first = NULL;
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *second = NULL;
    TG_TRY(next_key(r, 0, &first, err));
    TG_TRY(next_key(r, 1, &second, err));
    if (tg_pem_next(&r->rest, &label, &body) != TG_E_NOTFOUND)
        return TG_FAIL(err, TG_E_FORMAT, "%s: something follows the two key blocks", r->name);
    *classic = tg_steal(&first);
    *pqc = tg_steal(&second);
    return TG_OK;
}

enum tg_rc tg_sign_sk_from_pem(struct tg_bytes pem, const char *name, struct tg_bytes passphrase,
                               struct tg_sign_sk **out, struct tg_err *err)
{
    TG_QUIET_OPENSSL;
    struct reading r = {pem, name, passphrase, &kind_sign, true};
    EVP_PKEY *classic, *pqc;
    TG_TRY(read_two(&r, &classic, &pqc, err));
    enum tg_rc rc = tg_sign_sk_from_evp(classic, pqc, out);
    return rc == TG_OK ? rc : unusable(rc, name, "not a usable signing key", err);
}

enum tg_rc tg_kem_sk_from_pem(struct tg_bytes pem, const char *name, struct tg_bytes passphrase,
                              struct tg_kem_sk **out, struct tg_err *err)
{
    TG_QUIET_OPENSSL;
    struct reading r = {pem, name, passphrase, &kind_kem, true};
    EVP_PKEY *classic, *pqc;
    TG_TRY(read_two(&r, &classic, &pqc, err));
    enum tg_rc rc = tg_kem_sk_from_evp(classic, pqc, out);
    return rc == TG_OK ? rc : unusable(rc, name, "not a usable encryption key", err);
}

/* The two public halves, as raw bytes one after the other. */
static enum tg_rc read_public(struct reading *r, uint8_t *raw, size_t first, size_t total,
                              struct tg_err *err)
{
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *classic = NULL;
    TG_AUTO(tg_evp_pkey_freep) EVP_PKEY *pqc = NULL;
    TG_TRY(read_two(r, &classic, &pqc, err));
    enum tg_rc rc = tg_evp_raw_public(classic, raw, first);
    if (rc == TG_OK)
        rc = tg_evp_raw_public(pqc, raw + first, total - first);
    return rc == TG_OK ? rc : unusable(rc, r->name, "not a usable public key", err);
}

enum tg_rc tg_sign_pk_from_pem(struct tg_bytes pem, const char *name, struct tg_sign_pk **out,
                               struct tg_err *err)
{
    TG_QUIET_OPENSSL;
    struct reading r = {pem, name, TG_BYTES_NONE, &kind_sign, false};
    uint8_t raw[TG_SIGN_PK_LEN];
    TG_TRY(read_public(&r, raw, TG_SIGN_ED25519_LEN, sizeof raw, err));
    enum tg_rc rc = tg_sign_pk_new(TG_BYTES_OF(raw), out);
    return rc == TG_OK
               ? rc
               : unusable(rc, name, "not a usable signing key (small-order or invalid)", err);
}

enum tg_rc tg_kem_pk_from_pem(struct tg_bytes pem, const char *name, struct tg_kem_pk **out,
                              struct tg_err *err)
{
    TG_QUIET_OPENSSL;
    struct reading r = {pem, name, TG_BYTES_NONE, &kind_kem, false};
    uint8_t raw[TG_KEM_PK_LEN];
    TG_TRY(read_public(&r, raw, TG_KEM_X25519_LEN, sizeof raw, err));
    enum tg_rc rc = tg_kem_pk_new(TG_BYTES_OF(raw), out);
    return rc == TG_OK ? rc : unusable(rc, name, "not a usable encryption key", err);
}

bool tg_keyfile_encrypted(struct tg_bytes pem)
{
    struct tg_bytes label, body;
    while (tg_pem_next(&pem, &label, &body) == TG_OK)
        if (form_of(label) == FORM_ENCRYPTED)
            return true;
    return false;
}
