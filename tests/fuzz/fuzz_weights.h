/* What the two harnesses of files of weights do with theirs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum tg_rc to_buf(void *arg, const void *p, size_t n, struct tg_err *err)
{
    (void)err;
    return tg_buf_append(arg, p, n);
}

static void same(const struct tg_weights *a, const struct tg_weights *b)
{
    if (a->n != b->n)
        abort();
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i].name, b->v[i].name) != 0 || a->v[i].type != b->v[i].type ||
            !tg_shape_eq(&a->v[i].shape, &b->v[i].shape) ||
            tg_weight_size(&a->v[i]) != b->v[i].bytes.n)
            abort();
}

static enum tg_rc bring(void *arg, uint64_t off, uint8_t *to, size_t n, struct tg_err *err)
{
    const struct tg_bytes *file = arg;

    (void)err;
    if (off > file->n || n > file->n - off)
        abort();
    memcpy(to, file->p + off, n);
    return TG_OK;
}

/* By its description alone, each packed tensor is where reading all of the file finds it. */
static void locate_all(struct tg_bytes file, const struct tg_weights *w)
{
    const struct tg_weights_src src = {bring, &file, file.n};

    for (size_t i = 0; i < w->n && i < 16; i++) {
        const struct tg_weight *t = &w->v[i];
        struct tg_err err = TG_ERR_INIT;
        struct tg_weight_place p;
        enum tg_rc rc = tg_weights_locate(&src, "fuzz", tg_bytes_str(t->name), &p, &err);

        if (rc != (t->stride == NULL ? TG_OK : TG_E_UNSUPPORTED))
            abort();
        if (rc == TG_OK && (p.n != t->bytes.n || (p.n > 0 && file.p + p.at != t->bytes.p)))
            abort();
    }
}

/* And of a file that is not read, nothing is touched that is not there. */
static void locate_none(struct tg_bytes file)
{
    const struct tg_weights_src src = {bring, &file, file.n};
    struct tg_err err = TG_ERR_INIT;
    struct tg_weight_place p;

    if (tg_weights_locate(&src, "fuzz", tg_bytes_str("w"), &p, &err) == TG_OK &&
        (p.at > file.n || p.n > file.n - p.at))
        abort();
}

static void fuzz_weights(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf out = TG_BUF_INIT(16 << 20);
    const struct tg_weights_sink sink = {to_buf, &out};
    struct tg_weights a, b;

    if (tg_weights_parse(tg_bytes_make(data, n), "fuzz", &a, &err) != TG_OK) {
        locate_none(tg_bytes_make(data, n));
        return;
    }
    locate_all(tg_bytes_make(data, n), &a);
    for (size_t i = 0; i < a.n; i++)
        if (a.v[i].bytes.n > 0 && (a.v[i].bytes.p < data || a.v[i].bytes.n > n ||
                                   a.v[i].bytes.p + a.v[i].bytes.n > data + n))
            abort();
    if (tg_safetensors_write(&a, &sink, &err) == TG_OK) {
        if (tg_weights_parse(tg_buf_view(&out), "again", &b, &err) != TG_OK)
            abort();
        same(&a, &b);
        tg_weights_done(&b);
    }
    tg_buf_done(&out);
    tg_weights_done(&a);
}
