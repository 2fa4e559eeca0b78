#include "codec/text.h"

#include <string.h>

/* ---- base64url ----
 * Characters are computed, not looked up: keys pass through here and a table's cache lines would
 * tell their bits. The arithmetic follows from the four ranges A-Z a-z 0-9 - _ alone. */

/* all ones if lo <= c <= hi, else 0; 0 <= everything < 256 */
static unsigned in_range(unsigned c, unsigned lo, unsigned hi)
{
    unsigned in = ((lo - c - 1) & (c - hi - 1)) >> 31;

    /* A compiler that knew this to be 0 or 1 would branch on it: clang 14 did (tests/ct). */
    __asm__("" : "+r"(in));
    return 0 - in;
}

static uint8_t to_char(unsigned v)
{
    unsigned c = 0;

    c |= in_range(v, 0, 25) & (v + 'A');
    c |= in_range(v, 26, 51) & (v - 26 + 'a');
    c |= in_range(v, 52, 61) & (v - 52 + '0');
    c |= in_range(v, 62, 62) & '-';
    c |= in_range(v, 63, 63) & '_';
    return (uint8_t)c;
}

/* 0..63; *bad gets ones for anything else */
static unsigned from_char(unsigned c, unsigned *bad)
{
    unsigned up = in_range(c, 'A', 'Z'), low = in_range(c, 'a', 'z'), dig = in_range(c, '0', '9');
    unsigned minus = in_range(c, '-', '-'), under = in_range(c, '_', '_');

    *bad |= ~(up | low | dig | minus | under);
    return (up & (c - 'A')) | (low & (c - 'a' + 26)) | (dig & (c - '0' + 52)) | (minus & 62) |
           (under & 63);
}

size_t tg_b64url_len(size_t n)
{
    return n / 3 * 4 + (n % 3 == 0 ? 0 : n % 3 + 1);
}

enum tg_rc tg_b64url_encode(struct tg_bytes in, struct tg_buf *out)
{
    size_t len = tg_b64url_len(in.n);
    uint8_t *to;
    size_t put = 0;

    if (in.n > SIZE_MAX / 2)
        return TG_E_LIMIT;
    TG_TRY(tg_buf_reserve(out, len, &to));
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        unsigned v = (unsigned)in.p[i] << 16;

        if (left > 1)
            v |= (unsigned)in.p[i + 1] << 8;
        if (left > 2)
            v |= in.p[i + 2];
        to[put++] = to_char(v >> 18);
        to[put++] = to_char(v >> 12 & 63);
        if (left > 1)
            to[put++] = to_char(v >> 6 & 63);
        if (left > 2)
            to[put++] = to_char(v & 63);
    }
    tg_buf_grow(out, len);
    return TG_OK;
}

enum tg_rc tg_b64url_decode(struct tg_bytes in, uint8_t *out, size_t cap, size_t *n)
{
    size_t len = in.n / 4 * 3 + (in.n % 4 == 0 ? 0 : in.n % 4 - 1);
    unsigned bad = 0;
    size_t put = 0;

    if (in.n % 4 == 1)
        return TG_E_FORMAT;
    if (len > cap)
        return TG_E_LIMIT;
    for (size_t i = 0; i < in.n; i += 4) {
        size_t left = in.n - i < 4 ? in.n - i : 4;
        unsigned v = 0;

        for (size_t k = 0; k < 4; k++)
            v = v << 6 | (k < left ? from_char(in.p[i + k], &bad) : 0);
        out[put++] = (uint8_t)(v >> 16);
        if (left > 2)
            out[put++] = (uint8_t)(v >> 8);
        if (left > 3)
            out[put++] = (uint8_t)v;
        /* the bits that carry nothing must be zero: one text per value */
        if (left == 2)
            bad |= v & 0xFFFF;
        if (left == 3)
            bad |= v & 0xFF;
    }
    if (bad != 0) {
        memset(out, 0, put);
        return TG_E_FORMAT;
    }
    *n = put;
    return TG_OK;
}

/* ---- hex ---- */

/* Computed, not looked up, for the same reason: a key file is written in hex. */
static char to_hex(unsigned v)
{
    return (char)(v + '0' + (in_range(v, 10, 15) & ('a' - '0' - 10)));
}

