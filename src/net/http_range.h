/* Conditional and range requests (RFC 9110 §8.8, §13, §14) as pure functions. */
#ifndef TG_NET_HTTP_RANGE_H
#define TG_NET_HTTP_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum tg_range_kind {
    TG_RANGE_NONE, /* no usable Range: send everything (200) */
    TG_RANGE_PART, /* one range: 206 */
    TG_RANGE_BAD   /* not satisfiable: 416, Content-Range names only the size */
};

struct tg_range {
    enum tg_range_kind kind;
    uint64_t off;
    uint64_t len;
};

/* Read a Range header for a representation of `size` bytes. Takes "bytes=a-b", "bytes=a-" and
 * "bytes=-n". A header that is malformed, in another unit, or asks for several ranges is ignored,
 * as RFC 9110 §14.2 allows: the answer is then the whole. header may be NULL. */
struct tg_range tg_range_parse(const char *header, uint64_t size);
/* The same with If-Range (NULL without one): the range counts only if it is, byte for byte, the
 * strong `etag`. */
struct tg_range tg_range_decide(const char *range, const char *if_range, const char *etag,
                                uint64_t size);

#define TG_RANGE_TEXT 72
/* "bytes=a-b" for a request (len ≥ 1) and "bytes a-b/size" (416: a star for a-b) for an
 * answer. */
void tg_range_format_request(uint64_t off, uint64_t len, char out[TG_RANGE_TEXT]);
void tg_range_format_content(const struct tg_range *r, uint64_t size, char out[TG_RANGE_TEXT]);

/* Read "bytes a-b/size" of a 206. The size must be known ("*" is refused).
 * @retval TG_E_FORMAT */
TG_RC tg_content_range_parse(const char *header, uint64_t *off, uint64_t *len, uint64_t *size);

/* Entity tags. An etag here is the whole field value with its quotes: "\"abc\"". */
#define TG_ETAG_MAX 128
/* `"text"`; text: visible ASCII without quotes, ≤ TG_ETAG_MAX - 3. @retval TG_E_FORMAT */
TG_RC tg_etag_make(const char *text, char out[TG_ETAG_MAX]);
/* A strong entity tag, well formed? */
bool tg_etag_ok(const char *etag);
/* Does a list ("*", `"a", W/"b"`) of If-None-Match hold the etag (weak comparison)? NULL: no. */
bool tg_etag_in(const char *list, const char *etag);
/* The same for If-Match (strong comparison). NULL: no. */
bool tg_etag_in_strong(const char *list, const char *etag);

#endif
