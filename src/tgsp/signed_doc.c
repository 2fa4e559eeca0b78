#include "tgsp/signed_doc_internal.h"

#include <inttypes.h>
#include <string.h>

#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"

struct envelope {
    struct tg_bytes body;
    struct tg_jlist signatures;
};

#define BODY_FIELD(key, limit)                                                                     \
    {                                                                                              \
        .name = (key), .type = TG_JT_BYTES, .off = offsetof(struct envelope, body),                \
        .has_off = SIZE_MAX, .min = 2, .max = (limit), .sub = {                                    \
            NULL                                                                                   \
        }                                                                                          \
    }

static const struct tg_jfield grant_fields[] = {
    BODY_FIELD("grant", TG_TGSP_DOC_MAX),
    TG_J_OBJS(struct envelope, signatures, &tg_signature_schema, 1, 1, TG_J_REQ),
};

static const struct tg_jfield deployment_fields[] = {
    BODY_FIELD("deployment", TG_TGSP_DOC_MAX),
    TG_J_OBJS(struct envelope, signatures, &tg_signature_schema, 1, 1, TG_J_REQ),
};

static const struct tg_jfield trust_fields[] = {
    BODY_FIELD("trust", TG_TRUST_MAX),
    TG_J_OBJS(struct envelope, signatures, &tg_signature_schema, 0, TG_TGSP_SIGNERS_MAX, TG_J_REQ),
};

/* One row per kind of document. */
static const struct {
    const char *what, *label;
    size_t max;
    struct tg_jschema schema;
} kinds[TG_DOC_COUNT] = {
    [TG_DOC_GRANT] = {"grant",       TG_LABEL_GRANT,      TG_TGSP_DOC_MAX,
                      TG_J_SCHEMA(struct envelope, grant_fields,      TG_J_IGNORE_UNKNOWN)},
    [TG_DOC_DEPLOYMENT] = {"deployment",  TG_LABEL_DEPLOYMENT, TG_TGSP_DOC_MAX,
                      TG_J_SCHEMA(struct envelope, deployment_fields, TG_J_IGNORE_UNKNOWN)},
    [TG_DOC_TRUST] = {"trust store", TG_LABEL_TRUST,      TG_TRUST_MAX,
                      TG_J_SCHEMA(struct envelope, trust_fields,      TG_J_IGNORE_UNKNOWN)},
};

enum tg_rc tg_signed_doc_parse(enum tg_doc_kind kind, struct tg_bytes text, const char *name,
                               struct tg_arena *arena, struct tg_signed_doc *out,
                               struct tg_err *err)
{
    struct envelope e = {
        TG_BYTES_NONE, {NULL, 0}
    };
    struct tg_signed_doc d;
    if (text.n > kinds[kind].max)
        return TG_FAIL(err, TG_E_FORMAT, "%s: %s of %zu bytes, at most %zu", name, kinds[kind].what,
                       text.n, kinds[kind].max);
    enum tg_rc rc = tg_json_decode(&kinds[kind].schema, text, kinds[kind].what, arena, &e, err);
    if (rc == TG_OK && e.signatures.n) {
        const struct tg_tgsp_signature *v = e.signatures.items;
        rc = tg_ids_distinct(v->key_id, e.signatures.n, sizeof *v, "signatures", err);
    }
    if (rc != TG_OK) {
        tg_err_wrap(err, "%s", name);
        return rc;
    }
    d.body = e.body;
    d.sigs.signatures = e.signatures;
    rc = tg_sha256(d.body, d.digest);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: can't hash: %s", name, tg_rc_text(rc));
    *out = d;
    return TG_OK;
}

enum tg_rc tg_entry_sign(const struct tg_sign_sk *sk, const char *label,
                         const uint8_t digest[TG_SHA256_LEN], bool deterministic,
                         struct tg_tgsp_signature *out)
{
    struct tg_sig sig;
    const uint8_t *id = tg_sign_pk_id(tg_sign_sk_pk(sk));
    struct tg_signed_message m = tg_signed_message_make(label, id, digest);
    TG_TRY(tg_sign(sk, tg_bytes_make(m.bytes, m.n), deterministic, &sig));
    memcpy(out->key_id, id, sizeof out->key_id);
    memcpy(out->sig_classic, sig.classic, sizeof out->sig_classic);
    memcpy(out->sig_pqc, sig.pqc, sizeof out->sig_pqc);
    return TG_OK;
}

static bool has_entry(const struct tg_tgsp_signature *v, size_t n, const uint8_t *id)
{
    for (size_t i = 0; i < n; i++)
        if (tg_mem_eq(v[i].key_id, id, TG_SIGN_ID_LEN))
            return true;
    return false;
}

