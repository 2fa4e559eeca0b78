#include "tensor/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    CENTRAL = 46,
    END = 22,
    END64 = 56,
    LOCATOR = 20,
    FLAG_ENCRYPTED = 1 << 0,
    FLAG_DESCRIPTOR = 1 << 3, /* sizes stand after the data; the directory has them too */
    FLAG_UTF8 = 1 << 11,
    EXTRA_ZIP64 = 1
};

#define SATURATED UINT32_C(0xffffffff)
#define CRC_STEP ((size_t)4 << 20) /* between two words on progress */

struct reader {
    struct tg_bytes file; /* what is there of it: from `base` to its end */
    uint64_t base, size;
    const char *what;
    uint64_t dir_at, dir_n, count;
    struct tg_err *err;
};

static uint64_t le(struct tg_bytes b, size_t at, size_t n)
{
    uint64_t v = 0;

    for (size_t i = n; i > 0; i--)
        v = v << 8 | b.p[at + i - 1];
    return v;
}

static enum tg_rc broken(const struct reader *r, uint64_t at, const char *why)
{
    return TG_FAIL(r->err, TG_E_FORMAT, "%s: ZIP, offset %" PRIu64 ": %s", r->what, at, why);
}

/* n bytes at `at` that begin with a signature. */
static bool record(const struct reader *r, uint64_t at, size_t n, const char *sig,
                   struct tg_bytes *out)
{
    if (at < r->base || at > r->size || n > r->size - at)
        return false;
    *out = tg_bytes_sub(r->file, (size_t)(at - r->base), n);
    return tg_mem_eq(out->p, sig, 4);
}

/* ---- where the directory is ---- */

/* Either the 32-bit field says it, or it is saturated and ZIP64 does. */
static bool agree(uint64_t narrow, uint64_t mask, uint64_t wide)
{
    return narrow == wide || narrow == mask;
}

static enum tg_rc find_end64(struct reader *r, struct tg_bytes end, struct tg_bytes loc,
                             uint64_t at)
{
    struct tg_bytes e;
    uint64_t where = le(loc, 8, 8);

    if (at < END64 || where != at - END64 || !record(r, where, END64, "PK\6\6", &e) ||
        le(e, 4, 8) != END64 - 12)
        return broken(r, at, "the ZIP64 end record is not where its locator says");
    if (le(e, 16, 8) != 0 || le(e, 24, 8) != le(e, 32, 8))
        return broken(r, where, "an archive of several disks");
    r->count = le(e, 32, 8);
    r->dir_n = le(e, 40, 8);
    r->dir_at = le(e, 48, 8);
    if (!agree(le(end, 10, 2), 0xffff, r->count) || !agree(le(end, 12, 4), SATURATED, r->dir_n) ||
        !agree(le(end, 16, 4), SATURATED, r->dir_at))
        return broken(r, where, "the two end records contradict each other");
    if (!tg_add_u64(r->dir_at, r->dir_n, &at) || at != where)
        return broken(r, where, "the directory does not end where its end record begins");
    return TG_OK;
}

static enum tg_rc find_directory(struct reader *r)
{
    struct tg_bytes end, loc;
    uint64_t at = r->size - END, sum = 0;

    if (r->size < END || !record(r, at, END, "PK\5\6", &end) || le(end, 20, 2) != 0)
        return TG_FAIL(r->err, TG_E_FORMAT,
                       "%s: ZIP: does not end with an end record (cut, or something follows it, or "
                       "it has a comment)",
                       r->what);
    if (le(end, 4, 4) != 0 || le(end, 8, 2) != le(end, 10, 2))
        return broken(r, at, "an archive of several disks");
    if (at >= LOCATOR && record(r, at - LOCATOR, LOCATOR, "PK\6\7", &loc))
        return find_end64(r, end, loc, at - LOCATOR);
    r->count = le(end, 10, 2);
    r->dir_n = le(end, 12, 4);
    r->dir_at = le(end, 16, 4);
    if (!tg_add_u64(r->dir_at, r->dir_n, &sum) || sum != at)
        return broken(r, at, "the directory does not end where its end record begins");
    return TG_OK;
}

/* ---- one entry ---- */

struct sizes {
    uint64_t packed, plain, header;
};

/* The ZIP64 field holds those of the three that are saturated, in this order. */
static bool widen(struct tg_bytes field, struct sizes *s)
{
    uint64_t *const v[] = {&s->plain, &s->packed, &s->header};
    size_t at = 0;

    for (size_t i = 0; i < TG_ARRAY_LEN(v); i++) {
        if (*v[i] != SATURATED)
            continue;
        if (field.n - at < 8)
            return false;
        *v[i] = le(field, at, 8);
        at += 8;
    }
    return true;
}

