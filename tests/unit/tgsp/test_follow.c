/* Reading a package while it comes: any order of arrival, wrong chunks, an end before the end,
 * cancelling; and the page the two sides share. */
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "tgsp/arrival.h"
#include "tgsp/follow.h"

#define BIG 1500011U
#define CHUNK 65536U
#define STORED (CHUNK + 16)

static struct tg_trust *trust;
static struct tg_buf bytes; /* the package */
static uint64_t payload;    /* its offset */
static unsigned chunks;

static uint8_t byte_at(size_t i)
{
    return (uint8_t)((i * 2654435761U) >> 13);
}

static void shape(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = CHUNK;
}

static int setup(void **state)
{
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    uint8_t *p = malloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        p[i] = byte_at(i);
    trust = fx_trust(f->author);
    fx_mkdir(f, "one");
    fx_write(f, "one/w", p, BIG);
    free(p);
    bytes = fx_build(f, "one", shape);
    return 0;
}

static int teardown(void **state)
{
    tg_buf_done(&bytes);
    tg_trust_free(trust);
    return fx_teardown(state);
}

/* ---- the downloading side ---- */

struct download {
    struct tg_arrival *page;
    int fd;
    struct tg_spans have;
    pthread_mutex_t lock;
    struct tg_span again[4]; /* asked for */
    unsigned n_again;
};

