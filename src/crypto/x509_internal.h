/* Shared by x509.c (making) and x509_read.c (reading, verifying). */
#ifndef TG_CRYPTO_X509_INTERNAL_H
#define TG_CRYPTO_X509_INTERNAL_H

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/bytes.h"
#include "crypto/x509.h"

TG_DEFINE_AUTO(X509, tg_x509i_freep, X509_free);
TG_DEFINE_AUTO(EVP_PKEY, tg_x509i_pkey_freep, EVP_PKEY_free);
TG_DEFINE_AUTO(BIO, tg_x509i_bio_freep, BIO_free_all);

/* err gets `what` alone; libcrypto's own queue is emptied. */
enum tg_rc tg_x509i_fail(struct tg_err *err, enum tg_rc rc, const char *what);
/* A read-only BIO over 1..TG_X509_PEM_MAX bytes of PEM. */
TG_RC tg_x509i_bio(struct tg_bytes pem, const char *what, BIO **out, struct tg_err *err);
/* Never asks a terminal for a passphrase (a pem_password_cb). */
int tg_x509i_no_passphrase(char *buf, int size, int rwflag, void *arg);
/* The first certificate. */
TG_RC tg_x509i_cert_read(struct tg_bytes pem, X509 **out, struct tg_err *err);
/* 1..TG_X509_CN_MAX bytes of UTF-8 without control characters. */
bool tg_x509i_cn_ok(const char *cn);

#endif
