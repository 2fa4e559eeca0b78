/* Every allocation, read, write, fsync and rename fails once, and from then on: the right code,
 * nothing of the plaintext, no file left behind, and (under the address sanitizer) no leak. */
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tgsp/extract.h"
#include "tgsp/grant.h"

static struct tg_trust *trust;

static int setup(void **state)
{
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    uint8_t big[70000] = {1};
    fx_mkdir(f, "in");
    fx_mkdir(f, "in/sub");
    fx_mkdir(f, "work");
    fx_write(f, "in/a", "hello", 5);
    fx_write(f, "in/sub/b", big, sizeof big);
    trust = fx_trust(f->author);
    return 0;
}

static int teardown(void **state)
{
    tg_trust_free(trust);
    return fx_teardown(state);
}

static size_t entries(const struct fx *f, const char *name)
{
    size_t n = 0;
    DIR *d = opendir(fx_path(f, name));
    assert_non_null(d);
    for (const struct dirent *e = readdir(d); e; e = readdir(d))
        n += e->d_name[0] != '.' || (e->d_name[1] && e->d_name[1] != '.');
    (void)closedir(d);
    return n;
}

static void small_chunks(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = TG_TGSP_CHUNK_MIN;
    b->no_inputs_digest = false;
}

/* What is tried: returns its code; must leave f->dir/work as it was when it fails. */
typedef enum tg_rc attempt(struct fx *f, struct tg_err *err);

static struct tg_buf package;

static enum tg_rc try_open(struct fx *f, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
    enum tg_rc rc = fx_open_all(tg_buf_view(&package), trust, f->device, &plain, err);
    assert_int_equal(plain.n != 0, rc == TG_OK);
    return rc;
}

static struct tg_tgsp *unwrapped(struct fx *f, const struct tg_src *src, struct tg_err *err)
{
    struct tg_tgsp_policy policy = {.check_time = false};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    if (tg_tgsp_open(src, &p, err) != TG_OK || tg_tgsp_verify(p, trust, err) != TG_OK ||
        tg_tgsp_admit(p, &policy, err) != TG_OK || tg_tgsp_unwrap(p, f->device, err) != TG_OK)
        return NULL;
    return tg_steal(&p);
}

static enum tg_rc try_extract(struct fx *f, struct tg_err *err)
{
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&package);
    struct tg_tgsp_run run = {.threads = 1};
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = unwrapped(f, &src, err);
    if (!p)
        return err->rc;
    TG_TRY(tg_tgsp_extract(p, fx_path(f, "work/out"), &run, err));
    return tg_dir_remove(fx_path(f, "work/out"), err);
}

