#include "agent/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/listen.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/text.h"
#include "crypto/aead.h"
#include "tgsp/format.h"
#include "wire/package.h"

/* ---- starting ---- */

#define PING_PAUSE_MS 5000 /* at most; a quarter of the limit if that is less */

#define ARGS_MAX 80
/* A bake may be larger than the package: optimizing pads and unfolds. */
#define BAKE_EXTRA (UINT64_C(64) << 20)
#define ARG_TEXT 32

/* The command line being put together: each descriptor gets the next number. */
struct plan {
    struct tg_spawn spawn;
    const char *argv[ARGS_MAX];
    size_t argc;
    char text[ARGS_MAX][ARG_TEXT];
    char bake[TG_STATE_PATH_MAX];
    char spin[ARG_TEXT], memory[ARG_TEXT];
    char uids[256];              /* cut at the commas */
    int owned[TG_SPAWN_FDS_MAX]; /* to be closed by us */
    size_t n_owned;
    int grant_fd; /* one of them; -1: none */
};

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n_owned; i++)
        tg_fd_close(p->owned[i]);
    p->n_owned = 0;
}

static void add_arg(struct plan *p, const char *a, const char *b)
{
    p->argv[p->argc++] = a;
    p->argv[p->argc++] = b;
}

/* fd: borrowed; -1 for the key, which the child opens itself. */
static void add_fd(struct plan *p, const char *option, int fd)
{
    size_t i = p->spawn.n_fds++;
    p->spawn.fds[i] = fd;
    (void)snprintf(p->text[i], ARG_TEXT, "%u", (unsigned)(TG_SPAWN_FD_FIRST + i));
    add_arg(p, option, p->text[i]);
}

static TG_RC add_file(struct plan *p, const char *option, const char *path, struct tg_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", path);
    p->owned[p->n_owned++] = fd;
    add_fd(p, option, fd);
    return TG_OK;
}

/* A part has its full size from the start. */
static void package_path(const struct tg_worker_start *o, char path[TG_STATE_PATH_MAX])
{
    if (o->arrival >= 0)
        tg_state_part(o->state, o->pkg->h, path);
    else
        tg_state_package(o->state, o->pkg->h, path);
}

static TG_RC add_files(struct plan *p, const struct tg_worker_start *o, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    package_path(o, path);
    TG_TRY(add_file(p, "--package-fd", path, err));
    if (o->arrival >= 0)
        add_fd(p, "--arrival-fd", o->arrival);
    TG_TRY(tg_state_path(o->state, path, err, "trust.tgtrust"));
    TG_TRY(add_file(p, "--trust-fd", path, err));
    TG_TRY(tg_state_path(o->state, path, err, "rollback.json"));
    TG_TRY(add_file(p, "--rollback-fd", path, err));
    if (o->new_grant)
        tg_state_grant_new(o->state, o->pkg->h, path);
    else
        tg_state_grant(o->state, o->pkg->h, path);
    if (tg_state_has(path)) {
        TG_TRY(add_file(p, "--grant-fd", path, err));
        p->grant_fd = p->owned[p->n_owned - 1];
    }
    tg_state_deployment(o->state, o->pkg->h, path);
    if (o->with_deployment && tg_state_has(path))
        TG_TRY(add_file(p, "--deployment-fd", path, err));
    return TG_OK;
}

/* The sealed bake of an earlier start, and a file for a new one. A device that can't keep bakes
 * still runs models: what fails here is only logged. */
static void add_bake(struct plan *p, const struct tg_worker_start *o, uint64_t now_ms)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_err err = TG_ERR_INIT;
    struct stat st;
    tg_state_bake(o->state, o->pkg->h, path);
    if (tg_state_has(path) && add_file(p, "--bake-in-fd", path, &err) != TG_OK)
        tg_log_err("agent.bake", &err);
    if (snprintf(p->bake, sizeof p->bake, "%s.%" PRIu64 ".tmp", path, now_ms) >=
        (int)sizeof p->bake) {
        p->bake[0] = 0;
        return;
    }
    int fd = open(p->bake, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        tg_log(TG_LOG_WARN, "agent.bake", "errno=%d", errno);
        p->bake[0] = 0;
        return;
    }
    p->owned[p->n_owned++] = fd;
    add_fd(p, "--bake-out-fd", fd);
    package_path(o, path);
    p->spawn.file_max = BAKE_EXTRA + (stat(path, &st) == 0 ? 2 * (uint64_t)st.st_size : 0);
}

