/* The platform's own keys, made at the first start and sealed in the data folder.
 *
 *     keys/vault.priv        the vault's hybrid KEM key      PKCS#8 under a passphrase (scrypt):
 * the keys/platform.priv     the hybrid signing key          --passphrase-file's line or the key
 * file's keys/device-ca.sealed  the device CA's key             sealed to the vault's key
 *     keys/server-ca.sealed  the server CA's key             sealed to the vault's key
 *     vault.pub platform.pub device-ca.pem ca.pem            public, for clients
 *
 * Without a passphrase file or key file, DIR/vault.key (32 random bytes in hex, 0600) is made and
 * used. It protects the keys in a copy of the folder that lacks that file (backups of the rest, a
 * stolen database); it does not protect them from someone who reads the whole folder. */
#ifndef TG_PLATFORM_KEYS_H
#define TG_PLATFORM_KEYS_H

#include <pthread.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/opt.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "crypto/x509.h"

/* What to do about failures that are the machine's, not the caller's. */
#define TG_NO_RANDOMNESS                                                                           \
    "OpenSSL's random generator gives nothing: see what keeps the kernel's getrandom or free "     \
    "memory from it, then start the platform again"
#define TG_NO_LOCK_HINT "free some memory, then start the platform again"

struct tg_keys {
    struct tg_kem_sk *vault;
    struct tg_sign_sk *platform;
    struct tg_x509_ca *device_ca, *server_ca;
    pthread_mutex_t ca_lock; /* issuing is one at a time */
    struct tg_buf vault_pub, platform_pub, device_ca_pem, server_ca_pem; /* PEM */
    bool made;         /* this was the first start */
    bool own_key_file; /* sealed under DIR/vault.key */
};

struct tg_keys_opts {
    const char *data_dir;
    const char *key_file, *passphrase_file; /* at most one; NULL: DIR/vault.key */
    int64_t now;
};

/* Load, or make what is missing. @retval TG_E_AUTH the passphrase or key file is not the one */
TG_RC tg_keys_open(const struct tg_keys_opts *opts, struct tg_keys **out, struct tg_err *err);
void tg_keys_close(struct tg_keys *k);
TG_DEFINE_AUTO(struct tg_keys, tg_keys_closep, tg_keys_close);

/* A listener's certificate chain and its key. */
struct tg_tls_pair {
    struct tg_buf cert, key; /* PEM; TG_TLS_PAIR_INIT */
};

#define TG_TLS_PAIR_INIT                                                                           \
    {                                                                                              \
        TG_BUF_INIT(65536), TG_BUF_SECRET(65536)                                                   \
    }
void tg_tls_pair_done(struct tg_tls_pair *p);

/* A fresh TLS key and certificate for these DNS names and addresses; the key is only in memory. */
TG_RC tg_keys_server_cert(struct tg_keys *k, const struct tg_opt_list *names, int64_t now,
                          struct tg_tls_pair *out, struct tg_err *err);

/* A certificate that was issued. */
struct tg_issued {
    struct tg_buf pem;
    struct tg_x509_facts facts;
};

void tg_issued_done(struct tg_issued *i);

/* A device certificate for the key in a request. */
TG_RC tg_keys_device_cert(struct tg_keys *k, struct tg_bytes csr,
                          const struct tg_x509_device_opts *opts, struct tg_issued *out,
                          struct tg_err *err);

/* Seal bytes to a KEM key under a name, and open them again (RFC-style: KEM, HKDF, AEAD). out of
 * _open is TG_BUF_SECRET. @retval TG_E_AUTH altered, another key, another name */
TG_RC tg_seal(const struct tg_kem_pk *to, const char *name, struct tg_bytes plain,
              struct tg_buf *out);
TG_RC tg_seal_open(const struct tg_kem_sk *sk, const char *name, struct tg_bytes sealed,
                   struct tg_buf *out);

#endif
