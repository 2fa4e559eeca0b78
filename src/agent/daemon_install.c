/* The install machine's actions: fetch, try, switch over, give up. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/daemon_internal.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypto/hash.h"

#define FETCH_BACKOFF_MS 500
#define FETCH_BACKOFF_CAP_MS (5 * 60 * 1000)
#define TRIAL_BACKOFF_MS 500
#define TRIAL_BACKOFF_CAP_MS 30000

/* ---- actions ---- */

static void give_up(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    TG_TEXT_SET(d->journal.code, tg_rc_name(d->install.why.code));
    TG_TEXT_SET(d->journal.reason, d->install.why.text);
    tg_log(TG_LOG_ERROR, "agent.update", "deployment=%s failed=%s reason=\"%s\"",
           d->journal.pkg.deployment_id, d->journal.code, d->journal.reason);
    tg_daemon_report(d, d->journal.pkg.deployment_id, TG_UPDATE_FAILED, &d->install.why);
    if (tg_daemon_step(d, TG_STEP_FAILED, &err) != TG_OK) {
        tg_log_err("agent.journal", &err);
        d->journal.step = TG_STEP_FAILED; /* at least until a restart, which then tries again */
    }
    d->result = d->install.why.code;
    d->result_why = d->install.why;
    d->prune = true;
}

static void drop(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    tg_log(TG_LOG_INFO, "agent.update", "deployment=%s withdrawn=true",
           d->journal.pkg.deployment_id);
    if (tg_daemon_step(d, TG_STEP_WITHDRAWN, &err) != TG_OK) {
        tg_log_err("agent.journal", &err);
        d->journal.step = TG_STEP_WITHDRAWN;
    }
    d->prune = true;
}

/* The rollback record is durable already (tg_install_healthy). The old worker goes on until this
 * one says that it accepts. */
static void serve_trial(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_slot *fresh = tg_daemon_slot(d, TG_ROLE_TRIAL);
    enum tg_rc rc = TG_E_CLOSED;
    if (fresh)
        rc = tg_worker_serve(&fresh->w, tg_daemon_now_ms(), &err);
    if (rc == TG_OK)
        return;
    tg_daemon_why(&d->install.why, rc, err.msg);
    tg_install_event(d, TG_INE_TRIAL_BROKE);
}

/* The records are durable already and the new worker accepts: let the old one go. */
static void commit(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_slot *fresh = tg_daemon_slot(d, TG_ROLE_TRIAL);
    struct tg_slot *old = tg_daemon_slot(d, TG_ROLE_SERVING);
    if (fresh)
        fresh->role = TG_ROLE_SERVING;
    if (old && old->w.serving)
        tg_daemon_slot_drain(old);
    else
        tg_daemon_slot_kill(old); /* it was still loading: nobody waits for its answers */
    tg_log(TG_LOG_INFO, "agent.update", "deployment=%s running=true model=%s version=%s",
           d->journal.pkg.deployment_id, d->journal.pkg.model, d->journal.pkg.version);
    d->journal.code[0] = d->journal.reason[0] = 0;
    /* first the report, then the step: a kill between the two repeats the report, and never loses
     * it */
    tg_daemon_report(d, d->journal.pkg.deployment_id, TG_UPDATE_RUNNING, NULL);
    if (tg_daemon_step(d, TG_STEP_RUNNING, &err) != TG_OK)
        tg_log_err("agent.journal", &err);
    d->prune = true;
    tg_serve_event(d, TG_SVE_TAKEN);
}

static void start_fetch(struct tg_daemon *d)
{
    d->install.fetch = true;
    d->install.hold = false;
    if (d->install.fresh) {
        d->install.have = 0;
        d->install.alone = false;
        d->install.here = false;
    }
    if (!d->install.here) /* the reason for which it waits stays told */
        tg_daemon_report(d, d->journal.pkg.deployment_id, TG_UPDATE_DOWNLOADING,
                         d->install.lapsed ? &d->install.why : NULL);
}

/* The number of tries is written down before each, so that a package that takes the whole device
 * down while it loads is not tried for ever. */
