#include "agent/job.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/device.h"
#include "agent/fetch.h"
#include "agent/identity.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#define JOIN_WAIT_S 2
#define STACK_BYTES (512 * 1024)
#define AGAIN_MAX 8
#define AGAIN_TRIES_MAX 3 /* requests for the same bytes that broke, before they count as lost */
#define LOOKS_MAX 256 /* of a package's front: each asks for at least 128 KiB of at most 40 MiB */

/* Bytes to fetch once more, until they are there. */
struct again {
    struct tg_span range;
    unsigned tries;
};

struct tg_jobs {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool queued, ended, quit;      /* under lock */
    struct again again[AGAIN_MAX]; /* likewise */
    size_t n_again;
    bool busy; /* main thread's */
    atomic_bool cancel;
    int fd;
    struct tg_job job;
    /* the thread's own */
    struct tg_device device;
    struct tg_fetch *fetch;
    struct tg_held fetching;
    bool looked;  /* at its front */
    bool streams; /* which would do */
    bool granted;
};

static enum tg_rc tick(void *arg)
{
    struct tg_jobs *j = arg;
    return atomic_load(&j->cancel) ? TG_E_AGAIN : TG_OK;
}

static TG_RC need_client(struct tg_jobs *j, struct tg_err *err)
{
    j->device.tick = tick;
    j->device.tick_arg = j;
    if (j->device.http)
        return TG_OK;
    return tg_device_open(j->job.state, j->job.settings->server, true, &j->device, err);
}

/* ---- check-in ---- */

static TG_RC take_directive(const struct tg_wire_directive *d, struct tg_directive *out,
                            struct tg_err *err)
{
    *out = (struct tg_directive){
        .grant = d->grant, .update_state = (enum tg_update_state)d->update_state, .seq = d->seq};
    out->pkg.set = true;
    out->pkg.size = d->blob_size;
    memcpy(out->pkg.h, d->package, 32);
    memcpy(out->pkg.blob, d->blob_sha256, 32);
    memcpy(out->grant_sha256, d->grant_sha256, 32);
    TG_TEXT_SET(out->pkg.deployment_id, d->deployment_id);
    if (d->document.n == 0)
        return TG_OK;
    out->document = tg_alloc(d->document.n);
    if (!out->document)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    memcpy(out->document, d->document.p, d->document.n);
    out->document_n = d->document.n;
    return TG_OK;
}

static TG_RC run_checkin(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    TG_TRY(need_client(j, err));
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_TRY(tg_arena_new(TG_WIRE_ANSWER_MAX, &arena));
    struct tg_wire_checkin in = {.agent_version = TG_VERSION,
                                 .separation = job->separation,
                                 .protection = job->protection[0] ? job->protection : NULL,
                                 .status = job->status[0] ? job->status : NULL};
    memcpy(in.running, job->pkg.h, 32);
    memcpy(in.have_document, job->have_document, 32);
    struct tg_wire_directions out = {0};
    TG_TRY(tg_device_checkin(&j->device, &in, arena, &out, &job->retry_s, err));
    job->next_poll_s = out.next_poll_s;
    if (out.deployments.n == 0)
        return TG_OK;
    const struct tg_wire_directive *d = out.deployments.items;
    TG_TRY(take_directive(d, &job->directive, err));
    job->has_directive = true;
    return TG_OK;
}

/* ---- fetching ---- */

static void fetch_drop(struct tg_jobs *j)
{
    tg_fetch_free(j->fetch);
    j->fetch = NULL;
    j->looked = j->streams = j->granted = false;
}

static bool blames_the_input(enum tg_rc rc)
{
    return rc != TG_OK && rc != TG_E_NOMEM && rc != TG_E_IO && rc != TG_E_INTERNAL;
}

static bool holds(const char *path, struct tg_bytes text)
{
    struct tg_buf have = TG_BUF_INIT(TG_WIRE_GRANT_MAX);
    bool same = tg_file_read(path, &have, NULL) == TG_OK && tg_bytes_eq(tg_buf_view(&have), text);
    tg_buf_done(&have);
    return same;
}

/* Whether a grant's block opens the package only a worker can tell: a later grant waits beside the
 * one in the cache until one has. */
static TG_RC keep_grant(struct tg_job *job, struct tg_bytes text, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    tg_state_grant(job->state, job->pkg.h, path);
    if (holds(path, text))
        return TG_OK;
    if (tg_state_has(path))
        tg_state_grant_new(job->state, job->pkg.h, path);
    if (holds(path, text))
        return TG_OK;
    TG_TRY(tg_file_write(path, text, 0600, true, err));
    job->news = true;
    return TG_OK;
}

