#include "moai/verify_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/region.h"
#include "base/secret.h"
#include "base/thread.h"
#include "codec/complain.h"
#include "codec/json.h"
#include "crypto/keyfile.h"
#include "moai/bake.h"
#include "moai/handover.h"
#include "moai/load.h"
#include "moai/protect.h"
#include "moai/sandbox.h"
#include "moai/scan.h"
#include "moai/verify_run.h"
#include "moai/worker.h"
#include "tgsp/package.h"
#include "tgsp/rollback.h"
#include "tgsp/trust.h"

/* Everything is opened before the sandbox; each reader gets descriptors of its own. */
struct inputs {
    int package, trust, key, rollback;
};

enum input { PLANT, LOAD, LOAD_NEXT, INPUTS };

enum stage { BEFORE, CONTROL, LOADED, CONTROL_KEPT, RUNNING, HANDED, SWAPPED, UNLOADED, STAGES };

/* What must be so inside the region. Of weights outside only the control is to be found, and what
 * was handed over where it was put. */
enum inside { NOTHING, SOMETHING, WHATEVER };

/* A piece that the search must find: of the package, or of what the runtime keeps. */
enum control { NONE, OF_PACKAGE, OF_KEPT };

static const struct {
    const char *name;
    enum inside inside;
    enum control control;
} stages[STAGES] = {
    [BEFORE] = {"before loading",                  NOTHING,   NONE      },
    [CONTROL] = {"control: one piece planted",      NOTHING,   OF_PACKAGE},
    [LOADED] = {"loaded",                          SOMETHING, NONE      },
    [CONTROL_KEPT] = {"control: one kept piece planted", SOMETHING, OF_KEPT   },
    [RUNNING] = {"during inference",                SOMETHING, NONE      },
    [HANDED] = {"handed over",                     SOMETHING, NONE      },
    [SWAPPED] = {"after the swap to the next",      WHATEVER,  NONE      },
    [UNLOADED] = {"after unloading",                 NOTHING,   NONE      },
};

struct verify {
    const struct tg_verify_memory_opts *o;
    struct inputs in[INPUTS];
    struct tg_bake_pipe pipe[INPUTS]; /* for models that are baked, as the worker does */
    int maps;
    unsigned threads;
    struct tg_ort *ort;
    struct tg_scan *scan; /* for the weights as the package has them */
    struct tg_scan *kept; /* and as the runtime keeps them: folded, fused; NULL: not known yet */
    struct tg_model *model;
    struct tg_handover *handover;
    uid_t uid;        /* who takes: we do */
    char *weights;    /* the file that is searched for */
    uint8_t *control; /* a page outside the region */
    bool wrong;       /* something was found where it must not be */
    bool first;       /* no stage was printed yet */
    enum tg_rc rc;
    struct tg_err *err;
};

/* ---- before the sandbox ---- */

static enum tg_rc open_one(const char *path, int *out, struct tg_err *err)
{
    *out = open(path, O_RDONLY | O_CLOEXEC);
    if (*out < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    return TG_OK;
}

/* An empty record: nothing was ever healthy here. */
static enum tg_rc open_record(int *out, struct tg_err *err)
{
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_ROLLBACK_MAX);

    TG_TRY(tg_rollback_new(&record));
    TG_TRY(tg_rollback_encode(record, &text, err));
    *out = memfd_create("rollback", MFD_CLOEXEC);
    if (*out < 0 || write(*out, text.data, text.n) != (ssize_t)text.n ||
        lseek(*out, 0, SEEK_SET) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "rollback record");
    return TG_OK;
}

static enum tg_rc open_all(struct verify *v, struct tg_err *err)
{
    const struct tg_verify_memory_opts *o = v->o;

    for (size_t i = 0; i < INPUTS; i++) {
        const char *package = i == LOAD_NEXT && o->next != NULL ? o->next : o->package;

        TG_TRY(open_one(package, &v->in[i].package, err));
        TG_TRY(open_one(o->trust, &v->in[i].trust, err));
        TG_TRY(open_one(o->key, &v->in[i].key, err));
        TG_TRY(open_record(&v->in[i].rollback, err));
    }
    return open_one("/proc/self/maps", &v->maps, err);
}

