/* Resuming a download: what is kept, what is not, and what is never believed. Bytes are handed in
 * where the network would; the end-to-end tests cut real connections. */
#include "../tg_cmocka.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fetch.h"
#include "base/file.h"
#include "crypto/hash.h"
#include "tgsp/arrival.h"
#include "tmpdir.h"

#define SIZE 100000

static uint8_t blob[SIZE];
static struct tg_state st;
static struct tg_held pkg;

static int set_up(void **state)
{
    (void)state;
    tmp_state(&st);
    for (size_t i = 0; i < SIZE; i++)
        blob[i] = (uint8_t)(i * 7 + i / 251);
    pkg = (struct tg_held){.set = true, .size = SIZE};
    memset(pkg.h, 0x55, 32);
    assert_int_equal(tg_sha256(tg_bytes_make(blob, SIZE), pkg.blob), TG_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tmp_state_done(&st);
    return 0;
}

static struct tg_fetch *open_fetch(void)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_fetch *f = NULL;
    assert_ok(tg_fetch_open(&st, &pkg, &f, &err));
    return f;
}

static void take(struct tg_fetch *f, size_t from, size_t to)
{
    struct tg_err err = TG_ERR_INIT;
    assert_ok(tg_fetch_take(f, from, tg_bytes_make(blob + from, to - from), &err));
}

static void test_resumes_after_every_break(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    for (size_t at = 0; at < SIZE; at += 7001) { /* a restart every 7001 bytes */
        struct tg_fetch *f = open_fetch();
        assert_int_equal(tg_fetch_have(f), at);
        assert_false(tg_fetch_complete(f));
        take(f, at, at + 7001 < SIZE ? at + 7001 : SIZE);
        tg_fetch_free(f);
    }
    struct tg_fetch *f = open_fetch();
    assert_true(tg_fetch_complete(f));
    assert_ok(tg_fetch_finish(f, false, &err));
    tg_fetch_free(f);
    assert_ok(tg_fetch_commit(&st, &pkg, &err));
    char path[TG_STATE_PATH_MAX];
    tg_state_package(&st, pkg.h, path);
    assert_true(tg_state_has(path));
    tg_state_part(&st, pkg.h, path);
    assert_false(tg_state_has(path));
}

static void test_wrong_bytes_are_thrown_away(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_fetch *f = open_fetch();
    take(f, 0, SIZE - 1);
    uint8_t wrong = (uint8_t)(blob[SIZE - 1] ^ 1);
    assert_ok(tg_fetch_take(f, SIZE - 1, tg_bytes_make(&wrong, 1), &err));
    assert_rc(tg_fetch_finish(f, false, &err), TG_E_AUTH);
    assert_int_equal(tg_fetch_have(f), 0);
    tg_fetch_free(f);
    f = open_fetch(); /* and the next try starts over, and works */
    assert_int_equal(tg_fetch_have(f), 0);
    take(f, 0, SIZE);
    assert_ok(tg_fetch_finish(f, false, &err));
    tg_fetch_free(f);
}

/* Power may fail with a part whose bytes never reached the disk: it is hashed, not believed. */
static void test_damaged_part_is_found_out(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_fetch *f = open_fetch();
    take(f, 0, 50000);
    tg_fetch_free(f);
    tg_state_part(&st, pkg.h, path);
    assert_int_equal(truncate(path, 20000), 0);
    assert_int_equal(truncate(path, SIZE), 0); /* zeros now */
    f = open_fetch();
    assert_int_equal(tg_fetch_have(f), 50000);
    take(f, 50000, SIZE);
    assert_rc(tg_fetch_finish(f, false, &err), TG_E_AUTH);
    tg_fetch_free(f);
}

static void test_other_file_for_the_same_package_starts_over(void **state)
{
    (void)state;
    struct tg_fetch *f = open_fetch();
    take(f, 0, 60000);
    tg_fetch_free(f);
    pkg.blob[0] ^= 1; /* a co-signed copy replaced it on the platform */
    f = open_fetch();
    assert_int_equal(tg_fetch_have(f), 0);
    tg_fetch_free(f);
}

