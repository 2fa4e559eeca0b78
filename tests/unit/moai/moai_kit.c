/* Makes what a worker is handed, for the end-to-end tests: keys, trust stores, packages, grants,
 * signed deployments and rollback records, each with the one fault a test wants.
 *
 *     moai_kit keys DIR
 *     moai_kit package --dir DIR --input MODEL --out F [--signer NAME] [--recipient NAME] ...
 *     moai_kit grant|deployment|rollback ...
 *
 * Keys are named by the files that `keys` made in DIR: author, stranger, platform (signing),
 * device, other (KEM). */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/opt.h"
#include "crypto/keyfile.h"
#include "tgsp/build.h"
#include "tgsp/deployment.h"
#include "tgsp/grant.h"
#include "tgsp/package.h"
#include "tgsp/rollback.h"
#include "tgsp/signed_doc_internal.h"
#include "tgsp/trust.h"

struct args {
    const char *dir, *input, *out, *package, *signer, *recipient, *model, *version, *fleet, *device;
    const char *model_file, *weights_file, *format;
    uint64_t sequence, floor, lifetime, age, chunk;
    bool allow_rollback;
};

#define STR(opt, m)                                                                                \
    {                                                                                              \
        opt, TG_OPT_STR, offsetof(struct args, m), false, "X", ""                                  \
    }
#define U64(opt, m)                                                                                \
    {                                                                                              \
        opt, TG_OPT_U64, offsetof(struct args, m), false, "N", ""                                  \
    }

static const struct tg_opt opts[] = {
    STR("dir", dir),
    STR("input", input),
    STR("out", out),
    STR("package", package),
    STR("signer", signer),
    STR("recipient", recipient),
    STR("model", model),
    STR("version", version),
    STR("fleet", fleet),
    STR("device", device),
    STR("model-file", model_file),
    STR("weights-file", weights_file),
    STR("format", format),
    U64("sequence", sequence),
    U64("floor", floor),
    U64("lifetime", lifetime), /* seconds from made to not_after; 0: for ever */
    U64("age", age), /* made this many seconds ago */
    U64("chunk", chunk),
    {"allow-rollback", TG_OPT_FLAG, offsetof(struct args, allow_rollback), false,          NULL,          ""},
    {NULL,                TG_OPT_END,                        0,                   false,          NULL, NULL},
};

static enum tg_rc key_path(const struct args *a, const char *name, const char *ext, char out[4096])
{
    return snprintf(out, 4096, "%s/%s.%s", a->dir, name, ext) < 4096 ? TG_OK : TG_E_LIMIT;
}

static enum tg_rc signer_load(const struct args *a, const char *name, struct tg_sign_sk **sk,
                              struct tg_err *err)
{
    char path[4096];

    TG_TRY(key_path(a, name, "priv", path));
    return tg_sign_sk_load_file(path, TG_BYTES_NONE, sk, err);
}

static enum tg_rc trust_add(struct tg_trust *t, const struct tg_sign_sk *sk, unsigned roles,
                            struct tg_err *err)
{
    const struct tg_trust_key k = {.pk = tg_sign_sk_pk(sk), .roles = roles};

    return tg_trust_add(t, &k, err);
}

static enum tg_rc make_signer(const struct args *a, const char *name, struct tg_sign_sk **sk,
                              struct tg_err *err)
{
    char path[4096];

    TG_TRY(tg_sign_sk_generate(NULL, sk));
    TG_TRY(key_path(a, name, "priv", path));
    return tg_sign_sk_save_file(*sk, TG_BYTES_NONE, path, true, err);
}

static enum tg_rc make_kem(const struct args *a, const char *name, struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    char path[4096];

    TG_TRY(tg_kem_sk_generate(NULL, &sk));
    TG_TRY(key_path(a, name, "priv", path));
    TG_TRY(tg_kem_sk_save_file(sk, TG_BYTES_NONE, path, true, err));
    TG_TRY(key_path(a, name, "pub", path));
    return tg_kem_pk_save_file(tg_kem_sk_pk(sk), path, true, err);
}

