/* Deployments: making, showing, cancelling. */
#include "platform/h_deploy.h"

#include <inttypes.h>
#include <string.h>

#include "crypto/hash.h"
#include "platform/handlers.h"
#include "platform/vault.h"
#include "store/fleet.h"
#include "store/package.h"
#include "tgsp/deployment.h"
#include "wire/deploy.h"

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

TG_RC tg_deployment_sign(struct tg_call *c, struct tg_deployment_row *row, struct tg_err *err)
{
    TG_AUTO(bufp) struct tg_buf doc = TG_BUF_INIT(TG_WIRE_DEPLOYMENT_DOC_MAX);
    struct tg_deployment_fields f = {
        .deployment_id = row->id,
        .fleet = row->fleet,
        .device = row->device,
        .allow_rollback = row->allow_rollback,
        .issued_at = c->now,
        .not_after = c->now + TG_DOCUMENT_LIFE,
    };

    memcpy(f.header_sha256, row->h, sizeof(f.header_sha256));
    TG_TRY(tg_deployment_make(&f, c->p->keys->platform, &doc, err));
    TG_TRY(tg_sha256(tg_buf_view(&doc), row->document_sha256));
    uint8_t *copy = tg_arena_alloc(c->arena, doc.n, 1);
    if (copy == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    memcpy(copy, doc.data, doc.n);
    row->document = tg_bytes_make(copy, doc.n);
    row->document_at = c->now;
    return TG_OK;
}

static enum tg_rc to_wire(struct tg_call *c, const struct tg_deployment_row *r,
                          struct tg_wire_deployment *w, struct tg_err *err)
{
    struct tg_jlist counts;

    *w = (struct tg_wire_deployment){
        .id = r->id,
        .state = r->state,
        .model = r->model,
        .version = r->version,
        .fleet = r->fleet,
        .device = r->device,
        .allow_rollback = r->allow_rollback,
        .created_at = r->created_at,
        .created_by = r->created_by,
    };
    memcpy(w->package, r->h, sizeof(w->package));
    TG_TRY(tg_deployment_counts(c->db, r->id, c->arena, &counts, err));
    uint64_t *const by_state[TG_UPDATE_COUNT] = {
        [TG_UPDATE_PENDING] = &w->counts.pending,
        [TG_UPDATE_OFFERED] = &w->counts.offered,
        [TG_UPDATE_DOWNLOADING] = &w->counts.downloading,
        [TG_UPDATE_DOWNLOADED] = &w->counts.downloaded,
        [TG_UPDATE_VERIFYING] = &w->counts.verifying,
        [TG_UPDATE_LOADING] = &w->counts.loading,
        [TG_UPDATE_RUNNING] = &w->counts.running,
        [TG_UPDATE_FAILED] = &w->counts.failed,
        [TG_UPDATE_ROLLED_BACK] = &w->counts.rolled_back,
        [TG_UPDATE_SUPERSEDED] = &w->counts.superseded,
        [TG_UPDATE_CANCELLED] = &w->counts.cancelled,
    };
    for (size_t i = 0; i < counts.n; i++) {
        const struct tg_state_count_row *n = &((const struct tg_state_count_row *)counts.items)[i];
        if (n->state >= 0 && n->state < TG_UPDATE_COUNT)
            *by_state[n->state] = n->n;
    }
    return TG_OK;
}

/* ---- making ---- */

static enum tg_rc check_target(struct tg_call *c, const struct tg_wire_deployment_new *in,
                               struct tg_deployment_row *row, struct tg_err *err)
{
    struct tg_device_row device;
    struct tg_fleet_row fleet;

    if ((in->fleet == NULL) == (in->device == NULL))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST, "name either a fleet or a device");
    if (in->fleet != NULL) {
        TG_TRY(tg_fleet_get(c->db, in->fleet, c->arena, &fleet, err));
        row->fleet = fleet.name;
        return TG_OK;
    }
    TG_TRY(tg_device_get(c->db, in->device, c->arena, &device, err));
    if (device.state != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "device %s was revoked", device.id);
    row->device = device.id;
    row->fleet = device.fleet;
    return TG_OK;
}

static enum tg_rc check_package(struct tg_call *c, const struct tg_package_row *p,
                                const char *fleet, struct tg_err *err)
{
    struct tg_jlist fleets;

    if (p->not_after != 0 && c->now >= p->not_after)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT,
                         "the package has expired: no device would run it");
    TG_TRY(tg_names_decode(c->arena, p->fleets, &fleets, err));
    for (size_t i = 0; i < fleets.n; i++)
        if (strcmp(((const char *const *)fleets.items)[i], fleet) == 0)
            return TG_OK;
    if (fleets.n != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT,
                         "the package's author does not allow it in fleet %s", fleet);
    return TG_OK;
}

