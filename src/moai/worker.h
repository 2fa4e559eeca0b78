/* The worker process, from its command line to its exit (docs/architecture.md, "Agent and worker").
 */
#ifndef TG_MOAI_WORKER_H
#define TG_MOAI_WORKER_H

#include "base/err.h"
#include "base/region.h"
#include "moai/handover.h"
#include "moai/service.h"

struct tg_worker_opts {
    int package, trust, key, rollback, control;
    int grant, deployment, token; /* -1: none */
    int bake_in, bake_out;        /* -1: none */
    int arrival;                  /* of a package that is still being downloaded; -1: complete */
    int listen[TG_SERVICE_LISTENERS_MAX];
    size_t n_listen;
    int native;                          /* SOCK_SEQPACKET; -1: none */
    uint64_t native_spin_us;             /* 0: sleep at once */
    uid_t takers[TG_HANDOVER_USERS_MAX]; /* who may be handed files; n_takers 0: nobody */
    size_t n_takers;
    const char *fleet, *device_id;
    const char *user;         /* NULL: stay */
    unsigned threads;         /* 0: all processors */
    enum tg_level protection; /* the least level: below it the worker refuses */
};

/* Runs until drained, told to stop, or failed. What went wrong was told to the agent, and is in
 * err. */
TG_RC tg_worker_run(const struct tg_worker_opts *opts, struct tg_err *err);

/* What libraries read on their first use (configuration, time zone, randomness), so that they need
 * not inside the sandbox. */
TG_RC tg_worker_warm_up(struct tg_err *err);

struct tg_make_key_opts {
    const char *dir;  /* NULL: the agent's way, below */
    const char *user; /* become this user first; NULL: stay */
    bool json;        /* say what was made as one JSON object on stdout */
};

/* `--make-key`: a hybrid KEM pair, owned by whoever runs this (by `user`, if there is one).
 * Without dir (the agent's way): kem.priv (0600) in the current folder, made unless it is there;
 * the public half as PEM to stdout. With dir, for people: a fresh dir/kem.priv and dir/kem.pub; dir
 * is made (0700) if it is missing; a key that is there is never overwritten.
 * @retval TG_E_EXISTS there is a key already (only with dir) */
TG_RC tg_moai_make_key(const struct tg_make_key_opts *opts, struct tg_err *err);

#endif
