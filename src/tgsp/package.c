/* Sections, signatures, trust: the first half of spec §7. */
#include "tgsp/package.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "tgsp/construct_internal.h"
#include "tgsp/package_internal.h"
#include "tgsp/signed_doc_internal.h"

#define ARENA_MAX ((size_t)128 << 20)

/* One row per section: its length field and its limit (spec §1). */
static const struct {
    unsigned len_bytes;
    uint64_t max;
} layout[TG_TGSP_SEC_COUNT] = {
    [TG_TGSP_SEC_HEADER] = {4, TG_TGSP_HEADER_MAX    },
    [TG_TGSP_SEC_MANIFEST] = {4, TG_TGSP_MANIFEST_MAX  },
    [TG_TGSP_SEC_RECIPIENTS] = {4, TG_TGSP_RECIPIENTS_MAX},
    [TG_TGSP_SEC_PAYLOAD] = {8, TG_TGSP_PAYLOAD_MAX   },
    [TG_TGSP_SEC_SIGNATURES] = {4, TG_TGSP_SIGNATURES_MAX},
};

/* "file: section, offset N: " before what err says. */
static enum tg_rc at_section(const struct tg_tgsp *p, enum tg_tgsp_section s, enum tg_rc rc,
                             struct tg_err *err)
{
    if (rc != TG_OK)
        tg_err_wrap(err, "%s: %s, offset %" PRIu64, p->src.name, tg_tgsp_section_name(s),
                    p->sec[s].off);
    return rc;
}

static enum tg_rc magic_check(const struct tg_tgsp *p, struct tg_err *err)
{
    uint8_t m[TG_TGSP_MAGIC_LEN];
    if (p->src.size < sizeof m)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: magic, offset 0: the file ends after %" PRIu64 " bytes", p->src.name,
                       p->src.size);
    TG_TRY(tg_src_read(&p->src, m, sizeof m, 0, err));
    if (!tg_mem_eq(m, TG_TGSP_MAGIC, 4))
        return TG_FAIL(err, TG_E_FORMAT, "%s: magic, offset 0: not a TGSP package", p->src.name);
    if (!tg_mem_eq(m, TG_TGSP_MAGIC, sizeof m))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "%s: magic, offset 4: TGSP version %u.%u; this reader knows 1.0",
                       p->src.name, m[4], m[5]);
    return TG_OK;
}

/* Follow one length field; everything is compared before anything is allocated. */
static enum tg_rc length_read(struct tg_tgsp *p, enum tg_tgsp_section s, uint64_t *pos,
                              struct tg_err *err)
{
    uint8_t field[8] = {0};
    unsigned k = layout[s].len_bytes;
    uint64_t left = p->src.size - *pos;
    if (left < k)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: %s, offset %" PRIu64 ": the file ends inside its length", p->src.name,
                       tg_tgsp_section_name(s), *pos);
    TG_TRY(tg_src_read(&p->src, field, k, *pos, err));
    uint64_t len = k == 8 ? tg_get_be64(field) : tg_get_be32(field);
    if (len > layout[s].max)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: %s, offset %" PRIu64 ": length %" PRIu64
                       " is over the limit of %" PRIu64,
                       p->src.name, tg_tgsp_section_name(s), *pos, len, layout[s].max);
    if (len > left - k)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: %s, offset %" PRIu64 ": length %" PRIu64 ", but only %" PRIu64
                       " bytes follow; the file is cut short",
                       p->src.name, tg_tgsp_section_name(s), *pos, len, left - k);
    p->sec[s].off = *pos + k;
    p->sec[s].len = len;
    *pos += k + len;
    return TG_OK;
}

static enum tg_rc lengths_read(struct tg_tgsp *p, struct tg_err *err)
{
    uint64_t pos = TG_TGSP_MAGIC_LEN;
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++)
        TG_TRY(length_read(p, (enum tg_tgsp_section)s, &pos, err));
    if (pos != p->src.size)
        return TG_FAIL(err, TG_E_FORMAT,
                       "%s: signatures, offset %" PRIu64 ": %" PRIu64
                       " bytes follow the last section",
                       p->src.name, pos, p->src.size - pos);
    return TG_OK;
}

static enum tg_rc section_read(struct tg_tgsp *p, enum tg_tgsp_section s, struct tg_err *err)
{
    uint8_t *to;
    size_t n = (size_t)p->sec[s].len;
    p->raw[s].max = (size_t)layout[s].max;
    enum tg_rc rc = tg_buf_reserve(&p->raw[s], n, &to);
    if (rc != TG_OK)
        return at_section(p, s, TG_FAIL(err, rc, "out of memory for %zu bytes", n), err);
    TG_TRY(tg_src_read(&p->src, to, n, p->sec[s].off, err));
    tg_buf_grow(&p->raw[s], n);
    return TG_OK;
}