void tg_hex_encode(struct tg_bytes in, char *out)
{
    for (size_t i = 0; i < in.n; i++) {
        out[2 * i] = to_hex(in.p[i] >> 4);
        out[2 * i + 1] = to_hex(in.p[i] & 15);
    }
    out[2 * in.n] = '\0';
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum tg_rc tg_hex_decode(struct tg_bytes in, uint8_t *out, size_t n)
{
    if (in.n / 2 != n || in.n % 2 != 0)
        return TG_E_FORMAT;
    for (size_t i = 0; i < in.n; i++)
        if (hex_digit(in.p[i]) < 0)
            return TG_E_FORMAT;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(hex_digit(in.p[2 * i]) << 4 | hex_digit(in.p[2 * i + 1]));
    return TG_OK;
}

/* ---- PEM ---- */

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_space(struct tg_bytes *in)
{
    while (in->n > 0 && is_space(in->p[0]))
        *in = tg_bytes_sub(*in, 1, SIZE_MAX);
}

/* Take "-----<word> <label>-----" off the front. */
static bool take_line(struct tg_bytes *in, const char *word, struct tg_bytes *label)
{
    struct tg_bytes rest = *in;
    size_t n = strlen(word), i;

    if (!tg_bytes_eq(tg_bytes_sub(rest, 0, n), tg_bytes_make(word, n)))
        return false;
    rest = tg_bytes_sub(rest, n, SIZE_MAX);
    for (i = 0; i < rest.n && rest.p[i] != '-' && rest.p[i] != '\n' && i < 64; i++)
        continue;
    *label = tg_bytes_sub(rest, 0, i);
    rest = tg_bytes_sub(rest, i, SIZE_MAX);
    if (!tg_bytes_eq(tg_bytes_sub(rest, 0, 5), tg_bytes_str("-----")))
        return false;
    *in = tg_bytes_sub(rest, 5, SIZE_MAX);
    return true;
}

enum tg_rc tg_pem_next(struct tg_bytes *in, struct tg_bytes *label, struct tg_bytes *block)
{
    struct tg_bytes rest = *in, begin, end;
    const uint8_t *start;

    skip_space(&rest);
    if (rest.n == 0)
        return TG_E_NOTFOUND;
    start = rest.p;
    if (!take_line(&rest, "-----BEGIN ", &begin))
        return TG_E_FORMAT;
    while (rest.n > 0 && rest.p[0] != '-')
        rest = tg_bytes_sub(rest, 1, SIZE_MAX);
    if (!take_line(&rest, "-----END ", &end) || !tg_bytes_eq(begin, end))
        return TG_E_FORMAT;
    *label = begin;
    *block = tg_bytes_make(start, (size_t)(rest.p - start));
    *in = rest;
    return TG_OK;
}

/* ---- for a terminal ---- */

/* Code points that move the cursor, switch modes or reorder what is read: C0, DEL, C1, the
 * direction controls. */
static bool steers(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f;
}

/* Length of the well-formed sequence at p and its code point; 1 and 0 for a stray byte. */
static size_t utf8_at(struct tg_bytes s, size_t i, uint32_t *c)
{
    uint8_t b = s.p[i];
    size_t n = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    *c = 0;
    if (!tg_utf8_ok(tg_bytes_sub(s, i, n)) || s.n - i < n)
        return 1;
    uint32_t v = n == 1 ? b : b & (0x7fu >> n);
    for (size_t k = 1; k < n; k++)
        v = v << 6 | (s.p[i + k] & 0x3fu);
    *c = v;
    return n;
}

enum tg_rc tg_text_escape(struct tg_buf *b, struct tg_bytes s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t c = 0;
        size_t n = utf8_at(s, i, &c);
        if (n == 1 && (c == 0 || steers(c)))
            TG_TRY(tg_buf_printf(b, "\\x%02x", s.p[i]));
        else if (steers(c))
            TG_TRY(tg_buf_printf(b, "\\u%04x", (unsigned)c));
        else
            TG_TRY(tg_buf_append(b, s.p + i, n));
        i += n;
    }
    return TG_OK;
}
