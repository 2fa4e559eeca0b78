#include "moai/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/region.h"
#include "base/thread.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "moai/control.h"
#include "moai/native_server.h"
#include "moai/protect.h"
#include "moai/sandbox.h"
#include "net/wipe.h"

/* A drained worker waits this long for one more request on a kept-alive connection, so that a
 * client that is just sending one loses nothing; and this long for everything. */
#define CONNECTIONS 1024 /* of one socket, as net/http_server.h has it */
#define DRAIN_IDLE_MS 1000
#define DRAIN_DEADLINE_MS 20000
/* And this long for a program that uses shared memory to go to the next worker. */
#define DRAIN_NATIVE_MS 2000

struct worker {
    const struct tg_worker_opts *o;
    struct tg_loop *loop;
    struct tg_http_server *server;
    struct tg_native_server *native;
    unsigned to_drain; /* of the two, how many have not yet */
    struct tg_loop_item *control_item, *term_item;
    struct tg_ort *ort;
    struct tg_model *model;
    struct tg_thread *settling; /* has model->spent for itself */
    uint64_t held;              /* protected bytes that stay in use when it is done */
    struct tg_service service;
    bool token_set;
    struct tg_bake_pipe pipe;
    enum tg_rc end; /* why the loop stopped */
    enum tg_rc rc;  /* of all of it */
    bool own_network;
    struct tg_err *err;
};

static void worker_done(struct worker *w)
{
    tg_region_hurry(1); /* what is still kept goes with the process */
    tg_thread_join(w->settling);
    tg_loop_item_free(w->control_item);
    tg_loop_item_free(w->term_item);
    tg_http_server_free(w->server);
    tg_native_server_free(w->native);
    tg_loop_free(w->loop);
    tg_model_free(w->model);
    tg_ort_free(w->ort);
    tg_wipe(&w->service, sizeof(w->service));
}

/* ---- talking to the agent ---- */

static enum tg_rc say(int fd, struct tg_buf *text, struct tg_err *err)
{
    return tg_control_send(fd, tg_buf_view(text), err);
}

static enum tg_rc say_state(void *arg, enum tg_load_state s, struct tg_err *err)
{
    const struct worker *w = arg;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    tg_log(TG_LOG_INFO, "moai.state", "state=%s", tg_load_state_name(s));
    TG_TRY(tg_control_encode_state(tg_load_state_name(s), &b, err));
    return say(w->o->control, &b, err);
}

static struct tg_region_facts region_facts(void)
{
    struct tg_region_facts f;

    tg_region_facts_get(&f);
    return f;
}

static enum tg_rc say_healthy(const struct worker *w, struct tg_err *err)
{
    const struct tg_model *m = w->model;
    struct tg_control_healthy h = {
        .model = m->name,
        .version = m->version,
        .sequence = m->sequence,
        .floor = m->floor,
        .load_ms = m->load_ns / 1000000,
        .locked_bytes = w->held,
        .golden_cases = m->golden_cases,
        .protection = tg_level_name(tg_region_level()),
    };
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    memcpy(h.header_sha256, m->h, sizeof(h.header_sha256));
    tg_log(TG_LOG_INFO, "moai.healthy",
           "load_ms=%" PRIu64 " locked_bytes=%" PRIu64 " protection=%s", h.load_ms, h.locked_bytes,
           h.protection);
    TG_TRY(tg_control_encode_healthy(&h, &b, err));
    return say(w->o->control, &b, err);
}

/* While the package is being downloaded: these bytes of it are wrong. */
static enum tg_rc say_again(void *arg, uint64_t off, uint64_t n, struct tg_err *err)
{
    const struct worker *w = arg;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    tg_log(TG_LOG_WARN, "moai.again", "offset=%" PRIu64 " bytes=%" PRIu64, off, n);
    TG_TRY(tg_control_encode_again(off, n, &b, err));
    return say(w->o->control, &b, err);
}

