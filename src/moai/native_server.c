#include "moai/native_server.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "moai/ring.h"
#include "native/channel.h"

_Static_assert(TG_NATIVE_MODEL_TEXT > TG_TGSP_NAME_MAX, "names of models");
_Static_assert(TG_NATIVE_VERSION_TEXT > TG_TGSP_VERSION_MAX, "versions");

struct client {
    struct tg_native_server *server;
    int fd; /* -1: free */
    uid_t uid;
    struct tg_loop_item *item;
    bool greeted;
    bool waits; /* for what it asked to be handed over: until then it may ask nothing */
    struct tg_ring *ring;
};

struct tg_native_server {
    struct tg_loop *loop;
    int listen, notify;
    struct tg_loop_item *accept_item, *notify_item, *grace_item, *deadline_item;
    struct tg_rings *rings;
    struct tg_handover *handover;
    const struct tg_model *model;
    struct tg_native_ports ports;
    struct client clients[TG_NATIVE_CLIENTS_MAX];
    union tg_native_msg in, out; /* too large for a stack; used by one message at a time */
    uint8_t raw[TG_NATIVE_MSG_MAX];
    struct tg_native_drain_opts drain;
    bool draining;   /* and drain.done was not called yet */
    bool grace_over; /* whoever is still there is there for a copy alone */
};

/* ---- clients come and go ---- */

static void client_end(struct client *c)
{
    if (c->waits)
        tg_handover_cancel(c->server->handover, c);
    tg_loop_item_free(c->item);
    tg_ring_stop(c->ring);
    tg_fd_close(c->fd);
    *c = (struct client){.server = c->server, .fd = -1};
}

static size_t count(const struct tg_native_server *n, bool with_ring, const uid_t *uid)
{
    size_t found = 0;

    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++) {
        const struct client *c = &n->clients[i];

        found += c->fd >= 0 && (!with_ring || c->ring != NULL) && (uid == NULL || c->uid == *uid);
    }
    return found;
}

static void check_drained(struct tg_native_server *n)
{
    if (!n->draining || count(n, false, NULL) > 0)
        return;
    n->draining = false;
    n->drain.done(n->drain.arg);
}

static void cut(struct client *c, const char *why)
{
    struct tg_native_server *n = c->server;

    tg_log(TG_LOG_DEBUG, "moai.native", "uid=%u gone=\"%s\"", (unsigned)c->uid, why);
    client_end(c);
    check_drained(n);
}

/* ---- what they ask for ---- */

static enum tg_rc on_hello(struct client *c, int *fd, struct tg_err *err)
{
    struct tg_native_server *n = c->server;
    const struct tg_native_hello *h = &n->in.hello;
    struct tg_native_welcome *w = &n->out.welcome;

    (void)fd;
    if (c->greeted)
        return TG_FAIL(err, TG_E_STATE, "hello: said twice");
    if (h->oldest > TG_NATIVE_VERSION || h->newest < TG_NATIVE_VERSION)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "this worker speaks version %d, not %u to %u",
                       TG_NATIVE_VERSION, h->oldest, h->newest);
    c->greeted = true;
    tg_native_begin(&n->out, TG_NATIVE_WELCOME);
    w->version = TG_NATIVE_VERSION;
    w->flags = (n->ports.can_run ? TG_NATIVE_CAN_RUN : 0u) |
               (tg_handover_allows(n->handover, c->uid) ? TG_NATIVE_CAN_TAKE : 0u);
    w->sequence = n->model->sequence;
    memcpy(w->h, n->model->h, sizeof(w->h));
    tg_native_text(w->model, sizeof(w->model), n->model->name);
    tg_native_text(w->model_version, sizeof(w->model_version), n->model->version);
    w->n_in = n->ports.n_in;
    w->n_out = n->ports.n_out;
    memcpy(w->ports, n->ports.v, ((size_t)w->n_in + w->n_out) * sizeof(w->ports[0]));
    return TG_OK;
}

static enum tg_rc on_ring(struct client *c, int *fd, struct tg_err *err)
{
    struct tg_native_server *n = c->server;
    struct tg_native_layout layout;
    const struct tg_ring_opts o = {n->model->session, &n->ports, &layout};

    if (!n->ports.can_run)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "this package is not run here, or its inputs or outputs are strings");
    if (c->ring != NULL)
        return TG_FAIL(err, TG_E_STATE, "ring: there is one already");
    if (count(n, true, &c->uid) >= TG_NATIVE_RINGS_OF_ONE_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%d programs of this user use shared memory: no more",
                       TG_NATIVE_RINGS_OF_ONE_MAX);
    TG_TRY(tg_native_layout_make(&n->in.ring, n->ports.n_in, n->ports.n_out, &layout, err));
    TG_TRY(tg_ring_start(n->rings, &o, &c->ring, fd, err));
    tg_native_begin(&n->out, TG_NATIVE_RING_MADE);
    n->out.made.map_size = layout.map_size;
    return TG_OK;
}

