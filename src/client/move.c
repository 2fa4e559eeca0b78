/* From a worker that leaves or is gone to the next one.
 *
 * A worker that drains says so in the shared memory and still answers for a while. The library then
 * takes one short step towards the next worker with each call that is begun, so that a control loop
 * never waits for it, and changes over when nothing is under way. Only where the old worker is
 * really gone does a call wait. */
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client_internal.h"

#define PAUSE_MS 2                       /* between two tries to reach a worker */
#define STEP_WAIT_NS UINT64_C(100000000) /* for one answer, where a call waits anyway */

static void forget_next(struct tg_model *m)
{
    tg_link_drop(m->next);
    m->next = NULL;
    m->move = TG_MOVE_NONE;
}

static enum tg_rc greet(struct tg_model *m, struct tg_err *err)
{
    TG_TRY(tg_link_open(m->path, &m->next, err));
    tg_native_begin(&m->msg, TG_NATIVE_HELLO);
    m->msg.hello.oldest = m->msg.hello.newest = TG_NATIVE_VERSION;
    TG_TRY(tg_link_send(m->next, &m->msg, err));
    m->move = TG_MOVE_GREETED;
    return TG_E_AGAIN;
}

/* The same inputs and outputs, so that what the program does still fits? */
static bool same_tensors(const struct tg_native_welcome *a, const struct tg_native_welcome *b)
{
    bool same = a->n_in == b->n_in && a->n_out == b->n_out && a->flags == b->flags;

    for (size_t i = 0; same && i < (size_t)a->n_in + a->n_out; i++)
        same = tg_native_port_eq(&a->ports[i], &b->ports[i]);
    return same;
}

static enum tg_rc hear_welcome(struct tg_model *m, uint64_t wait_ns, struct tg_err *err)
{
    struct tg_native_welcome *w = &m->msg.welcome;

    TG_TRY(tg_link_receive(m->next, TG_NATIVE_WELCOME, wait_ns, &m->msg, NULL, err));
    if (!same_tensors(w, &m->now))
        return TG_FAIL(err, TG_E_EXPIRED,
                       "'%s' %s has other inputs or outputs than the model before: connect anew",
                       w->model, w->model_version);
    /* Names of tensors stay where tg_tensor points to: only the facts change. */
    m->now.sequence = w->sequence;
    memcpy(m->now.h, w->h, sizeof(m->now.h));
    memcpy(m->now.model, w->model, sizeof(m->now.model));
    memcpy(m->now.model_version, w->model_version, sizeof(m->now.model_version));
    TG_TRY(tg_model_ask_ring(m, m->next, err));
    m->move = TG_MOVE_RING;
    return TG_E_AGAIN;
}

static enum tg_rc hear_ring(struct tg_model *m, uint64_t wait_ns, struct tg_err *err)
{
    int fd = -1;

    TG_TRY(tg_link_receive(m->next, TG_NATIVE_RING_MADE, wait_ns, &m->msg, &fd, err));
    return tg_link_map(m->next, &m->o, m->msg.made.map_size, fd, err);
}

/* One step. TG_OK: m->next can be used. TG_E_AGAIN: not yet. Anything else: begin again. */
static enum tg_rc step(struct tg_model *m, uint64_t wait_ns, struct tg_err *err)
{
    enum tg_rc rc = TG_E_INTERNAL;

    if (m->next != NULL && m->next->shared != NULL)
        return tg_link_alive(m->next) ? TG_OK : TG_FAIL(err, TG_E_CLOSED, "the worker is gone");
    switch (m->move) {
    case TG_MOVE_NONE:
        rc = greet(m, err);
        break;
    case TG_MOVE_GREETED:
        rc = hear_welcome(m, wait_ns, err);
        break;
    case TG_MOVE_RING:
        rc = hear_ring(m, wait_ns, err);
        break;
    }
    return rc;
}

/* ---- changing over ---- */

static bool idle(const struct tg_model *m, const struct tg_link *l)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(m->calls); i++) {
        const struct tg_call *c = &m->calls[i];

        if (c->link == l && !c->ended &&
            (c->state == TG_CALL_OPEN || c->state == TG_CALL_SUBMITTED) &&
            !(c->state == TG_CALL_SUBMITTED && tg_call_answered(c)))
            return false;
    }
    return true;
}

/* What is under way on a dead link goes to the new one, in its order: what was handed in is handed
 * in again (a prediction changes nothing, so it may be made twice), what is being written gets its
 * place. */
static void rescue(struct tg_model *m, struct tg_link *dead)
{
    for (uint32_t n = dead->begun - m->o.slots; n != dead->begun; n++)
        for (size_t i = 0; i < TG_ARRAY_LEN(m->calls); i++) {
            struct tg_call *c = &m->calls[i];
            bool handed_in = c->state == TG_CALL_SUBMITTED && !tg_call_answered(c);

            if (c->link != dead || c->number != n || c->ended ||
                (!handed_in && c->state != TG_CALL_OPEN))
                continue;
            tg_call_renumber(c);
            if (handed_in)
                tg_call_publish(c);
        }
}

static void change_over(struct tg_model *m)
{
    struct tg_link *old = m->link;

    m->link = m->next;
    m->next = NULL;
    m->move = TG_MOVE_NONE;
    if (old->dead)
        rescue(m, old);
    tg_link_drop(old);
}

/* The old worker still answers: never wait, never fail. */
static enum tg_rc move_softly(struct tg_model *m, struct tg_err *err)
{
    enum tg_rc rc = step(m, 0, err);

    if (rc == TG_OK && idle(m, m->link))
        change_over(m);
    else if (rc != TG_OK && rc != TG_E_AGAIN)
        forget_next(m);
    return rc == TG_E_EXPIRED ? rc : TG_OK;
}

static bool hopeless(enum tg_rc rc)
{
    return rc == TG_E_EXPIRED || rc == TG_E_NOMEM || rc == TG_E_LIMIT || rc == TG_E_UNSUPPORTED;
}

static enum tg_rc move_now(struct tg_model *m, struct tg_err *err)
{
    uint64_t until = tg_clock_mono_ns() + m->o.reconnect_ns;
    enum tg_rc rc;

    while ((rc = step(m, STEP_WAIT_NS, err)) != TG_OK) {
        if (rc != TG_E_AGAIN && rc != TG_E_TIMEOUT)
            forget_next(m);
        if (hopeless(rc))
            return rc;
        if (tg_clock_mono_ns() >= until) {
            forget_next(m);
            return TG_FAIL(err, TG_E_CLOSED, "%s: the worker is gone, and no other took over",
                           m->path);
        }
        if (rc != TG_E_AGAIN)
            tg_clock_sleep_ms(PAUSE_MS);
    }
    change_over(m);
    return TG_OK;
}

enum tg_rc tg_model_settle(struct tg_model *m, struct tg_err *err)
{
    struct tg_link *l = m->link;

    if (l->shared == NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "this package is not run here, or its inputs or outputs are strings");
    if (!l->dead && atomic_load_explicit(&l->shared->leaving, memory_order_relaxed) == 0)
        return TG_OK;
    if (tg_link_alive(l))
        return move_softly(m, err);
    return move_now(m, err);
}
