/* One event loop for one thread: timers, descriptors, signals, and whatever servers hang on it.
 *
 * Nothing here is thread-safe: a loop, its items and its servers belong to the thread that runs it.
 * tg_loop_new makes every descriptor the loop will ever need (epoll, a pipe for signals), so a
 * process may make its loop first and enter a sandbox afterwards; from then on the loop itself
 * calls only epoll_wait, epoll_ctl, clock_gettime, read/write on its pipe and, for tg_loop_signal,
 * rt_sigaction. */
#ifndef TG_NET_LOOP_H
#define TG_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tg_loop;
struct tg_loop_item;

/* @retval TG_E_NOMEM   @retval TG_E_IO the system gave no epoll descriptor */
TG_RC tg_loop_new(struct tg_loop **out, struct tg_err *err);
/* Items still registered are freed too; servers on the loop must be freed before. NULL is fine. */
void tg_loop_free(struct tg_loop *loop);
TG_DEFINE_AUTO(struct tg_loop, tg_loop_freep, tg_loop_free);

/* Run until tg_loop_stop. Can be run again afterwards.
 * @retval TG_E_IO the system's poll failed */
TG_RC tg_loop_run(struct tg_loop *loop, struct tg_err *err);
/* Run what is ready; wait at most wait_ms for something (0: don't wait). For tests and for callers
 * that have other work between turns. */
TG_RC tg_loop_turn(struct tg_loop *loop, uint32_t wait_ms, struct tg_err *err);
/* From a callback: tg_loop_run returns once the callbacks already due have run. */
void tg_loop_stop(struct tg_loop *loop);

/* Called in the loop's thread. May free its own item and any other. */
typedef void tg_loop_fn(void *arg);

/* Call fn every `ms` milliseconds (≥ 1), first after `ms`. out: for tg_loop_item_free, may be NULL
 * (then it lives as long as the loop). */
TG_RC tg_loop_every(struct tg_loop *loop, uint32_t ms, tg_loop_fn *fn, void *arg,
                    struct tg_loop_item **out);
/* Call fn once after `ms` milliseconds (0: in this turn of the loop, after what is running now).
 * The item stays, and must be freed (or re-armed with tg_loop_rearm). */
TG_RC tg_loop_after(struct tg_loop *loop, uint32_t ms, tg_loop_fn *fn, void *arg,
                    struct tg_loop_item **out);
/* Set a timer item to fire (first) `ms` from now, whatever it was set to before. */
TG_RC tg_loop_rearm(struct tg_loop_item *timer, uint32_t ms);

enum { TG_LOOP_READ = 1, TG_LOOP_WRITE = 2 };

/* events: TG_LOOP_READ | TG_LOOP_WRITE, level-triggered, until freed. The descriptor is borrowed
 * and must be freed from the loop before it is closed. End of file shows as readable. */
TG_RC tg_loop_fd(struct tg_loop *loop, int fd, unsigned events, tg_loop_fn *fn, void *arg,
                 struct tg_loop_item **out);
/* Call fn in the loop (not in the signal handler) when `signo` arrives. */
TG_RC tg_loop_signal(struct tg_loop *loop, int signo, tg_loop_fn *fn, void *arg,
                     struct tg_loop_item **out);

/* Unregister. NULL is fine. */
void tg_loop_item_free(struct tg_loop_item *item);
TG_DEFINE_AUTO(struct tg_loop_item, tg_loop_item_freep, tg_loop_item_free);

#endif
