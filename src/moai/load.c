#include "moai/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/region.h"
#include "crypto/keyfile.h"
#include "moai/bake_seal.h"
#include "moai/golden.h"
#include "tensor/onnx.h"
#include "tgsp/deployment.h"
#include "tgsp/grant.h"
#include "tgsp/package.h"

static const char *const state_names[] = {
    [TG_LOAD_VERIFYING] = "verifying",
    [TG_LOAD_DECRYPTING] = "decrypting",
    [TG_LOAD_LOADING] = "loading",
    [TG_LOAD_CHECKING] = "checking",
};

const char *tg_load_state_name(enum tg_load_state s)
{
    return state_names[s];
}

/* Everything that is needed to decide and decrypt, and is gone before the model serves. */
struct work {
    const struct tg_load_opts *o;
    struct tg_trust *trust;
    struct tg_rollback *record;
    struct tg_deployment *deployment;
    struct tg_grant *grant;
    struct tg_kem_sk *sk;
    struct tg_follow *follow; /* NULL: the package is complete */
    struct tg_tgsp *package;
    const struct tg_tgsp_file *file; /* the model; NULL: not known yet */
    struct tg_bake_key bake_key;     /* of its sealed bake */
    bool bake_keyed;
    struct tg_bake bake;
    struct tg_secret *golden; /* the golden files, where nothing else was decrypted */
    struct tg_bytes *only;
};

static void work_done(struct work *w)
{
    tg_bake_done(&w->bake);
    tg_secret_free(w->golden);
    tg_free(w->only);
    tg_wipe(&w->bake_key, sizeof(w->bake_key));
    tg_tgsp_free(w->package);
    tg_follow_free(w->follow);
    tg_kem_sk_free(w->sk);
    tg_grant_free(w->grant);
    tg_deployment_free(w->deployment);
    tg_rollback_free(w->record);
    tg_trust_free(w->trust);
}

static enum tg_rc tell(const struct work *w, enum tg_load_state s, struct tg_err *err)
{
    return w->o->state == NULL ? TG_OK : w->o->state(w->o->arg, s, err);
}

/* ---- the documents beside the package ---- */

static enum tg_rc read_trust(struct work *w, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);

    TG_TRY(tg_fd_read_all(w->o->trust, "trust store", &text, err));
    return tg_trust_load(tg_buf_view(&text), "trust store", &w->trust, err);
}

static enum tg_rc read_record(struct work *w, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_ROLLBACK_MAX);

    TG_TRY(tg_fd_read_all(w->o->rollback, "rollback record", &text, err));
    return tg_rollback_decode(tg_buf_view(&text), "rollback record", &w->record, err);
}

static enum tg_rc read_deployment(struct work *w, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);

    if (w->o->deployment < 0)
        return TG_OK;
    TG_TRY(tg_fd_read_all(w->o->deployment, "deployment", &text, err));
    TG_TRY(tg_deployment_decode(tg_buf_view(&text), "deployment", &w->deployment, err));
    return tg_deployment_verify(w->deployment, w->trust, w->o->now, w->o->fleet, w->o->device_id,
                                err);
}

static enum tg_rc read_grant(struct work *w, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);

    if (w->o->grant < 0)
        return TG_OK;
    TG_TRY(tg_fd_read_all(w->o->grant, "grant", &text, err));
    return tg_grant_decode(tg_buf_view(&text), "grant", &w->grant, err);
}

/* ---- the package ---- */

/* One that is still being downloaded is read as it comes: reads wait for their bytes. */
static enum tg_rc open_source(struct work *w, struct tg_src *src, struct tg_err *err)
{
    const struct tg_follow_opts follow = {.file = w->o->package,
                                          .arrival = w->o->arrival,
                                          .name = "package",
                                          .again = w->o->again,
                                          .arg = w->o->arg};