static void spawn_trial(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    d->journal.tries++;
    d->install.told = TG_WK_NONE;
    enum tg_rc rc = tg_daemon_step(d, TG_STEP_TRYING, &err);
    if (rc == TG_OK && tg_stream_adopt(d))
        return;
    if (rc == TG_OK)
        rc = tg_daemon_spawn(d, TG_ROLE_TRIAL, &d->journal.pkg, false, &err);
    if (rc == TG_OK)
        return;
    tg_daemon_why(&d->install.why, rc, err.msg);
    tg_log_err("agent.worker", &err);
    tg_install_event(d, TG_INE_TRIAL_BROKE);
}

static void arm(struct tg_daemon *d)
{
    bool trial = d->install.state == TG_IN_TRIAL_WAIT;
    uint64_t pause = trial ? tg_backoff_ms((unsigned)d->journal.tries, TRIAL_BACKOFF_MS,
                                           TRIAL_BACKOFF_CAP_MS, tg_daemon_random())
                           : tg_backoff_ms(d->install.breaks, FETCH_BACKOFF_MS,
                                           FETCH_BACKOFF_CAP_MS, tg_daemon_random());
    d->install.wake_ms = tg_daemon_now_ms() + pause;
    tg_log(TG_LOG_WARN, "agent.update", "deployment=%s waiting_ms=%" PRIu64 " reason=\"%s\"",
           d->journal.pkg.deployment_id, pause, d->install.why.text);
}

static void act(struct tg_daemon *d, uint32_t actions)
{
    if (actions & TG_ACT_KILL) {
        tg_stream_end(d);
        tg_daemon_slot_kill(tg_daemon_slot(d, TG_ROLE_TRIAL));
    }
    if (actions & TG_ACT_STOP_FETCH) {
        d->install.fetch = false;
        tg_jobs_cancel(d->jobs);
    }
    if (actions & TG_ACT_GIVE_UP)
        give_up(d);
    if (actions & TG_ACT_DROP)
        drop(d);
    if (actions & TG_ACT_COMMIT)
        commit(d);
    if (actions & TG_ACT_RESET) {
        d->install.breaks = 0;
        d->journal.tries = 0;
    }
    if (actions & TG_ACT_FETCH)
        start_fetch(d);
    if (actions & TG_ACT_SERVE)
        serve_trial(d);
    if (actions & TG_ACT_ARM)
        arm(d);
    if (actions & TG_ACT_SPAWN)
        spawn_trial(d);
}

void tg_install_event(struct tg_daemon *d, enum tg_install_event ev)
{
    struct tg_machine_facts facts = {.failures = (unsigned)d->journal.tries};
    if (ev == TG_INE_FETCH_BROKE)
        d->install.breaks++;
    d->dirty = true;
    act(d, tg_install_step(&d->install.state, ev, &facts));
}

/* ---- what workers on trial say ---- */

void tg_install_phase(struct tg_daemon *d, const struct tg_slot *slot)
{
    enum tg_worker_phase p = slot->w.phase;
    bool verifying = p == TG_WK_VERIFYING;
    bool loading = p == TG_WK_DECRYPTING || p == TG_WK_LOADING || p == TG_WK_CHECKING;
    enum tg_worker_phase tell = verifying ? TG_WK_VERIFYING : loading ? TG_WK_LOADING : TG_WK_NONE;
    if (tell == TG_WK_NONE || tell == d->install.told || d->install.state != TG_IN_TRIAL)
        return; /* the download is what is reported as long as it lasts */
    d->install.told = tell;
    tg_daemon_report(d, d->journal.pkg.deployment_id,
                     verifying ? TG_UPDATE_VERIFYING : TG_UPDATE_LOADING, NULL);
}

void tg_install_lapsed(struct tg_daemon *d, const struct tg_err *err)
{
    d->install.lapsed = d->install.here = true;
    tg_daemon_why_grant(&d->install.why, err->rc, err->msg);
    tg_daemon_report(d, d->journal.pkg.deployment_id, TG_UPDATE_DOWNLOADING, &d->install.why);
    tg_install_event(d, TG_INE_LAPSED);
}

