#include "agent/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/daemon_internal.h"
#include "agent/identity.h"
#include "agent/listen.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypto/random.h"

#define TIMER_MAX_MS 3600000
#define STABLE_AGAIN_MS 1000
#define ONCE_BREAKS_MAX 5 /* of the download, in a row, before --once gives up */

/* ---- small things the parts share ---- */

uint64_t tg_daemon_now_ms(void)
{
    return tg_clock_mono_ns() / 1000000;
}

uint32_t tg_daemon_random(void)
{
    uint32_t r = 0;
    if (tg_random(&r, sizeof r) != TG_OK)
        r = (uint32_t)tg_clock_mono_ns(); /* only spreads a pause */
    return r;
}

void tg_daemon_why(struct tg_why *why, enum tg_rc code, const char *text)
{
    char copy[TG_REASON_TEXT];
    TG_TEXT_SET(copy, text[0] ? text : tg_rc_text(code));
    why->code = code;
    memcpy(why->text, copy, sizeof copy);
}

void tg_daemon_why_grant(struct tg_why *why, enum tg_rc code, const char *what)
{
    char text[TG_ERR_MAX + 2 * TG_REASON_TEXT];
    (void)snprintf(
        text, sizeof text,
        "waits for a new grant (%s): the platform's vault makes it, or the package's "
        "author with tensorguard grant and tensorguard package grant%s",
        what,
        code == TG_E_EXPIRED ? "; if the old grant should be valid set this device's clock" : "");
    tg_daemon_why(why, code, text);
}

void tg_daemon_point(const struct tg_daemon *d, const char *name)
{
    if (d->opts.kill_at && strcmp(d->opts.kill_at, name) == 0)
        (void)raise(SIGKILL);
}

TG_RC tg_daemon_step(struct tg_daemon *d, enum tg_step step, struct tg_err *err)
{
    struct tg_journal next = d->journal;
    next.set = true;
    next.step = step;
    TG_TRY(tg_journal_save(&d->state, &next, err));
    d->journal = next;
    d->dirty = true;
    tg_daemon_point(d, tg_step_name(step));
    return TG_OK;
}

void tg_daemon_report(struct tg_daemon *d, const char *deployment_id, enum tg_update_state state,
                      const struct tg_why *why)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_outbox_item item = {.state = state};
    TG_TEXT_SET(item.deployment_id, deployment_id);
    if (why) {
        TG_TEXT_SET(item.reason, why->text);
        if (state == TG_UPDATE_FAILED || state == TG_UPDATE_ROLLED_BACK)
            TG_TEXT_SET(item.code, tg_rc_name(why->code));
    }
    if (tg_outbox_add(&d->state, &d->outbox, &item, &err) != TG_OK)
        tg_log_err("agent.outbox", &err);
    d->dirty = true;
}

void tg_daemon_handed_over(struct tg_daemon *d, const struct tg_worker *w)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_outbox_item item = {.handover = true, .state = TG_UPDATE_RUNNING};
    TG_TEXT_SET(item.deployment_id, w->pkg.deployment_id);
    TG_TEXT_SET(item.reason, w->handed);
    tg_log(TG_LOG_INFO, "agent.handover", "pid=%d what=\"%s\"", (int)w->pid, w->handed);
    if (tg_outbox_add(&d->state, &d->outbox, &item, &err) != TG_OK)
        tg_log_err("agent.outbox", &err);
    d->dirty = true;
}

static void prune(struct tg_daemon *d)
{
    if (!d->prune || tg_jobs_busy(d->jobs))
        return; /* a download may be writing: when it has ended */
    d->prune = false;
    struct tg_err err = TG_ERR_INIT;
    uint8_t keep[3][32];
    size_t n = 0;
    if (d->serving.current.set)
        memcpy(keep[n++], d->serving.current.h, 32);
    if (d->serving.previous.set)
        memcpy(keep[n++], d->serving.previous.h, 32);
    if (d->install.state != TG_IN_IDLE)
        memcpy(keep[n++], d->journal.pkg.h, 32);
    if (tg_state_prune(&d->state, (const uint8_t(*)[32])keep, n, &err) != TG_OK)
        tg_log_err("agent.prune", &err);
}

/* ---- stopping ---- */

