/* Publishers, packages and grants as people see them. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/keyfile.h"
#include "platform/blobs.h"
#include "platform/handlers.h"
#include "platform/vault.h"
#include "tgsp/grant.h"
#include "wire/package.h"

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

/* ---- publishers ---- */

static enum tg_rc publisher_to_wire(struct tg_call *c, const struct tg_publisher_row *r,
                                    struct tg_wire_publisher *w, struct tg_err *err)
{
    *w = (struct tg_wire_publisher){
        .name = r->name, .public_key = r->public_key, .created_at = r->created_at};
    memcpy(w->key_id, r->key_id, sizeof(w->key_id));
    return tg_names_decode(c->arena, r->models, &w->models, err);
}

/* Parse the key, and write it anew: what is stored is ours. */
static enum tg_rc take_key(struct tg_call *c, const char *pem, struct tg_publisher_row *row,
                           struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    TG_AUTO(bufp) struct tg_buf text = TG_BUF_INIT(TG_WIRE_PEM_MAX);

    if (tg_sign_pk_from_pem(tg_bytes_str(pem), "public_key", &pk, err) != TG_OK) {
        c->problem = TG_PROBLEM_BAD_REQUEST;
        return TG_E_FORMAT;
    }
    memcpy(row->key_id, tg_sign_pk_id(pk), sizeof(row->key_id));
    TG_TRY(tg_sign_pk_to_pem(pk, &text));
    row->public_key = tg_arena_strndup(c->arena, tg_buf_cstr(&text), text.n);
    return row->public_key != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

enum tg_rc tg_h_publisher_add(struct tg_call *c, struct tg_err *err)
{
    struct tg_wire_publisher_new in;
    struct tg_publisher_row row = {.created_at = c->now};
    struct tg_wire_publisher out;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    const char *hex;

    TG_TRY(tg_call_body(c, &tg_wire_publisher_new, &in, err));
    if (!tg_wire_name_ok(in.name))
        return TG_REFUSE(c, err, TG_PROBLEM_BAD_REQUEST,
                         "name: 1-64 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash");
    row.name = in.name;
    TG_TRY(take_key(c, in.public_key, &row, err));
    TG_TRY(tg_names_encode(c, &in.models, &row.models, err));
    TG_TRY(tg_call_hex(c, TG_BYTES_OF(row.key_id), &hex, err));
    TG_TRY(tg_call_text(c, &c->target, err, "publisher:%s", hex));
    TG_TRY(tg_db_begin(c->db, err));
    enum tg_rc rc = tg_publisher_add(c->db, &row, err);
    if (rc == TG_OK)
        rc = tg_vault_trust(c, &trust, err); /* no two keys may share a component */
    if (rc == TG_E_EXISTS)
        return TG_REFUSE(c, err, TG_PROBLEM_EXISTS,
                         "the name, the key or one of its component keys is registered already: "
                         "see the list of publishers; to register one anew, remove it first");
    TG_TRY(rc);
    const struct tg_audit_entry entry = {.target = c->target, .detail = row.name};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    TG_TRY(publisher_to_wire(c, &row, &out, err));
    return tg_call_resource(c, 201, &tg_wire_publisher, &out, err);
}

enum tg_rc tg_h_publisher_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_publishers out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_publisher_list(c->db, &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_publisher), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_publisher_row *r = &((const struct tg_publisher_row *)rows.items)[i];
        TG_TRY(publisher_to_wire(c, r, &((struct tg_wire_publisher *)out.items.items)[i], err));
        if (i + 1 == page.limit)
            out.next = r->name;
    }
    return tg_call_answer(c, 200, &tg_wire_publishers, &out, err);
}

enum tg_rc tg_h_publisher_remove(struct tg_call *c, struct tg_err *err)
{
    uint8_t key_id[16];

    tg_call_param_bytes(c, 0, key_id, sizeof(key_id));
    TG_TRY(tg_call_text(c, &c->target, err, "publisher:%s", c->params[0]));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(tg_publisher_delete(c->db, key_id, err));
    const struct tg_audit_entry entry = {.target = c->target, .detail = ""};
    TG_TRY(tg_audit(c, &entry, err));
    return tg_db_commit(c->db, err);
}

/* ---- packages ---- */

TG_RC tg_package_to_wire(struct tg_call *c, const struct tg_package_row *r,
                         struct tg_wire_package *out, struct tg_err *err)
{
    *out = (struct tg_wire_package){
        .blob_size = r->blob_size,
        .model = {.name = r->model,
                  .version = r->version,
                  .format = r->format,
                  .sequence = r->sequence,
                  .floor = r->floor},
        .created_at = r->created_at,
        .not_before = r->not_before,
        .not_after = r->not_after,
        .recipients = r->recipients,
        .vault = r->vault,
        .uploaded_at = r->uploaded_at,
        .uploaded_by = r->uploaded_by,
    };
    memcpy(out->header_sha256, r->h, sizeof(out->header_sha256));
    memcpy(out->blob_sha256, r->blob_sha256, sizeof(out->blob_sha256));
    TG_TRY(tg_names_decode(c->arena, r->fleets, &out->fleets, err));
    return tg_names_decode(c->arena, r->signers, &out->signers, err);
}