enum tg_rc tg_tgsp_open(const struct tg_src *src, struct tg_tgsp **out, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = tg_calloc(1, sizeof *p);
    enum tg_rc rc = p ? tg_arena_new(ARENA_MAX, &p->arena) : TG_E_NOMEM;
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: out of memory", src->name);
    p->src = *src;
    TG_TRY(magic_check(p, err));
    TG_TRY(lengths_read(p, err));
    TG_TRY(section_read(p, TG_TGSP_SEC_HEADER, err));
    TG_TRY(section_read(p, TG_TGSP_SEC_SIGNATURES, err));
    rc = tg_tgsp_header_h(tg_buf_view(&p->raw[TG_TGSP_SEC_HEADER]), p->h);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s: can't hash the header: %s", src->name, tg_rc_text(rc));
    rc = tg_tgsp_signatures_decode(tg_buf_view(&p->raw[TG_TGSP_SEC_SIGNATURES]), p->arena, &p->sigs,
                                   err);
    TG_TRY(at_section(p, TG_TGSP_SEC_SIGNATURES, rc, err));
    *out = tg_steal(&p);
    return TG_OK;
}

void tg_tgsp_free(struct tg_tgsp *p)
{
    if (!p)
        return;
    for (int s = 0; s < TG_TGSP_SEC_COUNT; s++)
        tg_buf_done(&p->raw[s]);
    tg_tgsp_worker_free(atomic_load(&p->spare));
    tg_arena_free(p->arena);
    tg_secret_free(p->keys);
    tg_free(p);
}

enum tg_rc tg_tgsp_need(const struct tg_tgsp *p, enum tg_tgsp_stage stage, struct tg_err *err)
{
    static const char *const names[] = {"opened", "inspected", "verified", "admitted", "unwrapped"};
    if (p->stage >= stage)
        return TG_OK;
    return TG_FAIL(err, TG_E_STATE, "%s: the package is %s; it must be %s first", p->src.name,
                   names[p->stage], names[stage]);
}

/* Does the section's hash stand in the header? Then read it as JSON. */
static enum tg_rc hashed_section(struct tg_tgsp *p, enum tg_tgsp_section s, const uint8_t *want,
                                 struct tg_err *err)
{
    uint8_t md[TG_SHA256_LEN];
    TG_TRY(section_read(p, s, err));
    enum tg_rc rc = tg_sha256(tg_buf_view(&p->raw[s]), md);
    if (rc == TG_OK && !tg_mem_eq(md, want, sizeof md))
        rc = TG_FAIL(err, TG_E_AUTH, "its SHA-256 is not the one in the header; get a fresh copy");
    return at_section(p, s, rc, err);
}

static enum tg_rc header_parse(struct tg_tgsp *p, struct tg_err *err)
{
    struct tg_bytes json = tg_buf_view(&p->raw[TG_TGSP_SEC_HEADER]);
    enum tg_rc rc = tg_tgsp_header_decode(json, p->arena, &p->header, err);
    if (rc == TG_OK)
        rc = tg_tgsp_geometry(p->header.chunk_size, p->header.payload_plain_len, &p->geometry, err);
    TG_TRY(at_section(p, TG_TGSP_SEC_HEADER, rc, err));
    if (p->geometry.stored_len == p->sec[TG_TGSP_SEC_PAYLOAD].len)
        return TG_OK;
    rc = TG_FAIL(err, TG_E_FORMAT,
                 "%" PRIu64 " bytes, but header.payload_plain_len and chunk_size make it %" PRIu64,
                 p->sec[TG_TGSP_SEC_PAYLOAD].len, p->geometry.stored_len);
    return at_section(p, TG_TGSP_SEC_PAYLOAD, rc, err);
}

static enum tg_rc sections_parse(struct tg_tgsp *p, struct tg_err *err)
{
    TG_TRY(header_parse(p, err));
    TG_TRY(hashed_section(p, TG_TGSP_SEC_MANIFEST, p->header.manifest_sha256, err));
    TG_TRY(hashed_section(p, TG_TGSP_SEC_RECIPIENTS, p->header.recipients_sha256, err));
    enum tg_rc rc = tg_tgsp_manifest_decode(tg_buf_view(&p->raw[TG_TGSP_SEC_MANIFEST]), &p->header,
                                            p->arena, &p->manifest, err);
    TG_TRY(at_section(p, TG_TGSP_SEC_MANIFEST, rc, err));
    rc = tg_tgsp_recipients_decode(tg_buf_view(&p->raw[TG_TGSP_SEC_RECIPIENTS]), p->arena,
                                   &p->recipients, err);
    return at_section(p, TG_TGSP_SEC_RECIPIENTS, rc, err);
}