static bool read_extra(struct tg_bytes extra, struct sizes *s)
{
    bool seen = false;

    for (size_t at = 0; at < extra.n;) {
        size_t n;

        if (extra.n - at < 4)
            return false;
        n = (size_t)le(extra, at + 2, 2);
        if (extra.n - at - 4 < n)
            return false;
        if (le(extra, at, 2) == EXTRA_ZIP64) {
            if (seen || !widen(tg_bytes_sub(extra, at + 4, n), s))
                return false;
            seen = true;
        }
        at += 4 + n;
    }
    return seen || (s->packed != SATURATED && s->plain != SATURATED && s->header != SATURATED);
}

static enum tg_rc check_method(const struct reader *r, uint64_t at, uint64_t flags, uint64_t method)
{
    if ((flags & FLAG_ENCRYPTED) != 0)
        return TG_FAIL(r->err, TG_E_UNSUPPORTED, "%s: ZIP, offset %" PRIu64 ": an encrypted entry",
                       r->what, at);
    if (method != 0)
        return TG_FAIL(r->err, TG_E_UNSUPPORTED,
                       "%s: ZIP, offset %" PRIu64 ": a compressed entry (method %" PRIu64
                       "); torch.save stores them as they are: save the file again with it",
                       r->what, at, method);
    if ((flags & ~(uint64_t)(FLAG_DESCRIPTOR | FLAG_UTF8)) != 0)
        return broken(r, at, "flags that a PyTorch archive does not have");
    return TG_OK;
}

/* The local header must tell the same story as the directory. h: it, and the name behind it. */
static enum tg_rc read_local(const struct reader *r, const struct tg_zip_entry *e,
                             struct tg_bytes h, uint64_t *data_at)
{
    uint64_t at = e->header_offset, n, data, end;
    bool descriptor = (e->flags & FLAG_DESCRIPTOR) != 0;

    if (h.n < TG_ZIP_LOCAL || !tg_mem_eq(h.p, "PK\3\4", 4))
        return broken(r, at, "no local header where the directory says");
    if (le(h, 6, 2) != e->flags || le(h, 8, 2) != 0)
        return broken(r, at, "local header and directory contradict each other");
    n = le(h, 26, 2);
    data = at + TG_ZIP_LOCAL + n + le(h, 28, 2);
    if (!tg_add_u64(data, e->size, &end) || end > r->dir_at)
        return broken(r, at, "an entry reaches into the directory");
    if (n != e->name.n || !tg_bytes_eq(tg_bytes_sub(h, TG_ZIP_LOCAL, (size_t)n), e->name))
        return broken(r, at, "local header and directory name the entry differently");
    for (size_t i = 0; i < 2; i++) { /* packed, plain */
        uint64_t v = le(h, 18 + 4 * i, 4);

        if (v != e->size && v != SATURATED && !(descriptor && v == 0))
            return broken(r, at, "local header and directory contradict each other about sizes");
    }
    *data_at = data;
    return TG_OK;
}

/* With the whole file here, by the local header; else the least that it can be. */
static enum tg_rc place(const struct reader *r, struct tg_zip_entry *e)
{
    uint64_t at = e->header_offset, room = at < r->size ? r->size - at : 0;

    if (r->base > 0) {
        if (!tg_add_u64(at, TG_ZIP_LOCAL + e->name.n, &e->at) || e->at > r->dir_at ||
            e->size > r->dir_at - e->at)
            return broken(r, at, "an entry reaches into the directory");
        return TG_OK;
    }
    if (room > TG_ZIP_LOCAL + e->name.n)
        room = TG_ZIP_LOCAL + e->name.n;
    TG_TRY(read_local(r, e, tg_bytes_sub(r->file, (size_t)at, (size_t)room), &e->at));
    e->data = tg_bytes_sub(r->file, (size_t)e->at, (size_t)e->size);
    return TG_OK;
}

static enum tg_rc check_name(const struct reader *r, uint64_t at, struct tg_bytes name)
{
    if (name.n == 0 || name.n > TG_ZIP_NAME_MAX || !tg_utf8_ok(name))
        return broken(r, at, "an entry's name is empty, too long or not UTF-8");
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < 0x20 || name.p[i] == 0x7f || name.p[i] == '\\')
            return broken(r, at, "an entry's name has control characters or backslashes");
    return TG_OK;
}

