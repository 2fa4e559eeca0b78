#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "../tg_cmocka.h"
#include "base/secret.h"

static struct tg_err err;

/* The kernel's own word on the mapping that holds p: its VmFlags line. */
static void flags_of(const void *p, char out[256])
{
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    int inside = 0;

    assert_non_null(f);
    out[0] = '\0';
    while (fgets(line, sizeof(line), f) != NULL) {
        uintptr_t from, to;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            (void)snprintf(out, 256, "%.200s", line);
    }
    (void)fclose(f);
}

static void is_locked_undumpable_and_wiped_on_fork(void **state)
{
    TG_AUTO(tg_secret_freep) struct tg_secret *s = NULL;
    char flags[256];

    (void)state;
    assert_ok(tg_secret_new(10000, &s, &err));
    assert_int_equal(tg_secret_size(s), 10000);
    assert_int_equal((uintptr_t)tg_secret_data(s) % 4096, 0);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(tg_secret_data(s)[i], 0);
    flags_of(tg_secret_data(s), flags);
    assert_non_null(strstr(flags, " lo")); /* locked */
    assert_non_null(strstr(flags, " dd")); /* not dumped */
    assert_non_null(strstr(flags, " wf")); /* wiped on fork */
}

/* Run fn in a child; its exit status, or minus the signal that ended it. */
static int in_child(int (*fn)(struct tg_secret *), struct tg_secret *s)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        /* A sanitizer's own SIGSEGV handler would turn the signal into an exit. */
        (void)signal(SIGSEGV, SIG_DFL);
        _exit(fn(s));
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int sum_is_zero(struct tg_secret *s)
{
    int sum = 0;

    for (int i = 0; i < 4096; i++)
        sum |= tg_secret_data(s)[i];
    return sum == 0 ? 0 : 1;
}

static int touch_before(struct tg_secret *s)
{
    return ((volatile uint8_t *)tg_secret_data(s))[-1] + 10;
}

static int touch_after(struct tg_secret *s)
{
    return ((volatile uint8_t *)tg_secret_data(s))[4096] + 10;
}

static int write_there(struct tg_secret *s)
{
    ((volatile uint8_t *)tg_secret_data(s))[0] = 1;
    return 11;
}

static void a_child_sees_zeros_and_the_guards_hold(void **state)
{
    TG_AUTO(tg_secret_freep) struct tg_secret *s = NULL;

    (void)state;
    assert_ok(tg_secret_new(4096, &s, &err));
    memset(tg_secret_data(s), 0x5A, 4096);
    assert_int_equal(in_child(sum_is_zero, s), 0);
    assert_int_equal(in_child(touch_before, s), -SIGSEGV);
    assert_int_equal(in_child(touch_after, s), -SIGSEGV);
    assert_int_equal(in_child(write_there, s), 11);
    assert_ok(tg_secret_seal(s, &err));
    assert_int_equal(in_child(write_there, s), -SIGSEGV);
    assert_int_equal(tg_secret_data(s)[4095], 0x5A);
}

static void a_part_is_given_back(void **state)
{
    TG_AUTO(tg_secret_freep) struct tg_secret *s = NULL;
    char flags[256];

    (void)state;
    assert_ok(tg_secret_new(10 * 4096, &s, &err));
    memset(tg_secret_data(s), 0x5A, 10 * 4096);
    assert_ok(tg_secret_seal(s, &err));
    assert_ok(tg_secret_trim(s, 10 * 4096, &err)); /* nothing to do */
    assert_int_equal(tg_secret_size(s), 10 * 4096);
    assert_ok(tg_secret_trim(s, 4095, &err));
    assert_int_equal(tg_secret_size(s), 4095);
    assert_int_equal(tg_secret_data(s)[4095], 0x5A);
    assert_int_equal(in_child(touch_after, s), -SIGSEGV);
    assert_int_equal(in_child(write_there, s), -SIGSEGV); /* still sealed */
    flags_of(tg_secret_data(s) + 4096, flags);
    assert_null(strstr(flags, " lo"));
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    struct tg_secret *s = NULL;

    (void)state;
    assert_rc(tg_secret_new(0, &s, &err), TG_E_LIMIT);
    assert_rc(tg_secret_new(SIZE_MAX, &s, &err), TG_E_LIMIT);
    assert_rc(tg_secret_new(SIZE_MAX - 5000, &s, &err), TG_E_LIMIT);
    assert_rc(tg_secret_new(SIZE_MAX / 2, &s, &err), TG_E_NOMEM);
    assert_null(s);
    tg_secret_free(NULL);
}

static int locking_is_refused_in_words(struct tg_secret *unused)
{
    struct rlimit lim = {8192, 8192};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2];
    struct tg_secret *s = NULL;
    struct tg_err e = TG_ERR_INIT;

    (void)unused;
    memset(none, 0, sizeof(none));
    if (setrlimit(RLIMIT_MEMLOCK, &lim) != 0 || syscall(SYS_capset, &head, none) != 0)
        return 1;
    if (tg_secret_new(1 << 20, &s, &e) != TG_E_NOMEM || s != NULL)
        return 2;
    if (strstr(e.msg, "1048576 bytes") == NULL || strstr(e.msg, "8192") == NULL ||
        strstr(e.msg, "LimitMEMLOCK") == NULL)
        return 3;
    return tg_secret_new(4096, &s, &e) == TG_OK ? 0 : 4;
}

static void memory_that_cannot_be_locked_is_refused_with_the_remedy(void **state)
{
    (void)state;
    assert_int_equal(in_child(locking_is_refused_in_words, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_locked_undumpable_and_wiped_on_fork),
        cmocka_unit_test(a_child_sees_zeros_and_the_guards_hold),
        cmocka_unit_test(a_part_is_given_back),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(memory_that_cannot_be_locked_is_refused_with_the_remedy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
