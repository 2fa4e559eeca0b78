/* One tensorguard-moai worker as the agent sees it: a process, a control channel, the package it
 * was started on (docs/architecture.md "Agent and worker"). The agent hands it descriptors and
 * never sees what it does with them. */
#ifndef TG_AGENT_WORKER_H
#define TG_AGENT_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/records.h"
#include "agent/spawn.h"
#include "agent/state.h"
#include "agent/words.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/spans.h"

#define TG_WORKER_LISTEN_MAX 2
#define TG_WORKER_MSG_MAX 65536
/* So many messages at once, and then one more each TG_WORKER_MSG_EACH_MS: a worker that loads,
 * serves and answers pings needs a tenth of it. One that sends more is ended. */
#define TG_WORKER_MSG_BURST 32
#define TG_WORKER_MSG_EACH_MS 500
/* More wrong chunks than this are no accident. */
#define TG_WORKER_AGAIN_MAX 8

enum tg_worker_phase {
    TG_WK_NONE,
    TG_WK_VERIFYING,
    TG_WK_DECRYPTING,
    TG_WK_LOADING,
    TG_WK_CHECKING,
    TG_WK_HEALTHY,
    TG_WK_SERVING, /* it said that it accepts requests */
    TG_WK_DRAINED,
    TG_WK_FAILED /* said so itself; code and reason are set */
};

struct tg_worker {
    pid_t pid; /* 0: no process */
    int ctl;   /* -1: closed */
    struct tg_words words;
    struct tg_held pkg;
    bool new_grant;               /* it was given the later grant */
    int grant_fd;                 /* which is this, until it is healthy; -1: none */
    char bake[TG_STATE_PATH_MAX]; /* the file it may put a sealed bake into; "": none */
    enum tg_worker_phase phase;
    bool opened; /* it said that it has the file key: what fails from then on is no grant's fault */
    bool serving, draining;
    uint64_t started_ms;            /* monotonic */
    uint64_t deadline_ms;           /* killed then unless 0: to load, to drain, to answer */
    uint64_t timeout_ms;            /* how long it may take to answer a ping */
    uint64_t ping_ms;               /* when to ping it next; 0: not now */
    bool pinged;                    /* a ping has no answer yet: deadline_ms is for it */
    uint64_t load_ms, locked_bytes; /* as it said when healthy */
    char protection[TG_LEVEL_TEXT]; /* the level its memory has, as it said then */
    uint64_t heard_ms;              /* when its allowance of messages was counted last */
    unsigned allowance;             /* messages it may send now */
    uint64_t ready_ms;              /* from start to healthy, by our clock */
    enum tg_rc code;                /* of a failure */
    char reason[TG_REASON_TEXT];
    char handed[TG_REASON_TEXT]; /* a hand-over that was just told, in words; "": none */
    bool early;                  /* it was started while its package was being downloaded */
    struct tg_span again; /* bytes it says are wrong; taken (emptied) by who fetches them anew */
    unsigned agains;      /* how often it said so */
};

#define TG_WORKER_INIT                                                                             \
    ((struct tg_worker){                                                                           \
        .ctl = -1, .words = TG_WORDS_INIT, .grant_fd = -1, .allowance = TG_WORKER_MSG_BURST})

struct tg_worker_start {
    const struct tg_state *state;
    const struct tg_settings *settings;
    const struct tg_user *user;
    const struct tg_held *pkg;
    int kem_dir; /* descriptor of kem/ */
    int listen[TG_WORKER_LISTEN_MAX];
    size_t n_listen;
    int native;  /* the native socket; 0: none */
    int arrival; /* start it on the part, with this page; it may load as long as the download takes,
                    until tg_worker_complete; -1: the package is complete */
    bool new_grant;       /* the later grant, tg_state_grant_new, if there is one */
    bool with_deployment; /* hand it the signed deployment: needed only to go back below K */
};

/* Start one. w must be free (pid 0); on failure it stays so. */
TG_RC tg_worker_start(struct tg_worker *w, const struct tg_worker_start *o, uint64_t now_ms,
                      struct tg_err *err);

/* All of its package is there: from now on its time to load counts. */
void tg_worker_complete(struct tg_worker *w, uint64_t load_ms, uint64_t now_ms);

/* Take one message from the channel into w (phase, figures, failure).
 * @retval TG_E_AGAIN none waits  @retval TG_E_CLOSED the worker closed the channel
 * @retval TG_E_FORMAT it said something that is no message  @retval TG_E_LIMIT too much of it */
TG_RC tg_worker_read(struct tg_worker *w, uint64_t now_ms, struct tg_err *err);

/* The same for a message's text, wherever it came from. */
TG_RC tg_worker_take(struct tg_worker *w, struct tg_bytes text, uint64_t now_ms,
                     struct tg_err *err);

/* "serve" (it has timeout_ms to say that it does), "drain", "ping". A ping is answered by the loop
 * that serves requests one by one, so its limit must be above the longest prediction.
 * @retval TG_E_CLOSED */
TG_RC tg_worker_serve(struct tg_worker *w, uint64_t now_ms, struct tg_err *err);
TG_RC tg_worker_ping(struct tg_worker *w, uint64_t now_ms, struct tg_err *err);
TG_RC tg_worker_drain(struct tg_worker *w, uint64_t deadline_ms, struct tg_err *err);

/* It is healthy, so its grant opens the package: the later grant takes the earlier one's place,
 * durably. Nothing to do for a worker with the earlier one. */
TG_RC tg_worker_grant_keep(struct tg_worker *w, const struct tg_state *s, struct tg_err *err);
/* Could the failure lie in the grant, so that another one may do? */
bool tg_worker_failure_of_grant(enum tg_rc rc);

/* The sealed bake it has written, once it is healthy: kept in the place of an older one, if there
 * is any. The agent can't read it, and need not trust it: a worker refuses what is not right. */
TG_RC tg_worker_bake_keep(struct tg_worker *w, const struct tg_state *state, struct tg_err *err);
/* What a worker that ends had not finished is removed. */
void tg_worker_bake_drop(struct tg_worker *w);

/* Close the control channel (after taking it out of the event loop): the worker exits. */
void tg_worker_close(struct tg_worker *w);

/* Has the process ended? Then reason says how if it had not said why itself, and w only its channel
 * is left to close. Never blocks. */
bool tg_worker_reap(struct tg_worker *w);
/* SIGKILL its process group and wait for it (it cannot refuse; a stopped one dies too). */
void tg_worker_kill(struct tg_worker *w);

/* Does this failure stay the same if tried again with the same bytes, keys and clock? */
bool tg_worker_failure_final(enum tg_rc rc);

#endif
