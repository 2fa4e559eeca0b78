#include "agent/machine.h"

#include "base/macros.h"

enum guard { ALWAYS, TRIES_LEFT, CAN_FALL_BACK };

struct row {
    uint8_t state, event, guard, next;
    uint16_t actions;
};

/* The first row that fits wins. What stands in no row is ignored in that state. */
static const struct row install_rows[] = {
    {TG_IN_IDLE,       TG_INE_OFFER,       ALWAYS,     TG_IN_FETCHING,   TG_ACT_RESET | TG_ACT_FETCH },
 /* after a restart: it was fetched before; tries already made count (they are journalled) */
    {TG_IN_IDLE,       TG_INE_FETCHED,     TRIES_LEFT, TG_IN_TRIAL,      TG_ACT_SPAWN                },
    {TG_IN_IDLE,       TG_INE_FETCHED,     ALWAYS,     TG_IN_IDLE,       TG_ACT_GIVE_UP              },
    {TG_IN_FETCHING,   TG_INE_FETCHED,     ALWAYS,     TG_IN_TRIAL,      TG_ACT_RESET | TG_ACT_SPAWN },
    {TG_IN_FETCHING,   TG_INE_FETCH_BROKE, ALWAYS,     TG_IN_FETCH_WAIT, TG_ACT_ARM                  },
 /* a worker may follow the download: what ends the one ends the other */
    {TG_IN_FETCHING,   TG_INE_REFUSED,     ALWAYS,     TG_IN_IDLE,
     TG_ACT_KILL | TG_ACT_STOP_FETCH | TG_ACT_GIVE_UP                                                },
    {TG_IN_FETCHING,   TG_INE_WITHDRAWN,   ALWAYS,     TG_IN_IDLE,
     TG_ACT_KILL | TG_ACT_STOP_FETCH | TG_ACT_DROP                                                   },
    {TG_IN_FETCH_WAIT, TG_INE_TIMER,       ALWAYS,     TG_IN_FETCHING,   TG_ACT_FETCH                },
    {TG_IN_FETCH_WAIT, TG_INE_REFUSED,     ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_GIVE_UP},
    {TG_IN_FETCH_WAIT, TG_INE_WITHDRAWN,   ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_DROP   },
    {TG_IN_TRIAL,      TG_INE_HEALTHY,     ALWAYS,     TG_IN_SWITCHING,  TG_ACT_SERVE                },
    {TG_IN_TRIAL,      TG_INE_REFUSED,     ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_GIVE_UP},
    {TG_IN_TRIAL,      TG_INE_TRIAL_BROKE, TRIES_LEFT, TG_IN_TRIAL_WAIT, TG_ACT_KILL | TG_ACT_ARM    },
    {TG_IN_TRIAL,      TG_INE_TRIAL_BROKE, ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_GIVE_UP},
 /* back to the fetch, after a pause, for the grant alone */
    {TG_IN_TRIAL,      TG_INE_LAPSED,      ALWAYS,     TG_IN_FETCH_WAIT, TG_ACT_KILL | TG_ACT_ARM    },
    {TG_IN_TRIAL,      TG_INE_WITHDRAWN,   ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_DROP   },
    {TG_IN_TRIAL_WAIT, TG_INE_TIMER,       ALWAYS,     TG_IN_TRIAL,      TG_ACT_SPAWN                },
    {TG_IN_TRIAL_WAIT, TG_INE_WITHDRAWN,   ALWAYS,     TG_IN_IDLE,       TG_ACT_DROP                 },
 /* it may be answering already: too late to withdraw, the next check-in can */
    {TG_IN_SWITCHING,  TG_INE_SERVING,     ALWAYS,     TG_IN_IDLE,       TG_ACT_COMMIT | TG_ACT_RESET},
    {TG_IN_SWITCHING,  TG_INE_REFUSED,     ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_GIVE_UP},
    {TG_IN_SWITCHING,  TG_INE_TRIAL_BROKE, TRIES_LEFT, TG_IN_TRIAL_WAIT, TG_ACT_KILL | TG_ACT_ARM    },
    {TG_IN_SWITCHING,  TG_INE_TRIAL_BROKE, ALWAYS,     TG_IN_IDLE,       TG_ACT_KILL | TG_ACT_GIVE_UP},
};

