/* The link to the platform: which network job is due, and what its end means. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/daemon_internal.h"
#include "agent/identity.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypto/hash.h"

#define BACKOFF_MS 1000
#define BACKOFF_CAP_MS (5 * 60 * 1000)
#define STREAM_BREAKS_MAX 3 /* of the download, in a row, that a worker which follows waits out */
#define RENEW_PAUSE_MS (10 * 60 * 1000)

/* ---- starting ---- */

/* What the operator reads about this device when nothing is under way. */
static void status_line(const struct tg_daemon *d, char out[TG_REASON_TEXT])
{
    char text[TG_REASON_TEXT + 64] = "";
    if (d->serve.state != TG_SV_SERVING && d->serve.why.text[0])
        (void)snprintf(text, sizeof text, "%s: %s", tg_serving_state_name(d->serve.state),
                       d->serve.why.text);
    else if (d->serve.last.text[0])
        (void)snprintf(text, sizeof text, "serving; restarted %" PRIu64 " time%s, last because: %s",
                       d->serve.restarts, d->serve.restarts == 1 ? "" : "s", d->serve.last.text);
    else if (d->install.state == TG_IN_FETCH_WAIT || d->install.state == TG_IN_TRIAL_WAIT)
        (void)snprintf(text, sizeof text, "%s: %s", tg_install_state_name(d->install.state),
                       d->install.why.text);
    tg_text_set(out, TG_REASON_TEXT, text);
}

static void have_document(const struct tg_daemon *d, uint8_t out[32])
{
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text = TG_BUF_INIT(TG_WIRE_DEPLOYMENT_DOC_MAX);
    if (!d->journal.set)
        return;
    tg_state_deployment(&d->state, d->journal.pkg.h, path);
    if (tg_file_read(path, &text, NULL) == TG_OK && tg_sha256(tg_buf_view(&text), out) != TG_OK)
        memset(out, 0, 32);
    tg_buf_done(&text);
}

static void start_checkin(struct tg_daemon *d, struct tg_job *job)
{
    job->kind = TG_JOB_CHECKIN;
    job->separation = d->separate;
    if (d->serve.state == TG_SV_SERVING) {
        const struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_SERVING);
        job->pkg = d->serving.current;
        if (slot)
            TG_TEXT_SET(job->protection, slot->w.protection);
    }
    status_line(d, job->status);
    have_document(d, job->have_document);
}

static bool follower_opened(struct tg_daemon *d)
{
    const struct tg_slot *follower = tg_stream_slot(d);
    return follower && follower->w.opened;
}

static void start_fetch(struct tg_daemon *d, struct tg_job *job)
{
    char path[TG_STATE_PATH_MAX];
    job->kind = TG_JOB_FETCH;
    job->pkg = d->journal.pkg;
    job->grant = d->install.grant || d->install.lapsed;
    job->fresh = d->install.fresh;
    job->stream = tg_stream_wanted(d);
    const struct tg_slot *follower = tg_stream_slot(d);
    job->followed = follower && follower->w.phase < TG_WK_HEALTHY;
    job->opened = follower_opened(d);
    d->install.fresh = false;
    tg_state_package(&d->state, job->pkg.h, path);
    job->present = (d->install.have == 0 || d->install.here) && tg_state_has(path);
}

static bool renew_due(const struct tg_daemon *d, uint64_t now_ms)
{
    return d->link.checked_in && d->link.renew_at > 0 && tg_clock_now() >= d->link.renew_at &&
           now_ms >= d->link.renew_ms;
}

static bool may_fetch(const struct tg_daemon *d)
{
    return d->install.fetch && d->link.checked_in && !d->install.hold;
}

void tg_link_next(struct tg_daemon *d, uint64_t now_ms)
{
    if (tg_jobs_busy(d->jobs) || d->stopping)
        return;
    struct tg_job job = {.state = &d->state, .settings = &d->set};
    const struct tg_outbox_item *report = tg_outbox_first(&d->outbox);
    if (report && now_ms >= d->link.send_ms) {
        job.kind = TG_JOB_REPORT;
        job.report = *report;
    } else if (now_ms >= d->link.poll_ms) {
        start_checkin(d, &job);
    } else if (d->serve.grant && d->link.online && d->serving.current.set) {
        job.kind = TG_JOB_GRANT; /* a small one, once: before the next part of a download */
        job.pkg = d->serving.current;
    } else if (may_fetch(d)) {
        start_fetch(d, &job);
    } else if (renew_due(d, now_ms)) {
        job.kind = TG_JOB_RENEW;
    } else {
        return;
    }
    tg_jobs_start(d->jobs, &job);
}

