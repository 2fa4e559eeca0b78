#include "cli/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/signals.h"

char *cli_dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return tg_strdup(".");
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    char *dir = tg_alloc(n + 1);
    if (dir != NULL) {
        memcpy(dir, path, n);
        dir[n] = 0;
    }
    return dir;
}

struct tg_bytes cli_passphrase_view(const struct tg_buf *b)
{
    return b->n == 0 ? TG_BYTES_NONE : tg_buf_view(b);
}

/* ---- passphrases ---- */

static enum tg_rc read_line(int tty, struct tg_buf *out, struct tg_err *err)
{
    for (;;) {
        uint8_t c = 0;
        ssize_t n = read(tty, &c, 1);
        if (n < 0 && errno == EINTR) {
            TG_TRY(cli_signals_check(err));
            continue;
        }
        if (n < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "/dev/tty");
        if (n == 0 || c == '\n')
            return TG_OK;
        if (tg_buf_u8(out, c) != TG_OK)
            return TG_FAIL(err, TG_E_USAGE, "a passphrase has at most %d bytes", TG_PASSPHRASE_MAX);
    }
}

static enum tg_rc ask(const char *path, struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios old;

    if (tty < 0 || tcgetattr(tty, &old) != 0)
        return TG_FAIL(err, TG_E_USAGE,
                       "%s: is encrypted; give --passphrase-file (there is no terminal to ask on)",
                       path);
    /* Ctrl-C while the echo is off must not leave the terminal mute: it only sets a flag here. */
    cli_signals_catch();
    struct termios mute = old;
    mute.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(tty, TCSAFLUSH, &mute) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "/dev/tty");
    TG_AUTO(tg_freep) char *prompt = tg_asprintf("Passphrase for %s: ", path);
    enum tg_rc rc = TG_OK;
    if (prompt != NULL)
        rc = tg_fd_write(tty, "/dev/tty", prompt, strlen(prompt), err);
    if (rc == TG_OK)
        rc = read_line(tty, out, err);
    (void)tcsetattr(tty, TCSAFLUSH, &old);
    if (rc == TG_OK)
        rc = tg_fd_write(tty, "/dev/tty", "\n", 1, err);
    return rc;
}

/* The passphrase for the key file at path, empty if it needs none. */
static enum tg_rc passphrase(const char *path, const char *file, struct tg_buf *out,
                             struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);

    TG_TRY(tg_file_read(path, &pem, err));
    if (strstr(tg_buf_cstr(&pem), "PUBLIC KEY-----") != NULL)
        return TG_FAIL(err, TG_E_FORMAT, "%s: is a public key; the private one is needed here",
                       path);
    if (!tg_keyfile_encrypted(tg_buf_view(&pem)))
        return TG_OK;
    if (file != NULL)
        return tg_passphrase_load_file(file, out, err);
    return ask(path, out, err);
}

enum tg_rc cli_sign_sk_load(const char *path, const char *passphrase_file, struct tg_sign_sk **out,
                            struct tg_buf *used, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf own = CLI_PASSPHRASE_INIT;
    struct tg_buf *pass = used != NULL ? used : &own;

    TG_TRY(passphrase(path, passphrase_file, pass, err));
    return tg_sign_sk_load_file(path, cli_passphrase_view(pass), out, err);
}

enum tg_rc cli_kem_sk_load(const char *path, const char *passphrase_file, struct tg_kem_sk **out,
                           struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf pass = CLI_PASSPHRASE_INIT;

    TG_TRY(passphrase(path, passphrase_file, &pass, err));
    return tg_kem_sk_load_file(path, cli_passphrase_view(&pass), out, err);
}

/* ---- pairs ---- */

struct pair {
    char *priv;
    char *pub;
};

static void pair_done(struct pair *p)
{
    tg_free(p->priv);
    tg_free(p->pub);
}

static enum tg_rc taken(const char *path, struct tg_err *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return TG_FAIL(err, TG_E_EXISTS, "%s: is there already; --force replaces it, for good",
                       path);
    return TG_OK;
}

/* Names of the two files, and that they are free. */
static enum tg_rc pair_names(const char *dir, const char *kind, bool force, struct pair *p,
                             struct tg_err *err)
{
    p->priv = tg_asprintf("%s/%s.priv", dir, kind);
    p->pub = tg_asprintf("%s/%s.pub", dir, kind);
    if (p->priv == NULL || p->pub == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_dir_make(dir, 0700, err));
    if (force)
        return TG_OK;
    TG_TRY(taken(p->priv, err));
    return taken(p->pub, err);
}

/* A new pair is there as a whole or not at all. A file that --force was to replace may still be the
 * old one, and one that someone else made meanwhile is theirs: those stay. */
static void drop_new(const char *path, bool force, enum tg_rc rc)
{
    if (!force && rc != TG_E_EXISTS)
        (void)unlink(path);
}

enum tg_rc cli_kem_pair_save(const struct tg_kem_sk *sk, struct tg_bytes pass, const char *dir,
                             bool force, struct tg_err *err)
{
    TG_AUTO(pair_done) struct pair p = {0};

    TG_TRY(pair_names(dir, "encryption", force, &p, err));
    enum tg_rc rc = tg_kem_sk_save_file(sk, pass, p.priv, force, err);
    if (rc != TG_OK) {
        drop_new(p.priv, force, rc);
        return rc;
    }
    rc = tg_kem_pk_save_file(tg_kem_sk_pk(sk), p.pub, force, err);
    if (rc != TG_OK) {
        drop_new(p.pub, force, rc);
        (void)unlink(p.priv);
    }
    return rc;
}

enum tg_rc cli_sign_pair_save(const struct tg_sign_sk *sk, struct tg_bytes pass, const char *dir,
                              bool force, struct tg_err *err)
{
    TG_AUTO(pair_done) struct pair p = {0};

    TG_TRY(pair_names(dir, "signing", force, &p, err));
    enum tg_rc rc = tg_sign_sk_save_file(sk, pass, p.priv, force, err);
    if (rc != TG_OK) {
        drop_new(p.priv, force, rc);
        return rc;
    }
    rc = tg_sign_pk_save_file(tg_sign_sk_pk(sk), p.pub, force, err);
    if (rc != TG_OK) {
        drop_new(p.pub, force, rc);
        (void)unlink(p.priv);
    }
    return rc;
}
