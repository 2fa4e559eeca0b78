/* What both kinds of key pair need. */
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/hash.h"
#include "crypto/openssl_internal.h"

#define MLKEM_Q 3329
#define MLKEM_T 1152 /* bytes of the coefficients; a seed follows them */

EVP_PKEY *tg_evp_from_seed(const char *type, const uint8_t *seed, size_t n)
{
    EVP_PKEY *key = NULL;
    TG_AUTO(tg_evp_pkey_ctx_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!ctx)
        return NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_ML_KEM_SEED, (void *)(uintptr_t)seed, n),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_PKEY_keygen_init(ctx) != 1 || EVP_PKEY_CTX_set_params(ctx, params) != 1 ||
        EVP_PKEY_generate(ctx, &key) != 1)
        return NULL;
    return key;
}

/* FIPS 203 §7.2, the modulus check: every 12-bit coefficient is below q. OpenSSL makes it, and does
 * not say whether it was this that failed. */
static bool mlkem_coefficients_ok(const uint8_t *t, size_t n)
{
    for (size_t i = 0; i + 2 < n; i += 3) {
        unsigned a = t[i] | (t[i + 1] & 0xfU) << 8, b = t[i + 1] >> 4 | (unsigned)t[i + 2] << 4;
        if (a >= MLKEM_Q || b >= MLKEM_Q)
            return false;
    }
    return true;
}

enum tg_rc tg_evp_public(const char *type, struct tg_bytes raw, EVP_PKEY **out)
{
    *out = EVP_PKEY_new_raw_public_key_ex(NULL, type, NULL, raw.p, raw.n);
    if (*out)
        return TG_OK;
    bool ok = strcmp(type, "ML-KEM-768") != 0 ||
              (raw.n == TG_KEM_MLKEM_PK_LEN && mlkem_coefficients_ok(raw.p, MLKEM_T));
    return tg_ossl_rc(ok ? TG_E_INTERNAL : TG_E_FORMAT);
}

enum tg_rc tg_evp_raw_public(const EVP_PKEY *key, uint8_t *out, size_t n)
{
    size_t got = n;
    if (EVP_PKEY_get_raw_public_key(key, out, &got) != 1 || got != n)
        return tg_ossl_rc(TG_E_INTERNAL);
    return TG_OK;
}

enum tg_rc tg_key_id(const char *label, struct tg_bytes raw, uint8_t out[16])
{
    uint8_t md[TG_SHA256_LEN];
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *h = NULL;
    TG_TRY(tg_sha256_new(&h));
    TG_TRY(tg_sha256_update(h, tg_bytes_str(label)));
    TG_TRY(tg_sha256_update(h, raw));
    TG_TRY(tg_sha256_final(h, md));
    memcpy(out, md, 16);
    return TG_OK;
}
