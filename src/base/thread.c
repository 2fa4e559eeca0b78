#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/mem.h"

unsigned tg_thread_cpus(void)
{
    cpu_set_t set;
    int n = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}

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
    pthread_t thread;
};

static void *work(void *arg)
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
    return NULL;
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
        if (pthread_create(&seats[started].thread, NULL, work, &seats[started]) != 0)
            break;
    }
    seats[0] = (struct seat){.run = &run, .worker = 0};
    (void)work(&seats[0]);
    for (unsigned i = 1; i < started; i++)
        (void)pthread_join(seats[i].thread, NULL);
    pthread_mutex_destroy(&run.lock);
    return run.rc;
}
