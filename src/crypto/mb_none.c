/* No libipsec-mb in this build: libcrypto hashes. */
#include "crypto/mb_internal.h"

unsigned tg_mb_lanes(enum tg_sha256_way way)
{
    (void)way;
    return 0;
}

enum tg_rc tg_mb_new(enum tg_sha256_way way, struct tg_mb **out)
{
    (void)way;
    (void)out;
    return TG_E_UNSUPPORTED;
}

void tg_mb_free(struct tg_mb *mb)
{
    (void)mb;
}

enum tg_rc tg_mb_hash(struct tg_mb *mb, const struct tg_bytes *in, size_t n, uint8_t *const out[])
{
    (void)mb;
    (void)in;
    (void)n;
    (void)out;
    return TG_E_UNSUPPORTED;
}