/* The rollback record before it serves, what serves when it does. A kill between the two, or a
 * worker that breaks there, is harmless: the record lets the package that served just before run
 * on. */
static TG_RC record_healthy(struct tg_daemon *d, struct tg_err *err)
{
    TG_TRY(tg_daemon_step(d, TG_STEP_HEALTHY, err));
    TG_TRY(tg_policy_accept(&d->state, &d->journal.pkg, err));
    tg_daemon_point(d, "recorded");
    return TG_OK;
}

static TG_RC record_serving(struct tg_daemon *d, struct tg_err *err)
{
    struct tg_serving next = d->serving;
    if (next.current.set && !tg_mem_eq(next.current.h, d->journal.pkg.h, 32))
        next.previous = next.current;
    next.current = d->journal.pkg;
    TG_TRY(tg_serving_save(&d->state, &next, err));
    d->serving = next;
    tg_daemon_point(d, "switched");
    return TG_OK;
}

void tg_install_healthy(struct tg_daemon *d, struct tg_slot *slot)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = TG_OK;
    if (d->install.state != TG_IN_TRIAL) {
        d->install.hold = false; /* ahead of the download's end, which comes first */
        return;
    }
    if (slot->w.pkg.sequence != d->journal.pkg.sequence ||
        slot->w.pkg.floor != d->journal.pkg.floor ||
        strcmp(slot->w.pkg.model, d->journal.pkg.model) != 0)
        rc = TG_FAIL(&err, TG_E_INTERNAL,
                     "the worker read another model, sequence or floor than the agent");
    if (rc == TG_OK)
        rc = record_healthy(d, &err);
    if (rc == TG_OK) {
        tg_install_event(d, TG_INE_HEALTHY);
        return;
    }
    tg_daemon_why(&d->install.why, rc, err.msg);
    tg_install_event(d, TG_INE_TRIAL_BROKE);
}

void tg_install_serving(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = record_serving(d, &err);
    if (rc == TG_OK) {
        tg_install_event(d, TG_INE_SERVING);
        return;
    }
    tg_daemon_why(&d->install.why, rc, err.msg);
    tg_install_event(d, TG_INE_TRIAL_BROKE);
}

/* ---- what the platform wants ---- */

static TG_RC store_document(struct tg_daemon *d, const struct tg_directive *dir, struct tg_err *err)
{
    struct tg_bytes text = tg_bytes_make(dir->document, dir->document_n);
    char path[TG_STATE_PATH_MAX];
    TG_TRY(tg_policy_deployment(&d->state, &d->set, text, &dir->pkg, tg_clock_now(), err));
    tg_state_deployment(&d->state, dir->pkg.h, path);
    return tg_file_write(path, text, 0600, true, err);
}

static bool grant_is(const char *path, const uint8_t sha256[32])
{
    uint8_t have[32];
    struct tg_buf text = TG_BUF_INIT(TG_WIRE_GRANT_MAX);
    bool same = tg_file_read(path, &text, NULL) == TG_OK &&
                tg_sha256(tg_buf_view(&text), have) == TG_OK && tg_mem_eq(have, sha256, 32);
    tg_buf_done(&text);
    return same;
}

/* The platform has a grant for what serves: is it a new one? */
static void look_at_grant(struct tg_daemon *d, const struct tg_directive *dir)
{
    static const uint8_t unsaid[32];
    char path[TG_STATE_PATH_MAX];
    if (!dir->grant || !d->serving.current.set ||
        !tg_mem_eq(d->serving.current.h, dir->pkg.h, 32) ||
        tg_mem_eq(dir->grant_sha256, unsaid, 32) ||
        tg_mem_eq(dir->grant_sha256, d->serve.grant_refused, 32))
        return;
    tg_state_grant(&d->state, dir->pkg.h, path);
    if (grant_is(path, dir->grant_sha256))
        return;
    tg_state_grant_new(&d->state, dir->pkg.h, path);
    if (grant_is(path, dir->grant_sha256))
        return;
    memcpy(d->serve.grant_asked, dir->grant_sha256, 32);
    d->serve.grant = true;
}

