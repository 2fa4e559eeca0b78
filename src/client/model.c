/* The first connection, and what is known of the model. */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "client/client_internal.h"

#define OPEN_BYTES ((size_t)1 << 20)
#define RECONNECT_NS UINT64_C(5000000000)

/* Bytes of one element, by number of type (tensor/tensor.h). */
static const uint32_t elements[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0};

/* ---- what the caller wants ---- */

static enum tg_rc take_options(struct tg_model *m, const struct tg_options *o, struct tg_err *err)
{
    if (o != NULL && o->size != sizeof(*o)) /* there is one size so far */
        return TG_FAIL(err, TG_E_USAGE, "options.size is not sizeof(struct tg_options)");
    if (o != NULL)
        m->o = *o;
    if (m->o.slots == 0)
        m->o.slots = 1;
    if (m->o.open_bytes == 0)
        m->o.open_bytes = OPEN_BYTES;
    if (m->o.reconnect_ns == 0)
        m->o.reconnect_ns = RECONNECT_NS;
    if (m->o.slots > TG_NATIVE_SLOTS_MAX || (m->o.slots & (m->o.slots - 1)) != 0)
        return TG_FAIL(err, TG_E_USAGE, "options.slots: 1, 2, 4, 8 or 16");
    return TG_OK;
}

/* ---- what the worker says ---- */

/* Room for a tensor: what its fixed shape takes, or what the caller gives to open ones. */
static enum tg_rc room_of(const struct tg_model *m, const struct tg_native_port *p, uint64_t *out,
                          struct tg_err *err)
{
    uint64_t n = p->dtype < TG_ARRAY_LEN(elements) ? elements[p->dtype] : 0;
    bool open = p->n_dims == 0;

    for (uint32_t i = 0; i < p->n_dims; i++) {
        open = open || p->dims[i] < 0;
        if (!open && !tg_mul_u64(n, (uint64_t)p->dims[i], &n))
            return TG_FAIL(err, TG_E_LIMIT, "'%s' is too large", p->name);
    }
    *out = open ? m->o.open_bytes : n;
    return TG_OK;
}

static void describe(struct tg_tensor *t, const struct tg_native_port *p, uint64_t bytes)
{
    *t = (struct tg_tensor){.name = p->name,
                            .type = (enum tg_type)p->dtype,
                            .n_dims = p->n_dims,
                            .bytes = (size_t)bytes};
    memcpy(t->dims, p->dims, sizeof(t->dims));
}

static enum tg_rc learn(struct tg_model *m, struct tg_err *err)
{
    const struct tg_native_welcome *w = &m->now;

    m->room.slots = m->o.slots;
    m->room.n = w->n_in + w->n_out;
    for (uint32_t i = 0; i < m->room.n; i++) {
        TG_TRY(room_of(m, &w->ports[i], &m->room.bytes[i], err));
        describe(&m->tensors[i], &w->ports[i], m->room.bytes[i]);
    }
    return TG_OK;
}

enum tg_rc tg_model_ask_ring(struct tg_model *m, struct tg_link *l, struct tg_err *err)
{
    TG_TRY(tg_native_layout_make(&m->room, m->now.n_in, m->now.n_out, &l->layout, err));
    tg_native_begin(&m->msg, TG_NATIVE_RING);
    m->msg.ring.slots = m->room.slots;
    m->msg.ring.n = m->room.n;
    memcpy(m->msg.ring.bytes, m->room.bytes, sizeof(m->room.bytes));
    return tg_link_send(l, &m->msg, err);
}

/* ---- the first connection ---- */

static enum tg_rc first_ring(struct tg_model *m, struct tg_err *err)
{
    int fd = -1;

    TG_TRY(tg_model_ask_ring(m, m->link, err));
    TG_TRY(tg_link_receive(m->link, TG_NATIVE_RING_MADE, m->o.reconnect_ns, &m->msg, &fd, err));
    return tg_link_map(m->link, &m->o, m->msg.made.map_size, fd, err);
}

static enum tg_rc connect_first(struct tg_model *m, const char *path,
                                const struct tg_options *options, struct tg_err *err)
{
    if (path == NULL || strlen(path) >= sizeof(m->path))
        return TG_FAIL(err, TG_E_USAGE, "the path of a socket has at most %zu bytes",
                       sizeof(m->path) - 1);
    memcpy(m->path, path, strlen(path) + 1);
    TG_TRY(take_options(m, options, err));
    TG_TRY(tg_link_open(m->path, &m->link, err));
    tg_native_begin(&m->msg, TG_NATIVE_HELLO);
    m->msg.hello.oldest = m->msg.hello.newest = TG_NATIVE_VERSION;
    TG_TRY(tg_link_send(m->link, &m->msg, err));
    TG_TRY(tg_link_receive(m->link, TG_NATIVE_WELCOME, m->o.reconnect_ns, &m->msg, NULL, err));
    m->now = m->msg.welcome;
    TG_TRY(learn(m, err));
    return (m->now.flags & TG_NATIVE_CAN_RUN) != 0 ? first_ring(m, err) : TG_OK;
}

enum tg_status tg_model_connect(const char *path, const struct tg_options *options,
                                struct tg_model **out, struct tg_error *error)
{
    struct tg_model *m = tg_calloc(1, sizeof(*m));
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc;

    if (m == NULL)
        return tg_error_say(error, TG_STATUS_NOMEM, "out of memory");
    rc = connect_first(m, path, options, &err);
    if (rc != TG_OK) {
        tg_model_close(m);
        return tg_error_out(&err, error);
    }
    *out = m;
    return TG_STATUS_OK;
}

void tg_model_close(struct tg_model *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < TG_ARRAY_LEN(m->calls); i++) {
        tg_link_drop(m->calls[i].source);
        tg_link_drop(m->calls[i].link);
    }
    tg_link_drop(m->next);
    tg_link_drop(m->link);
    tg_free(m);
}

/* ---- what is known ---- */

struct tg_model_info tg_model_info(const struct tg_model *m)
{
    return (struct tg_model_info){.name = m->now.model,
                                  .version = m->now.model_version,
                                  .sequence = m->now.sequence,
                                  .package = m->now.h,
                                  .can_run = (m->now.flags & TG_NATIVE_CAN_RUN) != 0,
                                  .can_take = (m->now.flags & TG_NATIVE_CAN_TAKE) != 0};
}

size_t tg_model_inputs(const struct tg_model *m)
{
    return m->now.n_in;
}

size_t tg_model_outputs(const struct tg_model *m)
{
    return m->now.n_out;
}

const struct tg_tensor *tg_model_input(const struct tg_model *m, size_t i)
{
    return i < m->now.n_in ? &m->tensors[i] : NULL;
}

const struct tg_tensor *tg_model_output(const struct tg_model *m, size_t i)
{
    return i < m->now.n_out ? &m->tensors[m->now.n_in + i] : NULL;
}