/* There is no agent. */
static enum tg_rc tell_nobody(void *arg, const struct tg_handover_note *note, struct tg_err *err)
{
    (void)arg;
    (void)note;
    (void)err;
    return TG_OK;
}

static enum tg_rc prepare(struct verify *v, struct tg_err *err)
{
    const struct tg_handover_opts take = {.users = {v->uid}, .n_users = 1, .tell = tell_nobody};

    TG_TRY(tg_handover_new(&take, &v->handover, err));
    TG_TRY(tg_worker_warm_up(err));
    TG_TRY(tg_ort_new(v->threads, &v->ort, err));
    for (size_t i = LOAD; i < INPUTS && tg_sandbox_landlock_version() > 0; i++)
        TG_TRY(tg_bake_pipe_new(&v->pipe[i], err));
    TG_TRY(tg_scan_new(&v->scan, err));
    v->control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (v->control == MAP_FAILED) {
        v->control = NULL;
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't map a page");
    }
    if (setvbuf(stdout, NULL, _IOLBF, 0) != 0 ||
        printf("%s", v->o->json ? "{\"stages\":[" : "") < 0)
        return TG_FAIL(err, TG_E_IO, "standard output: can't write what is found");
    *v->o->answered = v->o->json;
    TG_TRY(tg_sandbox_landlock(err));
    return tg_sandbox_enter(
        tg_sandbox_landlock_version() == 0 ? TG_SANDBOX_LOAD : TG_SANDBOX_LOAD_BAKE, err);
}

/* ---- what to look for ---- */

static enum tg_rc decrypt(struct tg_tgsp *p, const struct verify *v, struct tg_secret **out,
                          struct tg_err *err)
{
    const struct tg_tgsp_run run = {.threads = v->threads};
    uint64_t n = tg_tgsp_header_get(p)->payload_plain_len;

    if (n == 0 || n > SIZE_MAX / 2)
        return TG_FAIL(err, TG_E_LIMIT, "a payload of %" PRIu64 " bytes", n);
    TG_TRY(tg_secret_new((size_t)n, out, err));
    return tg_tgsp_read_all(p, tg_secret_data(*out), &run, err);
}

/* Where the weights are: a package has at least one file. */
static const struct tg_tgsp_file *largest(const struct tg_tgsp_manifest *m)
{
    const struct tg_tgsp_file *v = m->files.items, *most = v;

    for (size_t i = 1; i < m->files.n; i++)
        if (v[i].size > most->size)
            most = &v[i];
    return most;
}

static enum tg_rc plant(struct verify *v, const struct inputs *in, struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_secret_freep) struct tg_secret *plain = NULL;
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    struct tg_tgsp_policy policy = {.check_time = true,
                                    .now = tg_clock_now(),
                                    .fleet = v->o->fleet,
                                    .agent_version = TG_VERSION};
    const struct tg_tgsp_file *weights;
    struct tg_src src;

    TG_TRY(tg_fd_read_all(in->trust, v->o->trust, &text, err));
    TG_TRY(tg_trust_load(tg_buf_view(&text), v->o->trust, &trust, err));
    TG_TRY(tg_src_fd(&src, in->package, v->o->package, err));
    TG_TRY(tg_tgsp_open(&src, &p, err));
    TG_TRY(tg_tgsp_verify(p, trust, err));
    TG_TRY(tg_rollback_new(&record));
    policy.record = record;
    policy.trust = trust;
    TG_TRY(tg_tgsp_admit(p, &policy, err));
    TG_TRY(tg_kem_sk_load_fd(in->key, v->o->key, TG_BYTES_NONE, &sk, err));
    TG_TRY(tg_tgsp_unwrap(p, sk, err));
    TG_TRY(decrypt(p, v, &plain, err));
    weights = largest(tg_tgsp_manifest_get(p));
    v->weights = tg_strdup(weights->path);
    if (v->weights == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return tg_scan_plant(v->scan,
                         tg_bytes_sub(tg_bytes_make(tg_secret_data(plain), tg_secret_size(plain)),
                                      (size_t)weights->offset, (size_t)weights->size),
                         err);
}