/* Read the directory's record at *at and move past it. */
static enum tg_rc read_entry(const struct reader *r, uint64_t *at, struct tg_zip_entry *e)
{
    struct tg_bytes c;
    struct sizes s;
    size_t name, extra, comment;
    uint64_t end = r->dir_at + r->dir_n;

    if (end - *at < CENTRAL || !record(r, *at, CENTRAL, "PK\1\2", &c))
        return broken(r, *at, "the directory is cut");
    name = (size_t)le(c, 28, 2);
    extra = (size_t)le(c, 30, 2);
    comment = (size_t)le(c, 32, 2);
    if (end - *at - CENTRAL < name + extra + comment || comment != 0 || le(c, 34, 2) != 0)
        return broken(r, *at, "the directory is cut, has comments or names another disk");
    TG_TRY(check_method(r, *at, le(c, 8, 2), le(c, 10, 2)));
    s = (struct sizes){le(c, 20, 4), le(c, 24, 4), le(c, 42, 4)};
    c = tg_bytes_sub(r->file, (size_t)(*at - r->base), CENTRAL + name + extra);
    if (!read_extra(tg_bytes_sub(c, CENTRAL + name, extra), &s))
        return broken(r, *at, "the extra field is broken");
    if (s.packed != s.plain)
        return broken(r, *at, "a stored entry of two different sizes");
    *e = (struct tg_zip_entry){.name = tg_bytes_sub(c, CENTRAL, name),
                               .size = s.plain,
                               .crc32 = (uint32_t)le(c, 16, 4),
                               .header_offset = s.header,
                               .flags = (uint16_t)le(c, 8, 2)};
    TG_TRY(check_name(r, *at, e->name));
    TG_TRY(place(r, e));
    *at += CENTRAL + name + extra;
    return TG_OK;
}

/* ---- all of them ---- */

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct tg_zip_entry *)a)->header_offset;
    uint64_t y = ((const struct tg_zip_entry *)b)->header_offset;

    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b)
{
    return tg_bytes_cmp(((const struct tg_zip_entry *)a)->name,
                        ((const struct tg_zip_entry *)b)->name);
}

static enum tg_rc check_all(const struct reader *r, struct tg_zip *z)
{
    uint64_t end = 0;

    if (z->n == 0)
        return broken(r, 0, "an archive without entries");
    qsort(z->v, z->n, sizeof(*z->v), by_offset);
    for (size_t i = 0; i < z->n; i++) {
        if (z->v[i].header_offset < end)
            return broken(r, z->v[i].header_offset, "entries overlap");
        end = z->v[i].at + z->v[i].size;
    }
    if (z->v[0].header_offset != 0)
        return broken(r, 0, "something stands before the first entry");
    qsort(z->v, z->n, sizeof(*z->v), by_name);
    for (size_t i = 1; i < z->n; i++)
        if (tg_bytes_eq(z->v[i - 1].name, z->v[i].name))
            return TG_FAIL(r->err, TG_E_FORMAT, "%s: ZIP: entry '%.*s' is there twice", r->what,
                           (int)(z->v[i].name.n < 200 ? z->v[i].name.n : 200),
                           (const char *)z->v[i].name.p);
    return TG_OK;
}

static enum tg_rc read_all(const struct reader *r, struct tg_zip *z)
{
    uint64_t at = r->dir_at;

    if (r->count > TG_ZIP_ENTRIES_MAX)
        return TG_FAIL(r->err, TG_E_LIMIT, "%s: ZIP: %" PRIu64 " entries, at most %d", r->what,
                       r->count, TG_ZIP_ENTRIES_MAX);
    if (r->count > r->dir_n / CENTRAL)
        return broken(r, at, "the directory is too short for its number of entries");
    z->v = tg_calloc((size_t)r->count + 1, sizeof(*z->v));
    if (z->v == NULL)
        return TG_FAIL(r->err, TG_E_NOMEM, "%s: out of memory", r->what);
    z->dir_at = r->dir_at;
    for (; z->n < r->count; z->n++)
        TG_TRY(read_entry(r, &at, &z->v[z->n]));
    if (at != r->dir_at + r->dir_n)
        return broken(r, at, "the directory is longer than its number of entries");
    return check_all(r, z);
}

enum tg_rc tg_zip_open(struct tg_bytes file, const char *what, struct tg_zip *out,
                       struct tg_err *err)
{
    return tg_zip_open_tail(file, file.n, what, out, err);
}

