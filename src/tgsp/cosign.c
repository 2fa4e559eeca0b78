/* One more signature on a package: a copy with a new signature section. */
#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tgsp/build.h"
#include "tgsp/construct_internal.h"
#include "tgsp/package.h"
#include "tgsp/signed_doc_internal.h"

#define COPY_STEP ((size_t)1 << 20)
#define FILE_MODE 0644

static enum tg_rc entries_extend(const struct tg_tgsp *p, const struct tg_sign_sk *signer,
                                 struct tg_buf *json, struct tg_err *err)
{
    const struct tg_tgsp_signatures *old = tg_tgsp_signatures_get(p);
    struct tg_tgsp_signature v[TG_TGSP_SIGNERS_MAX];
    size_t n = old->signatures.n;
    if (n >= TG_TGSP_SIGNERS_MAX)
        return TG_FAIL(err, TG_E_LIMIT,
                       "sign: the package has %d signatures already, the most it can",
                       TG_TGSP_SIGNERS_MAX);
    memcpy(v, old->signatures.items, n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        if (tg_mem_eq(v[i].key_id, tg_sign_pk_id(tg_sign_sk_pk(signer)), TG_SIGN_ID_LEN))
            return TG_FAIL(err, TG_E_EXISTS, "sign: this key has signed the package already");
    enum tg_rc rc = tg_entry_sign(signer, TG_LABEL_PACKAGE, tg_tgsp_h(p), false, &v[n]);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "sign: signing failed: %s", tg_rc_text(rc));
    struct tg_tgsp_signatures sigs = {
        .signatures = {v, n + 1}
    };
    return tg_tgsp_signatures_encode(&sigs, json, err);
}

static enum tg_rc copy_front(const struct tg_src *src, uint64_t n, const struct tg_newfile *f,
                             struct tg_progress *progress, struct tg_err *err)
{
    TG_AUTO(tg_freep) uint8_t *buf = tg_alloc(COPY_STEP);
    if (!buf)
        return TG_FAIL(err, TG_E_NOMEM, "sign: out of memory");
    for (uint64_t off = 0; off < n;) {
        size_t step = n - off < COPY_STEP ? (size_t)(n - off) : COPY_STEP;
        TG_TRY(tg_src_read(src, buf, step, off, err));
        TG_TRY(tg_fd_pwrite(f->fd, f->path, buf, step, off, err));
        tg_progress_add(progress, step);
        off += step;
    }
    return TG_OK;
}

enum tg_rc tg_tgsp_cosign(const struct tg_src *src, const struct tg_sign_sk *signer,
                          const char *out_path, bool replace, struct tg_progress *progress,
                          struct tg_err *err)
{
    const struct tg_tgsp_run run = {.progress = progress};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf json = TG_BUF_INIT(TG_TGSP_SIGNATURES_MAX);
    TG_AUTO(tg_newfile_abort) struct tg_newfile f = TG_NEWFILE_INIT;
    uint64_t off, len;
    uint8_t field[4];
    TG_TRY(tg_tgsp_open(src, &p, err));
    TG_TRY(tg_tgsp_inspect(p, err));
    TG_TRY(tg_tgsp_check_payload(p, &run, err));
    TG_TRY(entries_extend(p, signer, &json, err));
    tg_tgsp_section_at(p, TG_TGSP_SEC_SIGNATURES, &off, &len);
    TG_TRY(tg_newfile_open(&f, out_path, FILE_MODE, replace, err));
    TG_TRY(copy_front(src, off - sizeof field, &f, progress, err));
    tg_put_be32(field, (uint32_t)json.n);
    TG_TRY(tg_fd_pwrite(f.fd, f.path, field, sizeof field, off - sizeof field, err));
    TG_TRY(tg_fd_pwrite(f.fd, f.path, json.data, json.n, off, err));
    return tg_newfile_commit(&f, err);
}
