#include "tgsp/format.h"

#include <inttypes.h>
#include <string.h>

#include "tgsp/format_internal.h"

static const char *const section_names[TG_TGSP_SEC_COUNT] = {
    [TG_TGSP_SEC_HEADER] = "header",         [TG_TGSP_SEC_MANIFEST] = "manifest",
    [TG_TGSP_SEC_RECIPIENTS] = "recipients", [TG_TGSP_SEC_PAYLOAD] = "payload",
    [TG_TGSP_SEC_SIGNATURES] = "signatures",
};

const char *tg_tgsp_section_name(enum tg_tgsp_section s)
{
    return (unsigned)s < TG_TGSP_SEC_COUNT ? section_names[s] : "?";
}

const char *const tg_tgsp_model_formats[] = {
    [TG_MODEL_ONNX] = "onnx",       [TG_MODEL_SAFETENSORS] = "safetensors",
    [TG_MODEL_PYTORCH] = "pytorch", [TG_MODEL_SAVEDMODEL] = "savedmodel",
    [TG_MODEL_TFLITE] = "tflite",   [TG_MODEL_OTHER] = "other",
    [TG_MODEL_OTHER + 1] = NULL,
};

/* ---- header -------------------------------------------------------------------------------- */

/* A name that is compared after decoding, so that an unknown one is "unsupported" and not
 * "malformed". */
#define NAME_ROW(key, member)                                                                      \
    {                                                                                              \
        .name = (key), .type = TG_JT_STR, .off = offsetof(struct tg_tgsp_header, member),          \
        .has_off = SIZE_MAX, .min = 1, .max = 64, .sub = {                                         \
            NULL                                                                                   \
        }                                                                                          \
    }

static const struct tg_jfield header_fields[] = {
    TG_J_STR(struct tg_tgsp_header, tgsp, 1, 16, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_header, package_id, TG_J_REQ),
    TG_J_TIME(struct tg_tgsp_header, created_at, TG_J_REQ),
    NAME_ROW("aead", aead_name),
    NAME_ROW("kem", kem_name),
    NAME_ROW("sig", sig_name),
    NAME_ROW("hash", hash_name),
    TG_J_U64(struct tg_tgsp_header, chunk_size, TG_TGSP_CHUNK_MIN, TG_TGSP_CHUNK_MAX, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_header, payload_salt, TG_J_REQ),
    TG_J_U64(struct tg_tgsp_header, payload_plain_len, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_header, key_commitment, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_header, manifest_sha256, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_header, recipients_sha256, TG_J_REQ),
    TG_J_STRS(struct tg_tgsp_header, crit, 0, TG_TGSP_CRIT_MAX, TG_J_REQ),
};

static const struct tg_jschema header_schema =
    TG_J_SCHEMA(struct tg_tgsp_header, header_fields, TG_J_IGNORE_UNKNOWN);

/* Names of which this version knows one each. */
static enum tg_rc only(const char *field, const char *got, const char *known, struct tg_err *err)
{
    if (strcmp(got, known) == 0)
        return TG_OK;
    return TG_FAIL(err, TG_E_UNSUPPORTED,
                   "header.%s: '%.64s' is not known to this reader ('%s' is)", field, got, known);
}

static enum tg_rc header_check(struct tg_tgsp_header *h, struct tg_bytes json, struct tg_err *err)
{
    static const char *const roots[] = {"header.", "manifest.", NULL};
    struct tg_tgsp_geometry g;
    TG_TRY(only("tgsp", h->tgsp, "1.0", err));
    if (tg_aead_from_name(h->aead_name, &h->aead) != TG_OK)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "header.aead: '%.64s' is not known to this reader",
                       h->aead_name);
    TG_TRY(only("kem", h->kem_name, "x25519-ml-kem-768", err));
    TG_TRY(only("sig", h->sig_name, "ed25519-ml-dsa-65", err));
    TG_TRY(only("hash", h->hash_name, "sha-256", err));
    TG_TRY(tg_tgsp_geometry(h->chunk_size, h->payload_plain_len, &g, err));
    TG_TRY(tg_crit_roots(&h->crit, roots, "header.crit", err));
    return tg_crit_check(&h->crit, "header.", &header_schema, json, err);
}

enum tg_rc tg_tgsp_header_decode(struct tg_bytes json, struct tg_arena *arena,
                                 struct tg_tgsp_header *out, struct tg_err *err)
{
    struct tg_tgsp_header h;
    memset(&h, 0, sizeof h);
    TG_TRY(tg_json_decode(&header_schema, json, "header", arena, &h, err));
    TG_TRY(header_check(&h, json, err));
    *out = h;
    return TG_OK;
}

enum tg_rc tg_tgsp_header_encode(const struct tg_tgsp_header *in, struct tg_buf *out,
                                 struct tg_err *err)
{
    return tg_json_encode(&header_schema, in, out, err);
}

enum tg_rc tg_tgsp_header_h(struct tg_bytes header_json, uint8_t h[TG_TGSP_H_LEN])
{
    uint8_t len[4];
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *sha = NULL;
    if (header_json.n > TG_TGSP_HEADER_MAX)
        return TG_E_LIMIT;
    tg_put_be32(len, (uint32_t)header_json.n);
    TG_TRY(tg_sha256_new(&sha));
    TG_TRY(tg_sha256_update(sha, tg_bytes_make(TG_TGSP_MAGIC, TG_TGSP_MAGIC_LEN)));
    TG_TRY(tg_sha256_update(sha, TG_BYTES_OF(len)));
    TG_TRY(tg_sha256_update(sha, header_json));
    return tg_sha256_final(sha, h);
}

