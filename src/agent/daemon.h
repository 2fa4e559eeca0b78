/* `tensorguard-agent run`: the main thread. Events come from the workers' control channels, the
 * network thread, signals and one timer; the machines (machine.h) say what follows; the functions
 * here do it. */
#ifndef TG_AGENT_DAEMON_H
#define TG_AGENT_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tg_run_opts {
    const char *state_dir;
    unsigned renew_percent; /* of the certificate's life: then it is renewed */
    bool once;              /* one check-in, what follows from it, then stop */
    const char *protection; /* instead of the level that enrolment set; NULL: that one */
    const char *kill_at;    /* fault drill: SIGKILL oneself right after this step; NULL: never */
};

/* Run until SIGTERM or SIGINT (or, with once, until there is nothing left to do).
 * With once, the failure of the update or of the check-in is returned. */
TG_RC tg_daemon_run(const struct tg_run_opts *opts, struct tg_err *err);

#endif