/* ---- by its end ---- */

enum tg_rc tg_zip_directory(struct tg_bytes tail, uint64_t size, const char *what, uint64_t *at,
                            struct tg_err *err)
{
    struct reader r = {.file = tail, .base = size - tail.n, .size = size, .what = what, .err = err};

    TG_TRY(find_directory(&r));
    *at = r.dir_at;
    return TG_OK;
}

enum tg_rc tg_zip_open_tail(struct tg_bytes tail, uint64_t size, const char *what,
                            struct tg_zip *out, struct tg_err *err)
{
    TG_AUTO(tg_zip_done) struct tg_zip z = TG_ZIP_INIT;
    struct reader r = {.file = tail, .base = size - tail.n, .size = size, .what = what, .err = err};

    TG_TRY(find_directory(&r));
    TG_TRY(read_all(&r, &z));
    *out = z;
    z = (struct tg_zip)TG_ZIP_INIT;
    return TG_OK;
}

enum tg_rc tg_zip_locate(const struct tg_zip *z, const struct tg_zip_entry *e, struct tg_bytes head,
                         const char *what, uint64_t *at, struct tg_err *err)
{
    const struct reader r = {.what = what, .dir_at = z->dir_at, .err = err};

    TG_TRY(read_local(&r, e, head, at));
    for (size_t i = 0; i < z->n; i++) /* its own header may say that it begins later */
        if (z->v[i].header_offset > e->header_offset && z->v[i].header_offset < *at + e->size)
            return broken(&r, z->v[i].header_offset, "entries overlap");
    return TG_OK;
}

void tg_zip_done(struct tg_zip *z)
{
    tg_free(z->v);
    *z = (struct tg_zip)TG_ZIP_INIT;
}

const struct tg_zip_entry *tg_zip_find(const struct tg_zip *z, struct tg_bytes name)
{
    const struct tg_zip_entry key = {.name = name};

    return z->n == 0 ? NULL : bsearch(&key, z->v, z->n, sizeof(*z->v), by_name);
}

struct crc_tables {
    uint32_t v[8][256];
};

/* Table k takes a byte that k more bytes follow. */
static void crc_tables_make(struct crc_tables *t)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;

        for (int k = 0; k < 8; k++)
            c = (c & 1) != 0 ? c >> 1 ^ UINT32_C(0xedb88320) : c >> 1;
        t->v[0][b] = c;
    }
    for (size_t k = 1; k < 8; k++)
        for (size_t b = 0; b < 256; b++)
            t->v[k][b] = t->v[k - 1][b] >> 8 ^ t->v[0][t->v[k - 1][b] & 0xff];
}

/* Eight bytes at a time. crc: SATURATED at first; complement it at the end. */
static uint32_t crc_more(const struct crc_tables *t, uint32_t crc, struct tg_bytes data)
{
    size_t i = 0;

    for (; data.n - i >= 8; i += 8) {
        uint64_t v = le(data, i, 8) ^ crc;

        crc = 0;
        for (size_t k = 0; k < 8; k++)
            crc ^= t->v[7 - k][v >> (8 * k) & 0xff];
    }
    for (; i < data.n; i++)
        crc = crc >> 8 ^ t->v[0][(crc ^ data.p[i]) & 0xff];
    return crc;
}

uint32_t tg_zip_crc32(struct tg_bytes data)
{
    struct crc_tables t;

    crc_tables_make(&t);
    return ~crc_more(&t, SATURATED, data);
}

enum tg_rc tg_zip_check(const struct tg_zip *z, const char *what, struct tg_progress *progress,
                        struct tg_err *err)
{
    struct crc_tables t;

    crc_tables_make(&t);
    for (size_t i = 0; i < z->n; i++) {
        const struct tg_zip_entry *e = &z->v[i];
        uint32_t crc = SATURATED;

        for (size_t at = 0; at < e->data.n; at += CRC_STEP) {
            struct tg_bytes step = tg_bytes_sub(e->data, at, CRC_STEP);

            crc = crc_more(&t, crc, step);
            tg_progress_add(progress, step.n);
        }
        if (~crc != e->crc32)
            return TG_FAIL(err, TG_E_FORMAT,
                           "%s: ZIP, offset %" PRIu64
                           ": entry '%.*s' is damaged (its CRC-32 is another)",
                           what, e->header_offset, (int)(e->name.n < 200 ? e->name.n : 200),
                           (const char *)e->name.p);
    }
    return TG_OK;
}