static void download_new(struct download *d, const struct fx *f)
{
    struct tg_err err = TG_ERR_INIT;
    *d = (struct download){.lock = PTHREAD_MUTEX_INITIALIZER};
    d->fd = open(fx_path(f, "part"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(d->fd >= 0);
    assert_int_equal(ftruncate(d->fd, (off_t)bytes.n), 0);
    assert_ok(tg_arrival_new(bytes.n, &d->page, &err));
}

static void download_done(struct download *d)
{
    tg_arrival_free(d->page);
    tg_fd_close(d->fd);
}

static void put(struct download *d, uint64_t off, uint64_t end)
{
    end = end < bytes.n ? end : bytes.n;
    if (pwrite(d->fd, bytes.data + off, (size_t)(end - off), (off_t)off) != (ssize_t)(end - off) ||
        tg_spans_add(&d->have, off, end) != TG_OK)
        abort();
    tg_arrival_show(d->page, &d->have);
}

static enum tg_rc asked(void *arg, uint64_t off, uint64_t n, struct tg_err *err)
{
    struct download *d = arg;
    (void)err;
    (void)pthread_mutex_lock(&d->lock);
    assert_true(d->n_again < 4);
    d->again[d->n_again++] = (struct tg_span){off, off + n};
    (void)pthread_mutex_unlock(&d->lock);
    return TG_OK;
}

/* ---- the reading side ---- */

struct reader {
    struct download *d;
    const struct fx *f;
    unsigned threads;
    uint8_t *out;
    pthread_t thread;
    struct tg_follow *follow;
    atomic_bool ready; /* keys are unwrapped */
    enum tg_rc rc;
    struct tg_err err;
};

static enum tg_rc read_it(struct reader *r)
{
    struct tg_src src;
    struct tg_tgsp_policy policy = {.check_time = false};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    const struct tg_tgsp_run run = {.threads = r->threads, .follow = r->follow};
    tg_follow_src(r->follow, &src);
    TG_TRY(tg_tgsp_open(&src, &p, &r->err));
    TG_TRY(tg_tgsp_verify(p, trust, &r->err));
    TG_TRY(tg_tgsp_admit(p, &policy, &r->err));
    TG_TRY(tg_tgsp_unwrap(p, r->f->device, &r->err));
    uint64_t n;
    tg_tgsp_section_at(p, TG_TGSP_SEC_PAYLOAD, &payload, &n);
    chunks = (unsigned)tg_tgsp_geometry_get(p)->chunks;
    atomic_store(&r->ready, true);
    return tg_tgsp_read_all(p, r->out, &run, &r->err);
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    r->rc = read_it(r);
    return NULL;
}

static void reader_start(struct reader *r, struct download *d, const struct fx *f, unsigned threads)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_follow_opts o = {.file = d->fd,
                                     .arrival = tg_arrival_fd(d->page),
                                     .name = "package",
                                     .again = asked,
                                     .arg = d};
    *r = (struct reader){.d = d, .f = f, .threads = threads};
    r->out = calloc(1, BIG);
    assert_ok(tg_follow_new(&o, &r->follow, &err));
    assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

static void reader_end(struct reader *r)
{
    assert_int_equal(pthread_join(r->thread, NULL), 0);
    tg_follow_free(r->follow);
}

static void reader_right(struct reader *r)
{
    reader_end(r);
    if (r->rc != TG_OK)
        fail_msg("%s", r->err.msg);
    for (size_t i = 0; i < BIG; i++)
        if (r->out[i] != byte_at(i))
            fail_msg("byte %zu", i);
    free(r->out);
}

/* Nothing of the plaintext is left. */
static void reader_failed(struct reader *r, enum tg_rc rc, const char *words)
{
    reader_end(r);
    assert_int_equal(r->rc, rc);
    assert_contains(r->err.msg, words);
    for (size_t i = 0; i < BIG; i++)
        if (r->out[i] != 0)
            fail_msg("byte %zu was left", i);
    free(r->out);
}

static void wait_ready(struct reader *r)
{
    while (!atomic_load(&r->ready))
        tg_clock_sleep_ms(1);
}

/* All but the payload; the reader is ready then. */
static void put_front(struct download *d, struct reader *r)
{
    uint64_t n = tg_get_be32(bytes.data + 6), at = 10 + n; /* header, manifest, recipients */
    at += 4 + tg_get_be32(bytes.data + at);
    at += 4 + tg_get_be32(bytes.data + at);
    at += 8;
    put(d, bytes.n - 6000, bytes.n);
    put(d, 0, at);
    wait_ready(r);
    assert_int_equal(payload, at);
}

static void put_chunk(struct download *d, unsigned i)
{
    put(d, payload + (uint64_t)i * STORED, payload + (uint64_t)(i + 1) * STORED);
}

/* ---- tests ---- */

/* Small steps from the front, the reader waiting all the time. */
static void test_from_the_front(void **state)
{
    struct fx *f = *state;
    for (unsigned threads = 1; threads <= 4; threads += 3) {
        struct download d;
        struct reader r;
        download_new(&d, f);
        reader_start(&r, &d, f, threads);
        for (uint64_t at = 0; at < bytes.n; at += 50021)
            put(&d, at, at + 50021);
        reader_right(&r);
        download_done(&d);
    }
}

static void test_any_order(void **state)
{
    struct fx *f = *state;
    for (unsigned round = 0; round < 12; round++) {
        struct download d;
        struct reader r;
        download_new(&d, f);
        reader_start(&r, &d, f, 1 + round % 4);
        put_front(&d, &r);
        assert_true(chunks > 20);
        for (unsigned i = 0; i < chunks; i++) /* the number of chunks is prime */
            put_chunk(&d, round == 0 ? chunks - 1 - i : (i * (2 * round + 5) + round) % chunks);
        put(&d, 0, bytes.n);
        reader_right(&r);
        assert_int_equal(d.n_again, 0);
        download_done(&d);
    }
}

/* It does not wait for the first chunk to take the others: all but one are done before that comes.
 */
static void test_takes_what_is_there(void **state)
{
    struct fx *f = *state;
    struct download d;
    struct reader r;
    download_new(&d, f);
    reader_start(&r, &d, f, 2);
    put_front(&d, &r);
    for (unsigned i = 1; i < chunks; i++)
        put_chunk(&d, i);
    /* the last bytes of the last chunk: nothing else tells from outside */
    volatile uint8_t *last = r.out + BIG - 1, *first = r.out + CHUNK;
    while (*last != byte_at(BIG - 1) || *first != byte_at(CHUNK))
        tg_clock_sleep_ms(1);
    assert_int_equal(r.out[1], 0);
    put_chunk(&d, 0);
    reader_right(&r);
    download_done(&d);
}

static void damage(struct download *d, unsigned chunk)
{
    uint64_t at = payload + (uint64_t)chunk * STORED + 100;
    uint8_t wrong = bytes.data[at] ^ 1;
    assert_int_equal(pwrite(d->fd, &wrong, 1, (off_t)at), 1);
}

static struct tg_span wait_asked(struct download *d, unsigned n)
{
    for (;;) {
        (void)pthread_mutex_lock(&d->lock);
        bool there = d->n_again >= n;
        (void)pthread_mutex_unlock(&d->lock);
        if (there)
            return d->again[n - 1];
        tg_clock_sleep_ms(1);
    }
}

static void test_wrong_chunks_are_asked_for_again(void **state)
{
    struct fx *f = *state;
    struct download d;
    struct reader r;
    download_new(&d, f);
    reader_start(&r, &d, f, 3);
    put_front(&d, &r);
    for (unsigned i = 0; i < 2; i++) {
        unsigned c = i == 0 ? 3 : chunks - 1;
        uint64_t off = payload + (uint64_t)c * STORED;
        uint64_t end = off + STORED < bytes.n ? off + STORED : bytes.n;
        (void)!pwrite(d.fd, bytes.data + off, (size_t)(end - off), (off_t)off);
        damage(&d, c);
        assert_int_equal(tg_spans_add(&d.have, off, end), TG_OK);
        tg_arrival_show(d.page, &d.have);
        struct tg_span s = wait_asked(&d, i + 1);
        assert_int_equal(s.off, off);
        assert_true(s.end > s.off && s.end <= end);
        put_chunk(&d, c);
        tg_arrival_again(d.page);
    }
    put(&d, 0, bytes.n);
    reader_right(&r);
    assert_int_equal(d.n_again, 2);
    download_done(&d);
}

/* The second time it is given up, with the first failure's words in every thread. */
static void test_wrong_twice_is_the_end(void **state)
{
    struct fx *f = *state;
    struct download d;
    struct reader r;
    download_new(&d, f);
    reader_start(&r, &d, f, 4);
    put_front(&d, &r);
    (void)!pwrite(d.fd, bytes.data, 0, 0);
    assert_int_equal(tg_spans_add(&d.have, payload + 5 * STORED, payload + 6 * STORED), TG_OK);
    tg_arrival_show(d.page, &d.have); /* zeros */
    (void)wait_asked(&d, 1);
    tg_arrival_again(d.page);
    reader_failed(&r, TG_E_AUTH, "chunk 5: its digest is not the one in the manifest");
    assert_int_equal(d.n_again, 1); /* by none of the threads that were stopped by it */
    download_done(&d);
}

static void test_an_end_before_the_end(void **state)
{
    struct fx *f = *state;
    for (int front = 0; front < 2; front++) {
        struct download d;
        struct reader r;
        download_new(&d, f);
        reader_start(&r, &d, f, 2);
        if (front) {
            put_front(&d, &r);
            put_chunk(&d, 1);
        } else {
            put(&d, 0, 20);
        }
        tg_arrival_end(d.page);
        reader_failed(&r, TG_E_CLOSED, "the download ended before it was complete");
        download_done(&d);
    }
}

static void test_stopped_from_outside(void **state)
{
    struct fx *f = *state;
    struct tg_err why = TG_ERR_INIT;
    struct download d;
    struct reader r;
    download_new(&d, f);
    reader_start(&r, &d, f, 4);
    put_front(&d, &r);
    tg_err_set(&why, TG_E_STATE, "enough");
    tg_follow_stop(r.follow, TG_E_STATE, &why);
    tg_err_set(&why, TG_E_IO, "too late to count");
    tg_follow_stop(r.follow, TG_E_IO, &why);
    reader_failed(&r, TG_E_STATE, "enough");
    download_done(&d);
}

/* Once all was read, the page no longer matters: not one that says nothing is there, nor one that
 * makes no sense. */
static void test_settled_it_waits_for_nothing(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct download d;
    TG_AUTO(tg_follow_freep) struct tg_follow *follow = NULL;
    struct tg_src src;
    struct tg_spans bad = {{{9, 3}}, 1}, none = {.n = 0};
    uint8_t got[64];
    download_new(&d, f);
    put(&d, 0, bytes.n);
    const struct tg_follow_opts o = {d.fd, tg_arrival_fd(d.page), "package", NULL, NULL};
    assert_ok(tg_follow_new(&o, &follow, &err));
    tg_follow_src(follow, &src);
    tg_follow_settle(follow);
    for (int i = 0; i < 2; i++) {
        tg_arrival_show(d.page, i ? &bad : &none);
        memset(got, 0, sizeof got);
        assert_ok(src.read(src.ctx, src.name, got, sizeof got, 1000, &err));
        assert_memory_equal(got, bytes.data + 1000, sizeof got);
    }
    assert_rc(src.read(src.ctx, src.name, got, sizeof got, bytes.n - 1, &err), TG_E_FORMAT);
    download_done(&d);
}

/* Bytes that are said to be there and are not: the digests decide, never the page. */
static void test_a_page_that_lies(void **state)
{
    struct fx *f = *state;
    struct download d;
    struct reader r;
    download_new(&d, f);
    reader_start(&r, &d, f, 2);
    assert_int_equal(tg_spans_add(&d.have, 0, bytes.n), TG_OK);
    tg_arrival_show(d.page, &d.have);
    reader_failed(&r, TG_E_FORMAT, "not a TGSP package");
    download_done(&d);
}

static void test_pages_that_are_none(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_arrival *page = NULL;
    struct tg_arrived now;
    struct download d;
    struct tg_follow *follow = NULL;
    fx_write(f, "zeros", (const uint8_t[4096]){0}, 4096);
    fx_write(f, "short", "x", 1);
    for (int i = 0; i < 2; i++) {
        int fd = open(fx_path(f, i ? "zeros" : "short"), O_RDONLY);
        assert_rc(tg_arrival_open(fd, &page, &err), TG_E_FORMAT);
        tg_fd_close(fd);
    }
    download_new(&d, f);
    /* of another file */
    assert_int_equal(ftruncate(d.fd, 5), 0);
    const struct tg_follow_opts o = {d.fd, tg_arrival_fd(d.page), "package", NULL, NULL};
    assert_rc(tg_follow_new(&o, &follow, &err), TG_E_FORMAT);
    /* spans that make no sense, by a writer that is not ours */
    assert_ok(tg_arrival_open(tg_arrival_fd(d.page), &page, &err));
    struct tg_spans bad = {{{9, 3}}, 1};
    tg_arrival_show(d.page, &bad);
    assert_rc(tg_arrival_look(page, &now, &err), TG_E_FORMAT);
    bad = (struct tg_spans){{{0, bytes.n + 1}}, 1};
    tg_arrival_show(d.page, &bad);
    assert_rc(tg_arrival_look(page, &now, &err), TG_E_FORMAT);
    tg_arrival_free(page);
    download_done(&d);
}

/* Who is handed the page can neither write to it nor shorten it. */
static void test_the_page_is_sealed(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_arrival_freep) struct tg_arrival *page = NULL;
    assert_ok(tg_arrival_new(100, &page, &err));
    int fd = tg_arrival_fd(page);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_not_equal(ftruncate(fd, 0), 0);
    assert_int_not_equal(pwrite(fd, "x", 1, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_the_front),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_takes_what_is_there),
        cmocka_unit_test(test_wrong_chunks_are_asked_for_again),
        cmocka_unit_test(test_wrong_twice_is_the_end),
        cmocka_unit_test(test_an_end_before_the_end),
        cmocka_unit_test(test_stopped_from_outside),
        cmocka_unit_test(test_settled_it_waits_for_nothing),
        cmocka_unit_test(test_a_page_that_lies),
        cmocka_unit_test(test_pages_that_are_none),
        cmocka_unit_test(test_the_page_is_sealed),
    };
    return cmocka_run_group_tests_name("tgsp/follow", tests, setup, teardown);
}
