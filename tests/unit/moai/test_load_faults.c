/* From descriptors to a model that answers, on every way there is (from the package, baking, from a
 * sealed bake, while the package is still coming), with every allocation, read, write, mapping,
 * lock and thread of our own code failing in turn: the right code, no model, nothing left behind.
 * A bake is never worth a failure: what cannot be made, kept or read is made anew or left out; and
 * half of one is never opened. (Leaks: the address sanitizer. ONNX Runtime's own calls are in
 * another library and are left alone.)
 *
 * A run tries every read of every way, every allocation of the way from the package and a sample of
 * the rest; with TG_FULL=1 (make check) all of it.
 */
#include "../tgsp/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "crypto/keyfile.h"
#include "failing.h"
#include "moai/bake_seal.h"
#include "moai/load.h"
#include "onnx_make.h"
#include "tgsp/arrival.h"
#include "tgsp/rollback.h"

/* ---- the model: y = x + w, so large that its bake has two chunks ---- */

#define N 263000U
#define X 2.5F

static float weights[N];

static float weight(size_t i)
{
    return (float)(i % 1000);
}

static void onnx_format(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->model.format = TG_MODEL_ONNX;
    b->chunk_size = 4 * (uint64_t)TG_TGSP_CHUNK_MIN;
}

static void write_npy(struct fx *f, const char *name, const float *v, size_t n)
{
    static uint8_t file[128 + sizeof weights];
    int at = snprintf((char *)file, 128,
                      "\x93NUMPY\x01%c\x76%c{'descr': '<f4', 'fortran_order': False, 'shape': "
                      "(%zu,), }",
                      0, 0, n);
    memset(file + at, ' ', 128 - (size_t)at);
    file[127] = '\n';
    memcpy(file + 128, v, n * sizeof *v);
    fx_write(f, name, file, 128 + n * sizeof *v);
}

static struct tg_buf write_model(struct fx *f)
{
    struct tg_err err = TG_ERR_INIT;
    static const char golden[] =
        "{\"cases\":[{\"inputs\":{\"x\":\"x.npy\"},\"outputs\":{\"y\":\"y.npy\"}}]}";
    static const float x[1] = {X};
    const struct onnx_make m = {.type = 1,
                                .dims = {"n"},
                                .n_dims = 1,
                                .op = "Add",
                                .external = true,
                                .uses_w = true,
                                .w_len = N};
    TG_AUTO(tg_buf_done) struct tg_buf model = TG_BUF_INIT(1 << 20);
    fx_mkdir(f, "in");
    fx_mkdir(f, "in/golden");
    assert_ok(onnx_make(&m, &model));
    fx_write(f, "in/model.onnx", model.data, model.n);
    for (size_t i = 0; i < N; i++)
        weights[i] = weight(i);
    fx_write(f, "in/weights.bin", weights, sizeof weights);
    for (size_t i = 0; i < N; i++)
        weights[i] += x[0];
    write_npy(f, "in/golden/y.npy", weights, N);
    write_npy(f, "in/golden/x.npy", x, 1);
    fx_write(f, "in/golden/golden.json", golden, sizeof golden - 1);
    return fx_build(f, "in", onnx_format);
}

/* The golden files have said the same; but they are read by the code that is looked at. */
static void answers_rightly(struct tg_session *s)
{
    struct tg_err err = TG_ERR_INIT;
    static const float x[1] = {X};
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);
    in->tensors[in->n++] = (struct tg_oip_tensor){
        .name = "x", .dtype = TG_DT_FP32, .shape = {{1}, 1},
                .data = TG_BYTES_OF(x)
    };
    assert_ok(tg_session_run(s, in, out, NULL, &err));
    assert_int_equal(out->tensors[0].data.n, sizeof weights);
    assert_memory_equal(out->tensors[0].data.p, weights, sizeof weights);
}

/* ---- a start ---- */

enum { BAKES = 1, FROM_BAKE = 2, FOLLOWS = 4 };

static const struct way {
    const char *name;
    unsigned how;
} ways[] = {
    {"from the package",        0                  },
    {"baking",                  BAKES              },
    {"from a bake",             BAKES | FROM_BAKE  },
    {"while it comes",          FOLLOWS            },
    {"from a bake as it comes", FROM_BAKE | FOLLOWS},
};

static struct {
    struct fx *f;
    struct tg_load_opts opts;
    struct tg_buf package;
    int bake;     /* a whole one */
    off_t n_bake; /* its size */
} w;

