/* X.509 for the two certificate uses of the house: a device CA that issues server certificates and
 * device (client) certificates. Keys are ECDSA P-256, signatures ECDSA with SHA-256 (RFC 5280,
 * RFC 5480). All PEM is RFC 7468. Times are handed in.
 *
 * not_before is put TG_X509_SKEW seconds into the past, for clocks that run late. */
#ifndef TG_CRYPTO_X509_H
#define TG_CRYPTO_X509_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_X509_SKEW 3600
#define TG_X509_DAY 86400
#define TG_X509_CN_MAX 64
#define TG_X509_SERIAL_TEXT 41 /* 20 bytes in hex and NUL */
#define TG_X509_PEM_MAX 65536  /* longest PEM text read here */

/* A P-256 private key. */
struct tg_x509_key;
TG_RC tg_x509_key_make(struct tg_x509_key **out, struct tg_err *err);
/* Unencrypted PKCS#8 ("PRIVATE KEY"); another kind of key is TG_E_UNSUPPORTED. @retval TG_E_FORMAT
 */
TG_RC tg_x509_key_from_pem(struct tg_bytes pem, struct tg_x509_key **out, struct tg_err *err);
/* Append PKCS#8 PEM. out must be a TG_BUF_SECRET. */
TG_RC tg_x509_key_to_pem(const struct tg_x509_key *key, struct tg_buf *out, struct tg_err *err);
void tg_x509_key_free(struct tg_x509_key *key); /* wiped; NULL is fine */
TG_DEFINE_AUTO(struct tg_x509_key, tg_x509_key_freep, tg_x509_key_free);

/* A certification authority: its key and its self-signed certificate. */
struct tg_x509_ca;
/* cn: 1..64 bytes. days: 1..36500. */
TG_RC tg_x509_ca_make(const char *cn, int64_t now, unsigned days, struct tg_x509_ca **out,
                      struct tg_err *err);
/* @retval TG_E_FORMAT  @retval TG_E_STATE key and certificate don't belong together, or it's no CA
 */
TG_RC tg_x509_ca_load(struct tg_bytes cert_pem, struct tg_bytes key_pem, struct tg_x509_ca **out,
                      struct tg_err *err);
/* Append PEM. The key buffer must be a TG_BUF_SECRET. */
TG_RC tg_x509_ca_cert_pem(const struct tg_x509_ca *ca, struct tg_buf *out, struct tg_err *err);
TG_RC tg_x509_ca_key_pem(const struct tg_x509_ca *ca, struct tg_buf *out, struct tg_err *err);
void tg_x509_ca_free(struct tg_x509_ca *ca);
TG_DEFINE_AUTO(struct tg_x509_ca, tg_x509_ca_freep, tg_x509_ca_free);

/* What can be read off a certificate. */
struct tg_x509_facts {
    char serial[TG_X509_SERIAL_TEXT]; /* lower-case hex, two digits per byte, no leading 00 bytes */
    char cn[TG_X509_CN_MAX + 1];      /* subject common name; "" without one */
    char issuer_cn[TG_X509_CN_MAX + 1];
    int64_t not_before, not_after; /* Unix seconds */
    uint8_t fingerprint[32];       /* SHA-256 of the DER */
    bool is_ca;
};

/* Of the first CERTIFICATE in PEM text. A common name that is too long or holds a control character
 * is TG_E_FORMAT. */
TG_RC tg_x509_facts_pem(struct tg_bytes pem, struct tg_x509_facts *out, struct tg_err *err);
TG_RC tg_x509_facts_der(struct tg_bytes der, struct tg_x509_facts *out, struct tg_err *err);

enum tg_x509_use { TG_X509_SERVER, TG_X509_CLIENT };

/* Does the first certificate in cert_pem chain (through the others there) to one in ca_pem, for
 * this use, at `now`?
 * @retval TG_E_AUTH no   @retval TG_E_EXPIRED it would, but not at this time   @retval TG_E_FORMAT
 */
TG_RC tg_x509_verify(struct tg_bytes cert_pem, struct tg_bytes ca_pem, enum tg_x509_use use,
                     int64_t now, struct tg_err *err);
/* Is this the key of the certificate? @retval TG_E_STATE no */
TG_RC tg_x509_key_matches(const struct tg_x509_key *key, struct tg_bytes cert_pem,
                          struct tg_err *err);

/* A certificate for a server of ours: serverAuth, SANs. */
struct tg_x509_server_opts {
    const char *cn;           /* 1..64 bytes */
    const char *const *names; /* DNS names and numeric IP addresses, told apart here; ≥ 1 */
    size_t names_n;           /* ≤ 64 */
    int64_t now;
    unsigned days; /* 1..3650 */
};

/* Append the certificate, then the CA's, as PEM. */
TG_RC tg_x509_issue_server(const struct tg_x509_ca *ca, const struct tg_x509_key *key,
                           const struct tg_x509_server_opts *opts, struct tg_buf *out,
                           struct tg_err *err);

/* A certification request (PKCS#10, RFC 2986) for key with this common name; appended as PEM. */
TG_RC tg_x509_csr_make(const struct tg_x509_key *key, const char *cn, struct tg_buf *out,
                       struct tg_err *err);

/* Issue a device certificate for the P-256 key in a request whose own signature is good. Nothing
 * else is taken from the request: subject is CN = device_id, profile is digitalSignature +
 * clientAuth, not a CA, from now - TG_X509_SKEW to now + days.  Appends the certificate as PEM;
 * facts (may be NULL) says what was issued.
 * @retval TG_E_FORMAT not one well-formed request   @retval TG_E_AUTH its signature is wrong
 * @retval TG_E_UNSUPPORTED its key is not P-256 */
struct tg_x509_device_opts {
    const char *device_id; /* 1..64 printable ASCII */
    int64_t now;
    unsigned days; /* 1..3650; the house's devices get TG_X509_DEVICE_DAYS */
};

#define TG_X509_DEVICE_DAYS 30

TG_RC tg_x509_issue_device(const struct tg_x509_ca *ca, struct tg_bytes csr_pem,
                           const struct tg_x509_device_opts *opts, struct tg_buf *out,
                           struct tg_err *err);

#endif
