#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct tg_bytes tg_bytes_make(const void *p, size_t n)
{
    return (struct tg_bytes){p, n};
}

struct tg_bytes tg_bytes_str(const char *s)
{
    return (struct tg_bytes){(const uint8_t *)s, strlen(s)};
}

struct tg_bytes tg_bytes_sub(struct tg_bytes b, size_t off, size_t n)
{
    if (off > b.n)
        off = b.n;
    if (n > b.n - off)
        n = b.n - off;
    return (struct tg_bytes){b.p == NULL ? NULL : b.p + off, n};
}

int tg_bytes_cmp(struct tg_bytes a, struct tg_bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int d = n > 0 ? memcmp(a.p, b.p, n) : 0;

    if (d != 0 || a.n == b.n)
        return d;
    return a.n < b.n ? -1 : 1;
}

bool tg_mem_eq(const void *a, const void *b, size_t n)
{
    return n == 0 || memcmp(a, b, n) == 0;
}

bool tg_bytes_eq(struct tg_bytes a, struct tg_bytes b)
{
    return a.n == b.n && tg_mem_eq(a.p, b.p, a.n);
}

/* ---- buffer ---- */

/* Make room for `extra` bytes and the closing NUL. A secret buffer moves by copy and wipe, so no
 * old copy stays behind. */
static enum tg_rc grow(struct tg_buf *b, size_t extra)
{
    size_t need, cap;
    uint8_t *data;

    if (!tg_add_size(b->n, extra, &need) || need > b->max || need == SIZE_MAX)
        return TG_E_LIMIT;
    need++;
    if (need <= b->cap)
        return TG_OK;
    cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap - 1 > b->max)
        cap = b->max + 1;
    if (b->secret) {
        data = tg_alloc(cap);
        if (data == NULL)
            return TG_E_NOMEM;
        if (b->n != 0)
            memcpy(data, b->data, b->n);
        tg_wipe(b->data, b->cap);
        tg_free(b->data);
    } else {
        data = tg_realloc(b->data, cap);
        if (data == NULL)
            return TG_E_NOMEM;
    }
    b->data = data;
    b->cap = cap;
    return TG_OK;
}

enum tg_rc tg_buf_reserve(struct tg_buf *b, size_t n, uint8_t **where)
{
    TG_TRY(grow(b, n));
    b->data[b->n] = '\0';
    *where = b->data + b->n;
    return TG_OK;
}

void tg_buf_grow(struct tg_buf *b, size_t n)
{
    b->n += n;
    b->data[b->n] = '\0';
}

enum tg_rc tg_buf_append(struct tg_buf *b, const void *p, size_t n)
{
    TG_TRY(grow(b, n));
    if (n != 0)
        memcpy(b->data + b->n, p, n);
    b->n += n;
    b->data[b->n] = '\0';
    return TG_OK;
}

enum tg_rc tg_buf_bytes(struct tg_buf *b, struct tg_bytes v)
{
    return tg_buf_append(b, v.p, v.n);
}

enum tg_rc tg_buf_str(struct tg_buf *b, const char *s)
{
    return tg_buf_append(b, s, strlen(s));
}

enum tg_rc tg_buf_u8(struct tg_buf *b, uint8_t v)
{
    return tg_buf_append(b, &v, 1);
}

enum tg_rc tg_buf_be32(struct tg_buf *b, uint32_t v)
{
    uint8_t raw[4];

    tg_put_be32(raw, v);
    return tg_buf_append(b, raw, sizeof(raw));
}

enum tg_rc tg_buf_be64(struct tg_buf *b, uint64_t v)
{
    uint8_t raw[8];

    tg_put_be64(raw, v);
    return tg_buf_append(b, raw, sizeof(raw));
}

