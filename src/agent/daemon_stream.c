/* A worker that follows the download: it is started as soon as signatures, policy and grant are
 * checked, has verified and decrypted what is there by the time the rest comes, and is on trial
 * like any other once the download is complete. It sits in the slot of the trial from the start. It
 * may fail without harm: then the download goes on, and a worker is tried on the complete file. */
#include <inttypes.h>

#include "agent/daemon_internal.h"
#include "base/file.h"
#include "base/log.h"

static bool downloading(const struct tg_daemon *d)
{
    return d->install.state == TG_IN_FETCHING || d->install.state == TG_IN_FETCH_WAIT;
}

bool tg_stream_wanted(const struct tg_daemon *d)
{
    return d->install.state == TG_IN_FETCHING && !d->install.alone && d->install.arrival < 0 &&
           d->journal.early < TG_TRIES_MAX;
}

struct tg_slot *tg_stream_slot(struct tg_daemon *d)
{
    struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_TRIAL);
    return slot && slot->w.early && downloading(d) ? slot : NULL;
}

static void page_close(struct tg_daemon *d)
{
    tg_fd_close(d->install.arrival);
    d->install.arrival = -1;
    d->install.hold = false;
    tg_jobs_again_clear(d->jobs);
}

/* Written down before it starts, as any try is: once all is there it may load, and a package that
 * takes the device down while it loads is not tried for ever. */
void tg_stream_begin(struct tg_daemon *d, int arrival)
{
    struct tg_err err = TG_ERR_INIT;
    d->install.arrival = arrival;
    if (d->install.state != TG_IN_FETCHING || tg_daemon_slot(d, TG_ROLE_TRIAL)) {
        page_close(d);
        return;
    }
    d->journal.early++;
    enum tg_rc rc = tg_journal_save(&d->state, &d->journal, &err);
    if (rc == TG_OK)
        rc = tg_daemon_spawn(d, TG_ROLE_TRIAL, &d->journal.pkg, false, &err);
    if (rc == TG_OK)
        return;
    tg_log_err("agent.worker", &err);
    d->install.alone = true;
    page_close(d);
}

void tg_stream_end(struct tg_daemon *d)
{
    struct tg_slot *slot = tg_stream_slot(d);
    if (slot) {
        tg_log(TG_LOG_INFO, "agent.worker", "pid=%d early=ended", (int)slot->w.pid);
        tg_daemon_slot_kill(slot);
        if (d->journal.early > 0)
            d->journal.early--; /* not the package's fault */
    }
    page_close(d);
}

/* The file is what the platform said it is, yet this worker read something else: not to be decided
 * by it. One that reads the complete file will say what is wrong with it. */
static void not_again(struct tg_slot *slot)
{
    slot->w.code = TG_E_IO;
    TG_TEXT_SET(slot->w.reason, "package: a chunk was not read as it was signed");
    tg_daemon_slot_failed(slot);
}

bool tg_stream_adopt(struct tg_daemon *d)
{
    struct tg_slot *slot = tg_daemon_slot(d, TG_ROLE_TRIAL);
    bool asks = tg_jobs_again_waits(d->jobs);
    page_close(d);
    if (!slot)
        return false;
    if (asks) {
        not_again(slot);
        return true;
    }
    tg_log(TG_LOG_INFO, "agent.worker", "pid=%d early=complete", (int)slot->w.pid);
    tg_worker_complete(&slot->w, d->set.load_timeout_s * 1000, tg_daemon_now_ms());
    tg_install_phase(d, slot);
    if (slot->w.phase == TG_WK_HEALTHY)
        tg_install_healthy(d, slot);
    return true;
}

bool tg_stream_failed(struct tg_daemon *d, enum tg_role role, bool final)
{
    if (role != TG_ROLE_TRIAL || !downloading(d))
        return false;
    page_close(d);
    d->install.alone = true;
    if (final)
        tg_install_event(d, TG_INE_REFUSED);
    return true;
}

void tg_stream_again(struct tg_slot *slot)
{
    struct tg_daemon *d = slot->daemon;
    struct tg_span range = slot->w.again;
    slot->w.again = (struct tg_span){0, 0};
    tg_log(TG_LOG_WARN, "agent.fetch", "again=%" PRIu64 " bytes=%" PRIu64, range.off,
           range.end - range.off);
    if (!downloading(d) || tg_jobs_again(d->jobs, &range) != TG_OK) {
        not_again(slot);
        return;
    }
    slot->w.deadline_ms = 0; /* until it is there */
    d->install.hold = false;
}
