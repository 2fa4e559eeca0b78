/* Calls through shared memory. */
#include <string.h>

#include "base/clock.h"
#include "client/client_internal.h"
#include "native/bell.h"

#define LOOK_NS UINT64_C(10000000) /* a worker that died rings no bell: look at its socket */
#define SPIN_TURNS 64

/* ---- where things lie ---- */

static uint8_t *slot_of(const struct tg_link *l, uint32_t number)
{
    return l->map + tg_native_slot(&l->layout, number);
}

static struct tg_native_shape *shapes_of(const struct tg_link *l, uint32_t number)
{
    return (struct tg_native_shape *)(void *)(slot_of(l, number) + l->layout.shapes);
}

/* Where the owner of the call writes. */
static const struct tg_link *written(const struct tg_call *c, uint32_t *number)
{
    *number = c->source != NULL ? c->source_number : c->number;
    return c->source != NULL ? c->source : c->link;
}

bool tg_call_answered(const struct tg_call *c)
{
    uint32_t done = atomic_load_explicit(&c->link->shared->completed, memory_order_acquire);

    return (int32_t)(done - c->number - 1) >= 0;
}

/* ---- slots ---- */

static void release(struct tg_call *c)
{
    tg_link_drop(c->source);
    tg_link_drop(c->link);
    *c = (struct tg_call){.model = c->model};
}

/* Calls that were ended before their answer came: free where it has come since. */
static void sweep(struct tg_model *m)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(m->calls); i++) {
        struct tg_call *c = &m->calls[i];

        if (c->ended && (c->link->dead || (c->state == TG_CALL_SUBMITTED && tg_call_answered(c))))
            release(c);
    }
}

static struct tg_call *find(struct tg_model *m)
{
    struct tg_call *found = NULL;

    for (size_t i = 0; i < TG_ARRAY_LEN(m->calls); i++) {
        struct tg_call *c = &m->calls[i];

        if (c->state == TG_CALL_FREE)
            found = c;
        else if (c->link == m->link && c->number == m->link->begun - m->o.slots)
            return NULL; /* its slot is still in use */
    }
    return found;
}

static void declare_shapes(const struct tg_call *c)
{
    const struct tg_native_welcome *w = &c->model->now;
    struct tg_native_shape *shapes = shapes_of(c->link, c->number);

    for (uint32_t i = 0; i < w->n_in; i++) {
        shapes[i].n = w->ports[i].n_dims;
        shapes[i].zero = 0;
        for (uint32_t d = 0; d < w->ports[i].n_dims; d++)
            shapes[i].d[d] = w->ports[i].dims[d] < 0 ? 1 : w->ports[i].dims[d];
    }
}

enum tg_status tg_call_begin(struct tg_model *m, struct tg_call **out, struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_call *c;

    if (tg_model_settle(m, &err) != TG_OK)
        return tg_error_out(&err, error);
    c = find(m);
    if (c == NULL) {
        sweep(m);
        c = find(m);
    }
    if (c == NULL)
        return tg_error_say(error, TG_STATUS_AGAIN, "every slot is in use: end a call first");
    *c = (struct tg_call){
        .model = m, .link = m->link, .number = m->link->begun, .state = TG_CALL_OPEN};
    m->link->begun++;
    m->link->holders++;
    declare_shapes(c);
    *out = c;
    return TG_STATUS_OK;
}

void tg_call_renumber(struct tg_call *c)
{
    struct tg_link *to = c->model->link;

    if (c->source == NULL) { /* else its owner still writes to an even older one */
        c->source = c->link;
        c->source_number = c->number;
    } else {
        tg_link_drop(c->link);
    }
    c->link = to;
    c->number = to->begun++;
    to->holders++;
}

/* ---- what the owner writes ---- */

void *tg_call_input(struct tg_call *c, size_t i)
{
    uint32_t number;
    const struct tg_link *l = written(c, &number);

    return i < l->layout.n_in ? slot_of(l, number) + l->layout.data[i] : NULL;
}

enum tg_status tg_call_shape(struct tg_call *c, size_t i, const int64_t *dims, size_t n_dims,
                             struct tg_error *error)
{
    static const uint32_t elements[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8};
    const struct tg_native_welcome *w = &c->model->now;
    struct tg_native_shape shape = {.n = (uint32_t)n_dims};
    struct tg_err err = TG_ERR_INIT;
    uint64_t bytes;
    uint32_t number;
    const struct tg_link *l = written(c, &number);