static TG_RC fetch_grant(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    struct tg_buf text = TG_BUF_INIT(TG_WIRE_GRANT_MAX);
    enum tg_rc rc = tg_device_grant(&j->device, job->pkg.h, &text, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "grant");
    } else {
        rc = tg_policy_grant(job->state, &job->pkg, tg_buf_view(&text), tg_clock_now(), err);
        job->refused = blames_the_input(rc);
        job->local = rc != TG_OK;
    }
    if (rc == TG_OK)
        rc = keep_grant(job, tg_buf_view(&text), err);
    tg_buf_done(&text);
    return rc;
}

/* What is wrong with a grant says nothing about the package: that is kept, and another grant asked
 * for later. One that came before the payload may have lapsed while the rest came. */
static TG_RC need_grant(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    if (job->granted && tg_policy_grant_does(job->state, &job->pkg, tg_clock_now()))
        return TG_OK;
    enum tg_rc rc = fetch_grant(j, job, err);
    job->granted = rc == TG_OK;
    job->of_grant = job->refused || rc == TG_E_NOTFOUND;
    job->refused = false;
    return rc;
}

/* The platform told of no grant, perhaps because the one it has is outside its time: a worker would
 * be started in vain where the package needs one. */
static bool takes_grant(const struct tg_job *job)
{
    return job->grant ||
           tg_policy_grant_wanted(job->state, job->settings, &job->pkg, tg_clock_now(), NULL);
}

/* Package, then grant: when both are in place the update can be tried. The package is put in its
 * place first, so that whatever becomes of the grant it is not fetched again. */
static TG_RC fetch_end(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    if (job->present)
        tg_state_package(job->state, job->pkg.h, path);
    else
        tg_state_part(job->state, job->pkg.h, path);
    enum tg_rc rc =
        tg_policy_admit(job->state, job->settings, path, &job->pkg, tg_clock_now(), err);
    if (rc != TG_OK) {
        job->refused = blames_the_input(rc);
        job->local = true;
        return rc;
    }
    job->local = true;
    if (!job->present)
        TG_TRY(tg_fetch_commit(job->state, &job->pkg, err));
    job->present = true;
    job->local = false;
    if (!job->opened && takes_grant(job))
        TG_TRY(need_grant(j, job, err));
    job->done = true;
    return TG_OK;
}

/* Before the payload: signatures, manifest and recipients, as soon as they are there. What its
 * author says against this device ends the download; what may be a damaged byte is left to the
 * digest of the whole file, and nobody follows. */
static TG_RC front_failed(struct tg_jobs *j, struct tg_job *job, enum tg_rc rc)
{
    j->looked = true;
    job->refused = rc == TG_E_EXPIRED || rc == TG_E_ROLLBACK || rc == TG_E_DENIED;
    job->local = job->refused;
    return job->refused ? rc : TG_OK;
}

static TG_RC look_at_front(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    struct tg_src src;
    enum tg_rc rc = tg_fetch_tail(j->fetch, &j->device, err);
    for (int i = 0; rc == TG_OK && i < LOOKS_MAX; i++) {
        tg_fetch_src(j->fetch, &src);
        rc = tg_policy_admit_src(job->state, job->settings, &src, &job->pkg, tg_clock_now(), err);
        if (rc == TG_OK)
            break;
        enum tg_rc got = rc == TG_E_AGAIN ? tg_fetch_wanted(j->fetch, &j->device, err) : TG_OK;
        if (rc != TG_E_AGAIN || got == TG_E_STATE)
            return front_failed(j, job, rc);
        rc = got;
    }
    TG_TRY(rc);
    j->looked = j->streams = true;
    return TG_OK;
}

/* A worker may follow when it has all it needs: not without the grant. What keeps the grant away
 * does not hold up the download. */
static TG_RC offer_stream(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    int fd = -1;
    if (!job->stream || !j->streams)
        return TG_OK;
    if (job->grant) {
        job->granted = j->granted;
        j->streams = need_grant(j, job, err) == TG_OK;
        j->granted = job->granted;
        job->local = job->of_grant = false;
    }
    if (j->streams && tg_fetch_arrival(j->fetch, &fd, err) == TG_OK)
        job->arrival = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return TG_OK;
}

/* One more try for the first of them: it stays until it is fetched. */
static bool first_again(struct tg_jobs *j, struct again *out)
{
    (void)pthread_mutex_lock(&j->lock);
    bool any = j->n_again > 0;
    if (any) {
        j->again[0].tries++;
        *out = j->again[0];
    }
    (void)pthread_mutex_unlock(&j->lock);
    return any;
}

