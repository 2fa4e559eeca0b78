/* The spec's constructions, one function each: what docs/spec/tgsp-1.0.md gives fixed vectors for.
 * Pure but for randomness, which is handed in. */
#ifndef TG_TGSP_CONSTRUCT_INTERNAL_H
#define TG_TGSP_CONSTRUCT_INTERNAL_H

#include "base/bytes.h"
#include "base/err.h"
#include "crypto/hash.h"
#include "crypto/kem.h"
#include "crypto/random.h"
#include "crypto/sha256_many.h"
#include "tgsp/format.h"

#define TG_LABEL_PACKAGE "TGSP-1.0 package signature"
#define TG_LABEL_GRANT "TGSP-1.0 grant"
#define TG_LABEL_DEPLOYMENT "TGSP-1.0 deployment"
#define TG_LABEL_TRUST "TGSP-1.0 trust store"

/* What is signed: label || 00 || key_id || 32-byte digest (H, or SHA-256 of a document). */
#define TG_SIGNED_MAX 96

struct tg_signed_message {
    uint8_t bytes[TG_SIGNED_MAX];
    size_t n;
};

struct tg_signed_message tg_signed_message_make(const char *label,
                                                const uint8_t key_id[TG_SIGN_ID_LEN],
                                                const uint8_t digest[TG_SHA256_LEN]);

/* Who may open a wrapped key: a package's recipient (bind = package_id) or a grant's (bind = H). */
struct tg_wrap {
    const char *label;
    struct tg_bytes bind; /* in the KDF's info and as associated data */
    enum tg_aead aead;
};

struct tg_wrap tg_wrap_recipient(const struct tg_tgsp_header *h);
struct tg_wrap tg_wrap_grant(const struct tg_tgsp_header *h, const uint8_t *header_sha256);

/* pk: the hybrid public key's TG_KEM_PK_LEN bytes. */
TG_RC tg_wrap_kek(const struct tg_wrap *w, const uint8_t ss[TG_KEM_SS_LEN],
                  const struct tg_kem_ct *ct, struct tg_bytes pk, uint8_t kek[TG_AEAD_KEY_LEN]);
/* The file key under a kek, 48 bytes. */
TG_RC tg_wrap_seal_kek(const struct tg_wrap *w, const uint8_t kek[TG_AEAD_KEY_LEN],
                       const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                       uint8_t out[TG_TGSP_WRAPPED_LEN]);
TG_RC tg_wrap_seal(const struct tg_wrap *w, const struct tg_kem_pk *pk, const struct tg_rng *rng,
                   const uint8_t file_key[TG_TGSP_FILE_KEY_LEN], struct tg_tgsp_recipient *out);
/* file_key is wiped on failure. @retval TG_E_AUTH */
TG_RC tg_wrap_open(const struct tg_wrap *w, const struct tg_kem_sk *sk,
                   const struct tg_tgsp_recipient *block, uint8_t file_key[TG_TGSP_FILE_KEY_LEN]);

TG_RC tg_payload_key(const struct tg_tgsp_header *h, const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                     uint8_t key[TG_AEAD_KEY_LEN]);
/* Uses the header's package_id, payload_salt, manifest_sha256 and recipients_sha256. */
TG_RC tg_key_commitment(const struct tg_tgsp_header *h,
                        const uint8_t file_key[TG_TGSP_FILE_KEY_LEN], uint8_t out[TG_SHA256_LEN]);

void tg_chunk_nonce(uint64_t i, bool last, uint8_t nonce[TG_AEAD_NONCE_LEN]);

/* The digest of a stored chunk (spec §4), whole or as its ciphertext comes: begin, pieces in order,
 * end. Reused from chunk to chunk; after a failure begin again. */
struct tg_chunk_hasher {
    struct tg_sha256_ctx *outer;
    struct tg_sha256_many *pieces;
};

TG_RC tg_chunk_hasher_init(struct tg_chunk_hasher *h);
void tg_chunk_hasher_done(struct tg_chunk_hasher *h);
TG_RC tg_chunk_digest_begin(struct tg_chunk_hasher *h);
/* ciphertext: a multiple of TG_TGSP_PIECE, but for the last call of a chunk. */
TG_RC tg_chunk_digest_pieces(struct tg_chunk_hasher *h, struct tg_bytes ciphertext);
TG_RC tg_chunk_digest_end(struct tg_chunk_hasher *h, const uint8_t tag[TG_AEAD_TAG_LEN],
                          uint8_t out[TG_SHA256_LEN]);
/* All at once. sealed: ciphertext || tag, at least a tag. */
TG_RC tg_chunk_digest(struct tg_chunk_hasher *h, struct tg_bytes sealed,
                      uint8_t out[TG_SHA256_LEN]);

#endif