static void end_slot(struct tg_slot *slot)
{
    if (slot && slot->w.serving)
        tg_daemon_slot_drain(slot);
    else
        tg_daemon_slot_kill(slot); /* nobody waits for its answers */
}

static void stop(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    if (d->stopping)
        return;
    d->stopping = true;
    d->dirty = true;
    tg_log(TG_LOG_INFO, "agent.stop", "draining=true");
    if (tg_daemon_slot(d, TG_ROLE_TRIAL)) {
        end_slot(tg_daemon_slot(d, TG_ROLE_TRIAL));
        /* stopped in good order: not the package's fault */
        if (d->journal.step == TG_STEP_ACCEPTED && d->journal.early > 0)
            d->journal.early--;
        else if (d->journal.tries > 0)
            d->journal.tries--;
        if (tg_daemon_step(d, d->journal.step, &err) != TG_OK)
            tg_log_err("agent.journal", &err);
    }
    end_slot(tg_daemon_slot(d, TG_ROLE_SERVING));
    d->serve.state = TG_SV_NONE;
    d->install.state = TG_IN_IDLE;
}

static bool once_done(const struct tg_daemon *d)
{
    bool settled = d->serve.state != TG_SV_STARTING;
    bool offline = d->link.asked && !d->link.online;
    bool stuck = d->install.state == TG_IN_FETCH_WAIT && d->install.breaks >= ONCE_BREAKS_MAX;
    if (!d->opts.once || tg_jobs_busy(d->jobs) || !settled || !d->link.asked)
        return false;
    if (offline || stuck)
        return true;
    return d->install.state == TG_IN_IDLE && d->outbox.n == 0;
}

/* ---- the loop ---- */

/* The sooner of two times; 0 is none. */
static uint64_t sooner(uint64_t at, uint64_t ms)
{
    return ms != 0 && ms < at ? ms : at;
}

static uint64_t earliest(const struct tg_daemon *d)
{
    uint64_t at = d->stopping ? UINT64_MAX : tg_link_wake(d);
    if ((d->install.state == TG_IN_FETCH_WAIT || d->install.state == TG_IN_TRIAL_WAIT) &&
        d->install.wake_ms < at)
        at = d->install.wake_ms;
    if ((d->serve.state == TG_SV_WAIT || d->serve.state == TG_SV_GRANT) && d->serve.wake_ms < at)
        at = d->serve.wake_ms;
    at = sooner(at, d->serve.stable_ms);
    for (size_t i = 0; i < TG_SLOTS; i++) {
        const struct tg_worker *w = &d->slots[i].w;
        if (d->slots[i].role == TG_ROLE_FREE)
            continue;
        at = sooner(at, w->deadline_ms);
        at = sooner(at, w->ping_ms);
        at = sooner(at, tg_words_due(&w->words));
    }
    return at;
}

/* A worker that owes an answer is not known to be well: look again when it has answered. */
static void check_stable(struct tg_daemon *d, uint64_t now)
{
    const struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_SERVING);
    if (d->serve.stable_ms == 0 || now < d->serve.stable_ms)
        return;
    if (slot && slot->w.deadline_ms)
        d->serve.stable_ms = now + STABLE_AGAIN_MS;
    else
        tg_serve_event(d, TG_SVE_STABLE);
}

static void run_timers(struct tg_daemon *d, uint64_t now)
{
    tg_daemon_deadlines(d, now);
    if (d->stopping)
        return;
    if ((d->install.state == TG_IN_FETCH_WAIT || d->install.state == TG_IN_TRIAL_WAIT) &&
        now >= d->install.wake_ms)
        tg_install_event(d, TG_INE_TIMER);
    if (d->serve.state == TG_SV_WAIT && now >= d->serve.wake_ms)
        tg_serve_event(d, TG_SVE_TIMER);
    if (d->serve.state == TG_SV_GRANT && now >= d->serve.wake_ms)
        tg_serve_look(d);
    check_stable(d, now);
    tg_link_next(d, now);
}

