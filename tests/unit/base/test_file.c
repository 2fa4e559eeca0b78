#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "base/mem.h"

static struct tg_err err;

struct place {
    char dir[64];
    char file[96];
};

static int setup(void **state)
{
    struct place *p = tg_calloc(1, sizeof(*p));

    strcpy(p->dir, "/tmp/tg-file-XXXXXX");
    if (mkdtemp(p->dir) == NULL)
        return -1;
    (void)snprintf(p->file, sizeof(p->file), "%s/f", p->dir);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;

    assert_ok(tg_dir_remove(p->dir, &err));
    assert_int_equal(access(p->dir, F_OK), -1);
    tg_free(p);
    return 0;
}

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n - 2;
}

static void assert_holds(const char *path, const char *text)
{
    struct tg_buf b = TG_BUF_INIT(1000);

    assert_ok(tg_file_read(path, &b, &err));
    assert_string_equal(tg_buf_cstr(&b), text);
    tg_buf_done(&b);
}

static void a_file_appears_whole_with_its_mode(void **state)
{
    struct place *p = *state;
    struct stat st;
    mode_t old = umask(077);

    assert_ok(tg_file_write(p->file, tg_bytes_str("one"), 0644, false, &err));
    (void)umask(old);
    assert_int_equal(stat(p->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_rc(tg_file_write(p->file, tg_bytes_str("two"), 0644, false, &err), TG_E_EXISTS);
    assert_contains(err.msg, p->file);
    assert_holds(p->file, "one");
    assert_ok(tg_file_write(p->file, tg_bytes_str("three"), 0600, true, &err));
    assert_holds(p->file, "three");
    assert_int_equal(entries(p->dir), 1);
}

/* No wait for the disk, and yet nobody sees half of it. */
static void a_fleeting_file_is_replaced_whole_and_not_synced(void **state)
{
    struct place *p = *state;
    struct stat st;

    assert_ok(tg_file_write_fleeting(p->file, tg_bytes_str("one"), 0640, &err));
    tg_io_fault_set(TG_IO_SYNC, 1, EIO); /* a sync would fail */
    assert_ok(tg_file_write_fleeting(p->file, tg_bytes_str("two"), 0640, &err));
    tg_io_fault_set(TG_IO_SYNC, 0, 0);
    assert_holds(p->file, "two");
    assert_int_equal(stat(p->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    tg_io_fault_set(TG_IO_WRITE, 1, ENOSPC);
    assert_rc(tg_file_write_fleeting(p->file, tg_bytes_str("three"), 0640, &err), TG_E_IO);
    tg_io_fault_set(TG_IO_WRITE, 0, 0);
    assert_holds(p->file, "two");
    assert_int_equal(entries(p->dir), 1);
}

static void losing_the_race_for_a_name_is_noticed(void **state)
{
    struct place *p = *state;
    struct tg_newfile f = TG_NEWFILE_INIT;

    assert_ok(tg_newfile_open(&f, p->file, 0600, false, &err));
    assert_ok(tg_fd_write(f.fd, "f", "mine", 4, &err));
    assert_ok(tg_file_write(p->file, tg_bytes_str("theirs"), 0600, false, &err));
    assert_rc(tg_newfile_commit(&f, &err), TG_E_EXISTS);
    assert_holds(p->file, "theirs");
    assert_int_equal(entries(p->dir), 1);
}

static void an_aborted_file_leaves_nothing(void **state)
{
    struct place *p = *state;
    struct tg_newfile f = TG_NEWFILE_INIT;

    assert_ok(tg_newfile_open(&f, p->file, 0600, false, &err));
    assert_int_equal(entries(p->dir), 1);
    tg_newfile_abort(&f);
    assert_int_equal(entries(p->dir), 0);
    tg_newfile_abort(&f);
}

/* Fail each read, write, sync and rename in turn: the old contents stay, nothing else is left. */
static void every_fault_leaves_the_old_file(void **state)
{
    struct place *p = *state;

    assert_ok(tg_file_write(p->file, tg_bytes_str("old"), 0600, false, &err));
    for (int op = TG_IO_WRITE; op < TG_IO_OPS; op++) {
        for (uint64_t nth = 1; nth <= 3; nth++) {
            enum tg_rc rc;

            tg_io_fault_set((enum tg_io_op)op, nth, ENOSPC);
            rc = tg_file_write(p->file, tg_bytes_str("new"), 0600, true, &err);
            if (tg_io_fault_count((enum tg_io_op)op) < nth) {
                assert_ok(rc);
            } else {
                assert_rc(rc, TG_E_IO);
                assert_contains(err.msg, "No space left");
                /* the sync of the folder comes after the rename: then the new text is there */
                if (op != TG_IO_SYNC || nth == 1)
                    assert_holds(p->file, "old");
            }
            tg_io_fault_set((enum tg_io_op)op, 0, 0);
            assert_int_equal(entries(p->dir), 1);
            assert_ok(tg_file_write(p->file, tg_bytes_str("old"), 0600, true, &err));
        }
    }
}

static void reading_has_limits_and_words(void **state)
{
    struct place *p = *state;
    struct tg_buf b = TG_BUF_INIT(4);
    char got[8];
    int fd;

    assert_rc(tg_file_read(p->file, &b, &err), TG_E_NOTFOUND);
    assert_rc(tg_file_read(p->dir, &b, &err), TG_E_IO);
    assert_ok(tg_file_write(p->file, tg_bytes_str("12345"), 0600, false, &err));
    assert_rc(tg_file_read(p->file, &b, &err), TG_E_LIMIT);
    assert_contains(err.msg, "5 bytes");
    fd = open(p->file, O_RDWR | O_CLOEXEC);
    assert_ok(tg_fd_pread(fd, "f", got, 3, 2, &err));
    assert_memory_equal(got, "345", 3);
    assert_rc(tg_fd_pread(fd, "f", got, 4, 2, &err), TG_E_FORMAT);
    assert_contains(err.msg, "ends at offset 5");
    assert_rc(tg_fd_pread(fd, "f", got, 1, UINT64_MAX, &err), TG_E_LIMIT);
    tg_io_fault_set(TG_IO_READ, 1, EIO);
    assert_rc(tg_fd_pread(fd, "f", got, 1, 0, &err), TG_E_IO);
    tg_io_fault_set(TG_IO_READ, 0, 0);
    assert_ok(tg_fd_pwrite(fd, "f", "ab", 2, 3, &err));
    tg_fd_closep(&fd);
    assert_int_equal(fd, -1);
    assert_holds(p->file, "123ab");
    tg_buf_done(&b);
}

static void removing_a_tree_does_not_follow_links(void **state)
{
    struct place *p = *state;
    TG_AUTO(tg_freep) char *deep = tg_path_join(p->dir, "a/b/c");
    TG_AUTO(tg_freep) char *keep = tg_path_join(p->dir, "keep");
    TG_AUTO(tg_freep) char *kept = tg_path_join(keep, "file");
    TG_AUTO(tg_freep) char *link = tg_path_join(deep, "link");
    TG_AUTO(tg_freep) char *a = tg_path_join(p->dir, "a");

    assert_ok(tg_dir_make(deep, 0700, &err));
    assert_ok(tg_dir_make(deep, 0700, &err));
    assert_ok(tg_dir_make(keep, 0700, &err));
    assert_ok(tg_file_write(kept, tg_bytes_str("x"), 0600, false, &err));
    assert_int_equal(symlink(keep, link), 0);
    assert_ok(tg_dir_remove(a, &err));
    assert_int_equal(access(a, F_OK), -1);
    assert_holds(kept, "x");
    assert_ok(tg_dir_remove(a, &err));
    assert_rc(tg_dir_make(kept, 0700, &err), TG_E_IO);
}

static void paths_join_with_one_slash(void **state)
{
    TG_AUTO(tg_freep) char *a = tg_path_join("x", "y");
    TG_AUTO(tg_freep) char *b = tg_path_join("x/", "y");
    TG_AUTO(tg_freep) char *c = tg_path_join("/", "y");

    (void)state;
    assert_string_equal(a, "x/y");
    assert_string_equal(b, "x/y");
    assert_string_equal(c, "/y");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_appears_whole_with_its_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fleeting_file_is_replaced_whole_and_not_synced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(losing_the_race_for_a_name_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_file_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(every_fault_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(reading_has_limits_and_words, setup, teardown),
        cmocka_unit_test_setup_teardown(removing_a_tree_does_not_follow_links, setup, teardown),
        cmocka_unit_test(paths_join_with_one_slash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
