/* The recipients section: what is accepted can be written again, and reads the same. */
#include "fuzz_tgsp.h"
#include "tgsp/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf once = TG_BUF_INIT(TG_TGSP_RECIPIENTS_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf twice = TG_BUF_INIT(TG_TGSP_RECIPIENTS_MAX);
    struct tg_tgsp_recipients x, y;
    if (n > TG_TGSP_RECIPIENTS_MAX || tg_arena_new(FUZZ_ARENA, &a) != TG_OK)
        return 0;
    enum tg_rc rc = tg_tgsp_recipients_decode(tg_bytes_make(data, n), a, &x, &err);
    if (rc != TG_OK) {
        fuzz_refused(rc, &err);
        return 0;
    }
    FUZZ_NEED(tg_tgsp_recipients_encode(&x, &once, &err) == TG_OK);
    FUZZ_NEED(tg_tgsp_recipients_decode(tg_buf_view(&once), a, &y, &err) == TG_OK);
    FUZZ_NEED(tg_tgsp_recipients_encode(&y, &twice, &err) == TG_OK);
    FUZZ_NEED(tg_bytes_eq(tg_buf_view(&once), tg_buf_view(&twice)));
    return 0;
}
