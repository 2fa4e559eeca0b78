/* Calls through shared memory beside what they stand on, at 1,000 a second: the bare ONNX Runtime
 * call of the same model in this process, and a bare futex ping-pong between two processes. In
 * turns, in one run.
 *
 *   bench_native MODEL.onnx SOCKET ROUNDS SPIN_US    prints one JSON object (microseconds)
 *   bench_native MODEL.onnx - SECONDS                a 1 kHz loop with the bare call alone: prints
 *   bench_native MODEL.onnx SOCKET SECONDS SPIN_US loop    when it began (monotonic seconds), then
 *                                                    "seconds microseconds" of each turn; with
 *                                                    SOCKET through the library; SIGTERM ends it
 *
 * SPIN_US: how long the library looks for an answer before it sleeps (the worker's is its own). */
#include <linux/futex.h>
#include <onnxruntime_c_api.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tensorguard/tensorguard.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 200 /* calls in a row of one kind */
#define COLD 20   /* of them not counted: whoever spins must find its pace again */
#define PERIOD_NS 1000000
#define ELEMENTS 64

struct bench {
    const OrtApi *ort;
    OrtSession *session;
    OrtValue *in;
    float data[ELEMENTS];
    struct tg_model *model;
    _Atomic uint32_t *table; /* ping, pong */
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_native: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t at)
{
    const struct timespec t = {(time_t)(at / 1000000000), (long)(at % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        ;
}

/* ---- the three ways ---- */

static void check(const struct bench *b, OrtStatus *s)
{
    if (s != NULL)
        die(b->ort->GetErrorMessage(s));
}

static void ort_open(struct bench *b, const char *path)
{
    const int64_t dims[] = {1, ELEMENTS};
    OrtEnv *env;
    OrtSessionOptions *so;
    OrtMemoryInfo *cpu;

    b->ort = OrtGetApiBase()->GetApi(21);
    if (b->ort == NULL)
        die("this ONNX Runtime is too old");
    check(b, b->ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bench", &env));
    check(b, b->ort->CreateSessionOptions(&so));
    check(b, b->ort->SetIntraOpNumThreads(so, 1));
    check(b, b->ort->CreateSession(env, path, so, &b->session));
    check(b, b->ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &cpu));
    check(b, b->ort->CreateTensorWithDataAsOrtValue(cpu, b->data, sizeof(b->data), dims, 2,
                                                    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &b->in));
}

static void ort_call(struct bench *b)
{
    const char *in = "x", *out = "y";
    OrtValue *y = NULL;
    void *p;

    check(b, b->ort->Run(b->session, NULL, &in, (const OrtValue *const *)&b->in, 1, &out, 1, &y));
    check(b, b->ort->GetTensorMutableData(y, &p));
    if (memcmp(p, b->data, sizeof(b->data)) != 0)
        die("ONNX Runtime's answer is wrong");
    b->ort->ReleaseValue(y);
}

static void tg_open(struct bench *b, const char *path, uint64_t spin_us)
{
    struct tg_options o = TG_OPTIONS_INIT;
    struct tg_error e;

    o.spin_ns = spin_us * 1000;
    if (tg_model_connect(path, &o, &b->model, &e) != TG_STATUS_OK)
        die(e.text);
}

static void tg_call(struct bench *b)
{
    struct tg_call *c;
    struct tg_error e;

    if (tg_call_begin(b->model, &c, &e) != TG_STATUS_OK)
        die(e.text);
    memcpy(tg_call_input(c, 0), b->data, sizeof(b->data));
    if (tg_call_run(c, 10000000000u, &e) != TG_STATUS_OK)
        die(e.text);
    if (memcmp(tg_call_output(c, 0, NULL), b->data, sizeof(b->data)) != 0)
        die("the worker's answer is wrong");
    tg_call_end(c);
}

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    (void)syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static void wait_for(_Atomic uint32_t *word, uint32_t old)
{
    while (atomic_load(word) == old)
        futex(word, FUTEX_WAIT, old);
}

/* A process that answers each ping, and sleeps otherwise. */
static pid_t ping_open(struct bench *b)
{
    pid_t pid;

    b->table = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->table == MAP_FAILED)
        die("out of memory");
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t n = 0;; n++) {
        wait_for(&b->table[0], n);
        atomic_store(&b->table[32], n + 1);
        futex(&b->table[32], FUTEX_WAKE, 1);
    }
}

