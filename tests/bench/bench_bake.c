/* A model from its sealed bake, beside ONNX Runtime with its default settings on the plain file, in
 * one process with the worker's allocator. Prints one JSON object.
 *
 *   bench_bake MODEL.onnx SEALED THREADS COUNT DIM...
 *
 * The model has one input, "input", and one output, "logits", both of floats. SEALED is made if it
 * is empty. */
#include <fcntl.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/region.h"
#include "moai/bake_seal.h"
#include "moai/session_internal.h"

#define LOADS 7

static struct tg_err err;

struct job {
    struct tg_ort *ort;
    unsigned threads;
    struct tg_shape shape;
    size_t elements;
    float *data;
    struct tg_session *ours;
    OrtSession *plain;
    OrtValue *tensor;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_bake: %s\n", what);
    exit(1);
}

static void need(enum tg_rc rc)
{
    if (rc != TG_OK)
        die(err.msg);
}

static void check(const struct job *j, OrtStatus *s)
{
    if (s != NULL)
        die(j->ort->api->GetErrorMessage(s));
}

static double ms_since(uint64_t t0)
{
    return (double)(tg_clock_mono_ns() - t0) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Memory that no file backs, kB: code of libraries is the runtime's own. */
static long own_memory(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long kb = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "Pss_Anon:", 9) == 0)
            kb += atol(line + 9);
        else if (strncmp(line, "Pss_Shmem:", 10) == 0)
            kb += atol(line + 10);
    if (f != NULL)
        (void)fclose(f);
    return kb;
}

static void bake(struct job *j, const char *model, int fd, const struct tg_bake_key *key)
{
    struct tg_buf bytes = TG_BUF_SECRET((size_t)2 << 30);
    struct tg_bake_pipe pipe = TG_BAKE_PIPE_INIT;
    struct tg_bake b = {.keep = 0};
    struct tg_session_spec spec;

    need(tg_file_read(model, &bytes, &err));
    spec = (struct tg_session_spec){.model = tg_buf_view(&bytes)};
    need(tg_bake_pipe_new(&pipe, &err));
    need(tg_bake_make(j->ort, &spec, &pipe, &b, &err));
    need(tg_bake_seal(&b, key, fd, &err));
    tg_bake_done(&b);
    tg_buf_done(&bytes);
}

/* Answer's first value. */
static float ours_run(struct job *j)
{
    struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST), *out = tg_oip_new(TG_OIP_REPLY);
    float v;

    if (in == NULL || out == NULL)
        die("out of memory");
    in->tensors[in->n++] =
        (struct tg_oip_tensor){.name = "input",
                               .dtype = TG_DT_FP32,
                               .shape = j->shape,
                               .data = tg_bytes_make(j->data, j->elements * sizeof(float))};
    need(tg_session_run(j->ours, in, out, NULL, &err));
    memcpy(&v, out->tensors[0].data.p, sizeof(v));
    tg_oip_free(in);
    tg_oip_free(out);
    return v;
}

static float plain_run(struct job *j)
{
    static const char *const input = "input", *const output = "logits";
    OrtValue *out = NULL;
    void *p = NULL;
    float v;

    check(j, j->ort->api->Run(j->plain, NULL, &input, (const OrtValue *const *)&j->tensor, 1,
                              &output, 1, &out));
    check(j, j->ort->api->GetTensorMutableData(out, &p));
    memcpy(&v, p, sizeof(v));
    j->ort->api->ReleaseValue(out);
    return v;
}

/* Default settings but for the number of threads. */
static double plain_open(struct job *j, const char *model)
{
    struct tg_buf bytes = TG_BUF_SECRET((size_t)2 << 30);
    OrtSessionOptions *so = NULL;
    uint64_t t0;
    double took;

    need(tg_file_read(model, &bytes, &err));
    check(j, j->ort->api->CreateSessionOptions(&so));
    check(j, j->ort->api->SetIntraOpNumThreads(so, (int)j->threads));
    t0 = tg_clock_mono_ns();
    check(j, j->ort->api->CreateSessionFromArray(j->ort->env, bytes.data, bytes.n, so, &j->plain));
    took = ms_since(t0);
    j->ort->api->ReleaseSessionOptions(so);
    tg_buf_done(&bytes);
    check(j, j->ort->api->CreateTensorWithDataAsOrtValue(
                 j->ort->cpu, j->data, j->elements * sizeof(float), j->shape.d, j->shape.n,
                 ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &j->tensor));
    return took;
}

struct loads {
    double unseal[LOADS], load[LOADS];
    long memory_kb;
    size_t image;
};

/* The first is what a worker does: nothing is warm yet. */
static void load(struct job *j, int fd, const struct tg_bake_key *key, size_t times,
                 struct loads *l)
{
    long before = own_memory();

