/* The worker's side of the native socket: who comes, what they ask for, what they get
 * (docs/spec/native-1.0.md). Lives in the loop's thread; calls run in the threads of ring.h.
 *
 * A client is known by the credentials the kernel gives. One that breaks the protocol, does not
 * read its answers or dies is cut off; nobody else notices. */
#ifndef TG_MOAI_NATIVE_SERVER_H
#define TG_MOAI_NATIVE_SERVER_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "moai/handover.h"
#include "moai/load.h"
#include "net/loop.h"

#define TG_NATIVE_CLIENTS_MAX 32        /* connections */
#define TG_NATIVE_CLIENTS_OF_ONE_MAX 24 /* of one user */
#define TG_NATIVE_RINGS_OF_ONE_MAX 3    /* of TG_RINGS_MAX */

struct tg_native_server;

struct tg_native_server_opts {
    struct tg_loop *loop;
    int listen;       /* SOCK_SEQPACKET, listening; owned from here on, whatever happens */
    uint64_t spin_ns; /* how long a thread looks for the next call before it sleeps */
    struct tg_handover_opts handover;
};

/* Makes threads and descriptors: before the sandbox. Accepts nothing yet. */
TG_RC tg_native_server_new(const struct tg_native_server_opts *o, struct tg_native_server **out,
                           struct tg_err *err);
/* Cuts off everybody, ends calls and threads. Before the model is freed. NULL is fine. */
void tg_native_server_free(struct tg_native_server *n);
TG_DEFINE_AUTO(struct tg_native_server, tg_native_server_freep, tg_native_server_free);

/* Accept from now on, for this model (borrowed until _free). */
TG_RC tg_native_server_serve(struct tg_native_server *n, const struct tg_model *model,
                             struct tg_err *err);

struct tg_native_drain_opts {
    uint32_t grace_ms;    /* for calls */
    uint32_t deadline_ms; /* for what somebody waits to be handed; not less than grace_ms */
    void (*done)(void *arg);
    void *arg;
};

/* Accept no more and ask everybody to go elsewhere; who is still there afterwards is cut off (its
 * library asks the next worker again). Then done(arg), in the loop. opts is copied. */
void tg_native_server_drain(struct tg_native_server *n, const struct tg_native_drain_opts *opts);

struct tg_native_facts {
    uint64_t good, bad; /* calls */
    uint64_t clients, rings;
    struct tg_handover_facts handover;
};

struct tg_native_facts tg_native_server_facts(const struct tg_native_server *n);

#endif
