/* The devices' listener: enrolment, renewal, check-in. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "crypto/hash.h"
#include "crypto/random.h"
#include "platform/h_agent.h"
#include "platform/h_deploy.h"
#include "platform/handlers.h"
#include "platform/vault.h"
#include "store/fleet.h"
#include "wire/device.h"
#include "wire/fleet.h"

#define LIVE_CERTIFICATES_MAX 8

/* ---- certificates ---- */

static enum tg_rc issue(struct tg_call *c, const char *csr, const char *device,
                        struct tg_certificate_row *row, const char **pem, struct tg_err *err)
{
    TG_AUTO(tg_issued_done) struct tg_issued cert = {.pem = TG_BUF_INIT(TG_WIRE_PEM_MAX)};
    const struct tg_x509_device_opts opts = {device, c->now, TG_X509_DEVICE_DAYS};

    enum tg_rc rc = tg_keys_device_cert(c->p->keys, tg_bytes_str(csr), &opts, &cert, err);
    if (rc == TG_E_FORMAT || rc == TG_E_AUTH || rc == TG_E_UNSUPPORTED) {
        tg_err_wrap(err, "csr");
        c->problem = TG_PROBLEM_BAD_REQUEST;
        return TG_E_FORMAT;
    }
    TG_TRY(rc);
    *row = (struct tg_certificate_row){
        .device = device, .issued_at = c->now, .not_after = cert.facts.not_after};
    TG_TRY(tg_call_text(c, &row->serial, err, "%s", cert.facts.serial));
    *pem = tg_arena_strndup(c->arena, tg_buf_cstr(&cert.pem), cert.pem.n);
    return *pem != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

/* ---- enrolment ---- */

/* Inside the change: is the token good for this fleet? Each refusal leaves its row. */
static enum tg_rc check_token(struct tg_call *c, const struct tg_wire_enrol *in,
                              struct tg_enrolment_row *row, struct tg_err *err)
{
    uint8_t hash[32];

    TG_TRY(tg_sha256(tg_bytes_str(in->token), hash));
    enum tg_rc rc = tg_enrolment_by_hash(c->db, hash, c->arena, row, err);
    if (rc == TG_E_NOTFOUND)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "unknown enrolment token");
    TG_TRY(rc);
    TG_TRY(tg_call_text(c, &c->target, err, "enrolment:%s", row->id));
    c->refusal_matters = true;
    if (row->used_at != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED,
                         "the enrolment token was used before, by device %s", row->device);
    if (c->now >= row->expires_at)
        return TG_REFUSE(c, err, TG_PROBLEM_UNAUTHENTICATED, "the enrolment token has expired");
    if (strcmp(row->fleet, in->fleet) != 0)
        return TG_REFUSE(c, err, TG_PROBLEM_FORBIDDEN, "the enrolment token is for another fleet");
    return TG_OK;
}

static enum tg_rc check_kem_key(struct tg_call *c, const struct tg_wire_enrol *in, uint8_t id[16],
                                struct tg_err *err)
{
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;

    enum tg_rc rc = tg_kem_pk_new(TG_BYTES_OF(in->kem_public_key), &pk);
    if (rc == TG_E_NOMEM)
        return TG_FAIL(err, rc, "out of memory");
    if (rc != TG_OK)
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "kem_public_key: not a valid x25519-ml-kem-768 key");
    memcpy(id, tg_kem_pk_id(pk), 16);
    return TG_OK;
}

static enum tg_rc enrol(struct tg_call *c, const struct tg_wire_enrol *in,
                        struct tg_wire_enrolled *out, struct tg_err *err)
{
    struct tg_enrolment_row token;
    struct tg_certificate_row certificate;
    struct tg_device_row device = {.name = in->name,
                                   .fleet = in->fleet,
                                   .enrolled_at = c->now,
                                   .kem_public_key = TG_BYTES_OF(in->kem_public_key),
                                   .agent_version = in->agent_version,
                                   .separation = in->separation,
                                   .status = "",
                                   .reason = ""};
    const char *detail;

    TG_TRY(check_kem_key(c, in, device.kem_key_id, err));
    TG_TRY(tg_call_id(c, &device.id, err));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(check_token(c, in, &token, err));
    TG_TRY(issue(c, in->csr, device.id, &certificate, &out->certificate, err));
    TG_TRY(tg_enrolment_use(c->db, token.id, device.id, c->now, err));
    TG_TRY(tg_device_add(c->db, &device, err));
    TG_TRY(tg_certificate_add(c->db, &certificate, err));
    TG_TRY(tg_update_for_new_device(c->db, device.id, device.fleet, c->now, err));
    TG_TRY(tg_call_text(c, &c->target, err, "device:%s", device.id));
    TG_TRY(tg_call_text(c, &detail, err, "%s in fleet %s, certificate %s, by enrolment token %s",
                        device.name, device.fleet, certificate.serial, token.id));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    out->device_id = device.id;
    out->fleet = device.fleet;
    return TG_OK;
}

