/* The envelope that grants, deployments and trust stores share:
 *     { "<field>": base64url of the exact signed bytes, "signatures": [ entries as in spec §6 ] }
 * The signed message is label || 00 || key_id || SHA-256(those bytes). */
#ifndef TG_TGSP_SIGNED_DOC_INTERNAL_H
#define TG_TGSP_SIGNED_DOC_INTERNAL_H

#include "base/bytes.h"
#include "base/err.h"
#include "tgsp/format.h"
#include "tgsp/trust.h"

enum tg_doc_kind { TG_DOC_GRANT, TG_DOC_DEPLOYMENT, TG_DOC_TRUST, TG_DOC_COUNT };

struct tg_signed_doc {
    struct tg_bytes body;          /* the signed bytes, in the arena */
    uint8_t digest[TG_SHA256_LEN]; /* of body */
    struct tg_tgsp_signatures sigs;
};

/* @retval TG_E_FORMAT  @retval TG_E_LIMIT over the kind's size */
TG_RC tg_signed_doc_parse(enum tg_doc_kind kind, struct tg_bytes text, const char *name,
                          struct tg_arena *arena, struct tg_signed_doc *out, struct tg_err *err);

/* Who signs a document: the entries it has (may be NULL), and one more by each key. */
struct tg_signers {
    const struct tg_tgsp_signatures *old;
    const struct tg_sign_sk *const *keys;
    size_t n;
};

/* Append the document's text. */
TG_RC tg_signed_doc_make(enum tg_doc_kind kind, struct tg_bytes body,
                         const struct tg_signers *signers, struct tg_buf *out, struct tg_err *err);

/* The entries whose keys the store knows, all verified. */
struct tg_verified {
    struct tg_trust_key keys[TG_TGSP_SIGNERS_MAX];
    size_t n;
};

/* Unknown key ids are skipped; a known key's invalid entry is TG_E_AUTH. out->n may be 0. */
TG_RC tg_entries_verify(const struct tg_tgsp_signatures *sigs, const char *label,
                        const uint8_t digest[TG_SHA256_LEN], const struct tg_trust *trust,
                        struct tg_verified *out, struct tg_err *err);
/* The same, and at least one must be known (TG_E_AUTH). */
TG_RC tg_entries_verify_some(const struct tg_tgsp_signatures *sigs, const char *label,
                             const uint8_t digest[TG_SHA256_LEN], const struct tg_trust *trust,
                             struct tg_verified *out, struct tg_err *err);
/* The same for a document, which must then have a signer with the role (TG_E_DENIED). */
TG_RC tg_signed_doc_verify(enum tg_doc_kind kind, const struct tg_signed_doc *doc,
                           const struct tg_trust *trust, unsigned role, struct tg_err *err);

/* One entry by sk over label and digest. */
TG_RC tg_entry_sign(const struct tg_sign_sk *sk, const char *label,
                    const uint8_t digest[TG_SHA256_LEN], bool deterministic,
                    struct tg_tgsp_signature *out);

#endif
