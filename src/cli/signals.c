#include "cli/signals.h"

#include <signal.h>
#include <stddef.h>

#include "base/file.h"

/* The one thing a handler may touch. */
static volatile sig_atomic_t caught;

static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};

static void note(int sig)
{
    caught = sig;
    tg_io_cancel();
}

void cli_signals_catch(void)
{
    struct sigaction sa = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};
    struct sigaction old;

    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < TG_ARRAY_LEN(SIGNALS); i++)
        if (sigaction(SIGNALS[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(SIGNALS[i], &sa, NULL);
}

enum tg_rc cli_signals_check(struct tg_err *err)
{
    if (caught == 0)
        return TG_OK;
    return TG_FAIL(err, TG_E_CLOSED, "interrupted");
}

void cli_signals_die(void)
{
    if (caught == 0)
        return;
    (void)signal(caught, SIG_DFL);
    (void)raise(caught);
}
