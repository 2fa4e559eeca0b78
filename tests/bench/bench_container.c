/* Reading a package at the machine's limit: a whole package verified and decrypted into memory by
 * the engine, beside the speed of the hash and the AEAD alone, in one process, in turn. Prints one
 * JSON object.
 *
 *   bench_container F.tgsp encryption.priv signing.pub [ROUNDS]      default 5
 *
 * Times are medians of rounds, in seconds; speeds are medians in bytes per second, on chunks that
 * lie in cache. "all" is all processors at once, by the clock; "core" is one of them, by processor
 * time, which others on the machine disturb less. */
#include "../open_package.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "tgsp/construct_internal.h"

#define ROUNDS_MAX 64
#define BURST_NS UINT64_C(60000000)

enum what {
    HASH_ALL,
    AEAD_ALL,
    COPY_ALL,
    HASH_CORE,
    AEAD_CORE,
    LIBCRYPTO_CORE,
    LOAD_ALL,
    LOAD_ONE,
    LOAD_TWO,
    LOAD_FRESH,
    LOAD_CPU, /* processor time of LOAD_ONE */
    WHATS
};

static const char *const names[WHATS] = {
    [HASH_ALL] = "hash_all",     [AEAD_ALL] = "aead_all",   [COPY_ALL] = "copy_all",
    [HASH_CORE] = "hash_core",   [AEAD_CORE] = "aead_core", [LIBCRYPTO_CORE] = "libcrypto_core",
    [LOAD_ALL] = "load_all",     [LOAD_ONE] = "load_one",   [LOAD_TWO] = "load_two",
    [LOAD_FRESH] = "load_fresh", [LOAD_CPU] = "load_cpu",
};

static void must(int ok, const struct tg_err *err)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_container: %s\n", err->msg);
        exit(1);
    }
}

/* ---- the parts alone, on one chunk each ---- */

struct part {
    enum what what;
    clockid_t clock;
    enum tg_aead aead;
    size_t chunk;
    double *speed; /* per thread */
};

struct bench_seat {
    struct tg_chunk_hasher hasher;
    struct tg_sha256_many *plain; /* libcrypto alone */
    struct tg_aead_ctx *aead;
    uint8_t *sealed, *out;
};

static uint64_t ticks(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static const uint8_t key[TG_AEAD_KEY_LEN] = {1}, nonce[TG_AEAD_NONCE_LEN] = {2};

static enum tg_rc pieces_by_libcrypto(const struct bench_seat *s, size_t n)
{
    uint8_t md[1][TG_SHA256_LEN];
    for (size_t off = 0; off < n; off += TG_TGSP_PIECE) {
        struct tg_bytes piece = tg_bytes_make(s->sealed + off, TG_TGSP_PIECE);
        TG_TRY(tg_sha256_many(s->plain, &piece, 1, md));
    }
    return TG_OK;
}

static enum tg_rc once(const struct part *p, struct bench_seat *s)
{
    uint8_t md[TG_SHA256_LEN];
    struct tg_bytes sealed = tg_bytes_make(s->sealed, p->chunk + TG_AEAD_TAG_LEN);
    if (p->what == LIBCRYPTO_CORE)
        return pieces_by_libcrypto(s, p->chunk);
    if (p->what == AEAD_ALL || p->what == AEAD_CORE)
        return tg_aead_open(s->aead, nonce, TG_BYTES_NONE, sealed, s->out);
    return tg_chunk_digest(&s->hasher, sealed, md);
}

static enum tg_rc seat_make(const struct part *p, struct bench_seat *s)
{
    TG_TRY(tg_chunk_hasher_init(&s->hasher));
    TG_TRY(tg_sha256_many_new(0, &s->plain));
    TG_TRY(tg_aead_new(p->aead, key, &s->aead));
    s->sealed = tg_alloc(p->chunk + TG_AEAD_TAG_LEN);
    s->out = tg_alloc(p->chunk);
    if (!s->sealed || !s->out)
        return TG_E_NOMEM;
    memset(s->out, 0x5A, p->chunk);
    return tg_aead_seal(s->aead, nonce, TG_BYTES_NONE, tg_bytes_make(s->out, p->chunk), s->sealed);
}

static void seat_done(struct bench_seat *s)
{
    tg_chunk_hasher_done(&s->hasher);
    tg_sha256_many_free(s->plain);
    tg_aead_free(s->aead);
    tg_free(s->sealed);
    tg_free(s->out);
}

static enum tg_rc burst(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct part *p = ctx;
    (void)i;
    (void)err;
    TG_AUTO(seat_done) struct bench_seat s = {.plain = NULL};
    TG_TRY(seat_make(p, &s));
    TG_TRY(once(p, &s));
    uint64_t began = ticks(p->clock), now = began, n = 0;
    for (; now - began < BURST_NS; now = ticks(p->clock), n += p->chunk)
        TG_TRY(once(p, &s));
    p->speed[worker] = (double)n / ((double)(now - began) / 1e9);
    return TG_OK;
}

static double part_speed(enum what what, const struct tg_tgsp *pkg, unsigned threads)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_freep) double *speed = tg_calloc(threads, sizeof *speed);
    struct part p = {.what = what,
                     .clock = what == HASH_ALL || what == AEAD_ALL ? CLOCK_MONOTONIC
                                                                   : CLOCK_THREAD_CPUTIME_ID,
                     .aead = tg_tgsp_header_get(pkg)->aead,
                     .chunk = (size_t)tg_tgsp_header_get(pkg)->chunk_size,
                     .speed = speed};
    double sum = 0;
    must(speed && tg_thread_run(threads, threads, burst, &p, &err) == TG_OK, &err);
    for (unsigned i = 0; i < threads; i++)
        sum += speed[i];
    return sum;
}

