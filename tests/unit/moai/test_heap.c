/* The heap of the worker: this program is linked with it as the worker is, so that every allocation
 * here, the C library's own included, is one of it. */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/thread.h"
#include "moai/protect.h"

static struct tg_err err;

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void everything_lies_in_the_region(void **state)
{
    static const size_t sizes[] = {0,      1,         15,        16,      17,      4096,
                                   100000, 128 * KIB, 129 * KIB, 1 * MIB, 5 * MIB, 40 * MIB};
    char *line = NULL;
    void *p = NULL;

    (void)state;
    if (!tg_protect_heap())
        skip();
    for (size_t i = 0; i < TG_ARRAY_LEN(sizes); i++) {
        size_t n = sizes[i];
        uint8_t *a = malloc(n), *z = calloc(n != 0 ? n : 1, 1);

        assert_true(a != NULL && tg_region_has(a));
        assert_true(z != NULL && tg_region_has(z) && is_zero(z, n));
        assert_true(malloc_usable_size(a) >= n);
        memset(a, 0xFF, malloc_usable_size(a));
        memset(z, 0xFF, malloc_usable_size(z));
        free(a);
        free(z);
    }
    for (size_t align = sizeof(void *); align <= 64 * MIB; align *= 2) {
        assert_int_equal(posix_memalign(&p, align, 100), 0);
        assert_true(tg_region_has(p) && (uintptr_t)p % align == 0);
        memset(p, 1, 100);
        free(p);
    }
    p = aligned_alloc(64, 256 * KIB);
    assert_true(tg_region_has(p) && (uintptr_t)p % 64 == 0);
    free(p);
    line = strdup("from the C library");
    assert_true(tg_region_has(line));
    free(line);
}

static void freed_blocks_are_wiped(void **state)
{
    static const size_t sizes[] = {64, 1000, 20000, 100000}; /* larger ones: test_region.c */

    (void)state;
    if (!tg_protect_heap())
        skip();
    for (size_t i = 0; i < TG_ARRAY_LEN(sizes); i++) {
        size_t n = sizes[i];
        uint8_t *p = malloc(n), *neighbour = malloc(n); /* keeps the memory there */
        volatile uintptr_t at = (uintptr_t)p; /* the compiler must not know what is read below */
        const volatile uint8_t *left;

        for (size_t k = 0; k < n; k++)
            ((volatile uint8_t *)p)[k] = 0xC3;
        free(p);
        left = (const volatile uint8_t *)at;
        /* the allocator may have put a link into it, no more */
        for (size_t k = 32; k < n; k++)
            assert_int_equal(left[k], 0);
        free(neighbour);
    }
}

static void realloc_keeps_what_was_there(void **state)
{
    static const size_t sizes[] = {10, 100, 90000, 200000, 3 * MIB, 150000, 2 * MIB, 50, 10};
    uint8_t *p = NULL;
    size_t had = 0;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(sizes); i++) {
        p = realloc(p, sizes[i]);
        assert_non_null(p);
        for (size_t k = 0; k < had && k < sizes[i]; k++)
            assert_int_equal(p[k], (uint8_t)(k * 7));
        for (size_t k = 0; k < sizes[i]; k++)
            p[k] = (uint8_t)(k * 7);
        had = sizes[i];
    }
    free(p);
}

static void what_cannot_be_is_refused(void **state)
{
    volatile size_t huge = SIZE_MAX;
    void *volatile got; /* a compiler may leave out an allocation that nobody looks at */
    void *p = &p;

    (void)state;
    if (!tg_protect_heap())
        skip();
    got = malloc(huge);
    assert_null(got);
    assert_int_equal(errno, ENOMEM);
    got = malloc(huge / 2);
    assert_null(got);
    got = calloc(huge / 2, 4);
    assert_null(got);
    got = realloc(NULL, huge - 100);
    assert_null(got);
    assert_int_equal(posix_memalign(&p, 24, 8), EINVAL);
    assert_int_equal(posix_memalign(&p, 64, huge - 1), ENOMEM);
    assert_ptr_equal(p, &p);
    free(NULL);
}

struct shelf {
    uint8_t *block[256];
    size_t size[256];
};

/* Blocks made by one thread are freed by others. */
static enum tg_rc juggle(void *ctx, uint64_t i, unsigned worker, struct tg_err *e)
{
    struct shelf *shelf = ctx;
    uint64_t dice = (i + 1) * 0x9E3779B97F4A7C15ULL;

