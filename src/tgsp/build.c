/* Writing a package: lay out, wrap the key, write the payload, then fill in the front and sign. */
#include "tgsp/build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/secret.h"
#include "tgsp/build_internal.h"
#include "tgsp/construct_internal.h"
#include "tgsp/format_internal.h"
#include "tgsp/path.h"
#include "tgsp/signed_doc_internal.h"

#define FILE_MODE 0644

/* Everything that is being made. */
struct making {
    const struct tg_tgsp_build *b;
    struct tg_build_plan plan;
    struct tg_tgsp_header header;
    struct tg_tgsp_manifest manifest;
    struct tg_secret *keys; /* file key || payload key */
    uint8_t *digests;
    struct tg_buf header_json, manifest_json, recipients_json, signatures_json;
    struct tg_newfile file;
};

static void making_done(struct making *m)
{
    tg_free(m->plan.files);
    tg_free(m->plan.from);
    tg_secret_free(m->keys);
    tg_free(m->digests);
    tg_buf_done(&m->header_json);
    tg_buf_done(&m->manifest_json);
    tg_buf_done(&m->recipients_json);
    tg_buf_done(&m->signatures_json);
    tg_newfile_abort(&m->file);
}

static enum tg_rc nomem(struct tg_err *err)
{
    return TG_FAIL(err, TG_E_NOMEM, "build: out of memory");
}

/* ---- layout --------------------------------------------------------------------------------- */

static uint64_t list_size(const struct tg_tgsp_inputs *in)
{
    uint64_t n = 0;
    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++)
        n += 2 * TG_SHA256_LEN + 2 + strlen(tg_tgsp_inputs_at(in, i)->path) + 1;
    return n;
}

static void plan_add(struct tg_build_plan *p, const char *path, uint64_t size, size_t input)
{
    p->files[p->n] = (struct tg_tgsp_file){path, size, 0};
    p->from[p->n] = (struct tg_build_file){input, path};
    if (input == TG_NOT_AN_INPUT)
        p->digest_file = p->n;
    p->n++;
}

static enum tg_rc plan_files(struct tg_build_plan *p, struct tg_err *err)
{
    const struct tg_tgsp_inputs *in = p->b->inputs;
    size_t n = tg_tgsp_inputs_count(in);
    bool list = !p->b->no_inputs_digest && n > 0;
    p->files = tg_calloc(n + 1, sizeof *p->files);
    p->from = tg_calloc(n + 1, sizeof *p->from);
    p->digest_file = TG_NOT_AN_INPUT;
    if (!p->files || !p->from)
        return nomem(err);
    for (size_t i = 0; i < n; i++) {
        const struct tg_tgsp_input *v = tg_tgsp_inputs_at(in, i);
        if (list && strcmp(TG_TGSP_INPUTS_PATH, v->path) < 0) {
            plan_add(p, TG_TGSP_INPUTS_PATH, list_size(in), TG_NOT_AN_INPUT);
            list = false;
        }
        plan_add(p, v->path, v->size, i);
    }
    if (list)
        plan_add(p, TG_TGSP_INPUTS_PATH, list_size(in), TG_NOT_AN_INPUT);
    return TG_OK;
}

static enum tg_rc plan_offsets(struct tg_build_plan *p, uint64_t *plain_len, struct tg_err *err)
{
    uint64_t end = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct tg_tgsp_file *f = &p->files[i];
        f->offset = i ? (end + TG_TGSP_ALIGN - 1) / TG_TGSP_ALIGN * TG_TGSP_ALIGN : 0;
        if (!tg_add_u64(f->offset, f->size, &end) || end > TG_TGSP_PAYLOAD_MAX)
            return TG_FAIL(err, TG_E_LIMIT, "build: the files are over %" PRIu64 " bytes together",
                           TG_TGSP_PAYLOAD_MAX);
    }
    *plain_len = end;
    return TG_OK;
}

