#include "platform/beat.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "store/access.h"
#include "store/fleet.h"

#define BUCKETS 4096
#define BEATS_MAX 65536

struct node {
    struct tg_beat beat;
    struct node *next;
};

struct tg_beats {
    pthread_mutex_t lock;
    struct node *buckets[BUCKETS];
    size_t n;
};

TG_RC tg_beats_new(struct tg_beats **out)
{
    struct tg_beats *b = tg_calloc(1, sizeof(*b));

    if (b == NULL)
        return TG_E_NOMEM;
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        tg_free(b);
        return TG_E_INTERNAL;
    }
    *out = b;
    return TG_OK;
}

static void drop(struct node *n)
{
    while (n != NULL) {
        struct node *next = n->next;
        tg_free(n);
        n = next;
    }
}

void tg_beats_free(struct tg_beats *b)
{
    if (b == NULL)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        drop(b->buckets[i]);
    pthread_mutex_destroy(&b->lock);
    tg_free(b);
}

/* Ids are random hex: any three characters spread well. */
static size_t bucket_of(const char *id)
{
    size_t h = 5381;

    for (const char *s = id; *s != '\0'; s++)
        h = h * 33 + (uint8_t)*s;
    return h % BUCKETS;
}

void tg_beats_add(struct tg_beats *b, const struct tg_beat *beat)
{
    struct node **at = &b->buckets[bucket_of(beat->id)];

    pthread_mutex_lock(&b->lock);
    struct node *n = *at;
    while (n != NULL && (n->beat.token != beat->token || strcmp(n->beat.id, beat->id) != 0))
        n = n->next;
    if (n != NULL) {
        n->beat = *beat;
    } else if (b->n < BEATS_MAX) {
        n = tg_alloc(sizeof(*n));
        if (n != NULL) {
            n->beat = *beat;
            n->next = *at;
            *at = n;
            b->n++;
        }
    }
    pthread_mutex_unlock(&b->lock);
}

static enum tg_rc write_one(struct tg_db *db, const struct tg_beat *t, struct tg_err *err)
{
    if (t->token)
        return tg_token_touch(db, t->id, t->at, err);
    const struct tg_device_beat beat = {
        .id = t->id,
        .at = t->at,
        .agent_version = t->agent_version,
        .separation = t->separation,
        .protection = t->protection,
        .running = t->has_running ? tg_bytes_make(t->running, 32) : TG_BYTES_NONE,
        .status = t->status,
    };
    return tg_device_beat(db, &beat, err);
}

TG_RC tg_beats_flush(struct tg_beats *b, struct tg_db *db, struct tg_err *err)
{
    struct node *all = NULL;
    enum tg_rc rc;

    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; b->n != 0 && i < BUCKETS; i++) {
        while (b->buckets[i] != NULL) {
            struct node *n = b->buckets[i];
            b->buckets[i] = n->next;
            n->next = all;
            all = n;
        }
    }
    b->n = 0;
    pthread_mutex_unlock(&b->lock);
    if (all == NULL)
        return TG_OK;
    rc = tg_db_begin(db, err);
    for (struct node *n = all; rc == TG_OK && n != NULL; n = n->next)
        rc = write_one(db, &n->beat, err);
    if (rc == TG_OK)
        rc = tg_db_commit(db, err);
    tg_db_rollback(db);
    drop(all);
    return rc;
}