/* The main thread may have cleared them meanwhile, and even asked for others. */
static void again_fetched(struct tg_jobs *j, const struct tg_span *range)
{
    (void)pthread_mutex_lock(&j->lock);
    const struct tg_span *first = &j->again[0].range;
    if (j->n_again > 0 && first->off == range->off && first->end == range->end) {
        j->n_again--;
        memmove(j->again, j->again + 1, j->n_again * sizeof j->again[0]);
    }
    (void)pthread_mutex_unlock(&j->lock);
}

static TG_RC fetch_agains(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    struct again again;
    while (first_again(j, &again)) {
        enum tg_rc rc = tg_fetch_again(j->fetch, &j->device, &again.range, err);
        job->lost = rc != TG_OK && again.tries >= AGAIN_TRIES_MAX;
        TG_TRY(rc);
        again_fetched(j, &again.range);
    }
    return TG_OK;
}

/* One request, or a few small ones. */
static TG_RC fetch_some(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    TG_TRY(fetch_agains(j, job, err));
    if (!j->looked)
        TG_TRY(look_at_front(j, job, err));
    else
        TG_TRY(tg_fetch_slice(j->fetch, &j->device, err));
    return offer_stream(j, job, err);
}

static TG_RC fetch_more(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    bool same = !job->fresh && j->fetch && tg_mem_eq(j->fetching.h, job->pkg.h, 32) &&
                tg_mem_eq(j->fetching.blob, job->pkg.blob, 32);
    if (!same) {
        fetch_drop(j);
        job->local = true;
        TG_TRY(tg_fetch_open(job->state, &job->pkg, &j->fetch, err));
        job->local = false;
        j->fetching = job->pkg;
    }
    enum tg_rc rc = fetch_some(j, job, err);
    job->have = tg_fetch_have(j->fetch);
    if (rc == TG_OK && tg_fetch_complete(j->fetch))
        rc = fetch_agains(j, job, err);
    job->local = job->local || rc == TG_E_LIMIT;
    TG_TRY(rc);
    if (!j->looked || !tg_fetch_complete(j->fetch))
        return TG_OK;
    rc = tg_fetch_finish(j->fetch, job->followed || job->arrival >= 0, err);
    if (rc == TG_E_AUTH && (job->followed || job->arrival >= 0)) {
        job->waiting = true;
        return TG_OK;
    }
    job->granted = j->granted;
    fetch_drop(j);
    job->local = true;
    return rc;
}

static TG_RC run_fetch(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    TG_TRY(need_client(j, err));
    if (job->present) {
        enum tg_rc rc = fetch_end(j, job, err);
        if (rc == TG_OK || !job->refused)
            return rc;
        job->present = false; /* what is here will not do: fetch it anew (say, co-signed) */
        job->refused = false;
    }
    TG_TRY(fetch_more(j, job, err));
    if (j->fetch)
        return TG_OK; /* more to come */
    job->local = false;
    return fetch_end(j, job, err);
}

/* ---- the others ---- */

static TG_RC run_report(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    bool over = false;
    TG_TRY(need_client(j, err));
    return tg_device_report(&j->device, &job->report, &over, err);
}

static TG_RC run_grant(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    TG_TRY(need_client(j, err));
    return fetch_grant(j, job, err);
}

static TG_RC run_renew(struct tg_jobs *j, struct tg_job *job, struct tg_err *err)
{
    TG_TRY(need_client(j, err));
    TG_TRY(tg_identity_renew(job->state, job->settings, &j->device, tg_clock_now(), err));
    tg_device_done(&j->device); /* the next call shows the new certificate */
    return TG_OK;
}

/* A handshake that the platform ends says little, and the line may break before it says even that:
 * this device knows its own certificate. */
static void explain(const struct tg_jobs *j, struct tg_job *job)
{
    bool handshake = job->rc == TG_E_AUTH || job->rc == TG_E_CLOSED;
    job->err.rc = job->rc;
    if (handshake && !job->local && j->device.http)
        job->rc = tg_identity_explain(job->state, tg_clock_now(),
                                      tg_http_client_refused(j->device.http), &job->err);
}

static void run_job(struct tg_jobs *j)
{
    static enum tg_rc (*const table[])(struct tg_jobs *, struct tg_job *, struct tg_err *) = {
        [TG_JOB_CHECKIN] = run_checkin, [TG_JOB_REPORT] = run_report, [TG_JOB_FETCH] = run_fetch,
        [TG_JOB_GRANT] = run_grant,     [TG_JOB_RENEW] = run_renew,
    };
    struct tg_job *job = &j->job;
    job->err = (struct tg_err)TG_ERR_INIT;
    job->arrival = -1;
    job->rc = table[job->kind](j, job, &job->err);
    explain(j, job);
}

