/* SHA-256 side by side: whatever the way, the digests are libcrypto's. */
#include "../tg_cmocka.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "crypto/sha256_many.h"

#define LANES 33 /* two full rounds of the widest way, and one more */
#define SHORT 4200
#define PIECE TG_SHA256_MANY_LEN

/* Each set of ways; those the machine lacks fall back, and are the same test again. */
static const unsigned sets[] = {0, TG_SHA256_NARROW, TG_SHA256_WIDE, TG_SHA256_ANY};

/* Memory with nothing readable behind it: a way that reads past a message dies here. */
struct guarded {
    uint8_t *base, *end;
    size_t n;
};

static struct guarded guarded_make(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (n + page - 1) / page * page;
    uint8_t *base =
        mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    assert_int_equal(mprotect(base + whole, page, PROT_NONE), 0);
    for (size_t i = 0; i < whole; i++)
        base[i] = (uint8_t)((i * 2654435761U) >> 11);
    return (struct guarded){base, base + whole, whole + page};
}

static void guarded_done(struct guarded *g)
{
    assert_int_equal(munmap(g->base, g->n), 0);
}

static struct tg_sha256_many *make(unsigned ways)
{
    struct tg_sha256_many *h = NULL;
    assert_int_equal(tg_sha256_many_new(ways, &h), TG_OK);
    assert_int_equal(tg_sha256_many_ways(h) & ~ways, 0);
    return h;
}

/* n messages by h, each against libcrypto alone. */
static void check(struct tg_sha256_many *h, const struct tg_bytes *in, size_t n)
{
    uint8_t got[LANES][TG_SHA256_LEN], want[TG_SHA256_LEN];
    memset(got, 0xEE, sizeof got);
    assert_int_equal(tg_sha256_many(h, in, n, got), TG_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tg_sha256(in[i], want), TG_OK);
        if (memcmp(got[i], want, sizeof want) != 0)
            fail_msg("message %zu of %zu, %zu bytes at %p: another digest", i, n, in[i].n,
                     (const void *)in[i].p);
    }
    for (size_t i = n; i < LANES; i++)
        for (size_t k = 0; k < TG_SHA256_LEN; k++)
            assert_int_equal(got[i][k], 0xEE);
}

/* Every length up to and beyond a page, all lanes alike, ending where memory ends. */
static void test_every_length(void **state)
{
    struct guarded g = guarded_make(SHORT + LANES);
    (void)state;
    for (size_t s = 0; s < TG_ARRAY_LEN(sets); s++) {
        TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = make(sets[s]);
        for (size_t n = 0; n <= SHORT; n++) {
            struct tg_bytes in[LANES];
            for (size_t i = 0; i < 16; i++) /* each lane at another alignment */
                in[i] = tg_bytes_make(g.end - n - i, n);
            check(h, in, 16);
        }
    }
    guarded_done(&g);
}

/* Every number of messages, from none to more than any way takes at once, of unequal lengths. */
static void test_every_count(void **state)
{
    struct guarded g = guarded_make(2 * PIECE);
    (void)state;
    for (size_t s = 0; s < TG_ARRAY_LEN(sets); s++) {
        TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = make(sets[s]);
        for (size_t n = 0; n <= LANES; n++) {
            struct tg_bytes in[LANES], same[LANES];
            for (size_t i = 0; i < n; i++) {
                size_t len = i * i * 31 + n;
                in[i] = tg_bytes_make(g.end - len, len);
                same[i] = tg_bytes_make(g.base + i, 1000);
            }
            check(h, in, n);
            check(h, same, n);
        }
    }
    guarded_done(&g);
}

/* As a chunk is cut: whole pieces and one that is shorter, or a little longer than is taken. */
static void test_piece_borders(void **state)
{
    static const size_t last[] = {
        0,         1,         55,        56,    63,         64,         65,
        119,       120,       4095,      4096,  PIECE - 65, PIECE - 64, PIECE - 63,
        PIECE - 9, PIECE - 8, PIECE - 1, PIECE, PIECE + 1,  PIECE + 64, 2 * PIECE};
    struct guarded g = guarded_make((LANES + 2) * (size_t)PIECE);
    (void)state;
    for (size_t s = 0; s < TG_ARRAY_LEN(sets); s++) {
        TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = make(sets[s]);
        for (size_t k = 0; k < TG_ARRAY_LEN(last); k++)
            for (size_t n = 1; n <= LANES; n += 4) {
                struct tg_bytes in[LANES];
                const uint8_t *at = g.end - last[k] - (n - 1) * PIECE;
                for (size_t i = 0; i + 1 < n; i++)
                    in[i] = tg_bytes_make(at + i * PIECE, PIECE);
                in[n - 1] = tg_bytes_make(g.end - last[k], last[k]);
                check(h, in, n);
            }
    }
    guarded_done(&g);
}

