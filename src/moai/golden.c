#include "moai/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/json.h"
#include "tensor/npy.h"
#include "tensor/num.h"

struct golden_case {
    struct tg_jlist inputs, outputs; /* name -> file beneath golden/ */
    const char *rtol, *atol;         /* decimal text: JSON numbers are integers here */
};

struct golden {
    struct tg_jlist cases;
};

static const struct tg_jfield case_fields[] = {
    TG_J_MAP(struct golden_case, inputs, 1, TG_OIP_TENSORS_MAX, TG_J_REQ),
    TG_J_MAP(struct golden_case, outputs, 1, TG_OIP_TENSORS_MAX, TG_J_REQ),
    TG_J_STR(struct golden_case, rtol, 1, 32, TG_J_OPT),
    TG_J_STR(struct golden_case, atol, 1, 32, TG_J_OPT),
};
static const struct tg_jschema case_schema =
    TG_J_SCHEMA(struct golden_case, case_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jfield golden_fields[] = {
    TG_J_OBJS(struct golden, cases, &case_schema, 1, TG_GOLDEN_CASES_MAX, TG_J_REQ),
};
static const struct tg_jschema golden_schema =
    TG_J_SCHEMA(struct golden, golden_fields, TG_J_REFUSE_UNKNOWN);

enum tg_rc tg_model_file(const struct tg_model_files *f, const char *path, struct tg_bytes *out)
{
    const struct tg_tgsp_file *first = f->manifest->files.items;
    const struct tg_tgsp_file *file = tg_tgsp_manifest_file(f->manifest, path);

    if (file == NULL)
        return TG_E_NOTFOUND;
    *out = f->only != NULL ? f->only[file - first]
                           : tg_bytes_sub(f->plain, (size_t)file->offset, (size_t)file->size);
    return out->p != NULL ? TG_OK : TG_E_NOTFOUND;
}

/* ---- comparing ---- */

static bool close_enough(double got, double want, double rtol, double atol)
{
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want);
    if (isinf(got) || isinf(want))
        return got == want;
    return fabs(got - want) <= atol + rtol * fabs(want);
}

enum tg_rc tg_golden_compare(const char *what, const struct tg_oip_tensor *got,
                             const struct tg_oip_tensor *want, double rtol, double atol,
                             struct tg_err *err)
{
    char a[TG_SHAPE_TEXT], b[TG_SHAPE_TEXT];
    size_t count = 0;

    tg_shape_text(&got->shape, a);
    tg_shape_text(&want->shape, b);
    if (got->dtype != want->dtype || !tg_shape_eq(&got->shape, &want->shape))
        return TG_FAIL(err, TG_E_STATE, "%s: the model gave %s %s, the golden file holds %s %s",
                       what, tg_dtype_name(got->dtype), a, tg_dtype_name(want->dtype), b);
    TG_TRY(tg_tensor_check(what, got->dtype, &got->shape, got->data, err));
    TG_TRY(tg_tensor_check(what, want->dtype, &want->shape, want->data, err));
    if (got->dtype == TG_DT_BYTES)
        return tg_bytes_eq(got->data, want->data)
                   ? TG_OK
                   : TG_FAIL(err, TG_E_STATE, "%s: the strings differ", what);
    TG_TRY(tg_shape_count(&got->shape, TG_OIP_DATA_MAX, &count));
    if (got->dtype < TG_DT_FP16)
        return tg_bytes_eq(got->data, want->data)
                   ? TG_OK
                   : TG_FAIL(err, TG_E_STATE, "%s: the values differ", what);
    for (size_t i = 0; i < count; i++) {
        double x = tg_tensor_f64(got->dtype, got->data, i);
        double y = tg_tensor_f64(want->dtype, want->data, i);

        if (!close_enough(x, y, rtol, atol))
            return TG_FAIL(err, TG_E_STATE,
                           "%s: element %zu of %zu is %.3g away from the golden output, more than "
                           "%.3g + %.3g of it",
                           what, i, count, fabs(x - y), atol, rtol);
    }
    return TG_OK;
}

/* ---- reading ---- */

static enum tg_rc tolerance(const char *name, size_t i, const char *text, double *out,
                            struct tg_err *err)
{
    struct tg_num n = {.text = TG_BYTES_NONE};

    if (text == NULL)
        text = "1e-4";
    if (tg_num_scan(tg_bytes_str(text), &n) != TG_OK || n.text.n != strlen(text) || n.negative ||
        tg_num_f64(&n, out) != TG_OK)
        return TG_FAIL(err, TG_E_FORMAT,
                       TG_GOLDEN_PATH ": cases[%zu].%s is not a decimal number ≥ 0", i, name);
    return TG_OK;
}