static const struct row serving_rows[] = {
    {TG_SV_NONE,     TG_SVE_START,   ALWAYS,        TG_SV_STARTING, TG_ACT_SPAWN               },
    {TG_SV_NONE,     TG_SVE_TAKEN,   ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
    {TG_SV_STARTING, TG_SVE_HEALTHY, ALWAYS,        TG_SV_SERVING,  TG_ACT_SERVE               },
    {TG_SV_STARTING, TG_SVE_BROKE,   TRIES_LEFT,    TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_STARTING, TG_SVE_BROKE,   CAN_FALL_BACK, TG_SV_STARTING,
     TG_ACT_KILL | TG_ACT_FALL_BACK | TG_ACT_RESET | TG_ACT_SPAWN                              },
    {TG_SV_STARTING, TG_SVE_BROKE,   ALWAYS,        TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_STARTING, TG_SVE_REFUSED, CAN_FALL_BACK, TG_SV_STARTING,
     TG_ACT_KILL | TG_ACT_FALL_BACK | TG_ACT_RESET | TG_ACT_SPAWN                              },
    {TG_SV_STARTING, TG_SVE_REFUSED, ALWAYS,        TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_STARTING, TG_SVE_LAPSED,  ALWAYS,        TG_SV_GRANT,    TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_STARTING, TG_SVE_TAKEN,   ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
    {TG_SV_SERVING,  TG_SVE_BROKE,   TRIES_LEFT,    TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_SERVING,  TG_SVE_BROKE,   CAN_FALL_BACK, TG_SV_STARTING,
     TG_ACT_KILL | TG_ACT_FALL_BACK | TG_ACT_RESET | TG_ACT_SPAWN                              },
    {TG_SV_SERVING,  TG_SVE_BROKE,   ALWAYS,        TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_SERVING,  TG_SVE_REFUSED, CAN_FALL_BACK, TG_SV_STARTING,
     TG_ACT_KILL | TG_ACT_FALL_BACK | TG_ACT_RESET | TG_ACT_SPAWN                              },
    {TG_SV_SERVING,  TG_SVE_REFUSED, ALWAYS,        TG_SV_WAIT,     TG_ACT_KILL | TG_ACT_ARM   },
    {TG_SV_SERVING,  TG_SVE_STABLE,  ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
    {TG_SV_SERVING,  TG_SVE_TAKEN,   ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
    {TG_SV_WAIT,     TG_SVE_TIMER,   ALWAYS,        TG_SV_STARTING, TG_ACT_SPAWN               },
    {TG_SV_WAIT,     TG_SVE_TAKEN,   ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
 /* no worker is started in vain meanwhile */
    {TG_SV_GRANT,    TG_SVE_TIMER,   ALWAYS,        TG_SV_GRANT,    TG_ACT_ARM                 },
    {TG_SV_GRANT,    TG_SVE_GRANTED, ALWAYS,        TG_SV_STARTING, TG_ACT_RESET | TG_ACT_SPAWN},
    {TG_SV_GRANT,    TG_SVE_TAKEN,   ALWAYS,        TG_SV_SERVING,  TG_ACT_RESET               },
};

static bool guard_holds(enum guard g, const struct tg_machine_facts *f)
{
    switch (g) {
    case ALWAYS:
        return true;
    case TRIES_LEFT:
        return f->failures < TG_TRIES_MAX;
    case CAN_FALL_BACK:
        return f->can_fall_back;
    }
    return false;
}

static const struct row *find_row(const struct row *rows, size_t n, unsigned state, unsigned event,
                                  const struct tg_machine_facts *facts)
{
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        if (r->state == state && r->event == event && guard_holds((enum guard)r->guard, facts))
            return r;
    }
    return NULL;
}

uint32_t tg_install_step(enum tg_install_state *state, enum tg_install_event event,
                         const struct tg_machine_facts *facts)
{
    const struct row *r = find_row(install_rows, TG_ARRAY_LEN(install_rows), (unsigned)*state,
                                   (unsigned)event, facts);
    if (!r)
        return 0;
    *state = (enum tg_install_state)r->next;
    return r->actions;
}

uint32_t tg_serving_step(enum tg_serving_state *state, enum tg_serving_event event,
                         const struct tg_machine_facts *facts)
{
    const struct row *r = find_row(serving_rows, TG_ARRAY_LEN(serving_rows), (unsigned)*state,
                                   (unsigned)event, facts);
    if (!r)
        return 0;
    *state = (enum tg_serving_state)r->next;
    return r->actions;
}

const char *tg_install_state_name(enum tg_install_state s)
{
    static const char *const names[TG_IN_STATES] = {"idle",   "fetching",    "fetch-waiting",
                                                    "trying", "try-waiting", "switching"};
    return s < TG_IN_STATES ? names[s] : "?";
}

const char *tg_serving_state_name(enum tg_serving_state s)
{
    static const char *const names[TG_SV_STATES] = {"nothing", "starting", "serving", "waiting",
                                                    "grant-waiting"};
    return s < TG_SV_STATES ? names[s] : "?";
}

uint64_t tg_backoff_ms(unsigned failures, uint64_t base_ms, uint64_t cap_ms, uint32_t random)
{
    uint64_t d = base_ms;
    for (unsigned i = 1; i < failures && d < cap_ms; i++)
        d *= 2;
    if (d > cap_ms)
        d = cap_ms;
    return d - d / 2 + random % (d / 2 + 1);
}

uint64_t tg_poll_ms(uint64_t poll_s, uint32_t random)
{
    uint64_t span = poll_s * 400;
    return poll_s * 800 + (span ? random % (span + 1) : 0);
}
