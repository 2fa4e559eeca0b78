/* What the protected heap costs inside ONNX Runtime. Built twice: with the worker's malloc, and
 * with the C library's; run.py runs them by turns. Prints one JSON object.
 *
 *   bench_heap MODEL.onnx THREADS COUNT INPUT OUTPUT DIM...  [--protection LEVEL]
 *
 * ONNX Runtime's defaults, one input of floats, COUNT runs after three to warm up. */
#include <inttypes.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/region.h"

#define COUNT_MAX 100000
#define DIMS_MAX 8
#define WARM_UP 3

static const OrtApi *ort;

static void check(OrtStatus *status)
{
    if (status == NULL)
        return;
    (void)fprintf(stderr, "bench_heap: %s\n", ort->GetErrorMessage(status));
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static OrtSession *open_model(const char *path, int threads)
{
    OrtEnv *env = NULL;
    OrtSessionOptions *opts = NULL;
    OrtSession *session = NULL;

    check(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bench", &env));
    check(ort->CreateSessionOptions(&opts));
    check(ort->SetIntraOpNumThreads(opts, threads));
    check(ort->CreateSession(env, path, opts, &session));
    ort->ReleaseSessionOptions(opts);
    return session;
}

static OrtValue *make_input(size_t n_dims, char **text)
{
    int64_t dims[DIMS_MAX];
    size_t count = 1;
    OrtMemoryInfo *cpu = NULL;
    OrtValue *v = NULL;
    float *data;

    for (size_t i = 0; i < n_dims; i++) {
        dims[i] = strtoll(text[i], NULL, 10);
        count *= (size_t)dims[i];
    }
    data = malloc(count * sizeof(*data));
    for (size_t i = 0; data != NULL && i < count; i++)
        data[i] = (float)(i % 251) / 251.0F;
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &cpu));
    check(ort->CreateTensorWithDataAsOrtValue(cpu, data, count * sizeof(*data), dims, n_dims,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &v));
    ort->ReleaseMemoryInfo(cpu);
    return v;
}

static uint64_t run(OrtSession *session, const OrtValue *in, const char *in_name,
                    const char *out_name)
{
    OrtValue *out = NULL;
    uint64_t start = tg_clock_mono_ns();

    check(ort->Run(session, NULL, &in_name, &in, 1, &out_name, 1, &out));
    ort->ReleaseValue(out);
    return tg_clock_mono_ns() - start;
}

int main(int argc, char **argv)
{
    static uint64_t ns[COUNT_MAX];
    size_t count, n_dims = 0;
    uint64_t start = tg_clock_mono_ns();
    OrtSession *session;
    OrtValue *in;

    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (argc < 7 || ort == NULL)
        return 2;
    count = (size_t)strtoull(argv[3], NULL, 10);
    if (count == 0 || count > COUNT_MAX)
        return 2;
    while (6 + n_dims < (size_t)argc && n_dims < DIMS_MAX && argv[6 + n_dims][0] != '-')
        n_dims++;
    session = open_model(argv[1], atoi(argv[2]));
    start = tg_clock_mono_ns() - start;
    in = make_input(n_dims, argv + 6);
    for (size_t i = 0; i < WARM_UP; i++)
        (void)run(session, in, argv[4], argv[5]);
    for (size_t i = 0; i < count; i++)
        ns[i] = run(session, in, argv[4], argv[5]);
    qsort(ns, count, sizeof(ns[0]), by_value);
    (void)printf("{\"level\":\"%s\",\"open_ms\":%.3f,\"p50_ms\":%.4f,\"min_ms\":%.4f}\n",
                 tg_region_is_open() ? tg_level_name(tg_region_level()) : "plain",
                 (double)start / 1e6, (double)ns[count / 2] / 1e6, (double)ns[0] / 1e6);
    return 0;
}
