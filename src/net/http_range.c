#include "net/http_range.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"

/* Digits at *s, at most 19 of them (RFC 9110 sets no limit; 2^63 is ours). Leading zeros are legal
 * there. Moves *s past them. */
static bool digits(const char **s, uint64_t *out)
{
    const char *p = *s;
    uint64_t v = 0;
    size_t n = 0;

    while (*p == '0' && p[1] >= '0' && p[1] <= '9')
        p++;
    while (*p >= '0' && *p <= '9') {
        if (++n > 18)
            return false;
        v = v * 10 + (uint64_t)(*p++ - '0');
    }
    if (n == 0)
        return false;
    *s = p;
    *out = v;
    return true;
}

static const char *skip_space(const char *s)
{
    return s + strspn(s, " \t");
}

static struct tg_range part(uint64_t first, uint64_t last, uint64_t size)
{
    if (first >= size)
        return (struct tg_range){TG_RANGE_BAD, 0, 0};
    if (last >= size)
        last = size - 1;
    return (struct tg_range){TG_RANGE_PART, first, last - first + 1};
}

static struct tg_range suffix(uint64_t n, uint64_t size)
{
    if (n == 0 || size == 0)
        return (struct tg_range){TG_RANGE_BAD, 0, 0};
    if (n > size)
        n = size;
    return (struct tg_range){TG_RANGE_PART, size - n, n};
}

struct tg_range tg_range_parse(const char *header, uint64_t size)
{
    const struct tg_range whole = {TG_RANGE_NONE, 0, size};
    uint64_t first = 0, last = UINT64_MAX;
    const char *s = header;
    bool has_first;

    if (s == NULL || strncasecmp(s, "bytes=", 6) != 0)
        return whole;
    s = skip_space(s + 6);
    has_first = digits(&s, &first);
    if (*s++ != '-')
        return whole;
    if (*s >= '0' && *s <= '9') {
        if (!digits(&s, &last))
            return whole;
    } else if (!has_first) {
        return whole;
    }
    if (*skip_space(s) != '\0' || (has_first && last < first))
        return whole;
    return has_first ? part(first, last, size) : suffix(last, size);
}

struct tg_range tg_range_decide(const char *range, const char *if_range, const char *etag,
                                uint64_t size)
{
    if (if_range != NULL && (etag == NULL || !tg_etag_ok(etag) || strcmp(if_range, etag) != 0))
        return (struct tg_range){TG_RANGE_NONE, 0, size};
    return tg_range_parse(range, size);
}

void tg_range_format_request(uint64_t off, uint64_t len, char out[TG_RANGE_TEXT])
{
    (void)snprintf(out, TG_RANGE_TEXT, "bytes=%" PRIu64 "-%" PRIu64, off, off + (len - 1));
}

void tg_range_format_content(const struct tg_range *r, uint64_t size, char out[TG_RANGE_TEXT])
{
    if (r->kind == TG_RANGE_BAD || r->len == 0)
        (void)snprintf(out, TG_RANGE_TEXT, "bytes */%" PRIu64, size);
    else
        (void)snprintf(out, TG_RANGE_TEXT, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, r->off,
                       r->off + (r->len - 1), size);
}

TG_RC tg_content_range_parse(const char *header, uint64_t *off, uint64_t *len, uint64_t *size)
{
    uint64_t first, last, total;
    const char *s = header;

    if (s == NULL || strncasecmp(s, "bytes ", 6) != 0)
        return TG_E_FORMAT;
    s += 6;
    if (!digits(&s, &first) || *s++ != '-' || !digits(&s, &last) || *s++ != '/' ||
        !digits(&s, &total) || *s != '\0' || last < first || last >= total)
        return TG_E_FORMAT;
    *off = first;
    *len = last - first + 1;
    *size = total;
    return TG_OK;
}

/* RFC 9110 §8.8.3: etagc is %x21 / %x23-7E / obs-text; we take no obs-text. */
static bool etag_char(char c)
{
    return c > 0x20 && c < 0x7f && c != '"';
}

TG_RC tg_etag_make(const char *text, char out[TG_ETAG_MAX])
{
    size_t n = strlen(text);

    if (n > TG_ETAG_MAX - 3)
        return TG_E_FORMAT;
    for (size_t i = 0; i < n; i++)
        if (!etag_char(text[i]))
            return TG_E_FORMAT;
    (void)snprintf(out, TG_ETAG_MAX, "\"%s\"", text);
    return TG_OK;
}

/* The length of the quoted tag at s, 0 when there is none. */
static size_t tag_len(const char *s)
{
    size_t n = 1;

    if (*s != '"')
        return 0;
    while (etag_char(s[n]))
        n++;
    return s[n] == '"' ? n + 1 : 0;
}

bool tg_etag_ok(const char *etag)
{
    size_t n = tag_len(etag);

    return n > 0 && n < TG_ETAG_MAX && etag[n] == '\0';
}

static bool list_has(const char *list, const char *etag, bool weak_ok)
{
    size_t want = strlen(etag);

    if (list == NULL || !tg_etag_ok(etag))
        return false;
    list = skip_space(list);
    if (list[0] == '*' && *skip_space(list + 1) == '\0')
        return true;
    while (*list != '\0') {
        bool weak = strncmp(list, "W/", 2) == 0;
        size_t n = tag_len(list + (weak ? 2 : 0));

        if (n == 0)
            return false; /* malformed: don't guess at the rest */
        list += weak ? 2 : 0;
        if ((weak_ok || !weak) && n == want && tg_mem_eq(list, etag, n))
            return true;
        list = skip_space(list + n);
        if (*list == ',')
            list = skip_space(list + 1);
        else if (*list != '\0')
            return false;
    }
    return false;
}

bool tg_etag_in(const char *list, const char *etag)
{
    return list_has(list, etag, true);
}

bool tg_etag_in_strong(const char *list, const char *etag)
{
    return list_has(list, etag, false);
}
