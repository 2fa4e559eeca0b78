/* AEAD suites of the container: ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (SP 800-38D).
 * 32-byte keys, 12-byte nonces, 16-byte tags after the ciphertext. */
#ifndef TG_CRYPTO_AEAD_H
#define TG_CRYPTO_AEAD_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum tg_aead { TG_AEAD_CHACHA20_POLY1305, TG_AEAD_AES_256_GCM, TG_AEAD_COUNT };

#define TG_AEAD_KEY_LEN 32
#define TG_AEAD_NONCE_LEN 12
#define TG_AEAD_TAG_LEN 16
/* Largest plaintext or aad of one call. */
#define TG_AEAD_MAX (UINT32_C(1) << 30)

/* "chacha20-poly1305", "aes-256-gcm": the header's names. */
const char *tg_aead_name(enum tg_aead suite);
/* @retval TG_E_UNSUPPORTED no suite has this name */
TG_RC tg_aead_from_name(const char *name, enum tg_aead *out);

/* A key with its cipher set up once, for any number of calls by one thread at a time. The key is
 * wiped by _free. */
struct tg_aead_ctx;
TG_RC tg_aead_new(enum tg_aead suite, const uint8_t key[TG_AEAD_KEY_LEN], struct tg_aead_ctx **out);
void tg_aead_free(struct tg_aead_ctx *a);
TG_DEFINE_AUTO(struct tg_aead_ctx, tg_aead_freep, tg_aead_free);

/* out receives plain.n + TG_AEAD_TAG_LEN bytes; it may be plain.p itself, not overlap otherwise.
 * Never use a nonce twice under one key. @retval TG_E_LIMIT over TG_AEAD_MAX */
TG_RC tg_aead_seal(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                   struct tg_bytes aad, struct tg_bytes plain, uint8_t *out);

/* out receives sealed.n - TG_AEAD_TAG_LEN bytes, decrypted where they will stay; it may be sealed.p
 * itself. When the tag does not match, those bytes are wiped before the call returns.
 * @retval TG_E_AUTH the tag does not match, or sealed is shorter than a tag  @retval TG_E_LIMIT */
TG_RC tg_aead_open(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                   struct tg_bytes aad, struct tg_bytes sealed, uint8_t *out);

/* The same for ciphertext that comes in parts: begin, parts in order, end. What the parts put out
 * is nothing until _end has said TG_OK; when any of them fails, the caller wipes it. Begin again
 * after a failure.
 * @retval TG_E_AUTH (_end) the tag does not match  @retval TG_E_LIMIT  @retval TG_E_INTERNAL */
TG_RC tg_aead_open_begin(struct tg_aead_ctx *a, const uint8_t nonce[TG_AEAD_NONCE_LEN],
                         struct tg_bytes aad);
TG_RC tg_aead_open_part(struct tg_aead_ctx *a, struct tg_bytes in, uint8_t *out);
TG_RC tg_aead_open_end(struct tg_aead_ctx *a, const uint8_t tag[TG_AEAD_TAG_LEN]);

#endif
