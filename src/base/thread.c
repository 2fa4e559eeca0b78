#include "base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/region.h"

unsigned tg_thread_cpus(void)
{
    cpu_set_t set;
    int n = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}

/* ---- one thread ---- */

/* Below a stack: more than a page, so that a frame with a large local hits it too. */
#define GUARD TG_REGION_UNIT

struct tg_thread {
    pthread_t id;
    void (*fn)(void *arg);
    void *arg;
    uint8_t *stack; /* guard and stack; NULL: the C library's */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end;
};

static void *begin(void *p)
{
    struct tg_thread *t = p;

    t->fn(t->arg);
    pthread_mutex_lock(&t->lock);
    t->end = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void stack_free(uint8_t *stack)
{
    if (stack != NULL && mprotect(stack, GUARD, PROT_READ | PROT_WRITE) == 0)
        tg_region_give(stack);
}

static enum tg_rc create(struct tg_thread *t, size_t stack, struct tg_err *err)
{
    pthread_attr_t attr;
    int e = pthread_attr_init(&attr);

    if (e != 0)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (tg_region_is_open()) {
        t->stack = tg_region_take(stack + GUARD, TG_REGION_UNIT);
        if (t->stack == NULL) {
            (void)pthread_attr_destroy(&attr);
            return tg_region_why(stack, err);
        }
        if (mprotect(t->stack, GUARD, PROT_NONE) != 0)
            e = ENOMEM;
        else
            e = pthread_attr_setstack(&attr, t->stack + GUARD, stack);
    } else {
        e = pthread_attr_setstacksize(&attr, stack);
    }
    if (e == 0)
        e = pthread_create(&t->id, &attr, begin, t);
    (void)pthread_attr_destroy(&attr);
    if (e == 0)
        return TG_OK;
    tg_err_errno(err, TG_E_NOMEM, e, "can't start a thread");
    return TG_E_NOMEM;
}

enum tg_rc tg_thread_start(void (*fn)(void *arg), void *arg, size_t stack, struct tg_thread **out,
                           struct tg_err *err)
{
    struct tg_thread *t = tg_calloc(1, sizeof(*t));
    enum tg_rc rc;

    if (t == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    t->fn = fn;
    t->arg = arg;
    (void)pthread_mutex_init(&t->lock, NULL); /* can't fail with these attributes */
    (void)pthread_cond_init(&t->ended, NULL);
    rc = create(t, stack, err);
    if (rc != TG_OK) {
        stack_free(t->stack);
        tg_free(t);
        return rc;
    }
    *out = t;
    return TG_OK;
}

/* pthread_join sleeps on a futex that processes could share; in memory of memfd_secret there is no
 * such thing. So we sleep on a private one until the thread is as good as gone, and then ask. */
void tg_thread_join(struct tg_thread *t)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->lock);
    while (!t->end)
        pthread_cond_wait(&t->ended, &t->lock);
    pthread_mutex_unlock(&t->lock);
    if (t->stack == NULL)
        (void)pthread_join(t->id, NULL);
    else
        while (pthread_tryjoin_np(t->id, NULL) == EBUSY)
            (void)sched_yield();
    stack_free(t->stack);
    (void)pthread_cond_destroy(&t->ended);
    (void)pthread_mutex_destroy(&t->lock);
    tg_free(t);
}

/* ---- many ---- */

struct run {
    tg_work_fn *fn;
    void *ctx;
    uint64_t n;
    _Atomic uint64_t next;
    _Atomic bool stop;
    pthread_mutex_t lock; /* guards what follows */
    uint64_t failed_at;
    enum tg_rc rc;
    struct tg_err *err;
};

struct seat {
    struct run *run;
    unsigned worker;
    struct tg_thread *thread;
};

static void work(void *arg)
{
    struct seat *seat = arg;
    struct run *run = seat->run;

    while (!atomic_load(&run->stop)) {
        uint64_t i = atomic_fetch_add(&run->next, 1);
        struct tg_err err = TG_ERR_INIT;
        enum tg_rc rc;

        if (i >= run->n)
            break;
        rc = run->fn(run->ctx, i, seat->worker, &err);
        if (rc == TG_OK)
            continue;
        /* Items are handed out in order, so every lower item is done or running: the lowest
         * failure wins once all have stopped. */
        pthread_mutex_lock(&run->lock);
        if (run->rc == TG_OK || i < run->failed_at) {
            run->failed_at = i;
            run->rc = rc;
            if (run->err != NULL)
                *run->err = err;
        }
        pthread_mutex_unlock(&run->lock);
        atomic_store(&run->stop, true);
    }
}

enum tg_rc tg_thread_run(unsigned threads, uint64_t n, tg_work_fn *fn, void *ctx,
                         struct tg_err *err)
{
    struct run run = {.fn = fn, .ctx = ctx, .n = n, .lock = PTHREAD_MUTEX_INITIALIZER, .err = err};
    TG_AUTO(tg_freep) struct seat *seats = NULL;
    unsigned started = 1;

    if (threads == 0)
        threads = 1;
    if (threads > n)
        threads = n > 0 ? (unsigned)n : 1;
    seats = tg_calloc(threads, sizeof(*seats));
    if (seats == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (; started < threads; started++) {
        seats[started] = (struct seat){.run = &run, .worker = started};
        /* Fewer threads than asked is slower, not wrong. */
        if (tg_thread_start(work, &seats[started], TG_THREAD_STACK, &seats[started].thread, NULL) !=
            TG_OK)
            break;
    }
    seats[0] = (struct seat){.run = &run, .worker = 0};
    work(&seats[0]);
    for (unsigned i = 1; i < started; i++)
        tg_thread_join(seats[i].thread);
    pthread_mutex_destroy(&run.lock);
    return run.rc;
}
