#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "native/bell.h"

#define TURNS 2000
#define LONG UINT64_C(60000000000) /* a wake-up that is lost shows as the test's time limit */

struct table {
    _Atomic uint32_t count[2], waits[2], bell[2];
};

/* The protocol of docs/spec/native-1.0.md §4, from one side. */
static void await(struct table *t, int me, uint32_t want)
{
    while (atomic_load(&t->count[!me]) != want) {
        uint32_t seen;

        atomic_store(&t->waits[me], 1);
        seen = atomic_load(&t->bell[me]);
        if (atomic_load(&t->count[!me]) != want)
            tg_bell_sleep(&t->bell[me], seen, LONG);
        atomic_store(&t->waits[me], 0);
    }
}

static void publish(struct table *t, int me, uint32_t n)
{
    atomic_store(&t->count[me], n);
    if (atomic_load(&t->waits[!me]) != 0)
        tg_bell_ring(&t->bell[!me]);
}

static void two_processes_wake_each_other_every_time(void **state)
{
    struct table *t =
        mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = -1;
    pid_t pid;

    (void)state;
    assert_true(t != MAP_FAILED);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        for (uint32_t i = 1; i <= TURNS; i++) {
            await(t, 1, i);
            publish(t, 1, i);
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= TURNS; i++) {
        publish(t, 0, i);
        await(t, 0, i);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)munmap(t, sizeof(*t));
}

static void a_bell_that_changed_is_not_slept_on(void **state)
{
    _Atomic uint32_t bell = 5;

    (void)state;
    tg_bell_sleep(&bell, 4, LONG);
    tg_bell_ring(&bell);
    assert_int_equal(bell, 6);
    tg_bell_sleep(&bell, 6, 1000); /* and the limit holds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_processes_wake_each_other_every_time),
        cmocka_unit_test(a_bell_that_changed_is_not_slept_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
