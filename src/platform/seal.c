/* Sealed files: "TGSEAL1\n" || X25519 share || ML-KEM ciphertext || ChaCha20-Poly1305 box.
 * kek = HKDF-SHA256(ss, info = "TensorGuard platform seal 1" || 00 || name || 00 || share ||
 * ciphertext || public key), nonce zero (each kek is used once), aad = name. */
#include <string.h>

#include "base/mem.h"
#include "crypto/aead.h"
#include "crypto/hash.h"
#include "platform/keys.h"

#define MAGIC "TGSEAL1\n"
#define MAGIC_LEN (sizeof(MAGIC) - 1)
#define LABEL "TensorGuard platform seal 1"
#define SEALED_MAX 65536

static void bufp(struct tg_buf *b)
{
    tg_buf_done(b);
}

static enum tg_rc derive(const struct tg_kem_pk *pk, const char *name, const struct tg_kem_ct *ct,
                         const uint8_t ss[TG_KEM_SS_LEN], uint8_t kek[TG_AEAD_KEY_LEN])
{
    TG_AUTO(bufp) struct tg_buf info = TG_BUF_INIT(8192);

    TG_TRY(tg_buf_append(&info, LABEL, sizeof(LABEL)));
    TG_TRY(tg_buf_append(&info, name, strlen(name) + 1));
    TG_TRY(tg_buf_append(&info, ct->epk, sizeof(ct->epk)));
    TG_TRY(tg_buf_append(&info, ct->ct, sizeof(ct->ct)));
    TG_TRY(tg_buf_bytes(&info, tg_kem_pk_raw(pk)));
    return tg_hkdf_sha256(tg_bytes_make(ss, TG_KEM_SS_LEN), TG_BYTES_NONE, tg_buf_view(&info), kek,
                          TG_AEAD_KEY_LEN);
}

static const uint8_t zero_nonce[TG_AEAD_NONCE_LEN];

TG_RC tg_seal(const struct tg_kem_pk *to, const char *name, struct tg_bytes plain,
              struct tg_buf *out)
{
    struct tg_kem_ct ct;
    uint8_t ss[TG_KEM_SS_LEN], kek[TG_AEAD_KEY_LEN];
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *aead = NULL;
    uint8_t *where;

    TG_TRY(tg_kem_encap(to, NULL, &ct, ss));
    enum tg_rc rc = derive(to, name, &ct, ss, kek);
    tg_wipe(ss, sizeof(ss));
    if (rc == TG_OK)
        rc = tg_aead_new(TG_AEAD_CHACHA20_POLY1305, kek, &aead);
    tg_wipe(kek, sizeof(kek));
    TG_TRY(rc);
    TG_TRY(tg_buf_append(out, MAGIC, MAGIC_LEN));
    TG_TRY(tg_buf_append(out, ct.epk, sizeof(ct.epk)));
    TG_TRY(tg_buf_append(out, ct.ct, sizeof(ct.ct)));
    TG_TRY(tg_buf_reserve(out, plain.n + TG_AEAD_TAG_LEN, &where));
    TG_TRY(tg_aead_seal(aead, zero_nonce, tg_bytes_str(name), plain, where));
    tg_buf_grow(out, plain.n + TG_AEAD_TAG_LEN);
    return TG_OK;
}

TG_RC tg_seal_open(const struct tg_kem_sk *sk, const char *name, struct tg_bytes sealed,
                   struct tg_buf *out)
{
    struct tg_kem_ct ct;
    uint8_t ss[TG_KEM_SS_LEN], kek[TG_AEAD_KEY_LEN];
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *aead = NULL;
    struct tg_rd rd = tg_rd_init(sealed);
    struct tg_bytes magic, epk, body;
    uint8_t *where;

    if (sealed.n > SEALED_MAX || tg_rd_bytes(&rd, MAGIC_LEN, &magic) != TG_OK ||
        !tg_bytes_eq(magic, tg_bytes_str(MAGIC)) ||
        tg_rd_bytes(&rd, sizeof(ct.epk), &epk) != TG_OK ||
        tg_rd_bytes(&rd, sizeof(ct.ct), &body) != TG_OK || rd.rest.n < TG_AEAD_TAG_LEN)
        return TG_E_AUTH;
    memcpy(ct.epk, epk.p, sizeof(ct.epk));
    memcpy(ct.ct, body.p, sizeof(ct.ct));
    TG_TRY(tg_kem_decap(sk, &ct, ss));
    enum tg_rc rc = derive(tg_kem_sk_pk(sk), name, &ct, ss, kek);
    tg_wipe(ss, sizeof(ss));
    if (rc == TG_OK)
        rc = tg_aead_new(TG_AEAD_CHACHA20_POLY1305, kek, &aead);
    tg_wipe(kek, sizeof(kek));
    TG_TRY(rc);
    TG_TRY(tg_buf_reserve(out, rd.rest.n, &where));
    TG_TRY(tg_aead_open(aead, zero_nonce, tg_bytes_str(name), rd.rest, where));
    tg_buf_grow(out, rd.rest.n - TG_AEAD_TAG_LEN);
    return TG_OK;
}
