#include "tensor/weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/weights_internal.h"

static const struct {
    const char *name;
    uint8_t bits;
    uint8_t onnx;
} types[TG_W_COUNT] = {
    [TG_W_BOOL] = {"BOOL",    8,  9 },
    [TG_W_F4] = {"F4",      4,  0 },
    [TG_W_F6_E2M3] = {"F6_E2M3", 6,  0 },
    [TG_W_F6_E3M2] = {"F6_E3M2", 6,  0 },
    [TG_W_U8] = {"U8",      8,  2 },
    [TG_W_I8] = {"I8",      8,  3 },
    [TG_W_F8_E5M2] = {"F8_E5M2", 8,  19},
    [TG_W_F8_E4M3] = {"F8_E4M3", 8,  17},
    [TG_W_F8_E8M0] = {"F8_E8M0", 8,  0 },
    [TG_W_I16] = {"I16",     16, 5 },
    [TG_W_U16] = {"U16",     16, 4 },
    [TG_W_F16] = {"F16",     16, 10},
    [TG_W_BF16] = {"BF16",    16, 16},
    [TG_W_I32] = {"I32",     32, 6 },
    [TG_W_U32] = {"U32",     32, 12},
    [TG_W_F32] = {"F32",     32, 1 },
    [TG_W_C64] = {"C64",     64, 0 },
    [TG_W_F64] = {"F64",     64, 11},
    [TG_W_I64] = {"I64",     64, 7 },
    [TG_W_U64] = {"U64",     64, 13},
};

const char *tg_wtype_name(enum tg_wtype t)
{
    return (size_t)t < TG_W_COUNT ? types[t].name : "?";
}

size_t tg_wtype_bits(enum tg_wtype t)
{
    return (size_t)t < TG_W_COUNT ? types[t].bits : 0;
}

uint32_t tg_wtype_onnx(enum tg_wtype t)
{
    return (size_t)t < TG_W_COUNT ? types[t].onnx : 0;
}

enum tg_wtype tg_wtype_from_name(struct tg_bytes name)
{
    for (size_t i = 0; i < TG_W_COUNT; i++)
        if (tg_bytes_eq(name, tg_bytes_str(types[i].name)))
            return (enum tg_wtype)i;
    return TG_W_COUNT;
}

/* ---- what both readers check ---- */

bool tg_weight_name_ok(struct tg_bytes name)
{
    if (name.n == 0 || name.n > TG_WEIGHT_NAME_MAX || !tg_utf8_ok(name))
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < 0x20 || name.p[i] == 0x7f)
            return false;
    return true;
}

enum tg_rc tg_weight_bytes(enum tg_wtype type, const struct tg_shape *shape, size_t *bytes)
{
    size_t count = 0, bits = tg_wtype_bits(type);

    TG_TRY(tg_shape_count(shape, SIZE_MAX / 64, &count));
    if (count * bits % 8 != 0)
        return TG_E_FORMAT;
    *bytes = count * bits / 8;
    return TG_OK;
}

bool tg_weight_bools_ok(enum tg_wtype type, struct tg_bytes data)
{
    for (size_t i = 0; type == TG_W_BOOL && i < data.n; i++)
        if (data.p[i] > 1)
            return false;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tg_weight *)a)->name, ((const struct tg_weight *)b)->name);
}

enum tg_rc tg_weights_sort(struct tg_weights *w, const char *what, struct tg_err *err)
{
    if (w->n == 0)
        return TG_OK;
    qsort(w->v, w->n, sizeof(*w->v), by_name);
    for (size_t i = 1; i < w->n; i++)
        if (strcmp(w->v[i - 1].name, w->v[i].name) == 0)
            return TG_FAIL(err, TG_E_FORMAT, "%s: tensor '%.200s' is there twice", what,
                           w->v[i].name);
    return TG_OK;
}

/* ---- which reader ---- */

static bool begins(struct tg_bytes file, const char *magic, size_t n)
{
    return tg_bytes_eq(tg_bytes_sub(file, 0, n), tg_bytes_make(magic, n));
}

/* What torch.save wrote before 1.6 begins with a pickled number; a tar comes from before 0.1. */
#define LEGACY "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
#define RESAVE                                                                                     \
    "load it once where you trust it and save it again: torch.save(model.state_dict(), \"w.pt\")"

