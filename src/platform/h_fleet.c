/* Fleets and enrolment tokens. */
#include <string.h>

#include "platform/handlers.h"
#include "store/fleet.h"
#include "wire/fleet.h"

#define HOUR INT64_C(3600)

static struct tg_wire_fleet fleet_to_wire(const struct tg_fleet_row *r)
{
    return (struct tg_wire_fleet){.name = r->name,
                                  .description = r->description,
                                  .grants = r->grants,
                                  .created_at = r->created_at,
                                  .devices = r->devices,
                                  .deployment = r->deployment};
}

enum tg_rc tg_h_fleet_create(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_fleet_new in;

    TG_TRY(tg_call_body(c, &tg_wire_fleet_new, &in, err));
    if (!tg_wire_name_ok(in.name))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "name: 1-64 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash");
    TG_TRY(tg_call_text(c, &c->target, err, "fleet:%s", in.name));
    const struct tg_fleet_row row = {.name = in.name,
                                     .description = in.description != NULL ? in.description : "",
                                     .grants = in.grants,
                                     .created_at = c->now};
    TG_TRY(tg_db_begin(c->db, err));
    enum tg_rc rc = tg_fleet_add(c->db, &row, err);
    if (rc == TG_E_EXISTS)
        return TG_REFUSE(c, err, TG_PROBLEM_EXISTS, "there is a fleet %s already", in.name);
    TG_TRY(rc);
    const struct tg_audit_entry entry = {.target = c->target, .detail = row.description};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    const struct tg_wire_fleet out = fleet_to_wire(&row);
    return tg_call_resource(c, 201, &tg_wire_fleet, &out, err);
}

enum tg_rc tg_h_fleet_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_fleets out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_fleet_list(c->db, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_fleet), err));
    for (size_t i = 0; i < rows.n; i++)
        ((struct tg_wire_fleet *)out.items.items)[i] =
            fleet_to_wire(&((const struct tg_fleet_row *)rows.items)[i]);
    if (rows.n == page.limit)
        out.next = ((const struct tg_fleet_row *)rows.items)[rows.n - 1].name;
    return tg_call_answer(c, 200, &tg_wire_fleets, &out, err);
}

static enum tg_rc get_fleet(struct tg_call *c, struct tg_wire_fleet *out, struct tg_err *err)
{
    struct tg_fleet_row row;

    TG_TRY(tg_fleet_get(c->db, c->params[0], c->arena, &row, err));
    *out = fleet_to_wire(&row);
    return TG_OK;
}

enum tg_rc tg_h_fleet_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_fleet out;

    TG_TRY(get_fleet(c, &out, err));
    return tg_call_resource(c, 200, &tg_wire_fleet, &out, err);
}

enum tg_rc tg_h_fleet_change(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_fleet_new in;
    struct tg_wire_fleet fleet;
    const char *detail;

    TG_TRY(tg_call_body(c, &tg_wire_fleet_new, &in, err));
    if (in.name != NULL && strcmp(in.name, c->params[0]) != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "name: a fleet can't be renamed");
    TG_TRY(tg_call_text(c, &c->target, err, "fleet:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(get_fleet(c, &fleet, err));
    TG_TRY(tg_call_if_match(c, true, &tg_wire_fleet, &fleet, err));
    fleet.description = in.description != NULL ? in.description : "";
    fleet.grants = in.grants;
    const struct tg_fleet_row row = {
        .name = fleet.name, .description = fleet.description, .grants = fleet.grants};
    TG_TRY(tg_fleet_change(c->db, &row, err));
    TG_TRY(tg_call_text(c, &detail, err, "grants by %s", tg_grant_policy_names[in.grants]));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    return tg_call_resource(c, 200, &tg_wire_fleet, &fleet, err);
}

enum tg_rc tg_h_kem_keys(struct tg_call *c, struct tg_err *err)
{
    struct tg_fleet_row fleet;
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_kem_keys out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_fleet_get(c->db, c->params[0], c->arena, &fleet, err));
    TG_TRY(tg_device_list_active(c->db, fleet.name, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_kem_key), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_device_row *r = &((const struct tg_device_row *)rows.items)[i];
        struct tg_wire_kem_key *w = &((struct tg_wire_kem_key *)out.items.items)[i];
        w->device = r->id;
        w->name = r->name;
        memcpy(w->kem_key_id, r->kem_key_id, sizeof(w->kem_key_id));
        if (r->kem_public_key.n != sizeof(w->kem_public_key))
            return TG_FAIL(err, TG_E_INTERNAL, "device %s: KEM key", r->id);
        memcpy(w->kem_public_key, r->kem_public_key.p, sizeof(w->kem_public_key));
        if (i + 1 == page.limit)
            out.next = r->id;
    }
    return tg_call_answer(c, 200, &tg_wire_kem_keys, &out, err);
}

/* ---- enrolment tokens ---- */

static struct tg_wire_enrolment_token enrolment_to_wire(const struct tg_enrolment_row *r,
                                                        int64_t now)
{
    return (struct tg_wire_enrolment_token){.id = r->id,
                                            .fleet = r->fleet,
                                            .state = r->used_at != 0        ? TG_ENROLMENT_USED
                                                     : now >= r->expires_at ? TG_ENROLMENT_EXPIRED
                                                                            : TG_ENROLMENT_OPEN,
                                            .created_at = r->created_at,
                                            .expires_at = r->expires_at,
                                            .note = r->note,
                                            .device = r->device};
}

enum tg_rc tg_h_enrolment_create(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_enrolment_token_new in;
    struct tg_fleet_row fleet;
    struct tg_enrolment_row row = {.created_at = c->now};
    const char *token, *detail;

    TG_TRY(tg_call_body(c, &tg_wire_enrolment_token_new, &in, err));
    row.fleet = in.fleet;
    row.note = in.note != NULL ? in.note : "";
    row.expires_at = c->now + (in.expires_in_s != 0 ? (int64_t)in.expires_in_s : HOUR);
    TG_TRY(tg_call_id(c, &row.id, err));
    TG_TRY(tg_call_token(c, "tge_", &token, row.hash, err));
    TG_TRY(tg_call_text(c, &c->target, err, "enrolment:%s", row.id));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_fleet_get(c->db, in.fleet, c->arena, &fleet, err));
    TG_TRY(tg_enrolment_add(c->db, &row, err));
    TG_TRY(tg_call_text(c, &detail, err, "fleet %s", in.fleet));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    struct tg_wire_enrolment_token out = enrolment_to_wire(&row, c->now);
    out.token = token;
    return tg_call_answer(c, 201, &tg_wire_enrolment_token, &out, err);
}

enum tg_rc tg_h_enrolment_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_enrolment_tokens out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_enrolment_list(c->db, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_enrolment_token), err));
    for (size_t i = 0; i < rows.n; i++)
        ((struct tg_wire_enrolment_token *)out.items.items)[i] =
            enrolment_to_wire(&((const struct tg_enrolment_row *)rows.items)[i], c->now);
    if (rows.n == page.limit)
        out.next = ((const struct tg_enrolment_row *)rows.items)[rows.n - 1].id;
    return tg_call_answer(c, 200, &tg_wire_enrolment_tokens, &out, err);
}

enum tg_rc tg_h_enrolment_delete(struct tg_call *c, struct tg_err *err)
{
    TG_TRY(tg_call_text(c, &c->target, err, "enrolment:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_enrolment_delete(c->db, c->params[0], err));
    const struct tg_audit_entry entry = {.target = c->target, .detail = ""};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}