enum tg_rc tg_h_enrol(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_enrol in;
    struct tg_wire_enrolled out = {.device_ca = tg_buf_cstr(&c->p->keys->device_ca_pem)};

    TG_TRY(tg_call_body(c, &tg_wire_enrol, &in, err));
    if (!tg_wire_name_ok(in.name))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "name: 1-64 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash");
    TG_TRY(enrol(c, &in, &out, err));
    memcpy(out.platform_key_id, tg_sign_pk_id(tg_sign_sk_pk(c->p->keys->platform)),
           sizeof(out.platform_key_id));
    return tg_call_answer(c, 201, &tg_wire_enrolled, &out, err);
}

enum tg_rc tg_h_renew(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_renew in;
    struct tg_wire_renewed out = {.device_ca = tg_buf_cstr(&c->p->keys->device_ca_pem)};
    struct tg_certificate_row certificate;
    const char *detail;
    int64_t live = 0;

    TG_TRY(tg_call_body(c, &tg_wire_renew, &in, err));
    TG_TRY(tg_call_text(c, &c->target, err, "device:%s", c->who.id));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_certificate_count(c->db, c->who.id, c->now, &live, err));
    if (live >= LIVE_CERTIFICATES_MAX)
        return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT, "%d certificates of this device are valid",
                         LIVE_CERTIFICATES_MAX);
    TG_TRY(issue(c, in.csr, c->who.id, &certificate, &out.certificate, err));
    TG_TRY(tg_certificate_add(c->db, &certificate, err));
    TG_TRY(tg_call_text(c, &detail, err, "certificate %s", certificate.serial));
    const struct tg_audit_entry entry = {.target = c->target, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    return tg_call_answer(c, 200, &tg_wire_renewed, &out, err);
}

/* ---- check-in ---- */

static void beat(struct tg_call *c, const struct tg_wire_checkin *in)
{
    static const uint8_t none[32];
    struct tg_beat b = {.at = c->now, .separation = in->separation};

    (void)snprintf(b.id, sizeof(b.id), "%s", c->who.id);
    (void)snprintf(b.agent_version, sizeof(b.agent_version), "%s", in->agent_version);
    (void)snprintf(b.protection, sizeof(b.protection), "%s",
                   in->protection != NULL ? in->protection : "");
    (void)snprintf(b.status, sizeof(b.status), "%s", in->status != NULL ? in->status : "");
    b.has_running = !tg_bytes_eq(TG_BYTES_OF(in->running), TG_BYTES_OF(none));
    memcpy(b.running, in->running, sizeof(b.running));
    tg_beats_add(c->p->beats, &b);
}

/* Poll interval ± 20 %, so that a fleet that started together spreads out. */
static uint64_t next_poll(const struct tg_call *c)
{
    uint64_t poll_ms = c->p->config->poll_s * 1000, spread = poll_ms / 5 * 2;
    uint8_t r[8] = {0};

    if (tg_random(r, sizeof(r)) != TG_OK)
        return c->p->config->poll_s;
    uint64_t ms = poll_ms - spread / 2 + (spread != 0 ? tg_get_be64(r) % (spread + 1) : 0);
    uint64_t s = (ms + 500) / 1000;
    return s == 0 ? 1 : s > 86400 ? 86400 : s;
}

enum tg_rc tg_grant_usable(struct tg_call *c, const uint8_t h[32], int policy,
                           struct tg_grant_row *out, struct tg_err *err)
{
    TG_TRY(tg_grant_get(c->db, h, c->who.kem_key_id, c->arena, out, err));
    if ((out->vault && policy == TG_GRANTS_AUTHOR) || c->now >= out->not_after)
        return TG_FAIL(err, TG_E_NOTFOUND, "there is no such grant");
    return TG_OK;
}

/* What a pending update waits for; NULL: nothing, it can be offered. *made: a grant that was made
 * now. */
static enum tg_rc prepare(struct tg_call *c, const struct tg_directive_row *d,
                          struct tg_grant_row *made, const char **waits, struct tg_err *err)
{
    struct tg_package_row package;
    struct tg_device_row device;
    struct tg_grant_row have;

