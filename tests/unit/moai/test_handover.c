/* Hand-overs without a worker around them: how much of a package is read for what, what becomes of
 * copies that nobody waits for, and every allocation failing in turn. The package's source is held
 * still where a test wants to look at what is under way. */
#include "../tgsp/fixture.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "moai/handover.h"

#define CHUNK ((size_t)TG_TGSP_CHUNK_MIN)
#define BIG (64 * CHUNK)
#define TENSOR (8 * CHUNK)

static struct fx *fx;
static struct tg_err err;

/* ---- a package, and its source ---- */

static struct {
    struct tg_buf bytes;
    atomic_bool still; /* reads wait */
    atomic_size_t read;
    struct tg_model model;
} pkg;

static enum tg_rc slow_read(void *ctx, const char *name, void *p, size_t n, uint64_t off,
                            struct tg_err *e)
{
    (void)ctx;
    (void)name;
    (void)e;
    while (atomic_load(&pkg.still))
        (void)sched_yield();
    assert_true(off <= pkg.bytes.n && n <= pkg.bytes.n - off);
    memcpy(p, pkg.bytes.data + off, n);
    atomic_fetch_add(&pkg.read, n);
    return TG_OK;
}

static void small_chunks(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = CHUNK;
}

/* Four tensors t0 to t3, each of its own digit. */
static void write_weights(void)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(8 << 20);
    size_t n;

    assert_ok(tg_buf_append(&b, (const uint8_t[8]){0}, 8));
    for (unsigned i = 0; i < 4; i++)
        assert_ok(tg_buf_printf(&b,
                                "%c\"t%u\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":"
                                "[%zu,%zu]}",
                                i == 0 ? '{' : ',', i, TENSOR, i * TENSOR, (i + 1) * TENSOR));
    assert_ok(tg_buf_str(&b, "}"));
    n = b.n - 8;
    b.data[0] = (uint8_t)n;
    b.data[1] = (uint8_t)(n >> 8);
    for (unsigned i = 0; i < 4; i++)
        for (size_t k = 0; k < TENSOR; k += 64) {
            uint8_t line[64];

            memset(line, '0' + (int)i, sizeof(line));
            assert_ok(tg_buf_append(&b, line, sizeof(line)));
        }
    fx_write(fx, "in/w.safetensors", b.data, b.n);
}

static int setup(void **state)
{
    static uint8_t big[BIG];
    struct tg_src src = {.read = slow_read, .name = "package"};
    const struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_trust *trust;

    if (fx_setup(state) != 0)
        return -1;
    fx = *state;
    memset(big, 'B', sizeof(big));
    fx_mkdir(fx, "in");
    fx_write(fx, "in/big.bin", big, sizeof(big));
    fx_write(fx, "in/small.bin", "small", 5);
    write_weights();
    pkg.bytes = fx_build(fx, "in", small_chunks);
    src.size = pkg.bytes.n;
    trust = fx_trust(fx->author);
    assert_ok(tg_tgsp_open(&src, &pkg.model.package, &err));
    assert_ok(tg_tgsp_verify(pkg.model.package, trust, &err));
    assert_ok(tg_tgsp_admit(pkg.model.package, &policy, &err));
    assert_ok(tg_tgsp_unwrap(pkg.model.package, fx->device, &err));
    tg_trust_free(trust);
    return 0;
}

static int teardown(void **state)
{
    tg_tgsp_free(pkg.model.package);
    tg_buf_done(&pkg.bytes);
    return fx_teardown(state);
}

/* ---- the agent's ear, and who asks ---- */

static struct {
    unsigned n;
    uint64_t size;
    bool deaf;
} told;

static enum tg_rc tell(void *arg, const struct tg_handover_note *note, struct tg_err *e)
{
    (void)arg;
    if (told.deaf)
        return TG_FAIL(e, TG_E_CLOSED, "the agent is gone");
    told.n++;
    told.size = note->size;
    return TG_OK;
}

static int notify = -1;
static union tg_native_msg out;
static int clients[12]; /* their addresses say who they are */

