/* No name leads out of the folder, with openat2 and without it. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "tgsp/beneath_internal.h"

typedef int opener(int dirfd, const char *path, int flags, mode_t mode);

static void check(struct fx *f, opener *open_in, const char *dir)
{
    static const char *const outside[] = {"link/a",   "sub/link/a", "a-link",
                                          "sub/up/a", "../keep",    "/etc/passwd"};
    char text[2];
    TG_AUTO(tg_fd_closep) int at = open(fx_path(f, dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(at >= 0);
    for (size_t i = 0; i < TG_ARRAY_LEN(outside); i++) {
        TG_AUTO(tg_fd_closep) int fd = open_in(at, outside[i], O_RDONLY, 0);
        if (fd >= 0)
            fail_msg("%s was opened", outside[i]);
    }
    TG_AUTO(tg_fd_closep) int good = open_in(at, "sub/deep/a", O_RDONLY, 0);
    assert_true(good >= 0);
    assert_int_equal(read(good, text, 2), 2);
    assert_memory_equal(text, "in", 2);
    assert_int_equal(fcntl(good, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    TG_AUTO(tg_fd_closep) int made = open_in(at, "sub/new", O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(made >= 0);
    TG_AUTO(tg_fd_closep) int twice = open_in(at, "sub/new", O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(twice < 0 && errno == EEXIST);
    TG_AUTO(tg_fd_closep) int through = open_in(at, "link/new", O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(through < 0);
    assert_int_equal(unlink(fx_path(f, "beneath/sub/new")), 0);
}

static void test_both(void **state)
{
    struct fx *f = *state;
    fx_mkdir(f, "beneath/sub/deep");
    fx_mkdir(f, "elsewhere");
    fx_write(f, "elsewhere/a", "out", 3);
    fx_write(f, "keep", "out", 3);
    fx_write(f, "beneath/a", "in", 2);
    fx_write(f, "beneath/sub/deep/a", "in", 2);
    assert_int_equal(symlink("../elsewhere", fx_path(f, "beneath/link")), 0);
    assert_int_equal(symlink("../../elsewhere", fx_path(f, "beneath/sub/link")), 0);
    assert_int_equal(symlink("../keep", fx_path(f, "beneath/a-link")), 0);
    assert_int_equal(symlink("..", fx_path(f, "beneath/sub/up")), 0);
    check(f, tg_open_beneath, "beneath");
    check(f, tg_open_beneath_walk, "beneath");
    assert_int_not_equal(access(fx_path(f, "elsewhere/new"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both)};
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
