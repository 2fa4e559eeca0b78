/* One chunk (spec §4): read a slice, hash it, decrypt it where it will stay, and so on while each
 * slice is in cache. The digest and then the tag decide in the end; until then nobody sees a byte,
 * and after a failure there is none. The slice is this thread's own copy: a file that is written to
 * meanwhile cannot show one thing to the hash and another to the cipher. (Mapping the file instead
 * was measured: no faster, since the copy is what brings the bytes into cache.) */
#include <inttypes.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/package_internal.h"

struct tg_tgsp_worker {
    struct tg_tgsp *p;
    struct tg_chunk_hasher hasher;
    struct tg_aead_ctx *aead; /* NULL: only checks digests */
    uint8_t *slice;           /* as stored, and a tag */
    size_t slice_max;
};

enum tg_rc tg_tgsp_engine_new(struct tg_tgsp *p, bool decrypt, struct tg_tgsp_worker **out,
                              struct tg_err *err)
{
    TG_AUTO(tg_tgsp_worker_freep) struct tg_tgsp_worker *w = tg_calloc(1, sizeof *w);
    enum tg_rc rc = w ? tg_chunk_hasher_init(&w->hasher) : TG_E_NOMEM;
    if (rc == TG_OK) {
        size_t chunk = (size_t)tg_tgsp_chunk_plain(&p->geometry, 0);
        w->p = p;
        w->slice_max = chunk < TG_TGSP_SLICE ? chunk : TG_TGSP_SLICE;
        w->slice = tg_alloc(w->slice_max + TG_AEAD_TAG_LEN);
        rc = w->slice ? TG_OK : TG_E_NOMEM;
    }
    if (rc == TG_OK && decrypt)
        rc = tg_aead_new(p->header.aead, tg_tgsp_keys_get(p)->payload_key, &w->aead);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: can't prepare to read chunks (%s)", p->src.name,
                       tg_rc_text(rc));
    *out = tg_steal(&w);
    return TG_OK;
}

enum tg_rc tg_tgsp_worker_new(struct tg_tgsp *p, struct tg_tgsp_worker **out, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_UNWRAPPED, err));
    return tg_tgsp_engine_new(p, true, out, err);
}

void tg_tgsp_worker_free(struct tg_tgsp_worker *w)
{
    if (!w)
        return;
    tg_chunk_hasher_done(&w->hasher);
    tg_aead_free(w->aead);
    tg_free(w->slice);
    tg_free(w);
}

static enum tg_rc begin(struct tg_tgsp_worker *w, uint64_t i, bool decrypt)
{
    uint8_t nonce[TG_AEAD_NONCE_LEN];
    TG_TRY(tg_chunk_digest_begin(&w->hasher));
    if (!decrypt)
        return TG_OK;
    tg_chunk_nonce(i, i + 1 == w->p->geometry.chunks, nonce);
    return tg_aead_open_begin(w->aead, nonce, TG_BYTES_NONE);
}

static enum tg_rc slice_pass(struct tg_tgsp_worker *w, struct tg_bytes slice, uint8_t *out)
{
    TG_TRY(tg_chunk_digest_pieces(&w->hasher, slice));
    return out ? tg_aead_open_part(w->aead, slice, out) : TG_OK;
}

/* Digest first: an author's signature stands behind it, behind the tag only whoever had the key. */
static enum tg_rc judge(struct tg_tgsp_worker *w, uint64_t i, const uint8_t *tag, bool decrypt,
                        struct tg_err *err)
{
    const struct tg_tgsp *p = w->p;
    uint8_t md[TG_SHA256_LEN];
    enum tg_rc rc = tg_chunk_digest_end(&w->hasher, tag, md);
    if (rc == TG_OK &&
        !tg_mem_eq(md, p->manifest.payload.chunk_digests.p + i * TG_SHA256_LEN, sizeof md))
        rc = TG_E_AUTH;
    if (rc != TG_OK)
        return TG_FAIL(
            err, rc, "%s: payload, offset %" PRIu64 ", chunk %" PRIu64 ": %s", p->src.name,
            p->sec[TG_TGSP_SEC_PAYLOAD].off + tg_tgsp_chunk_offset(&p->geometry, i), i,
            tg_rc_verdict(rc, "its digest is not the one in the manifest; get a fresh copy"));
    if (decrypt)
        rc = tg_aead_open_end(w->aead, tag);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: payload, chunk %" PRIu64 ": %s", p->src.name, i,
                       tg_rc_verdict(rc, "its tag does not match"));
    return TG_OK;
}

static enum tg_rc explained(const struct tg_tgsp_worker *w, uint64_t i, enum tg_rc rc,
                            struct tg_err *err)
{
    if (rc == TG_OK)
        return TG_OK;
    return TG_FAIL(err, rc, "%s: payload, chunk %" PRIu64 ": %s", w->p->src.name, i,
                   tg_rc_text(rc));
}

static enum tg_rc chunk_pass(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out, struct tg_err *err)
{
    const struct tg_tgsp *p = w->p;
    size_t n = (size_t)tg_tgsp_chunk_plain(&p->geometry, i), at = 0, part;
    uint64_t off = p->sec[TG_TGSP_SEC_PAYLOAD].off + tg_tgsp_chunk_offset(&p->geometry, i);
    TG_TRY(explained(w, i, begin(w, i, out != NULL), err));
    do { /* once for an empty chunk too: it has a tag */
        part = n - at < w->slice_max ? n - at : w->slice_max;
        size_t tag = at + part == n ? TG_AEAD_TAG_LEN : 0;
        TG_TRY(tg_src_read(&p->src, w->slice, part + tag, off + at, err));
        struct tg_bytes slice = tg_bytes_make(w->slice, part);
        TG_TRY(explained(w, i, slice_pass(w, slice, out ? out + at : NULL), err));
        at += part;
    } while (at < n);
    return judge(w, i, w->slice + part, out != NULL, err);
}

enum tg_rc tg_tgsp_engine_chunk(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out,
                                struct tg_err *err)
{
    enum tg_rc rc = chunk_pass(w, i, out, err);
    size_t n = (size_t)tg_tgsp_chunk_plain(&w->p->geometry, i);
    if (rc != TG_OK && out && n)
        tg_wipe(out, n);
    return rc;
}

enum tg_rc tg_tgsp_worker_chunk(struct tg_tgsp_worker *w, uint64_t i, uint8_t *out,
                                struct tg_err *err)
{
    if (i >= w->p->geometry.chunks)
        return TG_FAIL(err, TG_E_LIMIT, "%s: payload: no chunk %" PRIu64, w->p->src.name, i);
    return tg_tgsp_engine_chunk(w, i, out, err);
}
