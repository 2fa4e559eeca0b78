#include "moai/handover.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "moai/maker.h"
#include "tgsp/package.h"

/* Each is told to the agent, which takes a worker that says too much for one that was taken over:
 * so many at once (TG_HANDOVER_BURST), then one in so long. */
#define EACH_NS UINT64_C(1000000000)

/* One that a copy must be made for. */
struct ask {
    uid_t uid;
    void *who; /* NULL: gone, while it was being made */
    struct tg_native_take what;
};

struct tg_handover {
    struct tg_handover_opts o;
    const struct tg_model *model;
    struct tg_copy copies[TG_HANDOVER_COPIES_MAX];
    size_t n;
    struct tg_maker *maker; /* NULL: copies are made at once */
    bool making;            /* it makes asks[0] */
    struct ask asks[TG_HANDOVER_ASKS_MAX];
    size_t n_asks;
    uint64_t handed, handed_bytes;
    unsigned allowance; /* hand-overs that may follow at once */
    uint64_t counted_ns;
};

enum tg_rc tg_handover_new(const struct tg_handover_opts *opts, struct tg_handover **out,
                           struct tg_err *err)
{
    TG_AUTO(tg_handover_freep) struct tg_handover *h = tg_calloc(1, sizeof(*h));

    if (h == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    h->o = *opts;
    h->allowance = TG_HANDOVER_BURST;
    h->counted_ns = tg_clock_mono_ns();
    if (opts->beside && opts->n_users > 0)
        TG_TRY(tg_maker_new(opts->notify, &h->maker, err));
    *out = tg_steal(&h);
    return TG_OK;
}

void tg_handover_free(struct tg_handover *h)
{
    if (h == NULL)
        return;
    tg_maker_free(h->maker);
    for (size_t i = 0; i < h->n; i++)
        tg_copy_done(&h->copies[i]);
    tg_free(h);
}

void tg_handover_model(struct tg_handover *h, const struct tg_model *m)
{
    h->model = m;
}

bool tg_handover_allows(const struct tg_handover *h, uid_t uid)
{
    for (size_t i = 0; i < h->o.n_users; i++)
        if (h->o.users[i] == uid)
            return true;
    return false;
}

struct tg_handover_facts tg_handover_facts(const struct tg_handover *h)
{
    struct tg_handover_facts f = {.handed = h->handed,
                                  .handed_bytes = h->handed_bytes,
                                  .held = h->n,
                                  .held_bytes = tg_maker_size(h->maker)};

    for (size_t i = 0; i < h->n; i++)
        f.held_bytes += h->copies[i].size;
    return f;
}

bool tg_handover_copy(const struct tg_handover *h, size_t i, struct tg_handover_copy *out)
{
    if (i >= h->n)
        return false;
    *out = (struct tg_handover_copy){h->copies[i].path, h->copies[i].tensor, h->copies[i].map,
                                     h->copies[i].size};
    return true;
}

/* ---- what is asked for ---- */

static enum tg_rc check_user(const struct tg_handover *h, uid_t uid, struct tg_err *err)
{
    if (tg_handover_allows(h, uid))
        return TG_OK;
    return TG_FAIL(err, TG_E_DENIED,
                   "user %u may not be handed files of the package (the agent's configuration "
                   "names who may)",
                   (unsigned)uid);
}

static enum tg_rc check_pace(struct tg_handover *h, struct tg_err *err)
{
    uint64_t now = tg_clock_mono_ns(), more = (now - h->counted_ns) / EACH_NS;

    if (more >= TG_HANDOVER_BURST - h->allowance) {
        h->allowance = TG_HANDOVER_BURST;
        h->counted_ns = now;
    } else {
        h->allowance += (unsigned)more;
        h->counted_ns += more * EACH_NS;
    }
    if (h->allowance == 0)
        return TG_FAIL(err, TG_E_AGAIN, "too many hand-overs at a time: ask again in a second");
    h->allowance--;
    return TG_OK;
}

static struct tg_copy *find_copy(struct tg_handover *h, const struct tg_native_take *in)
{
    for (size_t i = 0; i < h->n; i++)
        if (strcmp(h->copies[i].path, in->path) == 0 &&
            strcmp(h->copies[i].tensor, in->tensor) == 0)
            return &h->copies[i];
    return NULL;
}

/* ---- handing over ---- */

/* The agent is told first: where that fails, nothing leaves. */
static enum tg_rc give(struct tg_handover *h, uid_t uid, const struct tg_copy *c,
                       union tg_native_msg *out, int *fd, struct tg_err *err)
{
    const struct tg_handover_note note = {c->path, c->tensor, c->size, (uint32_t)uid};

    TG_TRY(h->o.tell(h->o.arg, &note, err));
    h->handed++;
    h->handed_bytes += c->size;
    tg_log(TG_LOG_INFO, "moai.handover", "uid=%u bytes=%zu", (unsigned)uid, c->size);
    tg_native_begin(out, TG_NATIVE_TAKEN);
    out->taken.size = c->size;
    memcpy(out->taken.dtype, c->dtype, sizeof(c->dtype));
    out->taken.n_dims = (uint32_t)c->shape.n;
    memcpy(out->taken.dims, c->shape.d, c->shape.n * sizeof(c->shape.d[0]));
    *fd = c->fd;
    return TG_OK;
}

/* A new copy is kept once somebody has it. */
static enum tg_rc keep_and_give(struct tg_handover *h, uid_t uid, const struct tg_copy *made,
                                union tg_native_msg *out, int *fd, struct tg_err *err)
{
    struct tg_copy *c = &h->copies[h->n];
    enum tg_rc rc;

