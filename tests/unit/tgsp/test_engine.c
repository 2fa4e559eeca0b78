/* The reading engine: chunks larger and smaller than a slice, any range, any number of threads;
 * nothing of a chunk that fails; nothing read that was not asked for. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/extract.h"
#include "tgsp/package_internal.h"

#define BIG 5000011U

static struct tg_trust *trust;
static uint64_t chunk_size;
static enum tg_aead aead;

static void shape(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = chunk_size;
    b->aead = aead;
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)((i * 2654435761U) >> 13);
}

static void write_bytes(const struct fx *f, const char *name, size_t n, size_t from)
{
    uint8_t *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = byte_at(from + i);
    fx_write(f, name, p, n);
    free(p);
}

static int setup(void **state)
{
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    trust = fx_trust(f->author);
    fx_mkdir(f, "one");
    write_bytes(f, "one/w", BIG, 0);
    fx_mkdir(f, "many");
    fx_mkdir(f, "many/b");
    write_bytes(f, "many/a.bin", 200000, 1);
    write_bytes(f, "many/b/1.bin", 70000, 2);
    write_bytes(f, "many/b/2.txt", 70000, 3);
    write_bytes(f, "many/b/empty", 0, 0);
    write_bytes(f, "many/c.bin", 200000, 4);
    write_bytes(f, "many/d.bin", 200000, 5);
    return 0;
}

static int teardown(void **state)
{
    tg_trust_free(trust);
    return fx_teardown(state);
}

/* A source that remembers which of the payload's bytes were asked for. */
struct watched {
    struct tg_src under;
    uint64_t from;  /* the payload */
    uint8_t *times; /* per byte of it; NULL: not yet */
};

static enum tg_rc watched_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                               struct tg_err *err)
{
    struct watched *w = ctx;
    (void)name;
    for (size_t i = 0; w->times && i < n; i++)
        w->times[off + i - w->from]++;
    return tg_src_read(&w->under, p, n, off, err);
}

static struct tg_tgsp *opened(const struct fx *f, const struct tg_src *src)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_tgsp *p = NULL;
    assert_ok(tg_tgsp_open(src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_ok(tg_tgsp_unwrap(p, f->device, &err));
    return p;
}

static void check_one(struct tg_tgsp *p, uint8_t *out, unsigned threads)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_tgsp_run run = {.threads = threads};
    memset(out, 0xEE, BIG + 1);
    assert_ok(tg_tgsp_read_all(p, out, &run, &err));
    for (size_t i = 0; i < BIG; i++)
        if (out[i] != byte_at(i))
            fail_msg("byte %zu", i);
    assert_int_equal(out[BIG], 0xEE);
    assert_ok(tg_tgsp_check_payload(p, &run, &err));
}

static void check_ranges(struct tg_tgsp *p, uint8_t *out)
{
    static const size_t borders[] = {0, 65536, 1048576, 2097152, 4194304, BIG};
    struct tg_err err = TG_ERR_INIT;
    for (size_t a = 0; a < TG_ARRAY_LEN(borders); a++)
        for (size_t b = a; b < TG_ARRAY_LEN(borders); b++)
            for (int d = 0; d < 4; d++) {
                size_t from = borders[a] + (d & 1 ? 1 : 0), to = borders[b] - (d & 2 ? 1 : 0);
                if (from > BIG || to > BIG || to < from)
                    continue;
                out[to - from] = 0xEE;
                assert_ok(tg_tgsp_read(p, from, out, to - from, 0, &err));
                for (size_t i = from; i < to; i++)
                    if (out[i - from] != byte_at(i))
                        fail_msg("[%zu, %zu): byte %zu", from, to, i);
                assert_int_equal(out[to - from], 0xEE);
            }
}

static const uint64_t sizes[] = {UINT64_C(1) << 16, UINT64_C(1) << 20, UINT64_C(1) << 21,
                                 UINT64_C(1) << 24};

