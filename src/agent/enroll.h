/* `tensorguard-agent enroll`: keys, trust store, token and CSR there, certificate back.
 *
 * Every step can be repeated: what an enrolment that was broken off left behind is used again, and
 * agent.json, which makes the device enrolled, is written last. Only the token is spent once. */
#ifndef TG_AGENT_ENROLL_H
#define TG_AGENT_ENROLL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tg_enroll_opts {
    const char *server, *token_file, *ca, *fleet, *platform_key;
    const char *const *trust; /* author keys; with n_trust 0: */
    size_t n_trust;
    const char *trust_store;
    bool no_vault_grants; /* the platform key gets no `granter` role */
    const char *state_dir, *worker, *worker_user, *protection, *name;
    const char *predict_socket, *native_socket, *socket_group;
    const char *const *handover; /* users, by name or number */
    size_t n_handover;
    uint64_t native_spin_us, memory_max_mib;
    bool tcp;
    uint64_t tcp_port;
    const char *tcp_token_file;
    uint64_t check_in_s, load_timeout_s, drain_timeout_s, worker_timeout_s;
    bool again; /* enrolled already: get a new identity, keep trust store and rollback record */
    const char *kill_at; /* fault drill, as in daemon.h: key, kem, sent, stored */
};

struct tg_enrolled {
    char device_id[129];
    char kem_key_id[33]; /* hex: what an author pins */
    bool separate;       /* the worker has a user of its own */
    bool already;        /* it was enrolled before; nothing was done */
};

TG_RC tg_enroll(const struct tg_enroll_opts *o, struct tg_enrolled *out, struct tg_err *err);

#endif
