/* The same model and input, through the worker's socket and by a plain ONNX Runtime call, turn by
 * turn in one process. Prints one JSON object (milliseconds).
 *
 *   bench_infer MODEL.onnx SOCKET MODEL-NAME INPUT-NAME OUTPUT-NAME COUNT DIM...
 *
 * Both use one thread inside the model. The socket is spoken to over one kept-alive connection with
 * the binary tensor extension of the Open Inference Protocol. */
#include <onnxruntime_c_api.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

#define DIMS_MAX 8

struct job {
    const char *input, *output;
    int64_t dims[DIMS_MAX];
    size_t dims_n, elements;
    float *data;
    /* ONNX Runtime */
    const OrtApi *ort;
    OrtSession *session;
    OrtValue *tensor;
    /* the socket */
    int fd;
    char *request;
    size_t request_n;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_infer: %s\n", what);
    exit(1);
}

static void check(const struct job *j, OrtStatus *s)
{
    if (s != NULL)
        die(j->ort->GetErrorMessage(s));
}

static void ort_open(struct job *j, const char *path)
{
    OrtEnv *env;
    OrtSessionOptions *so;
    OrtMemoryInfo *cpu;

    j->ort = OrtGetApiBase()->GetApi(21);
    if (j->ort == NULL)
        die("this ONNX Runtime is too old");
    check(j, j->ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bench", &env));
    check(j, j->ort->CreateSessionOptions(&so));
    check(j, j->ort->SetIntraOpNumThreads(so, 1));
    check(j, j->ort->CreateSession(env, path, so, &j->session));
    check(j, j->ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &cpu));
    check(j, j->ort->CreateTensorWithDataAsOrtValue(
                 cpu, j->data, j->elements * sizeof(float), j->dims, j->dims_n,
                 ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &j->tensor));
}

/* The first output value, so that both ways can be compared. */
static float ort_run(struct job *j)
{
    OrtValue *out = NULL;
    void *p = NULL;
    float v;

    check(j, j->ort->Run(j->session, NULL, &j->input, (const OrtValue *const *)&j->tensor, 1,
                         &j->output, 1, &out));
    check(j, j->ort->GetTensorMutableData(out, &p));
    v = *(float *)p;
    j->ort->ReleaseValue(out);
    return v;
}

static void socket_open(struct job *j, const char *path, const char *model)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t bytes = j->elements * sizeof(float), json_n, head_n;
    char json[1024], head[1024], shape[256] = "";

    for (size_t i = 0; i < j->dims_n; i++)
        (void)snprintf(shape + strlen(shape), sizeof(shape) - strlen(shape), "%s%lld",
                       i > 0 ? "," : "", (long long)j->dims[i]);
    json_n =
        (size_t)snprintf(json, sizeof(json),
                         "{\"inputs\":[{\"name\":\"%s\",\"shape\":[%s],\"datatype\":\"FP32\","
                         "\"parameters\":{\"binary_data_size\":%zu}}],"
                         "\"outputs\":[{\"name\":\"%s\",\"parameters\":{\"binary_data\":true}}]}",
                         j->input, shape, bytes, j->output);
    head_n = (size_t)snprintf(head, sizeof(head),
                              "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\n"
                              "Content-Type: application/octet-stream\r\n"
                              "Inference-Header-Content-Length: %zu\r\nContent-Length: %zu\r\n\r\n",
                              model, json_n, json_n + bytes);
    j->request_n = head_n + json_n + bytes;
    j->request = malloc(j->request_n);
    if (j->request == NULL)
        die("out of memory");
    memcpy(j->request, head, head_n);
    memcpy(j->request + head_n, json, json_n);
    memcpy(j->request + head_n + json_n, j->data, bytes);
    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    j->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (j->fd < 0 || connect(j->fd, (struct sockaddr *)&un, sizeof(un)) != 0)
        die("the worker's socket cannot be reached");
}

