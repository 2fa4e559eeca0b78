#include "platform/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "crypto/keyfile.h"
#include "tgsp/grant.h"
#include "tgsp/package.h"

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

static enum tg_rc add_publisher(struct tg_call *c, const struct tg_publisher_row *row,
                                struct tg_trust *trust, struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    struct tg_jlist models;

    TG_TRY(tg_sign_pk_from_pem(tg_bytes_str(row->public_key), row->name, &pk, err));
    TG_TRY(tg_names_decode(c->arena, row->models, &models, err));
    const struct tg_trust_key key = {.pk = pk,
                                     .label = row->name,
                                     .roles = TG_ROLE_AUTHOR | TG_ROLE_GRANTER,
                                     .models = models.items,
                                     .n_models = models.n};
    return tg_trust_add(trust, &key, err);
}

TG_RC tg_vault_trust(struct tg_call *c, struct tg_trust **out, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    struct tg_jlist rows;

    TG_TRY(tg_trust_new(&trust));
    TG_TRY(tg_publisher_list(c->db, NULL, c->arena, &rows, err));
    for (size_t i = 0; i < rows.n; i++)
        TG_TRY(add_publisher(c, &((const struct tg_publisher_row *)rows.items)[i], trust, err));
    *out = tg_steal(&trust);
    return TG_OK;
}

static enum tg_rc make(struct tg_call *c, int fd, const struct tg_kem_pk *to,
                       struct tg_grant_row *out, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(bufp) struct tg_buf doc = TG_BUF_INIT(TG_WIRE_GRANT_MAX);
    struct tg_src src;
    /* The vault hands keys out; whether the package may run is the device's decision. */
    const struct tg_tgsp_policy policy = {.check_time = false, .now = c->now};

    TG_TRY(tg_src_fd(&src, fd, "package", err));
    TG_TRY(tg_vault_trust(c, &trust, err));
    TG_TRY(tg_tgsp_open(&src, &p, err));
    TG_TRY(tg_tgsp_verify(p, trust, err));
    TG_TRY(tg_tgsp_admit(p, &policy, err));
    TG_TRY(tg_tgsp_unwrap(p, c->p->keys->vault, err));
    const struct tg_grant_spec spec = {.recipient = to,
                                       .signer = c->p->keys->platform,
                                       .issued_at = c->now,
                                       .not_before = c->now - 86400, /* clocks that run late */
                                       .not_after = c->now + (int64_t)c->p->config->grant_life_s};
    TG_TRY(tg_grant_make(p, &spec, &doc, err));
    uint8_t *copy = tg_arena_alloc(c->arena, doc.n, 1);
    if (copy == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    memcpy(copy, doc.data, doc.n);
    out->document = tg_bytes_make(copy, doc.n);
    out->vault = true;
    out->issued_at = c->now;
    out->not_after = spec.not_after;
    memcpy(out->kem_key_id, tg_kem_pk_id(to), sizeof(out->kem_key_id));
    memcpy(out->granter, tg_sign_pk_id(tg_sign_sk_pk(c->p->keys->platform)), sizeof(out->granter));
    return TG_OK;
}

TG_RC tg_vault_grant(struct tg_call *c, const struct tg_package_row *package,
                     struct tg_bytes kem_public_key, struct tg_grant_row *out, struct tg_err *err)
{
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *to = NULL;
    TG_AUTO(tg_freep) char *path = tg_blob_path(c->p, package->blob_sha256);
    TG_AUTO(tg_fd_closep) int fd = -1;

    if (path == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (tg_kem_pk_new(kem_public_key, &to) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT, "the device's KEM key is not valid");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "blob %s: can't open", path);
    return make(c, fd, to, out, err);
}