static void test_part_that_is_too_long_starts_over(void **state)
{
    (void)state;
    char path[TG_STATE_PATH_MAX];
    struct tg_fetch *f = open_fetch();
    take(f, 0, SIZE);
    tg_fetch_free(f);
    tg_state_part(&st, pkg.h, path);
    assert_int_equal(truncate(path, SIZE + 1), 0);
    f = open_fetch();
    assert_int_equal(tg_fetch_have(f), 0);
    tg_fetch_free(f);
}

static void test_bytes_beyond_the_file_are_refused(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_fetch *f = open_fetch();
    take(f, 0, 1000);
    assert_rc(tg_fetch_take(f, 1000, tg_bytes_make(blob, SIZE), &err), TG_E_FORMAT); /* too many */
    assert_rc(tg_fetch_take(f, SIZE, tg_bytes_make(blob, 1), &err), TG_E_FORMAT);
    assert_rc(tg_fetch_take(f, UINT64_MAX, tg_bytes_make(blob, 2), &err), TG_E_FORMAT);
    assert_int_equal(tg_fetch_have(f), 1000);
    tg_fetch_free(f);
}

/* In any order, with restarts between: the holes are what is left to fetch. */
static void test_order_does_not_matter(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    static const size_t order[] = {9, 0, 5, 4, 1, 8, 2, 7, 3, 6};
    for (size_t i = 0; i < 10; i++) {
        struct tg_fetch *f = open_fetch();
        assert_int_equal(tg_fetch_have(f), i * SIZE / 10);
        assert_false(tg_fetch_complete(f));
        take(f, order[i] * SIZE / 10, (order[i] + 1) * SIZE / 10);
        tg_fetch_free(f);
    }
    struct tg_fetch *f = open_fetch();
    assert_true(tg_fetch_complete(f));
    assert_ok(tg_fetch_finish(f, false, &err));
    tg_fetch_free(f);
}

/* What no record tells of was never fetched: a kill between the bytes and the record. */
static void test_only_the_record_counts(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX], tag[TG_STATE_PATH_MAX + 8];
    struct tg_fetch *f = open_fetch();
    take(f, 0, 40000);
    assert_ok(tg_fetch_save(f, &err));
    take(f, 40000, SIZE);
    tg_state_part(&st, pkg.h, path);
    (void)snprintf(tag, sizeof tag, "%s.tag", path);
    struct tg_buf kept = TG_BUF_INIT(16384);
    assert_ok(tg_file_read(tag, &kept, &err));
    tg_fetch_free(f);
    assert_ok(tg_file_write(tag, tg_buf_view(&kept), 0600, true, &err)); /* as a kill leaves it */
    tg_buf_done(&kept);
    f = open_fetch();
    assert_int_equal(tg_fetch_have(f), 40000);
    tg_fetch_free(f);
    assert_ok(
        tg_file_write(tag, tg_bytes_str("{\"have\":[{\"off\":5,\"end\":2}]}"), 0600, true, &err));
    f = open_fetch(); /* one that makes no sense is none */
    assert_int_equal(tg_fetch_have(f), 0);
    tg_fetch_free(f);
}

/* A worker that follows sees what is there, keeps its file when another takes its name, and is told
 * when no more will come. */
static void test_who_follows_is_kept_up_to_date(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_arrived now;
    int fd = -1;
    struct tg_fetch *f = open_fetch();
    take(f, SIZE - 100, SIZE);
    assert_ok(tg_fetch_arrival(f, &fd, &err));
    TG_AUTO(tg_arrival_freep) struct tg_arrival *page = NULL;
    assert_ok(tg_arrival_open(fd, &page, &err));
    assert_ok(tg_arrival_look(page, &now, &err));
    assert_true(tg_spans_has(&now.there, SIZE - 100, SIZE));
    assert_false(tg_spans_has(&now.there, 0, 1));
    take(f, 0, 50000);
    tg_fetch_show(f);
    assert_ok(tg_arrival_look(page, &now, &err));
    assert_true(tg_spans_has(&now.there, 0, 50000));
    assert_false(now.ended);
    uint8_t wrong[100] = {1};
    assert_ok(tg_fetch_take(f, 50000, tg_bytes_make(blob + 50000, SIZE - 50000), &err));
    assert_ok(tg_fetch_take(f, 7, tg_bytes_make(wrong, sizeof wrong), &err));
    assert_rc(tg_fetch_finish(f, true, &err), TG_E_AUTH); /* kept: it may say where */
    assert_ok(tg_arrival_look(page, &now, &err));
    assert_false(now.ended);
    take(f, 7, 107);
    assert_ok(tg_fetch_finish(f, true, &err));
    tg_fetch_free(f);
    assert_ok(tg_arrival_look(page, &now, &err));
    assert_false(now.ended); /* it has all of it */
}

