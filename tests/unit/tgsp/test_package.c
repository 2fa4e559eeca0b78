/* What is built is opened again, whole and in parts, and by nobody else. */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tgsp/extract.h"
#include "tgsp/path.h"

static uint8_t *pattern(size_t n, unsigned seed)
{
    uint8_t *p = malloc(n ? n : 1);
    assert_non_null(p);
    uint32_t x = seed * 2654435761U + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525U + 1013904223U;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static void write_pattern(const struct fx *f, const char *name, size_t n, unsigned seed)
{
    uint8_t *p = pattern(n, seed);
    fx_write(f, name, p, n);
    free(p);
}

/* Three files: one small, one over several chunks, one empty. */
static void model_make(const struct fx *f, const char *dir)
{
    char name[256];
    fx_mkdir(f, dir);
    (void)snprintf(name, sizeof name, "%s/sub", dir);
    fx_mkdir(f, name);
    (void)snprintf(name, sizeof name, "%s/a.txt", dir);
    write_pattern(f, name, 100, 1);
    (void)snprintf(name, sizeof name, "%s/sub/weights.bin", dir);
    write_pattern(f, name, 300000, 2);
    (void)snprintf(name, sizeof name, "%s/zero", dir);
    write_pattern(f, name, 0, 3);
}

static void small_chunks(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = TG_TGSP_CHUNK_MIN;
}

static void small_chunks_gcm_digest(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = TG_TGSP_CHUNK_MIN;
    b->aead = TG_AEAD_AES_256_GCM;
    b->no_inputs_digest = false;
}

static void check_plain(const struct tg_buf *plain)
{
    uint8_t *a = pattern(100, 1), *w = pattern(300000, 2);
    assert_int_equal(plain->n,
                     307200); /* weights at 4096, the empty file at the next 4096 after them */
    assert_memory_equal(plain->data, a, 100);
    assert_memory_equal(plain->data + 4096, w, 300000);
    for (size_t i = 100; i < 4096; i++)
        assert_int_equal(plain->data[i], 0);
    free(a);
    free(w);
}

static void test_round_trip(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    model_make(f, "m1");
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", small_chunks);
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
    assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, &plain, &err));
    check_plain(&plain);
    assert_rc(fx_open_all(tg_buf_view(&pkg), trust, f->other, NULL, &err), TG_E_NOTFORKEY);
    assert_contains(err.msg, "no block for key");
    TG_AUTO(tg_trust_freep) struct tg_trust *stranger = fx_trust(f->stranger);
    assert_rc(fx_open_all(tg_buf_view(&pkg), stranger, f->device, NULL, &err), TG_E_AUTH);
    assert_contains(err.msg, "none is by a trusted key");
}

static void test_ranges(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp_policy policy = {.check_time = false};
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", small_chunks);
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    struct tg_bytes view = tg_buf_view(&pkg);
    assert_ok(fx_open_all(view, trust, f->device, &plain, &err));
    tg_src_mem(&src, &view, "m.tgsp");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    uint8_t *out = malloc(plain.n + 1);
    assert_rc(tg_tgsp_read(p, 0, out, 1, 0, &err), TG_E_STATE);
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_STATE);
    assert_ok(tg_tgsp_verify(p, trust, &err));
    assert_rc(tg_tgsp_unwrap(p, f->device, &err), TG_E_STATE); /* policy first */
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_ok(tg_tgsp_unwrap(p, f->device, &err));
    const size_t at[] = {0, 1, 65535, 65536, 65537, 131071, 131072, 200000, 307199, 307200};
    const size_t len[] = {0, 1, 2, 65536, 65537, 131072, 100000};
    for (size_t i = 0; i < TG_ARRAY_LEN(at); i++)
        for (size_t k = 0; k < TG_ARRAY_LEN(len); k++) {
            if (at[i] + len[k] > plain.n) {
                assert_rc(tg_tgsp_read(p, at[i], out, len[k], 0, &err), TG_E_LIMIT);
                continue;
            }
            memset(out, 0xee, plain.n + 1);
            assert_ok(tg_tgsp_read(p, at[i], out, len[k], 0, &err));
            assert_memory_equal(out, plain.data + at[i], len[k]);
            assert_int_equal(out[len[k]], 0xee);
        }
    assert_rc(tg_tgsp_read(p, UINT64_MAX, out, 1, 0, &err), TG_E_LIMIT);
    free(out);
}