static struct tg_handover *start(bool beside)
{
    struct tg_handover_opts o = {
        .users = {1}, .n_users = 1, .tell = tell, .beside = beside, .notify = notify};
    struct tg_handover *h = NULL;

    memset(&told, 0, sizeof(told));
    atomic_store(&pkg.still, false);
    assert_ok(tg_handover_new(&o, &h, &err));
    tg_handover_model(h, &pkg.model);
    return h;
}

static enum tg_rc ask(struct tg_handover *h, int *who, const char *path, const char *tensor,
                      int *fd)
{
    static struct tg_native_take what;
    const struct tg_handover_ask a = {1, who, &what};

    memset(&what, 0, sizeof(what));
    tg_native_text(what.path, sizeof(what.path), path);
    tg_native_text(what.tensor, sizeof(what.tensor), tensor);
    *fd = -1;
    return tg_handover_take(h, &a, &out, fd, &err);
}

static void next(struct tg_handover *h, struct tg_handover_reply *r)
{
    while (!tg_handover_next(h, &out, r)) {
        struct pollfd p = {.fd = notify, .events = POLLIN};
        uint64_t times;

        assert_int_equal(poll(&p, 1, 60000), 1);
        assert_int_equal(read(notify, &times, sizeof(times)), (int)sizeof(times));
    }
}

static uint8_t first_byte(int fd)
{
    uint8_t b = 0;

    assert_int_equal(pread(fd, &b, 1, 0), 1);
    return b;
}

/* ---- what is read ---- */

static void of_a_tensor_its_own_chunks_are_read(void **state)
{
    struct tg_handover *h = start(false);
    size_t before = atomic_load(&pkg.read);
    int fd;

    (void)state;
    assert_ok(ask(h, &clients[0], "w.safetensors", "t2", &fd));
    assert_int_equal(first_byte(fd), '2');
    assert_int_equal(out.taken.size, TENSOR);
    /* its 8 chunks, one that it shares, and at most two chunks of the header's */
    assert_true(atomic_load(&pkg.read) - before < 12 * (CHUNK + 16));
    before = atomic_load(&pkg.read);
    assert_ok(ask(h, &clients[0], "w.safetensors", "t2", &fd)); /* once made */
    assert_int_equal(atomic_load(&pkg.read), before);
    assert_int_equal(told.n, 2);
    assert_rc(ask(h, &clients[0], "big.bin", "t2", &fd), TG_E_FORMAT);
    assert_true(atomic_load(&pkg.read) - before < 4 * (CHUNK + 16));
    tg_handover_free(h);
}

static void what_nobody_is_told_of_is_not_kept(void **state)
{
    struct tg_handover *h = start(false);
    int fd;

    (void)state;
    told.deaf = true;
    assert_rc(ask(h, &clients[0], "small.bin", "", &fd), TG_E_CLOSED);
    assert_int_equal(tg_handover_facts(h).held_bytes, 0);
    assert_int_equal(tg_handover_facts(h).handed, 0);
    tg_handover_free(h);
}

/* ---- beside ---- */

static void copies_are_made_beside_in_their_order(void **state)
{
    struct tg_handover *h = start(true);
    struct tg_handover_reply r;
    int fd;

    (void)state;
    atomic_store(&pkg.still, true);
    for (unsigned i = 0; i < TG_HANDOVER_ASKS_MAX; i++) { /* and each is asked for twice */
        assert_ok(ask(h, &clients[i], i % 4 < 2 ? "big.bin" : "small.bin", "", &fd));
        assert_int_equal(fd, -1);
    }
    assert_rc(ask(h, &clients[8], "w.safetensors", "t0", &fd), TG_E_AGAIN);
    assert_false(tg_handover_next(h, &out, &r));
    assert_int_equal(told.n, 0);
    atomic_store(&pkg.still, false);
    for (unsigned i = 0; i < TG_HANDOVER_ASKS_MAX; i++) {
        next(h, &r);
        assert_ptr_equal(r.who, &clients[i]);
        assert_int_equal(r.rc, TG_OK);
        assert_int_equal(first_byte(r.fd), i % 4 < 2 ? 'B' : 's');
        assert_int_equal(told.n, i + 1);
    }
    assert_int_equal(tg_handover_facts(h).held_bytes, BIG + 5);
    tg_handover_free(h);
}

