/* A grant. Nothing verifies under an empty trust store. */
#include "fuzz_tgsp.h"
#include "tgsp/grant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf made = TG_BUF_INIT((size_t)64 << 20);
    TG_AUTO(tg_grant_freep) struct tg_grant *x = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *empty = NULL;
    if (tg_trust_new(&empty) != TG_OK)
        return 0;
    enum tg_rc rc = tg_grant_decode(fuzz_document("grant", data, n, &made), "fuzz", &x, &err);
    if (rc != TG_OK) {
        FUZZ_NEED(x == NULL);
        fuzz_refused(rc, &err);
        return 0;
    }
    rc = tg_grant_verify(x, empty, 1770000000, &err);
    FUZZ_NEED(rc != TG_OK);
    return 0;
}
