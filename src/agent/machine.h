/* What the agent does next, as two pure tables: (state, event, guard) -> (actions, next state).
 *
 * The install machine takes one deployment from "offered" to "serving" or "given up". The serving
 * machine keeps the package that serves alive: it restarts its worker with growing pauses and at
 * last goes back to the package that served before; not because a grant has lapsed or is missing,
 * which says nothing about the package: then it waits for another. Neither machine does anything:
 * the caller carries out the actions in the order of their bits (daemon.h), and hands in time and
 * chance. */
#ifndef TG_AGENT_MACHINE_H
#define TG_AGENT_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

/* A worker on trial may break this often (crash, hang, no memory) before the update is given up;
 * a worker that serves, before the agent goes back to the package before. */
#define TG_TRIES_MAX 3

enum tg_install_state {
    TG_IN_IDLE,       /* nothing under way */
    TG_IN_FETCHING,   /* ciphertext and grant are being fetched and checked */
    TG_IN_FETCH_WAIT, /* the fetch broke: pause */
    TG_IN_TRIAL,      /* a worker loads the new package; the old one keeps serving */
    TG_IN_TRIAL_WAIT, /* it broke for a reason that may pass: pause */
    TG_IN_SWITCHING,  /* it was told to serve and has not said yet that it does */
    TG_IN_STATES
};

enum tg_install_event {
    TG_INE_OFFER,       /* a deployment that passed the deployment checks */
    TG_INE_FETCHED,     /* package and grant are on disk and passed the cheap checks */
    TG_INE_FETCH_BROKE, /* for a reason that may pass (network, disk full, no grant yet) */
    TG_INE_REFUSED,     /* will not do, now or later: not authentic, not allowed, too old, ... */
    TG_INE_HEALTHY,     /* the worker on trial is ready */
    TG_INE_SERVING,     /* it accepts requests */
    TG_INE_LAPSED,      /* it has no grant that does (any more), and that is all */
    TG_INE_TRIAL_BROKE, /* it crashed, hung, or failed for a reason that may pass */
    TG_INE_TIMER,       /* the pause is over */
    TG_INE_WITHDRAWN,   /* the platform wants something else now */
    TG_INE_EVENTS
};

enum tg_serving_state {
    TG_SV_NONE,     /* nothing to serve */
    TG_SV_STARTING, /* its worker loads */
    TG_SV_SERVING,
    TG_SV_WAIT,  /* its worker broke: pause */
    TG_SV_GRANT, /* nothing is wrong with it but its grant (lapsed, missing): until another comes */
    TG_SV_STATES
};

enum tg_serving_event {
    TG_SVE_START, /* there is a package to serve */
    TG_SVE_HEALTHY,
    TG_SVE_BROKE,   /* worker crashed, hung while loading, or failed for a reason that may pass */
    TG_SVE_REFUSED, /* the worker, or a changed trust store, says it must not run */
    TG_SVE_LAPSED,  /* it has no grant that does (any more), and that is all */
    TG_SVE_GRANTED, /* a grant may do now, or it is not only the grant any more: see */
    TG_SVE_TIMER,
    TG_SVE_STABLE, /* it served without a fault for a while */
    TG_SVE_TAKEN,  /* an update's healthy worker took its place (and saw to the old one) */
    TG_SVE_EVENTS
};

/* In the order in which the caller carries them out. */
enum tg_action {
    TG_ACT_KILL = 1 << 0, /* end this machine's worker at once */
    TG_ACT_STOP_FETCH = 1 << 1,
    TG_ACT_GIVE_UP = 1 << 2,   /* journal "failed" with the reason; report it */
    TG_ACT_DROP = 1 << 3,      /* journal "withdrawn"; remove what was fetched for it */
    TG_ACT_COMMIT = 1 << 4,    /* the new worker serves: drain the old, report */
    TG_ACT_FALL_BACK = 1 << 5, /* the package before becomes the one that serves; report why */
    TG_ACT_RESET = 1 << 6,     /* forget failures */
    TG_ACT_FETCH = 1 << 7,
    TG_ACT_SPAWN = 1 << 8,
    TG_ACT_SERVE = 1 << 9, /* tell the worker to accept */
    TG_ACT_ARM = 1 << 10   /* start the pause timer by the number of failures */
};

/* What guards look at. */
struct tg_machine_facts {
    unsigned
        failures; /* failed tries so far in this row of tries, the one that just broke included */
    bool can_fall_back; /* the package that served before is on disk and may serve */
};

/* Move *state and return the actions (0: the event means nothing in this state, *state is
 * unchanged). */
uint32_t tg_install_step(enum tg_install_state *state, enum tg_install_event event,
                         const struct tg_machine_facts *facts);
uint32_t tg_serving_step(enum tg_serving_state *state, enum tg_serving_event event,
                         const struct tg_machine_facts *facts);

const char *tg_install_state_name(enum tg_install_state s);
const char *tg_serving_state_name(enum tg_serving_state s);

/* Pause after `failures` (>= 1) failures: base doubled each time, at most cap, half of it by chance
 * (`random` is any uniformly random number), so that a fleet does not move in step. */
uint64_t tg_backoff_ms(unsigned failures, uint64_t base_ms, uint64_t cap_ms, uint32_t random);

/* The next check-in after the server asked for `poll_s`: between 0.8 and 1.2 of it, by chance. */
uint64_t tg_poll_ms(uint64_t poll_s, uint32_t random);

#endif
