/* A JSON tokenizer over bounded text (RFC 8259): each call takes one thing from the front. Nothing
 * is allocated. Offsets are for error texts. */
#ifndef TG_TENSOR_SCAN_H
#define TG_TENSOR_SCAN_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"

struct tg_scan {
    struct tg_bytes in;
    size_t i; /* next byte to be read, after white space once tg_scan_peek was called */
};

/* Skip white space and look at the next byte; -1 at the end. */
int tg_scan_peek(struct tg_scan *s);
/* Take one structural character if it comes next. */
bool tg_scan_take(struct tg_scan *s, char c);
/* Take a literal such as "true". */
bool tg_scan_word(struct tg_scan *s, const char *word);
/* Take a string; raw is what stands between the quotes, already checked (UTF-8, escapes, no U+0000,
 * no lone surrogates). @retval TG_E_FORMAT */
TG_RC tg_scan_string(struct tg_scan *s, struct tg_bytes *raw);
/* Unescape what tg_scan_string gave; out has at least raw.n bytes. Returns the length. */
size_t tg_scan_unescape(struct tg_bytes raw, uint8_t *out);
/* Take a string into out (cap includes the NUL). @retval TG_E_LIMIT longer  @retval TG_E_FORMAT */
TG_RC tg_scan_text(struct tg_scan *s, char *out, size_t cap);
/* Take any one value. @retval TG_E_FORMAT  @retval TG_E_LIMIT nested deeper than depth_max (<= 64)
 */
TG_RC tg_scan_skip(struct tg_scan *s, unsigned depth_max);

#endif