    *c = *made;
    rc = give(h, uid, c, out, fd, err);
    if (rc == TG_OK)
        h->n++;
    else
        tg_copy_done(c);
    return rc;
}

/* Before the work: decrypting takes time. */
static enum tg_rc check_new(struct tg_handover *h, const struct tg_native_take *in,
                            struct tg_err *err)
{
    if (tg_copy_file(h->model, in->path) == NULL)
        return TG_FAIL(err, TG_E_NOTFOUND, "the package has no file '%s'", in->path);
    if (h->n + h->n_asks >= TG_HANDOVER_COPIES_MAX)
        return TG_FAIL(err, TG_E_LIMIT, "%d files and tensors are handed over: no more",
                       TG_HANDOVER_COPIES_MAX);
    if (h->n_asks == TG_HANDOVER_ASKS_MAX)
        return TG_FAIL(err, TG_E_AGAIN,
                       "%d hand-overs are waited for, and they are made one after the other: ask "
                       "again later",
                       TG_HANDOVER_ASKS_MAX);
    return check_pace(h, err);
}

static void begin_first(struct tg_handover *h)
{
    h->making = true;
    tg_maker_begin(h->maker, h->model, &h->asks[0].what);
}

enum tg_rc tg_handover_take(struct tg_handover *h, const struct tg_handover_ask *ask,
                            union tg_native_msg *out, int *fd, struct tg_err *err)
{
    const struct tg_copy *c = find_copy(h, ask->what);
    struct tg_copy_watch watch = {.stop = false};
    struct tg_copy made;

    TG_TRY(check_user(h, ask->uid, err));
    if (c != NULL) {
        TG_TRY(check_pace(h, err));
        return give(h, ask->uid, c, out, fd, err);
    }
    TG_TRY(check_new(h, ask->what, err));
    if (h->maker == NULL) {
        TG_TRY(tg_copy_make(h->model, ask->what, &watch, &made, err));
        return keep_and_give(h, ask->uid, &made, out, fd, err);
    }
    h->asks[h->n_asks++] = (struct ask){ask->uid, ask->who, *ask->what};
    if (!h->making)
        begin_first(h);
    *fd = -1;
    return TG_OK;
}

static struct ask take_ask(struct tg_handover *h, size_t i)
{
    struct ask a = h->asks[i];

    h->n_asks--;
    memmove(&h->asks[i], &h->asks[i + 1], (h->n_asks - i) * sizeof(h->asks[0]));
    return a;
}

bool tg_handover_next(struct tg_handover *h, union tg_native_msg *out, struct tg_handover_reply *r)
{
    while (h->n_asks > 0) {
        const struct tg_copy *c;
        struct tg_handover_reply now = {.fd = -1, .err = TG_ERR_INIT};
        struct tg_copy made;
        struct ask a;

        if (h->making) {
            if (!tg_maker_result(h->maker, &now.rc, &made, &now.err))
                return false;
            h->making = false;
            a = take_ask(h, 0);
            if (a.who == NULL) {
                if (now.rc == TG_OK)
                    tg_copy_done(&made);
                continue;
            }
            if (now.rc == TG_OK)
                now.rc = keep_and_give(h, a.uid, &made, out, &now.fd, &now.err);
        } else if ((c = find_copy(h, &h->asks[0].what)) != NULL) { /* made for another meanwhile */
            a = take_ask(h, 0);
            now.rc = give(h, a.uid, c, out, &now.fd, &now.err);
        } else {
            begin_first(h);
            return false;
        }
        now.who = a.who;
        *r = now;
        return true;
    }
    return false;
}

void tg_handover_cancel(struct tg_handover *h, const void *who)
{
    for (size_t i = 0; i < h->n_asks; i++) {
        if (h->asks[i].who != who)
            continue;
        if (i == 0 && h->making) {
            h->asks[0].who = NULL;
            tg_maker_stop(h->maker);
        } else {
            (void)take_ask(h, i);
        }
        return;
    }
}

enum tg_rc tg_handover_list(const struct tg_handover *h, uid_t uid, const struct tg_native_list *in,
                            union tg_native_msg *out, struct tg_err *err)
{
    const struct tg_model *m = h->model;
    const struct tg_tgsp_manifest *manifest =
        m == NULL || m->package == NULL ? NULL : tg_tgsp_manifest_get(m->package);
    size_t n = manifest == NULL ? 0 : manifest->files.n;
    const struct tg_tgsp_file *v = manifest == NULL ? NULL : manifest->files.items;

    TG_TRY(check_user(h, uid, err));
    tg_native_begin(out, TG_NATIVE_FILES);
    out->files.total = (uint32_t)n;
    for (size_t i = in->from; i < n && out->files.n < TG_NATIVE_FILES_MAX; i++) {
        struct tg_native_file *f = &out->files.files[out->files.n++];

        f->size = v[i].size;
        tg_native_text(f->path, sizeof(f->path), v[i].path);
    }
    return TG_OK;
}
