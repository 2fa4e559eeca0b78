/* A whole package: inspected by a stranger, its chunks checked; verified by nobody; never a byte of
 * plaintext. */
#include "fuzz_tgsp.h"
#include "tgsp/package.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_bytes view = tg_bytes_make(data, n);
    struct tg_src src;
    struct tg_tgsp_run run = {.threads = 1};
    struct tg_tgsp_policy policy = {.check_time = false};
    uint8_t byte = 0;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *q = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *empty = NULL;
    tg_src_mem(&src, &view, "fuzz");
    enum tg_rc rc = tg_tgsp_open(&src, &p, &err);
    if (rc != TG_OK) {
        FUZZ_NEED(p == NULL);
        fuzz_refused(rc, &err);
        return 0;
    }
    if (tg_trust_new(&empty) != TG_OK || tg_tgsp_open(&src, &q, &err) != TG_OK)
        return 0;
    FUZZ_NEED(tg_tgsp_verify(q, empty, &err) != TG_OK && !tg_tgsp_verified(q));
    rc = tg_tgsp_inspect(p, &err);
    if (rc == TG_OK)
        rc = tg_tgsp_check_payload(p, &run, &err);
    if (rc != TG_OK)
        fuzz_refused(rc, &err);
    FUZZ_NEED(tg_tgsp_admit(p, &policy, &err) == TG_E_STATE);
    FUZZ_NEED(tg_tgsp_read(p, 0, &byte, 1, 0, &err) == TG_E_STATE);
    return 0;
}
