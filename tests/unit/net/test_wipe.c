/* What libevent frees is overwritten first. A freed block can't be looked at, so the linker puts
 * these between net/wipe.c and the functions it calls (--wrap). */
#include <event2/buffer.h>
#include <event2/event.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "net/wipe.h"

void __real_tg_free(void *p);
void __real_tg_wipe(void *p, size_t n);
void __wrap_tg_free(void *p);
void __wrap_tg_wipe(void *p, size_t n);

/* As net/wipe.c puts it in front of each block. */
union head {
    size_t n;
    max_align_t align;
};

static struct {
    const char *secret;
    unsigned wiped;   /* blocks that held the secret when they were about to be overwritten */
    unsigned freed;   /* blocks */
    unsigned unclean; /*   of them with a byte that is not zero */
} seen;

void __wrap_tg_wipe(void *p, size_t n)
{
    if (seen.secret != NULL && n > 0 && memmem(p, n, seen.secret, strlen(seen.secret)) != NULL)
        seen.wiped++;
    __real_tg_wipe(p, n);
}

void __wrap_tg_free(void *p)
{
    const union head *h = p;

    if (seen.secret != NULL && p != NULL) {
        const uint8_t *block = (const uint8_t *)(h + 1);
        bool clean = true;
        for (size_t i = 0; i < h->n; i++)
            clean = clean && block[i] == 0;
        seen.freed++;
        seen.unclean += !clean;
    }
    __real_tg_free(p);
}

static void watch(const char *secret)
{
    memset(&seen, 0, sizeof(seen));
    seen.secret = secret;
}

static void buffers_leave_nothing_behind(void **state)
{
    struct evbuffer *b = evbuffer_new();
    char filler[5000];

    (void)state;
    assert_non_null(b);
    memset(filler, 'f', sizeof(filler));
    watch("the weights of a model");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(evbuffer_add(b, filler, sizeof(filler)), 0);
        assert_int_equal(evbuffer_add(b, seen.secret, strlen(seen.secret)), 0);
    }
    assert_non_null(evbuffer_pullup(b, -1)); /* moves all of it into one new block */
    unsigned before = seen.wiped;
    assert_true(before >= 1);
    assert_int_equal(evbuffer_drain(b, sizeof(filler)), 0);
    assert_non_null(memmem(evbuffer_pullup(b, 64), 64, seen.secret, strlen(seen.secret)));
    evbuffer_free(b);
    assert_true(seen.wiped > before);
    assert_true(seen.freed >= 2);
    assert_int_equal(seen.unclean, 0);
    seen.secret = NULL;
}

static void hit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ++*(int *)arg;
}

/* The heap of timers is grown by realloc: what was in it must arrive, and not stay. */
static void grown_blocks_keep_what_they_held(void **state)
{
    struct event_base *base = event_base_new();
    struct event *timers[300];
    int hits = 0;

    (void)state;
    assert_non_null(base);
    watch("no such text");
    for (int i = 0; i < 300; i++) {
        const struct timeval in = {0, 300 - i};
        timers[i] = event_new(base, -1, 0, hit, &hits);
        assert_non_null(timers[i]);
        assert_int_equal(event_add(timers[i], &in), 0);
    }
    assert_true(seen.freed >= 3); /* old heaps: nothing else was freed yet */
    assert_int_equal(event_base_dispatch(base), 1);
    assert_int_equal(hits, 300);
    for (int i = 0; i < 300; i++)
        event_free(timers[i]);
    event_base_free(base);
    assert_int_equal(seen.unclean, 0);
    seen.secret = NULL;
}

static void lack_of_memory_is_told(void **state)
{
    (void)state;
    tg_mem_fault_set(1, 1);
    struct evbuffer *b = evbuffer_new();
    tg_mem_fault_set(0, 0);
    assert_null(b);
    b = evbuffer_new();
    assert_non_null(b);
    assert_int_equal(evbuffer_add(b, "abc", 3), 0);
    tg_mem_fault_set(1, 1);
    assert_int_equal(evbuffer_expand(b, 1u << 20), -1);
    tg_mem_fault_set(0, 0);
    assert_int_equal(evbuffer_get_length(b), 3);
    assert_memory_equal(evbuffer_pullup(b, 3), "abc", 3);
    evbuffer_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_leave_nothing_behind),
        cmocka_unit_test(grown_blocks_keep_what_they_held),
        cmocka_unit_test(lack_of_memory_is_told),
    };

    tg_net_wipe_freed(); /* before anything else of libevent is called */
    return cmocka_run_group_tests_name("net/wipe", tests, NULL, NULL);
}
