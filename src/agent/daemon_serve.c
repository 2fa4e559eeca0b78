/* The serving machine's actions: start, serve, restart, fall back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/daemon_internal.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/log.h"

#define BACKOFF_MS 500
#define BACKOFF_CAP_MS 60000
#define STABLE_MS 60000
#define LOOK_MS 1000
#define LOOK_CAP_MS (5 * 60 * 1000)

/* What the record says must not be lost: if it cannot be written the worker must not serve. */
static void start_serving(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_SERVING);
    if (!slot)
        return;
    enum tg_rc rc = tg_policy_accept(&d->state, &d->serving.current, &err);
    if (rc == TG_OK)
        rc = tg_worker_serve(&slot->w, tg_daemon_now_ms(), &err);
    if (rc != TG_OK) {
        tg_daemon_why(&d->serve.why, rc, err.msg);
        tg_serve_event(d, TG_SVE_BROKE);
        return;
    }
    d->serve.stable_ms = tg_daemon_now_ms() + STABLE_MS;
    d->serve.why = (struct tg_why){0};
    d->serve.looks = 0;
    bool unfinished = d->journal.set && tg_mem_eq(d->journal.pkg.h, d->serving.current.h, 32) &&
                      (d->journal.step == TG_STEP_HEALTHY || d->journal.step == TG_STEP_TRYING ||
                       d->journal.step == TG_STEP_FETCHED);
    if (!unfinished || d->install.state != TG_IN_IDLE)
        return;
    /* the agent was stopped between writing what serves and saying so */
    tg_daemon_report(d, d->journal.pkg.deployment_id, TG_UPDATE_RUNNING, NULL);
    if (tg_daemon_step(d, TG_STEP_RUNNING, &err) != TG_OK)
        tg_log_err("agent.journal", &err);
    d->prune = true;
}

static void fall_back(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_held bad = d->serving.current;
    struct tg_why why = d->serve.why;
    char text[TG_REASON_TEXT + 256];
    (void)snprintf(text, sizeof text, "went back to %.64s %.32s: %s", d->serving.previous.model,
                   d->serving.previous.version, why.text);
    tg_daemon_why(&why, why.code, text);
    tg_log(TG_LOG_ERROR, "agent.fallback", "deployment=%s reason=\"%s\"", bad.deployment_id,
           why.text);
    /* report, journal, record, in this order: a kill between them goes through it again */
    tg_daemon_report(d, bad.deployment_id, TG_UPDATE_ROLLED_BACK, &why);
    if (d->journal.set && d->journal.step == TG_STEP_RUNNING &&
        tg_mem_eq(d->journal.pkg.h, bad.h, 32)) {
        TG_TEXT_SET(d->journal.code, tg_rc_name(why.code));
        TG_TEXT_SET(d->journal.reason, why.text);
        if (tg_daemon_step(d, TG_STEP_ROLLED_BACK, &err) != TG_OK)
            tg_log_err("agent.journal", &err);
    }
    d->serving = (struct tg_serving){.current = d->serving.previous};
    if (tg_serving_save(&d->state, &d->serving, &err) != TG_OK)
        tg_log_err("agent.serving", &err);
    d->result = why.code;
    d->result_why = why;
}

static void spawn(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = tg_daemon_spawn(d, TG_ROLE_SERVING, &d->serving.current, false, &err);
    if (rc == TG_OK)
        return;
    tg_daemon_why(&d->serve.why, rc, err.msg);
    tg_log_err("agent.worker", &err);
    tg_serve_event(d, TG_SVE_BROKE);
}

/* Not counted as a restart, and told once: it can take days. */
static void arm_look(struct tg_daemon *d)
{
    uint64_t pause = tg_backoff_ms(++d->serve.looks, LOOK_MS, LOOK_CAP_MS, tg_daemon_random());
    d->serve.wake_ms = tg_daemon_now_ms() + pause;
    d->serve.grant = true;
    if (d->serve.looks == 1)
        tg_log(TG_LOG_WARN, "agent.serving", "waiting=grant reason=\"%s\"", d->serve.why.text);
}