static enum tg_rc try_build(struct fx *f, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    TG_TRY(tg_tgsp_inputs_scan(fx_path(f, "in"), &in, err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    small_chunks(f, &b);
    b.threads = 1;
    const char *out = fx_path(f, "work/b.tgsp");
    TG_TRY(tg_tgsp_build(&b, out, false, NULL, err));
    assert_int_equal(unlink(out), 0);
    return TG_OK;
}

static enum tg_rc try_grant(struct fx *f, struct tg_err *err)
{
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&package);
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = unwrapped(f, &src, err);
    if (!p)
        return err->rc;
    struct tg_grant_spec spec = {
        tg_kem_sk_pk(f->other), f->author, FX_NOW, FX_NOW, FX_NOW + 9, NULL};
    TG_TRY(tg_grant_make(p, &spec, &text, err));
    TG_TRY(tg_grant_decode(tg_buf_view(&text), "g", &g, err));
    return tg_tgsp_unwrap_grant(p, g, trust, FX_NOW, f->other, err);
}

static enum tg_rc try_trust(struct fx *f, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    const struct tg_sign_sk *by[] = {f->author};
    TG_TRY(tg_trust_save(trust, 2, FX_NOW, by, 1, &text, err));
    TG_TRY(tg_trust_load(tg_buf_view(&text), "t", &t, err));
    return tg_trust_succeeds(trust, t, err);
}

static void sweep_memory(struct fx *f, attempt *fn, const char *what)
{
    struct tg_err err = TG_ERR_INIT;
    uint64_t before = tg_mem_fault_count();
    assert_ok(fn(f, &err));
    uint64_t n = tg_mem_fault_count() - before;
    assert_true(n > 5);
    for (int persistent = 0; persistent < 2; persistent++)
        for (uint64_t i = 1; i <= n; i++) {
            struct tg_err e = TG_ERR_INIT;
            tg_mem_fault_set(i, persistent);
            enum tg_rc rc = fn(f, &e);
            tg_mem_fault_set(0, 0);
            if (rc != TG_E_NOMEM)
                fail_msg("%s: allocation %d of %d: %s '%s'", what, (int)i, (int)n, tg_rc_name(rc),
                         e.msg);
            assert_int_equal(entries(f, "work"), 0);
        }
    assert_ok(fn(f, &err));
}

static void test_memory(void **state)
{
    struct fx *f = *state;
    package = fx_build(f, "in", small_chunks);
    sweep_memory(f, try_open, "open");
    sweep_memory(f, try_grant, "grant");
    sweep_memory(f, try_trust, "trust");
    sweep_memory(f, try_extract, "extract");
    sweep_memory(f, try_build, "build");
}

static enum tg_rc try_open_fd(struct fx *f, struct tg_err *err)
{
    struct tg_src src;
    uint8_t byte;
    TG_AUTO(tg_fd_closep) int fd = open(fx_path(f, "p.tgsp"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    TG_TRY(tg_src_fd(&src, fd, "p.tgsp", err));
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = unwrapped(f, &src, err);
    if (!p)
        return err->rc;
    return tg_tgsp_read(p, 70000, &byte, 1, 0, err);
}

static void sweep_io(struct fx *f, attempt *fn, enum tg_io_op op, int errnum)
{
    struct tg_err err = TG_ERR_INIT;
    uint64_t before = tg_io_fault_count(op);
    assert_ok(fn(f, &err));
    uint64_t n = tg_io_fault_count(op) - before;
    assert_true(n > 0);
    for (uint64_t i = 1; i <= n; i++) {
        struct tg_err e = TG_ERR_INIT;
        tg_io_fault_set(op, i, errnum);
        enum tg_rc rc = fn(f, &e);
        tg_io_fault_set(op, 0, 0);
        if (rc != TG_E_IO)
            fail_msg("op %d, call %d of %d: %s '%s'", (int)op, (int)i, (int)n, tg_rc_name(rc),
                     e.msg);
        assert_non_null(strstr(e.msg, strerror(errnum)));
        /* The last fsync is the folder's, after the rename: the file is there and whole, but a
         * power cut might take it back, which is what the error says. */
        if (op == TG_IO_SYNC && i == n) {
            TG_AUTO(tg_buf_done) struct tg_buf whole = fx_read(fx_path(f, "work/b.tgsp"));
            assert_ok(fx_open_all(tg_buf_view(&whole), trust, f->device, NULL, &err));
            assert_int_equal(unlink(fx_path(f, "work/b.tgsp")), 0);
        }
        assert_int_equal(entries(f, "work"), 0);
    }
    assert_ok(fn(f, &err));
}

static void test_io(void **state)
{
    struct fx *f = *state;
    fx_write(f, "p.tgsp", package.data, package.n);
    sweep_io(f, try_open_fd, TG_IO_READ, EIO);
    sweep_io(f, try_build, TG_IO_READ, EIO);
    sweep_io(f, try_build, TG_IO_WRITE, ENOSPC);
    sweep_io(f, try_build, TG_IO_SYNC, EIO);
    sweep_io(f, try_build, TG_IO_RENAME, EIO);
    sweep_io(f, try_extract, TG_IO_WRITE, ENOSPC);
    tg_buf_done(&package);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_io),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