static enum tg_rc on_take(struct client *c, int *fd, struct tg_err *err)
{
    struct tg_native_server *n = c->server;
    const struct tg_handover_ask ask = {c->uid, c, &n->in.take};
    enum tg_rc rc = tg_handover_take(n->handover, &ask, &n->out, fd, err);

    c->waits = rc == TG_OK && *fd < 0;
    return rc;
}

static enum tg_rc on_list(struct client *c, int *fd, struct tg_err *err)
{
    struct tg_native_server *n = c->server;

    (void)fd;
    return tg_handover_list(n->handover, c->uid, &n->in.list, &n->out, err);
}

typedef enum tg_rc request_fn(struct client *c, int *fd, struct tg_err *err);

/* Each fills n->out; *fd, where it sets one, goes along. */
static request_fn *const requests[] = {
    [TG_NATIVE_HELLO] = on_hello,
    [TG_NATIVE_RING] = on_ring,
    [TG_NATIVE_LIST] = on_list,
    [TG_NATIVE_TAKE] = on_take,
};

/* rc: of the request; n->out is the answer where that is TG_OK, *why the reason elsewhere. */
static enum tg_rc answer(const struct client *c, enum tg_rc rc, struct tg_err *why, int fd,
                         struct tg_err *err)
{
    struct tg_native_server *n = c->server;

    if (rc != TG_OK && why->rc != rc)
        tg_err_set(why, rc, "%s", tg_rc_text(rc));
    return tg_channel_send(
        c->fd, rc == TG_OK ? tg_native_seal(&n->out) : tg_native_refuse(&n->out, why), fd, err);
}

/* One message and its answer. What comes back is why the client is cut off, if it is: a request
 * that is only wrong is answered. */
static enum tg_rc handle(struct client *c, struct tg_err *err)
{
    struct tg_native_server *n = c->server;
    struct tg_err why = TG_ERR_INIT;
    int fd = -1;
    size_t got = 0;
    enum tg_rc rc;

    rc = tg_channel_recv(c->fd, n->raw, sizeof(n->raw), &got, NULL, err);
    if (rc != TG_OK)
        return rc == TG_E_AGAIN ? TG_OK : rc;
    TG_TRY(tg_native_parse(tg_bytes_make(n->raw, got), TG_NATIVE_CLIENT, &n->in, err));
    if (!c->greeted && n->in.head.type != TG_NATIVE_HELLO)
        return TG_FAIL(err, TG_E_STATE, "native message before hello");
    rc = requests[n->in.head.type](c, &fd, &why);
    if (c->waits)
        return TG_OK;
    rc = answer(c, rc, &why, fd, err);
    if (n->in.head.type == TG_NATIVE_RING) /* shared memory is the client's from here on */
        tg_fd_close(fd);
    return rc;
}

static void on_client(void *arg)
{
    struct client *c = arg;
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc;

    if (c->waits) {
        cut(c, "gone, or asking again, before what it asked for was made");
        return;
    }
    rc = handle(c, &err);

    if (rc != TG_OK) /* TG_E_AGAIN: it does not read its answers */
        cut(c, err.msg);
}

/* What somebody waits for is made. One who was let stay for that alone goes. */
static void on_made(struct tg_native_server *n)
{
    struct tg_handover_reply r;

    while (tg_handover_next(n->handover, &n->out, &r)) {
        struct client *c = r.who;
        struct tg_err err = TG_ERR_INIT;

        c->waits = false;
        if (answer(c, r.rc, &r.err, r.fd, &err) != TG_OK)
            cut(c, err.msg);
        else if (n->draining && (c->ring == NULL || n->grace_over))
            cut(c, "drained");
    }
}

/* ---- the door ---- */

static enum tg_rc admit(struct tg_native_server *n, int fd, struct tg_err *err)
{
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t len = sizeof(who);
    struct client *c = NULL;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "native socket: who is there");
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX && c == NULL; i++)
        if (n->clients[i].fd < 0)
            c = &n->clients[i];
    if (c == NULL)
        return TG_FAIL(
            err, TG_E_LIMIT,
            "native socket: all %d connections are taken; close one, or call through one "
            "connection in turn",
            TG_NATIVE_CLIENTS_MAX);
    if (count(n, false, &who.uid) >= TG_NATIVE_CLIENTS_OF_ONE_MAX)
        return TG_FAIL(
            err, TG_E_LIMIT,
            "native socket: user %u has %d connections, the most for one user; close one, "
            "or call through one connection in turn",
            (unsigned)who.uid, TG_NATIVE_CLIENTS_OF_ONE_MAX);
    *c = (struct client){.server = n, .fd = fd, .uid = who.uid};
    return tg_loop_fd(n->loop, fd, TG_LOOP_READ, on_client, c, &c->item);
}

