#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/contents.h"
#include "cli/keys.h"
#include "cli/package.h"
#include "cli/provenance.h"
#include "cli/signals.h"
#include "codec/text.h"
#include "tensor/format.h"
#include "tgsp/build.h"

struct build {
    bool json;
    const char *input_dir, *out, *signing_key, *passphrase_file;
    struct tg_opt_list recipient;
    const char *model_name, *model_version;
    const char *sequence, *floor;
    struct tg_opt_list metadata, fleet;
    const char *not_before, *not_after, *min_agent;
    const char *chunk_size, *aead, *provenance, *convert;
};

#define STR_(field_, name_, req_, arg_, help_)                                                     \
    {                                                                                              \
        name_, TG_OPT_STR, offsetof(struct build, field_), req_, arg_, help_                       \
    }
#define LIST_(field_, name_, arg_, help_)                                                          \
    {                                                                                              \
        name_, TG_OPT_LIST, offsetof(struct build, field_), false, arg_, help_                     \
    }

/* clang-format off */
static const struct tg_opt OPTS[] = {
    CLI_OPT_JSON,
    STR_(input_dir, "input-dir", true, "DIR", "folder of the model; every regular file in it is packed"),
    STR_(out, "out", true, "F.tgsp", "package to write (replaced if it exists)"),
    STR_(signing_key, "signing-key", true, "KEY", "your signing.priv"),
    CLI_OPT_PASSPHRASE(struct build),
    LIST_(recipient, "recipient", "PUB", "encryption.pub or vault.pub of who may open it; default: your own encryption.pub beside the signing key, made if missing"),
    STR_(model_name, "model-name", true, "NAME", "what devices know the model by (1-256 bytes)"),
    STR_(model_version, "model-version", false, "V", "for people (default: 1.0.0)"),
    STR_(sequence, "sequence", false, "N", "order of packages of one model; devices don't go back (default: now, in Unix seconds)"),
    STR_(floor, "floor", false, "N", "devices refuse sequences below N for good once this package ran (default 0)"),
    LIST_(metadata, "metadata", "K=V", "a fact for whoever inspects the package; not secret"),
    STR_(not_before, "not-before", false, "TIME", "devices refuse it before (2026-12-31T23:59:59Z, 2026-12-31, +2h)"),
    STR_(not_after, "not-after", false, "TIME", "devices refuse it from then on (also +90d)"),
    LIST_(fleet, "fleet", "NAME", "only devices enrolled to one of these fleets may run it"),
    STR_(min_agent, "min-agent", false, "X.Y.Z", "only agents of this version or newer may run it"),
    STR_(chunk_size, "chunk-size", false, "N", "bytes per chunk, a power of two from 65536 to 16777216 (default 1048576)"),
    STR_(aead, "aead", false, "NAME", "chacha20-poly1305 (default) or aes-256-gcm"),
    STR_(provenance, "provenance", false, "FILE", "an in-toto statement (JSON) about how the model was made"),
    STR_(convert, "convert", false, "FORMAT", "safetensors: pack PyTorch archives as safetensors files (the folder stays as it is)"),
    CLI_OPT_END,
};

/* clang-format on */

/* What the options become; borrowed by struct tg_tgsp_build. */
struct plan {
    struct tg_tgsp_inputs *inputs;
    struct tg_sign_sk *signer;
    struct tg_buf passphrase; /* of the signing key, for a new encryption key beside it */
    struct tg_kem_pk **recipients;
    size_t n_recipients;
    struct tg_jpair *metadata;
    char *weights_file; /* of metadata, after conversion; NULL: as it was given */
    size_t converted;
    struct tg_buf provenance;
    struct tg_tgsp_build b;
};

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n_recipients; i++)
        tg_kem_pk_free(p->recipients[i]);
    tg_free(p->recipients);
    for (size_t i = 0; i < p->b.model.metadata.n; i++)
        tg_free((void *)(uintptr_t)p->metadata[i].key);
    tg_free(p->metadata);
    tg_free(p->weights_file);
    tg_buf_done(&p->provenance);
    tg_buf_done(&p->passphrase);
    tg_sign_sk_free(p->signer);
    tg_tgsp_inputs_free(p->inputs);
}