/* Every alignment of the first byte, for a length that fills blocks and one that does not. */
static void test_alignments(void **state)
{
    struct guarded g = guarded_make(4 * PIECE);
    (void)state;
    for (size_t s = 0; s < TG_ARRAY_LEN(sets); s++) {
        TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = make(sets[s]);
        for (size_t shift = 0; shift < 128; shift++) {
            struct tg_bytes in[LANES];
            for (size_t i = 0; i < LANES; i++)
                in[i] = tg_bytes_make(g.base + shift + i, i % 2 ? 2048 : 1999);
            check(h, in, LANES);
        }
    }
    guarded_done(&g);
}

/* What the machine can do is used; what is not asked for is not. */
static void test_ways(void **state)
{
    (void)state;
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *none = make(0);
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *any = make(TG_SHA256_ANY);
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *wide = make(TG_SHA256_WIDE);
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *narrow = make(TG_SHA256_NARROW);
    assert_int_equal(tg_sha256_many_ways(none), 0);
    assert_string_equal(tg_sha256_many_how(none, 32), "libcrypto");
    assert_string_equal(tg_sha256_many_how(any, 1), "libcrypto");
    assert_int_equal(tg_sha256_many_ways(any),
                     tg_sha256_many_ways(wide) | tg_sha256_many_ways(narrow));
    if (tg_sha256_many_ways(any) != 0)
        assert_contains(tg_sha256_many_how(any, 32), "libipsec-mb");
    print_message("# 32 messages: %s; 4: %s\n", tg_sha256_many_how(any, 32),
                  tg_sha256_many_how(any, 4));
}

#ifdef TEST_IPSEC_MB /* which is for x86-64 alone */
static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* With libipsec-mb in the build, a processor with AVX-512 hashes a default chunk's pieces in
 * sixteen lanes; still so once it has done it (the library might have refused). */
static void test_sixteen_lanes(void **state)
{
    struct guarded g = guarded_make(PIECE);
    struct tg_bytes in[LANES];
    (void)state;
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *any = make(TG_SHA256_ANY);
    for (size_t i = 0; i < LANES; i++)
        in[i] = tg_bytes_make(g.base, PIECE);
    check(any, in, 32);
#ifndef TEST_IPSEC_MB
    assert_int_equal(tg_sha256_many_ways(any), 0);
    assert_string_equal(tg_sha256_many_how(any, 32), "libcrypto");
#else
    if (has_avx512()) {
        assert_true((tg_sha256_many_ways(any) & TG_SHA256_WIDE) != 0);
        assert_string_equal(tg_sha256_many_how(any, 32), "libipsec-mb, 16 lanes");
    } else {
        print_message("# no AVX-512 here: %s\n", tg_sha256_many_how(any, 32));
    }
#endif
    guarded_done(&g);
}

static enum tg_rc once(const struct guarded *g)
{
    struct tg_bytes in[LANES];
    uint8_t got[LANES][TG_SHA256_LEN], want[TG_SHA256_LEN];
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = NULL;
    for (size_t i = 0; i < LANES; i++)
        in[i] = tg_bytes_make(g->base, 100 + i);
    TG_TRY(tg_sha256_many_new(TG_SHA256_ANY, &h));
    /* A failure leaves nothing half done inside: the next call is right. */
    enum tg_rc rc = tg_sha256_many(h, in, LANES, got);
    if (rc != TG_OK) {
        tg_mem_fault_set(0, 0);
        assert_int_equal(tg_sha256_many(h, in, LANES, got), TG_OK);
    }
    for (size_t i = 0; i < LANES; i++) {
        assert_int_equal(tg_sha256(in[i], want), TG_OK);
        assert_memory_equal(got[i], want, sizeof want);
    }
    return rc;
}

static void test_allocation_faults(void **state)
{
    struct guarded g = guarded_make(4096);
    uint64_t before = tg_mem_fault_count();
    (void)state;
    assert_int_equal(once(&g), TG_OK);
    uint64_t n = tg_mem_fault_count() - before;
    assert_true(n >= 2);
    for (uint64_t i = 1; i <= n; i++) {
        tg_mem_fault_set(i, 0);
        assert_int_equal(once(&g), TG_E_NOMEM);
    }
    tg_mem_fault_set(0, 0);
    guarded_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_count),
        cmocka_unit_test(test_piece_borders),
        cmocka_unit_test(test_alignments),
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_sixteen_lanes),
        cmocka_unit_test(test_allocation_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
