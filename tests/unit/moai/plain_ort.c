/* Plain ONNX Runtime, as any C program would call it, to compare the worker with:
 *
 *     plain_ort MODEL.onnx INPUT.npy OUTPUT.npy [TIMES [THREADS]]
 *
 * One input, one output, both FP32. Prints {"min_ns":…,"p50_ns":…,"p99_ns":…} over TIMES runs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

#include "base/clock.h"
#include "base/file.h"
#include "tensor/npy.h"

static const OrtApi *api;

static void must(OrtStatus *st)
{
    if (st == NULL)
        return;
    (void)fprintf(stderr, "plain_ort: %s\n", api->GetErrorMessage(st));
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static OrtSession *open_model(OrtEnv *env, const char *path, int threads)
{
    OrtSessionOptions *opts;
    OrtSession *s;

    must(api->CreateSessionOptions(&opts));
    must(api->SetIntraOpNumThreads(opts, threads));
    must(api->AddSessionConfigEntry(opts, "session.intra_op.allow_spinning", "0"));
    must(api->CreateSession(env, path, opts, &s));
    api->ReleaseSessionOptions(opts);
    return s;
}

static void save(OrtValue *y, const char *path)
{
    OrtTensorTypeAndShapeInfo *info;
    struct tg_npy npy = {.dtype = TG_DT_FP32};
    struct tg_buf out = TG_BUF_INIT(1 << 30);
    struct tg_err err = TG_ERR_INIT;
    size_t n;
    void *p;

    must(api->GetTensorTypeAndShape(y, &info));
    must(api->GetDimensionsCount(info, &npy.shape.n));
    must(api->GetDimensions(info, npy.shape.d, npy.shape.n));
    must(api->GetTensorShapeElementCount(info, &n));
    must(api->GetTensorMutableData(y, &p));
    api->ReleaseTensorTypeAndShapeInfo(info);
    npy.data = tg_bytes_make(p, n * sizeof(float));
    if (tg_npy_write(&npy, &out, &err) != TG_OK ||
        tg_file_write(path, tg_buf_view(&out), 0644, true, &err) != TG_OK) {
        (void)fprintf(stderr, "plain_ort: %s\n", err.msg);
        exit(1);
    }
    tg_buf_done(&out);
}

int main(int argc, char **argv)
{
    size_t times = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
    struct tg_buf file = TG_BUF_INIT(1 << 30);
    struct tg_err err = TG_ERR_INIT;
    struct tg_npy x;
    OrtAllocator *alloc;
    OrtMemoryInfo *cpu;
    OrtValue *in, *out = NULL;
    OrtEnv *env;
    OrtSession *s;
    char *in_name, *out_name;
    uint64_t *ns;

    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (argc < 4 || times == 0 || tg_file_read(argv[2], &file, &err) != TG_OK ||
        tg_npy_parse(tg_buf_view(&file), argv[2], &x, &err) != TG_OK || x.dtype != TG_DT_FP32) {
        (void)fprintf(stderr,
                      "usage: plain_ort MODEL INPUT.npy OUTPUT.npy [TIMES [THREADS]] (%s)\n",
                      err.msg);
        return 2;
    }
    ns = calloc(times, sizeof(*ns));
    must(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "plain", &env));
    s = open_model(env, argv[1], argc > 5 ? atoi(argv[5]) : 1);
    must(api->GetAllocatorWithDefaultOptions(&alloc));
    must(api->SessionGetInputName(s, 0, alloc, &in_name));
    must(api->SessionGetOutputName(s, 0, alloc, &out_name));
    must(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &cpu));
    must(api->CreateTensorWithDataAsOrtValue(cpu, (void *)(uintptr_t)x.data.p, x.data.n, x.shape.d,
                                             x.shape.n, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &in));
    for (size_t i = 0; ns != NULL && i < times; i++) {
        uint64_t start = tg_clock_mono_ns();

        if (out != NULL)
            api->ReleaseValue(out);
        out = NULL;
        must(api->Run(s, NULL, (const char *const *)&in_name, (const OrtValue *const *)&in, 1,
                      (const char *const *)&out_name, 1, &out));
        ns[i] = tg_clock_mono_ns() - start;
    }
    if (ns == NULL)
        return 1;
    qsort(ns, times, sizeof(*ns), by_value);
    (void)printf("{\"min_ns\":%" PRIu64 ",\"p50_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64 "}\n", ns[0],
                 ns[times / 2], ns[times * 99 / 100]);
    save(out, argv[3]);
    must(api->AllocatorFree(alloc, in_name));
    must(api->AllocatorFree(alloc, out_name));
    api->ReleaseValue(in);
    api->ReleaseValue(out);
    api->ReleaseMemoryInfo(cpu);
    api->ReleaseSession(s);
    api->ReleaseEnv(env);
    free(ns);
    tg_buf_done(&file);
    return 0;
}