/* ---- geometry ------------------------------------------------------------------------------ */

enum tg_rc tg_tgsp_geometry(uint64_t chunk_size, uint64_t plain_len, struct tg_tgsp_geometry *out,
                            struct tg_err *err)
{
    if (chunk_size < TG_TGSP_CHUNK_MIN || chunk_size > TG_TGSP_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return TG_FAIL(err, TG_E_FORMAT,
                       "header.chunk_size: %" PRIu64
                       " is not a power of two from 65536 to 16777216",
                       chunk_size);
    if (plain_len > TG_TGSP_PAYLOAD_MAX)
        return TG_FAIL(err, TG_E_FORMAT,
                       "header.payload_plain_len: %" PRIu64 " bytes, at most %" PRIu64, plain_len,
                       TG_TGSP_PAYLOAD_MAX);
    uint64_t n = plain_len / chunk_size + (plain_len % chunk_size != 0);
    if (n == 0)
        n = 1;
    uint64_t stored = plain_len + n * TG_AEAD_TAG_LEN; /* both far below 2^64 */
    if (n > TG_TGSP_CHUNKS_MAX || stored > TG_TGSP_PAYLOAD_MAX)
        return TG_FAIL(err, TG_E_FORMAT,
                       "header.payload_plain_len: %" PRIu64 " chunks of %" PRIu64
                       " bytes, at most %" PRIu64 " chunks; a larger chunk_size is needed",
                       n, chunk_size, TG_TGSP_CHUNKS_MAX);
    *out = (struct tg_tgsp_geometry){chunk_size, plain_len, n, stored};
    return TG_OK;
}

uint64_t tg_tgsp_chunk_plain(const struct tg_tgsp_geometry *g, uint64_t i)
{
    return i + 1 < g->chunks ? g->chunk_size : g->plain_len - (g->chunks - 1) * g->chunk_size;
}

uint64_t tg_tgsp_chunk_offset(const struct tg_tgsp_geometry *g, uint64_t i)
{
    return i * (g->chunk_size + TG_AEAD_TAG_LEN);
}

/* ---- recipients and signatures ------------------------------------------------------------- */

static const struct tg_jfield recipient_fields[] = {
    TG_J_FIXED(struct tg_tgsp_recipient, id, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_recipient, x25519_epk, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_recipient, mlkem768_ct, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_recipient, wrapped_key, TG_J_REQ),
};

const struct tg_jschema tg_recipient_schema =
    TG_J_SCHEMA(struct tg_tgsp_recipient, recipient_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_jfield recipients_fields[] = {
    TG_J_OBJS(struct tg_tgsp_recipients, recipients, &tg_recipient_schema, 1,
              TG_TGSP_RECIPIENTS_COUNT_MAX, TG_J_REQ),
};

static const struct tg_jschema recipients_schema =
    TG_J_SCHEMA(struct tg_tgsp_recipients, recipients_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_jfield signature_fields[] = {
    TG_J_FIXED(struct tg_tgsp_signature, key_id, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_signature, sig_classic, TG_J_REQ),
    TG_J_FIXED(struct tg_tgsp_signature, sig_pqc, TG_J_REQ),
};

const struct tg_jschema tg_signature_schema =
    TG_J_SCHEMA(struct tg_tgsp_signature, signature_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_jfield signatures_fields[] = {
    TG_J_OBJS(struct tg_tgsp_signatures, signatures, &tg_signature_schema, 1, TG_TGSP_SIGNERS_MAX,
              TG_J_REQ),
};

static const struct tg_jschema signatures_schema =
    TG_J_SCHEMA(struct tg_tgsp_signatures, signatures_fields, TG_J_IGNORE_UNKNOWN);

enum tg_rc tg_tgsp_recipients_decode(struct tg_bytes json, struct tg_arena *arena,
                                     struct tg_tgsp_recipients *out, struct tg_err *err)
{
    struct tg_tgsp_recipients r = {
        .recipients = {NULL, 0}
    };
    TG_TRY(tg_json_decode(&recipients_schema, json, "recipients", arena, &r, err));
    const struct tg_tgsp_recipient *v = r.recipients.items;
    TG_TRY(tg_ids_distinct(v->id, r.recipients.n, sizeof *v, "recipients.recipients", err));
    *out = r;
    return TG_OK;
}

enum tg_rc tg_tgsp_signatures_decode(struct tg_bytes json, struct tg_arena *arena,
                                     struct tg_tgsp_signatures *out, struct tg_err *err)
{
    struct tg_tgsp_signatures s = {
        .signatures = {NULL, 0}
    };
    TG_TRY(tg_json_decode(&signatures_schema, json, "signatures", arena, &s, err));
    const struct tg_tgsp_signature *v = s.signatures.items;
    TG_TRY(tg_ids_distinct(v->key_id, s.signatures.n, sizeof *v, "signatures.signatures", err));
    *out = s;
    return TG_OK;
}

enum tg_rc tg_tgsp_recipients_encode(const struct tg_tgsp_recipients *in, struct tg_buf *out,
                                     struct tg_err *err)
{
    return tg_json_encode(&recipients_schema, in, out, err);
}

enum tg_rc tg_tgsp_signatures_encode(const struct tg_tgsp_signatures *in, struct tg_buf *out,
                                     struct tg_err *err)
{
    return tg_json_encode(&signatures_schema, in, out, err);
}
