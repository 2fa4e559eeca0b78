/* The agent's side of the control channel, against a worker that does what its package's bytes say:
 * this same program, started as "tensorguard-moai worker". The real one is in the end-to-end tests.
 */
#include "../tg_cmocka.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/worker.h"
#include "base/clock.h"
#include "codec/text.h"
#include "tmpdir.h"

/* ---- the worker ---- */

static int option_fd(char **argv, const char *name)
{
    for (; *argv; argv++)
        if (strcmp(*argv, name) == 0)
            return argv[1][0] - '0' + (argv[1][1] ? (argv[1][0] - '0') * 9 + argv[1][1] - '0' : 0);
    return -1;
}

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(3);
}

static void say_healthy(int fd, char h)
{
    char hex[65], text[512];
    memset(hex, h, 64);
    hex[64] = 0;
    (void)snprintf(
        text, sizeof text,
        "{\"event\":\"healthy\",\"model\":\"m\",\"version\":\"1\",\"sequence\":7,\"floor\":2,"
        "\"header_sha256\":\"%s\",\"load_ms\":5,\"locked_bytes\":4096,\"golden_cases\":1}",
        hex);
    say(fd, text);
}

static int worker_main(char **argv)
{
    int ctl = option_fd(argv, "--control-fd"), package = option_fd(argv, "--package-fd");
    char text[256] = "", cmd[256];
    if (read(package, text, sizeof text - 1) < 0)
        return 2;
    if (strcmp(text, "crash") == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would exit instead */
        (void)raise(SIGSEGV);
    }
    if (strcmp(text, "exit") == 0)
        return 6;
    if (strcmp(text, "hang") == 0)
        (void)raise(SIGSTOP);
    if (strcmp(text, "garbage") == 0)
        say(ctl, "{\"event\":\"healthy\"");
    if (strcmp(text, "liar") == 0)
        say_healthy(ctl, 'b');
    if (strcmp(text, "refuse") == 0) {
        say(ctl, "{\"event\":\"failed\",\"code\":\"ROLLBACK\",\"reason\":\"too old\"}");
        return 11;
    }
    if (strcmp(text, "healthy") == 0) {
        say(ctl, "{\"event\":\"state\",\"state\":\"verifying\"}");
        say(ctl, "{\"event\":\"state\",\"state\":\"loading\"}");
        say_healthy(ctl, 'a');
    }
    for (ssize_t n; (n = recv(ctl, cmd, sizeof cmd, 0)) > 0;) {
        if (memmem(cmd, (size_t)n, "drain", 5))
            break;
        say(ctl,
            memmem(cmd, (size_t)n, "ping", 4) ? "{\"event\":\"pong\"}" : "{\"event\":\"serving\"}");
    }
    say(ctl, "{\"event\":\"drained\"}");
    return 0;
}

/* ---- the tests ---- */

struct env {
    struct tg_state state;
    struct tg_settings set;
    struct tg_user user;
    struct tg_held pkg;
    int kem_dir;
    struct tg_worker w;
};

static struct env env;

static void start(const char *package)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    tg_state_package(&env.state, env.pkg.h, path);
    assert_ok(tg_file_write(path, tg_bytes_str(package), 0600, true, &err));
    struct tg_worker_start o = {.state = &env.state,
                                .arrival = -1,
                                .settings = &env.set,
                                .user = &env.user,
                                .pkg = &env.pkg,
                                .kem_dir = env.kem_dir};
    assert_ok(tg_worker_start(&env.w, &o, 1000, &err));
    assert_true(env.w.pid > 0);
    assert_int_equal(env.w.deadline_ms, 1000 + env.set.load_timeout_s * 1000);
}

static enum tg_rc next(struct tg_err *err)
{
    enum tg_rc rc = TG_E_AGAIN;
    for (int i = 0; i < 1000 && rc == TG_E_AGAIN; i++) {
        rc = tg_worker_read(&env.w, 2000, err);
        if (rc == TG_E_AGAIN)
            tg_clock_sleep_ms(10);
    }
    return rc;
}

static void reap(void)
{
    for (int i = 0; i < 1000; i++) {
        if (tg_worker_reap(&env.w)) {
            tg_worker_close(&env.w);
            return;
        }
        tg_clock_sleep_ms(10);
    }
    fail_msg("the worker did not end");
}

