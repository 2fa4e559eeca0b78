/* The devices' listener: package files, grants, reports. */
#include <inttypes.h>
#include <string.h>

#include "platform/blobs.h"
#include "platform/h_agent.h"
#include "platform/handlers.h"
#include "store/deploy.h"
#include "store/fleet.h"
#include "wire/device.h"

static enum tg_rc nothing_of_that(struct tg_call *c, struct tg_err *err)
{
    return TG_REFUSE(c, err, TG_PROBLEM_NOT_FOUND, "nothing of that is deployed to this device");
}

static enum tg_rc concerns(struct tg_call *c, const uint8_t h[32], bool *yes, struct tg_err *err)
{
    *yes = false;
    TG_TRY(tg_call_about(c, h, err));
    return tg_update_concerns(c->db, c->who.id, h, &tg_ends, yes, err);
}

/* A device may have what was deployed to it; anything else does not exist for it. */
static enum tg_rc check_concerns(struct tg_call *c, const uint8_t h[32], struct tg_err *err)
{
    bool yes;

    TG_TRY(concerns(c, h, &yes, err));
    return yes ? TG_OK : nothing_of_that(c, err);
}

/* And the grants of what ran on it last, by its reports of what was deployed to it: until something
 * newer runs there, a grant that lapses must not leave it without. */
static enum tg_rc check_grants(struct tg_call *c, const uint8_t h[32], struct tg_err *err)
{
    const struct tg_directive_query q = {c->who.id, c->who.kem_key_id, tg_ends};
    struct tg_directive_row ran;
    bool yes;

    TG_TRY(concerns(c, h, &yes, err));
    if (yes)
        return TG_OK;
    enum tg_rc rc = tg_update_ran(c->db, &q, c->arena, &ran, err);
    if (rc == TG_E_NOTFOUND)
        return nothing_of_that(c, err);
    TG_TRY(rc);
    yes = tg_bytes_eq(TG_BYTES_OF(ran.h), tg_bytes_make(h, sizeof(ran.h)));
    return yes ? TG_OK : nothing_of_that(c, err);
}

enum tg_rc tg_h_device_blob(struct tg_call *c, struct tg_err *err)
{
    struct tg_package_row package;
    uint8_t sha256[32];

    tg_call_param_bytes(c, 0, sha256, sizeof(sha256));
    TG_TRY(tg_package_by_blob(c->db, sha256, c->arena, &package, err));
    TG_TRY(check_concerns(c, package.h, err));
    return tg_blob_serve(c, &package, err); /* its row comes with the report: tell_fetch */
}

static enum tg_rc tell_grant(struct tg_call *c, const struct tg_grant_row *grant,
                             struct tg_err *err)
{
    struct tg_audit_entry entry = {
        .package = c->package, .detail = grant->vault ? "made by the vault" : "made by an author"};

    TG_TRY(tg_call_text(c, &entry.target, err, "device:%s", c->who.id));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

enum tg_rc tg_h_device_grant(struct tg_call *c, struct tg_err *err)
{
    struct tg_fleet_row fleet;
    struct tg_grant_row grant;
    uint8_t h[32];

    tg_call_param_bytes(c, 0, h, sizeof(h));
    TG_TRY(check_grants(c, h, err));
    TG_TRY(tg_fleet_get(c->db, c->who.fleet, c->arena, &fleet, err));
    TG_TRY(tg_grant_usable(c, h, fleet.grants, &grant, err));
    TG_TRY(tell_grant(c, &grant, err));
    tg_http_res_status(c->res, 200);
    return tg_http_res_body(c->res, TG_WIRE_TYPE_JSON, grant.document);
}

/* ---- reports ---- */

static enum tg_rc decide(struct tg_call *c, const struct tg_update_row *was,
                         const struct tg_wire_report *in, bool *applies, struct tg_err *err)
{
    *applies = false;
    if (in->state < TG_UPDATE_DOWNLOADING || in->state > TG_UPDATE_ROLLED_BACK)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "state: %s is not a device's to report",
                         tg_update_state_names[in->state]);
    if (was->state == TG_UPDATE_SUPERSEDED || was->state == TG_UPDATE_CANCELLED)
        return TG_REFUSE(c, err, TG_PROBLEM_SUPERSEDED, "this update is %s",
                         tg_update_state_names[was->state]);
    if (in->seq <= was->seq) {
        if (in->seq == was->seq && in->state != was->state)
            return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "report %" PRIu64 " said %s before",
                             in->seq, tg_update_state_names[was->state]);
        return TG_OK;
    }
    if (!tg_update_may_follow((enum tg_update_state)was->state, (enum tg_update_state)in->state))
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "%s can't follow %s",
                         tg_update_state_names[in->state], tg_update_state_names[was->state]);
    *applies = true;
    return TG_OK;
}

/* States of a device that has the whole package. */
static bool has_package(int state)
{
    return state >= TG_UPDATE_DOWNLOADED && state <= TG_UPDATE_ROLLED_BACK &&
           state != TG_UPDATE_FAILED;
}

/* The package counts as fetched when its device says that it has all of it, not when bytes were
 * sent: an agent asks for the end of the file first and may refuse the package by what stands
 * there, and what was sent may never have arrived. Inside the change, before the report's own row;
 * once for each time that the device comes to have it. A device that takes the bytes and says
 * nothing cannot hide what it was given: deployment.offer and grant.fetch are the platform's own
 * words, and without the grant the bytes are ciphertext. */
