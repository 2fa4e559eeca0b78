/* Devices as people see them, and revoking one. */
#include <string.h>

#include "platform/handlers.h"
#include "store/deploy.h"
#include "store/fleet.h"
#include "wire/deploy.h"
#include "wire/fleet.h"

const struct tg_update_ends tg_ends = {TG_UPDATE_SUPERSEDED, TG_UPDATE_CANCELLED};

static struct tg_wire_device to_wire(const struct tg_device_row *r)
{
    struct tg_wire_device w = {
        .id = r->id,
        .name = r->name,
        .fleet = r->fleet,
        .state = r->state,
        .enrolled_at = r->enrolled_at,
        .last_seen = r->last_seen,
        .certificate_not_after = r->not_after,
        .certificate_serial = r->serial,
        .agent_version = r->agent_version,
        .separation = r->separation,
        .protection = r->protection,
        .status = r->status,
        .deployment = r->deployment,
        .update_state = r->update_state,
        .update_reason = r->update_reason,
        .reason = r->reason,
    };

    memcpy(w.kem_key_id, r->kem_key_id, sizeof(w.kem_key_id));
    if (r->running.n == sizeof(w.running))
        memcpy(w.running, r->running.p, sizeof(w.running));
    return w;
}

enum tg_rc tg_h_device_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_devices out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_device_list(c->db, tg_call_query(c, "fleet"), &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_device), err));
    for (size_t i = 0; i < rows.n; i++)
        ((struct tg_wire_device *)out.items.items)[i] =
            to_wire(&((const struct tg_device_row *)rows.items)[i]);
    if (rows.n == page.limit)
        out.next = ((const struct tg_device_row *)rows.items)[rows.n - 1].id;
    return tg_call_answer(c, 200, &tg_wire_devices, &out, err);
}

static enum tg_rc get_device(struct tg_call *c, struct tg_wire_device *out, struct tg_err *err)
{
    struct tg_device_row row;

    TG_TRY(tg_device_get(c->db, c->params[0], c->arena, &row, err));
    *out = to_wire(&row);
    return TG_OK;
}

enum tg_rc tg_h_device_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_device out;

    TG_TRY(get_device(c, &out, err));
    return tg_call_resource(c, 200, &tg_wire_device, &out, err);
}

enum tg_rc tg_h_device_revoke(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_revoke in = {NULL};
    struct tg_wire_device device;

    if (c->req->body.n != 0)
        TG_TRY(tg_call_body(c, &tg_wire_revoke, &in, err));
    TG_TRY(tg_call_text(c, &c->target, err, "device:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(get_device(c, &device, err));
    TG_TRY(tg_call_if_match(c, false, &tg_wire_device, &device, err));
    if (device.state == TG_DEVICE_REVOKED)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "device %s was revoked before", device.id);
    const char *reason = in.reason != NULL ? in.reason : "no reason given";
    TG_TRY(tg_device_revoke(c->db, device.id, reason, err));
    TG_TRY(tg_update_end_device(c->db, device.id, &tg_ends, c->now, err));
    const struct tg_audit_entry entry = {.target = c->target, .detail = reason};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(get_device(c, &device, err));
    TG_TRY(tg_db_commit(c->db, err));
    return tg_call_resource(c, 200, &tg_wire_device, &device, err);
}