/* Best effort: the agent also sees the exit status. */
static void say_failed(int fd, const struct tg_err *why)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    if (tg_control_encode_failed(why, &b, NULL) == TG_OK && say(fd, &b, NULL) != TG_OK)
        tg_log(TG_LOG_WARN, "moai.control", "state=closed");
}

static void one_drained(struct worker *w)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    if (--w->to_drain > 0)
        return;
    w->end = tg_control_encode_drained(&b, w->err);
    if (w->end == TG_OK && say(w->o->control, &b, NULL) != TG_OK)
        tg_log(TG_LOG_WARN, "moai.control", "state=closed");
    tg_loop_stop(w->loop);
}

static void on_drained(void *arg, bool clean)
{
    struct worker *w = arg;

    tg_log(TG_LOG_INFO, "moai.drained", "clean=%d requests=%" PRIu64, clean,
           w->service.metrics.success + w->service.metrics.failure);
    one_drained(w);
}

static void on_native_drained(void *arg)
{
    struct worker *w = arg;
    struct tg_native_facts f = tg_native_server_facts(w->native);

    tg_log(TG_LOG_INFO, "moai.drained", "calls=%" PRIu64, f.good + f.bad);
    one_drained(w);
}

static void drain(void *arg)
{
    struct worker *w = arg;
    const struct tg_http_drain_opts opts = {
        .idle_ms = DRAIN_IDLE_MS, .deadline_ms = DRAIN_DEADLINE_MS, .done = on_drained, .arg = w};
    const struct tg_native_drain_opts native = {.grace_ms = DRAIN_NATIVE_MS,
                                                .deadline_ms = DRAIN_DEADLINE_MS,
                                                .done = on_native_drained,
                                                .arg = w};

    if (w->service.draining)
        return;
    w->service.draining = true;
    tg_log(TG_LOG_INFO, "moai.drain", "connections=%zu", tg_http_server_connections(w->server));
    w->to_drain = w->native != NULL ? 2 : 1;
    tg_http_server_drain(w->server, &opts);
    if (w->native != NULL)
        tg_native_server_drain(w->native, &native);
}

/* The agent drains the worker before this one only when it has heard that this one accepts. */
static enum tg_rc serve(struct worker *w)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    tg_log(TG_LOG_INFO, "moai.serve", "listeners=%zu", w->o->n_listen);
    tg_http_server_resume(w->server);
    if (w->native != NULL)
        TG_TRY(tg_native_server_serve(w->native, w->model, w->err));
    TG_TRY(tg_control_encode_serving(&b, w->err));
    return say(w->o->control, &b, w->err);
}

static enum tg_rc answer_ping(struct worker *w)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    TG_TRY(tg_control_encode_pong(&b, w->err));
    return say(w->o->control, &b, w->err);
}

static enum tg_rc obey(struct worker *w, enum tg_control_command c)
{
    switch (c) {
    case TG_CONTROL_SERVE:
        return serve(w);
    case TG_CONTROL_DRAIN:
        drain(w);
        return TG_OK;
    case TG_CONTROL_PING:
        return answer_ping(w);
    case TG_CONTROL_COMMANDS:
        break;
    }
    return TG_FAIL(w->err, TG_E_INTERNAL, "control message");
}

static void on_control(void *arg)
{
    struct worker *w = arg;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX + 1);
    enum tg_control_command c = TG_CONTROL_COMMANDS;
    enum tg_rc rc = tg_control_recv(w->o->control, &b, w->err);

    if (rc == TG_E_AGAIN)
        return;
    if (rc == TG_OK)
        rc = tg_control_decode(tg_buf_view(&b), &c, w->err);
    if (rc == TG_OK)
        rc = obey(w, c);
    if (rc != TG_OK) { /* gone, or not the agent we know: stop at once */
        w->end = rc;
        tg_loop_stop(w->loop);
    }
}