static void on_accept(void *arg)
{
    struct tg_native_server *n = arg;
    struct tg_err err = TG_ERR_INIT;
    int fd = accept4(n->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (admit(n, fd, &err) != TG_OK) {
        if (tg_channel_send(fd, tg_native_refuse(&n->out, &err), -1, &err) != TG_OK)
            tg_log(TG_LOG_DEBUG, "moai.native", "refused=unheard");
        for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
            if (n->clients[i].fd == fd)
                n->clients[i].fd = -1;
        tg_fd_close(fd);
    }
}

/* A thread says that something ended: a ring, or the making of a copy. */
static void on_notify(void *arg)
{
    struct tg_native_server *n = arg;
    uint64_t times; /* the notes that are taken; what they are about is looked up */

    if (read(n->notify, &times, sizeof(times)) < 0)
        return;
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
        if (n->clients[i].ring != NULL && tg_ring_broken(n->clients[i].ring))
            cut(&n->clients[i], "its ring says more calls than there are slots");
    on_made(n);
}

enum tg_rc tg_native_server_new(const struct tg_native_server_opts *o,
                                struct tg_native_server **out, struct tg_err *err)
{
    TG_AUTO(tg_native_server_freep) struct tg_native_server *n = tg_calloc(1, sizeof(*n));
    struct tg_handover_opts handover = o->handover;
    int type = 0;
    socklen_t len = sizeof(type);

    if (n == NULL) {
        tg_fd_close(o->listen);
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    }
    n->loop = o->loop;
    n->listen = o->listen;
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
        n->clients[i] = (struct client){.server = n, .fd = -1};
    n->notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (n->notify < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "eventfd");
    if (getsockopt(n->listen, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET)
        return TG_FAIL(err, TG_E_USAGE, "--native-fd %d is not a SOCK_SEQPACKET socket", n->listen);
    TG_TRY(tg_loop_fd(n->loop, n->notify, TG_LOOP_READ, on_notify, n, &n->notify_item));
    handover.beside = true;
    handover.notify = n->notify;
    TG_TRY(tg_handover_new(&handover, &n->handover, err));
    TG_TRY(tg_rings_new(o->spin_ns, n->notify, &n->rings, err));
    *out = tg_steal(&n);
    return TG_OK;
}

void tg_native_server_free(struct tg_native_server *n)
{
    if (n == NULL)
        return;
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
        if (n->clients[i].fd >= 0)
            client_end(&n->clients[i]);
    tg_rings_free(n->rings);
    tg_handover_free(n->handover);
    tg_loop_item_free(n->accept_item);
    tg_loop_item_free(n->notify_item);
    tg_loop_item_free(n->grace_item);
    tg_loop_item_free(n->deadline_item);
    tg_fd_close(n->listen);
    tg_fd_close(n->notify);
    tg_free(n);
}

enum tg_rc tg_native_server_serve(struct tg_native_server *n, const struct tg_model *model,
                                  struct tg_err *err)
{
    n->model = model;
    tg_handover_model(n->handover, model);
    if (model->session != NULL)
        tg_native_ports_fill(model->session, &n->ports);
    if (tg_loop_fd(n->loop, n->listen, TG_LOOP_READ, on_accept, n, &n->accept_item) != TG_OK)
        return TG_FAIL(err, TG_E_IO, "native socket: can't listen");
    return TG_OK;
}

static void end_all(struct tg_native_server *n, bool who_waits_too)
{
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
        if (n->clients[i].fd >= 0 && (who_waits_too || !n->clients[i].waits))
            client_end(&n->clients[i]);
    check_drained(n);
}

static void on_deadline(void *arg)
{
    end_all(arg, true);
}

static void on_grace(void *arg)
{
    struct tg_native_server *n = arg;

    n->grace_over = true;
    end_all(n, false);
}

void tg_native_server_drain(struct tg_native_server *n, const struct tg_native_drain_opts *opts)
{
    tg_loop_item_free(n->accept_item);
    n->accept_item = NULL;
    n->drain = *opts;
    n->draining = true;
    for (size_t i = 0; i < TG_NATIVE_CLIENTS_MAX; i++)
        if (n->clients[i].ring != NULL)
            tg_ring_leave(n->clients[i].ring);
        else if (n->clients[i].fd >= 0 && !n->clients[i].waits)
            client_end(&n->clients[i]);
    if (tg_loop_after(n->loop, opts->grace_ms, on_grace, n, &n->grace_item) != TG_OK ||
        tg_loop_after(n->loop, opts->deadline_ms, on_deadline, n, &n->deadline_item) != TG_OK)
        on_deadline(n);
    check_drained(n);
}

struct tg_native_facts tg_native_server_facts(const struct tg_native_server *n)
{
    struct tg_native_facts f = {.clients = count(n, false, NULL),
                                .rings = count(n, true, NULL),
                                .handover = tg_handover_facts(n->handover)};

    tg_rings_counts(n->rings, &f.good, &f.bad);
    return f;
}
