#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "moai/bake.h"
#include "moai/sandbox.h"
#include "moai/session_internal.h"

/* Everything ONNX Runtime logs is dropped: its lines can name the insides of a model. */
static void drop_log(void *param, OrtLoggingLevel severity, const char *category, const char *logid,
                     const char *location, const char *message)
{
    (void)param;
    (void)severity;
    (void)category;
    (void)logid;
    (void)location;
    (void)message;
}

static const struct {
    OrtErrorCode code;
    enum tg_rc rc;
    const char *why;
} failures[] = {
    {ORT_INVALID_ARGUMENT,  TG_E_FORMAT,      "ONNX Runtime refused an argument"             },
    {ORT_INVALID_PROTOBUF,  TG_E_FORMAT,      "not a valid ONNX model"                       },
    {ORT_INVALID_GRAPH,     TG_E_FORMAT,      "the model's graph is not valid"               },
    {ORT_NO_MODEL,          TG_E_FORMAT,      "there is no model"                            },
    {ORT_NO_SUCHFILE,       TG_E_UNSUPPORTED, "the model refers to another file"             },
    {ORT_NOT_IMPLEMENTED,   TG_E_UNSUPPORTED,
     "the model needs an operator or a type that this ONNX Runtime does not have"            },
    {ORT_EP_FAIL,           TG_E_INTERNAL,    "the CPU execution provider failed"            },
    {ORT_RUNTIME_EXCEPTION, TG_E_INTERNAL,    "ONNX Runtime failed while running"            },
    {ORT_FAIL,              TG_E_FORMAT,
     "ONNX Runtime can't load or run this model (not ONNX, a newer opset, or a broken graph)"},
};

enum tg_rc tg_ort_check(const struct tg_ort *o, OrtStatus *status, const char *doing,
                        struct tg_err *err)
{
    OrtErrorCode code;

    if (status == NULL)
        return TG_OK;
    code = o->api->GetErrorCode(status);
    o->api->ReleaseStatus(status);
    for (size_t i = 0; i < TG_ARRAY_LEN(failures); i++)
        if (failures[i].code == code)
            return TG_FAIL(err, failures[i].rc, "%s: %s (ONNX Runtime %s, code %d)", doing,
                           failures[i].why, tg_ort_version(), (int)code);
    return TG_FAIL(err, TG_E_INTERNAL, "%s: ONNX Runtime %s gave code %d", doing, tg_ort_version(),
                   (int)code);
}

const char *tg_ort_version(void)
{
    return OrtGetApiBase()->GetVersionString();
}

static const struct {
    ONNXTensorElementDataType ort;
    enum tg_dtype ours;
} types[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,    TG_DT_BOOL  },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,   TG_DT_UINT8 },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,  TG_DT_UINT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,  TG_DT_UINT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,  TG_DT_UINT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,    TG_DT_INT8  },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,   TG_DT_INT16 },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,   TG_DT_INT32 },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,   TG_DT_INT64 },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, TG_DT_FP16  },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,   TG_DT_FP32  },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,  TG_DT_FP64  },
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,  TG_DT_BYTES },
};

bool tg_ort_dtype(ONNXTensorElementDataType t, enum tg_dtype *out)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(types); i++)
        if (types[i].ort == t) {
            *out = types[i].ours;
            return true;
        }
    return false;
}