static struct tg_tgsp *unwrapped(struct fx *f, const struct tg_src *src,
                                 const struct tg_trust *trust)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp *p = NULL;
    struct tg_tgsp_policy policy = {.check_time = false};
    assert_ok(tg_tgsp_open(src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_ok(tg_tgsp_unwrap(p, f->device, &err));
    return p;
}

/* What comes chunk by chunk, in any order, put together again. */
struct collected {
    uint8_t *to;
    size_t n;
    _Atomic size_t seen;
};

static enum tg_rc collect(void *ctx, uint64_t off, struct tg_bytes plain, struct tg_err *err)
{
    struct collected *c = ctx;
    (void)err;
    assert_true(off <= c->n && plain.n <= c->n - off);
    memcpy(c->to + off, plain.p, plain.n);
    c->seen += plain.n;
    return TG_OK;
}

static enum tg_rc refuse_second(void *ctx, uint64_t off, struct tg_bytes plain, struct tg_err *err)
{
    (void)ctx;
    (void)plain;
    return off ? TG_FAIL(err, TG_E_IO, "chunk at %d", (int)off) : TG_OK;
}

static void test_each(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp_run run = {.threads = 3};
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", small_chunks);
    TG_AUTO(tg_buf_done) struct tg_buf got = TG_BUF_INIT(1 << 20);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = unwrapped(f, &src, trust);
    struct collected c = {.n = (size_t)tg_tgsp_geometry_get(p)->plain_len};
    assert_int_equal(tg_buf_reserve(&got, c.n, &c.to), TG_OK);
    assert_ok(tg_tgsp_each(p, collect, &c, &run, &err));
    assert_int_equal(c.seen, c.n);
    tg_buf_grow(&got, c.n);
    check_plain(&got);
    /* the sink's own failure is passed on, the lowest chunk's */
    assert_rc(tg_tgsp_each(p, refuse_second, NULL, &run, &err), TG_E_IO);
    assert_string_equal(err.msg, "chunk at 65536");
    assert_ok(tg_tgsp_check_payload(p, &run, &err));
}

static void same_file(const struct fx *f, const char *a, const char *b)
{
    TG_AUTO(tg_buf_done) struct tg_buf x = fx_read(fx_path(f, a));
    TG_AUTO(tg_buf_done) struct tg_buf y = fx_read(fx_path(f, b));
    assert_true(tg_bytes_eq(tg_buf_view(&x), tg_buf_view(&y)));
}

static void test_extract(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct stat st;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", small_chunks_gcm_digest);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = unwrapped(f, &src, trust);
    assert_int_equal(tg_tgsp_manifest_get(p)->files.n, 4);
    assert_ok(tg_tgsp_extract(p, fx_path(f, "out"), NULL, &err));
    same_file(f, "m1/a.txt", "out/a.txt");
    same_file(f, "m1/sub/weights.bin", "out/sub/weights.bin");
    same_file(f, "m1/zero", "out/zero");
    assert_int_not_equal(stat(fx_path(f, "out/.tensorguard"), &st), 0);
    assert_int_equal(stat(fx_path(f, "out"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_rc(tg_tgsp_extract(p, fx_path(f, "out"), NULL, &err), TG_E_EXISTS);
    fx_mkdir(f, "empty");
    assert_ok(tg_tgsp_extract(p, fx_path(f, "empty"), NULL, &err));
    same_file(f, "m1/a.txt", "empty/a.txt");
}

/* The digests inside are those sha256sum would print. */
static void test_inputs_digest(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", small_chunks_gcm_digest);
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_buf_done) struct tg_buf want = TG_BUF_INIT(4096);
    const char *names[] = {"a.txt", "sub/weights.bin", "zero"};
    for (size_t i = 0; i < 3; i++) {
        char path[64];
        uint8_t md[32];
        (void)snprintf(path, sizeof path, "m1/%s", names[i]);
        TG_AUTO(tg_buf_done) struct tg_buf bytes = fx_read(fx_path(f, path));
        assert_ok(tg_sha256(tg_buf_view(&bytes), md));
        for (size_t k = 0; k < 32; k++)
            assert_ok(tg_buf_printf(&want, "%02x", md[k]));
        assert_ok(tg_buf_printf(&want, "  %s\n", names[i]));
    }
    assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, &plain, &err));
    assert_memory_equal(plain.data, want.data, want.n); /* ".tensorguard" sorts first */
}

static void test_same_seed_same_bytes(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf out[2];
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "m1"), &in, &err));
    for (int i = 0; i < 2; i++) {
        struct fx_rng seed;
        struct tg_rng rng = fx_rng_init(&seed, "fixed");
        struct tg_tgsp_build b = fx_build_spec(f, in);
        b.rng = &rng;
        b.deterministic_signature = true;
        b.threads = i ? 1 : 3;
        b.chunk_size = TG_TGSP_CHUNK_MIN;
        b.no_inputs_digest = false;
        assert_ok(tg_tgsp_build(&b, fx_path(f, "same.tgsp"), true, NULL, &err));
        out[i] = fx_read(fx_path(f, "same.tgsp"));
    }
    assert_true(tg_bytes_eq(tg_buf_view(&out[0]), tg_buf_view(&out[1])));
    tg_buf_done(&out[0]);
    tg_buf_done(&out[1]);
}

