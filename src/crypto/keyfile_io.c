/* Key files on disk: modes, atomic creation, and what may not be readable by others. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/keyfile.h"

#define MODE_PRIVATE 0600
#define MODE_PUBLIC 0644

static enum tg_rc save(enum tg_rc made, const struct tg_buf *pem, const char *path, mode_t mode,
                       bool force, struct tg_err *err)
{
    if (made != TG_OK)
        return TG_FAIL(err, made, "%s: the key could not be encoded: %s", path,
                       made == TG_E_USAGE ? "the passphrase is empty or too long"
                                          : tg_rc_text(made));
    enum tg_rc rc = tg_file_write(path, tg_buf_view(pem), mode, force, err);
    if (rc == TG_E_EXISTS)
        return TG_FAIL(err, rc,
                       "%s: exists already; --force replaces it (what was encrypted to or "
                       "signed by the old key stays so)",
                       path);
    return rc;
}

enum tg_rc tg_sign_sk_save_file(const struct tg_sign_sk *sk, struct tg_bytes passphrase,
                                const char *path, bool force, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    return save(tg_sign_sk_to_pem(sk, passphrase, &pem), &pem, path, MODE_PRIVATE, force, err);
}

enum tg_rc tg_kem_sk_save_file(const struct tg_kem_sk *sk, struct tg_bytes passphrase,
                               const char *path, bool force, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    return save(tg_kem_sk_to_pem(sk, passphrase, &pem), &pem, path, MODE_PRIVATE, force, err);
}

enum tg_rc tg_sign_pk_save_file(const struct tg_sign_pk *pk, const char *path, bool force,
                                struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    return save(tg_sign_pk_to_pem(pk, &pem), &pem, path, MODE_PUBLIC, force, err);
}

enum tg_rc tg_kem_pk_save_file(const struct tg_kem_pk *pk, const char *path, bool force,
                               struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    return save(tg_kem_pk_to_pem(pk, &pem), &pem, path, MODE_PUBLIC, force, err);
}

/* Open once and look at what was opened, so that nothing can be swapped between check and read. */
static enum tg_rc read_private(const char *path, struct tg_buf *pem, struct tg_err *err)
{
    struct stat st;
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", path);
    if (fstat(fd, &st) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    if (!S_ISREG(st.st_mode))
        return TG_FAIL(err, TG_E_FORMAT, "%s: not a regular file", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return TG_FAIL(err, TG_E_DENIED,
                       "%s: a private key that others can reach (mode %04o); run: chmod 600 %s",
                       path, (unsigned)(st.st_mode & 07777), path);
    return tg_fd_read_all(fd, path, pem, err);
}

enum tg_rc tg_sign_sk_load_file(const char *path, struct tg_bytes passphrase,
                                struct tg_sign_sk **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_TRY(read_private(path, &pem, err));
    return tg_sign_sk_from_pem(tg_buf_view(&pem), path, passphrase, out, err);
}

enum tg_rc tg_kem_sk_load_file(const char *path, struct tg_bytes passphrase, struct tg_kem_sk **out,
                               struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_TRY(read_private(path, &pem, err));
    return tg_kem_sk_from_pem(tg_buf_view(&pem), path, passphrase, out, err);
}

enum tg_rc tg_kem_sk_load_fd(int fd, const char *name, struct tg_bytes passphrase,
                             struct tg_kem_sk **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_TRY(tg_fd_read_all(fd, name, &pem, err));
    return tg_kem_sk_from_pem(tg_buf_view(&pem), name, passphrase, out, err);
}

enum tg_rc tg_sign_pk_load_file(const char *path, struct tg_sign_pk **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_TRY(tg_file_read(path, &pem, err));
    return tg_sign_pk_from_pem(tg_buf_view(&pem), path, out, err);
}

enum tg_rc tg_kem_pk_load_file(const char *path, struct tg_kem_pk **out, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_TRY(tg_file_read(path, &pem, err));
    return tg_kem_pk_from_pem(tg_buf_view(&pem), path, out, err);
}

enum tg_rc tg_passphrase_load_file(const char *path, struct tg_buf *out, struct tg_err *err)
{
    TG_TRY(tg_file_read(path, out, err));
    if (out->n && out->data[out->n - 1] == '\n')
        out->data[--out->n] = 0;
    if (out->n == 0 || out->n > TG_PASSPHRASE_MAX) {
        tg_buf_clear(out);
        return TG_FAIL(err, TG_E_USAGE, "%s: a passphrase is 1 to %d bytes on one line", path,
                       TG_PASSPHRASE_MAX);
    }
    return TG_OK;
}
