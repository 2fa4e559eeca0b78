/* The progress bar: on a terminal only, after a second only. */
#include "../tg_cmocka.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/progress.h"

#define MIB (UINT64_C(1) << 20)

/* Standard error as a terminal of ours, for a while. */
struct terminal {
    int kept, master;
};

static void terminal_on(struct terminal *t)
{
    int slave;

    t->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->master >= 0);
    assert_int_equal(grantpt(t->master), 0);
    assert_int_equal(unlockpt(t->master), 0);
    slave = open(ptsname(t->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(slave >= 0);
    t->kept = dup(STDERR_FILENO);
    assert_int_equal(dup2(slave, STDERR_FILENO), STDERR_FILENO);
    (void)close(slave);
    assert_int_equal(fcntl(t->master, F_SETFL, O_NONBLOCK), 0);
}

static void terminal_off(const struct terminal *t)
{
    assert_int_equal(dup2(t->kept, STDERR_FILENO), STDERR_FILENO);
    (void)close(t->kept);
    (void)close(t->master);
}

/* What the terminal shows since the last look. The kernel hands it over in its own time, so what
 * comes counts until a quarter of a second brought nothing more. */
static void shown(const struct terminal *t, char out[512])
{
    struct pollfd p = {.fd = t->master, .events = POLLIN};
    size_t n = 0;

    while (n < 511 && poll(&p, 1, 250) == 1) {
        ssize_t got = read(t->master, out + n, 511 - n);

        if (got <= 0)
            break;
        n += (size_t)got;
    }
    out[n] = '\0';
}

static void a_bar_after_a_second_on_a_terminal(void **state)
{
    struct terminal t;
    struct tg_progress *p;
    char early[512], late[512], end[512];

    (void)state;
    terminal_on(&t);
    p = tg_progress_new("packing", 4 * MIB);
    tg_progress_add(p, MIB);
    shown(&t, early);
    tg_clock_sleep_ms(1050);
    tg_progress_add(p, MIB);
    shown(&t, late);
    tg_progress_free(p);
    shown(&t, end);
    terminal_off(&t);
    assert_non_null(p);
    assert_string_equal(early, "");
    assert_non_null(strstr(late, "packing"));
    assert_non_null(strstr(late, "[###############               ]"));
    assert_non_null(strstr(late, "50 %"));
    assert_non_null(strstr(late, "2 MiB"));
    assert_non_null(strstr(late, "left"));
    assert_string_equal(end, "\r\033[K"); /* nothing of it stays on the line */
}

static void short_work_shows_nothing(void **state)
{
    struct terminal t;
    struct tg_progress *p;
    char all[512];

    (void)state;
    terminal_on(&t);
    p = tg_progress_new("packing", MIB);
    tg_progress_add(p, MIB);
    tg_progress_free(p);
    shown(&t, all);
    terminal_off(&t);
    assert_string_equal(all, "");
}

static void no_bar_in_files_and_pipes(void **state)
{
    int pair[2], kept = dup(STDERR_FILENO);
    struct tg_progress *p;

    (void)state;
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
    p = tg_progress_new("packing", MIB);
    assert_null(tg_progress_new_count("granting", 2));
    assert_null(tg_progress_new_wait("the other side works"));
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    (void)close(kept);
    (void)close(pair[0]);
    (void)close(pair[1]);
    assert_null(p);
    tg_progress_add(p, 1); /* every function takes none */
    tg_progress_free(p);
}

static void things_are_counted(void **state)
{
    struct terminal t;
    struct tg_progress *p;
    char late[512];

    (void)state;
    terminal_on(&t);
    p = tg_progress_new_count("granting", 300);
    tg_clock_sleep_ms(1050);
    tg_progress_add(p, 12);
    shown(&t, late);
    tg_progress_free(p);
    terminal_off(&t);
    assert_non_null(strstr(late, "granting"));
    assert_non_null(strstr(late, "12 of 300"));
    assert_null(strstr(late, "MiB"));
}

static void a_line_says_what_is_waited_for(void **state)
{
    struct terminal t;
    struct tg_progress *p;
    char early[512], end[512];

    (void)state;
    terminal_on(&t);
    p = tg_progress_new_wait("the other side works");
    shown(&t, early);
    tg_progress_free(p);
    shown(&t, end);
    terminal_off(&t);
    assert_string_equal(early, "\r\033[Kthe other side works");
    assert_string_equal(end, "\r\033[K");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bar_after_a_second_on_a_terminal),
        cmocka_unit_test(short_work_shows_nothing),
        cmocka_unit_test(no_bar_in_files_and_pipes),
        cmocka_unit_test(things_are_counted),
        cmocka_unit_test(a_line_says_what_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