enum tg_rc tg_h_package_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_packages out = {.next = NULL};

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(tg_package_list(c->db, tg_call_query(c, "model"), &page, c->arena, &rows, err));
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_package), err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_package_row *r = &((const struct tg_package_row *)rows.items)[i];
        TG_TRY(tg_package_to_wire(c, r, &((struct tg_wire_package *)out.items.items)[i], err));
        if (i + 1 == page.limit)
            TG_TRY(tg_call_text(c, &out.next, err, "%" PRIu64, r->seq));
    }
    return tg_call_answer(c, 200, &tg_wire_packages, &out, err);
}

static enum tg_rc get_package(struct tg_call *c, struct tg_package_row *row, struct tg_err *err)
{
    uint8_t h[32];

    tg_call_param_bytes(c, 0, h, sizeof(h));
    return tg_package_get(c->db, h, c->arena, row, err);
}

enum tg_rc tg_h_package_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_package_row row;
    struct tg_wire_package out;

    TG_TRY(get_package(c, &row, err));
    TG_TRY(tg_package_to_wire(c, &row, &out, err));
    return tg_call_resource(c, 200, &tg_wire_package, &out, err);
}

enum tg_rc tg_h_blob_get(struct tg_call *c, struct tg_err *err)
{
    struct tg_package_row row;
    uint8_t sha256[32];

    tg_call_param_bytes(c, 0, sha256, sizeof(sha256));
    TG_TRY(tg_package_by_blob(c->db, sha256, c->arena, &row, err));
    return tg_blob_serve(c, &row, err);
}

/* ---- grants ---- */

struct granter {
    uint8_t key_id[16];
    bool author; /* it signed the package, too */
};

static struct tg_wire_grant grant_to_wire(const struct tg_grant_row *r)
{
    struct tg_wire_grant w = {
        .vault = r->vault, .issued_at = r->issued_at, .not_after = r->not_after};

    memcpy(w.kem_key_id, r->kem_key_id, sizeof(w.kem_key_id));
    memcpy(w.granter, r->granter, sizeof(w.granter));
    return w;
}

enum tg_rc tg_h_grant_list(struct tg_call *c, struct tg_err *err)
{
    struct tg_package_row package;
    struct tg_page page;
    struct tg_jlist rows;
    struct tg_wire_grants out = {.next = NULL};
    int64_t from = 0;

    TG_TRY(tg_call_page(c, &page, err));
    TG_TRY(get_package(c, &package, err));
    enum tg_rc rc = tg_grant_list(c->db, package.h, &page, c->arena, &rows, err);
    if (rc == TG_E_USAGE)
        c->problem = TG_PROBLEM_BAD_REQUEST;
    TG_TRY(rc);
    TG_TRY(tg_call_items(c, &out.items, rows.n, sizeof(struct tg_wire_grant), err));
    for (size_t i = 0; i < rows.n; i++)
        ((struct tg_wire_grant *)out.items.items)[i] =
            grant_to_wire(&((const struct tg_grant_row *)rows.items)[i]);
    if (rows.n == page.limit) {
        uint64_t after = 0;
        if (page.after != NULL)
            TG_TRY(tg_parse_u64(page.after, INT64_MAX, &after));
        from = (int64_t)after;
        TG_TRY(tg_call_text(c, &out.next, err, "%" PRIu64, (uint64_t)from + page.limit));
    }
    return tg_call_answer(c, 200, &tg_wire_grants, &out, err);
}

static enum tg_rc signed_package(struct tg_call *c, const struct tg_package_row *package,
                                 const uint8_t key_id[16], bool *yes, struct tg_err *err)
{
    const char *hex;
    struct tg_jlist signers;

    *yes = false;
    TG_TRY(tg_call_hex(c, tg_bytes_make(key_id, 16), &hex, err));
    TG_TRY(tg_names_decode(c->arena, package->signers, &signers, err));
    for (size_t i = 0; i < signers.n; i++)
        *yes |= strcmp(hex, ((const char *const *)signers.items)[i]) == 0;
    return TG_OK;
}

/* Is there a good signature of this one key? What else is signed does not count for it. */
static enum tg_rc verify_by(const struct tg_grant *g, const struct tg_trust *trust,
                            const uint8_t key_id[16], int64_t now, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *only = NULL;
    struct tg_trust_key key;

    if (!tg_trust_find(trust, key_id, &key))
        return TG_FAIL(err, TG_E_AUTH, "the grant is signed by no registered publisher");
    TG_TRY(tg_trust_new(&only));
    TG_TRY(tg_trust_add(only, &key, err));
    return tg_grant_verify(g, only, now, err);
}

