#include "moai/maker.h"

#include <pthread.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"

enum state { IDLE, ASKED, MADE };

struct tg_maker {
    struct tg_thread *thread;
    int notify;
    struct tg_copy_watch watch;
    pthread_mutex_t lock; /* of what follows; the job itself is the thread's while ASKED */
    pthread_cond_t changed;
    bool quit;
    enum state state;
    const struct tg_model *model;
    struct tg_native_take in;
    enum tg_rc rc;
    struct tg_copy copy;
    struct tg_err err;
};

static bool wait_for_job(struct tg_maker *m)
{
    bool go;

    (void)pthread_mutex_lock(&m->lock);
    while (m->state != ASKED && !m->quit)
        (void)pthread_cond_wait(&m->changed, &m->lock);
    go = !m->quit;
    (void)pthread_mutex_unlock(&m->lock);
    return go;
}

static void tell_loop(struct tg_maker *m)
{
    const uint64_t one = 1;
    ssize_t n;

    (void)pthread_mutex_lock(&m->lock);
    m->state = MADE;
    (void)pthread_mutex_unlock(&m->lock);
    n = write(m->notify, &one, sizeof(one));
    (void)n; /* full: then it is told already */
}

static void thread_main(void *arg)
{
    struct tg_maker *m = arg;

    while (wait_for_job(m)) {
        m->err = (struct tg_err)TG_ERR_INIT;
        m->rc = tg_copy_make(m->model, &m->in, &m->watch, &m->copy, &m->err);
        tell_loop(m);
    }
}

enum tg_rc tg_maker_new(int notify, struct tg_maker **out, struct tg_err *err)
{
    TG_AUTO(tg_maker_freep) struct tg_maker *m = tg_calloc(1, sizeof(*m));

    if (m == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    m->notify = notify;
    (void)pthread_mutex_init(&m->lock, NULL); /* neither can fail with default attributes */
    (void)pthread_cond_init(&m->changed, NULL);
    TG_TRY(tg_thread_start(thread_main, m, TG_THREAD_STACK, &m->thread, err));
    *out = tg_steal(&m);
    return TG_OK;
}

void tg_maker_free(struct tg_maker *m)
{
    if (m == NULL)
        return;
    (void)pthread_mutex_lock(&m->lock);
    m->quit = true;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
    tg_maker_stop(m);
    tg_thread_join(m->thread);
    if (m->state == MADE && m->rc == TG_OK)
        tg_copy_done(&m->copy);
    (void)pthread_cond_destroy(&m->changed);
    (void)pthread_mutex_destroy(&m->lock);
    tg_free(m);
}

void tg_maker_begin(struct tg_maker *m, const struct tg_model *model,
                    const struct tg_native_take *in)
{
    (void)pthread_mutex_lock(&m->lock);
    m->model = model;
    m->in = *in;
    atomic_store(&m->watch.stop, false);
    m->state = ASKED;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}

void tg_maker_stop(struct tg_maker *m)
{
    atomic_store(&m->watch.stop, true);
}

bool tg_maker_result(struct tg_maker *m, enum tg_rc *rc, struct tg_copy *out, struct tg_err *err)
{
    bool made;

    (void)pthread_mutex_lock(&m->lock);
    made = m->state == MADE;
    if (made)
        m->state = IDLE;
    (void)pthread_mutex_unlock(&m->lock);
    if (!made)
        return false;
    *rc = m->rc;
    *err = m->err;
    if (m->rc == TG_OK)
        *out = m->copy;
    atomic_store(&m->watch.size, 0); /* whoever takes it counts it */
    return true;
}

size_t tg_maker_size(const struct tg_maker *m)
{
    return m == NULL ? 0 : atomic_load(&m->watch.size);
}
