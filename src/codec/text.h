/* base64url, hex and PEM, whose decoders accept exactly one form of each value; and text from
 * outside on its way to a terminal. */
#ifndef TG_CODEC_TEXT_H
#define TG_CODEC_TEXT_H

#include "base/bytes.h"
#include "base/err.h"

/* Unpadded base64url (RFC 4648 §5). Runs in time independent of the bytes' values. */
size_t tg_b64url_len(size_t n); /* characters for n bytes */
TG_RC tg_b64url_encode(struct tg_bytes in, struct tg_buf *out);
/* Canonical only: no padding, no white space, unused bits zero.
 * @retval TG_E_FORMAT  @retval TG_E_LIMIT over cap. *n: bytes written to out */
TG_RC tg_b64url_decode(struct tg_bytes in, uint8_t *out, size_t cap, size_t *n);

/* Lower case. out has 2 * in.n + 1 bytes. */
void tg_hex_encode(struct tg_bytes in, char *out);
/* Exactly n bytes of lower-case hex. @retval TG_E_FORMAT */
TG_RC tg_hex_decode(struct tg_bytes in, uint8_t *out, size_t n);

/* Walk PEM blocks (RFC 7468). Text outside blocks must be white space. On success *label and *block
 * (from its BEGIN line to its END line) are views of `in`, and *in moves past the block.
 * @retval TG_E_NOTFOUND only white space is left   @retval TG_E_FORMAT */
TG_RC tg_pem_next(struct tg_bytes *in, struct tg_bytes *label, struct tg_bytes *block);

/* Append s with everything escaped that could steer a terminal: C0, DEL, C1 and direction controls,
 * and what is not UTF-8. */
TG_RC tg_text_escape(struct tg_buf *b, struct tg_bytes s);

#endif