static TG_RC add_token(struct plan *p, const struct tg_settings *s, struct tg_err *err)
{
    char hex[TG_HASH_HEX];
    int fd = -1;
    tg_hex_encode(tg_bytes_make(s->tcp_token_sha256, 32), hex);
    TG_TRY(tg_memfd("token-sha256", hex, TG_HASH_HEX - 1, &fd, err));
    p->owned[p->n_owned++] = fd;
    add_fd(p, "--token-fd", fd);
    return TG_OK;
}

static TG_RC add_native(struct plan *p, const struct tg_worker_start *o, struct tg_err *err)
{
    size_t users = 0;
    if (o->native <= 0)
        return TG_OK;
    add_fd(p, "--native-fd", o->native);
    (void)snprintf(p->spin, sizeof p->spin, "%" PRIu64, o->settings->native_spin_us);
    add_arg(p, "--native-spin-us", p->spin);
    TG_TEXT_SET(p->uids, o->settings->handover_uids);
    for (char *at = p->uids, *end; at && *at; at = end) {
        end = strchr(at, ',');
        if (end)
            *end++ = 0;
        if (users++ == TG_HANDOVER_MAX)
            return TG_FAIL(err, TG_E_LIMIT, "agent.json: handover_uids: at most %d",
                           TG_HANDOVER_MAX);
        add_arg(p, "--handover-uid", at);
    }
    return TG_OK;
}

/* Loading takes up to four times the weights for a moment; what predictions take beside that
 * depends on the model. So generous that only what runs wild meets it. */
static void add_memory(struct plan *p, const struct tg_worker_start *o)
{
    uint64_t mib = o->settings->memory_max_mib;
    if (mib == 0)
        mib = 4096 + 8 * (o->pkg->size >> 20);
    if (mib > TG_MEMORY_MAX_MIB)
        mib = TG_MEMORY_MAX_MIB;
    (void)snprintf(p->memory, sizeof p->memory, "%" PRIu64, mib);
    add_arg(p, "--memory-max", p->memory);
}

static TG_RC make_plan(struct plan *p, const struct tg_worker_start *o, int ctl, struct tg_err *err)
{
    p->spawn = TG_SPAWN_INIT;
    p->spawn.path = o->settings->worker;
    p->spawn.user = *o->user;
    p->argv[p->argc++] = "tensorguard-moai";
    p->argv[p->argc++] = "worker";
    add_fd(p, "--control-fd", ctl);
    TG_TRY(add_files(p, o, err));
    p->spawn.key_at = (int)p->spawn.n_fds;
    p->spawn.key_dir = o->kem_dir;
    p->spawn.key_name = "kem.priv";
    add_fd(p, "--key-fd", -1);
    for (size_t i = 0; i < o->n_listen; i++)
        add_fd(p, "--listen-fd", o->listen[i]);
    TG_TRY(add_native(p, o, err));
    add_memory(p, o);
    if (o->settings->tcp)
        TG_TRY(add_token(p, o->settings, err));
    add_arg(p, "--fleet", o->settings->fleet);
    add_arg(p, "--device-id", o->settings->device_id);
    add_arg(p, "--protection", o->settings->protection);
    p->argv[p->argc] = NULL;
    p->spawn.argv = p->argv;
    return TG_OK;
}

TG_RC tg_worker_start(struct tg_worker *w, const struct tg_worker_start *o, uint64_t now_ms,
                      struct tg_err *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "worker: control channel");
    TG_AUTO(tg_fd_closep) int ours = pair[0];
    TG_AUTO(tg_fd_closep) int theirs = pair[1];
    if (fcntl(ours, F_SETFL, O_NONBLOCK) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "worker: control channel");
    struct tg_words words = TG_WORDS_INIT;
    TG_AUTO(tg_fd_closep) int speaks = -1;
    TG_TRY(tg_words_open(&words, &speaks, now_ms, err));
    struct plan plan = {.grant_fd = -1};
    pid_t pid = 0;
    TG_AUTO(tg_fd_closep) int grant_fd = -1;
    enum tg_rc rc = make_plan(&plan, o, theirs, err);
    if (rc == TG_OK)
        add_bake(&plan, o, now_ms);
    plan.argv[plan.argc] = NULL;
    plan.spawn.words = speaks;
    if (rc == TG_OK && o->new_grant && plan.grant_fd >= 0) {
        grant_fd = fcntl(plan.grant_fd, F_DUPFD_CLOEXEC, 0);
        rc = grant_fd < 0 ? TG_FAIL_ERRNO(err, TG_E_IO, "worker: its grant") : TG_OK;
    }
    if (rc == TG_OK)
        rc = tg_spawn(&plan.spawn, &pid, err);
    plan_done(&plan);
    if (rc != TG_OK && plan.bake[0])
        (void)unlink(plan.bake);
    if (rc != TG_OK)
        tg_words_end(&words, now_ms);
    TG_TRY(rc);
    words.pid = pid;
    *w = (struct tg_worker){.pid = pid,
                            .ctl = ours,
                            .words = words,
                            .pkg = *o->pkg,
                            .new_grant = o->new_grant,
                            .grant_fd = grant_fd,
                            .started_ms = now_ms,
                            .heard_ms = now_ms,
                            .allowance = TG_WORKER_MSG_BURST,
                            .early = o->arrival >= 0,
                            .deadline_ms =
                                o->arrival >= 0 ? 0 : now_ms + o->settings->load_timeout_s * 1000,
                            .timeout_ms = o->settings->worker_timeout_s * 1000};
    TG_TEXT_SET(w->bake, plan.bake);
    ours = -1;
    grant_fd = -1;
    return TG_OK;
}

