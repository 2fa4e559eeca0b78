#include "moai/bake_watch.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* Before every block: where it was allocated, and its neighbours in the list of all. */
struct block {
    struct block *prev, *next;
    void *base;
    size_t n;
};

struct seen {
    bool freed, live;
};

struct watch {
    OrtAllocator face; /* first: what ONNX Runtime is given */
    const OrtMemoryInfo *info;
    pthread_mutex_t lock; /* guards what follows */
    struct block all;     /* ring */
    const struct tg_bake_layout *l;
    struct seen *seen; /* of l->data */
};

static struct block *block_of(void *p)
{
    return (struct block *)(void *)((uint8_t *)p - sizeof(struct block));
}

static void *ORT_API_CALL take(struct OrtAllocator *face, size_t n)
{
    struct watch *w = (struct watch *)(void *)face;
    size_t whole;
    uintptr_t at;
    uint8_t *base;
    struct block *b;

    if (!tg_add_size(n, sizeof(struct block) + TG_BAKE_ALIGN, &whole))
        return NULL;
    base = tg_alloc(whole);
    if (base == NULL)
        return NULL;
    at = (uintptr_t)base + sizeof(struct block);
    b = block_of(base + sizeof(struct block) +
                 (TG_BAKE_ALIGN - at % TG_BAKE_ALIGN) % TG_BAKE_ALIGN);
    pthread_mutex_lock(&w->lock);
    *b = (struct block){.prev = &w->all, .next = w->all.next, .base = base, .n = n};
    b->next->prev = b;
    w->all.next = b;
    pthread_mutex_unlock(&w->lock);
    return b + 1;
}

/* Whose bytes are these? More than one piece of data may have them. */
static void compare(const struct watch *w, const struct block *b, bool live)
{
    for (size_t i = 0; i < w->l->n_data; i++) {
        const struct tg_bake_data *d = &w->l->data[i];

        if (d->n != b->n || !tg_mem_eq(b + 1, w->l->in.p + d->at, d->n))
            continue;
        w->seen[i].freed = w->seen[i].freed || !live;
        w->seen[i].live = w->seen[i].live || live;
    }
}

static void ORT_API_CALL give(struct OrtAllocator *face, void *p)
{
    struct watch *w = (struct watch *)(void *)face;
    struct block *b;

    if (p == NULL)
        return;
    b = block_of(p);
    pthread_mutex_lock(&w->lock);
    b->prev->next = b->next;
    b->next->prev = b->prev;
    if (w->seen != NULL)
        compare(w, b, false);
    pthread_mutex_unlock(&w->lock);
    tg_wipe(p, b->n);
    tg_free(b->base);
}

static const OrtMemoryInfo *ORT_API_CALL info(const struct OrtAllocator *face)
{
    return ((const struct watch *)(const void *)face)->info;
}

static enum tg_rc create(struct tg_ort *o, const struct tg_bake_layout *l, OrtSession **s,
                         struct tg_err *err)
{
    static const struct tg_ort_entry entries[] = {
        {"session.load_model_format",            "ORT"},
        {"session.use_ort_model_bytes_directly", "1"  },
        {"session.use_env_allocators",           "1"  },
    };
    OrtSessionOptions *opts = NULL;
    enum tg_rc rc;

    TG_TRY(tg_ort_check(o, o->api->CreateSessionOptions(&opts), "options", err));
    rc = tg_ort_configure(o, opts, entries, TG_ARRAY_LEN(entries), err);
    if (rc == TG_OK) /* or all initializers lie in one block, which is never freed */
        rc = tg_ort_check(o, o->api->DisableMemPattern(opts), "options", err);
    if (rc == TG_OK)
        rc = tg_ort_check(o, o->api->CreateSessionFromArray(o->env, l->in.p, l->in.n, opts, s),
                          "baking the model", err);
    o->api->ReleaseSessionOptions(opts);
    return rc;
}

static enum tg_rc watch(struct tg_ort *o, struct watch *w, struct tg_bake_layout *l,
                        struct tg_err *err)
{
    OrtSession *s = NULL;

    TG_TRY(create(o, l, &s, err));
    for (const struct block *b = w->all.next; b != &w->all; b = b->next)
        compare(w, b, true);
    for (size_t i = 0; i < l->n_data; i++)
        l->data[i].packed = l->data[i].main && w->seen[i].freed && !w->seen[i].live;
    w->seen = NULL; /* what is freed from now on says nothing */
    o->api->ReleaseSession(s);
    return TG_OK;
}

enum tg_rc tg_bake_watch(struct tg_ort *o, struct tg_bake_layout *l, struct tg_err *err)
{
    TG_AUTO(tg_freep) struct seen *seen = tg_calloc(l->n_data + 1, sizeof(*seen));
    struct watch w = {
        .face = {.version = ORT_API_VERSION,
                 .Alloc = take,
                 .Free = give,
                 .Info = info,
                 .Reserve = take},
        .info = o->cpu,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .l = l,
        .seen = seen,
    };
    enum tg_rc rc;

    if (seen == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    w.all.prev = w.all.next = &w.all;
    TG_TRY(tg_ort_check(o, o->api->RegisterAllocator(o->env, &w.face), "allocator", err));
    rc = watch(o, &w, l, err);
    w.seen = NULL;
    if (tg_ort_check(o, o->api->UnregisterAllocator(o->env, o->cpu), "allocator", err) != TG_OK)
        rc = err->rc;
    return rc;
}
