#include "moai/verify_run.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"
#include "tensor/oip.h"

struct tg_verify_run {
    struct tg_session *session;
    struct tg_thread *thread;
    _Atomic bool stop;
    _Atomic uint64_t runs;
    enum tg_rc rc;
    struct tg_err err;
};

/* Zeros in the smallest shape that the model takes. */
static enum tg_rc zeros(const struct tg_ports *ports, struct tg_oip *in, struct tg_err *err)
{
    for (size_t i = 0; i < ports->n; i++) {
        struct tg_oip_tensor *t = &in->tensors[in->n++];
        size_t count = 0;

        memcpy(t->name, ports->v[i].name, strlen(ports->v[i].name) + 1);
        t->dtype = ports->v[i].dtype;
        t->shape = ports->v[i].shape;
        if (t->dtype == TG_DT_BYTES)
            return TG_FAIL(err, TG_E_UNSUPPORTED, "input '%s' takes strings", t->name);
        for (size_t d = 0; d < t->shape.n; d++)
            if (t->shape.d[d] < 0)
                t->shape.d[d] = 1;
        TG_TRY(tg_shape_count(&t->shape, TG_OIP_DATA_MAX / 8, &count));
        t->owned = tg_calloc(count + 1, tg_dtype_size(t->dtype));
        if (t->owned == NULL)
            return TG_FAIL(err, TG_E_NOMEM, "out of memory");
        t->data = tg_bytes_make(t->owned, count * tg_dtype_size(t->dtype));
    }
    return TG_OK;
}

static enum tg_rc run_once(struct tg_verify_run *r)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *in = tg_oip_new(TG_OIP_REQUEST);
    TG_AUTO(tg_oip_freep) struct tg_oip *out = tg_oip_new(TG_OIP_REPLY);

    if (in == NULL || out == NULL)
        return TG_FAIL(&r->err, TG_E_NOMEM, "out of memory");
    TG_TRY(zeros(tg_session_inputs(r->session), in, &r->err));
    return tg_session_run(r->session, in, out, NULL, &r->err);
}

static void run_on(void *arg)
{
    struct tg_verify_run *r = arg;

    do {
        r->rc = run_once(r);
        atomic_fetch_add(&r->runs, 1);
    } while (r->rc == TG_OK && !atomic_load(&r->stop));
}

enum tg_rc tg_verify_run_start(struct tg_session *session, struct tg_verify_run **out,
                               struct tg_err *err)
{
    struct tg_verify_run *r = tg_calloc(1, sizeof(*r));
    enum tg_rc rc;

    if (r == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    r->session = session;
    rc = tg_thread_start(run_on, r, TG_THREAD_STACK_LARGE, &r->thread, err);
    if (rc != TG_OK) {
        tg_free(r);
        return rc;
    }
    while (atomic_load(&r->runs) == 0)
        (void)usleep(1000);
    *out = r;
    return TG_OK;
}

enum tg_rc tg_verify_run_stop(struct tg_verify_run *r, struct tg_err *err)
{
    enum tg_rc rc;

    atomic_store(&r->stop, true);
    tg_thread_join(r->thread);
    rc = r->rc;
    if (rc != TG_OK)
        rc = TG_FAIL(err, rc, "inference: %s", r->err.msg);
    tg_free(r);
    return rc;
}
