/* The header section: what is accepted keeps every rule of the spec. */
#include "fuzz_tgsp.h"
#include "tgsp/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_header h;
    struct tg_tgsp_geometry g;
    uint8_t id[TG_TGSP_H_LEN];
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    if (n > TG_TGSP_HEADER_MAX || tg_arena_new(FUZZ_ARENA, &a) != TG_OK)
        return 0;
    FUZZ_NEED(tg_tgsp_header_h(tg_bytes_make(data, n), id) == TG_OK);
    enum tg_rc rc = tg_tgsp_header_decode(tg_bytes_make(data, n), a, &h, &err);
    if (rc != TG_OK) {
        fuzz_refused(rc, &err);
        return 0;
    }
    FUZZ_NEED(strcmp(h.tgsp, "1.0") == 0 && (unsigned)h.aead < TG_AEAD_COUNT);
    FUZZ_NEED(tg_tgsp_geometry(h.chunk_size, h.payload_plain_len, &g, &err) == TG_OK);
    FUZZ_NEED(g.chunks >= 1 && g.chunks <= TG_TGSP_CHUNKS_MAX);
    FUZZ_NEED(tg_tgsp_chunk_offset(&g, g.chunks - 1) + tg_tgsp_chunk_plain(&g, g.chunks - 1) +
                  TG_AEAD_TAG_LEN ==
              g.stored_len);
    FUZZ_NEED(h.crit.n <= TG_TGSP_CRIT_MAX);
    return 0;
}