/* ---- before the sandbox: everything that opens, reads /proc or makes threads ---- */

static enum tg_rc read_token(struct worker *w, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_SECRET(128);

    if (w->o->token < 0)
        return TG_OK;
    TG_TRY(tg_fd_read_all(w->o->token, "token", &b, err));
    if (tg_hex_decode(tg_buf_view(&b), w->service.token_sha256, TG_TOKEN_HASH_LEN) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT,
                       "token: must be the SHA-256 of the token, 64 lower-case hex digits");
    w->token_set = true;
    return TG_OK;
}

/* Is this TCP, and if so, bound to loopback? */
static enum tg_rc inspect_listener(const struct worker *w, size_t i, struct tg_service_listener *l,
                                   struct tg_err *err)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof(at);
    int fd = w->o->listen[i];
    bool loopback = false;

    memset(&at, 0, sizeof(at));
    if (getsockname(fd, (struct sockaddr *)&at, &n) != 0)
        return TG_FAIL_ERRNO(err, TG_E_USAGE, "--listen-fd %d is not a socket", fd);
    if (at.ss_family == AF_UNIX)
        return TG_OK;
    if (at.ss_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, &at, sizeof(in));
        loopback = ntohl(in.sin_addr.s_addr) >> 24 == 127;
    } else if (at.ss_family == AF_INET6) {
        struct sockaddr_in6 in;

        memcpy(&in, &at, sizeof(in));
        loopback = IN6_IS_ADDR_LOOPBACK(&in.sin6_addr) != 0;
    }
    if (!loopback)
        return TG_FAIL(
            err, TG_E_DENIED,
            "--listen-fd %d: predictions are served on Unix sockets and on loopback only", fd);
    if (!w->token_set)
        return TG_FAIL(err, TG_E_DENIED, "--listen-fd %d is TCP: that needs --token-fd", fd);
    l->needs_token = true;
    return TG_OK;
}

static enum tg_rc make_server(struct worker *w, struct tg_err *err)
{
    const struct tg_http_server_opts opts = {.handler = tg_service_handle,
                                             .limit = tg_service_limit,
                                             .arg = &w->service,
                                             .max_body = TG_OIP_BODY_MAX,
                                             .plain_errors = true};

    TG_TRY(read_token(w, err));
    TG_TRY(tg_http_server_new(w->loop, &opts, &w->server, err));
    w->service.server = w->server;
    for (size_t i = 0; i < w->o->n_listen; i++) {
        const struct tg_http_listen_opts l = {.paused = true, .arg = &w->service.listeners[i]};

        TG_TRY(inspect_listener(w, i, &w->service.listeners[i], err));
        TG_TRY(tg_http_server_listen_fd(w->server, w->o->listen[i], &l, err));
    }
    return TG_OK;
}

static enum tg_rc say_handover(void *arg, const struct tg_handover_note *note, struct tg_err *err)
{
    const struct worker *w = arg;
    const struct tg_control_handover m = {
        .file = note->file, .tensor = note->tensor, .size = note->size, .uid = note->uid};
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);

    TG_TRY(tg_control_encode_handover(&m, &b, err));
    return say(w->o->control, &b, err);
}

static enum tg_rc make_native(struct worker *w, struct tg_err *err)
{
    struct tg_native_server_opts opts = {
        .loop = w->loop,
        .listen = w->o->native,
        .spin_ns = w->o->native_spin_us * 1000,
        .handover = {.n_users = w->o->n_takers, .tell = say_handover, .arg = w},
    };

    memcpy(opts.handover.users, w->o->takers, sizeof(opts.handover.users));
    if (w->o->native >= 0)
        TG_TRY(tg_native_server_new(&opts, &w->native, err));
    w->service.native = w->native;
    return TG_OK;
}

