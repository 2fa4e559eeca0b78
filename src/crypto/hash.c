#include "crypto/hash.h"

#include <openssl/core_names.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "base/mem.h"
#include "crypto/openssl_internal.h"

struct tg_sha256_ctx {
    EVP_MD_CTX *md;
};

TG_DEFINE_AUTO(EVP_KDF, kdf_freep, EVP_KDF_free);
TG_DEFINE_AUTO(EVP_KDF_CTX, kdf_ctx_freep, EVP_KDF_CTX_free);

enum tg_rc tg_sha256(struct tg_bytes in, uint8_t out[TG_SHA256_LEN])
{
    TG_QUIET_OPENSSL;
    uint8_t md[TG_SHA256_LEN];
    if (EVP_Digest(in.n ? in.p : md, in.n, md, NULL, EVP_sha256(), NULL) != 1)
        return tg_ossl_rc(TG_E_INTERNAL);
    for (size_t i = 0; i < sizeof md; i++)
        out[i] = md[i];
    tg_wipe(md, sizeof md); /* hashes of secrets pass here */
    return TG_OK;
}

enum tg_rc tg_sha256_new(struct tg_sha256_ctx **out)
{
    TG_QUIET_OPENSSL;
    struct tg_sha256_ctx *h = tg_calloc(1, sizeof *h);
    if (!h)
        return TG_E_NOMEM;
    h->md = EVP_MD_CTX_new();
    if (!h->md || EVP_DigestInit_ex2(h->md, EVP_sha256(), NULL) != 1) {
        tg_sha256_free(h);
        return TG_E_NOMEM;
    }
    *out = h;
    return TG_OK;
}

enum tg_rc tg_sha256_update(struct tg_sha256_ctx *h, struct tg_bytes in)
{
    if (in.n == 0)
        return TG_OK;
    return EVP_DigestUpdate(h->md, in.p, in.n) == 1 ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_sha256_final(struct tg_sha256_ctx *h, uint8_t out[TG_SHA256_LEN])
{
    TG_QUIET_OPENSSL;
    bool ok = EVP_DigestFinal_ex(h->md, out, NULL) == 1;
    return tg_sha256_restart(h) == TG_OK && ok ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_sha256_restart(struct tg_sha256_ctx *h)
{
    TG_QUIET_OPENSSL;
    /* With the same algorithm, without looking it up again. */
    return EVP_DigestInit_ex2(h->md, NULL, NULL) == 1 ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

void tg_sha256_free(struct tg_sha256_ctx *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->md);
    tg_free(h);
}

enum tg_rc tg_hmac_sha256(struct tg_bytes key, struct tg_bytes data, uint8_t out[TG_SHA256_LEN])
{
    TG_QUIET_OPENSSL;
    if (key.n > INT32_MAX)
        return TG_E_LIMIT;
    static const uint8_t none;
    const uint8_t *got = HMAC(EVP_sha256(), key.n ? key.p : &none, (int)key.n,
                              data.n ? data.p : &none, data.n, out, NULL);
    return got ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_hkdf_sha256(struct tg_bytes ikm, struct tg_bytes salt, struct tg_bytes info,
                          uint8_t *out, size_t n)
{
    TG_QUIET_OPENSSL;
    if (n == 0 || n > TG_HKDF_MAX)
        return TG_E_LIMIT;
    TG_AUTO(kdf_freep) EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    TG_AUTO(kdf_ctx_freep) EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    if (!ctx)
        return TG_E_NOMEM;
    /* OSSL_PARAM has no const; these are only read. */
    OSSL_PARAM params[5], *p = params;
    char digest[] = "SHA256";
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)ikm.p, ikm.n);
    if (salt.n)
        *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt.p,
                                                 salt.n);
    if (info.n)
        *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info.p,
                                                 info.n);
    *p = OSSL_PARAM_construct_end();
    if (EVP_KDF_derive(ctx, out, n, params) != 1) {
        tg_wipe(out, n);
        return tg_ossl_rc(TG_E_INTERNAL);
    }
    return TG_OK;
}