/* Somebody downloads: what comes first is wrong in one place, until it is asked for again. */
struct download {
    struct tg_arrival *page;
    struct tg_spans have;
    pthread_t thread;
    pthread_mutex_t lock; /* the page has one writer */
    int fd;
    unsigned asked;
};

static void put(struct download *d, uint64_t off, uint64_t end)
{
    if (pwrite(d->fd, w.package.data + off, (size_t)(end - off), (off_t)off) !=
        (ssize_t)(end - off))
        abort();
}

static void *download(void *arg)
{
    struct download *d = arg;
    uint64_t n = w.package.n, wrong = n / 4 * 3, step = 300000; /* among the weights */
    for (uint64_t off = n / step * step;; off -= step) {
        uint64_t end = off + step < n ? off + step : n;
        (void)pthread_mutex_lock(&d->lock);
        put(d, off, end);
        if (wrong >= off && wrong < end && pwrite(d->fd, "wrong", 5, (off_t)wrong) != 5)
            abort();
        if (tg_spans_add(&d->have, off, end) != TG_OK)
            abort();
        tg_arrival_show(d->page, &d->have);
        (void)pthread_mutex_unlock(&d->lock);
        if (off == 0)
            return NULL;
    }
}

static enum tg_rc again(void *arg, uint64_t off, uint64_t n, struct tg_err *err)
{
    struct download *d = arg;
    (void)err;
    (void)pthread_mutex_lock(&d->lock);
    put(d, off, off + n);
    d->asked++;
    tg_arrival_again(d->page);
    (void)pthread_mutex_unlock(&d->lock);
    return TG_OK;
}

static void download_start(struct download *d, struct tg_load_opts *o)
{
    struct tg_err err = TG_ERR_INIT;
    *d = (struct download){.lock = PTHREAD_MUTEX_INITIALIZER};
    d->fd = open(fx_path(w.f, "part"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(d->fd >= 0);
    assert_int_equal(ftruncate(d->fd, (off_t)w.package.n), 0);
    assert_ok(tg_arrival_new(w.package.n, &d->page, &err));
    o->package = d->fd;
    o->arrival = tg_arrival_fd(d->page);
    o->again = again;
    o->arg = d;
    assert_int_equal(pthread_create(&d->thread, NULL, download, d), 0);
}

static void download_end(struct download *d)
{
    assert_int_equal(pthread_join(d->thread, NULL), 0);
    tg_arrival_free(d->page);
    assert_int_equal(close(d->fd), 0);
}

/* kB locked, from /proc/self/status: the plaintext lies in locked memory alone. */
static unsigned long locked(void)
{
    char line[256];
    unsigned long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "VmLck:", 6) == 0)
            kb = strtoul(line + 6, NULL, 10);
    assert_int_equal(fclose(f), 0);
    return kb;
}

static unsigned entries(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d))
        n++;
    assert_int_equal(closedir(d), 0);
    return n;
}

/* A thread that was joined may be seen for a moment longer. */
static void no_more_threads(unsigned most)
{
    for (unsigned i = 0; entries("/proc/self/task") > most && i < 1000; i++)
        tg_clock_sleep_ms(1);
    assert_true(entries("/proc/self/task") <= most);
}

struct outcome {
    enum tg_rc rc;
    bool from_bake;
    uint64_t n; /* calls of the kind that was asked for */
    struct tg_err err;
};

static void judge(struct tg_model *m, struct outcome *out)
{
    assert_int_equal(m->golden_cases, 1);
    out->from_bake = m->from_bake;
    answers_rightly(m->session);
    tg_model_free(m);
}

/* One load with the i-th failure of a kind. bake_in, bake_out: -1 or descriptors. */
static struct outcome load(unsigned how, int bake_in, int bake_out, enum kind k, uint64_t i)
{
    struct outcome out = {.rc = TG_OK, .err = TG_ERR_INIT};
    struct tg_err err = TG_ERR_INIT;
    struct tg_load_opts o = w.opts;
    struct tg_bake_pipe pipe = TG_BAKE_PIPE_INIT;
    struct download d;
    struct tg_model *const untouched = (struct tg_model *)(void *)&out, *m = untouched;
    unsigned long kb = locked();
    unsigned fds = entries("/proc/self/fd"), tasks = entries("/proc/self/task");

