/* The file key: by the package's own block or by a grant, and the commitment (spec §4, §5). */
#include <string.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"
#include "tgsp/grant.h"
#include "tgsp/package_internal.h"

const struct tg_tgsp_keys *tg_tgsp_keys_get(const struct tg_tgsp *p)
{
    return (const struct tg_tgsp_keys *)(const void *)tg_secret_data(p->keys);
}

/* Open the block into locked memory, hold it against the commitment, derive the payload key. */
static enum tg_rc block_open(struct tg_tgsp *p, const struct tg_wrap *w, const struct tg_kem_sk *sk,
                             const struct tg_tgsp_recipient *block, struct tg_err *err)
{
    uint8_t commitment[TG_SHA256_LEN];
    TG_AUTO(tg_secret_freep) struct tg_secret *mem = NULL;
    TG_TRY(tg_secret_new(sizeof(struct tg_tgsp_keys), &mem, err));
    struct tg_tgsp_keys *keys = (struct tg_tgsp_keys *)(void *)tg_secret_data(mem);
    enum tg_rc rc = tg_wrap_open(w, sk, block, keys->file_key);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s",
                       tg_rc_verdict(rc, "the block for this key does not open with it"));
    rc = tg_key_commitment(&p->header, keys->file_key, commitment);
    if (rc == TG_OK && !tg_ct_eq(commitment, p->header.key_commitment, sizeof commitment))
        rc = TG_E_AUTH;
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s",
                       tg_rc_verdict(rc, "the file key does not match header.key_commitment"));
    rc = tg_payload_key(&p->header, keys->file_key, keys->payload_key);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "can't derive the payload key: %s", tg_rc_text(rc));
    tg_secret_free(p->keys);
    p->keys = tg_steal(&mem);
    p->stage = TG_STAGE_UNWRAPPED;
    return TG_OK;
}

static const struct tg_tgsp_recipient *block_find(const struct tg_tgsp *p, const uint8_t *id)
{
    const struct tg_tgsp_recipient *v = p->recipients.recipients.items;
    for (size_t i = 0; i < p->recipients.recipients.n; i++)
        if (tg_mem_eq(v[i].id, id, TG_KEM_ID_LEN))
            return &v[i];
    return NULL;
}

enum tg_rc tg_tgsp_unwrap(struct tg_tgsp *p, const struct tg_kem_sk *sk, struct tg_err *err)
{
    char hex[33];
    const uint8_t *id = tg_kem_pk_id(tg_kem_sk_pk(sk));
    TG_TRY(tg_tgsp_need(p, TG_STAGE_ADMITTED, err));
    tg_id_hex(id, hex);
    const struct tg_tgsp_recipient *block = block_find(p, id);
    if (!block)
        return TG_FAIL(err, TG_E_NOTFORKEY,
                       "%s: recipients: no block for key %s; ask the author for a grant, or for a "
                       "build with this --recipient",
                       p->src.name, hex);
    struct tg_wrap w = tg_wrap_recipient(&p->header);
    enum tg_rc rc = block_open(p, &w, sk, block, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s: recipients, key %s", p->src.name, hex);
    return rc;
}

static enum tg_rc grant_match(const struct tg_tgsp *p, const struct tg_grant_fields *g,
                              const uint8_t *id, struct tg_err *err)
{
    if (!tg_mem_eq(g->header_sha256, p->h, TG_TGSP_H_LEN) ||
        !tg_mem_eq(g->package_id, p->header.package_id, TG_TGSP_PACKAGE_ID_LEN))
        return TG_FAIL(err, TG_E_DENIED, "the grant is for another package");
    if (!tg_mem_eq(g->recipient.id, id, TG_KEM_ID_LEN))
        return TG_FAIL(err, TG_E_NOTFORKEY, "the grant is for another key");
    return TG_OK;
}

enum tg_rc tg_tgsp_unwrap_grant(struct tg_tgsp *p, const struct tg_grant *g,
                                const struct tg_trust *trust, int64_t now,
                                const struct tg_kem_sk *sk, struct tg_err *err)
{
    const struct tg_grant_fields *f = tg_grant_fields_get(g);
    TG_TRY(tg_tgsp_need(p, TG_STAGE_ADMITTED, err));
    TG_TRY(tg_grant_verify(g, trust, now, err));
    struct tg_wrap w = tg_wrap_grant(&p->header, p->h);
    enum tg_rc rc = grant_match(p, f, tg_kem_pk_id(tg_kem_sk_pk(sk)), err);
    if (rc == TG_OK)
        rc = block_open(p, &w, sk, &f->recipient, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s: grant", p->src.name);
    return rc;
}
