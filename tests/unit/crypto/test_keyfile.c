/* Key files: what is written is read back, what is wrong is named, and `openssl pkey` agrees (the
 * latter in tests/e2e). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/keyfile.h"

struct fixture {
    struct tg_sign_sk *sign;
    struct tg_kem_sk *kem;
    char dir[32];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(tg_sign_sk_generate(NULL, &f->sign), TG_OK);
    assert_int_equal(tg_kem_sk_generate(NULL, &f->kem), TG_OK);
    memcpy(f->dir, "/tmp/tg-keyfile-XXXXXX", 23);
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tg_sign_sk_free(f->sign);
    tg_kem_sk_free(f->kem);
    assert_int_equal(tg_dir_remove(f->dir, NULL), TG_OK);
    free(f);
    return 0;
}

static const struct tg_bytes pass = {(const uint8_t *)"correct horse", 13};

static void sign_round_trip(const struct fixture *f, struct tg_bytes passphrase)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *back = NULL;
    struct tg_err err = TG_ERR_INIT;
    struct tg_sig sig;
    struct tg_bytes msg = tg_bytes_str("hello");
    assert_int_equal(tg_sign_sk_to_pem(f->sign, passphrase, &pem), TG_OK);
    assert_int_equal(tg_keyfile_encrypted(tg_buf_view(&pem)), passphrase.p != NULL);
    assert_int_equal(tg_sign_sk_from_pem(tg_buf_view(&pem), "k.priv", passphrase, &back, &err),
                     TG_OK);
    assert_int_equal(tg_sign(back, msg, false, &sig), TG_OK);
    assert_int_equal(tg_sign_verify(tg_sign_sk_pk(f->sign), msg, &sig), TG_OK);
}

static void test_sign_round_trip(void **state)
{
    sign_round_trip(*state, TG_BYTES_NONE);
    sign_round_trip(*state, pass);
}

static void kem_round_trip(const struct fixture *f, struct tg_bytes passphrase)
{
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *back = NULL;
    struct tg_kem_ct ct;
    uint8_t a[32], b[32];
    assert_int_equal(tg_kem_sk_to_pem(f->kem, passphrase, &pem), TG_OK);
    assert_int_equal(tg_kem_sk_from_pem(tg_buf_view(&pem), "k.priv", passphrase, &back, NULL),
                     TG_OK);
    assert_int_equal(tg_kem_encap(tg_kem_sk_pk(f->kem), NULL, &ct, a), TG_OK);
    assert_int_equal(tg_kem_decap(back, &ct, b), TG_OK);
    assert_memory_equal(a, b, 32);
}

static void test_kem_round_trip(void **state)
{
    kem_round_trip(*state, TG_BYTES_NONE);
    kem_round_trip(*state, pass);
}

static void test_public_round_trip(void **state)
{
    struct fixture *f = *state;
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *spk = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *kpk = NULL;
    assert_int_equal(tg_sign_pk_to_pem(tg_sign_sk_pk(f->sign), &pem), TG_OK);
    assert_int_equal(tg_sign_pk_from_pem(tg_buf_view(&pem), "k", &spk, NULL), TG_OK);
    assert_true(tg_bytes_eq(tg_sign_pk_raw(spk), tg_sign_pk_raw(tg_sign_sk_pk(f->sign))));
    tg_buf_clear(&pem);
    assert_int_equal(tg_kem_pk_to_pem(tg_kem_sk_pk(f->kem), &pem), TG_OK);
    assert_int_equal(tg_kem_pk_from_pem(tg_buf_view(&pem), "k", &kpk, NULL), TG_OK);
    assert_memory_equal(tg_kem_pk_id(kpk), tg_kem_pk_id(tg_kem_sk_pk(f->kem)), TG_KEM_ID_LEN);
}

/* One fault each: the code, and a text that says what to do. */
static void refused(struct tg_bytes pem, struct tg_bytes passphrase, enum tg_rc want,
                    const char *text)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_sign_sk *sk = NULL;
    assert_int_equal(tg_sign_sk_from_pem(pem, "k.priv", passphrase, &sk, &err), want);
    assert_null(sk);
    assert_non_null(strstr(err.msg, "k.priv: "));
    if (!strstr(err.msg, text))
        fail_msg("'%s' lacks '%s'", err.msg, text);
    assert_int_equal(ERR_peek_error(), 0); /* nothing left for TLS code to stumble over */
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_SECRET(2 * TG_KEYFILE_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf locked = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf kem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf public = TG_BUF_INIT(TG_KEYFILE_MAX);
    assert_int_equal(tg_sign_sk_to_pem(f->sign, TG_BYTES_NONE, &plain), TG_OK);
    assert_int_equal(tg_sign_sk_to_pem(f->sign, pass, &locked), TG_OK);
    assert_int_equal(tg_kem_sk_to_pem(f->kem, TG_BYTES_NONE, &kem), TG_OK);
    assert_int_equal(tg_sign_pk_to_pem(tg_sign_sk_pk(f->sign), &public), TG_OK);

    refused(tg_buf_view(&locked), TG_BYTES_NONE, TG_E_USAGE, "--passphrase-file");
    refused(tg_buf_view(&locked), tg_bytes_str("wrong"), TG_E_AUTH, "passphrase");
    refused(tg_buf_view(&kem), TG_BYTES_NONE, TG_E_FORMAT,
            "an encryption key (X25519); a signing key is needed here");
    refused(tg_buf_view(&public), TG_BYTES_NONE, TG_E_FORMAT, "private one is needed");
    refused(tg_bytes_str("hello"), TG_BYTES_NONE, TG_E_FORMAT, "PEM");
    refused(tg_bytes_str(""), TG_BYTES_NONE, TG_E_FORMAT, "PEM");
    /* one half, the halves swapped, a third block */
    const char *second = strstr((char *)plain.data + 1, "-----BEGIN");
    size_t first_n = (size_t)(second - (char *)plain.data);
    refused(tg_bytes_sub(tg_buf_view(&plain), 0, first_n), TG_BYTES_NONE, TG_E_FORMAT, "only one");
    TG_AUTO(tg_buf_done) struct tg_buf swapped = TG_BUF_SECRET(TG_KEYFILE_MAX);
    assert_int_equal(tg_buf_str(&swapped, second), TG_OK);
    assert_int_equal(tg_buf_append(&swapped, plain.data, first_n), TG_OK);
    refused(tg_buf_view(&swapped), TG_BYTES_NONE, TG_E_FORMAT, "block 1");
    assert_int_equal(tg_buf_append(&plain, plain.data, first_n), TG_OK);
    refused(tg_buf_view(&plain), TG_BYTES_NONE, TG_E_FORMAT, "follows");
}