/* ---- the whole ---- */

/* From the closed file to plaintext in memory: lengths, signatures, keys, every chunk. */
static double load(const struct package_files *files, uint8_t *out, unsigned threads)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_tgsp_run run = {.threads = threads};
    uint64_t began = tg_clock_mono_ns();
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    must(package_open(files, &p, &err) == TG_OK, &err);
    must(tg_tgsp_read_all(p, out, &run, &err) == TG_OK, &err);
    return (double)(tg_clock_mono_ns() - began) / 1e9;
}

/* The same bytes read from the page cache alone, in the slices that the engine reads. */
struct copy {
    int fd;
    uint8_t **slice; /* per thread */
};

static enum tg_rc copy_slice(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct copy *c = ctx;
    (void)err;
    if (!c->slice[worker])
        c->slice[worker] = tg_alloc(TG_TGSP_SLICE);
    if (!c->slice[worker])
        return TG_E_NOMEM;
    ssize_t n = pread(c->fd, c->slice[worker], TG_TGSP_SLICE, (off_t)(i * TG_TGSP_SLICE));
    return n > 0 ? TG_OK : TG_E_IO;
}

/* Bytes per second. */
static double copy(const char *path, size_t bytes, unsigned threads)
{
    struct tg_err err = TG_ERR_INIT;
    struct copy c = {open(path, O_RDONLY | O_CLOEXEC), tg_calloc(threads, sizeof *c.slice)};
    uint64_t slices = bytes / TG_TGSP_SLICE + 1, began = tg_clock_mono_ns();
    must(c.fd >= 0 && c.slice && tg_thread_run(threads, slices, copy_slice, &c, &err) == TG_OK,
         &err);
    double took = (double)(tg_clock_mono_ns() - began) / 1e9;
    for (unsigned i = 0; i < threads; i++)
        tg_free(c.slice[i]);
    tg_free((void *)c.slice);
    (void)close(c.fd);
    return (double)bytes / took;
}

#define HUGE_PAGE ((size_t)2 << 20)

/* As the worker's region has it for a package of this size (base/region_map.c): large pages, where
 * the kernel gives them. n: a multiple of them. */