    for (size_t i = 0; i < times; i++) {
        struct tg_bake b = {.keep = 0};
        uint64_t t0 = tg_clock_mono_ns();

        tg_session_free(j->ours);
        j->ours = NULL;
        t0 = tg_clock_mono_ns();
        need(tg_bake_unseal(fd, key, j->threads, &b, &err));
        l->unseal[i] = ms_since(t0);
        t0 = tg_clock_mono_ns();
        need(tg_session_baked(j->ort, &b, &j->ours, &err));
        l->load[i] = ms_since(t0);
        if (i > 0)
            continue;
        (void)ours_run(j); /* with what a run needs besides */
        l->memory_kb = own_memory() - before;
    }
    l->image = tg_session_image(j->ours).n;
}

/* The median of paired runs, the order changing from pair to pair. */
static void pairs(struct job *j, size_t count, double out[3])
{
    double *a = calloc(count, sizeof(*a)), *b = calloc(count, sizeof(*b));
    double *ratio = calloc(count, sizeof(*ratio));
    float x = 0, y = 0;

    if (a == NULL || b == NULL || ratio == NULL)
        die("out of memory");
    for (int i = 0; i < 3; i++)
        x = ours_run(j), y = plain_run(j);
    for (size_t i = 0; i < 2 * count; i++) {
        uint64_t t0 = tg_clock_mono_ns();
        bool first = (i % 4 == 0) || (i % 4 == 3);

        if (first)
            x = ours_run(j), a[i / 2] = ms_since(t0);
        else
            y = plain_run(j), b[i / 2] = ms_since(t0);
    }
    if (x - y > 1e-4F || y - x > 1e-4F)
        die("the two answer differently");
    for (size_t i = 0; i < count; i++)
        ratio[i] = a[i] / b[i];
    qsort(a, count, sizeof(*a), by_value);
    qsort(b, count, sizeof(*b), by_value);
    qsort(ratio, count, sizeof(*ratio), by_value);
    out[0] = a[count / 2];
    out[1] = b[count / 2];
    out[2] = ratio[count / 2];
    free(a);
    free(b);
    free(ratio);
}

/* Ours only: beside a process of its own without any of it (bench_heap_plain). */
static void alone(struct job *j, const struct loads *l, size_t count)
{
    double *ms = calloc(count, sizeof(*ms));

    if (ms == NULL || count == 0)
        die("out of memory, or nothing to run");
    for (int i = 0; i < 3; i++)
        (void)ours_run(j);
    for (size_t i = 0; i < count; i++) {
        uint64_t t0 = tg_clock_mono_ns();

        (void)ours_run(j);
        ms[i] = ms_since(t0);
    }
    qsort(ms, count, sizeof(*ms), by_value);
    (void)printf("{\"level\": \"%s\", \"unseal_ms\": %.3f, \"load_ms\": %.3f, \"p50_ms\": "
                 "%.4f}\n",
                 tg_level_name(tg_region_level()), l->unseal[0], l->load[0], ms[count / 2]);
    free(ms);
}

int main(int argc, char **argv)
{
    const struct tg_bake_key key = {.device = {1}, .context = {2}};
    struct job j = {.elements = 1};
    struct loads l = {.memory_kb = 0};
    double run[3], plain_ms;
    bool only_ours = argc > 1 && strcmp(argv[1], "--alone") == 0;
    uint64_t size = 0;
    int fd;

    argc -= only_ours;
    argv += only_ours;
    if (argc > 1 && strncmp(argv[argc - 1], "--protection=", 13) == 0)
        argc--; /* the heap has read it */
    if (argc < 6 || argc > 5 + TG_DIMS_MAX)
        die("usage: [--alone] MODEL SEALED THREADS COUNT DIM... [--protection=LEVEL]");
    j.threads = (unsigned)atoi(argv[3]);
    for (int i = 5; i < argc; i++)
        j.elements *= (size_t)(j.shape.d[j.shape.n++] = atoll(argv[i]));
    j.data = calloc(j.elements, sizeof(float));
    if (j.data == NULL || j.threads == 0)
        die("out of memory, or no threads");
    for (size_t i = 0; i < j.elements; i++)
        j.data[i] = (float)(i % 17) / 17.0F;
    need(tg_ort_new(j.threads, &j.ort, &err));
    fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        die("the sealed bake can't be opened");
    need(tg_fd_size(fd, argv[2], &size, &err));
    if (size == 0) { /* and nothing else: making it leaves its traces in the allocator */
        bake(&j, argv[1], fd, &key);
        return 0;
    }
    load(&j, fd, &key, only_ours ? 1 : LOADS, &l);
    if (only_ours) {
        alone(&j, &l, strtoul(argv[4], NULL, 10));
        return 0;
    }
    plain_ms = plain_open(&j, argv[1]);
    pairs(&j, strtoul(argv[4], NULL, 10), run);
    qsort(l.load, LOADS, sizeof(double), by_value);
    (void)printf("{\"again_ms\": %.3f, \"plain_load_ms\": %.3f, \"memory_kb\": %ld, "
                 "\"image\": %zu, \"ours_p50_ms\": %.4f, \"plain_p50_ms\": %.4f, \"pair_ratio\": "
                 "%.4f}\n",
                 l.load[LOADS / 2], plain_ms, l.memory_kb, l.image, run[0], run[1], run[2]);
    return 0;
}