void tg_worker_bake_drop(struct tg_worker *w)
{
    if (w->bake[0])
        (void)unlink(w->bake);
    w->bake[0] = 0;
}

TG_RC tg_worker_bake_keep(struct tg_worker *w, const struct tg_state *state, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct stat st;
    if (!w->bake[0])
        return TG_OK;
    tg_state_bake(state, w->pkg.h, path);
    /* Not synced: half of one after a power cut is refused and made anew. */
    bool made = lstat(w->bake, &st) == 0 && st.st_size > 0;
    enum tg_rc rc = TG_OK;
    if (made && rename(w->bake, path) != 0)
        rc = TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    else if (made)
        w->bake[0] = 0;
    tg_worker_bake_drop(w);
    return rc;
}

void tg_worker_complete(struct tg_worker *w, uint64_t load_ms, uint64_t now_ms)
{
    if (w->early && w->deadline_ms == 0 && w->phase < TG_WK_HEALTHY)
        w->deadline_ms = now_ms + load_ms;
}

/* ---- the control channel ---- */

enum event {
    EV_STATE,
    EV_HEALTHY,
    EV_SERVING,
    EV_PONG,
    EV_FAILED,
    EV_DRAINED,
    EV_HANDOVER,
    EV_AGAIN
};

static const char *const event_names[] = {"state",   "healthy",  "serving", "pong", "failed",
                                          "drained", "handover", "again",   NULL};