/* The chunk size asked for, or the next larger one that keeps the chunks to 2^18. */
static enum tg_rc plan_chunks(struct tg_build_plan *p, uint64_t plain_len, struct tg_err *err)
{
    uint64_t size = p->b->chunk_size ? p->b->chunk_size : TG_TGSP_CHUNK_DEFAULT;
    if (size < TG_TGSP_CHUNK_MIN || size > TG_TGSP_CHUNK_MAX || (size & (size - 1)))
        return TG_FAIL(err, TG_E_USAGE,
                       "build: chunk size %" PRIu64 " is not a power of two from 65536 to 16777216",
                       size);
    while (size < TG_TGSP_CHUNK_MAX && (plain_len + size - 1) / size > TG_TGSP_CHUNKS_MAX)
        size *= 2;
    return tg_tgsp_geometry(size, plain_len, &p->g, err) == TG_OK ? TG_OK : TG_E_LIMIT;
}

/* ---- sections ------------------------------------------------------------------------------- */

static enum tg_rc options_check(const struct tg_tgsp_build *b, struct tg_err *err)
{
    const struct tg_tgsp_validity *v = &b->validity;
    if (b->n_recipients == 0 || b->n_recipients > TG_TGSP_RECIPIENTS_COUNT_MAX)
        return TG_FAIL(err, TG_E_USAGE, "build: 1 to %d recipients; fleets use grants",
                       TG_TGSP_RECIPIENTS_COUNT_MAX);
    if (v->has_not_before && v->has_not_after && v->not_before >= v->not_after)
        return TG_FAIL(err, TG_E_USAGE, "build: the validity ends before it begins");
    for (size_t i = 0; i < b->n_recipients; i++)
        for (size_t k = 0; k < i; k++)
            if (tg_mem_eq(tg_kem_pk_id(b->recipients[i]), tg_kem_pk_id(b->recipients[k]),
                          TG_KEM_ID_LEN))
                return TG_FAIL(err, TG_E_USAGE, "build: a recipient is given twice");
    return TG_OK;
}

static void header_init(struct making *m)
{
    m->header.tgsp = "1.0";
    m->header.created_at = m->b->created_at;
    m->header.aead = m->b->aead;
    m->header.aead_name = tg_aead_name(m->b->aead);
    m->header.kem_name = "x25519-ml-kem-768";
    m->header.sig_name = "ed25519-ml-dsa-65";
    m->header.hash_name = "sha-256";
    m->header.chunk_size = m->plan.g.chunk_size;
    m->header.payload_plain_len = m->plan.g.plain_len;
}

static void manifest_init(struct making *m)
{
    const struct tg_tgsp_build *b = m->b;
    m->manifest.model = b->model;
    if (b->sequence_from_time)
        m->manifest.model.sequence = (uint64_t)b->created_at;
    if (!m->manifest.model.version)
        m->manifest.model.version = "";
    m->manifest.validity = b->validity;
    m->manifest.has_validity = b->validity.has_not_before || b->validity.has_not_after;
    m->manifest.constraints = b->constraints;
    m->manifest.has_constraints = b->constraints.fleets.n || b->constraints.min_agent;
    m->manifest.files = (struct tg_jlist){m->plan.files, m->plan.n};
    m->manifest.payload.chunks = m->plan.g.chunks;
    m->manifest.payload.chunk_digests =
        tg_bytes_make(m->digests, (size_t)(m->plan.g.chunks * TG_SHA256_LEN));
    m->manifest.provenance = b->provenance;
}

/* Fresh randomness in a fixed order (vectors depend on it): package_id, payload_salt, file key, and
 * then what each recipient's encapsulation draws. */
static enum tg_rc secrets_make(struct making *m, struct tg_err *err)
{
    TG_TRY(tg_secret_new(TG_TGSP_FILE_KEY_LEN + TG_AEAD_KEY_LEN, &m->keys, err));
    uint8_t *keys = tg_secret_data(m->keys);
    enum tg_rc rc = tg_rng_fill(m->b->rng, m->header.package_id, TG_TGSP_PACKAGE_ID_LEN);
    if (rc == TG_OK)
        rc = tg_rng_fill(m->b->rng, m->header.payload_salt, TG_TGSP_SALT_LEN);
    if (rc == TG_OK)
        rc = tg_rng_fill(m->b->rng, keys, TG_TGSP_FILE_KEY_LEN);
    if (rc == TG_OK)
        rc = tg_payload_key(&m->header, keys, keys + TG_TGSP_FILE_KEY_LEN);
    return rc == TG_OK ? rc : TG_FAIL(err, rc, "build: can't make the keys: %s", tg_rc_text(rc));
}

