/* The sections of a TGSP 1.0 package as typed structs (docs/spec/tgsp-1.0.md §1-§6).
 *
 * Decoded structs live in an arena and borrow from it. Decoding is strict; a struct that came out
 * of a decoder here satisfies every rule of the spec that can be checked without keys or other
 * sections. Error texts: "manifest, files[3].path: ...". */
#ifndef TG_TGSP_FORMAT_H
#define TG_TGSP_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "codec/json.h"
#include "crypto/aead.h"
#include "crypto/hash.h"
#include "crypto/kem.h"
#include "crypto/sign.h"

#define TG_TGSP_MAGIC "TGSP\x01\x00"
#define TG_TGSP_MAGIC_LEN 6
#define TG_TGSP_HEADER_MAX (UINT32_C(64) << 10)
#define TG_TGSP_MANIFEST_MAX (UINT32_C(32) << 20)
#define TG_TGSP_RECIPIENTS_MAX (UINT32_C(8) << 20)
#define TG_TGSP_SIGNATURES_MAX (UINT32_C(256) << 10)
#define TG_TGSP_PAYLOAD_MAX ((UINT64_C(1) << 42) + (UINT64_C(1) << 22))
/* Signed documents beside a package: grants, deployments; trust stores may be larger. */
#define TG_TGSP_DOC_MAX (UINT32_C(64) << 10)

#define TG_TGSP_H_LEN 32 /* SHA-256(magic || header length || header JSON): names a package */
#define TG_TGSP_PACKAGE_ID_LEN 16
#define TG_TGSP_SALT_LEN 32
#define TG_TGSP_FILE_KEY_LEN 32
#define TG_TGSP_CHUNK_MIN (UINT32_C(64) << 10)
#define TG_TGSP_CHUNK_MAX (UINT32_C(16) << 20)
#define TG_TGSP_CHUNK_DEFAULT (UINT32_C(1) << 20)
#define TG_TGSP_CHUNKS_MAX (UINT64_C(1) << 18)
#define TG_TGSP_PIECE (UINT32_C(32) << 10) /* of a chunk's digest */
#define TG_TGSP_ALIGN UINT64_C(4096)       /* of files in the payload */
#define TG_TGSP_FILES_MAX 65536
#define TG_TGSP_PATH_MAX 1024
#define TG_TGSP_SEGMENT_MAX 255
#define TG_TGSP_NAME_MAX 256
#define TG_TGSP_VERSION_MAX 128
#define TG_TGSP_METADATA_MAX 256
#define TG_TGSP_FLEETS_MAX 64
#define TG_TGSP_SIGNERS_MAX 16
#define TG_TGSP_RECIPIENTS_COUNT_MAX 8192
#define TG_TGSP_CRIT_MAX 16
#define TG_TGSP_WRAPPED_LEN (TG_TGSP_FILE_KEY_LEN + TG_AEAD_TAG_LEN) /* 48 */

enum tg_tgsp_section {
    TG_TGSP_SEC_HEADER,
    TG_TGSP_SEC_MANIFEST,
    TG_TGSP_SEC_RECIPIENTS,
    TG_TGSP_SEC_PAYLOAD,
    TG_TGSP_SEC_SIGNATURES,
    TG_TGSP_SEC_COUNT
};

/* "header", "manifest", "recipients", "payload", "signatures" */
const char *tg_tgsp_section_name(enum tg_tgsp_section s);

enum tg_tgsp_model_format {
    TG_MODEL_ONNX,
    TG_MODEL_SAFETENSORS,
    TG_MODEL_PYTORCH,
    TG_MODEL_SAVEDMODEL,
    TG_MODEL_TFLITE,
    TG_MODEL_OTHER
};

/* "onnx", "safetensors", ...; NULL-terminated, by enum value. */
extern const char *const tg_tgsp_model_formats[];

struct tg_tgsp_header {
    const char *tgsp; /* "1.0" */
    uint8_t package_id[TG_TGSP_PACKAGE_ID_LEN];
    int64_t created_at;
    const char *aead_name, *kem_name, *sig_name, *hash_name;
    enum tg_aead aead; /* of aead_name */
    uint64_t chunk_size;
    uint8_t payload_salt[TG_TGSP_SALT_LEN];
    uint64_t payload_plain_len;
    uint8_t key_commitment[TG_SHA256_LEN];
    uint8_t manifest_sha256[TG_SHA256_LEN];
    uint8_t recipients_sha256[TG_SHA256_LEN];
    struct tg_jlist crit; /* const char * */
};

struct tg_tgsp_model {
    const char *name, *version;
    uint64_t sequence, floor;
    int format;               /* enum tg_tgsp_model_format */
    struct tg_jlist metadata; /* struct tg_jpair */
};

struct tg_tgsp_validity {
    int64_t not_before, not_after; /* Unix seconds; valid when not_before <= now < not_after */
    bool has_not_before, has_not_after;
};

