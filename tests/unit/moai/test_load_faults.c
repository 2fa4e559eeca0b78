/* From descriptors to a model that answers, with every allocation, read, mapping and lock of our
 * own code failing in turn: the right code, no model, no descriptor or locked page left (leaks: the
 * address sanitizer). ONNX Runtime's own calls are in another library and are left alone. Calls are
 * wrapped at link time (meson.build names them). */
#include "../tgsp/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/keyfile.h"
#include "moai/load.h"
#include "onnx_make.h"
#include "tgsp/rollback.h"

enum call { CALL_MMAP, CALL_MLOCK, CALL_MPROTECT, CALL_MADVISE, CALLS };

static const char *const call_names[CALLS] = {"mmap", "mlock2", "mprotect", "madvise"};
static uint64_t count[CALLS], fail_at[CALLS];

static bool fails(enum call c, int errnum)
{
    if (++count[c] != fail_at[c])
        return false;
    errno = errnum;
    return true;
}

void *__real_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_mlock2(const void *p, size_t n, unsigned flags);
int __wrap_mlock2(const void *p, size_t n, unsigned flags);
int __real_mprotect(void *p, size_t n, int prot);
int __wrap_mprotect(void *p, size_t n, int prot);
int __real_madvise(void *p, size_t n, int advice);
int __wrap_madvise(void *p, size_t n, int advice);

void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    return fails(CALL_MMAP, ENOMEM) ? MAP_FAILED : __real_mmap64(at, n, prot, flags, fd, off);
}

int __wrap_mlock2(const void *p, size_t n, unsigned flags)
{
    return fails(CALL_MLOCK, ENOMEM) ? -1 : __real_mlock2(p, n, flags);
}

int __wrap_mprotect(void *p, size_t n, int prot)
{
    return fails(CALL_MPROTECT, ENOMEM) ? -1 : __real_mprotect(p, n, prot);
}

int __wrap_madvise(void *p, size_t n, int advice)
{
    return fails(CALL_MADVISE, EINVAL) ? -1 : __real_madvise(p, n, advice);
}

/* What a worker is handed, as descriptors. */
static struct tg_load_opts opts;
static struct tg_ort *ort;