/* What it is about is what serves already: only the deployment is new. */
static void already_running(struct tg_daemon *d, const struct tg_directive *dir)
{
    struct tg_err err = TG_ERR_INIT;
    d->journal = (struct tg_journal){.set = true, .pkg = d->serving.current};
    TG_TEXT_SET(d->journal.pkg.deployment_id, dir->pkg.deployment_id);
    d->serving.current = d->journal.pkg;
    tg_daemon_report(d, dir->pkg.deployment_id, TG_UPDATE_RUNNING, NULL);
    enum tg_rc rc = tg_serving_save(&d->state, &d->serving, &err);
    if (rc == TG_OK)
        rc = tg_daemon_step(d, TG_STEP_RUNNING, &err);
    if (rc != TG_OK)
        tg_log_err("agent.journal", &err);
    look_at_grant(d, dir);
}

static void begin(struct tg_daemon *d, const struct tg_directive *dir)
{
    struct tg_err err = TG_ERR_INIT;
    if (d->install.state != TG_IN_IDLE)
        tg_install_event(d, TG_INE_WITHDRAWN);
    enum tg_rc rc = TG_OK;
    if (dir->document)
        rc = store_document(d, dir, &err);
    else
        rc = TG_FAIL(&err, TG_E_AUTH, "the platform sent no signed deployment");
    if (rc == TG_OK && d->serving.current.set && d->serve.state == TG_SV_SERVING &&
        tg_mem_eq(d->serving.current.h, dir->pkg.h, 32)) {
        already_running(d, dir);
        return;
    }
    if (rc == TG_E_IO || rc == TG_E_NOMEM) { /* this device's trouble: ask again at the next */
        tg_daemon_why(&d->link.why, rc, err.msg);
        tg_log_err("agent.deployment", &err);
        return;
    }
    if (rc == TG_E_EXPIRED) { /* perhaps this clock is wrong: look again at the next check-in */
        struct tg_why why;
        tg_daemon_why(&why, rc, err.msg);
        d->link.why = why;
        if (dir->update_state != TG_UPDATE_FAILED)
            tg_daemon_report(d, dir->pkg.deployment_id, TG_UPDATE_FAILED, &why);
        return;
    }
    d->journal = (struct tg_journal){.set = true, .pkg = dir->pkg};
    d->install.grant = dir->grant;
    d->install.lapsed = false;
    memcpy(d->install.grant_seen, dir->grant_sha256, 32);
    if (rc != TG_OK) {
        tg_daemon_why(&d->install.why, rc, err.msg);
        give_up(d);
        return;
    }
    tg_log(TG_LOG_INFO, "agent.update", "deployment=%s accepted=true size=%" PRIu64,
           dir->pkg.deployment_id, dir->pkg.size);
    rc = tg_daemon_step(d, TG_STEP_ACCEPTED, &err);
    if (rc != TG_OK) { /* no room for the journal: ask again at the next check-in */
        tg_log_err("agent.journal", &err);
        tg_daemon_why(&d->link.why, rc, err.msg);
        d->journal.set = false;
        return;
    }
    d->install.fresh = true;
    tg_install_event(d, TG_INE_OFFER);
}

/* A grant that was not there when it was asked for last is not left to the pause. */
static void look_at_awaited_grant(struct tg_daemon *d, const struct tg_directive *dir)
{
    bool news = dir->grant && !tg_mem_eq(dir->grant_sha256, d->install.grant_seen, 32);
    memcpy(d->install.grant_seen, dir->grant_sha256, 32);
    if (news && d->install.here && d->install.state == TG_IN_FETCH_WAIT)
        d->install.wake_ms = 0;
}

/* The same deployment again: a renewed document, a co-signed file, or a report the platform lost.
 */