static int set_up(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX], self[512];
    memset(&env, 0, sizeof env);
    env.w = TG_WORKER_INIT;
    tmp_state(&env.state);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    TG_TEXT_SET(env.set.worker, self);
    TG_TEXT_SET(env.set.fleet, "robots");
    TG_TEXT_SET(env.set.device_id, "dev");
    env.set.load_timeout_s = 5;
    env.set.worker_timeout_s = 8;
    env.pkg.set = true;
    memset(env.pkg.h, 0xaa, 32);
    tmp_write(&env.state, "trust.tgtrust", "t");
    tmp_write(&env.state, "rollback.json", "r");
    tmp_write(&env.state, "kem/kem.priv", "k");
    assert_ok(tg_state_path(&env.state, path, &err, "kem"));
    env.kem_dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tg_worker_kill(&env.w);
    tg_worker_close(&env.w);
    (void)close(env.kem_dir);
    tmp_state_done(&env.state);
    return 0;
}

static void test_healthy_serve_drain(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    start("healthy");
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_VERIFYING);
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_LOADING);
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_HEALTHY);
    assert_int_equal(env.w.deadline_ms, 0);
    assert_int_equal(env.w.pkg.sequence, 7);
    assert_int_equal(env.w.pkg.floor, 2);
    assert_int_equal(env.w.ready_ms, 1000);
    assert_int_equal(env.w.locked_bytes, 4096);
    assert_true(env.w.opened); /* whatever it says later is no grant's fault */
    assert_ok(tg_worker_serve(&env.w, 3000, &err));
    assert_int_equal(env.w.deadline_ms, 3000 + 8000);
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_SERVING);
    assert_int_equal(env.w.deadline_ms, 0);
    assert_int_equal(env.w.ping_ms, 2000 + 8000 / 4);
    assert_ok(tg_worker_ping(&env.w, 5000, &err));
    assert_int_equal(env.w.ping_ms, 0);
    assert_int_equal(env.w.deadline_ms, 5000 + 8000);
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_SERVING);
    assert_int_equal(env.w.deadline_ms, 0);
    assert_int_equal(env.w.ping_ms, 2000 + 8000 / 4);
    assert_ok(tg_worker_ping(&env.w, 5000, &err)); /* and its answer comes while it drains */
    assert_ok(tg_worker_drain(&env.w, 99, &err));
    assert_int_equal(env.w.deadline_ms, 99);
    assert_ok(next(&err));
    assert_int_equal(env.w.deadline_ms, 99);
    assert_int_equal(env.w.ping_ms, 0);
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_DRAINED);
    reap();
}

static void test_a_flood_is_ended(void **state)
{
    const struct tg_bytes text = tg_bytes_str("{\"event\":\"state\",\"state\":\"loading\"}");
    struct tg_worker w = TG_WORKER_INIT;
    struct tg_err err = TG_ERR_INIT;
    unsigned n = 0;
    (void)state;
    while (n < 1000 && tg_worker_take(&w, text, 1, &err) == TG_OK)
        n++;
    assert_int_equal(n, TG_WORKER_MSG_BURST);
    assert_rc(tg_worker_take(&w, text, 2, &err), TG_E_LIMIT);
    assert_rc(tg_worker_take(&w, text, TG_WORKER_MSG_EACH_MS - 1, &err), TG_E_LIMIT);
    assert_ok(tg_worker_take(&w, text, TG_WORKER_MSG_EACH_MS + 1, &err));
    assert_rc(tg_worker_take(&w, text, TG_WORKER_MSG_EACH_MS + 2, &err), TG_E_LIMIT);
    /* what honest ones do goes on for ever: more than a message a second */
    for (uint64_t at = 100000; at < 400000; at += TG_WORKER_MSG_EACH_MS)
        assert_ok(tg_worker_take(&w, text, at, &err));
    /* and a long silence does not save up for more than a burst */
    for (n = 0; n < 1000 && tg_worker_take(&w, text, UINT64_C(1) << 40, &err) == TG_OK;)
        n++;
    assert_int_equal(n, TG_WORKER_MSG_BURST);
}