static uint8_t *memory(size_t n)
{
    uint8_t *p =
        mmap(NULL, n + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct tg_err err = TG_ERR_INIT;
    tg_err_set(&err, TG_E_NOMEM, "out of memory");
    must(p != MAP_FAILED, &err);
    size_t before = HUGE_PAGE - (uintptr_t)p % HUGE_PAGE;
    (void)munmap(p, before);
    (void)munmap(p + before + n, HUGE_PAGE - before);
    (void)madvise(p + before, n, MADV_HUGEPAGE);
    return p + before;
}

/* Into memory that no page of is there yet. */
static double load_fresh(const struct package_files *files, size_t n, unsigned threads)
{
    uint64_t began = tg_clock_mono_ns();
    uint8_t *out = memory(n);
    (void)load(files, out, threads);
    double took = (double)(tg_clock_mono_ns() - began) / 1e9;
    (void)munmap(out, n);
    return took;
}

/* The file as it is after it was read from disk once: what has just been written lies in smaller
 * pieces of the page cache, which are slower to copy from. */
static void warm(const char *path)
{
    static uint8_t buf[1 << 20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct tg_err err = TG_ERR_INIT;
    tg_err_set(&err, TG_E_IO, "%s: can't be read", path);
    must(fd >= 0 && fsync(fd) == 0, &err);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    while (read(fd, buf, sizeof buf) > 0)
        continue;
    (void)close(fd);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static double got[WHATS][ROUNDS_MAX];
    struct tg_err err = TG_ERR_INIT;
    if (argc < 4 || argc > 5)
        return 2;
    const struct package_files files = {argv[1], argv[2], argv[3]};
    size_t rounds = argc > 4 ? strtoul(argv[4], NULL, 10) : 5;
    unsigned cpus = tg_thread_cpus();
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_sha256_many_freep) struct tg_sha256_many *h = NULL;
    must(rounds >= 1 && rounds <= ROUNDS_MAX && package_open(&files, &p, &err) == TG_OK &&
             tg_sha256_many_new(TG_SHA256_ANY, &h) == TG_OK,
         &err);
    size_t bytes = (size_t)tg_tgsp_header_get(p)->payload_plain_len;
    size_t n = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint8_t *out = memory(n);
    memset(out, 1, n); /* every page is there, as in a region that is locked */
    warm(files.package);
    (void)load(&files, out, cpus);
    /* Everything in turn: a slow moment of the machine hits all alike. */
    for (size_t r = 0; r < rounds; r++) {
        got[HASH_ALL][r] = part_speed(HASH_ALL, p, cpus);
        got[AEAD_ALL][r] = part_speed(AEAD_ALL, p, cpus);
        got[COPY_ALL][r] = copy(files.package, bytes, cpus);
        got[LOAD_ALL][r] = load(&files, out, cpus);
        uint64_t cpu = ticks(CLOCK_PROCESS_CPUTIME_ID);
        got[LOAD_ONE][r] = load(&files, out, 1);
        got[LOAD_CPU][r] = (double)(ticks(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
        got[LOAD_TWO][r] = load(&files, out, 2);
        got[HASH_CORE][r] = part_speed(HASH_CORE, p, 1);
        got[AEAD_CORE][r] = part_speed(AEAD_CORE, p, 1);
        got[LIBCRYPTO_CORE][r] = part_speed(LIBCRYPTO_CORE, p, 1);
        got[LOAD_FRESH][r] = load_fresh(&files, n, cpus);
    }
    size_t pieces = (size_t)(tg_tgsp_header_get(p)->chunk_size / TG_TGSP_PIECE);
    (void)printf("{\"cores\": %u, \"bytes\": %zu, \"aead\": \"%s\", \"hash\": \"%s\"", cpus, bytes,
                 tg_aead_name(tg_tgsp_header_get(p)->aead), tg_sha256_many_how(h, pieces));
    for (int w = 0; w < WHATS; w++) {
        qsort(got[w], rounds, sizeof got[w][0], by_value);
        (void)printf(", \"%s\": %.6g", names[w], got[w][rounds / 2]);
    }
    (void)printf("}\n");
    return 0;
}