static void test_who_follows_is_told_of_the_end(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_arrived now;
    int fd = -1;
    for (int wrong = 0; wrong < 2; wrong++) {
        struct tg_fetch *f = open_fetch();
        take(f, 0, 1000);
        assert_ok(tg_fetch_arrival(f, &fd, &err));
        TG_AUTO(tg_arrival_freep) struct tg_arrival *page = NULL;
        assert_ok(tg_arrival_open(fd, &page, &err));
        if (wrong) {
            take(f, 0, SIZE);
            blob[0] ^= 1;
            take(f, 0, 1);
            blob[0] ^= 1;
            assert_rc(tg_fetch_finish(f, false, &err), TG_E_AUTH);
        }
        tg_fetch_free(f);
        assert_ok(tg_arrival_look(page, &now, &err));
        assert_true(now.ended);
    }
}

static void test_a_read_of_what_is_missing_says_so(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    uint8_t got[100];
    struct tg_src src;
    struct tg_device none = TG_DEVICE_INIT;
    struct tg_fetch *f = open_fetch();
    take(f, 0, 1000);
    tg_fetch_src(f, &src);
    assert_int_equal(src.size, SIZE);
    assert_ok(tg_src_read(&src, got, 100, 900, &err));
    assert_memory_equal(got, blob + 900, 100);
    assert_rc(tg_fetch_wanted(f, &none, &err), TG_E_STATE);
    assert_rc(tg_src_read(&src, got, 100, 901, &err), TG_E_AGAIN);
    assert_rc(tg_src_read(&src, got, 100, SIZE - 99, &err), TG_E_FORMAT);
    tg_fetch_free(f);
}

static void test_disk_full_says_so_and_resumes(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_fetch *f = open_fetch();
    take(f, 0, 40000);
    tg_io_fault_set(TG_IO_WRITE, 1, ENOSPC);
    assert_rc(tg_fetch_take(f, 40000, tg_bytes_make(blob + 40000, 1000), &err), TG_E_LIMIT);
    tg_io_fault_set(TG_IO_WRITE, 0, 0);
    assert_contains(err.msg, "disk full: 40000 of 100000 bytes");
    take(f, 40000, SIZE);
    assert_ok(tg_fetch_finish(f, false, &err));
    tg_fetch_free(f);
}

static void test_calls_grow_with_the_speed(void **state)
{
    (void)state;

    static const struct {
        uint64_t kib, ms, next; /* KiB */
    } rows[] = {
        {1024,   2000,  1024  },
        {1024,   1000,  2048  },
        {1024,   10,    4096  }, /* not all at once */
        {1024,   8000,  256   },
        {256,    60000, 256   }, /* the bounds */
        {262144, 1000,  262144},
        {262144, 8000,  65536 }, /* and back */
        {0,      5,     256   },
        {1,      0,     256   },
    };

    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++)
        assert_int_equal((tg_fetch_next(rows[i].kib * 1024, rows[i].ms * 1000000) + 512) / 1024,
                         rows[i].next);
    assert_int_equal(tg_fetch_next(UINT64_MAX, 0), TG_FETCH_MOST);
    assert_int_equal(tg_fetch_next(1, UINT64_MAX), TG_FETCH_LEAST);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_resumes_after_every_break),
        T(test_wrong_bytes_are_thrown_away),
        T(test_damaged_part_is_found_out),
        T(test_other_file_for_the_same_package_starts_over),
        T(test_part_that_is_too_long_starts_over),
        T(test_bytes_beyond_the_file_are_refused),
        T(test_order_does_not_matter),
        T(test_only_the_record_counts),
        T(test_who_follows_is_kept_up_to_date),
        T(test_who_follows_is_told_of_the_end),
        T(test_a_read_of_what_is_missing_says_so),
        T(test_disk_full_says_so_and_resumes),
        T(test_calls_grow_with_the_speed),
    };
    return cmocka_run_group_tests_name("agent/fetch", tests, NULL, NULL);
}