/* Libraries read configuration, time zone and randomness sources on first use: let that be now. */
enum tg_rc tg_worker_warm_up(struct tg_err *err)
{
    enum tg_control_command c = TG_CONTROL_COMMANDS;
    uint8_t hash[TG_SHA256_LEN];

    tzset();
    TG_TRY(
        tg_control_decode(tg_bytes_str("{\"command\":\"serve\"}"), &c, err)); /* JSON's hash seed */
    if (tg_random(hash, sizeof(hash)) != TG_OK || tg_sha256(TG_BYTES_OF(hash), hash) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "the cryptographic library does not work");
    return TG_OK;
}

static enum tg_rc become_worker(struct worker *w, struct tg_err *err)
{
    unsigned threads = w->o->threads != 0 ? w->o->threads : tg_thread_cpus();

    tg_net_wipe_freed();
    TG_TRY(tg_worker_warm_up(err));
    TG_TRY(tg_loop_new(&w->loop, err));
    TG_TRY(make_server(w, err));
    TG_TRY(make_native(w, err));
    TG_TRY(tg_loop_fd(w->loop, w->o->control, TG_LOOP_READ, on_control, w, &w->control_item));
    TG_TRY(tg_loop_signal(w->loop, SIGTERM, drain, w, &w->term_item));
    TG_TRY(tg_ort_new(threads, &w->ort, err));
    w->service.all_locked = tg_sandbox_lock_all();
    TG_TRY(tg_sandbox_limits(64 + CONNECTIONS * (w->o->n_listen + 1), err));
    TG_TRY(tg_sandbox_landlock(err));
    tg_log(tg_sandbox_is_real() ? TG_LOG_INFO : TG_LOG_WARN, "moai.sandbox",
           "seccomp=%s landlock=%d network=%s", tg_sandbox_is_real() ? "list" : "absent",
           tg_sandbox_landlock_version(), w->own_network ? "none" : "forbidden");
    if (tg_sandbox_landlock_version() == 0) /* nothing may be opened: no bake can be handed out */
        return tg_sandbox_enter(TG_SANDBOX_LOAD, err);
    TG_TRY(tg_bake_pipe_new(&w->pipe, err));
    return tg_sandbox_enter(TG_SANDBOX_LOAD_BAKE, err);
}

/* ---- inside ---- */

/* A package that files are handed over from stays. */
static void close_inputs(const struct tg_worker_opts *o, bool package_too)
{
    const int fds[] = {o->trust,   o->key,      o->rollback, o->grant,  o->deployment,
                       o->bake_in, o->bake_out, o->token,    o->arrival};

    for (size_t i = 0; i < TG_ARRAY_LEN(fds); i++)
        tg_fd_close(fds[i]);
    if (package_too)
        tg_fd_close(o->package);
}

static uint64_t held_bytes(const struct tg_model *m)
{
    const struct tg_region_facts f = region_facts();
    size_t used = f.committed - f.idle, going = m->spent != NULL ? tg_secret_size(m->spent) : 0;

    return f.level >= TG_LEVEL_LOCKED && used > going ? used - going : 0;
}

/* What only loading needed goes beside the first predictions. */
static void settle(void *arg)
{
    const struct worker *w = arg;

    tg_model_settle(w->model);
    tg_log(TG_LOG_INFO, "moai.settled", "used_bytes=%zu", region_facts().used);
}

static enum tg_rc load(struct worker *w, struct tg_err *err)
{
    const struct tg_worker_opts *o = w->o;
    const struct tg_load_opts opts = {
        .package = o->package,
        .trust = o->trust,
        .key = o->key,
        .rollback = o->rollback,
        .grant = o->grant,
        .deployment = o->deployment,
        .arrival = o->arrival,
        .fleet = o->fleet,
        .device_id = o->device_id,
        .now = tg_clock_now(),
        .threads = o->threads != 0 ? o->threads : tg_thread_cpus(),
        .ort = w->ort,
        .keep_files = o->native >= 0 && o->n_takers > 0,
        .bake_in = o->bake_in,
        .bake_out = o->bake_out,
        .pipe = &w->pipe,
        .state = say_state,
        .again = say_again,
        .arg = w,
    };

