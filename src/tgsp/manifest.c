/* The manifest section: what the model is and what the payload must be (spec §3). */
#include <inttypes.h>
#include <string.h>

#include "tgsp/format.h"
#include "tgsp/format_internal.h"
#include "tgsp/path.h"

static const struct tg_jfield model_fields[] = {
    TG_J_STR(struct tg_tgsp_model, name, 1, TG_TGSP_NAME_MAX, TG_J_REQ),
    TG_J_STR(struct tg_tgsp_model, version, 0, TG_TGSP_VERSION_MAX, TG_J_REQ),
    TG_J_U64(struct tg_tgsp_model, sequence, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_tgsp_model, floor, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
    TG_J_ENUM(struct tg_tgsp_model, format, tg_tgsp_model_formats, TG_J_REQ),
    TG_J_MAP(struct tg_tgsp_model, metadata, 0, TG_TGSP_METADATA_MAX, TG_J_SKIP0),
};

static const struct tg_jschema model_schema =
    TG_J_SCHEMA(struct tg_tgsp_model, model_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_jfield validity_fields[] = {
    {.name = "not_before",
     .type = TG_JT_TIME,
     .flags = TG_J_OPT,
     .off = offsetof(struct tg_tgsp_validity, not_before),
     .has_off = offsetof(struct tg_tgsp_validity, has_not_before),
     .sub = {NULL}},
    {.name = "not_after",
     .type = TG_JT_TIME,
     .flags = TG_J_OPT,
     .off = offsetof(struct tg_tgsp_validity, not_after),
     .has_off = offsetof(struct tg_tgsp_validity, has_not_after),
     .sub = {NULL}},
};

static const struct tg_jschema validity_schema =
    TG_J_SCHEMA(struct tg_tgsp_validity, validity_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield constraints_fields[] = {
    TG_J_STRS(struct tg_tgsp_constraints, fleets, 1, TG_TGSP_FLEETS_MAX, TG_J_SKIP0),
    TG_J_STR(struct tg_tgsp_constraints, min_agent, 5, 32, TG_J_SKIP0),
};

static const struct tg_jschema constraints_schema =
    TG_J_SCHEMA(struct tg_tgsp_constraints, constraints_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield file_fields[] = {
    TG_J_STR(struct tg_tgsp_file, path, 1, TG_TGSP_PATH_MAX, TG_J_REQ),
    TG_J_U64(struct tg_tgsp_file, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_U64(struct tg_tgsp_file, offset, 0, TG_JSON_INT_MAX, TG_J_REQ),
};

static const struct tg_jschema file_schema =
    TG_J_SCHEMA(struct tg_tgsp_file, file_fields, TG_J_IGNORE_UNKNOWN);

static const struct tg_jfield payload_fields[] = {
    TG_J_U64(struct tg_tgsp_payload, chunks, 1, TG_TGSP_CHUNKS_MAX, TG_J_REQ),
    TG_J_BYTES(struct tg_tgsp_payload, chunk_digests, TG_SHA256_LEN,
               TG_SHA256_LEN *TG_TGSP_CHUNKS_MAX, TG_J_REQ),
};

static const struct tg_jschema payload_schema =
    TG_J_SCHEMA(struct tg_tgsp_payload, payload_fields, TG_J_IGNORE_UNKNOWN);

#define ROW_OPT_OBJ(member, has, schema_)                                                          \
    {                                                                                              \
        .name = #member, .type = TG_JT_OBJ, .flags = TG_J_OPT,                                     \
        .off = offsetof(struct tg_tgsp_manifest, member),                                          \
        .has_off = offsetof(struct tg_tgsp_manifest, has), .sub = {                                \
            .schema = (schema_)                                                                    \
        }                                                                                          \
    }

static const struct tg_jfield manifest_fields[] = {
    TG_J_OBJ(struct tg_tgsp_manifest, model, &model_schema, TG_J_REQ),
    ROW_OPT_OBJ(validity, has_validity, &validity_schema),
    ROW_OPT_OBJ(constraints, has_constraints, &constraints_schema),
    TG_J_OBJS(struct tg_tgsp_manifest, files, &file_schema, 0, TG_TGSP_FILES_MAX, TG_J_REQ),
    TG_J_OBJ(struct tg_tgsp_manifest, payload, &payload_schema, TG_J_REQ),
    TG_J_RAW(struct tg_tgsp_manifest, provenance, TG_TGSP_MANIFEST_MAX, TG_J_SKIP0),
};

static const struct tg_jschema manifest_schema =
    TG_J_SCHEMA(struct tg_tgsp_manifest, manifest_fields, TG_J_IGNORE_UNKNOWN);

/* Offsets follow from sizes: nothing else is accepted (spec §4). */
static enum tg_rc files_check(const struct tg_jlist *files, uint64_t plain_len, struct tg_err *err)
{
    const struct tg_tgsp_file *v = files->items;
    uint64_t end = 0;
    for (size_t i = 0; i < files->n; i++) {
        uint64_t offset = i == 0 ? 0 : (end + TG_TGSP_ALIGN - 1) / TG_TGSP_ALIGN * TG_TGSP_ALIGN;
        if (v[i].offset != offset)
            return TG_FAIL(err, TG_E_FORMAT,
                           "manifest.files[%zu].offset: %" PRIu64 " must be %" PRIu64, i,
                           v[i].offset, offset);
        if (!tg_add_u64(offset, v[i].size, &end) || end > plain_len)
            return TG_FAIL(err, TG_E_FORMAT,
                           "manifest.files[%zu].size: %" PRIu64
                           " goes beyond the payload of %" PRIu64 " bytes",
                           i, v[i].size, plain_len);
    }
    if (end != plain_len)
        return TG_FAIL(err, TG_E_FORMAT,
                       "manifest.files: end at %" PRIu64
                       ", but header.payload_plain_len is %" PRIu64,
                       end, plain_len);
    return TG_OK;
}

static enum tg_rc paths_check(const struct tg_jlist *files, struct tg_arena *arena,
                              struct tg_err *err)
{
    const struct tg_tgsp_file *v = files->items;
    const char **paths = tg_arena_alloc(arena, files->n ? files->n : 1, sizeof *paths);
    if (!paths)
        return TG_FAIL(err, TG_E_NOMEM, "manifest.files: out of memory");
    for (size_t i = 0; i < files->n; i++)
        paths[i] = v[i].path;
    enum tg_rc rc = tg_tgsp_paths_check(paths, files->n, err);
    if (rc != TG_OK)
        tg_err_wrap(err, "manifest.files");
    return rc;
}

static enum tg_rc model_check(const struct tg_tgsp_manifest *m, struct tg_err *err)
{
    uint64_t v[3];
    if (m->model.floor > m->model.sequence)
        return TG_FAIL(err, TG_E_FORMAT,
                       "manifest.model.floor: %" PRIu64 " is above sequence %" PRIu64,
                       m->model.floor, m->model.sequence);
    if (m->constraints.min_agent && tg_version_parse(m->constraints.min_agent, v) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT,
                       "manifest.constraints.min_agent: '%.32s' is not MAJOR.MINOR.PATCH",
                       m->constraints.min_agent);
    if (m->provenance.n && m->provenance.p[0] != '{')
        return TG_FAIL(err, TG_E_FORMAT, "manifest.provenance: must be an object");
    return TG_OK;
}

enum tg_rc tg_tgsp_manifest_decode(struct tg_bytes json, const struct tg_tgsp_header *header,
                                   struct tg_arena *arena, struct tg_tgsp_manifest *out,
                                   struct tg_err *err)
{
    struct tg_tgsp_geometry g;
    struct tg_tgsp_manifest m;
    memset(&m, 0, sizeof m);
    TG_TRY(tg_tgsp_geometry(header->chunk_size, header->payload_plain_len, &g, err));
    TG_TRY(tg_json_decode(&manifest_schema, json, "manifest", arena, &m, err));
    TG_TRY(model_check(&m, err));
    TG_TRY(files_check(&m.files, g.plain_len, err));
    TG_TRY(paths_check(&m.files, arena, err));
    if (m.payload.chunks != g.chunks)
        return TG_FAIL(err, TG_E_FORMAT, "manifest.payload.chunks: %" PRIu64 " must be %" PRIu64,
                       m.payload.chunks, g.chunks);
    if (m.payload.chunk_digests.n != g.chunks * TG_SHA256_LEN)
        return TG_FAIL(err, TG_E_FORMAT,
                       "manifest.payload.chunk_digests: %zu bytes must be %" PRIu64,
                       m.payload.chunk_digests.n, g.chunks * TG_SHA256_LEN);
    TG_TRY(tg_crit_check(&header->crit, "manifest.", &manifest_schema, json, err));
    *out = m;
    return TG_OK;
}

const struct tg_tgsp_file *tg_tgsp_manifest_file(const struct tg_tgsp_manifest *m, const char *path)
{
    const struct tg_tgsp_file *v = m->files.items;

    for (size_t i = 0; i < m->files.n; i++)
        if (strcmp(v[i].path, path) == 0)
            return &v[i];
    return NULL;
}

enum tg_rc tg_tgsp_manifest_encode(const struct tg_tgsp_manifest *in, struct tg_buf *out,
                                   struct tg_err *err)
{
    return tg_json_encode(&manifest_schema, in, out, err);
}