static void who_is_gone_gets_nothing(void **state)
{
    struct tg_handover *h = start(true);
    struct tg_handover_reply r;
    size_t before;
    int fd;

    (void)state;
    before = atomic_load(&pkg.read);
    atomic_store(&pkg.still, true);
    assert_ok(ask(h, &clients[0], "big.bin", "", &fd));
    assert_ok(ask(h, &clients[1], "w.safetensors", "t1", &fd));
    assert_ok(ask(h, &clients[2], "small.bin", "", &fd));
    while (tg_handover_facts(h).held_bytes != BIG) /* it is counted while it is made */
        (void)sched_yield();
    tg_handover_cancel(h, &clients[1]);
    tg_handover_cancel(h, &clients[0]);
    tg_handover_cancel(h, &clients[7]); /* asked nothing */
    atomic_store(&pkg.still, false);
    next(h, &r);
    assert_ptr_equal(r.who, &clients[2]);
    assert_int_equal(r.rc, TG_OK);
    assert_int_equal(told.n, 1);
    assert_int_equal(told.size, 5);
    assert_int_equal(tg_handover_facts(h).held_bytes, 5);
    assert_true(atomic_load(&pkg.read) - before <= BIG + 66 * 16 + 2 * CHUNK);
    tg_handover_free(h);
}

static void an_error_is_the_asker_s_alone(void **state)
{
    struct tg_handover *h = start(true);
    struct tg_handover_reply r;
    int fd;

    (void)state;
    assert_ok(ask(h, &clients[0], "w.safetensors", "t9", &fd));
    assert_ok(ask(h, &clients[1], "w.safetensors", "t3", &fd));
    next(h, &r);
    assert_int_equal(r.rc, TG_E_NOTFOUND);
    assert_contains(r.err.msg, "no tensor 't9'");
    next(h, &r);
    assert_int_equal(r.rc, TG_OK);
    assert_int_equal(first_byte(r.fd), '3');
    tg_handover_free(h);
}

static void it_may_end_at_any_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct tg_handover *h = start(true);
        int fd;

        assert_ok(ask(h, &clients[0], "big.bin", "", &fd));
        assert_ok(ask(h, &clients[1], "small.bin", "", &fd));
        (void)usleep(i * 100);
        if (i % 3 == 0)
            tg_handover_cancel(h, &clients[0]);
        tg_handover_free(h);
        assert_int_equal(told.n, 0);
    }
}

/* ---- faults ---- */

static void every_allocation_may_fail(void **state)
{
    enum tg_rc rc = TG_E_NOMEM;

    (void)state;
    for (uint64_t nth = 1; rc != TG_OK; nth++) {
        struct tg_handover *h = start(false);
        int fd;

        assert_true(nth < 1000);
        tg_mem_fault_set(nth, 0);
        rc = ask(h, &clients[0], "w.safetensors", "t1", &fd);
        tg_mem_fault_set(0, 0);
        if (rc != TG_OK && rc != TG_E_NOMEM)
            fail_msg("allocation %u: %s: %s", (unsigned)nth, tg_rc_name(rc), err.msg);
        assert_int_equal(tg_handover_facts(h).held_bytes, rc == TG_OK ? TENSOR : 0);
        tg_handover_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_tensor_its_own_chunks_are_read),
        cmocka_unit_test(what_nobody_is_told_of_is_not_kept),
        cmocka_unit_test(copies_are_made_beside_in_their_order),
        cmocka_unit_test(who_is_gone_gets_nothing),
        cmocka_unit_test(an_error_is_the_asker_s_alone),
        cmocka_unit_test(it_may_end_at_any_time),
        cmocka_unit_test(every_allocation_may_fail),
    };

    notify = eventfd(0, EFD_CLOEXEC);
    return cmocka_run_group_tests(tests, setup, teardown);
}