struct tg_tgsp_constraints {
    struct tg_jlist fleets; /* const char *; n == 0: any fleet */
    const char *min_agent;  /* "MAJOR.MINOR.PATCH"; NULL: any */
};

struct tg_tgsp_file {
    const char *path;
    uint64_t size, offset; /* offset: in the payload's plaintext */
};

struct tg_tgsp_payload {
    uint64_t chunks;
    struct tg_bytes chunk_digests; /* 32 * chunks */
};

struct tg_tgsp_manifest {
    struct tg_tgsp_model model;
    struct tg_tgsp_validity validity;
    struct tg_tgsp_constraints constraints;
    struct tg_jlist files; /* struct tg_tgsp_file, ascending by path bytes */
    struct tg_tgsp_payload payload;
    struct tg_bytes provenance; /* JSON text as it stands; n == 0: none */
    bool has_validity, has_constraints;
};

struct tg_tgsp_recipient {
    uint8_t id[TG_KEM_ID_LEN];
    uint8_t x25519_epk[TG_KEM_X25519_LEN];
    uint8_t mlkem768_ct[TG_KEM_CT_LEN];
    uint8_t wrapped_key[TG_TGSP_WRAPPED_LEN];
};

struct tg_tgsp_recipients {
    struct tg_jlist recipients; /* struct tg_tgsp_recipient */
};

struct tg_tgsp_signature {
    uint8_t key_id[TG_SIGN_ID_LEN];
    uint8_t sig_classic[TG_SIG_CLASSIC_LEN];
    uint8_t sig_pqc[TG_SIG_PQC_LEN];
};

struct tg_tgsp_signatures {
    struct tg_jlist signatures; /* struct tg_tgsp_signature */
};

/* What the payload's size and chunk size say: n chunks, each full but the last, and the stored
 * length. */
struct tg_tgsp_geometry {
    uint64_t chunk_size, plain_len, chunks, stored_len;
};

/* @retval TG_E_FORMAT chunk_size not a power of two in range, more than TG_TGSP_CHUNKS_MAX chunks,
 * or over TG_TGSP_PAYLOAD_MAX */
TG_RC tg_tgsp_geometry(uint64_t chunk_size, uint64_t plain_len, struct tg_tgsp_geometry *out,
                       struct tg_err *err);
/* Chunk i (< chunks): plaintext bytes, and where its stored form begins in the payload. */
uint64_t tg_tgsp_chunk_plain(const struct tg_tgsp_geometry *g, uint64_t i);
uint64_t tg_tgsp_chunk_offset(const struct tg_tgsp_geometry *g, uint64_t i);

/* Decode one section's bytes. Besides the JSON: limits, ranges, enumerated names (unknown ones and
 * unknown `crit` paths are TG_E_UNSUPPORTED), paths, offsets, digests' length. The manifest is
 * checked against the header's payload_plain_len and chunk_size. `crit` paths into the manifest are
 * checked by tg_tgsp_manifest_decode. *out is untouched on failure. */
TG_RC tg_tgsp_header_decode(struct tg_bytes json, struct tg_arena *arena,
                            struct tg_tgsp_header *out, struct tg_err *err);
TG_RC tg_tgsp_manifest_decode(struct tg_bytes json, const struct tg_tgsp_header *header,
                              struct tg_arena *arena, struct tg_tgsp_manifest *out,
                              struct tg_err *err);
TG_RC tg_tgsp_recipients_decode(struct tg_bytes json, struct tg_arena *arena,
                                struct tg_tgsp_recipients *out, struct tg_err *err);
TG_RC tg_tgsp_signatures_decode(struct tg_bytes json, struct tg_arena *arena,
                                struct tg_tgsp_signatures *out, struct tg_err *err);

/* The file of this path; NULL: there is none. Borrowed from the manifest. */
const struct tg_tgsp_file *tg_tgsp_manifest_file(const struct tg_tgsp_manifest *m,
                                                 const char *path);

/* Encode compactly; out's max should be the section's limit. */
TG_RC tg_tgsp_header_encode(const struct tg_tgsp_header *in, struct tg_buf *out,
                            struct tg_err *err);
TG_RC tg_tgsp_manifest_encode(const struct tg_tgsp_manifest *in, struct tg_buf *out,
                              struct tg_err *err);
TG_RC tg_tgsp_recipients_encode(const struct tg_tgsp_recipients *in, struct tg_buf *out,
                                struct tg_err *err);
TG_RC tg_tgsp_signatures_encode(const struct tg_tgsp_signatures *in, struct tg_buf *out,
                                struct tg_err *err);

/* H of a header section's JSON bytes. */
TG_RC tg_tgsp_header_h(struct tg_bytes header_json, uint8_t h[TG_TGSP_H_LEN]);

#endif