    *waits = NULL;
    if (d->own_block)
        return TG_OK;
    enum tg_rc rc = tg_grant_usable(c, d->h, d->grants, &have, err);
    if (rc != TG_E_NOTFOUND)
        return rc;
    if (d->grants == TG_GRANTS_AUTHOR) {
        *waits = "waits for the author's grant: this fleet takes no others";
        return TG_OK;
    }
    if (!d->vault) {
        *waits =
            "waits for a grant: neither the device nor the vault is a recipient of the package";
        return TG_OK;
    }
    TG_TRY(tg_package_get(c->db, d->h, c->arena, &package, err));
    TG_TRY(tg_device_get(c->db, c->who.id, c->arena, &device, err));
    rc = tg_vault_grant(c, &package, device.kem_public_key, made, err);
    if (rc == TG_E_AUTH || rc == TG_E_DENIED || rc == TG_E_NOTFORKEY) {
        TG_TRY(tg_call_text(c, waits, err, "the vault can't make a grant: %s", err->msg));
        return TG_OK;
    }
    return rc;
}

/* Is it time for the vault to make the grant of an offered package anew? */
static enum tg_rc grant_due(struct tg_call *c, const struct tg_directive_row *d, bool *due,
                            struct tg_err *err)
{
    struct tg_grant_row have = {.vault = false};

    *due = false;
    if (d->own_block || !d->vault || d->grants == TG_GRANTS_AUTHOR)
        return TG_OK;
    enum tg_rc rc = tg_grant_get(c->db, d->h, c->who.kem_key_id, c->arena, &have, err);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    int64_t from = have.vault ? have.issued_at + (have.not_after - have.issued_at) / 2
                              : have.not_after; /* an author's own grant is left alone till then */
    *due = rc == TG_E_NOTFOUND || c->now >= from;
    return TG_OK;
}

/* From half of its life on, so that a device that is away for a while does not find it expired; and
 * afterwards for one that was. If it can't be made the device keeps what it has. */
static enum tg_rc renew_grant(struct tg_call *c, const struct tg_directive_row *d,
                              struct tg_err *err)
{
    struct tg_package_row package;
    struct tg_device_row device;
    struct tg_grant_row made = {.document = TG_BYTES_NONE};
    struct tg_err why = TG_ERR_INIT;
    struct tg_audit_entry entry = {
        .action = "grant.vault", .detail = "made anew by the vault", .package = TG_BYTES_OF(d->h)};
    bool due;

    TG_TRY(grant_due(c, d, &due, err));
    if (!due || (d->not_after != 0 && c->now >= d->not_after)) /* no device would run it */
        return TG_OK;
    TG_TRY(tg_package_get(c->db, d->h, c->arena, &package, err));
    TG_TRY(tg_device_get(c->db, c->who.id, c->arena, &device, err));
    enum tg_rc rc = tg_vault_grant(c, &package, device.kem_public_key, &made, &why);
    if (rc != TG_OK) {
        tg_log_err("platform.grant", &why);
        return TG_OK;
    }
    TG_TRY(tg_call_text(c, &entry.target, err, "device:%s", c->who.id));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(grant_due(c, d, &due, err)); /* an author's may have come meanwhile */
    if (due) {
        TG_TRY(tg_grant_put(c->db, d->h, &made, err));
        TG_TRY(tg_audit(c, &entry, err));
    }
    return tg_db_commit(c->db, err);
}

/* What ran last on a device, where that is another package than it is to have now: the device goes
 * on with it for as long as the newer one is not there, or fails. */
static enum tg_rc renew_ran(struct tg_call *c, const struct tg_directive_query *q,
                            const struct tg_directive_row *now, struct tg_err *err)
{
    struct tg_directive_row ran;

    enum tg_rc rc = tg_update_ran(c->db, q, c->arena, &ran, err);
    if (rc == TG_E_NOTFOUND)
        return TG_OK;
    TG_TRY(rc);
    if (now != NULL && tg_bytes_eq(TG_BYTES_OF(ran.h), TG_BYTES_OF(now->h)))
        return TG_OK;
    return renew_grant(c, &ran, err);
}

static enum tg_rc write_offer(struct tg_call *c, const struct tg_directive_row *d,
                              const struct tg_grant_row *made, struct tg_err *err)
{
    const struct tg_update_row was = {
        .deployment = d->deployment, .device = c->who.id, .state = d->state, .seq = d->seq};
    struct tg_update_row is = {
        .code = "", .reason = "", .state = TG_UPDATE_OFFERED, .seq = d->seq, .updated_at = c->now};
    struct tg_audit_entry entry = {.package = TG_BYTES_OF(d->h)};

    TG_TRY(tg_call_text(c, &entry.target, err, "device:%s", c->who.id));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_update_set(c->db, &was, &is, err));
    if (made->document.n != 0) {
        TG_TRY(tg_grant_put(c->db, d->h, made, err));
        entry.action = "grant.vault";
        entry.detail = "made by the vault";
        TG_TRY(tg_audit(c, &entry, err));
    }
    entry.action = "deployment.offer";
    TG_TRY(tg_call_text(c, &entry.detail, err, "deployment %s", d->deployment));
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

