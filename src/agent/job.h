/* The network thread: one piece of blocking work at a time, so that the main thread always has its
 * hands free for the workers. While a job runs the thread alone touches it; before and after, only
 * the main thread does. */
#ifndef TG_AGENT_JOB_H
#define TG_AGENT_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/outbox.h"
#include "agent/records.h"
#include "agent/state.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/spans.h"

enum tg_job_kind {
    TG_JOB_CHECKIN, /* ask what to do */
    TG_JOB_REPORT,  /* deliver one report */
    TG_JOB_FETCH,   /* one slice of a package; after the last: digest, checks, grant, commit */
    TG_JOB_GRANT,   /* fetch the grant of a package that is here */
    TG_JOB_RENEW    /* a new certificate */
};

/* The platform's directive, copied out of its answer. */
struct tg_directive {
    struct tg_held pkg; /* h, blob, size, deployment_id */
    bool grant;
    uint8_t grant_sha256[32]; /* zeros: not said */
    enum tg_update_state update_state;
    uint64_t seq;
    uint8_t *document; /* tg_free by who takes the job's result; NULL: not sent */
    size_t document_n;
};

struct tg_job {
    enum tg_job_kind kind;
    /* in */
    const struct tg_state *state;       /* constant while the agent runs */
    const struct tg_settings *settings; /* likewise */
    struct tg_held pkg; /* FETCH, GRANT; CHECKIN: what serves. out: FETCH fills in */
    bool grant;         /* FETCH: get the grant, too */
    bool fresh;         /* FETCH: the first slice of a new offer: look at the disk anew */
    bool present;    /* FETCH: the file is here already and was checked once; out: so it is now */
    bool stream;     /* FETCH: a worker could follow: hand out the arrival page */
    bool followed;   /* FETCH: a worker follows, and has not seen all of it yet */
    bool opened;     /* FETCH: which has the file key: what its grant is worth now is no matter */
    bool separation; /* CHECKIN */
    char protection[TG_LEVEL_TEXT]; /* CHECKIN: of what serves; "": unknown */
    char status[TG_REASON_TEXT];    /* CHECKIN: one line for people */
    uint8_t have_document[32];      /* CHECKIN */
    struct tg_outbox_item report;   /* REPORT */
    /* out */
    enum tg_rc rc;
    struct tg_err err;
    bool refused;  /* FETCH, GRANT: the package, the grant will not do, now or later */
    bool of_grant; /* FETCH: the package is in place, and no grant that does was to be had */
    bool local;    /* FETCH: broke here (disk, files), not on the way */
    bool done;     /* FETCH: package and grant are in place */
    uint64_t have; /* FETCH: bytes so far */
    bool news;     /* GRANT: another grant than were here */
    bool granted;  /* FETCH: the grant came before the payload */
    bool lost;     /* FETCH: bytes that were asked for again and again, each time in vain */
    bool waiting;  /* FETCH: all there, but not as named: the worker that follows may say where */
    int arrival;   /* FETCH: the page, once signatures, policy and grant are checked; closed by who
                      takes the job's result; -1: not (yet) */
    uint64_t next_poll_s;
    uint32_t retry_s;
    bool has_directive;
    struct tg_directive directive;
};

struct tg_jobs;

TG_RC tg_jobs_new(struct tg_jobs **out, struct tg_err *err);
/* Stops what runs as soon as it can; waits at most two seconds for that. */
void tg_jobs_free(struct tg_jobs *j);
TG_DEFINE_AUTO(struct tg_jobs, tg_jobs_freep, tg_jobs_free);

/* Readable when a job has ended. */
int tg_jobs_fd(const struct tg_jobs *j);
bool tg_jobs_busy(const struct tg_jobs *j);
/* Begin; only when not busy. */
void tg_jobs_start(struct tg_jobs *j, const struct tg_job *job);
/* The ended job, once; false: none. */
bool tg_jobs_take(struct tg_jobs *j, struct tg_job *out);
/* Fetch bytes of the package under way once more, before anything else of it. From the main thread,
 * busy or not; kept until a FETCH has fetched them (or says that they are lost), or _clear.
 * @retval TG_E_LIMIT too many wait */
TG_RC tg_jobs_again(struct tg_jobs *j, const struct tg_span *range);
bool tg_jobs_again_waits(struct tg_jobs *j);
void tg_jobs_again_clear(struct tg_jobs *j);
/* Break off what runs (a withdrawn download); its result still arrives. */
void tg_jobs_cancel(struct tg_jobs *j);

#endif
