/* Views, buffers and bounded readers: the only place where pointers are moved by hand. */
#ifndef TG_BASE_BYTES_H
#define TG_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A borrowed view. Valid as long as what it looks at. */
struct tg_bytes {
    const uint8_t *p;
    size_t n;
};

#define TG_BYTES_NONE ((struct tg_bytes){NULL, 0})
#define TG_BYTES_OF(arr) ((struct tg_bytes){(const uint8_t *)(arr), sizeof(arr)})

struct tg_bytes tg_bytes_make(const void *p, size_t n);
struct tg_bytes tg_bytes_str(const char *s);                           /* without the NUL */
struct tg_bytes tg_bytes_sub(struct tg_bytes b, size_t off, size_t n); /* clamped to b */
bool tg_bytes_eq(struct tg_bytes a, struct tg_bytes b); /* not constant-time: public data */
/* Below 0, 0, above 0: a is before b, the same, after it; byte by byte, then the shorter first. */
int tg_bytes_cmp(struct tg_bytes a, struct tg_bytes b);
/* n bytes at a and at b are the same; n may be 0. Not constant-time: public data. */
bool tg_mem_eq(const void *a, const void *b, size_t n);

/* An owned, growing buffer with a maximum. Freed (and wiped, if made with TG_BUF_SECRET) by
 * tg_buf_done. data[n] is always followed by a NUL after a successful append, so text can be used
 * as a string; the NUL is not counted. */
struct tg_buf {
    uint8_t *data;
    size_t n;
    size_t cap;
    size_t max;
    bool secret;
};

#define TG_BUF_INIT(maximum) ((struct tg_buf){.max = (maximum)})
#define TG_BUF_SECRET(maximum) ((struct tg_buf){.max = (maximum), .secret = true})

/* @retval TG_E_NOMEM   @retval TG_E_LIMIT would pass max. The buffer is unchanged on failure. */
TG_RC tg_buf_append(struct tg_buf *b, const void *p, size_t n);
TG_RC tg_buf_bytes(struct tg_buf *b, struct tg_bytes v);
TG_RC tg_buf_str(struct tg_buf *b, const char *s);
TG_RC tg_buf_u8(struct tg_buf *b, uint8_t v);
TG_RC tg_buf_be32(struct tg_buf *b, uint32_t v);
TG_RC tg_buf_be64(struct tg_buf *b, uint64_t v);
TG_RC tg_buf_printf(struct tg_buf *b, const char *fmt, ...) TG_PRINTF(2, 3);
/* Make room for n more bytes and return where they go; commit with tg_buf_grow. */
TG_RC tg_buf_reserve(struct tg_buf *b, size_t n, uint8_t **where);
void tg_buf_grow(struct tg_buf *b, size_t n);
struct tg_bytes tg_buf_view(const struct tg_buf *b);
const char *tg_buf_cstr(const struct tg_buf *b); /* "" when empty */
void tg_buf_clear(struct tg_buf *b);             /* n = 0; wipes when secret */
void tg_buf_done(struct tg_buf *b);
/* Give the memory to the caller (tg_free); the buffer is empty afterwards. */
uint8_t *tg_buf_take(struct tg_buf *b, size_t *n);

/* A bounded reader over a view. A failed read moves nothing. */
struct tg_rd {
    struct tg_bytes rest;
    size_t off; /* how far from the start, for error texts */
};

struct tg_rd tg_rd_init(struct tg_bytes b);
/* @retval TG_E_FORMAT fewer bytes are left */
TG_RC tg_rd_bytes(struct tg_rd *r, size_t n, struct tg_bytes *out);
TG_RC tg_rd_u8(struct tg_rd *r, uint8_t *out);
TG_RC tg_rd_be32(struct tg_rd *r, uint32_t *out);
TG_RC tg_rd_be64(struct tg_rd *r, uint64_t *out);

void tg_put_be32(uint8_t out[4], uint32_t v);
void tg_put_be64(uint8_t out[8], uint64_t v);
uint32_t tg_get_be32(const uint8_t in[4]);
uint64_t tg_get_be64(const uint8_t in[8]);

/* Checked arithmetic: false on overflow, *out untouched. */
bool tg_add_u64(uint64_t a, uint64_t b, uint64_t *out);
bool tg_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool tg_add_size(size_t a, size_t b, size_t *out);
bool tg_mul_size(size_t a, size_t b, size_t *out);

/* Strict UTF-8 (no overlong forms, surrogates, or > U+10FFFF). */
bool tg_utf8_ok(struct tg_bytes b);

/* Decimal text to number: digits only, no sign, no leading zeros (but "0"), at most max. */
TG_RC tg_parse_u64(const char *s, uint64_t max, uint64_t *out);

#endif
