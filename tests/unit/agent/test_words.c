/* A worker's log lines: whole however they come, marked, bounded in length and number. */
#include "../tg_cmocka.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/words.h"
#include "base/file.h"
#include "base/mem.h"

static struct tg_err err;

/* What the agent's log got: stderr is a file meanwhile. */
struct log {
    int was, file;
    char text[1 << 20];
};

static void log_begin(struct log *l)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    l->file = dup(fileno(f));
    (void)fclose(f);
    l->was = dup(2);
    assert_true(l->file >= 0 && l->was >= 0 && dup2(l->file, 2) == 2);
}

static const char *log_end(struct log *l)
{
    assert_int_equal(dup2(l->was, 2), 2);
    ssize_t n = pread(l->file, l->text, sizeof l->text - 1, 0);
    assert_true(n >= 0);
    l->text[n] = 0;
    (void)close(l->was);
    (void)close(l->file);
    return l->text;
}

static size_t lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static struct tg_words fresh(void)
{
    struct tg_words w = TG_WORDS_INIT;
    w.pid = 77;
    w.allowance = TG_WORDS_BURST;
    return w;
}

static struct log log_;

static void test_lines_are_whole_however_they_come(void **state)
{
    (void)state;
    static const char text[] = "one\ntwo two\n\nthree\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct tg_words w = fresh();
        log_begin(&log_);
        for (size_t at = 0; at < sizeof text - 1; at += step)
            tg_words_take(&w, tg_bytes_sub(tg_bytes_str(text), at, step), 0);
        tg_words_end(&w, 0);
        assert_string_equal(log_end(&log_), "one worker=77\ntwo two worker=77\nthree worker=77\n");
    }
}

static void test_nothing_can_be_forged(void **state)
{
    (void)state;
    struct tg_words w = fresh();
    log_begin(&log_);
    tg_words_take(&w, tg_bytes_str("agent.healthy pid=1\r\x1b[2J\x7f worker=1\n"), 0);
    tg_words_end(&w, 0);
    assert_string_equal(log_end(&log_), "agent.healthy pid=1??[2J? worker=1 worker=77\n");
}

static void test_long_lines_are_cut_and_said_to_be(void **state)
{
    (void)state;
    struct tg_words w = fresh();
    char *text = tg_alloc(100000);
    assert_non_null(text);
    memset(text, 'x', 100000);
    log_begin(&log_);
    tg_words_take(&w, tg_bytes_make((uint8_t *)text, 100000), 0);
    tg_words_take(&w, tg_bytes_str("tail\nnext\n"), 0);
    tg_words_end(&w, 0);
    text[TG_WORDS_LINE] = 0;
    const char *got = log_end(&log_);
    assert_memory_equal(got, text, TG_WORDS_LINE);
    assert_string_equal(got + TG_WORDS_LINE, "... worker=77\nnext worker=77\n");
    tg_free(text);
}

static void test_a_flood_is_dropped_and_counted(void **state)
{
    (void)state;
    struct tg_words w = fresh();
    log_begin(&log_);
    for (int i = 0; i < 10000; i++)
        tg_words_take(&w, tg_bytes_str("again\n"), 5);
    tg_words_take(&w, tg_bytes_str("later\n"), 5 + TG_WORDS_EACH_MS);
    tg_words_end(&w, 5 + TG_WORDS_EACH_MS);
    const char *got = log_end(&log_);
    assert_int_equal(lines(got), TG_WORDS_BURST + 2);
    char told[64];
    (void)snprintf(told, sizeof told, "log_lines_dropped=%d\n", 10000 - TG_WORDS_BURST);
    assert_contains(got, told);
    assert_string_equal(strrchr(got, '=') - strlen("later worker"), "later worker=77\n");
}

/* A worker that floods and then has nothing more to say: the operator hears of it all the same. */
static void test_what_was_dropped_is_told_without_another_line(void **state)
{
    (void)state;
    struct tg_words w = fresh();
    assert_int_equal(tg_words_due(&w), 0);
    log_begin(&log_);
    for (int i = 0; i < TG_WORDS_BURST + 3; i++)
        tg_words_take(&w, tg_bytes_str("again\n"), 5);
    assert_int_equal(tg_words_due(&w), 5 + TG_WORDS_QUIET_MS);
    tg_words_tell(&w, 4 + TG_WORDS_QUIET_MS);
    assert_int_equal(w.dropped, 3);
    tg_words_tell(&w, 5 + TG_WORDS_QUIET_MS);
    assert_int_equal(tg_words_due(&w), 0);
    tg_words_tell(&w, 6 + TG_WORDS_QUIET_MS);
    const char *got = log_end(&log_);
    assert_int_equal(lines(got), TG_WORDS_BURST + 1);
    assert_contains(got, "pid=77 log_lines_dropped=3\n");
}

static void test_last_words_are_heard_and_nobody_waits(void **state)
{
    (void)state;
    struct tg_words w;
    int theirs = -1;
    assert_ok(tg_words_open(&w, &theirs, 0, &err));
    w.pid = 78;
    assert_rc(tg_words_read(&w, 0), TG_E_AGAIN);
    ssize_t n, sum = 0;
    while ((n = write(theirs, "words words words\n", 18)) > 0) /* it never blocks */
        sum += n;
    assert_true(sum >= 4096);
    (void)close(theirs);
    log_begin(&log_);
    enum tg_rc rc;
    while ((rc = tg_words_read(&w, 0)) == TG_E_AGAIN)
        ;
    assert_int_equal(rc, TG_E_CLOSED);
    tg_words_take(&w, tg_bytes_str("no end"), 1000000);
    tg_words_end(&w, 1000000);
    assert_int_equal(w.fd, -1);
    assert_rc(tg_words_read(&w, 0), TG_E_CLOSED);
    assert_contains(log_end(&log_), "no end worker=78\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_whole_however_they_come),
        cmocka_unit_test(test_nothing_can_be_forged),
        cmocka_unit_test(test_long_lines_are_cut_and_said_to_be),
        cmocka_unit_test(test_a_flood_is_dropped_and_counted),
        cmocka_unit_test(test_what_was_dropped_is_told_without_another_line),
        cmocka_unit_test(test_last_words_are_heard_and_nobody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