    if (w->o->arrival < 0)
        return tg_src_fd(src, w->o->package, "package", err);
    TG_TRY(tg_follow_new(&follow, &w->follow, err));
    tg_follow_src(w->follow, src);
    return TG_OK;
}

static enum tg_rc verify(struct work *w, struct tg_err *err)
{
    struct tg_tgsp_policy policy = {
        .check_time = true, .now = w->o->now, .fleet = w->o->fleet, .agent_version = TG_VERSION};
    struct tg_src src;

    TG_TRY(read_trust(w, err));
    TG_TRY(open_source(w, &src, err));
    TG_TRY(tg_tgsp_open(&src, &w->package, err));
    TG_TRY(tg_tgsp_verify(w->package, w->trust, err));
    TG_TRY(read_record(w, err));
    TG_TRY(read_deployment(w, err));
    policy.record = w->record;
    policy.deployment = w->deployment;
    policy.trust = w->trust;
    return tg_tgsp_admit(w->package, &policy, err);
}

/* A model that can be run may have a sealed bake. Others are refused later, with their reason. */
static void key_for_bake(struct work *w)
{
    struct tg_err why = TG_ERR_INIT;

    if (w->o->bake_in < 0 && w->o->bake_out < 0)
        return;
    if (tg_model_pick(tg_tgsp_manifest_get(w->package), &w->file, &why) != TG_OK)
        return;
    if (tg_bake_key_make(w->sk, tg_tgsp_h(w->package), w->file->path, &w->bake_key, &why) == TG_OK)
        w->bake_keyed = true;
    else
        tg_log(TG_LOG_WARN, "moai.bake", "state=keyless code=%s", tg_rc_name(why.rc));
}

/* By the package's own block for this key; where it has none, by the grant. The KEM key leaves
 * memory as soon as the file key is there. */
static enum tg_rc unwrap(struct work *w, struct tg_err *err)
{
    enum tg_rc rc;

    TG_TRY(read_grant(w, err));
    TG_TRY(tg_kem_sk_load_fd(w->o->key, "KEM key", TG_BYTES_NONE, &w->sk, err));
    rc = tg_tgsp_unwrap(w->package, w->sk, err);
    if (rc == TG_E_NOTFORKEY && w->grant != NULL)
        rc = tg_tgsp_unwrap_grant(w->package, w->grant, w->trust, w->o->now, w->sk, err);
    else if (rc == TG_E_NOTFORKEY)
        tg_err_wrap(err, "no grant for this device was handed over");
    if (rc == TG_OK)
        key_for_bake(w);
    tg_kem_sk_free(w->sk);
    w->sk = NULL;
    return rc;
}

static enum tg_rc decrypt(struct work *w, struct tg_model *m, struct tg_err *err)
{
    uint64_t n = tg_tgsp_header_get(w->package)->payload_plain_len;
    const struct tg_tgsp_run run = {.threads = w->o->threads, .follow = w->follow};

    if (n > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "a payload of %" PRIu64 " bytes is too large", n);
    TG_TRY(tg_secret_new((size_t)n, &m->region, err));
    TG_TRY(tg_tgsp_read_all(w->package, tg_secret_data(m->region), &run, err));
    return tg_secret_seal(m->region, err);
}

/* ---- the model ---- */

static const char *named_file(const struct tg_tgsp_manifest *m)
{
    const struct tg_jpair *v = m->model.metadata.items;

    for (size_t i = 0; i < m->model.metadata.n; i++)
        if (strcmp(v[i].key, "model_file") == 0)
            return v[i].value;
    return NULL;
}

static const char *path_at(const void *manifest, size_t i)
{
    const struct tg_tgsp_manifest *m = manifest;
    const struct tg_tgsp_file *v = m->files.items;

    return v[i].path;
}

enum tg_rc tg_model_pick(const struct tg_tgsp_manifest *m, const struct tg_tgsp_file **out,
                         struct tg_err *err)
{
    const struct tg_onnx_files files = {.n = m->files.n, .path = path_at, .arg = m};
    const struct tg_tgsp_file *v = m->files.items;
    size_t i = 0;