static void ping_call(struct bench *b)
{
    uint32_t n = atomic_load(&b->table[32]);

    atomic_store(&b->table[0], n + 1);
    futex(&b->table[0], FUTEX_WAKE, 1);
    wait_for(&b->table[32], n);
}

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double once(struct bench *b, void (*call)(struct bench *), uint64_t *next)
{
    uint64_t start;

    sleep_until(*next);
    start = now_ns();
    call(b);
    *next = (*next + PERIOD_NS > now_ns() ? *next : now_ns()) + PERIOD_NS;
    return (double)(now_ns() - start) / 1000;
}

static void show(const char *name, double *v, size_t n, const char *end)
{
    qsort(v, n, sizeof(*v), by_value);
    (void)printf("\"%s_p50\": %.3f, \"%s_p99\": %.3f%s", name, v[n / 2], name, v[n * 99 / 100],
                 end);
}

static void compare(struct bench *b, size_t rounds)
{
    void (*const ways[])(struct bench *) = {ort_call, tg_call, ping_call};
    static const char *const names[] = {"ort", "native", "ping"};
    double *v[3];
    size_t n = 0;
    uint64_t next = now_ns() + PERIOD_NS;
    pid_t pid = ping_open(b);

    for (size_t w = 0; w < 3; w++)
        if ((v[w] = calloc(rounds * BLOCK + 1, sizeof(double))) == NULL)
            die("out of memory");
    for (size_t r = 0; r < rounds; r++, n += BLOCK - COLD)
        for (size_t w = 0; w < 3; w++) {
            for (size_t i = 0; i < COLD; i++)
                (void)once(b, ways[w], &next);
            for (size_t i = 0; i < BLOCK - COLD; i++)
                v[w][n + i] = once(b, ways[w], &next);
        }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)printf("{");
    for (size_t w = 0; w < 3; w++)
        show(names[w], v[w], n, w < 2 ? ", " : "}\n");
}

static volatile sig_atomic_t enough;

static void on_term(int signal)
{
    (void)signal;
    enough = 1;
}

static void loop(struct bench *b, void (*call)(struct bench *), double seconds)
{
    uint64_t start = now_ns(), next = start + PERIOD_NS;

    (void)signal(SIGTERM, on_term);
    (void)printf("%.6f\n", (double)start / 1e9);
    while (!enough && (double)(next - start) < seconds * 1e9) {
        double at = (double)(next - start) / 1e9, took = once(b, call, &next);

        (void)printf("%.6f %.3f\n", at, took);
    }
}

int main(int argc, char **argv)
{
    struct bench b = {.model = NULL};
    static char buffer[1 << 22]; /* a loop is not held up by its own report */

    if (argc < 4)
        die("usage: MODEL.onnx SOCKET|- ROUNDS|SECONDS [SPIN_US [loop]]");
    (void)setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
    for (size_t i = 0; i < ELEMENTS; i++)
        b.data[i] = (float)i / 7.0F;
    ort_open(&b, argv[1]);
    if (strcmp(argv[2], "-") != 0)
        tg_open(&b, argv[2], argc > 4 ? strtoul(argv[4], NULL, 10) : 0);
    if (b.model != NULL && argc < 6)
        compare(&b, strtoul(argv[3], NULL, 10));
    else
        loop(&b, b.model != NULL ? tg_call : ort_call, atof(argv[3]));
    tg_model_close(b.model);
    return 0;
}
