/* The device's policy over a verified package: validity, constraints, rollback (spec §3, §7). */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "tgsp/format_internal.h"
#include "tgsp/package_internal.h"

static enum tg_rc validity_check(const struct tg_tgsp_validity *v, int64_t now, struct tg_err *err)
{
    char text[TG_TIME_TEXT] = "?";
    if (v->has_not_before && now < v->not_before) {
        (void)!tg_time_format(v->not_before, text);
        return TG_FAIL(err, TG_E_EXPIRED, "manifest.validity.not_before: valid only from %s", text);
    }
    if (v->has_not_after && now >= v->not_after) {
        (void)!tg_time_format(v->not_after, text);
        return TG_FAIL(err, TG_E_EXPIRED, "manifest.validity.not_after: expired at %s", text);
    }
    return TG_OK;
}

static enum tg_rc fleet_check(const struct tg_tgsp_constraints *c, const char *fleet,
                              struct tg_err *err)
{
    const char *const *v = c->fleets.items;
    for (size_t i = 0; i < c->fleets.n; i++)
        if (strcmp(v[i], fleet) == 0)
            return TG_OK;
    if (c->fleets.n == 0)
        return TG_OK;
    return TG_FAIL(err, TG_E_DENIED,
                   "manifest.constraints.fleets: not for fleet '%.64s', where this device enrolled",
                   fleet);
}

static enum tg_rc agent_check(const struct tg_tgsp_constraints *c, const char *have,
                              struct tg_err *err)
{
    uint64_t need[3], got[3];
    if (!c->min_agent)
        return TG_OK;
    TG_TRY(tg_version_parse(c->min_agent, need)); /* checked when it was decoded */
    if (tg_version_parse(have, got) != TG_OK)
        return TG_FAIL(err, TG_E_INTERNAL, "agent version '%.32s' is not MAJOR.MINOR.PATCH", have);
    for (size_t i = 0; i < 3; i++) {
        if (got[i] > need[i])
            return TG_OK;
        if (got[i] < need[i])
            return TG_FAIL(
                err, TG_E_DENIED,
                "manifest.constraints.min_agent: needs agent %s, this is %s; update the agent",
                c->min_agent, have);
    }
    return TG_OK;
}

static enum tg_rc deployment_check(const struct tg_tgsp *p, const struct tg_deployment *d,
                                   struct tg_err *err)
{
    if (!tg_deployment_verified(d))
        return TG_FAIL(err, TG_E_STATE, "the deployment has not been verified");
    if (!tg_mem_eq(tg_deployment_fields_get(d)->header_sha256, p->h, TG_TGSP_H_LEN))
        return TG_FAIL(err, TG_E_DENIED, "the deployment names another package");
    return TG_OK;
}

struct tg_rollback_query tg_tgsp_rollback_query(const struct tg_tgsp *p,
                                                const struct tg_tgsp_policy *policy)
{
    const struct tg_tgsp_model *m = &p->manifest.model;
    const struct tg_deployment *d = policy->deployment;
    return (struct tg_rollback_query){
        .model = m->name,
        .sequence = m->sequence,
        .floor = m->floor,
        .header_sha256 = p->h,
        .reset_count = policy->trust ? tg_trust_reset_count(policy->trust, m->name) : 0,
        .deployment_allows = d && deployment_check(p, d, NULL) == TG_OK &&
                             tg_deployment_fields_get(d)->allow_rollback,
    };
}

static enum tg_rc policy_check(const struct tg_tgsp *p, const struct tg_tgsp_policy *policy,
                               struct tg_err *err)
{
    if (policy->check_time)
        TG_TRY(validity_check(&p->manifest.validity, policy->now, err));
    if (policy->fleet)
        TG_TRY(fleet_check(&p->manifest.constraints, policy->fleet, err));
    if (policy->agent_version)
        TG_TRY(agent_check(&p->manifest.constraints, policy->agent_version, err));
    if (policy->deployment)
        TG_TRY(deployment_check(p, policy->deployment, err));
    if (policy->record) {
        struct tg_rollback_query q = tg_tgsp_rollback_query(p, policy);
        TG_TRY(tg_rollback_decide(policy->record, &q, err));
    }
    return TG_OK;
}

enum tg_rc tg_tgsp_admit(struct tg_tgsp *p, const struct tg_tgsp_policy *policy, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_VERIFIED, err));
    enum tg_rc rc = policy_check(p, policy, err);
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", p->src.name);
        return rc;
    }
    if (p->stage < TG_STAGE_ADMITTED)
        p->stage = TG_STAGE_ADMITTED;
    return TG_OK;
}
