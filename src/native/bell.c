#include "native/bell.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A failure shows as an early return, which every caller expects. */
void tg_bell_ring(_Atomic uint32_t *bell)
{
    (void)atomic_fetch_add(bell, 1);
    (void)syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void tg_bell_sleep(_Atomic uint32_t *bell, uint32_t seen, uint64_t ns)
{
    const struct timespec limit = {.tv_sec = (time_t)(ns / 1000000000),
                                   .tv_nsec = (long)(ns % 1000000000)};

    (void)syscall(SYS_futex, bell, FUTEX_WAIT, seen, &limit, NULL, 0);
}