static enum tg_rc recipients_make(struct making *m, struct tg_err *err)
{
    size_t n = m->b->n_recipients;
    struct tg_wrap w = tg_wrap_recipient(&m->header);
    TG_AUTO(tg_freep) struct tg_tgsp_recipient *v = tg_calloc(n, sizeof *v);
    if (!v)
        return nomem(err);
    for (size_t i = 0; i < n; i++) {
        enum tg_rc rc =
            tg_wrap_seal(&w, m->b->recipients[i], m->b->rng, tg_secret_data(m->keys), &v[i]);
        if (rc != TG_OK)
            return TG_FAIL(err, rc, "build: recipient %zu: %s", i + 1,
                           tg_rc_verdict(rc, "a key that can't be used"));
    }
    struct tg_tgsp_recipients r = {
        .recipients = {v, n}
    };
    enum tg_rc rc = tg_tgsp_recipients_encode(&r, &m->recipients_json, err);
    if (rc == TG_E_LIMIT)
        return TG_FAIL(err, rc, "build: %zu recipients do not fit; use grants for a fleet", n);
    TG_TRY(rc);
    return tg_sha256(tg_buf_view(&m->recipients_json), m->header.recipients_sha256);
}

/* What a reader would refuse is refused before a byte is written. */
static enum tg_rc self_check(const struct making *m, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *a = NULL;
    struct tg_tgsp_header h;
    struct tg_tgsp_manifest man;
    if (tg_arena_new((size_t)128 << 20, &a) != TG_OK)
        return nomem(err);
    enum tg_rc rc = tg_tgsp_header_decode(tg_buf_view(&m->header_json), a, &h, err);
    if (rc == TG_OK)
        rc = tg_tgsp_manifest_decode(tg_buf_view(&m->manifest_json), &h, a, &man, err);
    if (rc == TG_E_FORMAT) {
        tg_err_wrap(err, "build: not a valid package");
        return TG_E_USAGE;
    }
    return rc;
}

/* Encode header and manifest as they are now. Their lengths do not depend on digests. */
static enum tg_rc front_encode(struct making *m, struct tg_err *err)
{
    tg_buf_clear(&m->manifest_json);
    tg_buf_clear(&m->header_json);
    enum tg_rc rc = tg_tgsp_manifest_encode(&m->manifest, &m->manifest_json, err);
    if (rc == TG_OK)
        rc = tg_sha256(tg_buf_view(&m->manifest_json), m->header.manifest_sha256);
    if (rc == TG_OK)
        rc = tg_key_commitment(&m->header, tg_secret_data(m->keys), m->header.key_commitment);
    if (rc == TG_OK)
        rc = tg_tgsp_header_encode(&m->header, &m->header_json, err);
    if (rc == TG_E_FORMAT) {
        tg_err_wrap(err, "build");
        return TG_E_USAGE;
    }
    return rc;
}

static enum tg_rc sign(struct making *m, uint8_t h[TG_TGSP_H_LEN], struct tg_err *err)
{
    struct tg_tgsp_signature entry;
    enum tg_rc rc = tg_tgsp_header_h(tg_buf_view(&m->header_json), h);
    if (rc == TG_OK)
        rc =
            tg_entry_sign(m->b->signer, TG_LABEL_PACKAGE, h, m->b->deterministic_signature, &entry);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "build: signing failed: %s", tg_rc_text(rc));
    struct tg_tgsp_signatures sigs = {
        .signatures = {&entry, 1}
    };
    return tg_tgsp_signatures_encode(&sigs, &m->signatures_json, err);
}

/* ---- the file ------------------------------------------------------------------------------- */

static uint64_t payload_off(const struct making *m)
{
    return TG_TGSP_MAGIC_LEN + 4 + m->header_json.n + 4 + m->manifest_json.n + 4 +
           m->recipients_json.n + 8;
}

static enum tg_rc section_write(const struct making *m, const struct tg_buf *json, uint64_t *pos,
                                struct tg_err *err)
{
    uint8_t len[4];
    tg_put_be32(len, (uint32_t)json->n);
    TG_TRY(tg_fd_pwrite(m->file.fd, m->file.path, len, sizeof len, *pos, err));
    TG_TRY(tg_fd_pwrite(m->file.fd, m->file.path, json->data, json->n, *pos + 4, err));
    *pos += 4 + json->n;
    return TG_OK;
}