uint64_t tg_link_wake(const struct tg_daemon *d)
{
    if (tg_jobs_busy(d->jobs))
        return UINT64_MAX; /* its end wakes us */
    uint64_t wake = d->link.poll_ms;
    if (tg_outbox_first(&d->outbox) && d->link.send_ms < wake)
        wake = d->link.send_ms;
    if (may_fetch(d) || (d->serve.grant && d->link.online && d->serving.current.set))
        wake = 0;
    return wake;
}

/* ---- ends ---- */

static void link_broke(struct tg_daemon *d, const struct tg_job *job)
{
    d->link.failures++;
    d->link.online = false;
    uint64_t pause =
        tg_backoff_ms(d->link.failures, BACKOFF_MS, BACKOFF_CAP_MS, tg_daemon_random());
    if (job->retry_s * UINT64_C(1000) > pause)
        pause = job->retry_s * UINT64_C(1000);
    uint64_t at = tg_daemon_now_ms() + pause;
    d->link.send_ms = at;
    if (d->link.poll_ms < at)
        d->link.poll_ms = at;
    bool news = strcmp(d->link.why.text, job->err.msg) != 0;
    tg_daemon_why(&d->link.why, job->rc, job->err.msg);
    if (news)
        tg_log(TG_LOG_WARN, "agent.platform", "rc=%s waiting_ms=%" PRIu64 " reason=\"%s\"",
               tg_rc_name(job->rc), pause, job->err.msg);
}

static void link_works(struct tg_daemon *d)
{
    if (!d->link.online)
        tg_log(TG_LOG_INFO, "agent.platform", "online=true");
    d->link.online = true;
    d->link.failures = 0;
    d->link.send_ms = 0;
    d->link.why = (struct tg_why){0};
}

/* A trust store put in place since the last look (tensorguard-agent trust). */
static void look_at_trust(struct tg_daemon *d)
{
    char path[TG_STATE_PATH_MAX];
    struct stat st;
    if (tg_state_path(&d->state, path, NULL, "trust.tgtrust") != TG_OK || stat(path, &st) != 0)
        return;
    int64_t seen = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    bool changed = d->link.trust_seen != 0 && d->link.trust_seen != seen;
    d->link.trust_seen = seen;
    if (changed)
        tg_serve_trust_changed(d);
}

static void checkin_ended(struct tg_daemon *d, const struct tg_job *job)
{
    look_at_trust(d);
    d->link.asked = true;
    if (job->rc != TG_OK) {
        if (d->opts.once) {
            d->result = job->rc;
            tg_daemon_why(&d->result_why, job->rc, job->err.msg);
        }
        link_broke(d, job);
        return;
    }
    link_works(d);
    d->link.checked_in = true;
    d->link.last_ok = tg_clock_now();
    uint64_t every = d->set.check_in_s ? d->set.check_in_s : job->next_poll_s;
    d->link.poll_ms = tg_daemon_now_ms() + tg_poll_ms(every ? every : 1, tg_daemon_random());
    tg_install_directive(d, job->has_directive ? &job->directive : NULL);
}

static void report_ended(struct tg_daemon *d, const struct tg_job *job)
{
    struct tg_err err = TG_ERR_INIT;
    if (job->rc != TG_OK) {
        link_broke(d, job);
        return;
    }
    link_works(d);
    if (tg_outbox_drop(&d->state, &d->outbox, job->report.seq, &err) != TG_OK)
        tg_log_err("agent.outbox", &err);
}

static void fetch_broke(struct tg_daemon *d, const struct tg_job *job)
{
    const struct tg_why before = d->install.why;
    if (job->of_grant)
        tg_daemon_why_grant(&d->install.why, job->rc, job->err.msg);
    else
        tg_daemon_why(&d->install.why, job->rc, job->err.msg);
    bool news = strcmp(d->install.why.text, before.text) != 0;
    bool failed = job->local && !job->of_grant; /* without a grant nothing of it has */
    d->install.fetch = false;
    if (job->refused) {
        tg_install_event(d, TG_INE_REFUSED);
        return;
    }
    if (job->local || job->lost || job->rc == TG_E_NOTFOUND ||
        d->install.breaks + 1 >= STREAM_BREAKS_MAX)
        tg_stream_end(d); /* it would wait for nobody knows how long, in locked memory */
    /* a broken connection is no failure of the update: it goes on from there */
    if (news)
        tg_daemon_report(d, job->pkg.deployment_id,
                         failed ? TG_UPDATE_FAILED : TG_UPDATE_DOWNLOADING, &d->install.why);
    tg_install_event(d, TG_INE_FETCH_BROKE);
}

