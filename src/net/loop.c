#include "net/loop.h"

#include <event2/event.h>
#include <sys/queue.h>

#include "base/mem.h"
#include "net/loop_internal.h"

struct tg_loop_item {
    struct event *ev;
    struct tg_loop *loop;
    tg_loop_fn *fn;
    void *arg;
    struct timeval period; /* of a repeating timer: to go on with it after a re-arm */
    bool repeats;
    LIST_ENTRY(tg_loop_item) link;
};

struct tg_loop {
    struct event_base *base;
    LIST_HEAD(, tg_loop_item) items;
};

TG_RC tg_loop_new(struct tg_loop **out, struct tg_err *err)
{
    struct tg_loop *loop = tg_calloc(1, sizeof(*loop));
    struct event_config *cfg;

    if (loop == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    LIST_INIT(&loop->items);
    cfg = event_config_new();
    if (cfg != NULL) {
        /* No locks: a loop belongs to one thread. The environment (EVENT_NOEPOLL …) has no say. */
        event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        loop->base = event_base_new_with_config(cfg);
        event_config_free(cfg);
    }
    if (loop->base == NULL) {
        tg_free(loop);
        return TG_FAIL_ERRNO(err, TG_E_IO, "event loop: cannot be made");
    }
    *out = loop;
    return TG_OK;
}

void tg_loop_free(struct tg_loop *loop)
{
    struct tg_loop_item *item;

    if (loop == NULL)
        return;
    while ((item = LIST_FIRST(&loop->items)) != NULL)
        tg_loop_item_free(item);
    event_base_free(loop->base);
    tg_free(loop);
}

struct event_base *tg_loop_base(struct tg_loop *loop)
{
    return loop->base;
}

TG_RC tg_loop_run(struct tg_loop *loop, struct tg_err *err)
{
    if (event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "event loop: waiting failed");
    return TG_OK;
}

static void wake(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

TG_RC tg_loop_turn(struct tg_loop *loop, uint32_t wait_ms, struct tg_err *err)
{
    struct timeval tv = {(time_t)(wait_ms / 1000), (suseconds_t)(wait_ms % 1000) * 1000};
    int flags = EVLOOP_NONBLOCK;
    struct event *ev = NULL;
    int rc;

    if (wait_ms > 0) {
        ev = evtimer_new(loop->base, wake, NULL);
        if (ev == NULL || evtimer_add(ev, &tv) != 0) {
            if (ev != NULL)
                event_free(ev);
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        }
        flags = EVLOOP_ONCE;
    }
    rc = event_base_loop(loop->base, flags);
    if (ev != NULL)
        event_free(ev);
    return rc >= 0 ? TG_OK : TG_FAIL_ERRNO(err, TG_E_IO, "event loop: waiting failed");
}

void tg_loop_stop(struct tg_loop *loop)
{
    event_base_loopexit(loop->base, NULL);
}

/* fn may free the item: nothing of it is touched after the call. */
static void fire(evutil_socket_t fd, short what, void *arg)
{
    struct tg_loop_item *item = arg;

    (void)fd;
    (void)what;
    if (item->repeats)
        (void)event_add(item->ev, &item->period);
    item->fn(item->arg);
}

struct spec {
    int fd; /* descriptor, signal number, or -1 */
    short what;
    bool repeats;
    uint32_t ms;
};

static struct timeval millis(uint32_t ms)
{
    return (struct timeval){(time_t)(ms / 1000), (suseconds_t)(ms % 1000) * 1000};
}

static TG_RC item_add(struct tg_loop *loop, const struct spec *spec, tg_loop_fn *fn, void *arg,
                      struct tg_loop_item **out)
{
    struct tg_loop_item *item = tg_calloc(1, sizeof(*item));
    bool timer = spec->what == EV_TIMEOUT;

    if (item == NULL)
        return TG_E_NOMEM;
    item->loop = loop;
    item->fn = fn;
    item->arg = arg;
    item->repeats = spec->repeats;
    item->period = millis(spec->ms);
    item->ev = event_new(loop->base, spec->fd, timer ? 0 : spec->what, fire, item);
    if (item->ev == NULL || event_add(item->ev, timer ? &item->period : NULL) != 0) {
        if (item->ev != NULL)
            event_free(item->ev);
        tg_free(item);
        return TG_E_NOMEM;
    }
    LIST_INSERT_HEAD(&loop->items, item, link);
    if (out != NULL)
        *out = item;
    return TG_OK;
}

TG_RC tg_loop_every(struct tg_loop *loop, uint32_t ms, tg_loop_fn *fn, void *arg,
                    struct tg_loop_item **out)
{
    struct spec spec = {.fd = -1, .what = EV_TIMEOUT, .repeats = true, .ms = ms > 0 ? ms : 1};

    return item_add(loop, &spec, fn, arg, out);
}

TG_RC tg_loop_after(struct tg_loop *loop, uint32_t ms, tg_loop_fn *fn, void *arg,
                    struct tg_loop_item **out)
{
    struct spec spec = {.fd = -1, .what = EV_TIMEOUT, .ms = ms};

    return item_add(loop, &spec, fn, arg, out);
}

TG_RC tg_loop_rearm(struct tg_loop_item *timer, uint32_t ms)
{
    struct timeval tv = millis(ms);

    return event_add(timer->ev, &tv) == 0 ? TG_OK : TG_E_NOMEM;
}

TG_RC tg_loop_fd(struct tg_loop *loop, int fd, unsigned events, tg_loop_fn *fn, void *arg,
                 struct tg_loop_item **out)
{
    struct spec spec = {.fd = fd, .what = EV_PERSIST};

    if (events & TG_LOOP_READ)
        spec.what = (short)(spec.what | EV_READ);
    if (events & TG_LOOP_WRITE)
        spec.what = (short)(spec.what | EV_WRITE);
    return item_add(loop, &spec, fn, arg, out);
}

TG_RC tg_loop_signal(struct tg_loop *loop, int signo, tg_loop_fn *fn, void *arg,
                     struct tg_loop_item **out)
{
    struct spec spec = {.fd = signo, .what = EV_SIGNAL | EV_PERSIST};

    return item_add(loop, &spec, fn, arg, out);
}

void tg_loop_item_free(struct tg_loop_item *item)
{
    if (item == NULL)
        return;
    LIST_REMOVE(item, link);
    event_free(item->ev);
    tg_free(item);
}