static enum tg_rc front_and_tail(const struct making *m, uint64_t *size, struct tg_err *err)
{
    uint8_t len[8];
    uint64_t pos = TG_TGSP_MAGIC_LEN;
    TG_TRY(tg_fd_pwrite(m->file.fd, m->file.path, TG_TGSP_MAGIC, TG_TGSP_MAGIC_LEN, 0, err));
    TG_TRY(section_write(m, &m->header_json, &pos, err));
    TG_TRY(section_write(m, &m->manifest_json, &pos, err));
    TG_TRY(section_write(m, &m->recipients_json, &pos, err));
    tg_put_be64(len, m->plan.g.stored_len);
    TG_TRY(tg_fd_pwrite(m->file.fd, m->file.path, len, sizeof len, pos, err));
    pos += sizeof len + m->plan.g.stored_len;
    TG_TRY(section_write(m, &m->signatures_json, &pos, err));
    *size = pos;
    return TG_OK;
}

static enum tg_rc lay_out(struct making *m, struct tg_err *err)
{
    uint64_t plain_len;
    m->plan.b = m->b;
    TG_TRY(options_check(m->b, err));
    TG_TRY(plan_files(&m->plan, err));
    TG_TRY(plan_offsets(&m->plan, &plain_len, err));
    TG_TRY(plan_chunks(&m->plan, plain_len, err));
    m->digests = tg_calloc((size_t)m->plan.g.chunks, TG_SHA256_LEN);
    if (!m->digests)
        return nomem(err);
    header_init(m);
    manifest_init(m);
    TG_TRY(secrets_make(m, err));
    TG_TRY(recipients_make(m, err));
    TG_TRY(front_encode(m, err));
    return self_check(m, err);
}

static enum tg_rc payload_write(struct making *m, struct tg_err *err)
{
    struct tg_build_target to = {&m->file, payload_off(m),
                                 tg_secret_data(m->keys) + TG_TGSP_FILE_KEY_LEN, m->digests};
    TG_TRY(tg_build_payload(&m->plan, &to, err));
    size_t before = m->header_json.n + m->manifest_json.n;
    TG_TRY(front_encode(m, err));
    if (m->header_json.n + m->manifest_json.n != before)
        return TG_FAIL(err, TG_E_INTERNAL, "build: the sections changed their length");
    return TG_OK;
}

static void report(const struct making *m, const uint8_t h[TG_TGSP_H_LEN], uint64_t size,
                   struct tg_tgsp_built *out)
{
    *out = (struct tg_tgsp_built){.sequence = m->manifest.model.sequence,
                                  .files = m->plan.n - (m->plan.digest_file != TG_NOT_AN_INPUT),
                                  .plain_len = m->plan.g.plain_len,
                                  .chunks = m->plan.g.chunks,
                                  .chunk_size = m->plan.g.chunk_size,
                                  .size = size};
    memcpy(out->h, h, TG_TGSP_H_LEN);
    memcpy(out->package_id, m->header.package_id, TG_TGSP_PACKAGE_ID_LEN);
}

enum tg_rc tg_tgsp_build(const struct tg_tgsp_build *b, const char *path, bool replace,
                         struct tg_tgsp_built *built, struct tg_err *err)
{
    TG_AUTO(making_done)
    struct making m = {.b = b,
                       .header_json = TG_BUF_INIT(TG_TGSP_HEADER_MAX),
                       .manifest_json = TG_BUF_INIT(TG_TGSP_MANIFEST_MAX),
                       .recipients_json = TG_BUF_INIT(TG_TGSP_RECIPIENTS_MAX),
                       .signatures_json = TG_BUF_INIT(TG_TGSP_SIGNATURES_MAX),
                       .file = TG_NEWFILE_INIT};
    uint8_t h[TG_TGSP_H_LEN];
    uint64_t size;
    TG_TRY(lay_out(&m, err));
    TG_TRY(tg_newfile_open(&m.file, path, FILE_MODE, replace, err));
    TG_TRY(payload_write(&m, err));
    TG_TRY(sign(&m, h, err));
    TG_TRY(front_and_tail(&m, &size, err));
    TG_TRY(tg_newfile_commit(&m.file, err));
    if (built)
        report(&m, h, size, built);
    return TG_OK;
}
