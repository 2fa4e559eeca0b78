/* The state folder: who may use it, one agent at a time, what pruning keeps. */
#include "../tg_cmocka.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tmpdir.h"

static void test_modes(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s, t = TG_STATE_INIT;
    struct stat st;
    tmp_state(&s);
    assert_int_equal(stat(s.dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(chmod(s.dir, 0750), 0);
    assert_rc(tg_state_open(&t, s.dir, false, &err), TG_E_DENIED);
    assert_contains(err.msg, "chmod 0700");
    assert_int_equal(chmod(s.dir, 0700), 0);
    assert_rc(tg_state_open(&t, "/nonexistent/agent", false, &err), TG_E_NOTFOUND);
    assert_contains(err.msg, "enroll");
    tmp_state_done(&s);
}

static void test_one_agent_per_folder(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s, t = TG_STATE_INIT;
    char pid[32];
    tmp_state(&s);
    assert_ok(tg_state_lock(&s, &err));
    assert_ok(tg_state_open(&t, s.dir, false, &err));
    assert_rc(tg_state_lock(&t, &err), TG_E_STATE);
    (void)snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_contains(err.msg, pid);
    tg_state_done(&s);
    assert_ok(tg_state_lock(&t, &err));
    tg_state_done(&t);
    tmp_state_done(&s);
}

static void touch(const char *path)
{
    struct tg_err err = TG_ERR_INIT;
    assert_ok(tg_file_write(path, tg_bytes_str("x"), 0600, true, &err));
}

static void test_prune(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    uint8_t h[3][32];
    char path[TG_STATE_PATH_MAX];
    tmp_state(&s);
    for (int i = 0; i < 3; i++) {
        memset(h[i], 0x11 * (i + 1), 32);
        tg_state_package(&s, h[i], path);
        touch(path);
        tg_state_part(&s, h[i], path);
        touch(path);
        tg_state_grant(&s, h[i], path);
        touch(path);
        tg_state_deployment(&s, h[i], path);
        touch(path);
    }
    tmp_write(&s, "kem/kem.priv", "key");
    assert_ok(tg_state_prune(&s, (const uint8_t(*)[32])h, 2, &err));
    for (int i = 0; i < 3; i++) {
        tg_state_package(&s, h[i], path);
        assert_int_equal(tg_state_has(path), i < 2);
        tg_state_part(&s, h[i], path);
        assert_int_equal(tg_state_has(path), i < 2);
        tg_state_grant(&s, h[i], path);
        assert_int_equal(tg_state_has(path), i < 2);
        tg_state_deployment(&s, h[i], path);
        assert_int_equal(tg_state_has(path), i < 2);
    }
    assert_ok(tg_state_path(&s, path, &err, "kem/kem.priv"));
    assert_true(tg_state_has(path));
    tmp_state_done(&s);
}

static void test_tidy_removes_what_a_kill_left(void **state)
{
    (void)state;
    static const char *const gone[] = {"status.json.0123456789abcdef.tmp",
                                       "kem/kem.priv.0123456789abcdef.tmp",
                                       "grants/x.tgrant.0123456789abcdef.tmp"};
    static const char *const stays[] = {"status.json", "kem/kem.priv", "packages/x.part"};
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    char path[TG_STATE_PATH_MAX];
    tmp_state(&s);
    for (size_t i = 0; i < TG_ARRAY_LEN(gone); i++)
        tmp_write(&s, gone[i], "x");
    for (size_t i = 0; i < TG_ARRAY_LEN(stays); i++)
        tmp_write(&s, stays[i], "x");
    /* and the name is really the one that an unfinished write has */
    struct tg_newfile unfinished = TG_NEWFILE_INIT;
    assert_ok(tg_state_path(&s, path, &err, "serving.json"));
    assert_ok(tg_newfile_open(&unfinished, path, 0600, true, &err));
    assert_true(tg_state_has(unfinished.tmp));
    assert_ok(tg_state_tidy(&s, &err));
    assert_false(tg_state_has(unfinished.tmp));
    tg_newfile_abort(&unfinished);
    for (size_t i = 0; i < TG_ARRAY_LEN(gone); i++) {
        assert_ok(tg_state_path(&s, path, &err, "%s", gone[i]));
        assert_false(tg_state_has(path));
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(stays); i++) {
        assert_ok(tg_state_path(&s, path, &err, "%s", stays[i]));
        assert_true(tg_state_has(path));
    }
    tmp_state_done(&s);
}

static void test_paths_are_bounded(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    char path[TG_STATE_PATH_MAX], longer[600];
    tmp_state(&s);
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_rc(tg_state_path(&s, path, &err, "%s", longer), TG_E_LIMIT);
    tmp_state_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_one_agent_per_folder),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_tidy_removes_what_a_kill_left),
        cmocka_unit_test(test_paths_are_bounded),
    };
    return cmocka_run_group_tests_name("agent/state", tests, NULL, NULL);
}