static void *thread_main(void *arg)
{
    struct tg_jobs *j = arg;
    (void)pthread_mutex_lock(&j->lock);
    while (!j->quit) {
        if (!j->queued) {
            (void)pthread_cond_wait(&j->wake, &j->lock);
            continue;
        }
        j->queued = false;
        (void)pthread_mutex_unlock(&j->lock);
        run_job(j);
        (void)pthread_mutex_lock(&j->lock);
        j->ended = true;
        uint64_t one = 1;
        ssize_t n = write(j->fd, &one, sizeof one);
        (void)n; /* an eventfd takes it */
    }
    (void)pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* ---- the main thread's side ---- */

static int start_thread(struct tg_jobs *j)
{
    sigset_t all, old;
    pthread_attr_t attr;
    sigfillset(&all);
    if (pthread_attr_init(&attr) != 0)
        return ENOMEM;
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    int e = pthread_create(&j->thread, &attr, thread_main, j);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return e;
}

TG_RC tg_jobs_new(struct tg_jobs **out, struct tg_err *err)
{
    struct tg_jobs *j = tg_calloc(1, sizeof *j);
    if (!j)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    j->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->fd < 0 || pthread_mutex_init(&j->lock, NULL) != 0 ||
        pthread_cond_init(&j->wake, NULL) != 0 || (errno = start_thread(j)) != 0) {
        int e = errno;
        tg_fd_close(j->fd);
        tg_free(j);
        errno = e;
        return TG_FAIL_ERRNO(err, TG_E_IO, "network thread");
    }
    *out = j;
    return TG_OK;
}

void tg_jobs_free(struct tg_jobs *j)
{
    if (!j)
        return;
    atomic_store(&j->cancel, true);
    (void)pthread_mutex_lock(&j->lock);
    j->quit = true;
    (void)pthread_cond_signal(&j->wake);
    (void)pthread_mutex_unlock(&j->lock);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_WAIT_S;
    if (pthread_timedjoin_np(j->thread, NULL, &until) != 0)
        return; /* it hangs in the network: leave it all to the end of the process */
    if (j->ended) {
        tg_free(j->job.directive.document);
        tg_fd_close(j->job.arrival);
    }
    fetch_drop(j);
    tg_device_done(&j->device);
    tg_fd_close(j->fd);
    (void)pthread_mutex_destroy(&j->lock);
    (void)pthread_cond_destroy(&j->wake);
    tg_free(j);
}

int tg_jobs_fd(const struct tg_jobs *j)
{
    return j->fd;
}

bool tg_jobs_busy(const struct tg_jobs *j)
{
    return j->busy;
}

void tg_jobs_start(struct tg_jobs *j, const struct tg_job *job)
{
    (void)pthread_mutex_lock(&j->lock);
    j->job = *job;
    j->queued = true;
    j->ended = false;
    j->busy = true;
    atomic_store(&j->cancel, false);
    (void)pthread_cond_signal(&j->wake);
    (void)pthread_mutex_unlock(&j->lock);
}

bool tg_jobs_take(struct tg_jobs *j, struct tg_job *out)
{
    uint64_t n;
    ssize_t r = read(j->fd, &n, sizeof n);
    (void)r;
    (void)pthread_mutex_lock(&j->lock);
    bool ended = j->ended;
    if (ended) {
        *out = j->job;
        j->job.directive.document = NULL;
        j->job.arrival = -1;
        j->ended = false;
        j->busy = false;
    }
    (void)pthread_mutex_unlock(&j->lock);
    return ended;
}

TG_RC tg_jobs_again(struct tg_jobs *j, const struct tg_span *range)
{
    (void)pthread_mutex_lock(&j->lock);
    enum tg_rc rc = j->n_again < AGAIN_MAX ? TG_OK : TG_E_LIMIT;
    if (rc == TG_OK)
        j->again[j->n_again++] = (struct again){.range = *range};
    (void)pthread_mutex_unlock(&j->lock);
    return rc;
}

void tg_jobs_again_clear(struct tg_jobs *j)
{
    (void)pthread_mutex_lock(&j->lock);
    j->n_again = 0;
    (void)pthread_mutex_unlock(&j->lock);
}

bool tg_jobs_again_waits(struct tg_jobs *j)
{
    (void)pthread_mutex_lock(&j->lock);
    bool any = j->n_again > 0;
    (void)pthread_mutex_unlock(&j->lock);
    return any;
}

void tg_jobs_cancel(struct tg_jobs *j)
{
    atomic_store(&j->cancel, true);
}