ONNXTensorElementDataType tg_ort_type(enum tg_dtype t)
{
    for (size_t i = 0; i < TG_ARRAY_LEN(types); i++)
        if (types[i].ours == t)
            return types[i].ort;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

/* ---- the environment ---- */

#define ORT_STACK ((size_t)2 << 20)

/* ONNX Runtime's threads are made by us: their stacks lie in the protected region, and they can
 * open nothing from their first instruction on, while the thread that makes them still reads /sys.
 */
struct ort_thread {
    struct tg_thread *thread;
    OrtThreadWorkerFn fn;
    void *arg;
};

static void run_thread(void *arg)
{
    const struct ort_thread *t = arg;

    if (tg_sandbox_landlock(NULL) != TG_OK)
        tg_log(TG_LOG_DEBUG, "moai.sandbox", "landlock=refused"); /* the system call list holds */
    t->fn(t->arg);
}

/* NULL: ONNX Runtime gives up, with an exception of its own. */
static OrtCustomThreadHandle make_thread(void *options, OrtThreadWorkerFn fn, void *arg)
{
    struct ort_thread *t = tg_calloc(1, sizeof(*t));

    (void)options;
    if (t == NULL)
        return NULL;
    t->fn = fn;
    t->arg = arg;
    if (tg_thread_start(run_thread, t, ORT_STACK, &t->thread, NULL) != TG_OK) {
        tg_free(t);
        return NULL;
    }
    return (OrtCustomThreadHandle)(void *)t;
}

static void join_thread(OrtCustomThreadHandle handle)
{
    struct ort_thread *t = (struct ort_thread *)(uintptr_t)(const void *)handle;

    tg_thread_join(t->thread);
    tg_free(t);
}

/* With the first model that a process loads ONNX Runtime makes its tables of operators and kernels,
 * which takes longer than to load most models from a bake. So the first model is one that does
 * nothing, loaded before the package's bytes are there.
 *
 * Debian 13's is linked with a libonnx that knows the same operators, too: then it writes a line to
 * standard error, past the logger, for each of them, some hundreds, in which ours would drown.
 * Nobody hears. What cannot be silenced is only heard. */
static int is_libonnx(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    return info->dlpi_name != NULL && strstr(info->dlpi_name, "/libonnx.so") != NULL;
}

static int hush(void)
{
    int was = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    int null = was < 0 ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (null >= 0 && dup2(null, STDERR_FILENO) >= 0) {
        (void)close(null);
        return was;
    }
    tg_fd_close(null);
    tg_fd_close(was);
    return -1;
}

static void unhush(int was)
{
    if (was >= 0)
        (void)dup2(was, STDERR_FILENO);
    tg_fd_close(was);
}

static enum tg_rc load_nothing(struct tg_ort *o, struct tg_err *err)
{
    /* y = Identity(x), both float[1], opset 13 */
    static const char model[] =
        "\x08\x08\x3a\x37\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g"
        "\x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
        "\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
        "\x42\x02\x10\x0d";
    TG_AUTO(tg_session_freep) struct tg_session *s = NULL;

    return tg_session_new(o, tg_bytes_str(model), &s, err);
}

static enum tg_rc warm_up(struct tg_ort *o, struct tg_err *err)
{
    int was = dl_iterate_phdr(is_libonnx, NULL) == 0 ? -1 : hush();
    enum tg_rc rc = load_nothing(o, err);

    unhush(was);
    return rc;
}

static enum tg_rc make_env(struct tg_ort *o, unsigned threads, struct tg_err *err)
{
    OrtThreadingOptions *t = NULL;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(o, o->api->CreateThreadingOptions(&t), "threads", err));
    rc = tg_ort_check(o, o->api->SetGlobalIntraOpNumThreads(t, (int)threads), "threads", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->SetGlobalInterOpNumThreads(t, 1), "threads", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->SetGlobalSpinControl(t, 0), "threads", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->SetGlobalCustomCreateThreadFn(t, make_thread), "threads", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->SetGlobalCustomJoinThreadFn(t, join_thread), "threads", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o,
                          o->api->CreateEnvWithCustomLoggerAndGlobalThreadPools(
                              drop_log, NULL, ORT_LOGGING_LEVEL_FATAL, "moai", t, &o->env),
                          "environment", err);
    o->api->ReleaseThreadingOptions(t);
    TG_TRY(rc);
    TG_TRY(tg_ort_check(o, o->api->DisableTelemetryEvents(o->env), "telemetry", err));
    return tg_ort_check(o,
                        o->api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &o->cpu),
                        "memory", err);
}

enum tg_rc tg_ort_new(unsigned threads, struct tg_ort **out, struct tg_err *err)
{
    TG_AUTO(tg_ort_freep) struct tg_ort *o = tg_calloc(1, sizeof(*o));

    if (o == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    o->api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (o->api == NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "ONNX Runtime %s does not offer API version %d; 1.21 or newer is needed",
                       tg_ort_version(), ORT_API_VERSION);
    TG_TRY(make_env(o, threads, err));
    TG_TRY(warm_up(o, err));
    *out = tg_steal(&o);
    return TG_OK;
}

void tg_ort_free(struct tg_ort *o)
{
    if (o == NULL)
        return;
    if (o->cpu != NULL)
        o->api->ReleaseMemoryInfo(o->cpu);
    if (o->env != NULL)
        o->api->ReleaseEnv(o->env);
    tg_free(o);
}

/* ---- what the model declares ---- */

static enum tg_rc read_shape(const struct tg_ort *o, const OrtTensorTypeAndShapeInfo *info,
                             struct tg_port *port, struct tg_err *err)
{
    size_t n = 0;