    if (i >= w->n_in || n_dims > TG_NATIVE_DIMS_MAX || c->state != TG_CALL_OPEN)
        return tg_error_say(error, TG_STATUS_USAGE,
                            "no such input, too many dimensions, or the call is handed in");
    if (n_dims > 0)
        memcpy(shape.d, dims, n_dims * sizeof(dims[0]));
    if (tg_native_shape_check(&w->ports[i], &shape, elements[w->ports[i].dtype], l->layout.bytes[i],
                              &bytes, &err) != TG_OK)
        return tg_error_out(&err, error);
    shapes_of(l, number)[i] = shape;
    return TG_STATUS_OK;
}

/* ---- handing in ---- */

/* Both links were laid out from the same figures. */
static void copy_inputs(struct tg_call *c)
{
    const struct tg_native_layout *l = &c->link->layout;
    const uint8_t *from = slot_of(c->source, c->source_number);
    uint8_t *to = slot_of(c->link, c->number);

    memcpy(to + l->shapes, from + l->shapes, l->n_in * sizeof(struct tg_native_shape));
    for (uint32_t i = 0; i < l->n_in; i++)
        memcpy(to + l->data[i], from + l->data[i], (size_t)l->bytes[i]);
    tg_link_drop(c->source);
    c->source = NULL;
}

void tg_call_publish(struct tg_call *c)
{
    struct tg_link *l = c->link;

    if (c->source != NULL)
        copy_inputs(c);
    c->state = TG_CALL_SUBMITTED;
    l->submitted = c->number + 1;
    atomic_store(&l->shared->submitted, l->submitted);
    if (atomic_load(&l->shared->worker_waits) != 0)
        tg_bell_ring(&l->shared->worker_bell);
}

/* Calls that were begun before this one and ended without being handed in leave holes: they go in
 * with whatever they hold, and nobody waits for them. */
static bool fill_holes(const struct tg_call *c)
{
    while (c->link->submitted != c->number) {
        struct tg_call *hole = NULL;

        for (size_t i = 0; i < TG_ARRAY_LEN(c->model->calls) && hole == NULL; i++) {
            struct tg_call *o = &c->model->calls[i];

            if (o->link == c->link && o->number == c->link->submitted && o->ended)
                hole = o;
        }
        if (hole == NULL)
            return false;
        tg_call_publish(hole);
    }
    return true;
}

enum tg_status tg_call_submit(struct tg_call *c, struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;

    if (c->state != TG_CALL_OPEN)
        return tg_error_say(error, TG_STATUS_STATE, "the call was handed in before");
    if (c->link->dead && tg_model_settle(c->model, &err) != TG_OK)
        return tg_error_out(&err, error);
    if (!fill_holes(c))
        return tg_error_say(error, TG_STATUS_STATE,
                            "an earlier call was not handed in: calls go in the order in which "
                            "they were begun");
    tg_call_publish(c);
    return TG_STATUS_OK;
}

/* ---- waiting ---- */

static enum tg_status result(struct tg_call *c, struct tg_error *error)
{
    struct tg_native_answer a;
    struct tg_err err = TG_ERR_INIT;

    memcpy(&a, slot_of(c->link, c->number) + c->link->layout.answer, sizeof(a));
    c->state = a.code == TG_OK ? TG_CALL_DONE : TG_CALL_FAILED;
    if (a.code == TG_OK)
        return TG_STATUS_OK;
    a.reason[sizeof(a.reason) - 1] = 0;
    tg_err_set(&err, a.code < TG_RC_COUNT ? (enum tg_rc)a.code : TG_E_FORMAT, "%s", a.reason);
    return tg_error_out(&err, error);
}

static bool spin(const struct tg_call *c, uint64_t until)
{
    do {
        for (int i = 0; i < SPIN_TURNS; i++) {
            if (tg_call_answered(c))
                return true;
            tg_spin_pause();
        }
    } while (tg_clock_mono_ns() < until);
    return false;
}