    if (m->model.format != TG_MODEL_ONNX)
        return TG_FAIL(
            err, TG_E_UNSUPPORTED,
            "the package's model format is '%s'; this worker runs ONNX (export the model "
            "to ONNX and build again)",
            tg_tgsp_model_formats[m->model.format]);
    TG_TRY(tg_onnx_pick(&files, named_file(m), &i, err));
    *out = &v[i];
    return TG_OK;
}

/* Where the model lies, for what it names beside itself. */
struct beside {
    const struct tg_model_files *files;
    const char *model; /* its path in the package */
    bool used;
};

/* External data is named relative to the model's folder and may lie below it, nowhere else: paths
 * in a package have no "." or ".." parts, so a name that has matches none of them. */
static enum tg_rc file_beside(void *arg, struct tg_bytes location, struct tg_bytes *out)
{
    struct beside *b = arg;
    const char *slash = strrchr(b->model, '/');
    int dir = slash == NULL ? 0 : (int)(slash - b->model) + 1;
    char path[TG_TGSP_PATH_MAX + 1];
    int n;

    if (location.n > 2 && tg_mem_eq(location.p, "./", 2))
        location = tg_bytes_sub(location, 2, location.n - 2);
    if (location.n == 0 || location.n > TG_TGSP_PATH_MAX ||
        memchr(location.p, 0, location.n) != NULL)
        return TG_E_NOTFOUND;
    n = snprintf(path, sizeof(path), "%.*s%.*s", dir, b->model, (int)location.n,
                 (const char *)location.p);
    if (n < 0 || (size_t)n >= sizeof(path))
        return TG_E_NOTFOUND;
    b->used = true;
    return tg_model_file(b->files, path, out);
}

/* A package of a format that is not run here, of which files may be handed over. */
static bool is_held(const struct work *w)
{
    const struct tg_tgsp_file *file = NULL;
    struct tg_err why = TG_ERR_INIT;

    return w->o->keep_files &&
           tg_model_pick(tg_tgsp_manifest_get(w->package), &file, &why) == TG_E_UNSUPPORTED;
}

/* One that is held is read once as a whole, so that what is wrong with it is known before anybody
 * relies on it. Nothing of it is kept. */
static enum tg_rc pass_by(void *ctx, uint64_t off, struct tg_bytes plain, struct tg_err *err)
{
    (void)ctx;
    (void)off;
    (void)plain;
    (void)err;
    return TG_OK;
}

static enum tg_rc check_all(struct work *w, struct tg_err *err)
{
    const struct tg_tgsp_run run = {.threads = w->o->threads, .follow = w->follow};

    return tg_tgsp_each(w->package, pass_by, NULL, &run, err);
}

static void keep_package(struct work *w, struct tg_model *m)
{
    if (!w->o->keep_files)
        return;
    m->package = tg_steal(&w->package);
    m->follow = tg_steal(&w->follow);
    if (m->follow != NULL && !m->from_bake) /* then its chunks may still be coming */
        tg_follow_settle(m->follow);
}

/* ---- from the sealed bake of an earlier start ---- */

/* What was wrong with a sealed bake: it is made anew, whatever it was. */
static void note_bake(const char *what, enum tg_rc rc)
{
    tg_log(rc == TG_E_AUTH || rc == TG_E_FORMAT || rc == TG_E_LIMIT ? TG_LOG_WARN : TG_LOG_INFO,
           "moai.bake", "state=%s code=%s", what, tg_rc_name(rc));
}

static bool is_golden(const struct tg_tgsp_file *f)
{
    return strncmp(f->path, "golden/", 7) == 0;
}

/* Of the package itself only the golden files are needed. */
static enum tg_rc read_golden(struct work *w, struct tg_err *err)
{
    const struct tg_tgsp_manifest *m = tg_tgsp_manifest_get(w->package);
    const struct tg_tgsp_file *v = m->files.items;
    size_t sum = 0, at = 0;

