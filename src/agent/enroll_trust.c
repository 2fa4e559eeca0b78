#include "agent/enroll_trust.h"

#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "crypto/keyfile.h"
#include "tgsp/trust.h"

static TG_RC add_key(struct tg_trust *t, const char *path, unsigned roles, const char *label,
                     struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    TG_TRY(tg_sign_pk_load_file(path, &pk, err));
    struct tg_trust_key key = {.pk = pk, .label = label, .roles = roles};
    enum tg_rc rc = tg_trust_add(t, &key, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "%s", path);
    return rc;
}

static TG_RC make_store(const struct tg_enroll_opts *o, struct tg_buf *out, struct tg_err *err)
{
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_TRY(tg_trust_new(&t));
    for (size_t i = 0; i < o->n_trust; i++)
        TG_TRY(add_key(t, o->trust[i], TG_ROLE_AUTHOR | TG_ROLE_GRANTER, "author", err));
    unsigned platform = TG_ROLE_PLATFORM | (o->no_vault_grants ? 0U : TG_ROLE_GRANTER);
    TG_TRY(add_key(t, o->platform_key, platform, "platform", err));
    return tg_trust_save(t, 1, tg_clock_now(), NULL, 0, out, err);
}

/* The operator's own store: the platform's key must be in it already. */
static TG_RC check_store(const struct tg_enroll_opts *o, struct tg_bytes text, struct tg_err *err)
{
    uint8_t id[TG_SIGN_ID_LEN];
    struct tg_trust_key key;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_TRY(tg_trust_load(text, o->trust_store, &t, err));
    TG_TRY(tg_enroll_platform_id(o->platform_key, id, err));
    if (!tg_trust_find(t, id, &key) || !(key.roles & TG_ROLE_PLATFORM))
        return TG_FAIL(err, TG_E_USAGE,
                       "%s: the key of --platform-key is not in it with the role platform; add it "
                       "(tensorguard trust add --role platform)",
                       o->trust_store);
    if (o->no_vault_grants && (key.roles & TG_ROLE_GRANTER))
        return TG_FAIL(err, TG_E_USAGE,
                       "%s: it gives the platform's key the role granter, which --no-vault-grants "
                       "forbids",
                       o->trust_store);
    return TG_OK;
}

TG_RC tg_enroll_trust(const struct tg_state *s, const struct tg_enroll_opts *o, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    if ((o->n_trust > 0) == (o->trust_store != NULL))
        return TG_FAIL(err, TG_E_USAGE,
                       "give either --trust PUB (one or more) or --trust-store FILE");
    TG_TRY(tg_state_path(s, path, err, "trust.tgtrust"));
    if (o->again && tg_state_has(path))
        return TG_OK; /* it may be newer than what the command line says */
    struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    enum tg_rc rc;
    if (o->trust_store) {
        rc = tg_file_read(o->trust_store, &text, err);
        if (rc == TG_OK)
            rc = check_store(o, tg_buf_view(&text), err);
    } else {
        rc = make_store(o, &text, err);
    }
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&text), 0644, true, err);
    tg_buf_done(&text);
    return rc;
}

TG_RC tg_enroll_platform_id(const char *path, uint8_t id[TG_SIGN_ID_LEN], struct tg_err *err)
{
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    TG_TRY(tg_sign_pk_load_file(path, &pk, err));
    memcpy(id, tg_sign_pk_id(pk), TG_SIGN_ID_LEN);
    return TG_OK;
}