    o.bake_in = bake_in;
    o.bake_out = bake_out;
    o.threads = how == 0 ? 1 : 2;
    if (how & BAKES) {
        assert_ok(tg_bake_pipe_new(&pipe, &err));
        o.pipe = &pipe;
    }
    if (how & FOLLOWS)
        download_start(&d, &o);
    arm(k, i);
    out.rc = tg_model_load(&o, &m, &out.err);
    out.n = counted(k);
    arm(k, 0);
    assert_int_equal(m != untouched, out.rc == TG_OK);
    if (out.rc == TG_OK)
        judge(m, &out);
    tg_bake_pipe_done(&pipe);
    if (how & FOLLOWS)
        download_end(&d);
    if (how == FOLLOWS && out.rc == TG_OK)
        assert_int_equal(d.asked, 1);
    assert_int_equal(locked(), kb);
    assert_int_equal(entries("/proc/self/fd"), fds);
    no_more_threads(tasks);
    return out;
}

/* ---- sweeps ---- */

#define SAMPLE 8

static int file_open(struct fx *f, const char *name)
{
    int fd = open(fx_path(f, name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static int bake_open(struct fx *f)
{
    int fd = file_open(f, "bake");
    assert_int_equal(ftruncate(fd, 0), 0);
    return fd;
}

static off_t size_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_size;
}

/* A start with what this one left: a whole bake is used, anything less is not. */
static void next_start(int bake, const char *what, uint64_t i)
{
    off_t n = size_of(bake);
    if (n == 0)
        return;
    struct outcome out = load(FROM_BAKE, bake, -1, ALLOC, 0);
    if (out.rc != TG_OK || out.from_bake != (n == w.n_bake))
        fail_msg("after %s %d: %s '%s', a bake of %d of %d bytes was %s", what, (int)i,
                 tg_rc_name(out.rc), out.err.msg, (int)n, (int)w.n_bake,
                 out.from_bake ? "used" : "not used");
}

/* One failure; what came of the load. */
static struct outcome attempt(const struct way *way, enum kind k, uint64_t i)
{
    int made = way->how & BAKES ? bake_open(w.f) : -1;
    struct outcome out = load(way->how, way->how & FROM_BAKE ? w.bake : -1, made, k, i);
    bool said = out.rc == TG_OK || (out.err.rc == out.rc && out.err.msg[0]);
    if (out.rc != TG_OK && (!(kinds[k].codes & CAN(out.rc)) || !said))
        fail_msg("%s, %s %d: %s '%s'", way->name, kinds[k].name, (int)i, tg_rc_name(out.rc),
                 out.err.msg);
    if (out.rc == TG_E_NOMEM && k <= ALLOC_ON && !strstr(out.err.msg, "memory"))
        fail_msg("%s, %s %d: '%s'", way->name, kinds[k].name, (int)i, out.err.msg);
    if (k == PIPE_READ) /* what ONNX Runtime still writes is taken in large steps */
        assert_true(out.n < 1000);
    if (made >= 0) {
        if (i != 0)
            next_start(made, kinds[k].name, i);
        assert_int_equal(close(made), 0);
    }
    return out;
}

/* Without a fault: it takes the way that it is meant to take. */
static uint64_t count(const struct way *way, enum kind k)
{
    struct outcome out = attempt(way, k, 0);
    if (out.rc != TG_OK)
        fail_msg("%s: %s '%s'", way->name, tg_rc_name(out.rc), out.err.msg);
    assert_int_equal(out.from_bake, (way->how & FROM_BAKE) != 0);
    return out.n;
}

static void sweep(const struct way *way, enum kind k)
{
    bool all =
        k == READ || k == PIPE_READ || (way->how == 0 && k == ALLOC) || getenv("TG_FULL") != NULL;
    uint64_t n = count(way, k), refused = 0, tried = 0;
    uint64_t step = all || n < SAMPLE ? 1 : n / SAMPLE;
    for (uint64_t i = 1; i <= n; i += step, tried++)
        refused += attempt(way, k, i).rc != TG_OK;
    print_message("# %s, %s: %d of %d failed, %d loads refused\n", way->name, kinds[k].name,
                  (int)tried, (int)n, (int)refused);
    /* On the plain way nothing can be done without; the one mprotect makes sealed memory writable
     * to be wiped, and it is unmapped all the same. */
    if (way->how == 0 && kinds[k].codes)
        assert_true(k == MPROTECT ? refused > 0 : refused == tried && tried > 0);
}

static void sweep_ways(enum kind k)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(ways); i++)
        sweep(&ways[i], k);
}

