#include "vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "codec/text.h"

void vec_open(struct vec *v, const char *name)
{
    char path[4096];
    struct tg_err err = TG_ERR_INIT;
    const char *dir = getenv("TG_VECTORS");
    assert_non_null(dir);
    memset(v, 0, sizeof *v);
    (void)snprintf(path, sizeof path, "%s/published/%s", dir, name);
    v->file = TG_BUF_INIT(8 << 20);
    assert_ok(tg_file_read(path, &v->file, &err));
    v->rest = tg_buf_view(&v->file);
}

static bool line(struct tg_bytes *rest, struct tg_bytes *out)
{
    size_t n = 0;
    if (rest->n == 0)
        return false;
    while (n < rest->n && rest->p[n] != '\n')
        n++;
    *out = tg_bytes_sub(*rest, 0, n);
    *rest = tg_bytes_sub(*rest, n + 1, SIZE_MAX);
    return true;
}

static void field(struct vec *v, struct tg_bytes l)
{
    size_t at = 0;
    while (at < l.n && l.p[at] != '=')
        at++;
    assert_true(at > 1 && at < l.n && v->n < 16);
    v->f[v->n].name = tg_bytes_sub(l, 0, at - 1);
    v->f[v->n].text = tg_bytes_sub(l, at + 2, SIZE_MAX);
    v->n++;
}

bool vec_next(struct vec *v)
{
    struct tg_bytes l;
    for (size_t i = 0; i < v->n; i++)
        tg_buf_done(&v->hex[i]);
    v->n = 0;
    while (line(&v->rest, &l)) {
        if (l.n && l.p[0] == '#')
            continue;
        if (l.n == 0 && v->n)
            break;
        if (l.n)
            field(v, l);
    }
    v->blocks += v->n > 0;
    return v->n > 0;
}

void vec_close(struct vec *v)
{
    assert_true(v->blocks > 0);
    for (size_t i = 0; i < v->n; i++)
        tg_buf_done(&v->hex[i]);
    tg_buf_done(&v->file);
}

static size_t find(const struct vec *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (tg_bytes_eq(v->f[i].name, tg_bytes_str(name)))
            return i;
    fail_msg("no field %s", name);
    return 0;
}

struct tg_bytes vec_hex(struct vec *v, const char *name)
{
    static const uint8_t empty[1];
    uint8_t *to;
    size_t i = find(v, name), n = v->f[i].text.n / 2;
    if (n == 0)
        return tg_bytes_make(empty, 0);
    if (!v->hex[i].n) {
        v->hex[i] = TG_BUF_INIT(1 << 20);
        assert_int_equal(tg_buf_reserve(&v->hex[i], n, &to), TG_OK);
        assert_int_equal(tg_hex_decode(v->f[i].text, to, n), TG_OK);
        tg_buf_grow(&v->hex[i], n);
    }
    return tg_buf_view(&v->hex[i]);
}

bool vec_is(const struct vec *v, const char *name, const char *text)
{
    return tg_bytes_eq(v->f[find(v, name)].text, tg_bytes_str(text));
}
