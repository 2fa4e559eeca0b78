/* The manifest section. The first 8 bytes of the input are payload_plain_len, the next one selects
 * the chunk size; the rest is the JSON. What is accepted keeps the rules, pair by pair for the
 * paths. */
#include "fuzz_tgsp.h"
#include "tgsp/format.h"
#include "tgsp/path.h"

static void files_need(const struct tg_tgsp_manifest *m, uint64_t plain_len)
{
    const struct tg_tgsp_file *v = m->files.items;
    uint64_t end = 0;
    for (size_t i = 0; i < m->files.n; i++) {
        FUZZ_NEED(tg_tgsp_path_check(tg_bytes_str(v[i].path), NULL) == TG_OK);
        FUZZ_NEED(v[i].offset % TG_TGSP_ALIGN == 0 && v[i].offset >= end);
        FUZZ_NEED(v[i].offset - end < TG_TGSP_ALIGN);
        end = v[i].offset + v[i].size;
        FUZZ_NEED(i == 0 || strcmp(v[i - 1].path, v[i].path) < 0);
    }
    FUZZ_NEED(end == plain_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_header h = {.tgsp = "1.0"};
    struct tg_tgsp_manifest m;
    struct tg_tgsp_geometry g;
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf again = TG_BUF_INIT(TG_TGSP_MANIFEST_MAX);
    if (n < 9 || tg_arena_new(FUZZ_ARENA, &a) != TG_OK)
        return 0;
    h.payload_plain_len = tg_get_be64(data);
    h.chunk_size = (uint64_t)TG_TGSP_CHUNK_MIN << (data[8] % 9);
    enum tg_rc rc = tg_tgsp_manifest_decode(tg_bytes_make(data + 9, n - 9), &h, a, &m, &err);
    if (rc != TG_OK) {
        fuzz_refused(rc, &err);
        return 0;
    }
    FUZZ_NEED(tg_tgsp_geometry(h.chunk_size, h.payload_plain_len, &g, &err) == TG_OK);
    FUZZ_NEED(m.payload.chunks == g.chunks);
    FUZZ_NEED(m.payload.chunk_digests.n == g.chunks * TG_SHA256_LEN);
    FUZZ_NEED(m.model.floor <= m.model.sequence);
    files_need(&m, g.plain_len);
    FUZZ_NEED(tg_tgsp_manifest_encode(&m, &again, &err) == TG_OK);
    FUZZ_NEED(tg_tgsp_manifest_decode(tg_buf_view(&again), &h, a, &m, &err) == TG_OK);
    return 0;
}