static enum tg_rc write_waiting(struct tg_call *c, const struct tg_directive_row *d,
                                const char *waits, struct tg_err *err)
{
    const struct tg_update_row was = {
        .deployment = d->deployment, .device = c->who.id, .state = d->state, .seq = d->seq};
    const struct tg_update_row is = {
        .code = "", .reason = waits, .state = d->state, .seq = d->seq, .updated_at = c->now};

    if (d->reason != NULL && strcmp(d->reason, waits) == 0)
        return TG_OK;
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_update_set(c->db, &was, &is, err));
    return tg_db_commit(c->db, err);
}

/* Offer what is pending. *ready: the device may be told. */
static enum tg_rc offer(struct tg_call *c, struct tg_directive_row *d, bool *ready,
                        struct tg_err *err)
{
    struct tg_grant_row made = {.document = TG_BYTES_NONE};
    const char *waits;

    *ready = d->state != TG_UPDATE_PENDING;
    if (*ready)
        return TG_OK;
    TG_TRY(prepare(c, d, &made, &waits, err));
    enum tg_rc rc = waits != NULL ? write_waiting(c, d, waits, err) : write_offer(c, d, &made, err);
    if (rc == TG_E_NOTFOUND) { /* it changed meanwhile: the next check-in will see */
        tg_db_rollback(c->db);
        return TG_OK;
    }
    TG_TRY(rc);
    if (waits == NULL) {
        d->state = TG_UPDATE_OFFERED;
        *ready = true;
    }
    return TG_OK;
}

/* Sign the document anew at half its life. */
static enum tg_rc refresh(struct tg_call *c, struct tg_directive_row *d, struct tg_err *err)
{
    struct tg_deployment_row row;

    if (c->now < d->document_at + TG_DOCUMENT_LIFE / 2)
        return TG_OK;
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_deployment_get(c->db, d->deployment, c->arena, &row, err));
    TG_TRY(tg_deployment_sign(c, &row, err));
    TG_TRY(tg_deployment_document(c->db, &row, err));
    TG_TRY(tg_db_commit(c->db, err));
    memcpy(d->document_sha256, row.document_sha256, sizeof(d->document_sha256));
    return TG_OK;
}

static enum tg_rc direct(struct tg_call *c, const struct tg_wire_checkin *in,
                         const struct tg_directive_row *d, struct tg_wire_directive *w,
                         struct tg_err *err)
{
    struct tg_deployment_row row;
    struct tg_grant_row grant;

    *w = (struct tg_wire_directive){.deployment_id = d->deployment,
                                    .blob_size = d->blob_size,
                                    .update_state = d->state,
                                    .seq = d->seq};
    memcpy(w->package, d->h, sizeof(w->package));
    memcpy(w->blob_sha256, d->blob_sha256, sizeof(w->blob_sha256));
    enum tg_rc rc = tg_grant_usable(c, d->h, d->grants, &grant, err);
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    w->grant = rc == TG_OK;
    if (w->grant)
        TG_TRY(tg_sha256(grant.document, w->grant_sha256));
    if (tg_bytes_eq(TG_BYTES_OF(in->have_document), TG_BYTES_OF(d->document_sha256)))
        return TG_OK;
    TG_TRY(tg_deployment_get(c->db, d->deployment, c->arena, &row, err));
    w->document = row.document;
    return TG_OK;
}

enum tg_rc tg_h_checkin(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_checkin in;
    struct tg_directive_row d;
    struct tg_wire_directive directive;
    struct tg_wire_directions out = {.now = c->now, .next_poll_s = next_poll(c)};
    bool ready = false;

    TG_TRY(tg_call_body(c, &tg_wire_checkin, &in, err));
    beat(c, &in);
    const struct tg_directive_query q = {c->who.id, c->who.kem_key_id, tg_ends};
    enum tg_rc rc = tg_directive_get(c->db, &q, c->arena, &d, err);
    if (rc == TG_OK)
        rc = offer(c, &d, &ready, err);
    if (rc == TG_OK && ready) {
        TG_TRY(refresh(c, &d, err));
        TG_TRY(renew_grant(c, &d, err));
        TG_TRY(direct(c, &in, &d, &directive, err));
        out.deployments = (struct tg_jlist){&directive, 1};
    }
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    TG_TRY(renew_ran(c, &q, rc == TG_OK ? &d : NULL, err));
    return tg_call_answer(c, 200, &tg_wire_directions, &out, err);
}
