/* A trust store: what is accepted can be saved and loaded again and says the same; it never
 * succeeds an empty one. */
#include "fuzz_tgsp.h"
#include "tgsp/trust.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf made = TG_BUF_INIT((size_t)64 << 20);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *back = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *empty = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    enum tg_rc rc = tg_trust_load(fuzz_document("trust", data, n, &made), "fuzz", &t, &err);
    if (rc != TG_OK) {
        FUZZ_NEED(t == NULL);
        fuzz_refused(rc, &err);
        return 0;
    }
    if (tg_trust_new(&empty) != TG_OK)
        return 0;
    FUZZ_NEED(tg_trust_succeeds(empty, t, &err) != TG_OK);
    FUZZ_NEED(tg_trust_save(t, tg_trust_version(t), tg_trust_issued_at(t), NULL, 0, &text, &err) ==
              TG_OK);
    FUZZ_NEED(tg_trust_load(tg_buf_view(&text), "again", &back, &err) == TG_OK);
    FUZZ_NEED(tg_trust_count(t) == tg_trust_count(back));
    for (size_t i = 0; i < tg_trust_count(t); i++) {
        struct tg_trust_key a = tg_trust_at(t, i), b = tg_trust_at(back, i);
        FUZZ_NEED(a.roles == b.roles && a.n_models == b.n_models && a.roles != 0);
        FUZZ_NEED(tg_bytes_eq(tg_sign_pk_raw(a.pk), tg_sign_pk_raw(b.pk)));
    }
    return 0;
}
