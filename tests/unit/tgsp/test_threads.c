/* A build with N threads seals on N threads side by side, and one with 1 on its caller's alone.
 * Linked with tg_aead_seal wrapped: each thread's first chunk waits there for the other threads. */
#include "fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crypto/aead.h"
#include "tgsp/format.h"

#define CHUNKS 40
#define MOST 8
#define WAIT_S 20 /* of a thread for others that do not come */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    unsigned expected, n, chunks;
    pthread_t who[MOST + 1];
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

/* Under the lock: is this thread here for the first time? */
static bool newcomer(void)
{
    for (unsigned i = 0; i < seen.n; i++)
        if (pthread_equal(seen.who[i], pthread_self()))
            return false;
    if (seen.n <= MOST)
        seen.who[seen.n++] = pthread_self();
    (void)pthread_cond_broadcast(&seen.more);
    return true;
}

enum tg_rc __real_tg_aead_seal(struct tg_aead_ctx *a, const uint8_t *nonce, struct tg_bytes aad,
                               struct tg_bytes plain, uint8_t *out);
enum tg_rc __wrap_tg_aead_seal(struct tg_aead_ctx *a, const uint8_t *nonce, struct tg_bytes aad,
                               struct tg_bytes plain, uint8_t *out);

enum tg_rc __wrap_tg_aead_seal(struct tg_aead_ctx *a, const uint8_t *nonce, struct tg_bytes aad,
                               struct tg_bytes plain, uint8_t *out)
{
    if (plain.n >= TG_TGSP_CHUNK_MIN) { /* not a wrapped key */
        struct timespec end;
        (void)clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec += WAIT_S;
        (void)pthread_mutex_lock(&seen.lock);
        seen.chunks++;
        if (newcomer())
            while (seen.n < seen.expected &&
                   pthread_cond_timedwait(&seen.more, &seen.lock, &end) == 0)
                continue;
        (void)pthread_mutex_unlock(&seen.lock);
    }
    return __real_tg_aead_seal(a, nonce, aad, plain, out);
}

static void with_threads(struct fx *f, struct tg_tgsp_build *b)
{
    (void)f;
    b->chunk_size = TG_TGSP_CHUNK_MIN;
    b->no_inputs_digest = false; /* as the program builds: inputs are hashed in turn */
    b->threads = seen.expected;
}

static void test_build(void **state)
{
    struct fx *f = *state;
    size_t n = (size_t)CHUNKS * TG_TGSP_CHUNK_MIN;
    uint8_t *zeros = calloc(1, n);
    assert_non_null(zeros);
    fx_mkdir(f, "in");
    fx_write(f, "in/w", zeros, n);
    free(zeros);
    for (unsigned threads = 1; threads <= MOST; threads++) {
        seen.expected = threads;
        seen.n = seen.chunks = 0;
        struct tg_buf package = fx_build(f, "in", with_threads);
        assert_true(package.n > n);
        assert_true(seen.chunks >= CHUNKS);
        assert_int_equal(seen.n, threads);
        if (threads == 1)
            assert_true(pthread_equal(seen.who[0], pthread_self()));
        tg_buf_done(&package);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_build)};
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
