/* Slots: the workers that live, what they say, and how they end. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/daemon_internal.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/log.h"

#define LATE_MS 1000   /* an agent that is so late was itself stopped, or starved */
#define LINGER_MS 5000 /* a worker that closed its channel has this long to exit */

static const char *const phase_text[] = {
    [TG_WK_NONE] = "starting",         [TG_WK_VERIFYING] = "verifying",
    [TG_WK_DECRYPTING] = "decrypting", [TG_WK_LOADING] = "loading",
    [TG_WK_CHECKING] = "checking",     [TG_WK_HEALTHY] = "starting to serve",
    [TG_WK_SERVING] = "serving",       [TG_WK_DRAINED] = "drained",
    [TG_WK_FAILED] = "failed",
};

struct tg_slot *tg_daemon_slot(struct tg_daemon *d, enum tg_role role)
{
    for (size_t i = 0; i < TG_SLOTS; i++)
        if (d->slots[i].role == role)
            return &d->slots[i];
    return NULL;
}

bool tg_daemon_any_worker(const struct tg_daemon *d)
{
    for (size_t i = 0; i < TG_SLOTS; i++)
        if (d->slots[i].role != TG_ROLE_FREE)
            return true;
    return false;
}

static void slot_close(struct tg_slot *slot)
{
    tg_loop_item_free(slot->item);
    slot->item = NULL;
    tg_worker_close(&slot->w);
}

static void words_close(struct tg_slot *slot)
{
    tg_loop_item_free(slot->words);
    slot->words = NULL;
    tg_words_end(&slot->w.words, tg_daemon_now_ms());
}

static void slot_free(struct tg_slot *slot)
{
    slot_close(slot);
    words_close(slot);
    tg_worker_bake_drop(&slot->w);
    slot->role = TG_ROLE_FREE;
    slot->daemon->dirty = true;
}

/* A package may have two grants: one that a worker opened it with (or the first), and a later one.
 * When the former fails the latter gets its turn, before the failure counts. */
static bool other_grant(const struct tg_slot *slot)
{
    char path[TG_STATE_PATH_MAX];
    tg_state_grant_new(&slot->daemon->state, slot->w.pkg.h, path);
    return (slot->role == TG_ROLE_TRIAL || slot->role == TG_ROLE_SERVING) && !slot->w.new_grant &&
           !slot->w.serving && slot->w.phase == TG_WK_FAILED &&
           tg_worker_failure_of_grant(slot->w.code) && tg_state_has(path);
}

/* Did it fail where a grant may be the reason? One that had the file key failed for another. */
static bool failed_of_grant(const struct tg_slot *slot)
{
    return slot->w.phase == TG_WK_FAILED && !slot->w.opened &&
           tg_worker_failure_of_grant(slot->w.code);
}

/* Is its grant all that was wrong? It is not the worker's word that counts, but what is seen from
 * here of package and grant. */
static bool only_grant(const struct tg_slot *slot, struct tg_err *err)
{
    const struct tg_daemon *d = slot->daemon;
    const struct tg_held *pkg = &slot->w.pkg;
    int64_t now = tg_clock_now();
    if (!failed_of_grant(slot))
        return false;
    if (slot->role == TG_ROLE_SERVING && d->serve.state == TG_SV_STARTING)
        return tg_policy_grant_lacks(&d->state, &d->set, pkg, now, err);
    /* a later grant that seems to do was tried: the platform has nothing better */
    if (slot->role == TG_ROLE_TRIAL && d->install.state == TG_IN_TRIAL)
        return tg_policy_grant_wanted(&d->state, &d->set, pkg, now, err);
    return false;
}

/* The same of a worker that follows the download. Its front was admitted; of the rest the complete
 * file will tell. */
static bool early_without_grant(struct tg_daemon *d, const struct tg_slot *slot)
{
    return tg_stream_slot(d) == slot && failed_of_grant(slot) &&
           !tg_policy_grant_does(&d->state, &slot->w.pkg, tg_clock_now());
}

static bool respawned(struct tg_daemon *d, enum tg_role role, const struct tg_held *pkg)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = tg_daemon_spawn(d, role, pkg, true, &err);
    if (rc != TG_OK)
        tg_log_err("agent.worker", &err);
    return rc == TG_OK;
}

