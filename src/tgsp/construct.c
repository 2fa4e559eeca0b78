#include "tgsp/construct_internal.h"

#include <string.h>

#include "base/mem.h"

struct tg_signed_message tg_signed_message_make(const char *label,
                                                const uint8_t key_id[TG_SIGN_ID_LEN],
                                                const uint8_t digest[TG_SHA256_LEN])
{
    struct tg_signed_message m = {.n = strlen(label) + 1}; /* the label's NUL is the 00 */
    memcpy(m.bytes, label, m.n);
    memcpy(m.bytes + m.n, key_id, TG_SIGN_ID_LEN);
    m.n += TG_SIGN_ID_LEN;
    memcpy(m.bytes + m.n, digest, TG_SHA256_LEN);
    m.n += TG_SHA256_LEN;
    return m;
}

struct tg_wrap tg_wrap_recipient(const struct tg_tgsp_header *h)
{
    return (struct tg_wrap){"TGSP-1.0 recipient", TG_BYTES_OF(h->package_id), h->aead};
}

struct tg_wrap tg_wrap_grant(const struct tg_tgsp_header *h, const uint8_t *header_sha256)
{
    return (struct tg_wrap){"TGSP-1.0 grant recipient", tg_bytes_make(header_sha256, TG_TGSP_H_LEN),
                            h->aead};
}

enum tg_rc tg_wrap_kek(const struct tg_wrap *w, const uint8_t ss[TG_KEM_SS_LEN],
                       const struct tg_kem_ct *ct, struct tg_bytes pk, uint8_t kek[TG_AEAD_KEY_LEN])
{
    TG_AUTO(tg_buf_done) struct tg_buf info = TG_BUF_INIT(4096);
    TG_TRY(tg_buf_str(&info, w->label));
    TG_TRY(tg_buf_bytes(&info, w->bind));
    TG_TRY(tg_buf_bytes(&info, TG_BYTES_OF(ct->epk)));
    TG_TRY(tg_buf_bytes(&info, TG_BYTES_OF(ct->ct)));
    TG_TRY(tg_buf_bytes(&info, pk));
    return tg_hkdf_sha256(tg_bytes_make(ss, TG_KEM_SS_LEN), TG_BYTES_NONE, tg_buf_view(&info), kek,
                          TG_AEAD_KEY_LEN);
}

/* The nonce of a key that is used once. */
static const uint8_t nonce_zero[TG_AEAD_NONCE_LEN];

enum tg_rc tg_wrap_seal_kek(const struct tg_wrap *w, const uint8_t kek[TG_AEAD_KEY_LEN],
                            const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                            uint8_t out[TG_TGSP_WRAPPED_LEN])
{
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = NULL;
    TG_TRY(tg_aead_new(w->aead, kek, &a));
    return tg_aead_seal(a, nonce_zero, w->bind, tg_bytes_make(file_key, TG_TGSP_FILE_KEY_LEN), out);
}

enum tg_rc tg_wrap_seal(const struct tg_wrap *w, const struct tg_kem_pk *pk,
                        const struct tg_rng *rng, const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                        struct tg_tgsp_recipient *out)
{
    struct tg_kem_ct ct;
    struct tg_tgsp_recipient made;
    uint8_t ss[TG_KEM_SS_LEN], kek[TG_AEAD_KEY_LEN];
    enum tg_rc rc = tg_kem_encap(pk, rng, &ct, ss);
    if (rc == TG_OK)
        rc = tg_wrap_kek(w, ss, &ct, tg_kem_pk_raw(pk), kek);
    if (rc == TG_OK)
        rc = tg_wrap_seal_kek(w, kek, file_key, made.wrapped_key);
    tg_wipe(ss, sizeof ss);
    tg_wipe(kek, sizeof kek);
    if (rc != TG_OK)
        return rc;
    memcpy(made.id, tg_kem_pk_id(pk), sizeof made.id);
    memcpy(made.x25519_epk, ct.epk, sizeof made.x25519_epk);
    memcpy(made.mlkem768_ct, ct.ct, sizeof made.mlkem768_ct);
    *out = made;
    return TG_OK;
}

static enum tg_rc open_once(const struct tg_wrap *w, const uint8_t kek[TG_AEAD_KEY_LEN],
                            const struct tg_tgsp_recipient *block, uint8_t *file_key)
{
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = NULL;
    TG_TRY(tg_aead_new(w->aead, kek, &a));
    return tg_aead_open(a, nonce_zero, w->bind, TG_BYTES_OF(block->wrapped_key), file_key);
}

enum tg_rc tg_wrap_open(const struct tg_wrap *w, const struct tg_kem_sk *sk,
                        const struct tg_tgsp_recipient *block,
                        uint8_t file_key[TG_TGSP_FILE_KEY_LEN])
{
    struct tg_kem_ct ct;
    uint8_t ss[TG_KEM_SS_LEN], kek[TG_AEAD_KEY_LEN];
    memcpy(ct.epk, block->x25519_epk, sizeof ct.epk);
    memcpy(ct.ct, block->mlkem768_ct, sizeof ct.ct);
    enum tg_rc rc = tg_kem_decap(sk, &ct, ss);
    if (rc == TG_OK)
        rc = tg_wrap_kek(w, ss, &ct, tg_kem_pk_raw(tg_kem_sk_pk(sk)), kek);
    if (rc == TG_OK)
        rc = open_once(w, kek, block, file_key);
    tg_wipe(ss, sizeof ss);
    tg_wipe(kek, sizeof kek);
    if (rc != TG_OK)
        tg_wipe(file_key, TG_TGSP_FILE_KEY_LEN);
    return rc;
}

