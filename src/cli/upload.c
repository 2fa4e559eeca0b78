#include "cli/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/thread.h"
#include "cli/package.h"
#include "cli/signals.h"
#include "codec/text.h"
#include "crypto/hash.h"

enum { READ_SIZE = 1 << 20, SMALL_PARTS = 16, FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 8000 };

struct job {
    struct cli_api *api;
    const char *path;
    int fd;
    uint64_t size;
    uint8_t sha256[TG_WIRE_HASH_LEN];
    char *note; /* DIR/uploads/<sha256>: the upload's id */
    struct tg_wire_upload upload;
    uint64_t *parts; /* the numbers still to be sent */
    uint64_t parts_n;
    atomic_bool broke; /* it was the connection that failed, or the platform too busy */
    atomic_uint_fast64_t sent;

    struct worker {
        struct tg_http_client *http;
        struct tg_arena *arena;
        uint8_t *buf;
    } workers[CLI_UPLOAD_CONNECTIONS];
    struct tg_progress *bar;
};

static void job_done(struct job *j)
{
    for (size_t i = 0; i < CLI_UPLOAD_CONNECTIONS; i++) {
        tg_http_client_free(j->workers[i].http);
        tg_arena_free(j->workers[i].arena);
        tg_free(j->workers[i].buf);
    }
    tg_progress_free(j->bar);
    tg_free(j->parts);
    tg_free(j->note);
    tg_fd_closep(&j->fd);
}

static enum tg_rc mark(struct job *j, enum tg_rc rc)
{
    if (rc == TG_E_CLOSED || rc == TG_E_TIMEOUT || rc == TG_E_IO || rc == TG_E_AGAIN)
        j->broke = true;
    return rc;
}

/* The bytes are not to blame. */
static enum tg_rc no_digest(const struct job *j, struct tg_err *err)
{
    return TG_FAIL(err, TG_E_INTERNAL,
                   "%s: libcrypto refuses to compute its SHA-256; look at its configuration "
                   "(OPENSSL_CONF) and try again",
                   j->path);
}

static enum tg_rc hash_file(struct job *j, struct tg_err *err)
{
    TG_AUTO(tg_sha256_freep) struct tg_sha256_ctx *h = NULL;
    TG_AUTO(tg_freep) uint8_t *buf = tg_alloc(READ_SIZE);
    TG_AUTO(cli_progress_freep)
    struct tg_progress *bar = tg_progress_new("hashing", j->size);

    if (buf == NULL || tg_sha256_new(&h) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    for (uint64_t off = 0; off < j->size; off += READ_SIZE) {
        size_t n = j->size - off < READ_SIZE ? (size_t)(j->size - off) : READ_SIZE;
        TG_TRY(cli_signals_check(err));
        TG_TRY(tg_fd_pread(j->fd, j->path, buf, n, off, err));
        if (tg_sha256_update(h, tg_bytes_make(buf, n)) != TG_OK)
            return no_digest(j, err);
        tg_progress_add(bar, n);
    }
    return tg_sha256_final(h, j->sha256) == TG_OK ? TG_OK : no_digest(j, err);
}

/* A call whose outcome may change by itself: remember that it was not the file or the platform's
 * no. */
static enum tg_rc call(struct job *j, const struct cli_call *c, struct tg_err *err)
{
    return mark(j, cli_api_call(j->api, c, err));
}

/* ---- the upload's id, remembered ---- */

static enum tg_rc note_path(struct job *j, struct tg_err *err)
{
    char hex[2 * TG_WIRE_HASH_LEN + 1];
    TG_AUTO(tg_freep) char *dir = tg_path_join(j->api->config.dir, "uploads");

    tg_hex_encode(TG_BYTES_OF(j->sha256), hex);
    if (dir == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    TG_TRY(tg_dir_make(dir, 0700, err));
    j->note = tg_path_join(dir, hex);
    return j->note != NULL ? TG_OK : TG_FAIL(err, TG_E_NOMEM, "out of memory");
}

/* What the platform has of this file already; false: nothing it can be continued with. */
static bool find_begun(struct job *j)
{
    TG_AUTO(tg_buf_done) struct tg_buf id = TG_BUF_INIT(256);
    TG_AUTO(tg_freep) char *target = NULL;

    if (tg_file_read(j->note, &id, NULL) != TG_OK || !tg_wire_id_ok(tg_buf_cstr(&id)) ||
        cli_api_path(TG_API_PREFIX "/uploads", tg_buf_cstr(&id), "", &target, NULL) != TG_OK)
        return false;
    struct cli_call call = {
        .target = target, .answer_schema = &tg_wire_upload, .answer = &j->upload};
    return cli_api_call(j->api, &call, NULL) == TG_OK && j->upload.state == TG_UPLOAD_OPEN &&
           j->upload.size == j->size && tg_mem_eq(j->upload.sha256, j->sha256, TG_WIRE_HASH_LEN) &&
           j->upload.part_size >= TG_WIRE_PART_MIN && j->upload.part_size <= TG_WIRE_PART_MAX;
}

static enum tg_rc begin(struct job *j, uint64_t part_size, struct tg_err *err)
{
    struct tg_wire_upload_new send = {.size = j->size, .part_size = part_size};
    struct cli_call call = {.method = TG_HTTP_POST,
                            .target = TG_API_PREFIX "/uploads",
                            .send_schema = &tg_wire_upload_new,
                            .send = &send,
                            .answer_schema = &tg_wire_upload,
                            .answer = &j->upload};