/* Whose grant it is: of those who signed it, one who signed the package, too, if there is one. */
static enum tg_rc find_granter(struct tg_call *c, const struct tg_package_row *package,
                               const struct tg_grant *g, struct granter *out, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    const struct tg_tgsp_signatures *s = tg_grant_signatures_get(g);
    bool found = false;

    TG_TRY(tg_vault_trust(c, &trust, err));
    TG_TRY(tg_grant_verify(g, trust, c->now, err));
    for (size_t i = 0; i < s->signatures.n && !(found && out->author); i++) {
        const uint8_t *id = ((const struct tg_tgsp_signature *)s->signatures.items)[i].key_id;
        bool author;
        enum tg_rc rc = verify_by(g, trust, id, c->now, err);
        if (rc == TG_E_AUTH)
            continue;
        TG_TRY(rc);
        TG_TRY(signed_package(c, package, id, &author, err));
        if (found && !author)
            continue;
        found = true;
        out->author = author;
        memcpy(out->key_id, id, sizeof(out->key_id));
    }
    return found ? TG_OK
                 : TG_FAIL(err, TG_E_AUTH, "the grant is signed by no registered publisher");
}

/* Inside the change. Authors of the package may always; others where nothing better stands or can
 * be made: a grant that opens nothing would keep the good one from the device. */
static enum tg_rc may_put(struct tg_call *c, const struct tg_package_row *package,
                          const struct granter *by, const struct tg_grant_row *row,
                          struct tg_err *err)
{
    struct tg_grant_row have;

    if (by->author)
        return TG_OK;
    enum tg_rc rc = tg_grant_get(c->db, package->h, row->kem_key_id, c->arena, &have, err);
    if (rc == TG_E_NOTFOUND && !package->vault)
        return TG_OK;
    if (rc == TG_OK && !have.vault && tg_mem_eq(have.granter, by->key_id, sizeof(have.granter)))
        return TG_OK;
    if (rc != TG_OK && rc != TG_E_NOTFOUND)
        return rc;
    c->refusal_matters = true;
    return TG_REFUSE(c, err, TG_PROBLEM_CONFLICT,
                     "the grant's signer did not sign the package, and %s: let one of the "
                     "package's signers make the grant",
                     rc == TG_OK ? "the stored grant is another's" : "the vault makes its grants");
}

static enum tg_rc check_grant(struct tg_call *c, const struct tg_package_row *package,
                              struct granter *by, struct tg_grant_row *row, struct tg_err *err)
{
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;
    uint8_t kem_key_id[16];

    enum tg_rc rc = tg_grant_decode(c->req->body, "grant", &g, err);
    if (rc == TG_E_NOMEM)
        return rc;
    if (rc != TG_OK)
        return c->problem = TG_PROBLEM_PACKAGE, rc;
    const struct tg_grant_fields *f = tg_grant_fields_get(g);
    tg_call_param_bytes(c, 1, kem_key_id, sizeof(kem_key_id));
    if (!tg_bytes_eq(TG_BYTES_OF(f->header_sha256), TG_BYTES_OF(package->h)))
        return TG_REFUSE(c, err, TG_PROBLEM_PACKAGE, "the grant is for another package");
    if (!tg_bytes_eq(TG_BYTES_OF(f->recipient.id), TG_BYTES_OF(kem_key_id)))
        return TG_REFUSE(c, err, TG_PROBLEM_PACKAGE, "the grant is for another KEM key");
    rc = find_granter(c, package, g, by, err);
    if (rc == TG_E_AUTH || rc == TG_E_DENIED || rc == TG_E_EXPIRED)
        return c->problem = TG_PROBLEM_PUBLISHER, rc;
    TG_TRY(rc);
    *row = (struct tg_grant_row){
        .issued_at = f->issued_at, .not_after = f->not_after, .document = c->req->body};
    memcpy(row->kem_key_id, kem_key_id, sizeof(row->kem_key_id));
    memcpy(row->granter, by->key_id, sizeof(row->granter));
    return TG_OK;
}

enum tg_rc tg_h_grant_put(struct tg_call *c, struct tg_err *err)
{
    struct tg_package_row package;
    struct tg_grant_row row;
    struct granter by = {.author = false};
    const char *granter, *detail;

    TG_TRY(tg_call_text(c, &c->target, err, "kem-key:%s", c->params[1]));
    TG_TRY(get_package(c, &package, err));
    TG_TRY(tg_call_about(c, package.h, err));
    TG_TRY(check_grant(c, &package, &by, &row, err));
    TG_TRY(tg_call_hex(c, TG_BYTES_OF(row.granter), &granter, err));
    TG_TRY(tg_call_text(c, &detail, err, "granted by %s", granter));
    TG_TRY(tg_db_begin(c->db, err));
    TG_TRY(get_package(c, &package, err));
    TG_TRY(may_put(c, &package, &by, &row, err));
    TG_TRY(tg_grant_put(c->db, package.h, &row, err));
    const struct tg_audit_entry entry = {
        .target = c->target, .package = c->package, .detail = detail};
    TG_TRY(tg_audit(c, &entry, err));
    TG_TRY(tg_db_commit(c->db, err));
    const struct tg_wire_grant out = grant_to_wire(&row);
    return tg_call_resource(c, 200, &tg_wire_grant, &out, err);
}
