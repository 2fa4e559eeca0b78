#include "tgsp/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "tgsp/format.h"

void tg_tgsp_path_show(struct tg_bytes path, char *out, size_t cap)
{
    bool utf8 = tg_utf8_ok(path);
    size_t used = 0;
    if (cap == 0)
        return;
    for (size_t i = 0; i < path.n && used + 5 <= cap; i++) {
        uint8_t c = path.p[i];
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            used += (size_t)snprintf(out + used, cap - used, "\\x%02x", c);
        else
            out[used++] = (char)c;
    }
    out[used] = '\0';
}

static const char *segment_fault(struct tg_bytes seg)
{
    if (seg.n == 0)
        return "has an empty segment (a leading, trailing or double '/')";
    if (seg.n > TG_TGSP_SEGMENT_MAX)
        return "has a name of more than 255 bytes";
    if (tg_bytes_eq(seg, tg_bytes_str(".")) || tg_bytes_eq(seg, tg_bytes_str("..")))
        return "has a segment '.' or '..'";
    return NULL;
}

static const char *path_fault(struct tg_bytes path)
{
    if (path.n == 0 || path.n > TG_TGSP_PATH_MAX)
        return "is not 1 to 1024 bytes long";
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] < 0x20 || path.p[i] == 0x7f)
            return "has a control character";
        if (path.p[i] == '\\')
            return "has a backslash";
    }
    if (!tg_utf8_ok(path))
        return "is not valid UTF-8";
    size_t from = 0;
    for (size_t i = 0; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        const char *fault = segment_fault(tg_bytes_sub(path, from, i - from));
        if (fault)
            return fault;
        from = i + 1;
    }
    return NULL;
}

enum tg_rc tg_tgsp_path_check(struct tg_bytes path, struct tg_err *err)
{
    char shown[320];
    const char *fault = path_fault(path);
    if (!fault)
        return TG_OK;
    tg_tgsp_path_show(path, shown, sizeof shown);
    return TG_FAIL(err, TG_E_FORMAT, "path '%s' %s", shown, fault);
}

static unsigned char fold(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

/* Order of folded paths with '/' below every other byte: a directory comes right before what is in
 * it, so a collision is always between neighbours. */
static int fold_order(const void *pa, const void *pb)
{
    const unsigned char *a = *(const unsigned char *const *)pa;
    const unsigned char *b = *(const unsigned char *const *)pb;
    for (;; a++, b++) {
        int x = *a == '/' ? 1 : fold(*a), y = *b == '/' ? 1 : fold(*b);
        if (x != y)
            return x < y ? -1 : 1;
        if (x == 0)
            return 0;
    }
}

/* With case folded: is a equal to b, or a directory above it? */
static bool collide(const char *a, const char *b)
{
    size_t n = strlen(a);
    for (size_t i = 0; i < n; i++)
        if (fold((unsigned char)a[i]) != fold((unsigned char)b[i]))
            return false;
    return b[n] == '\0' || b[n] == '/';
}

static enum tg_rc neighbours(const char *const *sorted, size_t n, struct tg_err *err)
{
    for (size_t i = 1; i < n; i++)
        if (collide(sorted[i - 1], sorted[i]))
            return TG_FAIL(
                err, TG_E_FORMAT,
                "paths '%.200s' and '%.200s' collide where case does not count; rename one",
                sorted[i - 1], sorted[i]);
    return TG_OK;
}

enum tg_rc tg_tgsp_paths_check(const char *const *paths, size_t n, struct tg_err *err)
{
    for (size_t i = 0; i < n; i++) {
        TG_TRY(tg_tgsp_path_check(tg_bytes_str(paths[i]), err));
        if (i > 0 && strcmp(paths[i - 1], paths[i]) >= 0)
            return TG_FAIL(err, TG_E_FORMAT, "path '%.200s' does not follow '%.200s' in byte order",
                           paths[i], paths[i - 1]);
    }
    if (n < 2)
        return TG_OK;
    TG_AUTO(tg_freep) const char **sorted = tg_calloc(n, sizeof *sorted);
    if (!sorted)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory for %zu paths", n);
    memcpy(sorted, paths, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, fold_order);
    return neighbours(sorted, n, err);
}

bool tg_tgsp_path_reserved(const char *path)
{
    size_t n = sizeof TG_TGSP_RESERVED_DIR - 1;
    return strncasecmp(path, TG_TGSP_RESERVED_DIR, n) == 0 && (path[n] == '/' || path[n] == '\0');
}