static void test_no_files(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    fx_mkdir(f, "none");
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "none", NULL);
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(16);
    assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, &plain, &err));
    assert_int_equal(plain.n, 0);
}

static void test_inspect_is_a_dead_end(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp_policy policy = {.check_time = false};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", NULL);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    assert_null(tg_tgsp_manifest_get(p));
    assert_ok(tg_tgsp_inspect(p, &err));
    assert_false(tg_tgsp_verified(p));
    assert_string_equal(tg_tgsp_manifest_get(p)->model.name, "m");
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_STATE);
    assert_rc(tg_tgsp_unwrap(p, f->device, &err), TG_E_STATE);
    assert_rc(tg_tgsp_verify(p, trust, &err), TG_E_STATE);
    assert_ok(tg_tgsp_check_payload(p, NULL, &err));
}

static void test_scan_refuses(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    fx_mkdir(f, "bad1");
    assert_int_equal(symlink("/etc/passwd", fx_path(f, "bad1/link")), 0);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad1"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "symbolic link");
    fx_mkdir(f, "bad2");
    assert_int_equal(mkfifo(fx_path(f, "bad2/pipe"), 0600), 0);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad2"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "FIFO");
    fx_mkdir(f, "bad3");
    fx_write(f, "bad3/Model.onnx", "x", 1);
    fx_write(f, "bad3/model.onnx", "x", 1);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad3"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "collide");
    fx_mkdir(f, "bad4");
    fx_write(f, "bad4/a\x01", "x", 1);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad4"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "\\x01");
    fx_mkdir(f, "bad5");
    fx_mkdir(f, "bad5/.TensorGuard");
    fx_write(f, "bad5/.TensorGuard/x", "x", 1);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad5"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "reserved");
    fx_mkdir(f, "bad6");
    fx_write(f, "bad6/\xff", "x", 1);
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "bad6"), &in, &err), TG_E_FORMAT);
    assert_contains(err.msg, "UTF-8");
    assert_rc(tg_tgsp_inputs_scan(fx_path(f, "absent"), &in, &err), TG_E_NOTFOUND);
    assert_null(in);
}