static enum tg_rc do_keys(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *author = NULL, *stranger = NULL, *platform = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    char path[4096];

    TG_TRY(make_signer(a, "author", &author, err));
    TG_TRY(make_signer(a, "stranger", &stranger, err));
    TG_TRY(make_signer(a, "platform", &platform, err));
    TG_TRY(make_kem(a, "device", err));
    TG_TRY(make_kem(a, "other", err));
    TG_TRY(tg_trust_new(&t));
    TG_TRY(trust_add(t, author, TG_ROLE_AUTHOR | TG_ROLE_GRANTER, err));
    TG_TRY(trust_add(t, platform, TG_ROLE_PLATFORM, err));
    TG_TRY(tg_trust_save(t, 1, tg_clock_now(), NULL, 0, &text, err));
    TG_TRY(key_path(a, "store", "tgtrust", path));
    return tg_file_write(path, tg_buf_view(&text), 0644, true, err);
}

static int format_of(const char *name)
{
    for (int i = 0; name != NULL && tg_tgsp_model_formats[i] != NULL; i++)
        if (strcmp(tg_tgsp_model_formats[i], name) == 0)
            return i;
    return TG_MODEL_ONNX;
}

static enum tg_rc do_package(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *signer = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    struct tg_jpair named[2]; /* in order */
    size_t n_named = 0;
    int64_t made = tg_clock_now() - (int64_t)a->age;
    struct tg_tgsp_build b = {.aead = TG_AEAD_CHACHA20_POLY1305,
                              .created_at = made,
                              .threads = 1,
                              .chunk_size = a->chunk};
    char path[4096];

    TG_TRY(signer_load(a, a->signer, &signer, err));
    TG_TRY(key_path(a, a->recipient, "pub", path));
    TG_TRY(tg_kem_pk_load_file(path, &pk, err));
    TG_TRY(tg_tgsp_inputs_scan(a->input, &in, err));
    b.inputs = in;
    b.signer = signer;
    b.recipients = (const struct tg_kem_pk *const *)&pk;
    b.n_recipients = 1;
    b.model = (struct tg_tgsp_model){.name = a->model,
                                     .version = a->version,
                                     .sequence = a->sequence,
                                     .floor = a->floor,
                                     .format = format_of(a->format)};
    if (a->model_file != NULL)
        named[n_named++] = (struct tg_jpair){"model_file", a->model_file};
    if (a->weights_file != NULL)
        named[n_named++] = (struct tg_jpair){"weights_file", a->weights_file};
    b.model.metadata = (struct tg_jlist){named, n_named};
    if (a->fleet != NULL)
        b.constraints.fleets = (struct tg_jlist){(void *)(uintptr_t)&a->fleet, 1};
    b.validity.has_not_after = a->lifetime != 0;
    b.validity.not_after = made + (int64_t)a->lifetime;
    return tg_tgsp_build(&b, a->out, true, NULL, err);
}

static enum tg_rc open_package(const struct args *a, int *fd, struct tg_src *src,
                               struct tg_tgsp **p, struct tg_err *err)
{
    FILE *f = fopen(a->package, "rb");

    if (f == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "%s", a->package);
    *fd = fileno(f); /* lives as long as the process */
    TG_TRY(tg_src_fd(src, *fd, a->package, err));
    return tg_tgsp_open(src, p, err);
}

/* Made by whoever signed the package and holds "other", to "device". */
static enum tg_rc do_grant(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *signer = NULL, *author = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *other = NULL;
    TG_AUTO(tg_kem_pk_freep) struct tg_kem_pk *pk = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    struct tg_grant_spec spec = {.issued_at = tg_clock_now() - (int64_t)a->age};
    struct tg_src src;
    char path[4096];
    int fd;

    TG_TRY(open_package(a, &fd, &src, &p, err));
    TG_TRY(signer_load(a, "author", &author, err));
    TG_TRY(signer_load(a, a->signer, &signer, err));
    TG_TRY(tg_trust_new(&t));
    TG_TRY(trust_add(t, author, TG_ROLE_AUTHOR, err));
    TG_TRY(tg_tgsp_verify(p, t, err));
    TG_TRY(tg_tgsp_admit(p, &(struct tg_tgsp_policy){.check_time = false}, err));
    TG_TRY(key_path(a, "other", "priv", path));
    TG_TRY(tg_kem_sk_load_file(path, TG_BYTES_NONE, &other, err));
    TG_TRY(tg_tgsp_unwrap(p, other, err));
    TG_TRY(key_path(a, a->recipient, "pub", path));
    TG_TRY(tg_kem_pk_load_file(path, &pk, err));
    spec.recipient = pk;
    spec.signer = signer;
    spec.not_before = spec.issued_at;
    spec.not_after = spec.issued_at + (int64_t)(a->lifetime != 0 ? a->lifetime : 86400);
    TG_TRY(tg_grant_make(p, &spec, &text, err));
    return tg_file_write(a->out, tg_buf_view(&text), 0644, true, err);
}