    TG_TRY(tg_ort_check(o, o->api->GetDimensionsCount(info, &n), port->name, err));
    if (n > TG_DIMS_MAX)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "'%s' has %zu dimensions, at most %d", port->name, n,
                       TG_DIMS_MAX);
    port->shape.n = n;
    return tg_ort_check(o, o->api->GetDimensions(info, port->shape.d, n), port->name, err);
}

static enum tg_rc read_type(const struct tg_ort *o, const OrtTypeInfo *type, struct tg_port *port,
                            struct tg_err *err)
{
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

    TG_TRY(tg_ort_check(o, o->api->CastTypeInfoToTensorInfo(type, &info), port->name, err));
    if (info == NULL)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "'%s' is not a tensor", port->name);
    TG_TRY(tg_ort_check(o, o->api->GetTensorElementType(info, &element), port->name, err));
    if (!tg_ort_dtype(element, &port->dtype))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "'%s' has an element type that the Open Inference Protocol does not have "
                       "(ONNX type %d)",
                       port->name, (int)element);
    return read_shape(o, info, port, err);
}

typedef OrtStatus *(ORT_API_CALL *name_fn)(const OrtSession *, size_t, OrtAllocator *, char **);
typedef OrtStatus *(ORT_API_CALL *type_fn)(const OrtSession *, size_t, OrtTypeInfo **);

static enum tg_rc read_name(const struct tg_session *s, name_fn get, size_t i, char **out,
                            struct tg_err *err)
{
    const OrtApi *api = s->ort->api;
    OrtAllocator *alloc = NULL;
    char *name = NULL;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(s->ort, api->GetAllocatorWithDefaultOptions(&alloc), "names", err));
    TG_TRY(tg_ort_check(s->ort, get(s->session, i, alloc, &name), "names", err));
    bool fits = strlen(name) <= TG_OIP_NAME_MAX && tg_utf8_ok(tg_bytes_str(name));
    *out = fits ? tg_strdup(name) : NULL;
    rc = tg_ort_check(s->ort, api->AllocatorFree(alloc, name), "names", err);
    if (rc == TG_OK && fits && *out == NULL)
        rc = TG_FAIL(err, TG_E_NOMEM, "out of memory");
    else if (rc == TG_OK && !fits)
        rc = TG_FAIL(err, TG_E_UNSUPPORTED, "a tensor name is over %d bytes or not UTF-8",
                     TG_OIP_NAME_MAX);
    return rc;
}

static enum tg_rc read_ports(const struct tg_session *s, name_fn name, type_fn type, size_t n,
                             struct tg_ports *ports, struct tg_err *err)
{
    if (n > TG_OIP_TENSORS_MAX)
        return TG_FAIL(err, TG_E_UNSUPPORTED, "the model has %zu inputs or outputs, at most %d", n,
                       TG_OIP_TENSORS_MAX);
    ports->v = tg_calloc(n + 1, sizeof(*ports->v));
    if (ports->v == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        OrtTypeInfo *info = NULL;
        enum tg_rc rc;

        ports->n++;
        TG_TRY(read_name(s, name, i, &ports->v[i].name, err));
        TG_TRY(tg_ort_check(s->ort, type(s->session, i, &info), "types", err));
        rc = read_type(s->ort, info, &ports->v[i], err);
        s->ort->api->ReleaseTypeInfo(info);
        TG_TRY(rc);
    }
    return TG_OK;
}

/* ---- the session ---- */

enum tg_rc tg_ort_configure(const struct tg_ort *o, OrtSessionOptions *opts,
                            const struct tg_ort_entry *entries, size_t n, struct tg_err *err)
{
    TG_TRY(tg_ort_check(o, o->api->DisablePerSessionThreads(opts), "options", err));
    for (size_t i = 0; i < n; i++)
        TG_TRY(tg_ort_check(o,
                            o->api->AddSessionConfigEntry(opts, entries[i].key, entries[i].value),
                            "options", err));
    return TG_OK;
}

static enum tg_rc set_options(struct tg_ort *o, const struct tg_session_extra *extra,
                              OrtSessionOptions *opts, struct tg_err *err)
{
    TG_TRY(tg_ort_configure(o, opts, NULL, 0, err));
    return tg_session_supply(o, extra, opts, err);
}

static enum tg_rc create(struct tg_session *s, const struct tg_session_extra *extra,
                         struct tg_err *err)
{
    const OrtApi *api = s->ort->api;
    OrtSessionOptions *opts = NULL;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(s->ort, api->CreateSessionOptions(&opts), "options", err));
    rc = set_options(s->ort, extra, opts, err);
    if (rc == TG_OK)
        rc = tg_ort_check(s->ort,
                          api->CreateSessionFromArray(s->ort->env, extra->model.p, extra->model.n,
                                                      opts, &s->session),
                          "loading the model", err);
    api->ReleaseSessionOptions(opts);
    return rc;
}