static void again(struct tg_daemon *d, const struct tg_directive *dir)
{
    struct tg_err err = TG_ERR_INIT;
    bool failed = d->journal.step == TG_STEP_FAILED || d->journal.step == TG_STEP_ROLLED_BACK;
    if (dir->document && !failed && store_document(d, dir, &err) != TG_OK)
        tg_log_err("agent.deployment", &err);
    d->install.grant = dir->grant;
    look_at_grant(d, dir);
    look_at_awaited_grant(d, dir);
    bool fetching = d->install.state == TG_IN_FETCHING || d->install.state == TG_IN_FETCH_WAIT;
    if (fetching && !tg_mem_eq(d->journal.pkg.blob, dir->pkg.blob, 32)) {
        tg_stream_end(d); /* it reads the other file */
        memcpy(d->journal.pkg.blob, dir->pkg.blob, 32);
        d->journal.pkg.size = dir->pkg.size;
        if (tg_daemon_step(d, d->journal.step, &err) != TG_OK)
            tg_log_err("agent.journal", &err);
    }
    if (tg_outbox_first(&d->outbox))
        return;
    if (d->journal.step == TG_STEP_RUNNING && d->serve.state == TG_SV_SERVING &&
        dir->update_state != TG_UPDATE_RUNNING)
        tg_daemon_report(d, dir->pkg.deployment_id, TG_UPDATE_RUNNING, NULL);
    enum tg_update_state say =
        d->journal.step == TG_STEP_FAILED ? TG_UPDATE_FAILED : TG_UPDATE_ROLLED_BACK;
    if (failed && dir->update_state != say) {
        struct tg_why why;
        tg_daemon_why(&why, tg_rc_from_name(d->journal.code), d->journal.reason);
        tg_daemon_report(d, dir->pkg.deployment_id, say, &why);
    }
}

void tg_install_directive(struct tg_daemon *d, const struct tg_directive *dir)
{
    struct tg_err err = TG_ERR_INIT;
    if (d->install.state == TG_IN_SWITCHING)
        return; /* a moment from its end: the next check-in says it again */
    if (!dir) {
        if (d->install.state != TG_IN_IDLE)
            tg_install_event(d, TG_INE_WITHDRAWN);
        return;
    }
    if (tg_outbox_raise(&d->state, &d->outbox, dir->seq, &err) != TG_OK)
        tg_log_err("agent.outbox", &err);
    bool known = d->journal.set && d->journal.step != TG_STEP_WITHDRAWN &&
                 strcmp(d->journal.pkg.deployment_id, dir->pkg.deployment_id) == 0 &&
                 tg_mem_eq(d->journal.pkg.h, dir->pkg.h, 32);
    if (known)
        again(d, dir);
    else
        begin(d, dir);
}

/* ---- after a restart ---- */

void tg_install_resume(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    if (!d->journal.set)
        return;
    bool serves = d->serving.current.set && tg_mem_eq(d->serving.current.h, d->journal.pkg.h, 32);
    switch (d->journal.step) {
    case TG_STEP_ACCEPTED:
        d->install.grant = true; /* ask; the next check-in says whether there is one */
        d->install.fresh = true;
        tg_install_event(d, TG_INE_OFFER);
        return;
    case TG_STEP_FETCHED:
    case TG_STEP_TRYING:
    case TG_STEP_HEALTHY:
        if (serves)
            return; /* recorded; the serving machine starts it and says so when it runs */
        if (tg_policy_grant_wanted(&d->state, &d->set, &d->journal.pkg, tg_clock_now(), &err)) {
            tg_daemon_why_grant(&d->install.why, err.rc, err.msg);
            d->install.lapsed = d->install.fresh = true; /* the package stays: only that is due */
            tg_install_event(d, TG_INE_OFFER);
            return;
        }
        tg_daemon_why(&d->install.why, TG_E_CLOSED,
                      "the agent was stopped each time this package was being loaded");
        tg_install_event(d, TG_INE_FETCHED);
        return;
    case TG_STEP_RUNNING:
    case TG_STEP_FAILED:
    case TG_STEP_WITHDRAWN:
    case TG_STEP_ROLLED_BACK:
    case TG_STEPS:
        return;
    }
}
