#include "platform/rate.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define WAYS 8
#define SETS 1024
#define WHO_MAX 72
#define SECOND UINT64_C(1000000000)

struct bucket {
    char who[WHO_MAX];
    uint64_t at;    /* monotonic ns of the last change; 0: free */
    uint64_t level; /* in nano-requests */
};

struct tg_rate {
    pthread_mutex_t lock;
    struct bucket sets[SETS][WAYS];
};

TG_RC tg_rate_new(struct tg_rate **out)
{
    struct tg_rate *r = tg_calloc(1, sizeof(*r));

    if (r == NULL)
        return TG_E_NOMEM;
    if (pthread_mutex_init(&r->lock, NULL) != 0) {
        tg_free(r);
        return TG_E_INTERNAL;
    }
    *out = r;
    return TG_OK;
}

void tg_rate_free(struct tg_rate *r)
{
    if (r == NULL)
        return;
    pthread_mutex_destroy(&r->lock);
    tg_free(r);
}

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261U; /* FNV-1a: spreads, nothing more */

    for (; *s != '\0'; s++)
        h = (h ^ (uint8_t)*s) * 16777619U;
    return h;
}

static struct bucket *find(struct tg_rate *r, const char *who, bool *fresh)
{
    struct bucket *set = r->sets[hash(who) % SETS];
    struct bucket *oldest = &set[0];

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].at != 0 && strcmp(set[i].who, who) == 0) {
            *fresh = false;
            return &set[i];
        }
        if (set[i].at < oldest->at)
            oldest = &set[i];
    }
    (void)snprintf(oldest->who, sizeof(oldest->who), "%s", who);
    *fresh = true;
    return oldest;
}

bool tg_rate_take(struct tg_rate *r, const char *who, const struct tg_rate_limit *limit,
                  uint64_t now_ns, uint32_t *retry_s)
{
    uint64_t max = (uint64_t)limit->burst * SECOND;
    bool fresh, yes;
    char key[WHO_MAX];

    (void)snprintf(key, sizeof(key), "%s", who);
    pthread_mutex_lock(&r->lock);
    struct bucket *b = find(r, key, &fresh);
    uint64_t gone = fresh || now_ns < b->at ? 0 : now_ns - b->at;
    if (gone > 3600 * SECOND)
        gone = 3600 * SECOND;
    b->level = fresh ? max : b->level + gone * limit->per_s;
    if (b->level > max)
        b->level = max;
    b->at = now_ns != 0 ? now_ns : 1;
    yes = b->level >= SECOND;
    if (yes)
        b->level -= SECOND;
    pthread_mutex_unlock(&r->lock);
    *retry_s = 1;
    return yes;
}