/* Weights that ONNX Runtime computed anew (a BatchNorm folded into the layer before) are no bytes
 * of the package: they are in the image that it runs in. A model that has none, or is too small for
 * it, is searched for by its package alone. */
static enum tg_rc plant_kept(struct verify *v, struct tg_err *err)
{
    TG_AUTO(tg_scan_freep) struct tg_scan *s = NULL;
    struct tg_bytes image =
        v->model->session == NULL ? TG_BYTES_NONE : tg_session_image(v->model->session);
    struct tg_err why = TG_ERR_INIT;
    enum tg_rc rc;

    if (image.n == 0)
        return TG_OK;
    TG_TRY(tg_scan_new(&s, err));
    rc = tg_scan_plant(s, image, &why);
    if (rc == TG_E_UNSUPPORTED)
        return TG_OK;
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "%s", why.msg);
    v->kept = tg_steal(&s);
    return TG_OK;
}

/* ---- stages ---- */

struct findings {
    struct tg_scan_found v[TG_SCAN_SIDES], kept[TG_SCAN_SIDES];
};

/* Are the weights that are searched for among what is handed over? */
static bool weights_handed(const struct verify *v)
{
    struct tg_handover_copy c;

    for (size_t i = 0; v->handover != NULL && tg_handover_copy(v->handover, i, &c); i++)
        if (strcmp(c.file, v->weights) == 0)
            return true;
    return false;
}

static bool outside_as_it_must_be(const struct tg_scan_found *out, bool control)
{
    return control ? out->pages == 1 && out->clusters == 1 : !tg_scan_any(out);
}

/* Two versions may have weights in common. Of a package that is held, not run, none are kept. */
static bool inside_is_right(const struct verify *v, enum stage s, const struct tg_scan_found *in)
{
    bool held = v->model != NULL && v->model->session == NULL;

    return stages[s].inside == WHATEVER ||
           tg_scan_any(in) == (stages[s].inside == SOMETHING && !held);
}

/* In what was handed over lie those that the package has too. */
static bool kept_as_it_must_be(const struct verify *v, enum stage stage, const struct findings *f)
{
    return inside_is_right(v, stage, &f->kept[TG_SCAN_INSIDE]) &&
           outside_as_it_must_be(&f->kept[TG_SCAN_OUTSIDE], stages[stage].control == OF_KEPT);
}

static bool as_it_must_be(const struct verify *v, enum stage stage, const struct findings *f)
{
    if (!inside_is_right(v, stage, &f->v[TG_SCAN_INSIDE]) ||
        (v->kept != NULL && !kept_as_it_must_be(v, stage, f)))
        return false;
    /* where they are meant to be outside, all of them must be found */
    if (weights_handed(v) ? f->v[TG_SCAN_HANDED].clusters != tg_scan_clusters(v->scan)
                          : stage != HANDED && tg_scan_any(&f->v[TG_SCAN_HANDED]))
        return false;
    return stages[stage].control == OF_KEPT || /* which may be one of the package's too */
           outside_as_it_must_be(&f->v[TG_SCAN_OUTSIDE], stages[stage].control == OF_PACKAGE);
}