/* A file that grows, shrinks or turns into something else between the scan and the packing. */
static void test_input_changes(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    struct stat st;
    fx_mkdir(f, "chg");
    write_pattern(f, "chg/a", 200000, 1);
    write_pattern(f, "chg/b", 200000, 1);
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "chg"), &in, &err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    b.chunk_size = TG_TGSP_CHUNK_MIN;
    b.no_inputs_digest = false;
    const size_t sizes[] = {200001, 199999, 0};
    for (size_t i = 0; i < 3; i++) {
        write_pattern(f, "chg/b", sizes[i], 1);
        assert_rc(tg_tgsp_build(&b, fx_path(f, "chg.tgsp"), false, NULL, &err), TG_E_STATE);
        assert_contains(err.msg, "changed while it was being packed");
        assert_int_not_equal(stat(fx_path(f, "chg.tgsp"), &st), 0);
    }
    assert_int_equal(unlink(fx_path(f, "chg/b")), 0);
    assert_int_equal(symlink("/dev/zero", fx_path(f, "chg/b")), 0);
    assert_rc(tg_tgsp_build(&b, fx_path(f, "chg.tgsp"), false, NULL, &err), TG_E_IO);
}

static void test_build_refuses(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    const char *out = fx_path(f, "refused.tgsp");
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "m1"), &in, &err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    b.n_recipients = 0;
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    b = fx_build_spec(f, in);
    b.model.floor = 8;
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    assert_contains(err.msg, "floor");
    b = fx_build_spec(f, in);
    b.model.name = "";
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    b = fx_build_spec(f, in);
    b.chunk_size = 100000;
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    b = fx_build_spec(f, in);
    const struct tg_kem_pk *twice[] = {tg_kem_sk_pk(f->device), tg_kem_sk_pk(f->device)};
    b.recipients = twice;
    b.n_recipients = 2;
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    b = fx_build_spec(f, in);
    b.constraints.min_agent = "1.2";
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_USAGE);
    assert_int_not_equal(access(out, F_OK), 0);
    fx_write(f, "refused.tgsp", "x", 1);
    b = fx_build_spec(f, in);
    assert_rc(tg_tgsp_build(&b, out, false, NULL, &err), TG_E_EXISTS);
}

static void test_cosign(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    TG_AUTO(tg_trust_freep) struct tg_trust *both = fx_trust(f->author);
    struct tg_trust_key second = {.pk = tg_sign_sk_pk(f->author2), .roles = TG_ROLE_AUTHOR};
    assert_ok(tg_trust_add(both, &second, &err));
    assert_ok(tg_trust_threshold_set(both, NULL, 2, &err));
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "m1", NULL);
    assert_rc(fx_open_all(tg_buf_view(&pkg), both, f->device, NULL, &err), TG_E_DENIED);
    assert_contains(err.msg, "1 of 2");
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    const char *out = fx_path(f, "co.tgsp");
    assert_ok(tg_tgsp_cosign(&src, f->author2, out, false, NULL, &err));
    TG_AUTO(tg_buf_done) struct tg_buf co = fx_read(out);
    assert_ok(fx_open_all(tg_buf_view(&co), both, f->device, NULL, &err));
    struct tg_bytes co_view = tg_buf_view(&co);
    tg_src_mem(&src, &co_view, "co.tgsp");
    assert_rc(tg_tgsp_cosign(&src, f->author2, out, true, NULL, &err), TG_E_EXISTS);
    assert_rc(tg_tgsp_cosign(&src, f->stranger, out, false, NULL, &err), TG_E_EXISTS);
    /* a damaged payload is not signed */
    co.data[co.n - 20000] ^= 1;
    co_view = tg_buf_view(&co);
    assert_int_not_equal(
        tg_tgsp_cosign(&src, f->stranger, fx_path(f, "no.tgsp"), false, NULL, &err), TG_OK);
    assert_int_not_equal(access(fx_path(f, "no.tgsp"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_each),          cmocka_unit_test(test_extract),
        cmocka_unit_test(test_inputs_digest), cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_no_files),      cmocka_unit_test(test_inspect_is_a_dead_end),
        cmocka_unit_test(test_scan_refuses),  cmocka_unit_test(test_input_changes),
        cmocka_unit_test(test_build_refuses), cmocka_unit_test(test_cosign),
    };
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
