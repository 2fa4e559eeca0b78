#include "moai/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/thread.h"
#include "native/bell.h"

#define STACK ((size_t)512 << 10)
#define SLEEP_NS UINT64_C(1000000000) /* a bell that a client tampered with is looked at again */
#define SPIN_TURNS 64                 /* between two looks at the clock */

/* Belongs to the thread that serves it and to the loop's thread; the last of the two frees it. */
struct tg_ring {
    struct tg_rings *pool;
    struct tg_native_layout layout;
    uint8_t *map;
    struct tg_native_shared *shared; /* the start of map */
    struct tg_runner *runner;
    uint32_t completed; /* ours; the shared one is only told */
    atomic_bool stop, broken;
    atomic_int holders;
};

struct seat {
    struct tg_rings *pool;
    struct tg_thread *thread;
    struct tg_ring *ring; /* to serve; NULL: free */
};

struct tg_rings {
    pthread_mutex_t lock; /* of seats and quit */
    pthread_cond_t changed;
    struct seat seats[TG_RINGS_MAX];
    size_t n; /* threads made */
    bool quit;
    uint64_t spin_ns;
    int notify;
    atomic_uint_fast64_t good, bad;
};

static void ring_drop(struct tg_ring *r)
{
    if (r == NULL || atomic_fetch_sub(&r->holders, 1) > 1)
        return;
    tg_runner_free(r->runner);
    if (r->map != NULL)
        (void)munmap(r->map, (size_t)r->layout.map_size);
    tg_free(r);
}

TG_DEFINE_AUTO(struct tg_ring, ring_dropp, ring_drop);

/* ---- serving, in a thread of the pool ---- */

static void answer(struct tg_ring *r, uint8_t *slot, enum tg_rc rc, const char *reason)
{
    struct tg_native_answer a = {.code = (uint32_t)rc};

    if (rc != TG_OK)
        tg_native_text(a.reason, sizeof(a.reason), reason);
    memcpy(slot + r->layout.answer, &a,
           rc == TG_OK ? offsetof(struct tg_native_answer, reason) : sizeof(a));
    r->completed++;
    /* before the client hears of it: who looks at the counters then finds its call there */
    (void)atomic_fetch_add_explicit(rc == TG_OK ? &r->pool->good : &r->pool->bad, 1,
                                    memory_order_relaxed);
    atomic_store(&r->shared->completed, r->completed);
    if (atomic_load(&r->shared->client_waits) != 0)
        tg_bell_ring(&r->shared->client_bell);
}

static void serve_one(struct tg_ring *r)
{
    uint8_t *slot = r->map + tg_native_slot(&r->layout, r->completed);
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = tg_runner_call(r->runner, slot, &err);

    if (!atomic_load(&r->stop))
        answer(r, slot, rc, err.msg);
}

/* More calls than slots: not our library, or a broken one. */
static bool sane(struct tg_ring *r, uint32_t submitted)
{
    if (submitted - r->completed <= r->layout.slots)
        return true;
    atomic_store(&r->broken, true);
    return false;
}

static void sleep_for_call(struct tg_ring *r)
{
    struct tg_native_shared *sh = r->shared;
    uint32_t seen;

    atomic_store(&sh->worker_waits, 1);
    seen = atomic_load(&sh->worker_bell);
    if (atomic_load(&sh->submitted) == r->completed && !atomic_load(&r->stop))
        tg_bell_sleep(&sh->worker_bell, seen, SLEEP_NS);
    atomic_store(&sh->worker_waits, 0);
}

/* Until there is a call. false: the end. */
static bool wait_for_call(struct tg_ring *r)
{
    uint64_t spin_ns = r->pool->spin_ns, until = spin_ns > 0 ? tg_clock_mono_ns() + spin_ns : 0;
    bool spin = spin_ns > 0;

    while (!atomic_load(&r->stop)) {
        uint32_t submitted = atomic_load(&r->shared->submitted);

        if (submitted != r->completed)
            return sane(r, submitted);
        for (int i = 0; spin && i < SPIN_TURNS; i++) {
            if (atomic_load_explicit(&r->shared->submitted, memory_order_acquire) != submitted)
                break;
            tg_spin_pause();
        }
        if (spin)
            spin = tg_clock_mono_ns() < until;
        else
            sleep_for_call(r);
    }
    return false;
}

static void tell_loop(const struct tg_rings *p)
{
    const uint64_t one = 1;
    ssize_t n = write(p->notify, &one, sizeof(one));

    (void)n; /* full: then it is told already */
}

static struct tg_ring *next_ring(struct seat *s)
{
    struct tg_rings *p = s->pool;
    struct tg_ring *r;

    (void)pthread_mutex_lock(&p->lock);
    while (s->ring == NULL && !p->quit)
        (void)pthread_cond_wait(&p->changed, &p->lock);
    r = s->ring;
    (void)pthread_mutex_unlock(&p->lock);
    return r;
}