static void show_json(const struct verify *v, enum stage stage, const struct findings *f, bool good)
{
    const struct tg_scan_found *in = &f->v[TG_SCAN_INSIDE], *out = &f->v[TG_SCAN_OUTSIDE];
    const struct tg_scan_found *handed = &f->v[TG_SCAN_HANDED];
    double copies = (double)in->words / (double)(tg_scan_clusters(v->scan) * TG_SCAN_WORDS);

    (void)printf("%s{\"stage\":\"%s\",\"ok\":%s,\"level\":\"%s\",\"clusters\":%zu,"
                 "\"inside\":{\"searched\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"clusters\":%" PRIu64
                 ",\"copies\":%.2f},\"outside\":{\"searched\":%" PRIu64 ",\"pages\":%" PRIu64
                 ",\"clusters\":%" PRIu64 "}",
                 v->first ? "" : ",", stages[stage].name, good ? "true" : "false",
                 tg_level_name(tg_region_level()), tg_scan_clusters(v->scan), in->searched,
                 in->pages, in->clusters, copies, out->searched, out->pages, out->clusters);
    if (v->kept != NULL)
        (void)printf(",\"kept\":{\"clusters\":%zu,\"inside\":{\"pages\":%" PRIu64
                     ",\"clusters\":%" PRIu64 "},\"outside\":{\"pages\":%" PRIu64
                     ",\"clusters\":%" PRIu64 "}}",
                     tg_scan_clusters(v->kept), f->kept[TG_SCAN_INSIDE].pages,
                     f->kept[TG_SCAN_INSIDE].clusters, f->kept[TG_SCAN_OUTSIDE].pages,
                     f->kept[TG_SCAN_OUTSIDE].clusters);
    if (stage == HANDED)
        (void)printf(",\"handed\":{\"searched\":%" PRIu64 ",\"pages\":%" PRIu64
                     ",\"clusters\":%" PRIu64 "},\"handovers\":[",
                     handed->searched, handed->pages, handed->clusters);
}

/* How often something was found, counted either way. */
static uint64_t times(const struct tg_scan_found *f)
{
    return f->clusters > f->pages ? f->clusters : f->pages;
}

static void show_text(const struct verify *v, enum stage stage, const struct findings *f, bool good)
{
    const struct tg_scan_found *in = &f->v[TG_SCAN_INSIDE], *out = &f->v[TG_SCAN_OUTSIDE];
    double copies = (double)in->words / (double)(tg_scan_clusters(v->scan) * TG_SCAN_WORDS);

    (void)printf("%-31s outside: %" PRIu64 " found in %" PRIu64 " MiB   inside: %" PRIu64
                 " of %zu places in %" PRIu64 " MiB (%.2f copies)   %s\n",
                 stages[stage].name, times(out), out->searched >> 20, in->clusters,
                 tg_scan_clusters(v->scan), in->searched >> 20, copies, good ? "ok" : "WRONG");
    if (v->kept != NULL)
        (void)printf("%-31s outside: %" PRIu64 " found   inside: %" PRIu64 " of %zu places\n",
                     "    as the runtime keeps them", times(&f->kept[TG_SCAN_OUTSIDE]),
                     f->kept[TG_SCAN_INSIDE].clusters, tg_scan_clusters(v->kept));
}

#define WHERE "memfd:tensorguard-handover" /* what /proc/PID/maps calls it */

/* What is handed over, with its size, and how much of the weights it is. */
static enum tg_rc show_copy(const struct verify *v, size_t i, const struct tg_handover_copy *c,
                            const struct tg_scan_found *f)
{
    TG_AUTO(tg_buf_done) struct tg_buf name = TG_BUF_INIT(8 * TG_NATIVE_PATH_TEXT);

    TG_TRY(v->o->json ? tg_json_quote(&name, tg_bytes_str(c->file)) : tg_buf_str(&name, c->file));
    if (v->o->json)
        (void)printf("%s{\"file\":%s,\"bytes\":%zu,\"where\":\"" WHERE "\",\"pages\":%" PRIu64
                     ",\"clusters\":%" PRIu64 "}",
                     i > 0 ? "," : "", tg_buf_cstr(&name), c->size, f->pages, f->clusters);
    else
        (void)printf("    %s: %zu bytes in " WHERE ", %" PRIu64 " of %zu places\n",
                     tg_buf_cstr(&name), c->size, f->clusters, tg_scan_clusters(v->scan));
    return TG_OK;
}

static enum tg_rc show_copies(struct verify *v)
{
    struct tg_handover_copy c;
    struct tg_scan_found f;

    for (size_t i = 0; tg_handover_copy(v->handover, i, &c); i++) {
        tg_scan_begin(v->scan);
        tg_scan_range(v->scan, c.map, c.size, TG_SCAN_HANDED);
        tg_scan_result(v->scan, TG_SCAN_HANDED, &f);
        TG_TRY(show_copy(v, i, &c, &f));
    }
    (void)printf("%s", v->o->json ? "]" : "");
    return TG_OK;
}

