#include "crypto/random.h"

#include <openssl/rand.h>

#include "base/mem.h"
#include "crypto/openssl_internal.h"

static enum tg_rc system_fill(uint8_t *out, size_t n)
{
    TG_QUIET_OPENSSL;
    return RAND_priv_bytes_ex(NULL, out, n, 0) == 1 ? TG_OK : tg_ossl_rc(TG_E_INTERNAL);
}

enum tg_rc tg_rng_fill(const struct tg_rng *rng, void *out, size_t n)
{
    if (n == 0)
        return TG_OK;
    enum tg_rc rc = rng ? rng->fill(rng->ctx, out, n) : system_fill(out, n);
    if (rc != TG_OK)
        tg_wipe(out, n);
    return rc;
}

enum tg_rc tg_random(void *out, size_t n)
{
    return tg_rng_fill(NULL, out, n);
}