static void test_shapes(void **state)
{
    struct fx *f = *state;
    uint8_t *out = malloc(BIG + 2);
    for (size_t s = 0; s < TG_ARRAY_LEN(sizes); s++)
        for (int a = 0; a < TG_AEAD_COUNT; a++) {
            struct tg_src src;
            chunk_size = sizes[s];
            aead = (enum tg_aead)a;
            TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "one", shape);
            struct tg_bytes view = tg_buf_view(&pkg);
            tg_src_mem(&src, &view, "m.tgsp");
            TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
            check_one(p, out, 1);
            check_one(p, out, 3);
            check_ranges(p, out);
        }
    free(out);
}

/* No byte of plaintext is a chunk too: its tag counts, and nothing needs to be there for it. */
static void test_empty(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    uint64_t off, len;
    chunk_size = TG_TGSP_CHUNK_MIN;
    fx_mkdir(f, "none");
    fx_write(f, "none/z", "", 0);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "none", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    assert_int_equal(tg_tgsp_geometry_get(p)->plain_len, 0);
    assert_ok(tg_tgsp_read_all(p, NULL, NULL, &err));
    assert_ok(tg_tgsp_read(p, 0, NULL, 0, 0, &err));
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &off, &len);
    assert_int_equal(len, TG_AEAD_TAG_LEN);
    pkg.data[off] ^= 1;
    assert_rc(tg_tgsp_read_all(p, NULL, NULL, &err), TG_E_AUTH);
}

/* A flipped bit anywhere in a chunk of several slices: its code, its chunk, and not one byte. */
static void test_nothing_of_a_bad_chunk(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    uint64_t off, len;
    uint8_t *out = malloc(BIG);
    chunk_size = UINT64_C(1) << 22;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "one", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &off, &len);
    const uint64_t at[] = {0,       1,       32767,        32768,   1048575,  1048576,  4194303,
                           4194304, 4194319, 4194304 + 16, 5000000, len - 17, len - 16, len - 1};
    for (size_t i = 0; i < TG_ARRAY_LEN(at); i++) {
        pkg.data[off + at[i]] ^= 0x10;
        memset(out, 0xEE, BIG);
        assert_rc(tg_tgsp_check_payload(p, NULL, &err), TG_E_AUTH);
        assert_contains(err.msg,
                        at[i] < 4194304 + 16 ? "chunk 0: its digest" : "chunk 1: its digest");
        assert_rc(tg_tgsp_read_all(p, out, NULL, &err), TG_E_AUTH);
        for (size_t k = 0; k < BIG; k++)
            if (out[k] != 0)
                fail_msg("flip at %zu: byte %zu was left", (size_t)at[i], k);
        memset(out, 0xEE, 64);
        size_t where = at[i] < 4194304 + 16 ? 100 : 4194304 + 100;
        assert_rc(tg_tgsp_read(p, where, out, 64, 0, &err), TG_E_AUTH);
        for (size_t k = 0; k < 64; k++)
            assert_int_equal(out[k], 0);
        pkg.data[off + at[i]] ^= 0x10;
    }
    check_one(p, (out = realloc(out, BIG + 1)), 2);
    free(out);
}

/* For callers that schedule chunks themselves; after a failure the same worker goes on. */
static void test_worker(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    uint8_t *out = malloc(BIG);
    chunk_size = UINT64_C(1) << 22;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "one", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    TG_AUTO(tg_tgsp_worker_freep) struct tg_tgsp_worker *w = NULL;
    assert_ok(tg_tgsp_worker_new(p, &w, &err));
    assert_rc(tg_tgsp_worker_chunk(w, 2, out, &err), TG_E_LIMIT);
    assert_ok(tg_tgsp_worker_chunk(w, 1, out, &err));
    assert_int_equal(out[0], byte_at(4194304));
    uint64_t off, len;
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &off, &len);
    pkg.data[off] ^= 1;
    assert_rc(tg_tgsp_worker_chunk(w, 0, out, &err), TG_E_AUTH);
    pkg.data[off] ^= 1;
    assert_ok(tg_tgsp_worker_chunk(w, 0, out, &err));
    assert_int_equal(out[4194303], byte_at(4194303));
    free(out);
}

/* A right digest over a wrong tag, as only an author who seals badly could sign: the tag decides.
 */
