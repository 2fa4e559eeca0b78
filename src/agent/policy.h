/* What the agent itself decides about deployments and packages, by the operator's trust store and
 * the rollback record. The worker checks all of it again with its own eyes, and more; the agent
 * checks first so that nothing is fetched or started in vain, and so that the reason is plain. */
#ifndef TG_AGENT_POLICY_H
#define TG_AGENT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/records.h"
#include "agent/state.h"
#include "base/bytes.h"
#include "base/err.h"
#include "tgsp/deployment.h"
#include "tgsp/rollback.h"
#include "tgsp/src.h"
#include "tgsp/trust.h"

TG_RC tg_policy_trust_load(const struct tg_state *s, struct tg_trust **out, struct tg_err *err);
/* A missing record is an empty one. */
TG_RC tg_policy_rollback_load(const struct tg_state *s, struct tg_rollback **out,
                              struct tg_err *err);
TG_RC tg_policy_rollback_save(const struct tg_state *s, const struct tg_rollback *r,
                              struct tg_err *err);

/* Is this signed deployment the platform's word, for this device, now, about this package under
 * this id? @retval as tg_deployment_verify, TG_E_AUTH when it names another package or id */
TG_RC tg_policy_deployment(const struct tg_state *s, const struct tg_settings *set,
                           struct tg_bytes text, const struct tg_held *pkg, int64_t now,
                           struct tg_err *err);

/* May the package in `path` be tried? H, signatures, model name, threshold, validity, fleet, agent
 * version, rollback (with the stored deployment, if it is there and valid). Fills pkg's model,
 * version, sequence, floor. */
TG_RC tg_policy_admit(const struct tg_state *s, const struct tg_settings *set, const char *path,
                      struct tg_held *pkg, int64_t now, struct tg_err *err);
/* The same from anywhere, say a package whose payload is still to come. */
TG_RC tg_policy_admit_src(const struct tg_state *s, const struct tg_settings *set,
                          const struct tg_src *src, struct tg_held *pkg, int64_t now,
                          struct tg_err *err);

/* Is the package still signed as the trust store of today asks? (No time, no rollback.) */
TG_RC tg_policy_still_trusted(const struct tg_state *s, const struct tg_held *pkg,
                              struct tg_err *err);

/* Is this a grant of the package for this device, by a granter of the trust store, and valid now?
 * Whether its block opens, only the worker can tell.
 * @retval TG_E_EXPIRED outside its time, and nothing else is wrong with it */
TG_RC tg_policy_grant(const struct tg_state *s, const struct tg_held *pkg, struct tg_bytes text,
                      int64_t now, struct tg_err *err);
/* The same for the one that is kept for the package, or for the later one beside it.
 * @retval TG_E_NOTFOUND there is none */
TG_RC tg_policy_grant_kept(const struct tg_state *s, const struct tg_held *pkg, bool later,
                           int64_t now, struct tg_err *err);

/* Does the kept grant do, or a later one? */
bool tg_policy_grant_does(const struct tg_state *s, const struct tg_held *pkg, int64_t now);

/* Is a grant all that keeps the package from running? It may run now, has no block for this
 * device's own key, and the kept grant does not do: outside its time, not there, damaged, of a
 * granter that the trust store does not name (any more). Then a worker that could not open the
 * package says nothing about it. err, filled when it is so: what is wrong with the grant, and its
 * code. */
bool tg_policy_grant_lacks(const struct tg_state *s, const struct tg_settings *set,
                           const struct tg_held *pkg, int64_t now, struct tg_err *err);
/* And is there no later one that may do? Then a worker would be started in vain. */
bool tg_policy_grant_wanted(const struct tg_state *s, const struct tg_settings *set,
                            const struct tg_held *pkg, int64_t now, struct tg_err *err);

/* The package became healthy: write that into the rollback record, durably. */
TG_RC tg_policy_accept(const struct tg_state *s, const struct tg_held *pkg, struct tg_err *err);

/* Replace the trust store by the newer one in `path` if the present one's keys allow it.
 * @retval as tg_trust_succeeds */
TG_RC tg_policy_trust_replace(const struct tg_state *s, const char *path, uint64_t *version,
                              struct tg_err *err);

#endif