static float socket_run(struct job *j)
{
    char buf[65536];
    size_t n = 0, at = 0, need;
    float v;

    while (at < j->request_n) {
        ssize_t k = write(j->fd, j->request + at, j->request_n - at);

        if (k <= 0)
            die("a request could not be sent");
        at += (size_t)k;
    }
    for (;;) {
        ssize_t k = read(j->fd, buf + n, sizeof(buf) - 1 - n);
        char *end, *len, *header;

        if (k <= 0)
            die("the connection broke");
        n += (size_t)k;
        buf[n] = '\0';
        end = strstr(buf, "\r\n\r\n");
        if (end == NULL)
            continue;
        if (strncmp(buf, "HTTP/1.1 200", 12) != 0)
            die(buf);
        len = strcasestr(buf, "\r\nContent-Length: ");
        header = strcasestr(buf, "\r\nInference-Header-Content-Length: ");
        if (len == NULL || header == NULL)
            die("an answer without lengths");
        end += 4;
        need = (size_t)(end - buf) + strtoul(len + 18, NULL, 10);
        if (n < need)
            continue;
        memcpy(&v, end + strtoul(header + 35, NULL, 10), sizeof(v));
        return v;
    }
}

/* Proportional set size of this process, kB: what a program with ONNX Runtime and the model in it
 * takes. */
static long own_pss(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long kb = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "Pss:", 4) == 0)
            kb = atol(line + 4);
    if (f != NULL)
        (void)fclose(f);
    return kb;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double one(float (*run)(struct job *), struct job *j, float *v)
{
    uint64_t t0 = tg_clock_mono_ns();

    *v = run(j);
    return (double)(tg_clock_mono_ns() - t0) / 1e6;
}

int main(int argc, char **argv)
{
    struct job j = {.fd = -1};
    size_t count;
    uint64_t t0;
    long pss;
    double *a, *b, open_ms;
    float x = 0, y = 0;

    if (argc < 8 || argc > 7 + DIMS_MAX)
        die("usage: MODEL SOCKET MODEL-NAME INPUT OUTPUT COUNT DIM...");
    (void)signal(SIGPIPE, SIG_IGN);
    j.input = argv[4];
    j.output = argv[5];
    count = strtoul(argv[6], NULL, 10);
    j.elements = 1;
    for (int i = 7; i < argc; i++) {
        j.dims[j.dims_n] = atoll(argv[i]);
        j.elements *= (size_t)j.dims[j.dims_n++];
    }
    j.data = calloc(j.elements, sizeof(float));
    a = calloc(count + 1, sizeof(*a));
    b = calloc(count + 1, sizeof(*b));
    if (j.data == NULL || a == NULL || b == NULL || count == 0)
        die("out of memory");
    for (size_t i = 0; i < j.elements; i++)
        j.data[i] = (float)(i % 17) / 17.0F;
    t0 = tg_clock_mono_ns();
    ort_open(&j, argv[1]);
    open_ms = (double)(tg_clock_mono_ns() - t0) / 1e6;
    (void)ort_run(&j);
    pss = own_pss();
    socket_open(&j, argv[2], argv[3]);
    for (size_t i = 0; i < 50; i++) /* warm */
        (void)one(ort_run, &j, &x), (void)one(socket_run, &j, &y);
    for (size_t i = 0; i < count; i++) {
        a[i] = one(socket_run, &j, &y);
        b[i] = one(ort_run, &j, &x);
    }
    if (x - y > 1e-4F || y - x > 1e-4F)
        die("the two ways answer differently");
    qsort(a, count, sizeof(*a), by_value);
    qsort(b, count, sizeof(*b), by_value);
    (void)printf("{\"socket_p50_ms\": %.4f, \"socket_p99_ms\": %.4f, \"ort_p50_ms\": %.4f, "
                 "\"ort_p99_ms\": %.4f, \"ort_open_ms\": %.3f, \"ort_pss_kb\": %ld}\n",
                 a[count / 2], a[count * 99 / 100], b[count / 2], b[count * 99 / 100], open_ms,
                 pss);
    return 0;
}