    memcpy(send.sha256, j->sha256, TG_WIRE_HASH_LEN);
    j->upload = (struct tg_wire_upload){0};
    TG_TRY(cli_api_call(j->api, &call, err));
    if (!tg_wire_id_ok(j->upload.id) || j->upload.part_size != part_size)
        return TG_FAIL(err, TG_E_FORMAT, "the platform's answer names no upload");
    return tg_file_write(j->note, tg_bytes_str(j->upload.id), 0600, true, err);
}

/* ---- parts ---- */

static uint64_t part_count(const struct job *j)
{
    return j->size / j->upload.part_size + (j->size % j->upload.part_size != 0);
}

/* The part numbers in what the platform says is missing (at most 256 ranges at a time). */
static enum tg_rc list_missing(struct job *j, struct tg_err *err)
{
    const struct tg_wire_part_range *r = j->upload.missing.items;
    uint64_t count = part_count(j);
    uint64_t n = 0;

    for (size_t i = 0; i < j->upload.missing.n; i++) {
        if (r[i].last < r[i].first || r[i].last >= count)
            return TG_FAIL(err, TG_E_FORMAT, "the platform asks for part %" PRIu64 " of %" PRIu64,
                           r[i].last, count);
        n += r[i].last - r[i].first + 1;
    }
    if (n > count)
        return TG_FAIL(err, TG_E_FORMAT, "the platform asks for parts twice");
    tg_free(j->parts);
    j->parts = tg_calloc((size_t)n + 1, sizeof(*j->parts));
    if (j->parts == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    j->parts_n = 0;
    for (size_t i = 0; i < j->upload.missing.n; i++)
        for (uint64_t p = r[i].first; p <= r[i].last; p++)
            j->parts[j->parts_n++] = p;
    return TG_OK;
}

static enum tg_rc worker_ready(struct job *j, struct worker *w, struct tg_err *err)
{
    if (w->http == NULL)
        TG_TRY(cli_api_clone(j->api, &w->http, err));
    if (w->buf == NULL)
        w->buf = tg_alloc((size_t)j->upload.part_size);
    tg_arena_free(w->arena);
    w->arena = NULL;
    if (w->buf == NULL || tg_arena_new(1u << 20, &w->arena) != TG_OK)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    return TG_OK;
}

static enum tg_rc send_part(void *ctx, uint64_t i, unsigned worker, struct tg_err *err)
{
    struct job *j = ctx;
    struct worker *w = &j->workers[worker];
    uint64_t part = j->parts[i];
    uint64_t off = part * j->upload.part_size;
    size_t n = (size_t)(j->size - off < j->upload.part_size ? j->size - off : j->upload.part_size);
    uint8_t sha[TG_SHA256_LEN];
    char digest[TG_WIRE_DIGEST_TEXT];
    char target[128];
    struct tg_wire_part got = {0};

    TG_TRY(worker_ready(j, w, err));
    TG_TRY(tg_fd_pread(j->fd, j->path, w->buf, n, off, err));
    if (tg_sha256(tg_bytes_make(w->buf, n), sha) != TG_OK)
        return no_digest(j, err);
    tg_wire_digest_format(sha, digest);
    (void)snprintf(target, sizeof(target), TG_API_PREFIX "/uploads/%s/parts/%" PRIu64, j->upload.id,
                   part);
    struct tg_http_header header = {.name = "Content-Digest", .value = digest};
    struct cli_call call = {.method = TG_HTTP_PUT,
                            .target = target,
                            .raw = tg_bytes_make(w->buf, n),
                            .raw_type = TG_WIRE_TYPE_BYTES,
                            .headers = &header,
                            .headers_n = 1,
                            .answer_schema = &tg_wire_part,
                            .answer = &got};
    enum tg_rc rc = mark(j, cli_api_call_on(w->http, w->arena, &call, err));
    if (rc != TG_OK) {
        tg_err_wrap(err, "part %" PRIu64, part);
        return rc;
    }
    atomic_fetch_add(&j->sent, 1);
    tg_progress_add(j->bar, n);
    return TG_OK;
}

/* Ask what is missing. */
static enum tg_rc look(struct job *j, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *target = NULL;

    TG_TRY(cli_api_path(TG_API_PREFIX "/uploads", j->upload.id, "", &target, err));
    struct cli_call c = {.target = target, .answer_schema = &tg_wire_upload, .answer = &j->upload};
    return call(j, &c, err);
}

/* Send what is missing until nothing is: a long list comes in several answers. */
static enum tg_rc send_all(struct job *j, struct cli_uploaded *out, struct tg_err *err)
{
    j->bar = tg_progress_new("uploading", j->size);
    tg_progress_add(j->bar, j->upload.received * j->upload.part_size);
    out->parts = part_count(j);
    for (uint64_t last = UINT64_MAX;;) {
        TG_TRY(list_missing(j, err));
        if (j->parts_n == 0)
            break;
        if (j->upload.received == last)
            return TG_FAIL(err, TG_E_STATE, "the platform keeps none of the parts it takes");
        last = j->upload.received;
        TG_TRY(tg_thread_run(CLI_UPLOAD_CONNECTIONS, j->parts_n, send_part, j, err));
        TG_TRY(look(j, err));
    }
    tg_progress_free(j->bar);
    j->bar = NULL;
    return TG_OK;
}

static enum tg_rc complete(struct job *j, struct cli_uploaded *out, struct tg_err *err)
{
    TG_AUTO(tg_freep) char *target = NULL;