enum tg_rc tg_buf_printf(struct tg_buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return TG_E_INTERNAL;
    TG_TRY(grow(b, (size_t)n));
    va_start(ap, fmt);
    (void)vsnprintf((char *)b->data + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
    return TG_OK;
}

struct tg_bytes tg_buf_view(const struct tg_buf *b)
{
    return (struct tg_bytes){b->data, b->n};
}

const char *tg_buf_cstr(const struct tg_buf *b)
{
    return b->data != NULL ? (const char *)b->data : "";
}

void tg_buf_clear(struct tg_buf *b)
{
    if (b->secret)
        tg_wipe(b->data, b->cap);
    b->n = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

void tg_buf_done(struct tg_buf *b)
{
    if (b->secret)
        tg_wipe(b->data, b->cap);
    tg_free(b->data);
    b->data = NULL;
    b->n = b->cap = 0;
}

uint8_t *tg_buf_take(struct tg_buf *b, size_t *n)
{
    uint8_t *data = b->data;

    *n = b->n;
    b->data = NULL;
    b->n = b->cap = 0;
    return data;
}

/* ---- reader ---- */

struct tg_rd tg_rd_init(struct tg_bytes b)
{
    return (struct tg_rd){.rest = b, .off = 0};
}

enum tg_rc tg_rd_bytes(struct tg_rd *r, size_t n, struct tg_bytes *out)
{
    if (n > r->rest.n)
        return TG_E_FORMAT;
    *out = (struct tg_bytes){r->rest.p, n};
    r->rest = tg_bytes_sub(r->rest, n, SIZE_MAX);
    r->off += n;
    return TG_OK;
}

enum tg_rc tg_rd_u8(struct tg_rd *r, uint8_t *out)
{
    struct tg_bytes b;

    TG_TRY(tg_rd_bytes(r, 1, &b));
    *out = b.p[0];
    return TG_OK;
}

enum tg_rc tg_rd_be32(struct tg_rd *r, uint32_t *out)
{
    struct tg_bytes b;

    TG_TRY(tg_rd_bytes(r, 4, &b));
    *out = tg_get_be32(b.p);
    return TG_OK;
}

enum tg_rc tg_rd_be64(struct tg_rd *r, uint64_t *out)
{
    struct tg_bytes b;

    TG_TRY(tg_rd_bytes(r, 8, &b));
    *out = tg_get_be64(b.p);
    return TG_OK;
}

/* ---- numbers ---- */

void tg_put_be32(uint8_t out[4], uint32_t v)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> (24 - 8 * i));
}

void tg_put_be64(uint8_t out[8], uint64_t v)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(v >> (56 - 8 * i));
}

uint32_t tg_get_be32(const uint8_t in[4])
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++)
        v = (v << 8) | in[i];
    return v;
}

uint64_t tg_get_be64(const uint8_t in[8])
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = (v << 8) | in[i];
    return v;
}

bool tg_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

bool tg_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

bool tg_add_size(size_t a, size_t b, size_t *out)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

bool tg_mul_size(size_t a, size_t b, size_t *out)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

/* ---- text ---- */

/* Length of the UTF-8 sequence at p (n bytes left), 0 if it is none. RFC 3629 §4. */
static size_t utf8_seq(const uint8_t *p, size_t n)
{
    uint8_t lo = 0x80, hi = 0xBF;
    size_t len;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < len)
        return 0;
    if (p[0] == 0xE0)
        lo = 0xA0; /* overlong */
    if (p[0] == 0xED)
        hi = 0x9F; /* surrogates */
    if (p[0] == 0xF0)
        lo = 0x90; /* overlong */
    if (p[0] == 0xF4)
        hi = 0x8F; /* above U+10FFFF */
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    return len;
}

bool tg_utf8_ok(struct tg_bytes b)
{
    size_t i = 0;

    while (i < b.n) {
        size_t len = utf8_seq(b.p + i, b.n - i);

        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

enum tg_rc tg_parse_u64(const char *s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s[0] == '\0' || (s[0] == '0' && s[1] != '\0'))
        return TG_E_FORMAT;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9')
            return TG_E_FORMAT;
        if (!tg_mul_u64(v, 10, &v) || !tg_add_u64(v, (uint64_t)(*s - '0'), &v))
            return TG_E_LIMIT;
    }
    if (v > max)
        return TG_E_LIMIT;
    *out = v;
    return TG_OK;
}
