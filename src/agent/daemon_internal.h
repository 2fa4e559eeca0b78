/* The daemon's state and the parts that work on it. Main thread only. */
#ifndef TG_AGENT_DAEMON_INTERNAL_H
#define TG_AGENT_DAEMON_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/daemon.h"
#include "agent/job.h"
#include "agent/machine.h"
#include "agent/outbox.h"
#include "agent/records.h"
#include "agent/spawn.h"
#include "agent/state.h"
#include "agent/worker.h"
#include "base/err.h"
#include "net/loop.h"

#define TG_SLOTS 6 /* one serves, one is on trial, the rest drain */

enum tg_role { TG_ROLE_FREE, TG_ROLE_SERVING, TG_ROLE_TRIAL, TG_ROLE_DRAINING };

struct tg_daemon;

struct tg_slot {
    struct tg_daemon *daemon;
    enum tg_role role;
    struct tg_worker w;
    struct tg_loop_item *item;  /* its control channel in the loop */
    struct tg_loop_item *words; /* its log lines in the loop */
};

/* Why the last thing failed. */
struct tg_why {
    enum tg_rc code;
    char text[TG_REASON_TEXT];
};

/* Machine state beside the records: what a restart may forget. */
struct tg_install {
    enum tg_install_state state;
    unsigned breaks; /* of the download, in a row */
    uint64_t wake_ms;
    bool fetch;                /* the network thread should fetch */
    bool grant;                /* with a grant */
    bool lapsed;               /* it takes one: whatever the platform says of it */
    bool here;                 /* the package is in place: only the grant is due */
    uint8_t grant_seen[32];    /* SHA-256 of the one that the platform told of last */
    bool fresh;                /* nothing of this offer was asked for yet in this run */
    uint64_t have;             /* bytes */
    enum tg_worker_phase told; /* phase last reported */
    int arrival;               /* the arrival page of the worker that follows the download; -1 */
    bool alone;                /* that worker failed by itself: download without one */
    bool hold; /* all there, but not as named: the worker that follows is to say where */
    struct tg_why why;
};

struct tg_serve {
    enum tg_serving_state state;
    unsigned failures;
    uint64_t wake_ms;
    uint64_t stable_ms; /* then its failures are forgotten; 0: not counting */
    uint64_t restarts;
    bool grant;                /* its grant should be fetched anew */
    unsigned looks;            /* for another grant, in a row, since the one it has was lapsed */
    uint8_t grant_refused[32]; /* SHA-256 of the last that was fetched and would not do */
    uint8_t grant_asked[32];   /* and of the one asked for */
    struct tg_why why;
    struct tg_why last; /* why its worker was last restarted; stays while the package serves */
};

struct tg_link {
    uint64_t poll_ms;  /* next check-in */
    uint64_t send_ms;  /* no report before */
    uint64_t renew_ms; /* no renewal before (after a failed one) */
    unsigned failures;
    bool online;
    bool asked;        /* a check-in was tried in this run */
    bool checked_in;   /* and one worked */
    int64_t last_ok;   /* wall clock, of the last check-in that worked */
    int64_t renew_at;  /* wall clock */
    int64_t not_after; /* of the certificate */
    struct tg_why why;
    int64_t trust_seen; /* mtime of the trust store last looked at */
};

struct tg_daemon {
    struct tg_run_opts opts;
    struct tg_state state;
    struct tg_settings set;
    struct tg_user user;
    bool separate; /* the worker runs as a user of its own */
    int kem_dir;
    int listen[TG_WORKER_LISTEN_MAX];
    size_t n_listen;
    int native; /* -1: none */
    char native_path[108];
    uint16_t tcp_port;
    struct tg_loop *loop;
    struct tg_loop_item *timer;
    struct tg_jobs *jobs;
    struct tg_slot slots[TG_SLOTS];
    struct tg_serving serving;
    struct tg_journal journal;
    struct tg_outbox outbox;
    struct tg_install install;
    struct tg_serve serve;
    struct tg_link link;
    bool dirty; /* status.json is to be written */
    bool prune; /* what no record names is to be removed */
    bool stopping;
    enum tg_rc result; /* of --once */
    struct tg_why result_why;
};