enum tg_rc tg_h_deployment_create(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_deployment_new in;
    struct tg_package_row package;
    struct tg_wire_deployment out;
    struct tg_deployment_row row = {.created_at = c->now, .created_by = c->who.name};
    const char *detail;

    TG_TRY(tg_call_body(c, &tg_wire_deployment_new, &in, err));
    TG_TRY(tg_call_about(c, in.package, err));
    TG_TRY(tg_call_text(c, &c->target, err, "%s:%s", in.fleet != NULL ? "fleet" : "device",
                        in.fleet != NULL    ? in.fleet
                        : in.device != NULL ? in.device
                                            : ""));
    row.allow_rollback = in.allow_rollback;
    TG_TRY(tg_db_begin(c->db, err));
    enum tg_rc rc = tg_package_get(c->db, in.package, c->arena, &package, err);
    if (rc == TG_E_NOTFOUND)
        return TG_FAIL(err, rc, "there is no such package here: publish it first");
    TG_TRY(rc);
    TG_TRY(check_target(c, &in, &row, err));
    TG_TRY(check_package(c, &package, row.fleet, err));
    memcpy(row.h, package.h, sizeof(row.h));
    TG_TRY(tg_call_id(c, &row.id, err));
    TG_TRY(tg_deployment_sign(c, &row, err));
    TG_TRY(tg_deployment_add(c->db, &row, err));
    TG_TRY(tg_update_fan_out(c->db, &row, &tg_ends, c->now, err));
    TG_TRY(tg_call_text(c, &detail, err, "deployment %s: %s %s%s", row.id, package.model,
                        package.version, row.allow_rollback ? ", rollback allowed" : ""));
    const struct tg_audit_entry entry = {
        .target = c->target, .package = c->package, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    row.model = package.model;
    row.version = package.version;
    TG_TRY(to_wire(c, &row, &out, err));
    return tg_call_resource(c, 201, &tg_wire_deployment, &out, err);
}

/* ---- showing ---- */

enum tg_rc tg_h_deployment_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_deployment_filter f = {.fleet = tg_call_query(c, "fleet")};
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_deployments out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_call_query_hash(c, "package", &f.package, err));
    TG_TRY(tg_deployment_list(c->db, &f, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_deployment), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_deployment_row *r = &((const struct tg_deployment_row *)rows.items)[i];
        TG_TRY(to_wire(c, r, &((struct tg_wire_deployment *)out.items.items)[i], err));
        if (i + 1 == page.limit)
            TG_TRY(tg_call_text(c, &out.next, err, "%" PRIu64, r->seq));
    }
    return tg_call_answer(c, 200, &tg_wire_deployments, &out, err);
}

static enum tg_rc add_updates(struct tg_call *c, struct tg_wire_deployment *w,
                              const struct tg_page *page, struct tg_err *err)
{
    struct tg_jlist rows;

    TG_TRY(tg_update_list(c->db, w->id, page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &w->updates, rows.n, sizeof(struct tg_wire_update), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_update_row *r = &((const struct tg_update_row *)rows.items)[i];
        ((struct tg_wire_update *)w->updates.items)[i] =
            (struct tg_wire_update){.device = r->device,
                                    .device_name = r->device_name,
                                    .state = r->state,
                                    .code = r->code,
                                    .reason = r->reason,
                                    .seq = r->seq,
                                    .updated_at = r->updated_at};
        if (i + 1 == page->limit)
            w->next = r->device;
    }
    return TG_OK;
}

static enum tg_rc get(struct tg_call *c, struct tg_deployment_row *row,
                      struct tg_wire_deployment *out, struct tg_err *err)
{
    TG_TRY(tg_deployment_get(c->db, c->params[0], c->arena, row, err));
    return to_wire(c, row, out, err);
}

enum tg_rc tg_h_deployment_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_deployment_row row;
    struct tg_wire_deployment out;
    struct tg_page page;

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(get(c, &row, &out, err));
    TG_TRY(add_updates(c, &out, &page, err));
    return tg_call_resource(c, 200, &tg_wire_deployment, &out, err);
}

/* ---- cancelling ---- */

enum tg_rc tg_h_deployment_cancel(struct tg_call *c, struct tg_err *err)
{
    const struct tg_page first = {NULL, TG_WIRE_PAGE_DEFAULT};
    struct tg_deployment_row row;
    struct tg_wire_deployment out;

    TG_TRY(tg_call_text(c, &c->target, err, "deployment:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(get(c, &row, &out, err));
    TG_TRY(tg_call_about(c, row.h, err));
    TG_TRY(add_updates(c, &out, &first, err)); /* the ETag is that of the GET */
    TG_TRY(tg_call_if_match(c, false, &tg_wire_deployment, &out, err));
    if (row.state != TG_DEPLOYMENT_ACTIVE)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "deployment %s was cancelled before", row.id);
    TG_TRY(tg_deployment_cancel(c->db, row.id, err));
    TG_TRY(tg_update_end_deployment(c->db, row.id, &tg_ends, c->now, err));
    const struct tg_audit_entry entry = {.target = c->target, .package = c->package, .detail = ""};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(get(c, &row, &out, err));
    TG_TRY(add_updates(c, &out, &first, err));
    TG_TRY(tg_db_commit(c->db, err));
    return tg_call_resource(c, 200, &tg_wire_deployment, &out, err);
}
