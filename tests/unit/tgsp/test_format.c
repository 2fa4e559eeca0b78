/* Arithmetic of the payload, and sections at their limits. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tgsp/format.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

static void test_geometry(void **state)
{
    static const struct {
        uint64_t chunk, plain, chunks, last;
    } rows[] = {
        {KIB(64), 0,                            1,                  0          },
        {KIB(64), 1,                            1,                  1          },
        {KIB(64), KIB(64) - 1,                  1,                  KIB(64) - 1},
        {KIB(64), KIB(64),                      1,                  KIB(64)    },
        {KIB(64), KIB(64) + 1,                  2,                  1          },
        {KIB(64), KIB(64) * TG_TGSP_CHUNKS_MAX, TG_TGSP_CHUNKS_MAX, KIB(64)    },
        {MIB(16), UINT64_C(5) << 30,            320,                MIB(16)    },
        {MIB(16), (UINT64_C(1) << 42),          TG_TGSP_CHUNKS_MAX, MIB(16)    },
    };
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_geometry g;
    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        assert_ok(tg_tgsp_geometry(rows[i].chunk, rows[i].plain, &g, &err));
        assert_int_equal(g.chunks, rows[i].chunks);
        assert_int_equal(g.stored_len, rows[i].plain + 16 * rows[i].chunks);
        assert_int_equal(tg_tgsp_chunk_plain(&g, g.chunks - 1), rows[i].last);
        if (g.chunks > 1)
            assert_int_equal(tg_tgsp_chunk_plain(&g, 0), rows[i].chunk);
        assert_int_equal(tg_tgsp_chunk_offset(&g, g.chunks - 1) + rows[i].last + 16, g.stored_len);
    }
    const uint64_t chunk_sizes[] = {0, 1, KIB(32), KIB(64) + 1, KIB(96), MIB(32), UINT64_MAX};
    for (size_t i = 0; i < TG_ARRAY_LEN(chunk_sizes); i++)
        assert_rc(tg_tgsp_geometry(chunk_sizes[i], 1, &g, &err), TG_E_FORMAT);
    assert_rc(tg_tgsp_geometry(KIB(64), KIB(64) * TG_TGSP_CHUNKS_MAX + 1, &g, &err), TG_E_FORMAT);
    assert_rc(tg_tgsp_geometry(MIB(16), (UINT64_C(1) << 42) + 1, &g, &err), TG_E_FORMAT);
    assert_rc(tg_tgsp_geometry(MIB(16), UINT64_MAX, &g, &err), TG_E_FORMAT);
}

/* Thousands of files and the longest paths come out as they went in. */
static void test_many_files(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    char name[64];
    fx_mkdir(f, "many");
    for (unsigned i = 0; i < 3000; i++) {
        if (i % 1000 == 0) {
            (void)snprintf(name, sizeof name, "many/d%u", i / 1000);
            fx_mkdir(f, name);
        }
        (void)snprintf(name, sizeof name, "many/d%u/f%u", i / 1000, i);
        fx_write(f, name, &i, i % 3 ? sizeof i : 0);
    }
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "many", NULL);
    TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT((size_t)32 << 20);
    assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, &plain, &err));
    struct tg_bytes view = tg_buf_view(&pkg);
    struct tg_src src;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    tg_src_mem(&src, &view, "many.tgsp");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    const struct tg_tgsp_manifest *m = tg_tgsp_manifest_get(p);
    assert_int_equal(m->files.n, 3000);
    const struct tg_tgsp_file *v = m->files.items;
    for (size_t i = 0; i < m->files.n; i++) {
        unsigned want = (unsigned)strtoul(strrchr(v[i].path, 'f') + 1, NULL, 10), got = 0;
        assert_int_equal(v[i].size, want % 3 ? sizeof got : 0);
        if (v[i].size) {
            memcpy(&got, plain.data + v[i].offset, sizeof got);
            assert_int_equal(got, want);
        }
    }
}

/* Random models: what is built is what is read, for sizes around every boundary. */
static void test_random_models(void **state)
{
    static const size_t sizes[] = {0,     1,     4095,  4096,  4097,  32767,  32768,
                                   65519, 65520, 65535, 65536, 65537, 131072, 200001};
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    uint32_t x = 4711;
    for (unsigned round = 0; round < 25; round++) {
        char dir[32], name[64];
        (void)snprintf(dir, sizeof dir, "r%u", round);
        fx_mkdir(f, dir);
        unsigned n = 1 + round % 5;
        struct tg_buf want = TG_BUF_INIT((size_t)4 << 20);
        for (unsigned i = 0; i < n; i++) {
            x = x * 1664525U + 1013904223U;
            size_t size = sizes[(x >> 16) % TG_ARRAY_LEN(sizes)];
            uint8_t *to;
            while (want.n % 4096)
                assert_ok(tg_buf_u8(&want, 0));
            assert_ok(tg_buf_reserve(&want, size, &to));
            memset(to, (int)(1 + i + round), size);
            (void)snprintf(name, sizeof name, "%s/f%u", dir, i);
            fx_write(f, name, to, size);
            tg_buf_grow(&want, size);
        }
        TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
        assert_ok(tg_tgsp_inputs_scan(fx_path(f, dir), &in, &err));
        struct tg_tgsp_build b = fx_build_spec(f, in);
        b.chunk_size = TG_TGSP_CHUNK_MIN;
        b.aead = round % 2 ? TG_AEAD_AES_256_GCM : TG_AEAD_CHACHA20_POLY1305;
        b.threads = 1 + round % 3;
        const char *path = fx_path(f, "random.tgsp");
        assert_ok(tg_tgsp_build(&b, path, true, NULL, &err));
        TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_read(path);
        TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT((size_t)4 << 20);
        assert_ok(fx_open_all(tg_buf_view(&pkg), trust, f->device, &plain, &err));
        if (!tg_bytes_eq(tg_buf_view(&plain), tg_buf_view(&want)))
            fail_msg("round %u", round);
        tg_buf_done(&want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometry),
        cmocka_unit_test(test_many_files),
        cmocka_unit_test(test_random_models),
    };
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
