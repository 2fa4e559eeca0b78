#include "crypto/aead.h"

#include <string.h>

#include "base/mem.h"
#include "crypto/openssl_internal.h"

/* One table: what the header calls a suite, and what OpenSSL does. */
static const struct {
    const char *name, *openssl;
} suites[TG_AEAD_COUNT] = {
    [TG_AEAD_CHACHA20_POLY1305] = {"chacha20-poly1305", "ChaCha20-Poly1305"},
    [TG_AEAD_AES_256_GCM] = {"aes-256-gcm",       "AES-256-GCM"      },
};

/* Both directions set up once: a call then only changes the nonce. */
struct tg_aead_ctx {
    EVP_CIPHER_CTX *enc, *dec;
};

TG_DEFINE_AUTO(EVP_CIPHER, cipher_freep, EVP_CIPHER_free);

const char *tg_aead_name(enum tg_aead suite)
{
    return (unsigned)suite < TG_AEAD_COUNT ? suites[suite].name : "?";
}

enum tg_rc tg_aead_from_name(const char *name, enum tg_aead *out)
{
    for (size_t i = 0; i < TG_AEAD_COUNT; i++)
        if (strcmp(name, suites[i].name) == 0) {
            *out = (enum tg_aead)i;
            return TG_OK;
        }
    return TG_E_UNSUPPORTED;
}

enum tg_rc tg_aead_new(enum tg_aead suite, const uint8_t key[TG_AEAD_KEY_LEN],
                       struct tg_aead_ctx **out)
{
    TG_QUIET_OPENSSL;
    if ((unsigned)suite >= TG_AEAD_COUNT)
        return TG_E_UNSUPPORTED;
    TG_AUTO(cipher_freep) EVP_CIPHER *cipher = NULL;
    /* Twice: a look-up that fails for want of memory says that there is no such cipher. */
    for (int i = 0; !cipher && i < 2; i++)
        cipher = EVP_CIPHER_fetch(NULL, suites[suite].openssl, NULL);
    if (!cipher)
        return tg_ossl_rc(TG_E_UNSUPPORTED);
    TG_AUTO(tg_aead_freep) struct tg_aead_ctx *a = tg_calloc(1, sizeof *a);
    if (!a)
        return TG_E_NOMEM;
    a->enc = EVP_CIPHER_CTX_new();
    a->dec = EVP_CIPHER_CTX_new();
    if (!a->enc || !a->dec)
        return TG_E_NOMEM;
    if (EVP_EncryptInit_ex2(a->enc, cipher, key, NULL, NULL) != 1 ||
        EVP_DecryptInit_ex2(a->dec, cipher, key, NULL, NULL) != 1)
        return tg_ossl_rc(TG_E_INTERNAL);
    *out = tg_steal(&a);
    return TG_OK;
}

void tg_aead_free(struct tg_aead_ctx *a)
{
    if (!a)
        return;
    EVP_CIPHER_CTX_free(a->enc); /* OpenSSL cleanses the key schedule */
    EVP_CIPHER_CTX_free(a->dec);
    tg_free(a);
}

static bool start(EVP_CIPHER_CTX *c, const uint8_t nonce[TG_AEAD_NONCE_LEN], struct tg_bytes aad)
{
    int n = 0;
    return EVP_CipherInit_ex2(c, NULL, NULL, nonce, -1, NULL) == 1 &&
           (aad.n == 0 || EVP_CipherUpdate(c, NULL, &n, aad.p, (int)aad.n) == 1);
}

static bool feed(EVP_CIPHER_CTX *c, struct tg_bytes in, uint8_t *out)
{
    int n = 0;
    return in.n == 0 || (EVP_CipherUpdate(c, out, &n, in.p, (int)in.n) == 1 && (size_t)n == in.n);
}

enum tg_rc tg_aead_seal(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                        struct tg_bytes aad, struct tg_bytes plain, uint8_t *out)
{
    TG_QUIET_OPENSSL;
    if (plain.n > TG_AEAD_MAX || aad.n > TG_AEAD_MAX)
        return TG_E_LIMIT;
    uint8_t last[16];
    int n = 0;
    if (!start(a->enc, nonce, aad) || !feed(a->enc, plain, out) ||
        EVP_CipherFinal_ex(a->enc, last, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(a->enc, EVP_CTRL_AEAD_GET_TAG, TG_AEAD_TAG_LEN, out + plain.n) != 1)
        return tg_ossl_rc(TG_E_INTERNAL);
    return TG_OK;
}

enum tg_rc tg_aead_open(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                        struct tg_bytes aad, struct tg_bytes sealed, uint8_t *out)
{
    TG_QUIET_OPENSSL;
    if (sealed.n < TG_AEAD_TAG_LEN)
        return TG_E_AUTH;
    size_t n = sealed.n - TG_AEAD_TAG_LEN;
    if (n > TG_AEAD_MAX || aad.n > TG_AEAD_MAX)
        return TG_E_LIMIT;
    uint8_t tag[TG_AEAD_TAG_LEN]; /* out may lie over it */
    memcpy(tag, sealed.p + n, sizeof tag);
    enum tg_rc rc = tg_aead_open_begin(a, nonce, aad);
    if (rc == TG_OK)
        rc = tg_aead_open_part(a, tg_bytes_sub(sealed, 0, n), out);
    if (rc == TG_OK)
        rc = tg_aead_open_end(a, tag);
    if (rc != TG_OK && n)
        tg_wipe(out, n);
    return rc;
}

enum tg_rc tg_aead_open_begin(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                              struct tg_bytes aad)
{
    TG_QUIET_OPENSSL;
    if (aad.n > TG_AEAD_MAX)
        return TG_E_LIMIT;
    return start(a->dec, nonce, aad) ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_aead_open_part(struct tg_aead_ctx *a, struct tg_bytes in, uint8_t *out)
{
    TG_QUIET_OPENSSL;
    if (in.n > TG_AEAD_MAX)
        return TG_E_LIMIT;
    return feed(a->dec, in, out) ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_aead_open_end(struct tg_aead_ctx *a, const uint8_t tag[TG_AEAD_TAG_LEN])
{
    TG_QUIET_OPENSSL;
    uint8_t own[TG_AEAD_TAG_LEN], last[16]; /* libcrypto's parameter has no const */
    int n = 0;
    memcpy(own, tag, sizeof own);
    if (EVP_CIPHER_CTX_ctrl(a->dec, EVP_CTRL_AEAD_SET_TAG, TG_AEAD_TAG_LEN, own) != 1 ||
        EVP_CipherFinal_ex(a->dec, last, &n) != 1)
        return TG_E_AUTH;
    return TG_OK;
}