static void test_truncated_everywhere(void **state)
{
    struct fixture *f = *state;
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_SECRET(TG_KEYFILE_MAX);
    assert_int_equal(tg_sign_sk_to_pem(f->sign, TG_BYTES_NONE, &pem), TG_OK);
    for (size_t n = 0; n + 2 < pem.n; n += 37) {
        struct tg_sign_sk *sk = NULL;
        assert_int_equal(tg_sign_sk_from_pem(tg_bytes_sub(tg_buf_view(&pem), 0, n), "k",
                                             TG_BYTES_NONE, &sk, NULL),
                         TG_E_FORMAT);
    }
}

static void test_files(void **state)
{
    struct fixture *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct stat st;
    TG_AUTO(tg_freep) char *priv = tg_path_join(f->dir, "s.priv");
    TG_AUTO(tg_freep) char *pub = tg_path_join(f->dir, "s.pub");
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *sk = NULL;
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    assert_int_equal(tg_sign_sk_save_file(f->sign, pass, priv, false, &err), TG_OK);
    assert_int_equal(tg_sign_pk_save_file(tg_sign_sk_pk(f->sign), pub, false, &err), TG_OK);
    assert_int_equal(stat(priv, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(pub, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(tg_sign_sk_save_file(f->sign, pass, priv, false, &err), TG_E_EXISTS);
    assert_non_null(strstr(err.msg, "--force"));
    assert_int_equal(tg_sign_sk_save_file(f->sign, pass, priv, true, &err), TG_OK);
    assert_int_equal(tg_sign_sk_load_file(priv, pass, &sk, &err), TG_OK);
    assert_int_equal(tg_sign_pk_load_file(pub, &pk, &err), TG_OK);
    assert_memory_equal(tg_sign_pk_id(pk), tg_sign_pk_id(tg_sign_sk_pk(sk)), TG_SIGN_ID_LEN);
    assert_int_equal(chmod(priv, 0640), 0);
    tg_sign_sk_free(tg_steal(&sk));
    assert_int_equal(tg_sign_sk_load_file(priv, pass, &sk, &err), TG_E_DENIED);
    assert_non_null(strstr(err.msg, "chmod 600"));
    assert_int_equal(tg_sign_sk_load_file("/nonexistent/k", pass, &sk, &err), TG_E_NOTFOUND);
    assert_null(sk);
}

static void passphrase_is(const struct fixture *f, const char *text, enum tg_rc want,
                          const char *value)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_freep) char *path = tg_path_join(f->dir, "pass");
    TG_AUTO(tg_buf_done) struct tg_buf got = TG_BUF_SECRET(TG_PASSPHRASE_MAX + 2);
    assert_int_equal(tg_file_write(path, tg_bytes_str(text), 0600, true, &err), TG_OK);
    assert_int_equal(tg_passphrase_load_file(path, &got, &err), want);
    if (want == TG_OK)
        assert_string_equal(tg_buf_cstr(&got), value);
    else
        assert_int_equal(got.n, 0);
}

static void test_passphrase_file(void **state)
{
    char longest[TG_PASSPHRASE_MAX + 3];
    memset(longest, 'x', sizeof longest);
    longest[TG_PASSPHRASE_MAX] = '\0';
    passphrase_is(*state, "correct horse", TG_OK, "correct horse");
    passphrase_is(*state, "correct horse\n", TG_OK, "correct horse");
    passphrase_is(*state, "two\n\n", TG_OK, "two\n");
    passphrase_is(*state, longest, TG_OK, longest);
    passphrase_is(*state, "", TG_E_USAGE, NULL);
    passphrase_is(*state, "\n", TG_E_USAGE, NULL);
    longest[TG_PASSPHRASE_MAX] = 'x';
    longest[TG_PASSPHRASE_MAX + 1] = '\0';
    passphrase_is(*state, longest, TG_E_USAGE, NULL);
}

/* The worker's way: a descriptor, whatever the file's mode is. */
static void test_load_fd(void **state)
{
    struct fixture *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_freep) char *path = tg_path_join(f->dir, "fd.priv");
    TG_AUTO(tg_freep) char *pub = tg_path_join(f->dir, "fd.pub");
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *same = NULL;
    assert_int_equal(tg_kem_sk_save_file(f->kem, TG_BYTES_NONE, path, false, &err), TG_OK);
    assert_int_equal(tg_kem_pk_save_file(tg_kem_sk_pk(f->kem), pub, false, &err), TG_OK);
    assert_int_equal(tg_kem_sk_load_file(path, TG_BYTES_NONE, &same, &err), TG_OK);
    assert_int_equal(chmod(path, 0640), 0);
    TG_AUTO(tg_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(tg_kem_sk_load_fd(fd, "key", TG_BYTES_NONE, &sk, &err), TG_OK);
    assert_memory_equal(tg_kem_pk_id(tg_kem_sk_pk(sk)), tg_kem_pk_id(tg_kem_sk_pk(same)),
                        TG_KEM_ID_LEN);
    assert_int_equal(tg_kem_sk_load_file(f->dir, TG_BYTES_NONE, &sk, &err), TG_E_FORMAT);
    assert_non_null(strstr(err.msg, "not a regular file"));
}

/* The openssl command, with the fixture's folder as its working directory; its exit status. */
static int openssl(const struct fixture *f, const char *args)
{
    char cmd[4096];
    const char *program = getenv("TG_OPENSSL");
    assert_non_null(program);
    (void)snprintf(cmd, sizeof cmd, "cd '%s' && '%s' %s >>log 2>&1", f->dir, program, args);
    return system(cmd);
}

/* `openssl pkey` reads both blocks of what we write, also encrypted. */
static void test_openssl_reads_ours(void **state)
{
    struct fixture *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_freep) char *plain = tg_path_join(f->dir, "plain.priv");
    TG_AUTO(tg_freep) char *locked = tg_path_join(f->dir, "locked.priv");
    assert_int_equal(tg_kem_sk_save_file(f->kem, TG_BYTES_NONE, plain, false, &err), TG_OK);
    assert_int_equal(tg_sign_sk_save_file(f->sign, pass, locked, false, &err), TG_OK);
    assert_int_equal(openssl(f, "pkey -in plain.priv -noout"), 0);
    assert_int_equal(openssl(f, "pkey -in locked.priv -passin 'pass:correct horse' -noout"), 0);
    assert_int_not_equal(openssl(f, "pkey -in locked.priv -passin pass:wrong -noout"), 0);
    /* the second block by itself: seed and expanded key */
    char cut[4096];
    (void)snprintf(cut, sizeof cut, "cd '%s' && awk '/BEGIN/{n++} n==2' plain.priv > second.pem",
                   f->dir);
    assert_int_equal(system(cut), 0);
    assert_int_equal(openssl(f, "pkey -in second.pem -noout -text -out second.txt"), 0);
    assert_int_equal(openssl(f, "asn1parse -in second.pem"), 0);
    (void)snprintf(cut, sizeof cut,
                   "grep -q '^seed:' '%s/second.txt' && grep -q '^dk:' '%s/second.txt'", f->dir,
                   f->dir);
    assert_int_equal(system(cut), 0);
}