static enum tg_rc tell_fetch(struct tg_call *c, const struct tg_update_row *was,
                             const struct tg_wire_report *in, struct tg_err *err)
{
    struct tg_audit_entry entry = {.action = "package.fetch", .package = c->package};
    struct tg_package_row package;

    if (has_package(was->state) || !has_package(in->state))
        return TG_OK;
    TG_TRY(tg_package_get(c->db, c->package.p, c->arena, &package, err));
    TG_TRY(tg_call_text(c, &entry.target, err, "device:%s", c->who.id));
    TG_TRY(tg_call_text(c, &entry.detail, err, "it has all %" PRIu64 " bytes, says its report: %s",
                        package.blob_size, tg_update_state_names[in->state]));
    return tg_audit(c, &entry, err);
}

/* Does it run there, now that it says this? Nothing but the device's own word tells; it only counts
 * for what was deployed to it. */
static bool runs(const struct tg_update_row *was, int state)
{
    return state == TG_UPDATE_RUNNING ||
           (was->ran && state != TG_UPDATE_FAILED && state != TG_UPDATE_ROLLED_BACK);
}

static enum tg_rc apply(struct tg_call *c, const struct tg_update_row *was,
                        const struct tg_wire_report *in, struct tg_err *err)
{
    const struct tg_update_row is = {.state = in->state,
                                     .code = in->code != NULL ? in->code : "",
                                     .reason = in->reason != NULL ? in->reason : "",
                                     .seq = in->seq,
                                     .updated_at = c->now,
                                     .ran = runs(was, in->state)};
    struct tg_audit_entry entry = {.target = c->target, .package = c->package};

    TG_TRY(tg_update_set(c->db, was, &is, err));
    TG_TRY(tell_fetch(c, was, in, err));
    TG_TRY(tg_call_text(c, &entry.detail, err, "%s%s%s%s%s", tg_update_state_names[in->state],
                        is.code[0] != '\0' ? " " : "", is.code, is.reason[0] != '\0' ? ": " : "",
                        is.reason));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

/* Only the account is new: state and reason of the update stay, whatever they are. The sequence
 * number keeps a repeated account from being written twice. */
static enum tg_rc handed_over(struct tg_call *c, const struct tg_update_row *was,
                              const struct tg_wire_report *in, struct tg_err *err)
{
    struct tg_update_row is = *was;
    const struct tg_audit_entry entry = {.action = "model.handover",
                                         .target = c->target,
                                         .package = c->package,
                                         .detail = in->handover};
    const struct tg_wire_reported out = {.seq = in->seq > was->seq ? in->seq : was->seq,
                                         .state = was->state,
                                         .applied = in->seq > was->seq};

    if (out.applied) {
        is.seq = in->seq;
        TG_TRY(tg_update_set(c->db, was, &is, err));
        TG_TRY(tg_audit(c, &entry, err));
        TG_TRY(tg_db_commit(c->db, err));
    }
    tg_db_rollback(c->db);
    return tg_call_answer(c, 200, &tg_wire_reported, &out, err);
}

/* The word of a device that was away when something newer took an update's place. The update is
 * over, and that is the answer; but whether its package came to run, or the device has gone back
 * from it, decides whose grants it gets (check_grants). "Running" counts only where the device had
 * told before that it was taking the package: what it was merely offered, or what failed, it can't
 * claim afterwards. */
static enum tg_rc remember_late(struct tg_call *c, const struct tg_update_row *was,
                                const struct tg_wire_report *in, struct tg_err *err)
{
    struct tg_update_row is = *was;
    struct tg_audit_entry entry = {.target = c->target, .package = c->package};
    bool took = was->ended_from >= TG_UPDATE_DOWNLOADING && was->ended_from <= TG_UPDATE_RUNNING;

    is.ran = runs(was, in->state);
    is.seq = in->seq;
    if (was->state != TG_UPDATE_SUPERSEDED || in->seq <= was->seq || is.ran == was->ran ||
        (is.ran && !took))
        return TG_OK;
    TG_TRY(tg_update_set(c->db, was, &is, err));
    TG_TRY(tg_call_text(c, &entry.detail, err, "%s, told after it was superseded",
                        tg_update_state_names[in->state]));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

enum tg_rc tg_h_report(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_report in;
    struct tg_update_row was;
    struct tg_deployment_row deployment;
    bool applies = false;

    TG_TRY(tg_call_body(c, &tg_wire_report, &in, err));
    TG_TRY(tg_call_text(c, &c->target, err, "update:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_update_get(c->db, c->params[0], c->who.id, c->arena, &was, err));
    TG_TRY(tg_deployment_get(c->db, c->params[0], c->arena, &deployment, err));
    TG_TRY(tg_call_about(c, deployment.h, err));
    if (in.handover != NULL)
        return handed_over(c, &was, &in, err);
    TG_TRY(remember_late(c, &was, &in, err));
    TG_TRY(decide(c, &was, &in, &applies, err));
    if (applies)
        TG_TRY(apply(c, &was, &in, err));
    tg_db_rollback(c->db); /* nothing was changed otherwise */
    const struct tg_wire_reported out = {.seq = applies ? in.seq : was.seq,
                                         .state = applies ? in.state : was.state,
                                         .applied = applies};
    return tg_call_answer(c, 200, &tg_wire_reported, &out, err);
}