    w->only = tg_calloc(m->files.n + 1, sizeof(*w->only));
    if (w->only == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->files.n; i++)
        if (is_golden(&v[i]) &&
            (v[i].size > SIZE_MAX / 4 || !tg_add_size(sum, (size_t)v[i].size, &sum)))
            return TG_FAIL(err, TG_E_LIMIT, "the golden files are too large");
    TG_TRY(tg_secret_new(sum + 1, &w->golden, err));
    for (size_t i = 0; i < m->files.n; i++) {
        uint8_t *to = tg_secret_data(w->golden) + at;

        if (!is_golden(&v[i]))
            continue;
        TG_TRY(tg_tgsp_read(w->package, v[i].offset, to, (size_t)v[i].size, 0, err));
        w->only[i] = tg_bytes_make(to, (size_t)v[i].size);
        at += (size_t)v[i].size;
    }
    return tg_secret_seal(w->golden, err);
}

/* true: w->bake holds the model. */
static bool thaw(struct work *w)
{
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc;

    if (!w->bake_keyed || w->o->bake_in < 0)
        return false;
    rc = tg_bake_unseal(w->o->bake_in, &w->bake_key, w->o->threads, &w->bake, &why);
    if (rc != TG_OK)
        note_bake("refused", rc);
    return rc == TG_OK;
}

/* What came of it is in m->from_bake: a bake that could be opened but does not run is made anew as
 * well, and what was needed for it is given back. */
static enum tg_rc load_thawed(struct work *w, struct tg_model *m, struct tg_err *err)
{
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc;

    TG_TRY(read_golden(w, err));
    TG_TRY(tell(w, TG_LOAD_LOADING, err));
    rc = tg_session_baked(w->o->ort, &w->bake, &m->session, &why);
    if (rc == TG_OK) {
        const struct tg_model_files files = {.manifest = tg_tgsp_manifest_get(w->package),
                                             .only = w->only};

        TG_TRY(tell(w, TG_LOAD_CHECKING, err));
        rc = tg_golden_check(m->session, &files, &m->golden_cases, &why);
    }
    note_bake(rc == TG_OK ? "opened" : "unusable", rc);
    m->from_bake = rc == TG_OK;
    if (rc == TG_OK)
        return TG_OK;
    tg_session_free(m->session);
    m->session = NULL;
    tg_bake_done(&w->bake);
    tg_secret_free(w->golden);
    w->golden = NULL;
    return TG_OK;
}

/* ---- from the package ---- */

static void keep_bake(const struct work *w)
{
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc;

    if (!w->bake_keyed || w->o->bake_out < 0)
        return;
    rc = tg_bake_seal(&w->bake, &w->bake_key, w->o->bake_out, &why);
    note_bake(rc == TG_OK ? "sealed" : "unsealed", rc);
}

/* Baked if it can be; as it is otherwise. */
static enum tg_rc make_session(struct work *w, const struct tg_session_spec *spec,
                               struct tg_model *m, struct tg_err *err)
{
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc = TG_E_UNSUPPORTED;

    if (w->o->pipe != NULL && w->o->pipe->in >= 0)
        rc = tg_bake_make(w->o->ort, spec, w->o->pipe, &w->bake, &why);
    if (rc == TG_OK) {
        keep_bake(w);
        rc = tg_session_baked(w->o->ort, &w->bake, &m->session, &why);
    }
    if (rc == TG_OK)
        return TG_OK;
    note_bake("none", rc);
    tg_bake_done(&w->bake);
    return tg_session_open(w->o->ort, spec, &m->session, err);
}

/* The weights are in the image, or ONNX Runtime's own: nothing is used from the package any more.
 */
static void release_files(struct tg_model *m)
{
    tg_named_done(&m->named);
    m->spent = tg_steal(&m->region);
}