/* A case's .npy file as a tensor of that name; the data is borrowed from the package's memory. */
static enum tg_rc load(const struct tg_model_files *files, size_t i, const struct tg_jpair *pair,
                       struct tg_oip_tensor *out, struct tg_err *err)
{
    char path[TG_TGSP_PATH_MAX + 16];
    struct tg_bytes file = TG_BYTES_NONE;
    struct tg_npy npy = {.dtype = TG_DT_COUNT};

    if (strlen(pair->key) > TG_OIP_NAME_MAX)
        return TG_FAIL(err, TG_E_LIMIT, TG_GOLDEN_PATH ": cases[%zu]: a name over %d bytes", i,
                       TG_OIP_NAME_MAX);
    if (strchr(pair->value, '/') != NULL)
        return TG_FAIL(err, TG_E_FORMAT, TG_GOLDEN_PATH ": cases[%zu]: a file name holds '/'", i);
    if (snprintf(path, sizeof(path), "golden/%s", pair->value) >= (int)sizeof(path) ||
        tg_model_file(files, path, &file) != TG_OK)
        return TG_FAIL(err, TG_E_NOTFOUND,
                       TG_GOLDEN_PATH ": cases[%zu] names %s, which is not in the package", i,
                       path);
    TG_TRY(tg_npy_parse(file, path, &npy, err));
    *out = (struct tg_oip_tensor){.dtype = npy.dtype, .shape = npy.shape, .data = npy.data};
    memcpy(out->name, pair->key, strlen(pair->key) + 1);
    return TG_OK;
}

static enum tg_rc run_case(struct tg_session *s, const struct tg_model_files *files, size_t i,
                           const struct golden_case *c, struct tg_err *err)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
    const struct tg_jpair *pairs = c->inputs.items;
    double rtol = 0, atol = 0;

    if (in == NULL || out == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tolerance("rtol", i, c->rtol, &rtol, err));
    TG_TRY(tolerance("atol", i, c->atol, &atol, err));
    for (size_t k = 0; k < c->inputs.n; k++)
        TG_TRY(load(files, i, &pairs[k], &in->tensors[in->n++], err));
    pairs = c->outputs.items;
    for (size_t k = 0; k < c->outputs.n && strlen(pairs[k].key) <= TG_OIP_NAME_MAX; k++)
        memcpy(in->wanted[in->n_wanted++].name, pairs[k].key, strlen(pairs[k].key) + 1);
    TG_TRY(tg_session_run(s, in, out, NULL, err));
    for (size_t k = 0; k < c->outputs.n; k++) {
        struct tg_oip_tensor want;
        char what[TG_OIP_NAME_MAX + 64];

        TG_TRY(load(files, i, &pairs[k], &want, err));
        (void)snprintf(what, sizeof(what), "golden case %zu, output '%s'", i, pairs[k].key);
        TG_TRY(tg_golden_compare(what, &out->tensors[k], &want, rtol, atol, err));
    }
    return TG_OK;
}

enum tg_rc tg_golden_check(struct tg_session *s, const struct tg_model_files *files,
                           uint64_t *cases, struct tg_err *err)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_bytes text = TG_BYTES_NONE;
    struct golden g = {
        .cases = {NULL, 0}
    };
    const struct golden_case *v;

    *cases = 0;
    if (tg_model_file(files, TG_GOLDEN_PATH, &text) != TG_OK)
        return TG_OK;
    if (text.n > TG_GOLDEN_MAX)
        return TG_FAIL(err, TG_E_LIMIT, TG_GOLDEN_PATH ": %zu bytes, at most %d", text.n,
                       TG_GOLDEN_MAX);
    if (tg_arena_new(16 * TG_GOLDEN_MAX, &arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_json_decode(&golden_schema, text, TG_GOLDEN_PATH, arena, &g, err));
    v = g.cases.items;
    for (size_t i = 0; i < g.cases.n; i++) {
        enum tg_rc rc = run_case(s, files, i, &v[i], err);

        if (rc == TG_E_USAGE || rc == TG_E_INTERNAL) {
            tg_err_wrap(err, "golden case %zu", i);
            err->rc = TG_E_STATE; /* the model and its golden files do not belong together */
        }
        if (rc != TG_OK)
            return rc == TG_E_USAGE || rc == TG_E_INTERNAL ? TG_E_STATE : rc;
    }
    *cases = g.cases.n;
    return TG_OK;
}