    tg_region_hurry(opts.threads);
    TG_TRY(tg_model_load(&opts, &w->model, err));
    tg_region_hurry(0); /* from here on no thread is started */
    w->held = held_bytes(w->model);
    if (tg_thread_start(settle, w, TG_THREAD_STACK, &w->settling, NULL) != TG_OK)
        tg_model_settle(w->model);
    w->service.model = w->model;
    close_inputs(o, w->model->package == NULL);
    tg_bake_pipe_done(&w->pipe);
    TG_TRY(tg_sandbox_enter(w->model->package == NULL ? TG_SANDBOX_SERVE : TG_SANDBOX_SERVE_FILES,
                            err));
    return say_healthy(w, err);
}

static enum tg_rc keep_only_ours(const struct tg_worker_opts *o, struct tg_err *err)
{
    int keep[12 + TG_SERVICE_LISTENERS_MAX] = {o->package, o->trust,    o->key,     o->rollback,
                                               o->grant,   o->token,    o->control, o->deployment,
                                               o->bake_in, o->bake_out, o->native,  o->arrival};

    memcpy(keep + 12, o->listen, o->n_listen * sizeof(keep[0]));
    return tg_sandbox_close_fds(keep, 12 + o->n_listen, err);
}

/* Whatever touches a key or a model runs here, on a stack in the protected region. */
static enum tg_rc work(struct worker *w, struct tg_err *err)
{
    TG_TRY(become_worker(w, err));
    TG_TRY(load(w, err));
    TG_TRY(tg_loop_run(w->loop, err));
    return w->end;
}

static void work_thread(void *arg)
{
    struct worker *w = arg;

    w->rc = work(w, w->err);
    worker_done(w);
}

/* What acts on the calling thread only, and is passed on to those it makes, comes first. */
static enum tg_rc run(struct worker *w, struct tg_err *err)
{
    struct tg_thread *t = NULL;
    enum tg_rc rc;

    TG_TRY(keep_only_ours(w->o, err));
    TG_TRY(tg_sandbox_begin(err));
    TG_TRY(tg_protect_require(w->o->protection, err));
    if (!tg_protect_heap())
        tg_log(TG_LOG_WARN, "moai.memory", "heap=outside");
    tg_log(tg_region_level() < TG_LEVEL_LOCKED ? TG_LOG_WARN : TG_LOG_INFO, "moai.memory",
           "protection=%s", tg_level_name(tg_region_level()));
    w->own_network = tg_sandbox_leave_network();
    TG_TRY(tg_sandbox_drop_user(w->o->user, err));
    if (geteuid() == 0)
        tg_log(TG_LOG_WARN, "moai.user", "uid=0 separation=absent");
    TG_TRY(tg_thread_start(work_thread, w, TG_THREAD_STACK_LARGE, &t, err));
    rc = tg_sandbox_landlock(NULL); /* this thread only waits: it needs no file either */
    tg_thread_join(t);
    return w->rc != TG_OK ? w->rc : rc;
}

enum tg_rc tg_worker_run(const struct tg_worker_opts *opts, struct tg_err *err)
{
    struct worker w = {.o = opts, .err = err, .pipe = TG_BAKE_PIPE_INIT};
    enum tg_rc rc;

    tg_log(TG_LOG_INFO, "moai.start", "version=%s onnxruntime=%s", TG_VERSION, tg_ort_version());
    rc = run(&w, err);
    if (rc != TG_OK && err->rc != rc)
        tg_err_set(err, rc, "%s", tg_rc_text(rc));
    if (rc != TG_OK && rc != TG_E_CLOSED)
        say_failed(opts->control, err);
    return rc;
}