static int file_open(struct fx *f, const char *name)
{
    int fd = open(fx_path(f, name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static int text_file(struct fx *f, const char *name, const struct tg_buf *b)
{
    fx_write(f, name, b->data, b->n);
    assert_int_equal(chmod(fx_path(f, name), 0600), 0);
    return file_open(f, name);
}

static void onnx_format(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->model.format = TG_MODEL_ONNX;
    b->chunk_size = TG_TGSP_CHUNK_MIN;
}

/* A model of three chunks: the file beside it makes the payload long. */
static int setup(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    static const uint8_t beside[150000] = {1};
    struct onnx_make m = {.type = 1, .dims = {"3"}, .n_dims = 1, .op = "Identity"};
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    fx_mkdir(f, "in");
    assert_ok(onnx_make(&m, &b));
    fx_write(f, "in/model.onnx", b.data, b.n);
    fx_write(f, "in/notes", beside, sizeof beside);
    TG_AUTO(tg_buf_done) struct tg_buf package = fx_build(f, "in", onnx_format);
    opts = (struct tg_load_opts){.grant = -1,
                                 .bake_in = -1,
                                 .bake_out = -1,
                                 .arrival = -1,
                                 .deployment = -1,
                                 .fleet = "fleet",
                                 .device_id = "device",
                                 .now = FX_NOW,
                                 .threads = 1};
    opts.package = text_file(f, "m.tgsp", &package);
    trust = fx_trust(f->author);
    tg_buf_clear(&b);
    assert_ok(tg_trust_save(trust, 1, FX_NOW, NULL, 0, &b, &err));
    opts.trust = text_file(f, "t.tgtrust", &b);
    tg_buf_clear(&b);
    assert_ok(tg_kem_sk_to_pem(f->device, TG_BYTES_NONE, &b));
    opts.key = text_file(f, "k.priv", &b);
    tg_buf_clear(&b);
    assert_ok(tg_buf_str(&b, "{\"tgsp_rollback\":\"1.0\",\"models\":[]}"));
    opts.rollback = text_file(f, "r.json", &b);
    assert_ok(tg_ort_new(1, &ort, &err));
    opts.ort = ort;
    return 0;
}

static int teardown(void **state)
{
    const int fds[] = {opts.package, opts.trust, opts.key, opts.rollback};
    for (size_t i = 0; i < TG_ARRAY_LEN(fds); i++)
        assert_int_equal(close(fds[i]), 0);
    tg_ort_freep(&ort);
    return fx_teardown(state);
}

/* kB locked, from /proc/self/status: the plaintext lies in locked memory alone. */
static unsigned long locked(void)
{
    char line[256];
    unsigned long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "VmLck:", 6) == 0)
            kb = strtoul(line + 6, NULL, 10);
    assert_int_equal(fclose(f), 0);
    return kb;
}

/* The lowest free descriptor: one more when one was left open. */
static int next_fd(void)
{
    int fd = dup(opts.package);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    return fd;
}

static enum tg_rc load(struct tg_err *err)
{
    TG_AUTO(tg_model_freep) struct tg_model *m = NULL;
    unsigned long kb = locked();
    int fd = next_fd();
    enum tg_rc rc = tg_model_load(&opts, &m, err);
    assert_int_equal(m != NULL, rc == TG_OK);
    if (m)
        assert_non_null(m->session);
    tg_model_freep(&m);
    m = NULL;
    assert_int_equal(locked(), kb);
    assert_int_equal(next_fd(), fd);
    return rc;
}

static void said(const char *what, uint64_t i, uint64_t n, enum tg_rc rc, enum tg_rc want,
                 const struct tg_err *e)
{
    if (rc != want || !e->msg[0])
        fail_msg("%s %d of %d: %s '%s', not %s", what, (int)i, (int)n, tg_rc_name(rc), e->msg,
                 tg_rc_name(want));
}

static void test_allocations(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    (void)state;
    assert_ok(load(&err)); /* what libraries do once is done */
    uint64_t before = tg_mem_fault_count();
    assert_ok(load(&err));
    uint64_t n = tg_mem_fault_count() - before;
    assert_true(n > 40);
    for (int persistent = 0; persistent < 2; persistent++)
        for (uint64_t i = 1; i <= n; i++) {
            struct tg_err e = TG_ERR_INIT;
            tg_mem_fault_set(i, persistent);
            enum tg_rc rc = load(&e);
            tg_mem_fault_set(0, 0);
            said("allocation", i, n, rc, TG_E_NOMEM, &e);
            if (!strstr(e.msg, "memory"))
                fail_msg("allocation %d of %d: '%s'", (int)i, (int)n, e.msg);
        }
    assert_ok(load(&err));
}

static void test_reads(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    (void)state;
    uint64_t before = tg_io_fault_count(TG_IO_READ);
    assert_ok(load(&err));
    uint64_t n = tg_io_fault_count(TG_IO_READ) - before;
    assert_true(n > 10);
    for (uint64_t i = 1; i <= n; i++) {
        struct tg_err e = TG_ERR_INIT;
        tg_io_fault_set(TG_IO_READ, i, EIO);
        enum tg_rc rc = load(&e);
        tg_io_fault_set(TG_IO_READ, 0, 0);
        said("read", i, n, rc, TG_E_IO, &e);
    }
    assert_ok(load(&err));
}

/* Mapped, locked, kept from dumps and sealed, or refused. Giving memory back cannot fail a load. */
static void test_mappings(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    (void)state;
    for (int c = 0; c < CALLS; c++) {
        uint64_t refused = 0;
        count[c] = fail_at[c] = 0;
        assert_ok(load(&err));
        uint64_t n = count[c];
        assert_true(n > 0);
        for (uint64_t i = 1; i <= n; i++) {
            struct tg_err e = TG_ERR_INIT;
            count[c] = 0;
            fail_at[c] = i;
            enum tg_rc rc = load(&e);
            fail_at[c] = 0;
            if (rc == TG_OK && c == CALL_MPROTECT)
                continue; /* the one that makes sealed memory writable to be wiped: it is unmapped
                             all the same */
            said(call_names[c], i, n, rc,
                 rc == TG_E_IO && c == CALL_MPROTECT ? TG_E_IO : TG_E_NOMEM, &e);
            refused++;
        }
        assert_true(refused > 0);
    }
    assert_ok(load(&err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_mappings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