static enum tg_rc search_for(const struct verify *v, struct tg_scan *s, bool tell,
                             struct tg_scan_found out[TG_SCAN_SIDES], struct tg_err *err)
{
    const struct tg_scan_process_opts opts = {
        .maps = v->maps, .tell = tell, .handover = v->handover};

    tg_scan_begin(s);
    TG_TRY(tg_scan_process(s, &opts, err));
    for (size_t i = 0; i < TG_SCAN_SIDES; i++)
        tg_scan_result(s, (enum tg_scan_side)i, &out[i]);
    return TG_OK;
}

static enum tg_rc search(struct verify *v, enum stage stage, struct tg_err *err)
{
    struct findings f = {0};
    bool good, tell_where = stages[stage].control == NONE;

    TG_TRY(search_for(v, v->scan, tell_where, f.v, err));
    if (v->kept != NULL)
        TG_TRY(search_for(v, v->kept, tell_where, f.kept, err));
    good = as_it_must_be(v, stage, &f);
    v->wrong = v->wrong || !good;
    (v->o->json ? show_json : show_text)(v, stage, &f, good);
    v->first = false;
    if (stage == HANDED && show_copies(v) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    (void)printf("%s", v->o->json ? "}" : "");
    return TG_OK;
}

/* The search must find what is there. */
static enum tg_rc search_control(struct verify *v, enum stage stage, struct tg_err *err)
{
    const struct tg_scan *s = stages[stage].control == OF_KEPT ? v->kept : v->scan;
    enum tg_rc rc;

    if (s == NULL)
        return TG_OK;
    tg_scan_control(s, 0, v->control + 13);
    rc = search(v, stage, err);
    tg_wipe(v->control, 4096);
    return rc;
}

static enum tg_rc load(struct verify *v, enum input which, struct tg_model **out,
                       struct tg_err *err)
{
    const struct inputs *in = &v->in[which];
    const struct tg_load_opts opts = {
        .package = in->package,
        .trust = in->trust,
        .key = in->key,
        .rollback = in->rollback,
        .grant = -1,
        .deployment = -1,
        .arrival = -1,
        .fleet = v->o->fleet,
        .device_id = v->o->device_id,
        .now = tg_clock_now(),
        .threads = v->threads,
        .ort = v->ort,
        .keep_files = v->o->n_handover > 0,
        .bake_in = -1,
        .bake_out = -1,
        .pipe = &v->pipe[which],
    };

    tg_region_hurry(v->threads); /* as a worker does */
    TG_TRY(tg_model_load(&opts, out, err));
    tg_region_hurry(0);
    tg_model_settle(*out);
    return TG_OK;
}

/* ---- inference meanwhile ---- */

static enum tg_rc search_while_running(struct verify *v, struct tg_err *err)
{
    struct tg_verify_run *run = NULL;
    enum tg_rc rc, ran;

    if (v->model->session == NULL)
        return TG_OK; /* held, to be handed over: not run */
    TG_TRY(tg_verify_run_start(v->model->session, &run, err));
    rc = search(v, RUNNING, err);
    ran = tg_verify_run_stop(run, rc == TG_OK ? err : NULL);
    return rc != TG_OK ? rc : ran;
}

/* ---- hand-over ---- */

static enum tg_rc hand_over(struct verify *v, struct tg_err *err)
{
    TG_AUTO(tg_freep) union tg_native_msg *out = tg_calloc(1, sizeof(*out));
    int fd = -1;

    if (out == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    tg_handover_model(v->handover, v->model);
    for (size_t i = 0; i < v->o->n_handover; i++) {
        struct tg_native_take take = {.tensor = ""};
        enum tg_rc rc;

        tg_native_text(take.path, sizeof(take.path), v->o->handover[i]);
        rc = tg_handover_take(v->handover, &(struct tg_handover_ask){v->uid, v, &take}, out, &fd,
                              err);
        if (rc != TG_OK)
            tg_err_wrap(err, "--handover");
        TG_TRY(rc);
    }
    return search(v, HANDED, err);
}

/* ---- all of it ---- */

static enum tg_rc swap(struct verify *v, struct tg_err *err)
{
    struct tg_model *next = NULL;