/* After each event: do what is due, set the timer for what will be, stop when all is done. */
void tg_daemon_turn(struct tg_daemon *d)
{
    uint64_t now = tg_daemon_now_ms();
    prune(d);
    run_timers(d, now);
    if (once_done(d)) {
        if (d->install.state == TG_IN_FETCH_WAIT) {
            d->result = d->install.why.code;
            d->result_why = d->install.why;
        } else if (d->serve.state == TG_SV_GRANT && d->result == TG_OK) {
            d->result = d->serve.why.code;
            d->result_why = d->serve.why;
        }
        stop(d);
    }
    if (d->dirty) {
        d->dirty = false;
        tg_status_write(d);
    }
    if (d->stopping && !tg_daemon_any_worker(d)) {
        tg_loop_stop(d->loop);
        return;
    }
    uint64_t at = earliest(d);
    now = tg_daemon_now_ms();
    uint64_t in = at <= now ? 1 : at - now;
    if (in > TIMER_MAX_MS)
        in = TIMER_MAX_MS;
    if (tg_loop_rearm(d->timer, (uint32_t)in) != TG_OK)
        tg_log(TG_LOG_ERROR, "agent.timer", "rearm=failed");
}

static void on_timer(void *arg)
{
    tg_daemon_turn(arg);
}

static void on_job(void *arg)
{
    tg_link_ended(arg);
    tg_daemon_turn(arg);
}

static void on_child(void *arg)
{
    tg_daemon_reap(arg);
    tg_daemon_turn(arg);
}

static void on_stop(void *arg)
{
    stop(arg);
    tg_daemon_turn(arg);
}

static void on_hup(void *arg)
{
    struct tg_daemon *d = arg;
    d->link.poll_ms = d->link.send_ms = 0;
    tg_daemon_turn(d);
}

/* ---- setting up ---- */

static TG_RC open_loop(struct tg_daemon *d, struct tg_err *err)
{
    TG_TRY(tg_loop_new(&d->loop, err));

    static const struct {
        int signo;
        tg_loop_fn *fn;
    } signals[] = {
        {SIGCHLD, on_child},
        {SIGTERM, on_stop },
        {SIGINT,  on_stop },
        {SIGHUP,  on_hup  }
    };
    enum tg_rc rc = tg_loop_after(d->loop, 0, on_timer, d, &d->timer);
    for (size_t i = 0; rc == TG_OK && i < TG_ARRAY_LEN(signals); i++)
        rc = tg_loop_signal(d->loop, signals[i].signo, signals[i].fn, d, NULL);
    if (rc == TG_OK)
        rc = tg_loop_fd(d->loop, tg_jobs_fd(d->jobs), TG_LOOP_READ, on_job, d, NULL);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "event loop: %s", tg_rc_text(rc));
    return TG_OK;
}

static TG_RC open_native(struct tg_daemon *d, struct tg_err *err)
{
    const char *set = d->set.native_socket;
    size_t n = strlen(d->set.predict_socket);
    if (strcmp(set, "off") == 0)
        return TG_OK;
    if (set[0]) {
        TG_TEXT_SET(d->native_path, set);
    } else if (n + sizeof ".native" <= sizeof d->native_path) {
        memcpy(d->native_path, d->set.predict_socket, n);
        memcpy(d->native_path + n, ".native", sizeof ".native");
    } else {
        tg_log(TG_LOG_WARN, "agent.native", "socket=none reason=\"its path would be too long\"");
        return TG_OK;
    }
    return tg_listen_native(d->native_path, d->set.socket_group, &d->native, err);
}

static TG_RC open_sockets(struct tg_daemon *d, struct tg_err *err)
{
    TG_TRY(open_native(d, err));
    TG_TRY(tg_listen_unix(d->set.predict_socket, d->set.socket_group, &d->listen[0], err));
    d->n_listen = 1;
    if (!d->set.tcp)
        return TG_OK;
    TG_TRY(tg_listen_loopback((uint16_t)d->set.tcp_port, &d->listen[1], &d->tcp_port, err));
    d->n_listen = 2;
    return TG_OK;
}