static enum tg_rc refuse_kind(struct tg_bytes file, const char *what, struct tg_err *err)
{
    if (begins(file, LEGACY, sizeof(LEGACY) - 1))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "%s: PyTorch's old file form (before 1.6), which is not read; " RESAVE,
                       what);
    if (file.n > 262 && tg_bytes_eq(tg_bytes_sub(file, 257, 5), tg_bytes_str("ustar")))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "%s: a tar file (PyTorch's oldest form), which is not read; " RESAVE, what);
    if (file.n > 2 && file.p[0] == 0x80 && file.p[1] >= 2 && file.p[1] <= 5)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "%s: a bare pickle, which is not read; " RESAVE,
                       what);
    return TG_FAIL(err, TG_E_FORMAT, "%s: neither a safetensors file nor a PyTorch archive", what);
}

bool tg_weights_is_archive(struct tg_bytes head)
{
    return begins(head, "PK", 2);
}

static bool is_safetensors(struct tg_bytes head)
{
    return head.n > 8 && head.p[8] == '{';
}

enum tg_rc tg_weights_kind(struct tg_bytes head, const char *what, struct tg_err *err)
{
    return tg_weights_is_archive(head) || is_safetensors(head) ? TG_OK
                                                               : refuse_kind(head, what, err);
}

enum tg_rc tg_weights_parse(struct tg_bytes file, const char *what, struct tg_weights *out,
                            struct tg_err *err)
{
    TG_TRY(tg_weights_kind(file, what, err));
    return (tg_weights_is_archive(file) ? tg_torch_parse : tg_safetensors_parse)(file, what, out,
                                                                                 err);
}

void tg_weights_done(struct tg_weights *w)
{
    tg_arena_free(w->arena);
    tg_secret_free(w->copies);
    *w = (struct tg_weights)TG_WEIGHTS_INIT;
}

static int find_name(const void *key, const void *item)
{
    return tg_bytes_cmp(*(const struct tg_bytes *)key,
                        tg_bytes_str(((const struct tg_weight *)item)->name));
}

const struct tg_weight *tg_weights_find(const struct tg_weights *w, struct tg_bytes name)
{
    return w->n == 0 ? NULL : bsearch(&name, w->v, w->n, sizeof(*w->v), find_name);
}

/* ---- packing ---- */

size_t tg_weight_size(const struct tg_weight *w)
{
    size_t bytes = 0;

    /* The reader checked it. */
    return tg_weight_bytes(w->type, &w->shape, &bytes) == TG_OK ? bytes : 0;
}

static void copy_strided(const struct tg_weight *w, size_t from, size_t n, uint8_t *out)
{
    size_t size = tg_wtype_bits(w->type) / 8;
    size_t index[TG_DIMS_MAX] = {0};
    size_t at = 0; /* element in w->bytes */
    size_t rest = from;

    for (size_t d = w->shape.n; d > 0; d--) {
        index[d - 1] = rest % (size_t)w->shape.d[d - 1];
        rest /= (size_t)w->shape.d[d - 1];
        at += index[d - 1] * (size_t)w->stride[d - 1];
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(out + i * size, w->bytes.p + at * size, size);
        for (size_t d = w->shape.n; d > 0; d--) {
            at += (size_t)w->stride[d - 1];
            if (++index[d - 1] < (size_t)w->shape.d[d - 1])
                break;
            at -= index[d - 1] * (size_t)w->stride[d - 1];
            index[d - 1] = 0;
        }
    }
}

void tg_weight_copy(const struct tg_weight *w, size_t from, size_t n, uint8_t *out)
{
    size_t size = tg_wtype_bits(w->type) / 8;

    if (n == 0)
        return;
    if (w->stride == NULL)
        memcpy(out, w->bytes.p + from * size, n * size);
    else
        copy_strided(w, from, n, out);
}

#define ALIGN 64 /* where a vector unit likes a tensor to begin */

enum tg_rc tg_weights_pack(struct tg_weights *w, struct tg_err *err)
{
    size_t total = 0, at = 0;

    for (size_t i = 0; i < w->n; i++)
        if (w->v[i].stride != NULL &&
            !tg_add_size(total, (tg_weight_size(&w->v[i]) + ALIGN - 1) / ALIGN * ALIGN, &total))
            return TG_FAIL(err, TG_E_LIMIT, "strided tensors are too large to be copied");
    if (total == 0)
        return TG_OK;
    TG_TRY(tg_secret_new(total, &w->copies, err));
    for (size_t i = 0; i < w->n; i++) {
        struct tg_weight *t = &w->v[i];
        size_t bytes = tg_weight_size(t);
        uint8_t *to = tg_secret_data(w->copies) + at;

        if (t->stride == NULL)
            continue;
        tg_weight_copy(t, 0, bytes * 8 / tg_wtype_bits(t->type), to);
        t->bytes = tg_bytes_make(to, bytes);
        t->stride = NULL;
        at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    return tg_secret_seal(w->copies, err);
}