static void test_tag(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_chunk_hasher h = {NULL, NULL};
    uint8_t *out = malloc(BIG);
    chunk_size = UINT64_C(1) << 22;
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        aead = (enum tg_aead)a;
        TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "one", shape);
        struct tg_bytes view = tg_buf_view(&pkg);
        tg_src_mem(&src, &view, "m.tgsp");
        TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
        struct tg_bytes sealed = tg_bytes_sub(view, (size_t)p->sec[TG_TGSP_SEC_PAYLOAD].off,
                                              (1U << 22) + TG_AEAD_TAG_LEN);
        uint8_t *digest = (uint8_t *)(uintptr_t)p->manifest.payload.chunk_digests.p;
        pkg.data[p->sec[TG_TGSP_SEC_PAYLOAD].off + 3000000] ^= 1;
        assert_int_equal(tg_chunk_hasher_init(&h), TG_OK);
        assert_int_equal(tg_chunk_digest(&h, sealed, digest), TG_OK);
        tg_chunk_hasher_done(&h);
        assert_ok(tg_tgsp_check_payload(p, NULL, &err));
        memset(out, 0xEE, BIG);
        assert_rc(tg_tgsp_read_all(p, out, NULL, &err), TG_E_AUTH);
        assert_contains(err.msg, "chunk 0: its tag does not match");
        for (size_t k = 0; k < BIG; k++)
            assert_int_equal(out[k], 0);
    }
    free(out);
}

struct choice {
    const char *patterns[3];
    size_t n, files;
    unsigned chunks; /* bit i: chunk i */
};

#define BITS(a, b) ((1U << ((b) + 1)) - (1U << (a)))
/* Chunks of 64 KiB; files begin at multiples of 4096. */
#define CHUNKS_A BITS(0, 3)
#define CHUNKS_B1 BITS(3, 4)
#define CHUNKS_B2 BITS(4, 5)
#define CHUNKS_C BITS(5, 8)
#define CHUNKS_D BITS(8, 11)

static const struct choice choices[] = {
    {{"a.bin"},             1, 1,          CHUNKS_A                      },
    {{"*.bin"},             1, 3,          CHUNKS_A | CHUNKS_C | CHUNKS_D}, /* not b/1.bin */
    {{"b"},                 1, 3,          CHUNKS_B1 | CHUNKS_B2         },
    {{"b/*.txt"},           1, 1,          CHUNKS_B2                     },
    {{"b/?.*", "b/1.bin"},  2, 2,          CHUNKS_B1 | CHUNKS_B2         },
    {{"[cd].bin", "a.bin"}, 2, 3,          CHUNKS_A | CHUNKS_C | CHUNKS_D},
    {{"d.bin", "b/1.bin"},  2, 2,          CHUNKS_B1 | CHUNKS_D          },
    {{"*"},                 1, 6,          BITS(0,                         11)},
    {{"b/empty"},                     1,            1, 0                  },
};

static void test_only_what_is_asked_for(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    uint64_t off, len;
    chunk_size = TG_TGSP_CHUNK_MIN;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "many", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    struct watched w = {.times = NULL};
    tg_src_mem(&w.under, &view, "m.tgsp");
    struct tg_src src = {watched_read, &w, "m.tgsp", w.under.size};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &off, &len);
    const struct tg_tgsp_geometry *g = tg_tgsp_geometry_get(p);
    w.from = off;
    w.times = calloc(1, (size_t)len);
    uint8_t *out = malloc((size_t)g->plain_len), *all = malloc((size_t)g->plain_len);
    assert_ok(tg_tgsp_read_all(p, all, NULL, &err));
    for (size_t c = 0; c < TG_ARRAY_LEN(choices); c++) {
        const struct choice *ch = &choices[c];
        TG_AUTO(tg_tgsp_select_freep) struct tg_tgsp_select *s = NULL;
        assert_ok(tg_tgsp_select_new(p, ch->patterns, ch->n, &s, &err));
        struct tg_tgsp_run run = {.threads = 2, .only = s};
        assert_int_equal(tg_tgsp_select_files(s), ch->files);
        assert_int_equal(tg_tgsp_select_chunks(s), __builtin_popcount(ch->chunks));
        memset(w.times, 0, (size_t)len);
        memset(out, 0xEE, (size_t)g->plain_len);
        assert_ok(tg_tgsp_check_payload(p, &run, &err));
        assert_ok(tg_tgsp_read_all(p, out, &run, &err));
        for (size_t i = 0; i < len; i++) {
            uint64_t chunk = i / (chunk_size + TG_AEAD_TAG_LEN);
            if (w.times[i] != (ch->chunks >> chunk & 1 ? 2 : 0))
                fail_msg("'%s': stored byte %zu read %d times", ch->patterns[0], i, w.times[i]);
        }
        for (size_t i = 0; i < g->plain_len; i++) {
            uint64_t chunk = i / chunk_size;
            bool in = ch->chunks >> chunk & 1;
            if (out[i] != (in ? all[i] : 0xEE))
                fail_msg("'%s': byte %zu", ch->patterns[0], i);
        }
    }
    free(w.times);
    w.times = NULL;
    free(out);
    free(all);
}

