/* Some files of a package: whose path matches, and which chunks they need. */
#include <fnmatch.h>

#include "base/mem.h"
#include "tgsp/package_internal.h"
#include "tgsp/path.h"
#include "tgsp/select_internal.h"

void tg_tgsp_select_free(struct tg_tgsp_select *s)
{
    if (!s)
        return;
    tg_free(s->file);
    tg_free(s->chunks);
    tg_free(s);
}

bool tg_tgsp_select_has(const struct tg_tgsp_select *s, size_t i)
{
    return s->file[i];
}

size_t tg_tgsp_select_files(const struct tg_tgsp_select *s)
{
    return s->n_files;
}

uint64_t tg_tgsp_select_chunks(const struct tg_tgsp_select *s)
{
    return s->n_chunks;
}

uint64_t tg_tgsp_select_bytes(const struct tg_tgsp_select *s)
{
    return s->bytes;
}

static enum tg_rc match(const struct tg_tgsp *p, const char *pattern, struct tg_tgsp_select *s,
                        struct tg_err *err)
{
    const struct tg_tgsp_file *v = p->manifest.files.items;
    bool any = false;
    for (size_t i = 0; i < p->manifest.files.n; i++) {
        if (tg_tgsp_path_reserved(v[i].path) ||
            fnmatch(pattern, v[i].path, FNM_PATHNAME | FNM_LEADING_DIR) != 0)
            continue;
        any = true;
        if (!s->file[i])
            s->n_files++;
        s->file[i] = true;
    }
    if (!any)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s: none of its %zu files matches '%s'", p->src.name,
                       p->manifest.files.n, pattern);
    return TG_OK;
}

/* The chunks that hold chosen files; with to NULL only counted. Files ascend, so chunks do. */
static uint64_t gather(const struct tg_tgsp *p, const bool *file, uint64_t *to)
{
    const struct tg_tgsp_file *v = p->manifest.files.items;
    uint64_t n = 0, next = 0; /* chunks before next are in, or will not be */
    for (size_t i = 0; i < p->manifest.files.n; i++) {
        if (!file[i] || v[i].size == 0)
            continue;
        uint64_t from = v[i].offset / p->geometry.chunk_size;
        uint64_t last = (v[i].offset + v[i].size - 1) / p->geometry.chunk_size;
        for (uint64_t c = from < next ? next : from; c <= last; c++, n++)
            if (to)
                to[n] = c;
        next = last + 1;
    }
    return n;
}

enum tg_rc tg_tgsp_select_new(const struct tg_tgsp *p, const char *const *patterns, size_t n,
                              struct tg_tgsp_select **out, struct tg_err *err)
{
    TG_TRY(tg_tgsp_need(p, TG_STAGE_INSPECTED, err));
    TG_AUTO(tg_tgsp_select_freep) struct tg_tgsp_select *s = tg_calloc(1, sizeof *s);
    if (s)
        s->file = tg_calloc(p->manifest.files.n + 1, sizeof *s->file);
    if (!s || !s->file)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", p->src.name);
    for (size_t i = 0; i < n; i++)
        TG_TRY(match(p, patterns[i], s, err));
    s->n_chunks = gather(p, s->file, NULL);
    s->chunks = tg_calloc((size_t)s->n_chunks + 1, sizeof *s->chunks);
    if (!s->chunks)
        return TG_FAIL(err, TG_E_NOMEM, "%s: out of memory", p->src.name);
    (void)gather(p, s->file, s->chunks);
    for (uint64_t i = 0; i < s->n_chunks; i++)
        s->bytes += tg_tgsp_chunk_plain(&p->geometry, s->chunks[i]);
    *out = tg_steal(&s);
    return TG_OK;
}
