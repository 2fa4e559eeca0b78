#include "tensor/scan.h"

#include <string.h>

#include "tensor/num.h"

int tg_scan_peek(struct tg_scan *s)
{
    while (s->i < s->in.n) {
        uint8_t c = s->in.p[s->i];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return c;
        s->i++;
    }
    return -1;
}

bool tg_scan_take(struct tg_scan *s, char c)
{
    if (tg_scan_peek(s) != c)
        return false;
    s->i++;
    return true;
}

bool tg_scan_word(struct tg_scan *s, const char *word)
{
    struct tg_bytes w = tg_bytes_str(word);

    (void)tg_scan_peek(s);
    if (!tg_bytes_eq(tg_bytes_sub(s->in, s->i, w.n), w))
        return false;
    s->i += w.n;
    return true;
}

/* Four hex digits; -1: not that. */
static int32_t hex4(struct tg_bytes in, size_t at)
{
    int32_t v = 0;

    if (at > in.n || in.n - at < 4)
        return -1;
    for (size_t i = at; i < at + 4; i++) {
        uint8_t c = in.p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* Length of the escape at `at` (a backslash), and the character it stands for; 0: malformed. */
static size_t escape(struct tg_bytes in, size_t at, uint32_t *cp)
{
    static const char plain[] = "\"\\/bfnrt";
    static const char value[] = "\"\\/\b\f\n\r\t";
    const char *hit;
    int32_t hi, lo;

    if (at + 1 >= in.n || in.p[at + 1] == 0)
        return 0;
    hit = strchr(plain, in.p[at + 1]);
    if (hit != NULL) {
        *cp = (uint8_t)value[hit - plain];
        return 2;
    }
    if (in.p[at + 1] != 'u')
        return 0;
    hi = hex4(in, at + 2);
    if (hi <= 0 || (hi >= 0xdc00 && hi <= 0xdfff))
        return 0;
    *cp = (uint32_t)hi;
    if (hi < 0xd800 || hi > 0xdfff)
        return 6;
    if (at + 7 >= in.n || in.p[at + 6] != '\\' || in.p[at + 7] != 'u')
        return 0;
    lo = hex4(in, at + 8);
    if (lo < 0xdc00 || lo > 0xdfff)
        return 0;
    *cp = 0x10000u + (((uint32_t)hi - 0xd800u) << 10) + ((uint32_t)lo - 0xdc00u);
    return 12;
}

enum tg_rc tg_scan_string(struct tg_scan *s, struct tg_bytes *raw)
{
    size_t from, i;
    uint32_t cp;

    if (!tg_scan_take(s, '"'))
        return TG_E_FORMAT;
    from = i = s->i;
    while (i < s->in.n && s->in.p[i] != '"') {
        size_t step = 1;

        if (s->in.p[i] < 0x20)
            return TG_E_FORMAT;
        if (s->in.p[i] == '\\')
            step = escape(s->in, i, &cp);
        if (step == 0)
            return TG_E_FORMAT;
        i += step;
    }
    if (i >= s->in.n || !tg_utf8_ok(tg_bytes_sub(s->in, from, i - from)))
        return TG_E_FORMAT;
    *raw = tg_bytes_sub(s->in, from, i - from);
    s->i = i + 1;
    return TG_OK;
}

static size_t put_utf8(uint32_t cp, uint8_t *out)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xc0 | cp >> 6);
        out[1] = (uint8_t)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xe0 | cp >> 12);
        out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | cp >> 18);
    out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (cp & 0x3f));
    return 4;
}

size_t tg_scan_unescape(struct tg_bytes raw, uint8_t *out)
{
    size_t n = 0;

    for (size_t i = 0; i < raw.n;) {
        uint32_t cp = 0;

        if (raw.p[i] != '\\') {
            out[n++] = raw.p[i++];
            continue;
        }
        i += escape(raw, i, &cp); /* never 0: tg_scan_string checked */
        n += put_utf8(cp, out + n);
    }
    return n;
}

enum tg_rc tg_scan_text(struct tg_scan *s, char *out, size_t cap)
{
    struct tg_scan at = *s;
    struct tg_bytes raw = TG_BYTES_NONE;
    uint8_t one[4];
    size_t n = 0;

    TG_TRY(tg_scan_string(&at, &raw));
    for (size_t i = 0; i < raw.n;) { /* an escape can be shorter than its text: measure first */
        uint32_t cp = 0;
        size_t step = raw.p[i] == '\\' ? escape(raw, i, &cp) : 1;

        n += raw.p[i] == '\\' ? put_utf8(cp, one) : 1;
        i += step;
    }
    if (n >= cap)
        return TG_E_LIMIT;
    (void)tg_scan_unescape(raw, (uint8_t *)out);
    out[n] = '\0';
    *s = at;
    return TG_OK;
}

/* One value that is not an object or array. */
static enum tg_rc skip_scalar(struct tg_scan *s)
{
    struct tg_bytes raw;
    struct tg_num num = {0};
    int c = tg_scan_peek(s);

    if (c == '"')
        return tg_scan_string(s, &raw);
    if (c == 't' || c == 'f' || c == 'n')
        return tg_scan_word(s, "true") || tg_scan_word(s, "false") || tg_scan_word(s, "null")
                   ? TG_OK
                   : TG_E_FORMAT;
    TG_TRY(tg_num_scan(tg_bytes_sub(s->in, s->i, s->in.n), &num));
    s->i += num.text.n;
    return TG_OK;
}

static enum tg_rc skip_key(struct tg_scan *s)
{
    struct tg_bytes raw;

    TG_TRY(tg_scan_string(s, &raw));
    return tg_scan_take(s, ':') ? TG_OK : TG_E_FORMAT;
}

enum tg_rc tg_scan_skip(struct tg_scan *s, unsigned depth_max)
{
    uint64_t objects = 0; /* bit d: level d is an object */
    unsigned depth = 0;

    for (;;) {
        /* a value begins here */
        int c = tg_scan_peek(s);

        if (c == '{' || c == '[') {
            if (depth == depth_max || depth == 63)
                return TG_E_LIMIT;
            depth++;
            s->i++;
            objects = (objects & ~(UINT64_C(1) << depth)) | (uint64_t)(c == '{') << depth;
            if (!tg_scan_take(s, c == '{' ? '}' : ']')) {
                if (c == '{')
                    TG_TRY(skip_key(s));
                continue;
            }
            depth--;
        } else {
            TG_TRY(skip_scalar(s));
        }
        /* a value ended here: close levels until a comma asks for the next */
        while (depth > 0 && !tg_scan_take(s, ',')) {
            if (!tg_scan_take(s, (objects >> depth & 1) != 0 ? '}' : ']'))
                return TG_E_FORMAT;
            depth--;
        }
        if (depth == 0)
            return TG_OK;
        if ((objects >> depth & 1) != 0)
            TG_TRY(skip_key(s));
    }
}