/* What its end, or its failure, means to the machine it belongs to. The slot is free afterwards. */
void tg_daemon_slot_failed(struct tg_slot *slot)
{
    struct tg_daemon *d = slot->daemon;
    enum tg_role role = slot->role;
    bool final = slot->w.phase == TG_WK_FAILED && tg_worker_failure_final(slot->w.code);
    if (role != TG_ROLE_DRAINING) {
        tg_log(TG_LOG_WARN, "agent.worker", "pid=%d failed=%s reason=\"%s\"", (int)slot->w.pid,
               tg_rc_name(slot->w.code), slot->w.reason);
        tg_daemon_why(role == TG_ROLE_TRIAL ? &d->install.why : &d->serve.why, slot->w.code,
                      slot->w.reason);
    }
    struct tg_err err = TG_ERR_INIT;
    bool other = other_grant(slot);
    bool lapsed = only_grant(slot, &err);
    if (early_without_grant(d, slot))
        final = false;
    const struct tg_held pkg = slot->w.pkg;
    tg_worker_kill(&slot->w);
    slot_free(slot);
    if (other && respawned(d, role, &pkg))
        return;
    if (tg_stream_failed(d, role, final))
        return;
    if (role == TG_ROLE_TRIAL && lapsed)
        tg_install_lapsed(d, &err);
    else if (role == TG_ROLE_TRIAL)
        tg_install_event(d, final ? TG_INE_REFUSED : TG_INE_TRIAL_BROKE);
    if (role == TG_ROLE_SERVING && lapsed)
        tg_serve_lapsed(d, &err);
    else if (role == TG_ROLE_SERVING)
        tg_serve_event(d, final ? TG_SVE_REFUSED : TG_SVE_BROKE);
}

static void slot_phase(struct tg_slot *slot)
{
    struct tg_daemon *d = slot->daemon;
    d->dirty = true;
    if (slot->w.phase == TG_WK_FAILED) {
        tg_daemon_slot_failed(slot);
        return;
    }
    if (slot->role == TG_ROLE_TRIAL)
        tg_install_phase(d, slot);
    if (slot->w.phase == TG_WK_SERVING && slot->role == TG_ROLE_TRIAL)
        tg_install_serving(d);
    if (slot->w.phase != TG_WK_HEALTHY)
        return;
    tg_log(TG_LOG_INFO, "agent.healthy", "pid=%d model=%s version=%s ready_ms=%" PRIu64,
           (int)slot->w.pid, slot->w.pkg.model, slot->w.pkg.version, slot->w.ready_ms);
    struct tg_err err = TG_ERR_INIT;
    if (tg_worker_grant_keep(&slot->w, &d->state, &err) != TG_OK)
        tg_log_err("agent.grant", &err); /* both are kept: the next start tries both again */
    if (tg_worker_bake_keep(&slot->w, &d->state, &err) != TG_OK)
        tg_log_err("agent.bake", &err); /* the next start bakes again */
    if (slot->role == TG_ROLE_TRIAL)
        tg_install_healthy(d, slot);
    else if (slot->role == TG_ROLE_SERVING)
        tg_serve_event(d, TG_SVE_HEALTHY);
}

/* One message, and what it changes. */
static TG_RC read_one(struct tg_slot *slot, struct tg_err *err)
{
    enum tg_worker_phase before = slot->w.phase;
    TG_TRY(tg_worker_read(&slot->w, tg_daemon_now_ms(), err));
    if (slot->w.handed[0]) {
        tg_daemon_handed_over(slot->daemon, &slot->w);
        slot->w.handed[0] = 0;
    }
    if (slot->w.again.end != 0)
        tg_stream_again(slot);
    else if (slot->w.phase != before)
        slot_phase(slot);
    return TG_OK;
}

static void hear(struct tg_slot *slot)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = read_one(slot, &err);
    if (rc == TG_E_AGAIN || rc == TG_OK)
        return; /* level-triggered: the next message calls again */
    if (rc == TG_E_CLOSED) {
        slot_close(slot);
        if (slot->w.pid > 0)
            slot->w.deadline_ms = tg_daemon_now_ms() + LINGER_MS;
        tg_daemon_reap(slot->daemon);
        return;
    }
    slot->w.code = rc;
    TG_TEXT_SET(slot->w.reason, err.msg);
    tg_daemon_slot_failed(slot);
}

/* Something waits on a worker's channel. */
static void on_control(void *arg)
{
    struct tg_slot *slot = arg;
    struct tg_daemon *d = slot->daemon;
    hear(slot);
    tg_daemon_turn(d);
}

static void on_words(void *arg)
{
    struct tg_slot *slot = arg;
    if (tg_words_read(&slot->w.words, tg_daemon_now_ms()) == TG_E_CLOSED)
        words_close(slot);
    else if (tg_words_due(&slot->w.words))
        tg_daemon_turn(slot->daemon); /* sets the timer for it */
}

static TG_RC slot_listen(struct tg_slot *slot, struct tg_err *err)
{
    struct tg_loop *loop = slot->daemon->loop;
    enum tg_rc rc = tg_loop_fd(loop, slot->w.ctl, TG_LOOP_READ, on_control, slot, &slot->item);
    if (rc == TG_OK)
        rc = tg_loop_fd(loop, slot->w.words.fd, TG_LOOP_READ, on_words, slot, &slot->words);
    return rc == TG_OK ? TG_OK : TG_FAIL(err, rc, "worker: the event loop: %s", tg_rc_text(rc));
}