struct msg {
    int event;
    const char *file, *tensor;
    uint64_t size, uid;
    const char *state, *code, *reason, *model, *version, *protection;
    uint64_t sequence, floor, load_ms, locked_bytes, offset, length;
    uint8_t header_sha256[32];
};
static const struct tg_jfield msg_fields[] = {
    TG_J_ENUM(struct msg, event, event_names, TG_J_REQ),
    TG_J_STR(struct msg, state, 1, 64, TG_J_OPT),
    TG_J_STR(struct msg, file, 1, 1024, TG_J_OPT),
    TG_J_STR(struct msg, tensor, 1, 256, TG_J_OPT),
    TG_J_U64(struct msg, size, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_U64(struct msg, uid, 0, UINT32_MAX, TG_J_OPT),
    TG_J_STR(struct msg, code, 1, 32, TG_J_OPT),
    TG_J_STR(struct msg, reason, 0, 4096, TG_J_OPT),
    TG_J_STR(struct msg, model, 1, TG_NAME_TEXT - 1, TG_J_OPT),
    TG_J_STR(struct msg, version, 0, TG_ID_TEXT - 1, TG_J_OPT),
    TG_J_U64(struct msg, sequence, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_U64(struct msg, floor, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_U64(struct msg, load_ms, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_U64(struct msg, locked_bytes, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_STR(struct msg, protection, 1, TG_LEVEL_TEXT - 1, TG_J_OPT),
    TG_J_U64(struct msg, offset, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_U64(struct msg, length, 0, TG_JSON_INT_MAX, TG_J_OPT),
    TG_J_HEX(struct msg, header_sha256, TG_J_OPT),
};
static const struct tg_jschema msg_schema =
    TG_J_SCHEMA(struct msg, msg_fields, TG_J_IGNORE_UNKNOWN);

static const struct {
    const char *name;
    enum tg_worker_phase phase;
} phases[] = {
    {"verifying",  TG_WK_VERIFYING },
    {"decrypting", TG_WK_DECRYPTING},
    {"loading",    TG_WK_LOADING   },
    {"checking",   TG_WK_CHECKING  }
};

static TG_RC on_state(struct tg_worker *w, const struct msg *m, struct tg_err *err)
{
    if (w->phase >= TG_WK_HEALTHY)
        return TG_FAIL(err, TG_E_FORMAT, "worker: it loads again after it was healthy");
    for (size_t i = 0; m->state && i < TG_ARRAY_LEN(phases); i++) {
        if (strcmp(phases[i].name, m->state) == 0) {
            w->phase = phases[i].phase;
            w->opened |= w->phase >= TG_WK_DECRYPTING;
            return TG_OK;
        }
    }
    return TG_FAIL(err, TG_E_FORMAT, "worker: it says it is in a state that is none");
}

static TG_RC on_healthy(struct tg_worker *w, const struct msg *m, uint64_t now_ms,
                        struct tg_err *err)
{
    if (!m->model || !tg_mem_eq(m->header_sha256, w->pkg.h, 32))
        return TG_FAIL(err, TG_E_FORMAT, "worker: healthy, but with another package");
    if (w->phase >= TG_WK_HEALTHY)
        return TG_FAIL(err, TG_E_FORMAT, "worker: it says twice that it is healthy");
    w->phase = TG_WK_HEALTHY;
    w->opened = true;
    w->deadline_ms = 0;
    w->load_ms = m->load_ms;
    w->locked_bytes = m->locked_bytes;
    TG_TEXT_SET(w->protection, m->protection ? m->protection : "");
    w->ready_ms = now_ms - w->started_ms;
    TG_TEXT_SET(w->pkg.model, m->model);
    TG_TEXT_SET(w->pkg.version, m->version);
    w->pkg.sequence = m->sequence;
    w->pkg.floor = m->floor;
    return TG_OK;
}

static uint64_t ping_pause_ms(const struct tg_worker *w)
{
    uint64_t part = w->timeout_ms / 4;
    return part < PING_PAUSE_MS ? part : PING_PAUSE_MS;
}

static TG_RC on_serving(struct tg_worker *w, uint64_t now_ms, struct tg_err *err)
{
    if (w->phase != TG_WK_HEALTHY || !w->serving)
        return TG_FAIL(err, TG_E_FORMAT, "worker: it serves without having been told to");
    w->phase = TG_WK_SERVING;
    if (w->draining)
        return TG_OK; /* told to in the meantime: that limit holds */
    w->deadline_ms = 0;
    w->ping_ms = now_ms + ping_pause_ms(w);
    return TG_OK;
}

static void on_pong(struct tg_worker *w, uint64_t now_ms)
{
    if (!w->pinged)
        return; /* late: it drains */
    w->pinged = false;
    w->deadline_ms = 0;
    w->ping_ms = now_ms + ping_pause_ms(w);
}

/* The figures first: a long path is cut at the end. */
static TG_RC on_handover(struct tg_worker *w, const struct msg *m, struct tg_err *err)
{
    char text[TG_REASON_TEXT + 1500];
    if (!m->file || w->phase < TG_WK_HEALTHY)
        return TG_FAIL(err, TG_E_FORMAT, "worker: a hand-over of nothing");
    (void)snprintf(text, sizeof text, "uid=%" PRIu64 " bytes=%" PRIu64 " file=%s%s%s", m->uid,
                   m->size, m->file, m->tensor ? " tensor=" : "", m->tensor ? m->tensor : "");
    TG_TEXT_SET(w->handed, text);
    return TG_OK;
}

/* At most a chunk of the largest size, and not for ever. */
static TG_RC on_again(struct tg_worker *w, const struct msg *m, struct tg_err *err)
{
    uint64_t most = TG_TGSP_CHUNK_MAX + TG_AEAD_TAG_LEN;
    if (!w->early || w->phase != TG_WK_DECRYPTING || m->length == 0 || m->length > most ||
        m->offset > w->pkg.size || m->length > w->pkg.size - m->offset)
        return TG_FAIL(err, TG_E_FORMAT, "worker: it asks for bytes that are none of its package");
    if (w->again.end != 0 || ++w->agains > TG_WORKER_AGAIN_MAX)
        return TG_FAIL(err, TG_E_AUTH,
                       "package: more than %d chunks came with bytes their author did not sign",
                       TG_WORKER_AGAIN_MAX);
    w->again = (struct tg_span){m->offset, m->offset + m->length};
    return TG_OK;
}

static TG_RC apply(struct tg_worker *w, const struct msg *m, uint64_t now_ms, struct tg_err *err)
{
    switch ((enum event)m->event) {
    case EV_STATE:
        return on_state(w, m, err);
    case EV_HEALTHY:
        return on_healthy(w, m, now_ms, err);
    case EV_SERVING:
        return on_serving(w, now_ms, err);
    case EV_PONG:
        on_pong(w, now_ms);
        return TG_OK;
    case EV_FAILED:
        w->phase = TG_WK_FAILED;
        w->code = m->code ? tg_rc_from_name(m->code) : TG_RC_COUNT;
        if (w->code == TG_RC_COUNT || w->code == TG_OK)
            w->code = TG_E_INTERNAL;
        TG_TEXT_SET(w->reason, m->reason && *m->reason ? m->reason : "the worker gave no reason");
        return TG_OK;
    case EV_HANDOVER:
        return on_handover(w, m, err);
    case EV_DRAINED:
        w->phase = TG_WK_DRAINED;
        return TG_OK;
    case EV_AGAIN:
        return on_again(w, m, err);
    }
    return TG_FAIL(err, TG_E_INTERNAL,
                   "worker: it sent event number %d, which this agent does not know; install "
                   "tensorguard-agent and tensorguard-moai of one version",
                   m->event);
}

/* Whoever owns the worker must not keep the agent busy. */
static TG_RC count_message(struct tg_worker *w, uint64_t now_ms, struct tg_err *err)
{
    uint64_t more = now_ms > w->heard_ms ? (now_ms - w->heard_ms) / TG_WORKER_MSG_EACH_MS : 0;
    if (more >= TG_WORKER_MSG_BURST - w->allowance) {
        w->allowance = TG_WORKER_MSG_BURST;
        w->heard_ms = now_ms;
    } else {
        w->allowance += (unsigned)more;
        w->heard_ms += more * TG_WORKER_MSG_EACH_MS;
    }
    if (w->allowance == 0)
        return TG_FAIL(err, TG_E_LIMIT, "worker: it sends too many messages");
    w->allowance--;
    return TG_OK;
}

TG_RC tg_worker_take(struct tg_worker *w, struct tg_bytes text, uint64_t now_ms, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct msg m;
    TG_TRY(count_message(w, now_ms, err));
    TG_TRY(tg_arena_new(2 * TG_WORKER_MSG_MAX, &arena));
    TG_TRY(tg_json_decode(&msg_schema, text, "worker's message", arena, &m, err));
    return apply(w, &m, now_ms, err);
}

TG_RC tg_worker_read(struct tg_worker *w, uint64_t now_ms, struct tg_err *err)
{
    if (w->ctl < 0)
        return TG_E_CLOSED;
    uint8_t *buf = tg_alloc(TG_WORKER_MSG_MAX);
    if (!buf)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_AUTO(tg_freep) uint8_t *own = buf;
    ssize_t n = recv(w->ctl, buf, TG_WORKER_MSG_MAX, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return TG_E_AGAIN;
    if (n <= 0)
        return TG_E_CLOSED;
    return tg_worker_take(w, tg_bytes_make(own, (size_t)n), now_ms, err);
}

static TG_RC tell(struct tg_worker *w, const char *text, struct tg_err *err)
{
    if (w->ctl < 0 || send(w->ctl, text, strlen(text), MSG_NOSIGNAL) < 0)
        return TG_FAIL(err, TG_E_CLOSED, "worker %d: the control channel is closed", (int)w->pid);
    return TG_OK;
}

TG_RC tg_worker_serve(struct tg_worker *w, uint64_t now_ms, struct tg_err *err)
{
    TG_TRY(tell(w, "{\"command\":\"serve\"}", err));
    w->serving = true;
    w->deadline_ms = now_ms + w->timeout_ms;
    return TG_OK;
}

TG_RC tg_worker_ping(struct tg_worker *w, uint64_t now_ms, struct tg_err *err)
{
    w->ping_ms = 0;
    w->pinged = true;
    w->deadline_ms = now_ms + w->timeout_ms;
    return tell(w, "{\"command\":\"ping\"}", err);
}

TG_RC tg_worker_drain(struct tg_worker *w, uint64_t deadline_ms, struct tg_err *err)
{
    w->draining = true;
    w->pinged = false;
    w->ping_ms = 0;
    w->deadline_ms = deadline_ms;
    return tell(w, "{\"command\":\"drain\"}", err);
}
