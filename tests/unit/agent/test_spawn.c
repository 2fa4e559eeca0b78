/* What a child is given, and what it is not. The children are shells that look around. */
#include "../tg_cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/spawn.h"
#include "base/clock.h"
#include "tmpdir.h"

/* Run a script in a spawned shell and collect what it prints; its wait status is returned. */
static int run(struct tg_spawn *s, const char *script, char *out, size_t cap)
{
    struct tg_err err = TG_ERR_INIT;
    int fds[2], status = 0;
    pid_t pid = 0;
    size_t n = 0;
    const char *const argv[] = {"sh", "-c", script, NULL};
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    s->path = "/bin/sh";
    s->argv = argv;
    s->out = fds[1];
    assert_ok(tg_spawn(s, &pid, &err));
    (void)close(fds[1]);
    for (;;) {
        ssize_t got = read(fds[0], out + n, cap - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    out[n] = 0;
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_only_the_numbered_descriptors(void **state)
{
    (void)state;
    struct tg_spawn s = TG_SPAWN_INIT;
    char out[4096];
    int extra = open("/dev/null", O_RDONLY); /* without CLOEXEC: must be closed all the same */
    int a = open("/etc/passwd", O_RDONLY | O_CLOEXEC), b = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(extra >= 0 && a >= 0 && b >= 0);
    s.fds[0] = b; /* crossed on purpose: placing one must not overwrite the other */
    s.fds[1] = a;
    s.fds[2] = -1;
    s.fds[3] = b;
    s.n_fds = 4;
    assert_int_equal(run(&s,
                         "for f in 0 1 2 3 4 5 6 7 8 9 10 11 63 64 65 66 67 68 69 70; do "
                         "[ -e /proc/$$/fd/$f ] && echo $f $(readlink /proc/$$/fd/$f); done; true",
                         out, sizeof out),
                     0);
    assert_contains(out, "0 /dev/null\n");
    assert_contains(out, "3 /dev/zero\n4 /etc/passwd\n6 /dev/zero\n");
    assert_null(strstr(out, "\n5 "));
    for (int f = 7; f < 12; f++) {
        char line[16];
        (void)snprintf(line, sizeof line, "\n%d ", f);
        assert_null(strstr(out, line));
    }
    assert_null(strstr(out, "\n64 "));
    (void)close(extra);
    (void)close(a);
    (void)close(b);
}

static void test_bare_environment_and_default_signals(void **state)
{
    (void)state;
    struct tg_spawn s = TG_SPAWN_INIT;
    char out[8192];
    (void)setenv("LD_PRELOAD_NOT", "1", 1);
    (void)setenv("SECRET_TOKEN", "1", 1);
    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(
        run(&s,
            "/usr/bin/env; grep -E 'Sig(Ign|Blk)' /proc/self/status; pwd; "
            "echo group $(ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat) $$",
            out, sizeof out),
        0);
    assert_null(strstr(out, "SECRET_TOKEN"));
    assert_null(strstr(out, "LD_PRELOAD_NOT"));
    assert_contains(out, "LC_ALL=C\n");
    assert_contains(out, "SigBlk:\t0000000000000000");
    const char *ignored = strstr(out, "SigIgn:\t");
    assert_non_null(ignored);
    /* 32 and 33 belong to the C library, which lets nobody change them; make's children ignore
     * them. */
    assert_int_equal(strtoull(ignored + strlen("SigIgn:\t"), NULL, 16) & ~(3ULL << 31), 0);
    assert_contains(out, "\n/\n");
    unsigned pgid = 0, pid = 1;
    const char *g = strstr(out, "group ");
    assert_non_null(g);
    assert_int_equal(sscanf(g, "group %u %u", &pgid, &pid), 2);
    assert_int_equal(pgid, pid); /* its own process group */
}

static void test_failures_have_words(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_spawn s = TG_SPAWN_INIT;
    const char *const argv[] = {"x", NULL};
    pid_t pid = 0;
    s.path = "/nonexistent/tensorguard-moai";
    s.argv = argv;
    assert_rc(tg_spawn(&s, &pid, &err), TG_E_IO);
    assert_contains(err.msg, "/nonexistent/tensorguard-moai: cannot execute: No such file");
    struct tg_state st;
    tmp_state(&st);
    s.path = "/bin/true";
    s.key_at = 0;
    s.n_fds = 1;
    s.key_name = "kem.priv";
    s.key_dir = open(st.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_rc(tg_spawn(&s, &pid, &err), TG_E_IO);
    assert_contains(err.msg, "KEM key");
    (void)close(s.key_dir);
    tmp_state_done(&st);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie is left */
    assert_int_equal(errno, ECHILD);
}

/* The key's folder is the worker's user's: what lies there must not hold up the agent. */
static void test_a_pipe_for_a_key_holds_up_nobody(void **state)
{
    (void)state;
    char path[TG_STATE_PATH_MAX + 16], out[64];
    struct tg_spawn s = TG_SPAWN_INIT;
    struct tg_state st;
    tmp_state(&st);
    (void)snprintf(path, sizeof path, "%s/kem.priv", st.dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    s.fds[0] = -1;
    s.n_fds = 1;
    s.key_at = 0;
    s.key_dir = open(st.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    s.key_name = "kem.priv";
    (void)alarm(20); /* instead of for ever */
    assert_int_equal(run(&s, "[ -p /dev/fd/3 ] && echo pipe", out, sizeof out), 0);
    (void)alarm(0);
    assert_string_equal(out, "pipe\n"); /* a worker refuses it: not a regular file */
    (void)close(s.key_dir);
    tmp_state_done(&st);
}

/* The agent is root, the worker is not: it opens its key itself, through a folder that root alone
 * may enter. */
static void test_other_user(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state st;
    struct tg_spawn s = TG_SPAWN_INIT;
    char out[4096], path[TG_STATE_PATH_MAX];
    if (geteuid() != 0)
        skip();
    tmp_state(&st);
    assert_ok(tg_user_find("nobody", &s.user, &err));
    assert_ok(tg_state_path(&st, path, &err, "kem"));
    assert_int_equal(chown(path, s.user.uid, s.user.gid), 0);
    tmp_write(&st, "kem/kem.priv", "the key\n");
    assert_ok(tg_state_path(&st, path, &err, "kem/kem.priv"));
    pid_t pid = 0;
    const char *const argv[] = {"true", NULL};
    s.path = "/bin/true";
    s.argv = argv;
    s.key_at = 0;
    s.n_fds = 1;
    s.key_name = "kem.priv";
    assert_ok(tg_state_path(&st, path, &err, "kem"));
    s.key_dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_rc(tg_spawn(&s, &pid, &err),
              TG_E_IO); /* root's file: the worker's user may not read it */
    assert_contains(err.msg, "Permission denied");
    assert_ok(tg_state_path(&st, path, &err, "kem/kem.priv"));
    assert_int_equal(chown(path, s.user.uid, s.user.gid), 0);
    assert_int_equal(
        run(&s, "cat <&3; id -u; id -G; grep NoNewPrivs /proc/self/status", out, sizeof out), 0);
    char want[64];
    (void)snprintf(want, sizeof want, "the key\n%u\n%u\n", (unsigned)s.user.uid,
                   (unsigned)s.user.gid);
    assert_contains(out, want); /* no supplementary groups */
    (void)close(s.key_dir);
    tmp_state_done(&st);
}

static void test_users(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_user u;
    assert_rc(tg_user_find("no-such-user-here", &u, &err), TG_E_NOTFOUND);
    assert_rc(tg_user_find("root", &u, &err), TG_E_USAGE);
}

/* When the agent dies, by whatever, its workers do. */
static void test_dies_with_its_parent(void **state)
{
    (void)state;
    int fds[2];
    pid_t grandchild = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t agent = fork();
    if (agent == 0) {
        struct tg_spawn s = TG_SPAWN_INIT;
        const char *const argv[] = {"sleep", "600", NULL};
        s.path = "/bin/sleep";
        s.argv = argv;
        pid_t pid = 0;
        if (tg_spawn(&s, &pid, NULL) == TG_OK && write(fds[1], &pid, sizeof pid) == sizeof pid)
            (void)pause();
        _exit(1);
    }
    assert_int_equal(read(fds[0], &grandchild, sizeof grandchild), sizeof grandchild);
    assert_int_equal(kill(grandchild, 0), 0);
    assert_int_equal(kill(agent, SIGKILL), 0);
    assert_int_equal(waitpid(agent, NULL, 0), agent);
    bool gone = false;
    for (int i = 0; i < 500 && !gone; i++) {
        char path[64], text[64] = "";
        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)grandchild);
        FILE *f = fopen(path, "r");
        gone = !f || !fgets(text, sizeof text, f) || strstr(text, ") Z") != NULL;
        if (f)
            (void)fclose(f);
        tg_clock_sleep_ms(10);
    }
    assert_true(gone);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void test_wait_text(void **state)
{
    (void)state;
    char text[64];
    tg_wait_text(9, text, sizeof text);
    assert_string_equal(text, "signal 9 (Killed)");
    tg_wait_text(4 << 8, text, sizeof text);
    assert_string_equal(text, "exit status 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_numbered_descriptors),
        cmocka_unit_test(test_bare_environment_and_default_signals),
        cmocka_unit_test(test_failures_have_words),
        cmocka_unit_test(test_a_pipe_for_a_key_holds_up_nobody),
        cmocka_unit_test(test_other_user),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_dies_with_its_parent),
        cmocka_unit_test(test_wait_text),
    };
    return cmocka_run_group_tests_name("agent/spawn", tests, NULL, NULL);
}
