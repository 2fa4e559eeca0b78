#include "agent/identity.h"

#include "agent/device.h"
#include "base/clock.h"
#include "base/file.h"
#include "crypto/x509.h"

#define AGAIN "tensorguard-agent enroll --again, with a new token"

static TG_RC key_path(const struct tg_state *s, char out[TG_STATE_PATH_MAX], struct tg_err *err)
{
    return tg_state_path(s, out, err, "device.key");
}

static TG_RC load_key(const struct tg_state *s, struct tg_x509_key **out, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_TRY(key_path(s, path, err));
    struct tg_buf pem = TG_BUF_SECRET(TG_X509_PEM_MAX);
    enum tg_rc rc = tg_file_read(path, &pem, err);
    if (rc == TG_OK && (rc = tg_x509_key_from_pem(tg_buf_view(&pem), out, err)) != TG_OK)
        tg_err_wrap(err, "%s", path);
    tg_buf_done(&pem);
    return rc;
}

TG_RC tg_identity_key(const struct tg_state *s, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_x509_key_freep) struct tg_x509_key *key = NULL;
    TG_TRY(key_path(s, path, err));
    if (tg_state_has(path))
        return load_key(s, &key, err); /* of an enrolment that was broken off: still good? */
    TG_TRY(tg_x509_key_make(&key, err));
    struct tg_buf pem = TG_BUF_SECRET(TG_X509_PEM_MAX);
    enum tg_rc rc = tg_x509_key_to_pem(key, &pem, err);
    if (rc == TG_OK)
        rc = tg_file_write(path, tg_buf_view(&pem), 0600, false, err);
    tg_buf_done(&pem);
    return rc;
}

TG_RC tg_identity_csr(const struct tg_state *s, const char *cn, struct tg_buf *out,
                      struct tg_err *err)
{
    TG_AUTO(tg_x509_key_freep) struct tg_x509_key *key = NULL;
    TG_TRY(load_key(s, &key, err));
    return tg_x509_csr_make(key, cn, out, err);
}

TG_RC tg_identity_store(const struct tg_state *s, struct tg_bytes cert_pem, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    TG_AUTO(tg_x509_key_freep) struct tg_x509_key *key = NULL;
    TG_TRY(load_key(s, &key, err));
    TG_TRY(tg_x509_key_matches(key, cert_pem, err));
    TG_TRY(tg_state_path(s, path, err, "device.crt"));
    return tg_file_write(path, cert_pem, 0644, true, err);
}

TG_RC tg_identity_times(const struct tg_state *s, int64_t *not_before, int64_t *not_after,
                        struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    struct tg_x509_facts facts;
    TG_TRY(tg_state_path(s, path, err, "device.crt"));
    struct tg_buf pem = TG_BUF_INIT(TG_X509_PEM_MAX);
    enum tg_rc rc = tg_file_read(path, &pem, err);
    if (rc == TG_OK)
        rc = tg_x509_facts_pem(tg_buf_view(&pem), &facts, err);
    tg_buf_done(&pem);
    TG_TRY(rc);
    *not_before = facts.not_before;
    *not_after = facts.not_after;
    return TG_OK;
}

int64_t tg_identity_renew_at(int64_t not_before, int64_t not_after, unsigned percent)
{
    return not_before + (not_after - not_before) / 100 * (int64_t)percent;
}

enum tg_rc tg_identity_explain(const struct tg_state *s, int64_t now, bool refused,
                               struct tg_err *err)
{
    int64_t from = 0, until = 0;
    char text[TG_TIME_TEXT];
    bool known = tg_identity_times(s, &from, &until, NULL) == TG_OK;
    if (known && now >= until && tg_time_format(until, text) == TG_OK) {
        err->rc = TG_E_EXPIRED;
        tg_err_wrap(err, "this device's certificate expired at %s; enrol it again (" AGAIN ")",
                    text);
    } else if (refused) {
        tg_err_wrap(err, "the platform does not take this device's certificate; if it is the right "
                         "platform, enrol the device again (" AGAIN ")");
    }
    return err->rc;
}

TG_RC tg_identity_renew(const struct tg_state *s, const struct tg_settings *set,
                        struct tg_device *d, int64_t now, struct tg_err *err)
{
    struct tg_buf csr = TG_BUF_INIT(TG_WIRE_PEM_MAX), pem = TG_BUF_INIT(TG_WIRE_PEM_MAX);
    enum tg_rc rc = tg_identity_csr(s, set->device_id, &csr, err);
    if (rc == TG_OK)
        rc = tg_device_renew(d, tg_buf_cstr(&csr), &pem, err);
    struct tg_x509_facts facts;
    if (rc == TG_OK)
        rc = tg_x509_facts_pem(tg_buf_view(&pem), &facts, err);
    if (rc == TG_OK && facts.not_after <= now)
        rc = TG_FAIL(err, TG_E_EXPIRED,
                     "renewal: the platform issued an expired certificate; is "
                     "this machine's clock right?");
    if (rc == TG_OK)
        rc = tg_identity_store(s, tg_buf_view(&pem), err);
    tg_buf_done(&csr);
    tg_buf_done(&pem);
    if (rc != TG_OK)
        tg_err_wrap(err, "certificate renewal");
    return rc;
}