/* A grant whose body is what was given: well signed, whatever it says. */
static enum tg_rc do_sign_grant(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *signer = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf body = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);

    TG_TRY(signer_load(a, a->signer, &signer, err));
    TG_TRY(tg_file_read(a->input, &body, err));
    const struct tg_sign_sk *const keys[] = {signer};
    const struct tg_signers by = {.keys = keys, .n = 1};
    TG_TRY(tg_signed_doc_make(TG_DOC_GRANT, tg_buf_view(&body), &by, &text, err));
    return tg_file_write(a->out, tg_buf_view(&text), 0644, true, err);
}

static enum tg_rc do_deployment(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_sign_sk_freep) struct tg_sign_sk *signer = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    struct tg_deployment_fields f = {.deployment_id = "d-1",
                                     .fleet = a->fleet,
                                     .device = a->device,
                                     .allow_rollback = a->allow_rollback};
    struct tg_src src;
    int fd;

    TG_TRY(open_package(a, &fd, &src, &p, err));
    memcpy(f.header_sha256, tg_tgsp_h(p), TG_TGSP_H_LEN);
    f.issued_at = tg_clock_now() - (int64_t)a->age;
    f.not_after = f.issued_at + (int64_t)(a->lifetime != 0 ? a->lifetime : 86400);
    TG_TRY(signer_load(a, a->signer, &signer, err));
    TG_TRY(tg_deployment_make(&f, signer, &text, err));
    return tg_file_write(a->out, tg_buf_view(&text), 0644, true, err);
}

/* A record of having run `package` (of this model, sequence and floor); without one an empty
 * record. */
static enum tg_rc do_rollback(const struct args *a, struct tg_err *err)
{
    TG_AUTO(tg_rollback_freep) struct tg_rollback *r = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_ROLLBACK_MAX);
    struct tg_rollback_query q = {.model = a->model, .sequence = a->sequence, .floor = a->floor};
    struct tg_src src;
    int fd;

    TG_TRY(tg_rollback_new(&r));
    if (a->package != NULL) {
        TG_TRY(open_package(a, &fd, &src, &p, err));
        q.header_sha256 = tg_tgsp_h(p);
        TG_TRY(tg_rollback_accept(r, &q, err));
    }
    TG_TRY(tg_rollback_encode(r, &text, err));
    return tg_file_write(a->out, tg_buf_view(&text), 0644, true, err);
}

static const struct {
    const char *name;
    enum tg_rc (*fn)(const struct args *a, struct tg_err *err);
} verbs[] = {
    {"keys",       do_keys      },
    {"package",    do_package   },
    {"grant",      do_grant     },
    {"sign-grant", do_sign_grant},
    {"deployment", do_deployment},
    {"rollback",   do_rollback  }
};

int main(int argc, char **argv)
{
    const struct tg_cmd cmd = {"kit", "", "", NULL, opts, 0, 0};
    struct args a = {
        .signer = "author", .recipient = "device", .model = "net", .version = "1", .sequence = 10};
    struct tg_opt_list rest = {NULL, 0};
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = TG_E_USAGE;
    bool help;

    if (argc > 1)
        rc = tg_opt_parse(&cmd, argc - 2, argv + 2, &a, &rest, &help, &err);
    for (size_t i = 0; rc == TG_OK && i < TG_ARRAY_LEN(verbs); i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            rc = verbs[i].fn(&a, &err);
    if (rc != TG_OK)
        (void)fprintf(stderr, "moai_kit: %s: %s\n", tg_rc_name(rc), err.msg);
    tg_opt_done(&cmd, &a, &rest);
    return tg_rc_exit(rc);
}