static void arm(struct tg_daemon *d)
{
    if (d->serve.state == TG_SV_GRANT) {
        arm_look(d);
        return;
    }
    uint64_t pause =
        tg_backoff_ms(d->serve.failures, BACKOFF_MS, BACKOFF_CAP_MS, tg_daemon_random());
    d->serve.wake_ms = tg_daemon_now_ms() + pause;
    d->serve.restarts++;
    d->serve.last = d->serve.why;
    d->serve.grant |= d->serve.why.code == TG_E_EXPIRED || d->serve.why.code == TG_E_NOTFORKEY;
    tg_log(TG_LOG_WARN, "agent.serving", "failures=%u waiting_ms=%" PRIu64 " reason=\"%s\"",
           d->serve.failures, pause, d->serve.why.text);
}

static void act(struct tg_daemon *d, uint32_t actions)
{
    if (actions & TG_ACT_KILL)
        tg_daemon_slot_kill(tg_daemon_slot(d, TG_ROLE_SERVING));
    if (actions & TG_ACT_FALL_BACK)
        fall_back(d);
    if (actions & TG_ACT_RESET) {
        d->serve.failures = 0;
        d->serve.stable_ms = 0;
    }
    if (actions & TG_ACT_SERVE)
        start_serving(d);
    if (actions & TG_ACT_ARM)
        arm(d);
    if (actions & TG_ACT_SPAWN)
        spawn(d);
}

void tg_serve_event(struct tg_daemon *d, enum tg_serving_event ev)
{
    char path[TG_STATE_PATH_MAX];
    if (ev == TG_SVE_BROKE || ev == TG_SVE_REFUSED) {
        d->serve.failures++;
        d->serve.stable_ms = 0;
    }
    tg_state_package(&d->state, d->serving.previous.h, path);
    struct tg_machine_facts facts = {.failures = d->serve.failures,
                                     .can_fall_back =
                                         d->serving.previous.set && tg_state_has(path)};
    if (ev == TG_SVE_TAKEN) { /* of another package's worker */
        d->serve.last = d->serve.why = (struct tg_why){0};
        d->serve.looks = 0;
    }
    d->dirty = true;
    act(d, tg_serving_step(&d->serve.state, ev, &facts));
}

void tg_serve_lapsed(struct tg_daemon *d, const struct tg_err *err)
{
    char text[TG_ERR_MAX + TG_REASON_TEXT + 64];
    bool later =
        tg_policy_grant_kept(&d->state, &d->serving.current, true, tg_clock_now(), NULL) == TG_OK;
    (void)snprintf(text, sizeof text, "%s%s%s", err->msg,
                   later ? "; the later one does not do: " : "", later ? d->serve.why.text : "");
    tg_daemon_why_grant(&d->serve.why, later ? d->serve.why.code : err->rc, text);
    tg_serve_event(d, TG_SVE_LAPSED);
}

void tg_serve_look(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    if (d->serve.state != TG_SV_GRANT)
        return;
    bool wanted =
        tg_policy_grant_wanted(&d->state, &d->set, &d->serving.current, tg_clock_now(), &err);
    tg_serve_event(d, wanted ? TG_SVE_TIMER : TG_SVE_GRANTED);
}

void tg_serve_trust_changed(struct tg_daemon *d)
{
    struct tg_err err = TG_ERR_INIT;
    tg_serve_look(d);
    if (d->serve.state != TG_SV_SERVING)
        return; /* a worker that starts reads the store itself */
    enum tg_rc rc = tg_policy_still_trusted(&d->state, &d->serving.current, &err);
    if (rc != TG_E_AUTH && rc != TG_E_DENIED)
        return;
    tg_err_wrap(&err, "the trust store changed");
    tg_daemon_why(&d->serve.why, rc, err.msg);
    tg_serve_event(d, TG_SVE_REFUSED);
}