/* Which of the keys that verified count for this model's name? */
static enum tg_rc authors_count(struct tg_tgsp *p, const struct tg_verified *verified,
                                const struct tg_trust *trust, struct tg_err *err)
{
    const char *model = p->manifest.model.name;
    uint64_t need = tg_trust_threshold(trust, model);
    size_t authors = 0;
    p->n_signers = 0;
    for (size_t i = 0; i < verified->n; i++) {
        authors += (verified->keys[i].roles & TG_ROLE_AUTHOR) != 0;
        if (tg_trust_may_sign(&verified->keys[i], model))
            memcpy(p->signers[p->n_signers++], tg_sign_pk_id(verified->keys[i].pk), TG_SIGN_ID_LEN);
    }
    if (p->n_signers >= need)
        return TG_OK;
    if (authors == 0)
        return TG_FAIL(err, TG_E_DENIED, "signed by a trusted key without the role 'author'");
    if (p->n_signers == 0)
        return TG_FAIL(err, TG_E_DENIED,
                       "its author is not allowed to sign packages named '%.128s'", model);
    return TG_FAIL(err, TG_E_DENIED,
                   "%zu of %" PRIu64 " needed signatures by authors of '%.128s'; add one with "
                   "`tensorguard sign`",
                   p->n_signers, need, model);
}

enum tg_rc tg_tgsp_verify(struct tg_tgsp *p, const struct tg_trust *trust, struct tg_err *err)
{
    struct tg_verified verified;
    if (p->stage != TG_STAGE_OPENED)
        return TG_FAIL(err, TG_E_STATE, "%s: already parsed; open it afresh to verify",
                       p->src.name);
    enum tg_rc rc = tg_entries_verify_some(&p->sigs, TG_LABEL_PACKAGE, p->h, trust, &verified, err);
    TG_TRY(at_section(p, TG_TGSP_SEC_SIGNATURES, rc, err));
    TG_TRY(sections_parse(p, err));
    rc = authors_count(p, &verified, trust, err);
    TG_TRY(at_section(p, TG_TGSP_SEC_SIGNATURES, rc, err));
    p->stage = TG_STAGE_VERIFIED;
    return TG_OK;
}

enum tg_rc tg_tgsp_inspect(struct tg_tgsp *p, struct tg_err *err)
{
    if (p->stage != TG_STAGE_OPENED)
        return TG_FAIL(err, TG_E_STATE, "%s: already parsed", p->src.name);
    TG_TRY(sections_parse(p, err));
    p->stage = TG_STAGE_INSPECTED;
    return TG_OK;
}

bool tg_tgsp_verified(const struct tg_tgsp *p)
{
    return p->stage >= TG_STAGE_VERIFIED;
}

const uint8_t *tg_tgsp_h(const struct tg_tgsp *p)
{
    return p->h;
}

const struct tg_tgsp_signatures *tg_tgsp_signatures_get(const struct tg_tgsp *p)
{
    return &p->sigs;
}

size_t tg_tgsp_signers(const struct tg_tgsp *p, const uint8_t *ids[TG_TGSP_SIGNERS_MAX])
{
    for (size_t i = 0; i < p->n_signers; i++)
        ids[i] = p->signers[i];
    return p->n_signers;
}

const struct tg_tgsp_header *tg_tgsp_header_get(const struct tg_tgsp *p)
{
    return p->stage == TG_STAGE_OPENED ? NULL : &p->header;
}

const struct tg_tgsp_manifest *tg_tgsp_manifest_get(const struct tg_tgsp *p)
{
    return p->stage == TG_STAGE_OPENED ? NULL : &p->manifest;
}

const struct tg_tgsp_recipients *tg_tgsp_recipients_get(const struct tg_tgsp *p)
{
    return p->stage == TG_STAGE_OPENED ? NULL : &p->recipients;
}

const struct tg_tgsp_geometry *tg_tgsp_geometry_get(const struct tg_tgsp *p)
{
    return p->stage == TG_STAGE_OPENED ? NULL : &p->geometry;
}

struct tg_bytes tg_tgsp_section_raw(const struct tg_tgsp *p, enum tg_tgsp_section s)
{
    return tg_buf_view(&p->raw[s]);
}

void tg_tgsp_section_at(const struct tg_tgsp *p, enum tg_tgsp_section s, uint64_t *off,
                        uint64_t *len)
{
    *off = p->sec[s].off;
    *len = p->sec[s].len;
}