/* ---- the folder ---- */

static enum tg_rc detect(const struct tg_tgsp_inputs *in, enum tg_format *out, struct tg_err *err)
{
    enum tg_format best = TG_FORMAT_OTHER;

    for (size_t i = 0; i < tg_tgsp_inputs_count(in); i++) {
        TG_AUTO(tg_fd_closep) int fd = -1;
        enum tg_format f = TG_FORMAT_OTHER;
        TG_TRY(tg_tgsp_inputs_open(in, i, &fd, err));
        TG_TRY(tg_format_probe(fd, tg_tgsp_inputs_at(in, i)->path, &f, err));
        best = tg_format_prefer(best, f);
    }
    *out = best;
    return TG_OK;
}

/* Would the package be written into the folder that it packs? Upwards from where it will lie,
 * folder by folder, until the root, which is its own parent. */
static enum tg_rc refuse_inside(const char *out, const char *dir, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *at = cli_dir_of(out);
    struct stat top, cur, up;

    if (at == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_AUTO(tg_fd_closep) int fd = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", at);
    if (stat(dir, &top) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", dir);
    if (fstat(fd, &cur) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", at);
    for (;;) {
        if (cur.st_dev == top.st_dev && cur.st_ino == top.st_ino)
            return TG_FAIL(err, TG_E_USAGE,
                           "--out %s lies inside --input-dir %s: the next build would pack it", out,
                           dir);
        int parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s", at);
        tg_fd_close(fd);
        fd = parent;
        if (fstat(fd, &up) != 0)
            return TG_FAIL_ERRNO(err, TG_E_IO, "%s", at);
        if (up.st_dev == cur.st_dev && up.st_ino == cur.st_ino)
            return TG_OK;
        cur = up;
    }
}

/* ---- recipients ---- */

/* Only the public half is gone: it follows from the private one. */
static enum tg_rc restore_pub(const char *priv, const char *pub, const struct build *o,
                              struct tg_kem_pk **out, struct tg_err *err)
{
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;

    TG_TRY(cli_kem_sk_load(priv, o->passphrase_file, &sk, err));
    TG_TRY(tg_kem_pk_save_file(tg_kem_sk_pk(sk), pub, false, err));
    (void)fprintf(stderr, "tensorguard build: %s was gone; made again from %s\n", pub, priv);
    return tg_kem_pk_new(tg_kem_pk_raw(tg_kem_sk_pk(sk)), out);
}

/* The author's own pair beside the signing key, made if it is not there. */
static enum tg_rc own_recipient(const struct build *o, struct plan *p, struct tg_kem_pk **out,
                                struct tg_err *err)
{
    TG_AUTO(tg_freep) char *dir = cli_dir_of(o->signing_key);
    TG_AUTO(tg_freep) char *pub = dir == NULL ? NULL : tg_asprintf("%s/encryption.pub", dir);
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;

    TG_AUTO(tg_freep) char *priv = dir == NULL ? NULL : tg_asprintf("%s/encryption.priv", dir);

    if (pub == NULL || priv == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (access(pub, F_OK) == 0)
        return tg_kem_pk_load_file(pub, out, err);
    if (access(priv, F_OK) == 0)
        return restore_pub(priv, pub, o, out, err);
    enum tg_rc rc = tg_kem_sk_generate(NULL, &sk);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "no encryption key could be made: %s", tg_rc_text(rc));
    TG_TRY(cli_kem_pair_save(sk, cli_passphrase_view(&p->passphrase), dir, false, err));
    (void)fprintf(stderr,
                  "tensorguard build: no --recipient and no %s: made your own encryption key "
                  "there; the package is encrypted to it alone\n",
                  pub);
    return tg_kem_pk_new(tg_kem_pk_raw(tg_kem_sk_pk(sk)), out);
}

static enum tg_rc load_recipients(const struct build *o, struct plan *p, struct tg_err *err)
{
    size_t n = o->recipient.n > 0 ? o->recipient.n : 1;

    p->recipients = tg_calloc(n, sizeof(struct tg_kem_pk *));
    if (p->recipients == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    p->n_recipients = n;
    if (o->recipient.n == 0)
        return own_recipient(o, p, &p->recipients[0], err);
    for (size_t i = 0; i < n; i++)
        TG_TRY(tg_kem_pk_load_file(o->recipient.v[i], &p->recipients[i], err));
    return TG_OK;
}

/* ---- what the manifest will say ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct tg_jpair *)a)->key, ((const struct tg_jpair *)b)->key);
}

static enum tg_rc parse_metadata(const struct build *o, struct plan *p, struct tg_err *err)
{
    struct tg_jlist *list = &p->b.model.metadata;

    p->metadata = tg_calloc(o->metadata.n + 1, sizeof(*p->metadata));
    if (p->metadata == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    if (o->metadata.n > TG_TGSP_METADATA_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--metadata: at most %d pairs", TG_TGSP_METADATA_MAX);
    list->items = p->metadata;
    for (size_t i = 0; i < o->metadata.n; i++) {
        const char *eq = strchr(o->metadata.v[i], '=');
        if (eq == NULL || eq == o->metadata.v[i])
            return TG_FAIL(err, TG_E_USAGE, "--metadata: '%s' is not of the form key=value",
                           o->metadata.v[i]);
        char *key = tg_strdup(o->metadata.v[i]);
        if (key == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        key[eq - o->metadata.v[i]] = 0;
        p->metadata[list->n++] = (struct tg_jpair){.key = key, .value = eq + 1};
    }
    qsort(p->metadata, list->n, sizeof(*p->metadata), by_key);
    for (size_t i = 1; i < list->n; i++)
        if (strcmp(p->metadata[i - 1].key, p->metadata[i].key) == 0)
            return TG_FAIL(err, TG_E_USAGE, "--metadata: '%s' is given twice", p->metadata[i].key);
    return TG_OK;
}

static enum tg_rc parse_model(const struct build *o, struct tg_tgsp_build *b, struct tg_err *err)
{
    struct tg_tgsp_model *m = &b->model;

    m->name = o->model_name;
    m->version = o->model_version != NULL ? o->model_version : "1.0.0";
    size_t n = strlen(m->name);
    if (n < 1 || n > TG_TGSP_NAME_MAX || !tg_utf8_ok(tg_bytes_str(m->name)))
        return TG_FAIL(err, TG_E_USAGE, "--model-name: 1 to %d bytes of UTF-8", TG_TGSP_NAME_MAX);
    if (strlen(m->version) > TG_TGSP_VERSION_MAX || !tg_utf8_ok(tg_bytes_str(m->version)))
        return TG_FAIL(err, TG_E_USAGE, "--model-version: at most %d bytes of UTF-8",
                       TG_TGSP_VERSION_MAX);
    b->sequence_from_time = o->sequence == NULL;
    if (o->sequence != NULL)
        TG_TRY(cli_number_parse("--sequence", o->sequence, TG_JSON_INT_MAX, &m->sequence, err));
    if (o->floor != NULL)
        TG_TRY(cli_number_parse("--floor", o->floor, TG_JSON_INT_MAX, &m->floor, err));
    uint64_t sequence = o->sequence != NULL ? m->sequence : (uint64_t)b->created_at;
    if (m->floor > sequence)
        return TG_FAIL(err, TG_E_USAGE,
                       "--floor %" PRIu64 " is above the package's own sequence %" PRIu64, m->floor,
                       sequence);
    return TG_OK;
}

static enum tg_rc parse_limits(const struct build *o, struct tg_tgsp_build *b, struct tg_err *err)
{
    struct tg_tgsp_validity *v = &b->validity;

    v->has_not_before = o->not_before != NULL;
    v->has_not_after = o->not_after != NULL;
    if (v->has_not_before)
        TG_TRY(cli_time_parse("--not-before", o->not_before, b->created_at, &v->not_before, err));
    if (v->has_not_after)
        TG_TRY(cli_time_parse("--not-after", o->not_after, b->created_at, &v->not_after, err));
    if (v->has_not_before && v->has_not_after && v->not_before >= v->not_after)
        return TG_FAIL(err, TG_E_USAGE, "--not-after is not later than --not-before");
    if (v->has_not_after && v->not_after <= b->created_at)
        (void)fprintf(stderr, "tensorguard build: --not-after has passed: no device will run it\n");
    if (o->fleet.n > TG_TGSP_FLEETS_MAX)
        return TG_FAIL(err, TG_E_USAGE, "--fleet: at most %d names", TG_TGSP_FLEETS_MAX);
    b->constraints.fleets = (struct tg_jlist){.items = o->fleet.v, .n = o->fleet.n};
    b->constraints.min_agent = o->min_agent;
    return TG_OK;
}

static enum tg_rc parse_shape(const struct build *o, struct tg_tgsp_build *b, struct tg_err *err)
{
    if (o->aead != NULL && tg_aead_from_name(o->aead, &b->aead) != TG_OK)
        return TG_FAIL(err, TG_E_USAGE, "--aead: '%s' is neither %s nor %s", o->aead,
                       tg_aead_name(TG_AEAD_CHACHA20_POLY1305), tg_aead_name(TG_AEAD_AES_256_GCM));
    if (o->chunk_size == NULL)
        return TG_OK;
    TG_TRY(cli_number_parse("--chunk-size", o->chunk_size, TG_TGSP_CHUNK_MAX, &b->chunk_size, err));
    if (b->chunk_size < TG_TGSP_CHUNK_MIN || (b->chunk_size & (b->chunk_size - 1)) != 0)
        return TG_FAIL(err, TG_E_USAGE, "--chunk-size: a power of two from %" PRIu32 " to %" PRIu32,
                       TG_TGSP_CHUNK_MIN, TG_TGSP_CHUNK_MAX);
    return TG_OK;
}

/* What goes in, and whether a device would take it. */
static enum tg_rc take_folder(const struct build *o, struct plan *p, enum tg_format *format,
                              struct tg_err *err)
{
    struct tg_jlist *metadata = &p->b.model.metadata;

    if (o->convert != NULL && strcmp(o->convert, "safetensors") != 0)
        return TG_FAIL(err, TG_E_USAGE, "--convert: '%s' is not safetensors", o->convert);
    TG_TRY(tg_tgsp_inputs_scan(o->input_dir, &p->inputs, err));
    TG_TRY(refuse_inside(o->out, o->input_dir, err));
    if (o->convert != NULL)
        TG_TRY(cli_contents_convert(p->inputs, o->out, metadata, &p->weights_file, &p->converted,
                                    err));
    TG_TRY(detect(p->inputs, format, err));
    return cli_contents_check(p->inputs, *format, metadata, err);
}

static enum tg_rc make_plan(const struct build *o, struct plan *p, struct tg_err *err)
{
    enum tg_format format = TG_FORMAT_OTHER;
    struct tg_tgsp_build *b = &p->b;

    b->created_at = tg_clock_now();
    TG_TRY(parse_model(o, b, err));
    TG_TRY(parse_metadata(o, p, err));
    TG_TRY(parse_limits(o, b, err));
    TG_TRY(parse_shape(o, b, err));
    TG_TRY(cli_provenance_make(o->provenance, b->created_at, &p->provenance, err));
    TG_TRY(take_folder(o, p, &format, err));
    TG_TRY(cli_sign_sk_load(o->signing_key, o->passphrase_file, &p->signer, &p->passphrase, err));
    TG_TRY(load_recipients(o, p, err));
    b->model.format = (int)format; /* the same order: tensor/format.h, tgsp/format.h */
    b->inputs = p->inputs;
    b->provenance = tg_buf_view(&p->provenance);
    b->recipients = (const struct tg_kem_pk *const *)p->recipients;
    b->n_recipients = p->n_recipients;
    b->signer = p->signer;
    return TG_OK;
}

static void answer(struct cli_out *out, const struct build *o, const struct plan *p,
                   const struct tg_tgsp_built *made)
{
    cli_out_str(out, "file", "package", o->out);
    cli_out_hex(out, "package", "package (H)", TG_BYTES_OF(made->h));
    cli_out_hex(out, "package_id", "package id", TG_BYTES_OF(made->package_id));
    cli_out_str(out, "model", "model", p->b.model.name);
    cli_out_str(out, "version", "version", p->b.model.version);
    cli_out_u64(out, "sequence", "sequence", made->sequence);
    cli_out_str(out, "format", "format", tg_tgsp_model_formats[p->b.model.format]);
    cli_out_u64(out, "files", "files", tg_tgsp_inputs_count(p->inputs));
    if (o->convert != NULL)
        cli_out_u64(out, "converted", "converted", p->converted);
    cli_out_size(out, "size", "size", made->size);
    cli_out_hex(out, "signed_by", "signed by",
                tg_bytes_make(tg_sign_pk_id(tg_sign_sk_pk(p->signer)), TG_SIGN_ID_LEN));
    cli_out_table(out, "recipients", NULL);
    for (size_t i = 0; i < p->n_recipients; i++) {
        cli_out_row(out);
        cli_out_hex(out, "key_id", "Recipients",
                    tg_bytes_make(tg_kem_pk_id(p->recipients[i]), TG_KEM_ID_LEN));
    }
    cli_out_table_end(out, "");
}

static enum tg_rc run(struct cli *c, void *opts, const struct tg_opt_list *args, struct tg_err *err)
{
    const struct build *o = opts;
    struct tg_tgsp_built made;
    TG_AUTO(plan_done)
    struct plan p = {.passphrase = CLI_PASSPHRASE_INIT,
                     .provenance = TG_BUF_INIT(CLI_STATEMENT_MAX + 4096)};

    (void)args;
    if (strcmp(o->out, "-") == 0)
        return TG_FAIL(err, TG_E_USAGE, "--out -: a package is written with seeks; name a file");
    TG_TRY(make_plan(o, &p, err));
    cli_signals_catch();
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar = tg_progress_new("building", tg_tgsp_inputs_bytes(p.inputs));
    p.b.progress = bar;
    TG_TRY(tg_tgsp_build(&p.b, o->out, true, &made, err));
    answer(&c->out, o, &p, &made);
    return TG_OK;
}

const struct cli_verb cli_build = {
    .cmd =
        {.name = "build",
              .args = "",
              .summary = "pack, encrypt and sign a model folder",
              .details =
             "Every regular file beneath --input-dir is packed; links, devices, sockets and paths\n"
             "that could not be restored elsewhere are refused by name. The model's format is "
             "told\n"
             "by content. The model's name, version, file names and sizes can be read by anyone "
             "who\n"
             "holds the package; contents only by its recipients.\n\n"
             "Files of weights (safetensors, PyTorch archives) and ONNX external data are checked "
             "as "
             "the\n"
             "worker will check them; what it would refuse is refused here, with the place.\n\n"
             "  tensorguard build --input-dir ./my_model_v1 --out ./my_model_v1.tgsp \\\n"
             "                    --signing-key ./keys/signing.priv --model-name perception-net\n", .opts = OPTS},
    .opts_size = sizeof(struct build),
    .run = run,
};