enum tg_rc tg_signed_doc_make(enum tg_doc_kind kind, struct tg_bytes body,
                              const struct tg_signers *signers, struct tg_buf *out,
                              struct tg_err *err)
{
    uint8_t digest[TG_SHA256_LEN];
    struct tg_tgsp_signature v[TG_TGSP_SIGNERS_MAX];
    size_t n = signers->old ? signers->old->signatures.n : 0;
    if (n + signers->n > TG_TGSP_SIGNERS_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%s: at most %d signatures", kinds[kind].what,
                       TG_TGSP_SIGNERS_MAX);
    if (n)
        memcpy(v, signers->old->signatures.items, n * sizeof *v);
    TG_TRY(tg_sha256(body, digest));
    for (size_t i = 0; i < signers->n; i++) {
        if (has_entry(v, n, tg_sign_pk_id(tg_sign_sk_pk(signers->keys[i]))))
            return TG_FAIL(err, TG_E_EXISTS, "%s: this key has signed already", kinds[kind].what);
        enum tg_rc rc = tg_entry_sign(signers->keys[i], kinds[kind].label, digest, false, &v[n]);
        if (rc != TG_OK)
            return TG_FAIL(err, rc, "%s: signing failed: %s", kinds[kind].what, tg_rc_text(rc));
        n++;
    }
    struct envelope e = {
        body, {v, n}
    };
    return tg_json_encode(&kinds[kind].schema, &e, out, err);
}

static enum tg_rc none_known(const struct tg_tgsp_signatures *sigs, struct tg_err *err)
{
    const struct tg_tgsp_signature *v = sigs->signatures.items;
    char ids[4 * 34 + 8], hex[33];
    size_t used = 0;
    for (size_t i = 0; i < sigs->signatures.n && i < 4; i++) {
        tg_id_hex(v[i].key_id, hex);
        memcpy(ids + used, i ? " " : "", i ? 1 : 0);
        used += i ? 1 : 0;
        memcpy(ids + used, hex, 32);
        used += 32;
    }
    ids[used] = '\0';
    return TG_FAIL(
        err, TG_E_AUTH,
        "signatures: none is by a trusted key (signed by %s%s); check who made this, and "
        "trust that key only if it is theirs",
        used ? ids : "nobody", sigs->signatures.n > 4 ? " ..." : "");
}

enum tg_rc tg_entries_verify(const struct tg_tgsp_signatures *sigs, const char *label,
                             const uint8_t digest[TG_SHA256_LEN], const struct tg_trust *trust,
                             struct tg_verified *out, struct tg_err *err)
{
    const struct tg_tgsp_signature *v = sigs->signatures.items;
    out->n = 0;
    for (size_t i = 0; i < sigs->signatures.n; i++) {
        struct tg_trust_key key;
        struct tg_sig sig;
        char hex[33];
        if (!tg_trust_find(trust, v[i].key_id, &key))
            continue;
        struct tg_signed_message m = tg_signed_message_make(label, v[i].key_id, digest);
        memcpy(sig.classic, v[i].sig_classic, sizeof sig.classic);
        memcpy(sig.pqc, v[i].sig_pqc, sizeof sig.pqc);
        enum tg_rc rc = tg_sign_verify(key.pk, tg_bytes_make(m.bytes, m.n), &sig);
        tg_id_hex(v[i].key_id, hex);
        if (rc != TG_OK)
            return TG_FAIL(
                err, rc,
                "signatures[%zu]: the signature of trusted key %s is not valid for these "
                "bytes; get a fresh copy",
                i, hex);
        out->keys[out->n++] = key;
    }
    return TG_OK;
}

enum tg_rc tg_entries_verify_some(const struct tg_tgsp_signatures *sigs, const char *label,
                                  const uint8_t digest[TG_SHA256_LEN], const struct tg_trust *trust,
                                  struct tg_verified *out, struct tg_err *err)
{
    TG_TRY(tg_entries_verify(sigs, label, digest, trust, out, err));
    return out->n ? TG_OK : none_known(sigs, err);
}

static const char *role_name(unsigned role)
{
    return role == TG_ROLE_GRANTER ? "granter" : role == TG_ROLE_PLATFORM ? "platform" : "author";
}

enum tg_rc tg_signed_doc_verify(enum tg_doc_kind kind, const struct tg_signed_doc *doc,
                                const struct tg_trust *trust, unsigned role, struct tg_err *err)
{
    struct tg_verified verified;
    TG_TRY(
        tg_entries_verify_some(&doc->sigs, kinds[kind].label, doc->digest, trust, &verified, err));
    for (size_t i = 0; i < verified.n; i++)
        if (verified.keys[i].roles & role)
            return TG_OK;
    return TG_FAIL(err, TG_E_DENIED, "%s: signed by a trusted key without the role '%s'",
                   kinds[kind].what, role_name(role));
}