static void thread_main(void *arg)
{
    struct seat *s = arg;
    struct tg_rings *p = s->pool;
    struct tg_ring *r;

    while ((r = next_ring(s)) != NULL) {
        while (wait_for_call(r))
            serve_one(r);
        (void)pthread_mutex_lock(&p->lock);
        s->ring = NULL; /* before it is dropped: who holds the lock may touch what a seat names */
        (void)pthread_mutex_unlock(&p->lock);
        ring_drop(r);
        tell_loop(p);
    }
}

/* ---- the pool ---- */

static enum tg_rc start_threads(struct tg_rings *p, struct tg_err *err)
{
    for (; p->n < TG_RINGS_MAX; p->n++) {
        struct seat *s = &p->seats[p->n];

        s->pool = p;
        TG_TRY(tg_thread_start(thread_main, s, STACK, &s->thread, err));
    }
    return TG_OK;
}

enum tg_rc tg_rings_new(uint64_t spin_ns, int notify, struct tg_rings **out, struct tg_err *err)
{
    TG_AUTO(tg_rings_freep) struct tg_rings *p = tg_calloc(1, sizeof(*p));

    if (p == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    (void)pthread_mutex_init(&p->lock, NULL); /* neither can fail with default attributes */
    (void)pthread_cond_init(&p->changed, NULL);
    p->spin_ns = spin_ns;
    p->notify = notify;
    TG_TRY(start_threads(p, err));
    *out = tg_steal(&p);
    return TG_OK;
}

static void end_ring(struct tg_ring *r)
{
    atomic_store(&r->stop, true);
    tg_runner_cancel(r->runner);
    tg_bell_ring(&r->shared->worker_bell);
}

void tg_rings_free(struct tg_rings *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->quit = true;
    for (size_t i = 0; i < p->n; i++)
        if (p->seats[i].ring != NULL)
            end_ring(p->seats[i].ring);
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->n; i++)
        tg_thread_join(p->seats[i].thread);
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->lock);
    tg_free(p);
}

void tg_rings_counts(const struct tg_rings *p, uint64_t *good, uint64_t *bad)
{
    *good = atomic_load_explicit(&p->good, memory_order_relaxed);
    *bad = atomic_load_explicit(&p->bad, memory_order_relaxed);
}

/* ---- one ring, seen from the loop ---- */

static enum tg_rc make_map(struct tg_ring *r, int *memfd, struct tg_err *err)
{
    size_t n = (size_t)r->layout.map_size;
    TG_AUTO(tg_fd_closep)
    int fd = memfd_create("tensorguard-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make shared memory");
    if (ftruncate(fd, (off_t)n) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make %zu bytes of shared memory", n);
    r->map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (r->map == MAP_FAILED) {
        r->map = NULL;
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't map %zu bytes of shared memory", n);
    }
    r->shared = (struct tg_native_shared *)(void *)r->map;
    *memfd = fd;
    fd = -1;
    return TG_OK;
}

static enum tg_rc take_seat(struct tg_rings *p, struct tg_ring *r, struct tg_err *err)
{
    enum tg_rc rc = TG_E_LIMIT;

    (void)pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->n && rc != TG_OK; i++) {
        if (p->seats[i].ring != NULL)
            continue;
        p->seats[i].ring = r;
        rc = TG_OK;
    }
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
    return rc == TG_OK
               ? rc
               : TG_FAIL(err, rc, "%d programs use the model through shared memory: no more",
                         TG_RINGS_MAX);
}

enum tg_rc tg_ring_start(struct tg_rings *p, const struct tg_ring_opts *o, struct tg_ring **out,
                         int *memfd, struct tg_err *err)
{
    TG_AUTO(ring_dropp) struct tg_ring *r = tg_calloc(1, sizeof(*r));
    TG_AUTO(tg_fd_closep) int fd = -1;

    if (r == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    r->pool = p;
    r->layout = *o->layout;
    atomic_init(&r->holders, 1);
    TG_TRY(make_map(r, &fd, err));
    TG_TRY(tg_runner_new(o->session, o->ports, o->layout, &r->runner, err));
    atomic_store(&r->holders, 2);
    if (take_seat(p, r, err) != TG_OK) {
        atomic_store(&r->holders, 1);
        return TG_E_LIMIT;
    }
    *out = tg_steal(&r);
    *memfd = fd;
    fd = -1;
    return TG_OK;
}

void tg_ring_leave(struct tg_ring *r)
{
    atomic_store(&r->shared->leaving, 1);
}

bool tg_ring_broken(const struct tg_ring *r)
{
    return atomic_load(&r->broken);
}

void tg_ring_stop(struct tg_ring *r)
{
    if (r == NULL)
        return;
    end_ring(r);
    ring_drop(r);
}