static void test_allocations(void **state)
{
    (void)state;
    sweep_ways(ALLOC);
    sweep_ways(ALLOC_ON);
}

static void test_reads(void **state)
{
    (void)state;
    sweep_ways(READ);
    sweep_ways(PIPE_READ);
}

static void test_writes(void **state)
{
    (void)state;
    sweep_ways(WRITE);
    sweep_ways(WRITE_KEPT);
}

static void test_mappings(void **state)
{
    (void)state;
    for (enum kind k = MMAP; k <= MADVISE; k++)
        sweep_ways(k);
}

/* Whoever is told may end the load, at each step of each way. */
struct listener {
    unsigned told, end_at;
};

static enum tg_rc hear(void *arg, enum tg_load_state s, struct tg_err *err)
{
    struct listener *l = arg;
    (void)s;
    return ++l->told == l->end_at ? TG_FAIL(err, TG_E_CLOSED, "enough") : TG_OK;
}

static void test_steps(void **state)
{
    (void)state;
    w.opts.state = hear;
    for (size_t i = 0; i < TG_ARRAY_LEN(ways); i++) {
        struct listener l = {0, 0};
        if (ways[i].how & FOLLOWS)
            continue; /* there the argument is the download's */
        w.opts.arg = &l;
        (void)count(&ways[i], READ);
        assert_int_equal(l.told, 4);
        for (l.end_at = 1; l.end_at <= 4; l.end_at++) {
            l.told = 0;
            assert_int_equal(
                load(ways[i].how, ways[i].how & FROM_BAKE ? w.bake : -1, -1, READ, 0).rc,
                TG_E_CLOSED);
            assert_int_equal(l.told, l.end_at);
        }
    }
    w.opts.state = NULL;
    w.opts.arg = NULL;
}

static void test_threads(void **state)
{
    (void)state;
    sweep_ways(THREAD);
}

/* ---- before and after ---- */

static int text_file(struct fx *f, const char *name, const struct tg_buf *b)
{
    fx_write(f, name, b->data, b->n);
    assert_int_equal(chmod(fx_path(f, name), 0600), 0);
    return file_open(f, name);
}

static void write_documents(struct fx *f)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = fx_trust(f->author);
    assert_ok(tg_trust_save(trust, 1, FX_NOW, NULL, 0, &b, &err));
    w.opts.trust = text_file(f, "t.tgtrust", &b);
    tg_buf_clear(&b);
    assert_ok(tg_kem_sk_to_pem(f->device, TG_BYTES_NONE, &b));
    w.opts.key = text_file(f, "k.priv", &b);
    tg_buf_clear(&b);
    assert_ok(tg_buf_str(&b, "{\"tgsp_rollback\":\"1.0\",\"models\":[]}"));
    w.opts.rollback = text_file(f, "r.json", &b);
}

static int setup(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    if (fx_setup(state) != 0)
        return -1;
    w.f = *state;
    tg_log_level_set(TG_LOG_ERROR); /* each bake that is left out has a line */
    w.opts = (struct tg_load_opts){.grant = -1,
                                   .bake_in = -1,
                                   .bake_out = -1,
                                   .arrival = -1,
                                   .deployment = -1,
                                   .fleet = "fleet",
                                   .device_id = "device",
                                   .now = FX_NOW};
    w.package = write_model(w.f);
    w.opts.package = text_file(w.f, "m.tgsp", &w.package);
    write_documents(w.f);
    assert_ok(tg_ort_new(1, &w.opts.ort, &err));
    w.bake = file_open(w.f, "whole bake");
    assert_int_equal(load(BAKES, -1, w.bake, ALLOC, 0).rc, TG_OK);
    w.n_bake = size_of(w.bake);
    assert_true(w.n_bake > (off_t)TG_BAKE_CHUNK);
    return 0;
}

static int teardown(void **state)
{
    const int fds[] = {w.opts.package, w.opts.trust, w.opts.key, w.opts.rollback, w.bake};
    for (size_t i = 0; i < TG_ARRAY_LEN(fds); i++)
        assert_int_equal(close(fds[i]), 0);
    tg_ort_freep(&w.opts.ort);
    tg_buf_done(&w.package);
    return fx_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations), cmocka_unit_test(test_reads),
        cmocka_unit_test(test_writes),      cmocka_unit_test(test_mappings),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_steps),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