    (void)worker;
    for (unsigned k = 0; k < 4000; k++) {
        size_t at, n;
        uint8_t *mine;

        dice = dice * 6364136223846793005ULL + 1442695040888963407ULL;
        at = (size_t)(dice >> 33) % 256;
        n = 1 + (size_t)(dice >> 40) % ((dice >> 60) == 0 ? 300000 : 3000);
        mine = malloc(n);
        if (mine == NULL || !tg_region_has(mine))
            return TG_FAIL(e, TG_E_NOMEM, "%zu bytes", n);
        mine[0] = mine[n - 1] = 0x42;
        mine = __atomic_exchange_n(&shelf->block[at], mine, __ATOMIC_ACQ_REL);
        if (mine != NULL && mine[0] != 0x42)
            return TG_FAIL(e, TG_E_INTERNAL, "a block was overwritten");
        free(mine);
    }
    return TG_OK;
}

static void threads_share_it(void **state)
{
    struct tg_region_facts before, after;
    struct shelf *shelf;

    (void)state;
    if (!tg_protect_heap())
        skip();
    shelf = calloc(1, sizeof(*shelf));
    assert_non_null(shelf);
    for (int round = 0; round < 8; round++) {
        if (round == 1)
            tg_region_facts_get(&before);
        assert_ok(tg_thread_run(6, 24, juggle, shelf, &err));
    }
    for (size_t i = 0; i < 256; i++)
        free(shelf->block[i]);
    free(shelf);
    tg_region_facts_get(&after);
    assert_true(after.used <= before.used + 64 * MIB); /* it does not grow with every round */
}

/* Small blocks fill many pieces of the region, which are brought as they are needed. */
static void small_blocks_grow_it(void **state)
{
    enum { N = 3000 };

    uint8_t **v;

    (void)state;
    if (!tg_protect_heap())
        skip();
    v = calloc(N, sizeof(*v));
    assert_non_null(v);
    for (size_t i = 0; i < N; i++) {
        v[i] = malloc(100000);
        assert_true(v[i] != NULL && tg_region_has(v[i]));
        v[i][0] = v[i][99999] = (uint8_t)i;
    }
    for (size_t i = 0; i < N; i++) {
        assert_true(v[i][0] == (uint8_t)i && v[i][99999] == (uint8_t)i);
        free(v[i]);
    }
    free(v);
}

/* mimalloc's own ways in would neither know large blocks nor wipe: nobody may find them first. */
static void no_call_goes_past_it(void **state)
{
    static const char *const names[] = {"malloc",
                                        "free",
                                        "realloc",
                                        "_Znwm",
                                        "_ZnwmRKSt9nothrow_t",
                                        "_ZnwmSt11align_val_t",
                                        "_Znam",
                                        "_ZdlPv",
                                        "_ZdlPvm",
                                        "_ZdaPv",
                                        "_ZdlPvSt11align_val_t",
                                        "_ZdlPvmSt11align_val_t",
                                        "reallocarray",
                                        "strdup",
                                        "strndup",
                                        "posix_memalign",
                                        "aligned_alloc",
                                        "malloc_usable_size"};

    (void)state;
    if (!tg_protect_heap())
        skip();
    for (size_t i = 0; i < TG_ARRAY_LEN(names); i++) {
        void *at = dlsym(RTLD_DEFAULT, names[i]);
        Dl_info info = {0};

        assert_non_null(at);
        assert_true(dladdr(at, &info) != 0);
        if (strstr(info.dli_fname, "mimalloc") != NULL)
            fail_msg("%s is mimalloc's", names[i]);
    }
}

static void the_level_is_said(void **state)
{
    enum tg_level level = TG_LEVEL_NONE;

    (void)state;
    assert_true(tg_protect_parse("secret", &level) && level == TG_LEVEL_SECRET);
    assert_true(tg_protect_parse("locked", &level) && level == TG_LEVEL_LOCKED);
    assert_true(tg_protect_parse("any", &level) && level == TG_LEVEL_NONE);
    assert_false(tg_protect_parse("none", &level));
    assert_false(tg_protect_parse("", &level));
    if (!tg_protect_heap())
        skip();
    print_message("# level: %s\n", tg_level_name(tg_region_level()));
    assert_ok(tg_protect_require(TG_LEVEL_NONE, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_lies_in_the_region),
        cmocka_unit_test(freed_blocks_are_wiped),
        cmocka_unit_test(realloc_keeps_what_was_there),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(small_blocks_grow_it),
        cmocka_unit_test(no_call_goes_past_it),
        cmocka_unit_test(the_level_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