    TG_TRY(load(v, LOAD_NEXT, &next, err));
    tg_handover_free(v->handover); /* as the worker of the version before ends */
    v->handover = NULL;
    tg_model_free(v->model);
    v->model = next;
    return search(v, SWAPPED, err);
}

static enum tg_rc life(struct verify *v, struct tg_err *err)
{
    TG_TRY(prepare(v, err));
    TG_TRY(plant(v, &v->in[PLANT], err));
    TG_TRY(search(v, BEFORE, err));
    TG_TRY(search_control(v, CONTROL, err));
    TG_TRY(load(v, LOAD, &v->model, err));
    TG_TRY(plant_kept(v, err));
    TG_TRY(search(v, LOADED, err));
    TG_TRY(search_control(v, CONTROL_KEPT, err));
    TG_TRY(search_while_running(v, err));
    if (v->o->n_handover > 0)
        TG_TRY(hand_over(v, err));
    return swap(v, err);
}

/* A worker that unloads its model ends. What its threads keep for themselves (packing buffers of
 * the matrix routines, stacks) goes with them: so they end, and another one searches. */
static void life_thread(void *arg)
{
    struct verify *v = arg;

    v->rc = life(v, v->err);
    tg_model_free(v->model);
    tg_ort_free(v->ort);
}

static void last_thread(void *arg)
{
    struct verify *v = arg;

    v->rc = search(v, UNLOADED, v->err);
    if (v->rc == TG_OK && v->wrong)
        v->rc = TG_FAIL(v->err, TG_E_STATE, "weights were found where none may be");
}

static enum tg_rc run_threads(struct verify *v, struct tg_err *err)
{
    struct tg_thread *t = NULL;

    TG_TRY(tg_thread_start(life_thread, v, TG_THREAD_STACK_LARGE, &t, err));
    tg_thread_join(t);
    TG_TRY(v->rc);
    TG_TRY(tg_thread_start(last_thread, v, TG_THREAD_STACK_LARGE, &t, err));
    tg_thread_join(t);
    return v->rc;
}

static void close_all(struct verify *v)
{
    for (size_t i = 0; i < INPUTS; i++) {
        const int fds[] = {v->in[i].package, v->in[i].trust, v->in[i].key, v->in[i].rollback};

        for (size_t k = 0; k < TG_ARRAY_LEN(fds); k++)
            tg_fd_close(fds[k]);
        tg_bake_pipe_done(&v->pipe[i]);
    }
    tg_fd_close(v->maps);
}

/* The end of the object that prepare() began. */
static void close_answer(const struct tg_err *err, enum tg_rc rc)
{
    TG_AUTO(tg_buf_done) struct tg_buf why = TG_BUF_INIT(65536);
    struct tg_err told = *err;

    told.rc = rc;
    if (rc != TG_OK &&
        (tg_buf_str(&why, ",") != TG_OK || tg_complain_members(&told, &why) != TG_OK))
        tg_buf_clear(&why);
    (void)printf("]%s}\n", tg_buf_cstr(&why));
}

enum tg_rc tg_verify_memory(const struct tg_verify_memory_opts *opts, struct tg_err *err)
{
    struct verify v = {.o = opts, .maps = -1, .first = true, .err = err};
    enum tg_rc rc;

    for (size_t i = 0; i < INPUTS; i++) {
        v.in[i] = (struct inputs){-1, -1, -1, -1};
        v.pipe[i] = TG_BAKE_PIPE_INIT;
    }
    v.uid = geteuid();
    v.threads = opts->threads != 0 ? opts->threads : tg_thread_cpus();
    rc = open_all(&v, err);
    if (rc == TG_OK)
        rc = tg_sandbox_begin(err);
    if (rc == TG_OK)
        rc = tg_protect_require(opts->protection, err);
    if (rc == TG_OK)
        rc = run_threads(&v, err);
    if (*opts->answered)
        close_answer(err, rc);
    tg_scan_free(v.scan);
    tg_scan_free(v.kept);
    tg_handover_free(v.handover);
    tg_free(v.weights);
    close_all(&v);
    return rc;
}