enum tg_rc tg_payload_key(const struct tg_tgsp_header *h,
                          const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                          uint8_t key[TG_AEAD_KEY_LEN])
{
    TG_AUTO(tg_buf_done) struct tg_buf info = TG_BUF_INIT(128);
    TG_TRY(tg_buf_str(&info, "TGSP-1.0 payload"));
    TG_TRY(tg_buf_bytes(&info, TG_BYTES_OF(h->package_id)));
    TG_TRY(tg_buf_str(&info, tg_aead_name(h->aead)));
    return tg_hkdf_sha256(tg_bytes_make(file_key, TG_TGSP_FILE_KEY_LEN),
                          TG_BYTES_OF(h->payload_salt), tg_buf_view(&info), key, TG_AEAD_KEY_LEN);
}

enum tg_rc tg_key_commitment(const struct tg_tgsp_header *h,
                             const uint8_t file_key[TG_TGSP_FILE_KEY_LEN],
                             uint8_t out[TG_SHA256_LEN])
{
    uint8_t key[TG_SHA256_LEN], data[TG_TGSP_PACKAGE_ID_LEN + 2 * TG_SHA256_LEN];
    memcpy(data, h->package_id, TG_TGSP_PACKAGE_ID_LEN);
    memcpy(data + TG_TGSP_PACKAGE_ID_LEN, h->manifest_sha256, TG_SHA256_LEN);
    memcpy(data + TG_TGSP_PACKAGE_ID_LEN + TG_SHA256_LEN, h->recipients_sha256, TG_SHA256_LEN);
    enum tg_rc rc =
        tg_hkdf_sha256(tg_bytes_make(file_key, TG_TGSP_FILE_KEY_LEN), TG_BYTES_OF(h->payload_salt),
                       tg_bytes_str("TGSP-1.0 commitment"), key, sizeof key);
    if (rc == TG_OK)
        rc = tg_hmac_sha256(TG_BYTES_OF(key), TG_BYTES_OF(data), out);
    tg_wipe(key, sizeof key);
    return rc;
}

void tg_chunk_nonce(uint64_t i, bool last, uint8_t nonce[TG_AEAD_NONCE_LEN])
{
    memset(nonce, 0, TG_AEAD_NONCE_LEN);
    tg_put_be64(nonce + 3, i);
    nonce[11] = last ? 1 : 0;
}

enum tg_rc tg_chunk_hasher_init(struct tg_chunk_hasher *h)
{
    TG_TRY(tg_sha256_new(&h->outer));
    return tg_sha256_many_new(TG_SHA256_ANY, &h->pieces);
}

void tg_chunk_hasher_done(struct tg_chunk_hasher *h)
{
    tg_sha256_free(h->outer);
    tg_sha256_many_free(h->pieces);
    h->outer = NULL;
    h->pieces = NULL;
}

enum tg_rc tg_chunk_digest_begin(struct tg_chunk_hasher *h)
{
    TG_TRY(tg_sha256_restart(h->outer));
    return tg_sha256_update(h->outer, tg_bytes_str("TGSP-1.0 chunk"));
}

/* Pieces hashed side by side: a round of these is the widest there is. */
#define ROUND 32

enum tg_rc tg_chunk_digest_pieces(struct tg_chunk_hasher *h, struct tg_bytes ciphertext)
{
    struct tg_bytes piece[ROUND];
    uint8_t md[ROUND][TG_SHA256_LEN];
    while (ciphertext.n > 0) {
        size_t n = 0, off = 0;
        for (; n < ROUND && off < ciphertext.n; n++) {
            size_t left = ciphertext.n - off;
            piece[n] = tg_bytes_sub(ciphertext, off, left < TG_TGSP_PIECE ? left : TG_TGSP_PIECE);
            off += piece[n].n;
        }
        TG_TRY(tg_sha256_many(h->pieces, piece, n, md));
        TG_TRY(tg_sha256_update(h->outer, tg_bytes_make(md[0], n * TG_SHA256_LEN)));
        ciphertext = tg_bytes_sub(ciphertext, off, ciphertext.n - off);
    }
    return TG_OK;
}

enum tg_rc tg_chunk_digest_end(struct tg_chunk_hasher *h, const uint8_t tag[TG_AEAD_TAG_LEN],
                               uint8_t out[TG_SHA256_LEN])
{
    TG_TRY(tg_sha256_update(h->outer, tg_bytes_make(tag, TG_AEAD_TAG_LEN)));
    return tg_sha256_final(h->outer, out);
}

enum tg_rc tg_chunk_digest(struct tg_chunk_hasher *h, struct tg_bytes sealed,
                           uint8_t out[TG_SHA256_LEN])
{
    if (sealed.n < TG_AEAD_TAG_LEN)
        return TG_E_FORMAT;
    size_t n = sealed.n - TG_AEAD_TAG_LEN;
    TG_TRY(tg_chunk_digest_begin(h));
    TG_TRY(tg_chunk_digest_pieces(h, tg_bytes_sub(sealed, 0, n)));
    return tg_chunk_digest_end(h, sealed.p + n, out);
}