    TG_TRY(cli_api_path(TG_API_PREFIX "/uploads", j->upload.id, "/complete", &target, err));
    struct cli_call c = {.method = TG_HTTP_POST,
                         .target = target,
                         .answer_schema = &tg_wire_package,
                         .answer = &out->package};
    struct tg_progress *line = tg_progress_new_wait("the platform checks the package ...");
    enum tg_rc rc = call(j, &c, err);
    tg_progress_free(line);
    if (!j->broke)
        (void)unlink(j->note); /* accepted or refused: either way it is over */
    return rc;
}

/* ---- going on after a break ---- */

static void pause_before(unsigned attempt)
{
    uint32_t ms = attempt < 5 ? (uint32_t)FIRST_PAUSE_MS << attempt : LONGEST_PAUSE_MS;

    for (uint32_t slept = 0; slept < ms && cli_signals_check(NULL) == TG_OK; slept += 100)
        tg_clock_sleep_ms(100);
}

/* One go at what is left. */
static enum tg_rc attempt(struct job *j, bool again, struct cli_uploaded *out, struct tg_err *err)
{
    enum tg_rc rc = again ? look(j, err) : TG_OK;

    if (rc == TG_OK && again)
        (void)fprintf(stderr, "tensorguard publish: the platform answers again: going on\n");
    if (rc == TG_OK)
        rc = send_all(j, out, err);
    tg_progress_free(j->bar); /* before anything else is said there */
    j->bar = NULL;
    return rc == TG_OK ? complete(j, out, err) : rc;
}

/* What the platform has acknowledged stays there, so a break costs the parts in flight. */
static enum tg_rc send_with_patience(struct job *j, const struct cli_upload *u,
                                     struct cli_uploaded *out, struct tg_err *err)
{
    uint64_t since = tg_clock_mono_ns() / 1000000;
    bool told = false;
    uint64_t before = 0;

    for (unsigned n = 0;; n++) {
        j->broke = false;
        enum tg_rc rc = attempt(j, n > 0, out, err);
        out->sent = j->sent;
        if (rc == TG_OK || !j->broke)
            return rc;
        TG_TRY(cli_signals_check(err));
        uint64_t now = tg_clock_mono_ns() / 1000000;
        if (out->sent > before) {
            n = 0;
            told = false;
            since = now;
        }
        before = out->sent;
        if (now - since >= u->retry_ms) {
            tg_err_wrap(err, "the upload broke (the same command goes on where it was)");
            return rc;
        }
        if (!told)
            (void)fprintf(stderr, "tensorguard publish: %s; trying again for up to %" PRIu64 " s\n",
                          err->msg, u->retry_ms / 1000);
        told = true;
        pause_before(n);
    }
}

enum tg_rc cli_upload_file(struct cli_api *api, const struct cli_upload *u,
                           struct cli_uploaded *out, struct tg_err *err)
{
    TG_AUTO(job_done) struct job j = {.api = api, .path = u->path, .fd = -1};

    *out = (struct cli_uploaded){0};
    j.fd = open(u->path, O_RDONLY | O_CLOEXEC);
    if (j.fd < 0)
        return TG_FAIL_ERRNO(err, errno == ENOENT ? TG_E_NOTFOUND : TG_E_IO, "%s", u->path);
    TG_TRY(tg_fd_size(j.fd, u->path, &j.size, err));
    TG_TRY(hash_file(&j, err));
    TG_TRY(note_path(&j, err));
    /* Small files in small parts too, so that connections share them. */
    uint64_t part_size = u->part_size;
    if (part_size == 0)
        for (part_size = 1u << 20;
             part_size < TG_WIRE_PART_MAX && j.size / part_size > SMALL_PARTS;)
            part_size *= 2;
    out->resumed = u->keep_going && find_begun(&j);
    if (!out->resumed)
        TG_TRY(begin(&j, part_size, err));
    return send_with_patience(&j, u, out, err);
}