static TG_RC open_user(struct tg_daemon *d, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    if (d->set.worker_user[0])
        TG_TRY(tg_user_find(d->set.worker_user, &d->user, err));
    if (d->user.set && geteuid() != 0) {
        if (d->user.uid != geteuid())
            return TG_FAIL(err, TG_E_DENIED,
                           "the worker's user is '%s' (agent.json): only root can start it as "
                           "another user",
                           d->user.name);
        d->user.set = false;
    }
    d->separate = d->user.set;
    TG_TRY(tg_state_path(&d->state, path, err, "kem"));
    d->kem_dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (d->kem_dir < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    return TG_OK;
}

static TG_RC load_records(struct tg_daemon *d, struct tg_err *err)
{
    int64_t from = 0;
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_serving_load(&d->state, &d->serving, err));
    TG_TRY(tg_journal_load(&d->state, &d->journal, err));
    TG_TRY(tg_outbox_load(&d->state, &d->outbox, err));
    TG_TRY(tg_identity_times(&d->state, &from, &d->link.not_after, err));
    d->link.renew_at = tg_identity_renew_at(from, d->link.not_after, d->opts.renew_percent);
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    TG_TRY(tg_policy_rollback_load(&d->state, &record, err));
    TG_TRY(tg_state_path(&d->state, path, err, "rollback.json"));
    if (tg_state_has(path))
        return TG_OK; /* a start neither waits for the disk nor needs room on it */
    return tg_policy_rollback_save(&d->state, record, err); /* workers are handed the file */
}

static TG_RC set_up(struct tg_daemon *d, struct tg_err *err)
{
    struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none); /* a core would hold the TLS key */
    (void)signal(SIGPIPE, SIG_IGN);
    TG_TRY(tg_state_open(&d->state, d->opts.state_dir, false, err));
    TG_TRY(tg_settings_load(&d->state, &d->set, err));
    if (d->opts.protection && !tg_protection_ok(d->opts.protection))
        return TG_FAIL(err, TG_E_USAGE, "--protection: secret, locked or any");
    if (d->opts.protection)
        TG_TEXT_SET(d->set.protection, d->opts.protection);
    TG_TRY(tg_state_lock(&d->state, err));
    TG_TRY(tg_state_tidy(&d->state, err));
    TG_TRY(load_records(d, err));
    TG_TRY(open_user(d, err));
    TG_TRY(open_sockets(d, err));
    TG_TRY(tg_jobs_new(&d->jobs, err));
    return open_loop(d, err);
}

static void tear_down(struct tg_daemon *d)
{
    for (size_t i = 0; i < TG_SLOTS; i++)
        if (d->slots[i].role != TG_ROLE_FREE)
            tg_daemon_slot_kill(&d->slots[i]);
    tg_fd_close(d->install.arrival);
    tg_loop_free(d->loop);
    tg_jobs_free(d->jobs);
    if (d->n_listen > 0)
        (void)unlink(d->set.predict_socket);
    if (d->native >= 0)
        (void)unlink(d->native_path);
    tg_fd_close(d->native);
    for (size_t i = 0; i < d->n_listen; i++)
        tg_fd_close(d->listen[i]);
    tg_fd_close(d->kem_dir);
    tg_state_done(&d->state);
}

TG_RC tg_daemon_run(const struct tg_run_opts *opts, struct tg_err *err)
{
    TG_AUTO(tg_freep) struct tg_daemon *d = tg_calloc(1, sizeof *d);
    if (!d)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    *d = (struct tg_daemon){.opts = *opts,
                            .state = TG_STATE_INIT,
                            .kem_dir = -1,
                            .native = -1,
                            .install.arrival = -1,
                            .dirty = true};
    for (size_t i = 0; i < TG_SLOTS; i++) {
        d->slots[i].daemon = d;
        d->slots[i].w = TG_WORKER_INIT;
    }
    enum tg_rc rc = set_up(d, err);
    if (rc == TG_OK) {
        tg_log(TG_LOG_INFO, "agent.start", "version=%s device=%s fleet=%s separation=%d",
               TG_VERSION, d->set.device_id, d->set.fleet, d->separate);
        if (d->serving.current
                .set) /* before a word with anybody: it must serve without a network */
            tg_serve_event(d, TG_SVE_START);
        tg_install_resume(d);
        d->prune = true; /* what an earlier run left behind */
        rc = tg_loop_run(d->loop, err);
    }
    if (rc == TG_OK && d->result != TG_OK)
        rc = TG_FAIL(err, d->result, "%s", d->result_why.text);
    if (!d->opts.once && d->stopping)
        rc = TG_OK; /* asked to stop */
    tear_down(d);
    return rc;
}
