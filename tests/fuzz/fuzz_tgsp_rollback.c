/* The rollback record: what is accepted is written and read again as it was, and what it records is
 * never answered with less than the rules say. */
#include "fuzz_tgsp.h"
#include "tgsp/rollback.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_rollback_freep) struct tg_rollback *r = NULL;
    TG_AUTO(tg_rollback_freep) struct tg_rollback *back = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_ROLLBACK_MAX);
    enum tg_rc rc = tg_rollback_decode(tg_bytes_make(data, n), "fuzz", &r, &err);
    if (rc != TG_OK) {
        FUZZ_NEED(r == NULL);
        fuzz_refused(rc, &err);
        return 0;
    }
    FUZZ_NEED(tg_rollback_encode(r, &text, &err) == TG_OK);
    FUZZ_NEED(tg_rollback_decode(tg_buf_view(&text), "again", &back, &err) == TG_OK);
    const struct tg_rollback_entry *e = tg_rollback_find(back, "m");
    if (e && e->floor > 0) {
        struct tg_rollback_query q = {"m", e->floor - 1, 0, e->current, e->reset_count, true};
        FUZZ_NEED(tg_rollback_decide(back, &q, &err) == TG_E_ROLLBACK);
    }
    return 0;
}