TG_RC tg_daemon_spawn(struct tg_daemon *d, enum tg_role role, const struct tg_held *pkg,
                      bool new_grant, struct tg_err *err)
{
    struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_FREE);
    if (!slot)
        return TG_FAIL(err, TG_E_AGAIN, "too many workers are still draining");
    struct tg_worker_start o = {.state = &d->state,
                                .settings = &d->set,
                                .user = &d->user,
                                .pkg = pkg,
                                .kem_dir = d->kem_dir,
                                .n_listen = d->n_listen,
                                .native = d->native,
                                .arrival = role == TG_ROLE_TRIAL ? d->install.arrival : -1,
                                .new_grant = new_grant,
                                .with_deployment = role == TG_ROLE_TRIAL};
    memcpy(o.listen, d->listen, sizeof o.listen);
    slot->w = TG_WORKER_INIT;
    TG_TRY(tg_worker_start(&slot->w, &o, tg_daemon_now_ms(), err));
    enum tg_rc rc = slot_listen(slot, err);
    if (rc != TG_OK) {
        tg_daemon_slot_kill(slot);
        return rc;
    }
    slot->role = role;
    d->dirty = true;
    tg_log(TG_LOG_INFO, "agent.worker", "pid=%d started=%s", (int)slot->w.pid,
           slot->w.early ? "early" : (role == TG_ROLE_TRIAL ? "trial" : "serving"));
    return TG_OK;
}

void tg_daemon_slot_kill(struct tg_slot *slot)
{
    if (!slot)
        return;
    tg_worker_kill(&slot->w);
    slot_free(slot);
}

void tg_daemon_slot_drain(struct tg_slot *slot)
{
    if (!slot)
        return;
    struct tg_daemon *d = slot->daemon;
    struct tg_err err = TG_ERR_INIT;
    slot->role = TG_ROLE_DRAINING;
    if (tg_worker_drain(&slot->w, tg_daemon_now_ms() + d->set.drain_timeout_s * 1000, &err) !=
        TG_OK)
        tg_daemon_slot_kill(slot);
}

/* What waits in the channel, although the process may be gone. */
static void hear_out(struct tg_slot *slot)
{
    struct tg_err err = TG_ERR_INIT;
    while (slot->role != TG_ROLE_FREE && slot->w.ctl >= 0 && slot->w.phase != TG_WK_FAILED)
        if (read_one(slot, &err) != TG_OK)
            return;
}

void tg_daemon_reap(struct tg_daemon *d)
{
    for (size_t i = 0; i < TG_SLOTS; i++) {
        struct tg_slot *slot = &d->slots[i];
        if (slot->role == TG_ROLE_FREE)
            continue;
        hear_out(slot); /* its last words first */
        if (slot->role != TG_ROLE_FREE && tg_worker_reap(&slot->w))
            tg_daemon_slot_failed(slot);
    }
}

static void ping(struct tg_slot *slot, uint64_t now_ms)
{
    struct tg_err err = TG_ERR_INIT;
    if (tg_worker_ping(&slot->w, now_ms, &err) != TG_OK)
        tg_log_err("agent.worker", &err); /* its end will be seen to */
}

static bool overdue(const struct tg_slot *slot, uint64_t now_ms)
{
    return slot->role != TG_ROLE_FREE && slot->w.deadline_ms != 0 && now_ms >= slot->w.deadline_ms;
}

static void hung(struct tg_slot *slot, uint64_t now_ms)
{
    struct tg_worker *w = &slot->w;
    w->code = TG_E_TIMEOUT;
    if (!w->reason[0] && w->serving)
        (void)snprintf(w->reason, sizeof w->reason,
                       "the worker hung while %s: no answer for %" PRIu64 " s; killed",
                       phase_text[w->phase], w->timeout_ms / 1000);
    else if (!w->reason[0])
        (void)snprintf(w->reason, sizeof w->reason,
                       "the worker hung while %s: no end after %" PRIu64 " s; killed",
                       phase_text[w->phase], (now_ms - w->started_ms) / 1000);
    tg_daemon_slot_failed(slot);
}

/* An answer may wait unread when this process was stopped for a while; and when both were, as
 * together with a machine or a container, the worker has not had its time. */
static void check_deadline(struct tg_slot *slot, uint64_t now_ms)
{
    if (!overdue(slot, now_ms))
        return;
    uint64_t late = now_ms - slot->w.deadline_ms;
    hear_out(slot);
    if (!overdue(slot, now_ms))
        return;
    if (slot->w.pinged && late > LATE_MS)
        slot->w.deadline_ms = now_ms + slot->w.timeout_ms;
    else
        hung(slot, now_ms);
}

void tg_daemon_deadlines(struct tg_daemon *d, uint64_t now_ms)
{
    for (size_t i = 0; i < TG_SLOTS; i++) {
        struct tg_slot *slot = &d->slots[i];
        check_deadline(slot, now_ms);
        tg_words_tell(&slot->w.words, now_ms);
        if (slot->role != TG_ROLE_FREE && slot->w.ping_ms != 0 && now_ms >= slot->w.ping_ms)
            ping(slot, now_ms);
    }
}
