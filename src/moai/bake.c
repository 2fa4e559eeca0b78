#include "moai/bake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/thread.h"
#include "moai/bake_watch.h"
#include "moai/session_internal.h"

#define PIPE_SIZE (1 << 20) /* the most an ordinary user may have */

/* ---- the pipe ---- */

enum tg_rc tg_bake_pipe_new(struct tg_bake_pipe *p, struct tg_err *err)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make a pipe");
    (void)fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE); /* a wish */
    *p = (struct tg_bake_pipe){.in = fds[0], .out = fds[1]};
    return TG_OK;
}

void tg_bake_pipe_done(struct tg_bake_pipe *p)
{
    tg_fd_close(p->in);
    tg_fd_close(p->out);
    *p = TG_BAKE_PIPE_INIT;
}

/* What comes out of the pipe, taken by a thread of its own: a pipe holds little. */
struct drain {
    int fd;
    struct tg_buf data;
    enum tg_rc rc;
};

#define STEP ((size_t)1 << 20)

static void drain(void *arg)
{
    struct drain *d = arg;
    uint8_t *at = NULL;
    ssize_t n = 1;

    while (n != 0) {
        d->rc = tg_buf_reserve(&d->data, STEP, &at);
        if (d->rc != TG_OK)
            break;
        n = read(d->fd, at, STEP);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            d->rc = TG_E_IO;
            break;
        }
        tg_buf_grow(&d->data, (size_t)n);
    }
    /* After a failure the writer must not wait for ever. There is room for a step at `at` still. */
    while (d->rc != TG_OK && at != NULL && (n = read(d->fd, at, STEP)) != 0 &&
           (n > 0 || errno == EINTR))
        ;
}

/* ---- ONNX Runtime's part ---- */

static enum tg_rc options(struct tg_ort *o, const struct tg_session_extra *extra, int fd,
                          OrtSessionOptions *opts, struct tg_err *err)
{
    static const struct tg_ort_entry entries[] = {
        {"session.save_model_format",  "ORT"},
 /* this session's own weights are of no use */
        {"session.disable_prepacking", "1"  },
    };
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    TG_TRY(tg_ort_configure(o, opts, entries, TG_ARRAY_LEN(entries), err));
    TG_TRY(tg_ort_check(o, o->api->SetOptimizedModelFilePath(opts, path), "options", err));
    return tg_session_supply(o, extra, opts, err);
}

/* Make the session whose making writes the model to fd. */
static enum tg_rc optimize(struct tg_ort *o, const struct tg_session_spec *spec, int fd,
                           struct tg_err *err)
{
    struct tg_session_extra extra = {.own = TG_BUF_INIT(0)};
    OrtSessionOptions *opts = NULL;
    OrtSession *s = NULL;
    enum tg_rc rc = tg_session_gather(o, spec, &extra, err);

    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->CreateSessionOptions(&opts), "options", err);
    if (rc == TG_OK)
        rc = options(o, &extra, fd, opts, err);
    if (rc == TG_OK)
        rc = tg_ort_check(
            o, o->api->CreateSessionFromArray(o->env, extra.model.p, extra.model.n, opts, &s),
            "loading the model", err);
    if (s != NULL)
        o->api->ReleaseSession(s);
    if (opts != NULL)
        o->api->ReleaseSessionOptions(opts);
    tg_session_extra_done(o, &extra);
    return rc;
}

static enum tg_rc capture(struct tg_ort *o, const struct tg_session_spec *spec,
                          struct tg_bake_pipe *p, struct drain *d, struct tg_err *err)
{
    struct tg_thread *t = NULL;
    enum tg_rc rc;

    TG_TRY(tg_thread_start(drain, d, TG_THREAD_STACK, &t, err));
    rc = optimize(o, spec, p->out, err);
    tg_fd_close(p->out); /* the other end reads the end */
    p->out = -1;
    tg_thread_join(t);
    TG_TRY(rc);
    if (d->rc != TG_OK)
        return TG_FAIL(err, d->rc, "the optimized model could not be taken over");
    return TG_OK;
}

static size_t size_of(const struct tg_session_spec *spec)
{
    size_t n = spec->model.n;

    for (size_t i = 0; i < spec->n_weights; i++)
        if (!tg_add_size(n, spec->weights[i].bytes.n, &n))
            return SIZE_MAX;
    return tg_add_size(n, tg_session_external(spec), &n) ? n : SIZE_MAX;
}

static enum tg_rc arrange(struct tg_ort *o, struct tg_bytes ort_model, struct tg_bake *out,
                          struct tg_err *err)
{
    struct tg_bake_layout l = {.n_data = 0};
    enum tg_rc rc = tg_bake_layout_read(ort_model, &l, err);

    if (rc == TG_OK)
        rc = tg_bake_watch(o, &l, err);
    if (rc == TG_OK)
        rc = tg_bake_layout_write(&l, &out->image, &out->keep, err);
    tg_bake_layout_done(&l);
    return rc;
}

enum tg_rc tg_bake_make(struct tg_ort *ort, const struct tg_session_spec *spec,
                        struct tg_bake_pipe *p, struct tg_bake *out, struct tg_err *err)
{
    struct drain d = {.fd = p->in, .data = TG_BUF_SECRET(TG_BAKE_MAX + STEP)};
    size_t n = size_of(spec);
    uint8_t *at = NULL;
    enum tg_rc rc = TG_E_LIMIT;

    if (n > TG_BAKE_INPUT_MAX)
        rc = TG_FAIL(err, TG_E_LIMIT, "a model of %zu bytes is too large to be baked", n);
    else if (tg_buf_reserve(&d.data, n + n / 16 + 4 * STEP, &at) != TG_OK)
        rc = TG_FAIL(err, TG_E_NOMEM, "out of memory");
    else
        rc = capture(ort, spec, p, &d, err);
    tg_bake_pipe_done(p);
    if (rc == TG_OK)
        rc = arrange(ort, tg_buf_view(&d.data), out, err);
    tg_buf_done(&d.data);
    return rc;
}

void tg_bake_done(struct tg_bake *b)
{
    tg_secret_free(b->image);
    *b = (struct tg_bake){.keep = 0};
}