/* Keys that hold only the seed are read and are the same keys. */
static void test_seed_only(void **state)
{
    struct fixture *f = *state;
    struct tg_err err = TG_ERR_INIT;
    char cmd[4096];
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    struct tg_kem_ct ct;
    uint8_t a[32], b[32];
    assert_int_equal(openssl(f, "genpkey -algorithm X25519 -out x.pem"), 0);
    assert_int_equal(
        openssl(f, "genpkey -algorithm ML-KEM-768 -provparam ml-kem.output_formats=seed-only "
                   "-out m.pem"),
        0);
    assert_int_equal(openssl(f, "pkey -in x.pem -pubout -out x.pub"), 0);
    assert_int_equal(openssl(f, "pkey -in m.pem -pubout -out m.pub"), 0);
    (void)snprintf(cmd, sizeof cmd,
                   "cd '%s' && cat x.pem m.pem > both.priv && cat x.pub m.pub > both.pub && "
                   "chmod 600 both.priv && [ $(wc -c < m.pem) -lt 300 ]",
                   f->dir);
    assert_int_equal(system(cmd), 0);
    TG_AUTO(tg_freep) char *priv = tg_path_join(f->dir, "both.priv");
    TG_AUTO(tg_freep) char *pub = tg_path_join(f->dir, "both.pub");
    if (tg_kem_sk_load_file(priv, TG_BYTES_NONE, &sk, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tg_kem_pk_load_file(pub, &pk, &err), TG_OK);
    assert_memory_equal(tg_kem_pk_id(pk), tg_kem_pk_id(tg_kem_sk_pk(sk)), TG_KEM_ID_LEN);
    assert_int_equal(tg_kem_encap(pk, NULL, &ct, a), TG_OK);
    assert_int_equal(tg_kem_decap(sk, &ct, b), TG_OK);
    assert_memory_equal(a, b, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sign_round_trip),      cmocka_unit_test(test_kem_round_trip),
        cmocka_unit_test(test_public_round_trip),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_truncated_everywhere), cmocka_unit_test(test_files),
        cmocka_unit_test(test_openssl_reads_ours),   cmocka_unit_test(test_seed_only),
        cmocka_unit_test(test_passphrase_file),      cmocka_unit_test(test_load_fd),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