static void sleep_for(const struct tg_call *c, uint64_t ns)
{
    struct tg_native_shared *sh = c->link->shared;
    uint32_t seen;

    atomic_store(&sh->client_waits, 1);
    seen = atomic_load(&sh->client_bell);
    atomic_thread_fence(memory_order_seq_cst); /* the flag before the look */
    if (!tg_call_answered(c))
        tg_bell_sleep(&sh->client_bell, seen, ns);
    atomic_store(&sh->client_waits, 0);
}

enum tg_status tg_call_wait(struct tg_call *c, uint64_t timeout_ns, struct tg_error *error)
{
    struct tg_err err = TG_ERR_INIT;
    uint64_t start, now, until;

    if (c->state == TG_CALL_DONE || c->state == TG_CALL_FAILED ||
        (c->state == TG_CALL_SUBMITTED && tg_call_answered(c)))
        return result(c, error);
    if (c->state != TG_CALL_SUBMITTED)
        return tg_error_say(error, TG_STATUS_STATE, "the call was not handed in");
    start = now = tg_clock_mono_ns();
    until = timeout_ns > UINT64_MAX - start ? UINT64_MAX : start + timeout_ns;
    if (c->model->o.spin_ns > 0 &&
        spin(c, start + (c->model->o.spin_ns < timeout_ns ? c->model->o.spin_ns : timeout_ns)))
        return result(c, error);
    while ((now = tg_clock_mono_ns()) < until) {
        sleep_for(c, until - now < LOOK_NS ? until - now : LOOK_NS);
        if (tg_call_answered(c))
            return result(c, error);
        /* Gone: the answer may still have come before that. Else it goes to the next worker. */
        if (!tg_link_alive(c->link) && !tg_call_answered(c) &&
            tg_model_settle(c->model, &err) != TG_OK)
            return tg_error_out(&err, error);
    }
    return tg_error_say(error, TG_STATUS_TIMEOUT, "no answer yet");
}

enum tg_status tg_call_run(struct tg_call *c, uint64_t timeout_ns, struct tg_error *error)
{
    enum tg_status s = tg_call_submit(c, error);

    return s == TG_STATUS_OK ? tg_call_wait(c, timeout_ns, error) : s;
}

/* ---- what the owner reads ---- */

size_t tg_call_output_shape(const struct tg_call *c, size_t i, int64_t dims[TG_TENSOR_DIMS_MAX])
{
    struct tg_native_shape shape;

    if (c->state != TG_CALL_DONE || i >= c->link->layout.n_out)
        return 0;
    memcpy(&shape,
           slot_of(c->link, c->number) + c->link->layout.answer + sizeof(struct tg_native_answer) +
               i * sizeof(shape),
           sizeof(shape));
    if (shape.n > TG_NATIVE_DIMS_MAX)
        return 0;
    memcpy(dims, shape.d, sizeof(shape.d));
    return shape.n;
}

const void *tg_call_output(const struct tg_call *c, size_t i, size_t *bytes)
{
    static const uint32_t elements[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8};
    const struct tg_native_layout *l;
    int64_t dims[TG_TENSOR_DIMS_MAX];
    uint64_t n;
    size_t n_dims;

    if (c->state != TG_CALL_DONE || i >= c->link->layout.n_out)
        return NULL;
    l = &c->link->layout;
    n = elements[c->model->now.ports[l->n_in + i].dtype];
    n_dims = tg_call_output_shape(c, i, dims);
    for (size_t d = 0; d < n_dims; d++)
        if (dims[d] < 0 || !tg_mul_u64(n, (uint64_t)dims[d], &n))
            return NULL;
    if (n > l->bytes[l->n_in + i])
        return NULL;
    if (bytes != NULL)
        *bytes = (size_t)n;
    return slot_of(c->link, c->number) + l->data[l->n_in + i];
}

void tg_call_end(struct tg_call *c)
{
    if (c == NULL || c->state == TG_CALL_FREE)
        return;
    c->ended = true;
    if (c->state == TG_CALL_OPEN && c->number == c->link->begun - 1) {
        c->link->begun--; /* nobody needs its place */
        release(c);
    } else if (c->state == TG_CALL_DONE || c->state == TG_CALL_FAILED ||
               (c->state == TG_CALL_SUBMITTED && (c->link->dead || tg_call_answered(c)))) {
        release(c);
    }
}
