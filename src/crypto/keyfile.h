/* Key files (docs/spec/tgsp-1.0.md §8): PEM that `openssl pkey` 3.5 reads, two blocks per hybrid
 * key, the classical and then the post-quantum one, told apart by OID.
 *
 * The functions ending in _pem work on text in memory; the ones ending in _file do the reading and
 * writing. A passphrase is TG_BYTES_NONE (p == NULL) for none. Errors name the file's `name` and
 * the block, never a byte of a key. */
#ifndef TG_CRYPTO_KEYFILE_H
#define TG_CRYPTO_KEYFILE_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/kem.h"
#include "crypto/sign.h"

#define TG_KEYFILE_MAX (64 * 1024)
#define TG_PASSPHRASE_MAX 1024

/* Write: appends two PEM blocks. out for private keys should be TG_BUF_SECRET(TG_KEYFILE_MAX).
 * With a passphrase: PKCS#8 PBES2, scrypt N=2^14 r=8 p=5, AES-256-CBC. */
TG_RC tg_sign_sk_to_pem(const struct tg_sign_sk *sk, struct tg_bytes passphrase,
                        struct tg_buf *out);
TG_RC tg_sign_pk_to_pem(const struct tg_sign_pk *pk, struct tg_buf *out);
TG_RC tg_kem_sk_to_pem(const struct tg_kem_sk *sk, struct tg_bytes passphrase, struct tg_buf *out);
TG_RC tg_kem_pk_to_pem(const struct tg_kem_pk *pk, struct tg_buf *out);

/* Read: exactly two blocks and nothing but white space around them.
 * @retval TG_E_FORMAT  not such a file, a key of the other type, a public file where a private one
 * is needed, ...; err says which
 * @retval TG_E_USAGE   the file is encrypted and no passphrase was given
 * @retval TG_E_AUTH    the passphrase does not open it */
TG_RC tg_sign_sk_from_pem(struct tg_bytes pem, const char *name, struct tg_bytes passphrase,
                          struct tg_sign_sk **out, struct tg_err *err);
TG_RC tg_sign_pk_from_pem(struct tg_bytes pem, const char *name, struct tg_sign_pk **out,
                          struct tg_err *err);
TG_RC tg_kem_sk_from_pem(struct tg_bytes pem, const char *name, struct tg_bytes passphrase,
                         struct tg_kem_sk **out, struct tg_err *err);
TG_RC tg_kem_pk_from_pem(struct tg_bytes pem, const char *name, struct tg_kem_pk **out,
                         struct tg_err *err);

/* Does the text hold an encrypted private key (so that a program can ask for a passphrase)? */
bool tg_keyfile_encrypted(struct tg_bytes pem);

/* Files. Private files are created 0600, public ones 0644, atomically; an existing one is
 * TG_E_EXISTS unless `force`. Reading also checks, for private files, that group and others can't
 * read them (TG_E_DENIED, with the chmod to run). */
TG_RC tg_sign_sk_save_file(const struct tg_sign_sk *sk, struct tg_bytes passphrase,
                           const char *path, bool force, struct tg_err *err);
TG_RC tg_sign_pk_save_file(const struct tg_sign_pk *pk, const char *path, bool force,
                           struct tg_err *err);
TG_RC tg_kem_sk_save_file(const struct tg_kem_sk *sk, struct tg_bytes passphrase, const char *path,
                          bool force, struct tg_err *err);
TG_RC tg_kem_pk_save_file(const struct tg_kem_pk *pk, const char *path, bool force,
                          struct tg_err *err);
TG_RC tg_sign_sk_load_file(const char *path, struct tg_bytes passphrase, struct tg_sign_sk **out,
                           struct tg_err *err);
TG_RC tg_sign_pk_load_file(const char *path, struct tg_sign_pk **out, struct tg_err *err);
TG_RC tg_kem_sk_load_file(const char *path, struct tg_bytes passphrase, struct tg_kem_sk **out,
                          struct tg_err *err);
TG_RC tg_kem_pk_load_file(const char *path, struct tg_kem_pk **out, struct tg_err *err);
/* The same for the worker, which is handed descriptors (no permission check). */
TG_RC tg_kem_sk_load_fd(int fd, const char *name, struct tg_bytes passphrase,
                        struct tg_kem_sk **out, struct tg_err *err);

/* A passphrase file: one line; a single trailing newline is dropped. out is
 * TG_BUF_SECRET(TG_PASSPHRASE_MAX + 2). @retval TG_E_USAGE empty or over TG_PASSPHRASE_MAX */
TG_RC tg_passphrase_load_file(const char *path, struct tg_buf *out, struct tg_err *err);

#endif