static enum tg_rc describe(struct tg_session *s, struct tg_err *err)
{
    const OrtApi *api = s->ort->api;
    size_t in = 0, out = 0;

    TG_TRY(tg_ort_check(s->ort, api->SessionGetInputCount(s->session, &in), "inputs", err));
    TG_TRY(tg_ort_check(s->ort, api->SessionGetOutputCount(s->session, &out), "outputs", err));
    TG_TRY(read_ports(s, api->SessionGetInputName, api->SessionGetInputTypeInfo, in, &s->in, err));
    return read_ports(s, api->SessionGetOutputName, api->SessionGetOutputTypeInfo, out, &s->out,
                      err);
}

enum tg_rc tg_session_open(struct tg_ort *ort, const struct tg_session_spec *spec,
                           struct tg_session **out, struct tg_err *err)
{
    TG_AUTO(tg_session_freep) struct tg_session *s = tg_calloc(1, sizeof(*s));
    struct tg_session_extra extra = {.own = TG_BUF_INIT(0)};
    enum tg_rc rc;

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    s->ort = ort;
    rc = tg_session_gather(ort, spec, &extra, err);
    if (rc == TG_OK)
        rc = create(s, &extra, err);
    tg_session_extra_done(ort, &extra);
    TG_TRY(rc);
    TG_TRY(describe(s, err));
    *out = tg_steal(&s);
    return TG_OK;
}

/* ---- from an image ---- */

static enum tg_rc create_baked(struct tg_session *s, struct tg_bytes image, struct tg_err *err)
{
    static const struct tg_ort_entry entries[] = {
        {"session.load_model_format",                    "ORT"},
        {"session.use_ort_model_bytes_directly",         "1"  },
        {"session.use_ort_model_bytes_for_initializers", "1"  },
    };
    const OrtApi *api = s->ort->api;
    OrtSessionOptions *opts = NULL;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(s->ort, api->CreateSessionOptions(&opts), "options", err));
    rc = tg_ort_configure(s->ort, opts, entries, TG_ARRAY_LEN(entries), err);
    if (rc == TG_OK)
        rc = tg_ort_check(
            s->ort, api->CreateSessionFromArray(s->ort->env, image.p, image.n, opts, &s->session),
            "loading the baked model", err);
    api->ReleaseSessionOptions(opts);
    return rc;
}

enum tg_rc tg_session_baked(struct tg_ort *ort, struct tg_bake *b, struct tg_session **out,
                            struct tg_err *err)
{
    TG_AUTO(tg_session_freep) struct tg_session *s = tg_calloc(1, sizeof(*s));
    struct tg_bytes image = tg_bytes_make(tg_secret_data(b->image), tg_secret_size(b->image));

    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    s->ort = ort;
    TG_TRY(create_baked(s, image, err));
    TG_TRY(describe(s, err));
    TG_TRY(tg_secret_seal(b->image, err));
    TG_TRY(tg_secret_trim(b->image, b->keep, err));
    s->image = tg_steal(&b->image);
    *out = tg_steal(&s);
    return TG_OK;
}

struct tg_bytes tg_session_image(const struct tg_session *s)
{
    return s->image == NULL ? TG_BYTES_NONE
                            : tg_bytes_make(tg_secret_data(s->image), tg_secret_size(s->image));
}

enum tg_rc tg_session_new(struct tg_ort *ort, struct tg_bytes model, struct tg_session **out,
                          struct tg_err *err)
{
    const struct tg_session_spec spec = {.model = model};

    return tg_session_open(ort, &spec, out, err);
}

static void ports_free(struct tg_ports *p)
{
    for (size_t i = 0; i < p->n; i++)
        tg_free(p->v[i].name);
    tg_free(p->v);
}

void tg_session_free(struct tg_session *s)
{
    if (s == NULL)
        return;
    if (s->session != NULL)
        s->ort->api->ReleaseSession(s->session);
    tg_secret_free(s->image);
    ports_free(&s->in);
    ports_free(&s->out);
    tg_free(s);
}

const struct tg_ports *tg_session_inputs(const struct tg_session *s)
{
    return &s->in;
}

const struct tg_ports *tg_session_outputs(const struct tg_session *s)
{
    return &s->out;
}