static void test_what_matches_nothing(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "many", NULL);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    static const char *const none[] = {"a", "bin", "*.bin/x", "B", "b/*/x", "", ".tensorguard"};
    for (size_t i = 0; i < TG_ARRAY_LEN(none); i++) {
        const char *two[] = {"a.bin", none[i]};
        struct tg_tgsp_select *s = NULL;
        assert_rc(tg_tgsp_select_new(p, two, 2, &s, &err), TG_E_NOTFOUND);
        assert_null(s);
        assert_contains(err.msg, "m.tgsp: none of its");
    }
}

/* Other files' chunks may be broken: what was asked for is right all the same, and only it is made.
 */
static void test_extract_some(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    uint64_t off, len;
    chunk_size = TG_TGSP_CHUNK_MIN;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "many", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &off, &len);
    pkg.data[off + len - 1] ^= 1; /* d.bin */
    pkg.data[off] ^= 1;           /* a.bin */
    static const char *const b[] = {"b"};
    TG_AUTO(tg_tgsp_select_freep) struct tg_tgsp_select *s = NULL;
    assert_ok(tg_tgsp_select_new(p, b, 1, &s, &err));
    const struct tg_tgsp_run some = {.only = s};
    assert_rc(tg_tgsp_extract(p, fx_path(f, "all"), NULL, &err), TG_E_AUTH);
    assert_ok(tg_tgsp_extract(p, fx_path(f, "some"), &some, &err));
    TG_AUTO(tg_buf_done) struct tg_buf one = fx_read(fx_path(f, "some/b/1.bin"));
    TG_AUTO(tg_buf_done) struct tg_buf two = fx_read(fx_path(f, "some/b/2.txt"));
    TG_AUTO(tg_buf_done) struct tg_buf empty = fx_read(fx_path(f, "some/b/empty"));
    assert_int_equal(one.n, 70000);
    assert_int_equal(one.data[69999], byte_at(2 + 69999));
    assert_int_equal(two.n, 70000);
    assert_int_equal(two.data[0], byte_at(3));
    assert_int_equal(empty.n, 0);
    assert_int_not_equal(access(fx_path(f, "some/a.bin"), F_OK), 0);
    assert_int_not_equal(access(fx_path(f, "some/d.bin"), F_OK), 0);
}

/* The second small read begins with the first one's expanded keys and memory. */
static void test_small_reads_reuse(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    uint8_t byte;
    chunk_size = TG_TGSP_CHUNK_MIN;
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "many", shape);
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "m.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = opened(f, &src);
    uint64_t n = tg_mem_fault_count();
    assert_ok(tg_tgsp_read(p, 5000, &byte, 1, 0, &err));
    uint64_t first = tg_mem_fault_count() - n;
    assert_int_equal(byte, byte_at(1 + 5000));
    n = tg_mem_fault_count();
    assert_ok(tg_tgsp_read(p, 70000, &byte, 1, 0, &err));
    assert_int_equal(byte, byte_at(1 + 70000));
    assert_true(tg_mem_fault_count() - n < first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_nothing_of_a_bad_chunk),
        cmocka_unit_test(test_worker),
        cmocka_unit_test(test_tag),
        cmocka_unit_test(test_only_what_is_asked_for),
        cmocka_unit_test(test_what_matches_nothing),
        cmocka_unit_test(test_extract_some),
        cmocka_unit_test(test_small_reads_reuse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