/* A worker follows, or may begin to. */
static void follow(struct tg_daemon *d, struct tg_job *job)
{
    if (job->arrival >= 0)
        tg_stream_begin(d, job->arrival);
    job->arrival = -1;
    struct tg_slot *slot = tg_stream_slot(d);
    if (slot && job->have == d->journal.pkg.size)
        tg_worker_complete(&slot->w, d->set.load_timeout_s * 1000, tg_daemon_now_ms());
    d->install.hold =
        job->waiting && slot && slot->w.phase < TG_WK_HEALTHY && !tg_jobs_again_waits(d->jobs);
}

static void fetch_ended(struct tg_daemon *d, struct tg_job *job)
{
    struct tg_err err = TG_ERR_INIT;
    bool ours = d->install.state == TG_IN_FETCHING && d->install.fetch &&
                tg_mem_eq(job->pkg.h, d->journal.pkg.h, 32) &&
                strcmp(job->pkg.deployment_id, d->journal.pkg.deployment_id) == 0;
    if (!ours) {
        d->prune = true; /* withdrawn meanwhile */
        return;
    }
    if (job->have > d->install.have && job->rc != TG_OK)
        d->install.breaks = 0; /* it moved before it broke: no reason to wait longer */
    d->install.have = job->have ? job->have : d->install.have;
    d->install.here = job->present;
    d->dirty = true;
    if (job->of_grant && follower_opened(d))
        return; /* it got the key while the job ran: the next one asks for no grant */
    if (job->rc != TG_OK) {
        fetch_broke(d, job);
        return;
    }
    if (!job->done) {
        follow(d, job);
        return; /* the next slice */
    }
    d->install.fetch = d->install.lapsed = false;
    d->journal.pkg = job->pkg;
    enum tg_rc rc = tg_daemon_step(d, TG_STEP_FETCHED, &err);
    if (rc != TG_OK) {
        tg_daemon_why(&d->install.why, rc, err.msg);
        tg_install_event(d, TG_INE_FETCH_BROKE);
        return;
    }
    tg_daemon_report(d, job->pkg.deployment_id, TG_UPDATE_DOWNLOADED, NULL);
    tg_install_event(d, TG_INE_FETCHED);
}

static void renew_ended(struct tg_daemon *d, const struct tg_job *job)
{
    struct tg_err err = TG_ERR_INIT;
    int64_t from = 0;
    d->link.renew_ms = tg_daemon_now_ms() + RENEW_PAUSE_MS; /* whatever came of it */
    if (job->rc != TG_OK) {
        tg_log_err("agent.renew", &job->err);
        tg_daemon_why(&d->link.why, job->rc, job->err.msg);
        return;
    }
    if (tg_identity_times(&d->state, &from, &d->link.not_after, &err) != TG_OK) {
        tg_log_err("agent.renew", &err);
        return;
    }
    d->link.renew_at = tg_identity_renew_at(from, d->link.not_after, d->opts.renew_percent);
    tg_log(TG_LOG_INFO, "agent.renew", "not_after=%" PRId64, d->link.not_after);
}

static void grant_ended(struct tg_daemon *d, const struct tg_job *job)
{
    d->serve.grant = false; /* tried: the next failure may ask again */
    if (job->rc != TG_OK)
        tg_log_err("agent.grant", &job->err);
    if (job->refused && job->rc != TG_E_EXPIRED) /* a clock may be set right */
        memcpy(d->serve.grant_refused, d->serve.grant_asked, 32);
    if (job->news)
        tg_serve_look(d);
}

void tg_link_ended(struct tg_daemon *d)
{
    struct tg_job job;
    if (!tg_jobs_take(d->jobs, &job))
        return;
    d->dirty = true;
    switch (job.kind) {
    case TG_JOB_CHECKIN:
        checkin_ended(d, &job);
        break;
    case TG_JOB_REPORT:
        report_ended(d, &job);
        break;
    case TG_JOB_FETCH:
        fetch_ended(d, &job);
        break;
    case TG_JOB_GRANT:
        grant_ended(d, &job);
        break;
    case TG_JOB_RENEW:
        renew_ended(d, &job);
        break;
    }
    tg_fd_close(job.arrival);
    tg_free(job.directive.document);
}
