/* What every part of the control plane shares: made once at start, read by all threads.
 *
 * State that matters is in the database and the blob folder only; what is here is keys, limits,
 * counters and heartbeats of the last second. */
#ifndef TG_PLATFORM_PLATFORM_H
#define TG_PLATFORM_PLATFORM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/opt.h"
#include "platform/beat.h"
#include "platform/keys.h"
#include "platform/rate.h"
#include "store/db.h"

struct tg_platform_config {
    const char *data_dir;
    const char *listen, *device_listen; /* "address:port" */
    const char *key_file, *passphrase_file;
    const char *log_level;
    struct tg_opt_list names; /* server certificate's further names */
    uint64_t rate_limit;      /* requests per second and token; 0: unlimited */
    uint64_t poll_s;          /* how often devices should check in */
    uint64_t grant_life_s;    /* of the vault's grants */
    uint64_t threads;         /* per listener */
    bool new_admin_token;
    bool json;
};

#define TG_UPLOAD_LOCKS 64

struct tg_platform {
    const struct tg_platform_config *config;
    struct tg_store *store;
    struct tg_keys *keys;
    struct tg_rate *rate;
    struct tg_beats *beats;
    char *blobs_dir, *uploads_dir;
    char *api_url, *device_url;
    struct tg_buf openapi;
    pthread_mutex_t part_locks[TG_UPLOAD_LOCKS]; /* one part is written by one request at a time */
    pthread_mutex_t complete_lock;               /* guards `completing` */
    char completing[16][33];                     /* uploads being checked right now */
    atomic_bool draining;
    atomic_uint_fast64_t requests[6]; /* answers by hundreds of their status */
};

/* "<blobs>/ab/<hex>" of a blob, in fresh memory. */
char *tg_blob_path(const struct tg_platform *p, const uint8_t sha256[32]);

#endif
