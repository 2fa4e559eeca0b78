/* A bake on disk, sealed: encrypted under a key that only this device's KEM key gives, and only for
 * this package, this ONNX Runtime, this processor and this program. Anything else is refused, and
 * the model is baked anew.
 *
 *     "TGBAKE1" 00 || suite (1) || 00 00 00 || context (32) || salt (32) || image (8) || keep (8)
 *     then the image in chunks of 1 MiB, each followed by its tag
 *
 * Big-endian. context = SHA-256 of what the bake depends on (tg_bake_key_make). The key of the
 * chunks is HKDF-SHA256(device's key, salt, "TGSP-1.0 bake chunks" || context); the nonce of chunk
 * i is (0, or 1 for the last) as 4 bytes || i as 8 bytes; the associated data is all before the
 * first chunk. So chunks can't be changed, cut, swapped, or moved between bakes. */
#ifndef TG_MOAI_BAKE_SEAL_H
#define TG_MOAI_BAKE_SEAL_H

#include "crypto/kem.h"
#include "moai/bake.h"

#define TG_BAKE_HEAD 92
#define TG_BAKE_CHUNK ((size_t)1 << 20)

struct tg_bake_key {
    uint8_t device[32];  /* secret */
    uint8_t context[32]; /* what the bake depends on; no secret */
};

/* h: the package's identity. file: the path of the model in it.
 * @retval TG_E_UNSUPPORTED the KEM key can't give another key */
TG_RC tg_bake_key_make(const struct tg_kem_sk *sk, const uint8_t h[32], const char *file,
                       struct tg_bake_key *out, struct tg_err *err);

/* Write to an open, empty file. */
TG_RC tg_bake_seal(const struct tg_bake *b, const struct tg_bake_key *key, int fd,
                   struct tg_err *err);
/* Read and decrypt straight into the image.
 * @retval TG_E_NOTFOUND the file is empty
 * @retval TG_E_STATE    made for another package, ONNX Runtime, processor or program
 * @retval TG_E_FORMAT   no bake, or cut  @retval TG_E_AUTH changed, or of another device
 * @retval TG_E_LIMIT    larger than any bake */
TG_RC tg_bake_unseal(int fd, const struct tg_bake_key *key, unsigned threads, struct tg_bake *out,
                     struct tg_err *err);

#endif