static void test_a_message_too_long_is_none(void **state)
{
    static char text[TG_WORKER_MSG_MAX + 2];
    struct tg_worker w = TG_WORKER_INIT;
    struct tg_err err = TG_ERR_INIT;
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    memset(text, ' ', sizeof text - 1);
    memcpy(text, "{\"event\":\"drained\"", 19);
    text[sizeof text - 2] = '}';
    assert_int_equal(send(pair[1], text, sizeof text - 1, 0), (ssize_t)sizeof text - 1);
    w.ctl = pair[0];
    assert_rc(tg_worker_read(&w, 1, &err), TG_E_FORMAT);
    assert_int_equal(w.phase, TG_WK_NONE);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void test_refusal_keeps_its_words(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    start("refuse");
    assert_ok(next(&err));
    assert_int_equal(env.w.phase, TG_WK_FAILED);
    assert_int_equal(env.w.code, TG_E_ROLLBACK);
    assert_true(tg_worker_failure_final(env.w.code));
    reap();
    assert_string_equal(env.w.reason, "too old");
}

static void test_crash_and_exit_are_told(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    start("crash");
    assert_rc(next(&err), TG_E_CLOSED);
    reap();
    assert_string_equal(env.w.reason,
                        "the worker died while it loaded: signal 11 (Segmentation fault)");
    assert_false(tg_worker_failure_final(env.w.code));
    start("exit");
    reap();
    assert_string_equal(env.w.reason, "the worker died while it loaded: exit status 6");
}

static void test_stopped_worker_is_killed(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    start("hang");
    tg_clock_sleep_ms(50);
    assert_rc(tg_worker_read(&env.w, 1, &err), TG_E_AGAIN);
    assert_false(tg_worker_reap(&env.w));
    tg_worker_kill(&env.w);
    assert_int_equal(env.w.pid, 0);
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    start("garbage");
    assert_rc(next(&err), TG_E_FORMAT);
    tg_worker_kill(&env.w);
    tg_worker_close(&env.w);
    start("liar"); /* healthy, with a package it was not given */
    assert_rc(next(&err), TG_E_FORMAT);
    assert_contains(err.msg, "another package");
    assert_int_not_equal(env.w.phase, TG_WK_HEALTHY);
}

static enum tg_rc take(const char *text, struct tg_err *err)
{
    return tg_worker_take(&env.w, tg_bytes_str(text), 1, err);
}

/* A worker that was taken over cannot talk the agent into draining the one before it. */
static void test_messages_out_of_turn_are_refused(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    const char *serving = "{\"event\":\"serving\"}";
    assert_rc(take(serving, &err), TG_E_FORMAT);
    assert_contains(err.msg, "without having been told");
    env.w.phase = TG_WK_HEALTHY;
    assert_rc(take(serving, &err), TG_E_FORMAT);
    env.w.serving = true;
    assert_ok(take(serving, &err));
    assert_int_equal(env.w.phase, TG_WK_SERVING);
    assert_rc(take(serving, &err), TG_E_FORMAT);
    assert_rc(take("{\"event\":\"state\",\"state\":\"loading\"}", &err), TG_E_FORMAT);
    env.w.ping_ms = 77;
    assert_ok(take("{\"event\":\"pong\"}", &err)); /* nobody asked */
    assert_int_equal(env.w.ping_ms, 77);
}

static void test_missing_files_are_named(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_worker_start o = {.state = &env.state,
                                .arrival = -1,
                                .settings = &env.set,
                                .user = &env.user,
                                .pkg = &env.pkg,
                                .kem_dir = env.kem_dir};
    assert_rc(tg_worker_start(&env.w, &o, 0, &err), TG_E_NOTFOUND);
    assert_contains(err.msg, ".tgsp");
    assert_int_equal(env.w.pid, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argv);
    const struct CMUnitTest tests[] = {
        T(test_healthy_serve_drain),
        T(test_a_flood_is_ended),
        T(test_a_message_too_long_is_none),
        T(test_refusal_keeps_its_words),
        T(test_crash_and_exit_are_told),
        T(test_stopped_worker_is_killed),
        T(test_nonsense_is_refused),
        T(test_missing_files_are_named),
        T(test_messages_out_of_turn_are_refused),
    };
    return cmocka_run_group_tests_name("agent/worker", tests, NULL, NULL);
}
