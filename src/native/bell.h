/* Sleeping on a word of shared memory, and waking who sleeps there (futex(2), between processes).
 *
 * Who sleeps: says so in a flag, reads the bell, looks once more whether there is something to do,
 * and sleeps only while the bell has that value. Who wakes: publishes first, then looks at the
 * flag, and rings only where it is set. All of it sequentially consistent, so that one of the two
 * sees the other. */
#ifndef TG_NATIVE_BELL_H
#define TG_NATIVE_BELL_H

#include <stdatomic.h>
#include <stdint.h>

/* Change the bell and wake all who sleep on it. */
void tg_bell_ring(_Atomic uint32_t *bell);
/* Sleep while *bell is `seen`, at most ns nanoseconds. May return early, for any reason. */
void tg_bell_sleep(_Atomic uint32_t *bell, uint32_t seen, uint64_t ns);

/* One turn of a loop that spins: tells the processor so. */
static inline void tg_spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif
