/* The payload in one pass: every chunk is read, encrypted, hashed and written by one thread while
 * it is in cache. The inputs' own digests are taken in order (a ticket passes from chunk to chunk),
 * and the few chunks that hold the list of them are kept back until it is known. */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "codec/text.h"
#include "tgsp/build_internal.h"
#include "tgsp/construct_internal.h"
#include "tgsp/path.h"

struct seat {
    struct tg_aead_ctx *aead;
    struct tg_chunk_hasher hasher;
    uint8_t *buf; /* plaintext, then ciphertext || tag in place */
};

struct job {
    const struct tg_build_plan *plan;
    const struct tg_build_target *to;
    struct seat *seats;
    unsigned n_seats;
    /* chunks [held_first, held_first + held_n) wait for the list of digests */
    uint64_t held_first, held_n;
    uint8_t *held;
    struct tg_buf list;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    /* under lock */
    uint64_t next;      /* whose turn it is to hash plaintext */
    uint64_t failed_at; /* lowest chunk that failed; UINT64_MAX: none */
    /* of whoever has the turn */
    struct tg_sha256_ctx *sha;
    size_t file; /* being hashed */
};

static void job_done(struct job *j)
{
    uint64_t chunk = j->plan->g.chunk_size;
    for (unsigned i = 0; j->seats && i < j->n_seats; i++) {
        tg_aead_free(j->seats[i].aead);
        tg_chunk_hasher_done(&j->seats[i].hasher);
        if (j->seats[i].buf)
            tg_wipe(j->seats[i].buf, (size_t)chunk + TG_AEAD_TAG_LEN);
        tg_free(j->seats[i].buf);
    }
    tg_free(j->seats);
    if (j->held)
        tg_wipe(j->held, (size_t)(j->held_n * chunk));
    tg_free(j->held);
    tg_buf_done(&j->list);
    tg_sha256_free(j->sha);
    (void)pthread_cond_destroy(&j->turn);
    (void)pthread_mutex_destroy(&j->lock);
}

static enum tg_rc seats_make(struct job *j)
{
    const struct tg_build_plan *p = j->plan;
    unsigned threads = p->b->threads ? p->b->threads : tg_thread_cpus();
    j->n_seats = threads < p->g.chunks ? threads : (unsigned)p->g.chunks;
    j->seats = tg_calloc(j->n_seats, sizeof *j->seats);
    if (!j->seats)
        return TG_E_NOMEM;
    for (unsigned i = 0; i < j->n_seats; i++) {
        struct seat *s = &j->seats[i];
        s->buf = tg_alloc((size_t)p->g.chunk_size + TG_AEAD_TAG_LEN);
        if (!s->buf)
            return TG_E_NOMEM;
        TG_TRY(tg_chunk_hasher_init(&s->hasher));
        TG_TRY(tg_aead_new(p->b->aead, j->to->payload_key, &s->aead));
    }
    return TG_OK;
}

static enum tg_rc held_make(struct job *j)
{
    const struct tg_build_plan *p = j->plan;
    if (p->digest_file == TG_NOT_AN_INPUT)
        return TG_OK;
    const struct tg_tgsp_file *f = &p->files[p->digest_file];
    j->held_first = f->offset / p->g.chunk_size;
    j->held_n = (f->offset + (f->size ? f->size - 1 : 0)) / p->g.chunk_size - j->held_first + 1;
    j->held = tg_calloc(j->held_n, (size_t)p->g.chunk_size);
    j->list = TG_BUF_INIT((size_t)f->size + 1);
    TG_TRY(tg_sha256_new(&j->sha));
    return j->held ? TG_OK : TG_E_NOMEM;
}

/* One file's part of a chunk: [from, to) of the payload. */
struct part {
    size_t file;
    uint64_t from, to;
};

static enum tg_rc part_read(const struct job *j, const struct part *part, uint8_t *to,
                            struct tg_err *err)
{
    const struct tg_build_plan *p = j->plan;
    const struct tg_tgsp_file *f = &p->files[part->file];
    TG_AUTO(tg_fd_closep) int fd = -1;
    if (p->from[part->file].input == TG_NOT_AN_INPUT)
        return TG_OK; /* filled in last */
    TG_TRY(tg_tgsp_inputs_open(p->b->inputs, p->from[part->file].input, &fd, err));
    enum tg_rc rc =
        tg_fd_pread(fd, f->path, to, (size_t)(part->to - part->from), part->from - f->offset, err);
    if (rc == TG_E_FORMAT)
        return TG_FAIL(err, TG_E_STATE, "%s: became shorter while it was being packed; build again",
                       f->path);
    return rc;
}

/* First file that ends after off, or begins at or after it when empty. */
static size_t first_file(const struct tg_build_plan *p, uint64_t off)
{
    size_t lo = 0, hi = p->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (p->files[mid].offset + p->files[mid].size <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static enum tg_rc chunk_fill(const struct job *j, uint64_t i, uint8_t *buf, struct tg_err *err)
{
    const struct tg_build_plan *p = j->plan;
    uint64_t off = i * p->g.chunk_size, end = off + tg_tgsp_chunk_plain(&p->g, i);
    memset(buf, 0, (size_t)(end - off)); /* the gaps */
    for (size_t k = first_file(p, off); k < p->n && p->files[k].offset < end; k++) {
        const struct tg_tgsp_file *f = &p->files[k];
        struct part part = {k, f->offset > off ? f->offset : off,
                            f->offset + f->size < end ? f->offset + f->size : end};
        if (part.to > part.from)
            TG_TRY(part_read(j, &part, buf + (part.from - off), err));
    }
    return TG_OK;
}

/* "<sha256>  <path>\n" for the file that has just been hashed to its end. */
static enum tg_rc list_line(struct job *j)
{
    uint8_t md[TG_SHA256_LEN];
    char hex[2 * TG_SHA256_LEN + 1];
    TG_TRY(tg_sha256_final(j->sha, md));
    if (j->file == j->plan->digest_file)
        return TG_OK;
    tg_hex_encode(TG_BYTES_OF(md), hex);
    TG_TRY(tg_buf_str(&j->list, hex));
    TG_TRY(tg_buf_str(&j->list, "  "));
    TG_TRY(tg_buf_str(&j->list, j->plan->files[j->file].path));
    return tg_buf_u8(&j->list, '\n');
}

/* Hash the files' parts of this chunk, closing every file that ends in it. */
static enum tg_rc chunk_hash(struct job *j, uint64_t i, const uint8_t *buf)
{
    const struct tg_build_plan *p = j->plan;
    uint64_t off = i * p->g.chunk_size, end = off + tg_tgsp_chunk_plain(&p->g, i);
    for (; j->file < p->n; j->file++) {
        const struct tg_tgsp_file *f = &p->files[j->file];
        uint64_t from = f->offset > off ? f->offset : off;
        uint64_t to = f->offset + f->size < end ? f->offset + f->size : end;
        if (to > from && j->file != p->digest_file)
            TG_TRY(
                tg_sha256_update(j->sha, tg_bytes_make(buf + (from - off), (size_t)(to - from))));
        if (f->offset + f->size > end)
            break;
        TG_TRY(list_line(j));
    }
    return TG_OK;
}

/* Wait for the turn, hash, pass it on. Whoever comes after a chunk that failed gives up; those
 * before it finish, so that the failure reported is the first one. */
static enum tg_rc hash_in_turn(struct job *j, uint64_t i, const uint8_t *buf)
{
    if (!j->sha)
        return TG_OK;
    (void)pthread_mutex_lock(&j->lock);
    while (j->next != i && j->failed_at > i)
        (void)pthread_cond_wait(&j->turn, &j->lock);
    bool failed = j->next != i;
    (void)pthread_mutex_unlock(&j->lock);
    if (failed)
        return TG_E_STATE; /* a lower chunk's failure is the one that is reported */
    enum tg_rc rc = chunk_hash(j, i, buf);
    (void)pthread_mutex_lock(&j->lock);
    j->next = i + 1;
    (void)pthread_cond_broadcast(&j->turn);
    (void)pthread_mutex_unlock(&j->lock);
    return rc;
}

static void give_up(struct job *j, uint64_t i)
{
    (void)pthread_mutex_lock(&j->lock);
    if (i < j->failed_at)
        j->failed_at = i;
    (void)pthread_cond_broadcast(&j->turn);
    (void)pthread_mutex_unlock(&j->lock);
}

/* Encrypt the plaintext in the seat's buffer in place, note its digest, write it. */
static enum tg_rc chunk_seal(const struct job *j, struct seat *s, uint64_t i, struct tg_err *err)
{
    const struct tg_build_plan *p = j->plan;
    uint8_t nonce[TG_AEAD_NONCE_LEN];
    size_t n = (size_t)tg_tgsp_chunk_plain(&p->g, i);
    tg_chunk_nonce(i, i + 1 == p->g.chunks, nonce);
    enum tg_rc rc = tg_aead_seal(s->aead, nonce, TG_BYTES_NONE, tg_bytes_make(s->buf, n), s->buf);
    if (rc == TG_OK)
        rc = tg_chunk_digest(&s->hasher, tg_bytes_make(s->buf, n + TG_AEAD_TAG_LEN),
                             j->to->digests + i * TG_SHA256_LEN);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "chunk %" PRIu64 ": encryption failed: %s", i, tg_rc_text(rc));
    TG_TRY(tg_fd_pwrite(j->to->file->fd, j->to->file->path, s->buf, n + TG_AEAD_TAG_LEN,
                        j->to->payload_off + tg_tgsp_chunk_offset(&p->g, i), err));
    tg_progress_add(p->b->progress, n);
    return TG_OK;
}

static enum tg_rc chunk_make(struct job *j, uint64_t i, struct seat *s, struct tg_err *err)
{
    TG_TRY(chunk_fill(j, i, s->buf, err));
    enum tg_rc rc = hash_in_turn(j, i, s->buf);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "chunk %" PRIu64 ": hashing failed: %s", i, tg_rc_text(rc));
    if (i < j->held_first || i - j->held_first >= j->held_n)
        return chunk_seal(j, s, i, err);
    memcpy(j->held + (i - j->held_first) * j->plan->g.chunk_size, s->buf,
           (size_t)tg_tgsp_chunk_plain(&j->plan->g, i));
    return TG_OK;
}

static enum tg_rc work(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct job *j = ctx;
    enum tg_rc rc = chunk_make(j, i, &j->seats[worker], err);
    if (rc != TG_OK)
        give_up(j, i);
    return rc;
}

/* The list is known: put it in its place in the chunks kept back, and seal those. */
static enum tg_rc held_seal(struct job *j, struct tg_err *err)
{
    const struct tg_build_plan *p = j->plan;
    if (!j->held)
        return TG_OK;
    const struct tg_tgsp_file *f = &p->files[p->digest_file];
    if (j->list.n != f->size)
        return TG_FAIL(err, TG_E_INTERNAL, "%s: %zu bytes, planned %" PRIu64, f->path, j->list.n,
                       f->size);
    if (f->size)
        memcpy(j->held + (f->offset - j->held_first * p->g.chunk_size), j->list.data, j->list.n);
    for (uint64_t k = 0; k < j->held_n; k++) {
        uint64_t i = j->held_first + k;
        memcpy(j->seats[0].buf, j->held + k * p->g.chunk_size,
               (size_t)tg_tgsp_chunk_plain(&p->g, i));
        TG_TRY(chunk_seal(j, &j->seats[0], i, err));
    }
    return TG_OK;
}

enum tg_rc tg_build_payload(const struct tg_build_plan *plan, const struct tg_build_target *to,
                            struct tg_err *err)
{
    TG_AUTO(job_done)
    struct job j = {.plan = plan,
                    .to = to,
                    .failed_at = UINT64_MAX,
                    .lock = PTHREAD_MUTEX_INITIALIZER,
                    .turn = PTHREAD_COND_INITIALIZER};
    enum tg_rc rc = seats_make(&j);
    if (rc == TG_OK)
        rc = held_make(&j);
    if (rc != TG_OK)
        return TG_FAIL(err, rc, "can't prepare to write chunks (%s)", tg_rc_text(rc));
    TG_TRY(tg_thread_run(j.n_seats, plan->g.chunks, work, &j, err));
    return held_seal(&j, err);
}