/* daemon.c */
uint64_t tg_daemon_now_ms(void);
/* Queue the account of a hand-over for the platform. */
void tg_daemon_handed_over(struct tg_daemon *d, const struct tg_worker *w);
uint32_t tg_daemon_random(void);
void tg_daemon_why(struct tg_why *why, enum tg_rc code, const char *text);
/* It waits for a grant; what: what is wrong with the one it has. */
void tg_daemon_why_grant(struct tg_why *why, enum tg_rc code, const char *what);
/* Fault drill: die here if asked to. */
void tg_daemon_point(const struct tg_daemon *d, const char *name);
/* Save the journal at a step. A failure is logged and returned. */
TG_RC tg_daemon_step(struct tg_daemon *d, enum tg_step step, struct tg_err *err);
/* Queue a report about a deployment. Failures are logged: a report is not worth stopping for. */
void tg_daemon_report(struct tg_daemon *d, const char *deployment_id, enum tg_update_state state,
                      const struct tg_why *why);
/* After each event: do what is due, set the timer for what will be, stop when all is done. */
void tg_daemon_turn(struct tg_daemon *d);

/* daemon_workers.c */
struct tg_slot *tg_daemon_slot(struct tg_daemon *d, enum tg_role role); /* NULL: none */
/* new_grant: with the later of two grants. */
TG_RC tg_daemon_spawn(struct tg_daemon *d, enum tg_role role, const struct tg_held *pkg,
                      bool new_grant, struct tg_err *err);
void tg_daemon_slot_kill(struct tg_slot *slot);
void tg_daemon_slot_drain(struct tg_slot *slot);
/* Its worker died or said why it cannot (w.phase, code, reason): end it, and tell the machine it
 * belongs to. */
void tg_daemon_slot_failed(struct tg_slot *slot);
void tg_daemon_reap(struct tg_daemon *d);
void tg_daemon_deadlines(struct tg_daemon *d, uint64_t now_ms);
bool tg_daemon_any_worker(const struct tg_daemon *d);

/* daemon_install.c */
void tg_install_event(struct tg_daemon *d, enum tg_install_event ev);
/* The directive of a check-in (NULL: there is none). Takes nothing over. */
void tg_install_directive(struct tg_daemon *d, const struct tg_directive *dir);
/* After a restart: go on where the journal ends. */
void tg_install_resume(struct tg_daemon *d);
/* The worker on trial could not open the package, and the kept grant does not do (err: why): back
 * to the fetch, for the grant. */
void tg_install_lapsed(struct tg_daemon *d, const struct tg_err *err);
void tg_install_phase(struct tg_daemon *d, const struct tg_slot *slot);
void tg_install_healthy(struct tg_daemon *d, struct tg_slot *slot);
void tg_install_serving(struct tg_daemon *d);

/* daemon_stream.c: a worker that follows the download, in the slot of the trial */
bool tg_stream_wanted(const struct tg_daemon *d);
struct tg_slot *tg_stream_slot(struct tg_daemon *d);    /* NULL: none follows */
void tg_stream_begin(struct tg_daemon *d, int arrival); /* takes the descriptor over */
/* End it without counting it: the download stops, for now or for good. */
void tg_stream_end(struct tg_daemon *d);
/* The download is complete and committed: it is on trial now. false: there is none. */
bool tg_stream_adopt(struct tg_daemon *d);
/* It failed; its slot is free. true: that was all (its download goes on without it). */
bool tg_stream_failed(struct tg_daemon *d, enum tg_role role, bool final);
/* It says that bytes are wrong. */
void tg_stream_again(struct tg_slot *slot);

/* daemon_serve.c */
void tg_serve_event(struct tg_daemon *d, enum tg_serving_event ev);
void tg_serve_trust_changed(struct tg_daemon *d);
/* Its worker could not open the package, and the kept grant does not do (err: why): wait for
 * another.
 */
void tg_serve_lapsed(struct tg_daemon *d, const struct tg_err *err);
/* While it waits: start the package if that may do now, or look again later. */
void tg_serve_look(struct tg_daemon *d);

/* daemon_link.c */
void tg_link_ended(struct tg_daemon *d);                 /* a job has ended */
void tg_link_next(struct tg_daemon *d, uint64_t now_ms); /* start the next one that is due */
uint64_t tg_link_wake(const struct tg_daemon *d);        /* when the next one is due; UINT64_MAX */

/* status.c */
void tg_status_write(struct tg_daemon *d);

#endif