static enum tg_rc load_session(struct work *w, struct tg_model *m, struct tg_err *err)
{
    const struct tg_tgsp_manifest *manifest = tg_tgsp_manifest_get(w->package);
    struct tg_bytes plain = tg_bytes_make(tg_secret_data(m->region), tg_secret_size(m->region));
    const struct tg_model_files files = {.manifest = manifest, .plain = plain};
    struct beside beside = {.files = &files};
    struct tg_session_spec spec = {.file = file_beside, .file_arg = &beside};

    TG_TRY(tg_model_pick(manifest, &w->file, err));
    beside.model = w->file->path;
    spec.model = tg_bytes_sub(plain, (size_t)w->file->offset, (size_t)w->file->size);
    TG_TRY(tg_named_load(&files, &spec, &m->named, err));
    TG_TRY(make_session(w, &spec, m, err));
    TG_TRY(tell(w, TG_LOAD_CHECKING, err));
    TG_TRY(tg_golden_check(m->session, &files, &m->golden_cases, err));
    if (tg_session_image(m->session).n > 0 || (!beside.used && spec.n_weights == 0))
        release_files(m);
    return TG_OK;
}

static enum tg_rc load_model(struct work *w, struct tg_model *m, struct tg_err *err)
{
    if (thaw(w))
        TG_TRY(load_thawed(w, m, err));
    if (m->from_bake)
        return TG_OK;
    if (tg_tgsp_header_get(w->package)->payload_plain_len == 0)
        return TG_FAIL(err, TG_E_FORMAT, "the package holds no file");
    if (is_held(w))
        return check_all(w, err);
    TG_TRY(decrypt(w, m, err));
    TG_TRY(tell(w, TG_LOAD_LOADING, err));
    return load_session(w, m, err);
}

static void take_facts(const struct work *w, struct tg_model *m)
{
    const struct tg_tgsp_model *facts = &tg_tgsp_manifest_get(w->package)->model;

    memcpy(m->name, facts->name, strlen(facts->name) + 1);
    memcpy(m->version, facts->version, strlen(facts->version) + 1);
    m->sequence = facts->sequence;
    m->floor = facts->floor;
    memcpy(m->h, tg_tgsp_h(w->package), sizeof(m->h));
}

enum tg_rc tg_model_load(const struct tg_load_opts *opts, struct tg_model **out, struct tg_err *err)
{
    TG_AUTO(work_done) struct work w = {.o = opts};
    TG_AUTO(tg_model_freep) struct tg_model *m = tg_calloc(1, sizeof(*m));
    uint64_t start = tg_clock_mono_ns();

    if (m == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tell(&w, TG_LOAD_VERIFYING, err));
    TG_TRY(verify(&w, err));
    take_facts(&w, m);
    TG_TRY(unwrap(&w, err));
    TG_TRY(tell(&w, TG_LOAD_DECRYPTING, err));
    TG_TRY(load_model(&w, m, err));
    keep_package(&w, m);
    m->load_ns = tg_clock_mono_ns() - start;
    *out = tg_steal(&m);
    return TG_OK;
}

/* By pieces: others wait for memory while one goes back. */
#define SETTLE_STEP ((size_t)16 << 20)

void tg_model_settle(struct tg_model *m)
{
    struct tg_err why = TG_ERR_INIT;
    size_t n = m->spent != NULL ? tg_secret_size(m->spent) : 0;

    for (; n > SETTLE_STEP; n -= SETTLE_STEP)
        if (tg_secret_trim(m->spent, n - SETTLE_STEP, &why) != TG_OK)
            break;
    tg_secret_free(m->spent);
    m->spent = NULL;
    tg_region_calm();
}

void tg_model_free(struct tg_model *m)
{
    if (m == NULL)
        return;
    tg_session_free(m->session);
    tg_named_done(&m->named);
    tg_secret_free(m->region);
    tg_secret_free(m->spent);
    tg_tgsp_free(m->package);
    tg_follow_free(m->follow);
    tg_free(m);
}
