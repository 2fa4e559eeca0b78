/* Ctrl-C for commands that write: the next read or write fails, what was begun is removed by the
 * ordinary error path, and main then dies of the signal as if it had not been caught. A second
 * signal ends the process at once. */
#ifndef TG_CLI_SIGNALS_H
#define TG_CLI_SIGNALS_H

#include "base/err.h"

/* From now on SIGINT, SIGTERM and SIGHUP stop file work (tg_io_cancel) and set a flag. */
void cli_signals_catch(void);
/* @retval TG_E_CLOSED a signal came: "interrupted" */
TG_RC cli_signals_check(struct tg_err *err);
/* If a signal came, end by it; else return. */
void cli_signals_die(void);

#endif
