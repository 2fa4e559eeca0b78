/* The protected region. A process has one, so each case runs in a child of its own. */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "../tg_cmocka.h"
#include "base/region.h"
#include "base/secret.h"
#include "base/thread.h"

#define SKIPPED 77
#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)4096)

static struct tg_err err;

/* What a case returns: 0 went well, SKIPPED, or the line that failed. */
typedef int case_fn(void);

#define NEED(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            return __LINE__ % 1000 + 1000;                                                         \
    } while (0)

static void run_case(case_fn *fn)
{
    int status = 0, pipe_fd[2], got = -1;
    pid_t pid;

    assert_int_equal(pipe(pipe_fd), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        got = fn();
        _exit(write(pipe_fd[1], &got, sizeof(got)) == (ssize_t)sizeof(got) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(read(pipe_fd[0], &got, sizeof(got)), sizeof(got));
    (void)close(pipe_fd[0]);
    (void)close(pipe_fd[1]);
    if (got == SKIPPED)
        skip();
    if (got != 0)
        fail_msg("failed at line ...%03d", got - 1000);
}

static bool open_at(enum tg_level level, bool settle, size_t max)
{
    const struct tg_region_opts o = {.level = level, .settle = settle, .max = max};

    return tg_region_open(&o, &err) == TG_OK;
}

static bool is_filled(const uint8_t *p, size_t n, uint8_t with)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != with)
            return false;
    return true;
}

static int nothing_before_open(void)
{
    struct tg_region_facts f;

    NEED(!tg_region_is_open() && tg_region_take(1, 1) == NULL && !tg_region_has(&f));
    NEED(tg_region_level() == TG_LEVEL_NONE && tg_region_size(&f) == 0);
    NEED(tg_region_hold(TG_LEVEL_NONE, &err) == TG_E_STATE);
    tg_region_facts_get(&f);
    NEED(f.reserved == 0 && f.used == 0);
    tg_region_give(NULL);
    return 0;
}

static int pieces(void)
{
    struct tg_region_facts f;
    uint8_t *a, *b, *c;

    NEED(open_at(TG_LEVEL_NONE, false, 256 * MIB));
    NEED(tg_region_open(&(struct tg_region_opts){.max = MIB}, &err) == TG_E_EXISTS);
    a = tg_region_take(1, 1);
    b = tg_region_take(100000, 1);
    c = tg_region_take(3 * MIB, 8 * MIB);
    NEED(a != NULL && b != NULL && c != NULL);
    NEED((uintptr_t)c % (8 * MIB) == 0);
    NEED(tg_region_size(a) == TG_REGION_UNIT && tg_region_size(b) == 7 * TG_REGION_UNIT);
    NEED(tg_region_size(b + TG_REGION_UNIT) == 0 && tg_region_size(b + 1) == 0);
    NEED(tg_region_has(b) && tg_region_has(c + 3 * MIB - 1) && !tg_region_has(&f));
    NEED(is_filled(a, TG_REGION_UNIT, 0) && is_filled(c, 3 * MIB, 0));
    memset(b, 0xA5, 100000);
    tg_region_give(b);
    NEED(tg_region_size(b) == 0 && is_filled(b, 100000, 0)); /* the segment is kept: a is in it */
    tg_region_give(b);                                       /* twice harms nobody */
    NEED(tg_region_take(100000, 1) == b);
    tg_region_facts_get(&f);
    NEED(f.used == tg_region_size(a) + tg_region_size(b) + tg_region_size(c));
    NEED(f.committed >= f.used && f.peak >= f.committed && f.reserved == 256 * MIB);
    NEED(tg_region_take(257 * MIB, 1) == NULL);
    NEED(tg_region_why(257 * MIB, &err) == TG_E_NOMEM && strstr(err.msg, "do not fit") != NULL);
    return 0;
}

/* Hundreds of pieces of random size come and go; none overlaps another, all come zeroed, and in
 * the end everything is one free piece again. */
static int random_pieces(void)
{
    enum { N = 200, ROUNDS = 20000 };

    struct {
        uint8_t *p;
        size_t n;
        uint8_t mark;
    } v[N];
    struct tg_region_facts f;
    uint32_t dice = 12345;

    memset(v, 0, sizeof(v));
    NEED(open_at(TG_LEVEL_NONE, false, 64 * MIB));
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned k;

        dice = dice * 1103515245U + 12345U;
        k = (dice >> 8) % N;
        if (v[k].p != NULL) {
            NEED(v[k].p[0] == v[k].mark && v[k].p[v[k].n - 1] == v[k].mark);
            tg_region_give(v[k].p);
            v[k].p = NULL;
            continue;
        }
        v[k].n = 1 + (dice >> 12) % ((i % 50 == 0) ? 3 * MIB : 200000);
        v[k].mark = (uint8_t)(1 + k % 255);
        v[k].p = tg_region_take(v[k].n, (size_t)1 << (dice >> 28));
        if (v[k].p == NULL)
            continue; /* full: fine */
        NEED((uintptr_t)v[k].p % ((size_t)1 << (dice >> 28)) == 0);
        NEED(v[k].p[0] == 0 && v[k].p[v[k].n / 2] == 0 && v[k].p[v[k].n - 1] == 0);
        v[k].p[0] = v[k].p[v[k].n - 1] = v[k].mark;
    }
    for (unsigned k = 0; k < N; k++)
        tg_region_give(v[k].p);
    tg_region_facts_get(&f);
    NEED(f.used == 0 && f.committed <= 16 * MIB); /* idle memory goes back */
    NEED(tg_region_take(64 * MIB, 1) != NULL);
    return 0;
}

/* The kernel's word on the mapping of p: its VmFlags. */
static void flags_of(const void *p, char out[256])
{
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false;

    out[0] = '\0';
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        uintptr_t from, to;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            (void)snprintf(out, 256, "%.200s", line);
    }
    if (f != NULL)
        (void)fclose(f);
}

static int locked(void)
{
    char flags[256];
    uint8_t *p;

    if (!open_at(TG_LEVEL_LOCKED, false, 64 * MIB))
        return err.rc == TG_E_NOMEM ? SKIPPED : 1;
    p = tg_region_take(100000, 1);
    NEED(p != NULL && tg_region_level() == TG_LEVEL_LOCKED);
    NEED(tg_region_hold(TG_LEVEL_LOCKED, &err) == TG_OK);
    flags_of(p, flags);
    NEED(strstr(flags, " lo") != NULL && strstr(flags, " dd") != NULL &&
         strstr(flags, " wf") != NULL);
    NEED(tg_region_hold(TG_LEVEL_SECRET, &err) != TG_OK);
    return 0;
}

/* What this process can read of itself through the kernel, from address p. */
static ssize_t read_by_kernel(const void *p, void *out, size_t n)
{
    struct iovec to = {out, n}, from = {(void *)(uintptr_t)p, n};

    return process_vm_readv(getpid(), &to, 1, &from, 1, 0);
}

static int secret(void)
{
    char flags[256], copy[64];
    uint8_t *p;
    FILE *mem;

    if (!open_at(TG_LEVEL_SECRET, false, 64 * MIB))
        return err.rc == TG_E_UNSUPPORTED || err.rc == TG_E_NOMEM ? SKIPPED : 1;
    p = tg_region_take(3 * MIB, 1);
    NEED(p != NULL && tg_region_level() == TG_LEVEL_SECRET);
    NEED(tg_region_hold(TG_LEVEL_SECRET, &err) == TG_OK);
    NEED(is_filled(p, 3 * MIB, 0));
    memset(p, 0x77, 3 * MIB);
    flags_of(p, flags);
    NEED(strstr(flags, " dd") != NULL && strstr(flags, " dc") != NULL);
    NEED(read_by_kernel(p, copy, sizeof(copy)) < 0 && errno == EFAULT);
    NEED(read_by_kernel(flags, copy, sizeof(copy)) == (ssize_t)sizeof(copy));
    mem = fopen("/proc/self/mem", "rbe");
    NEED(mem != NULL && fseeko(mem, (off_t)(uintptr_t)p, SEEK_SET) == 0);
    NEED(fread(copy, 1, 1, mem) == 0);
    (void)fclose(mem);
    tg_region_give(p);
    p = tg_region_take(3 * MIB, 1);
    NEED(p != NULL && is_filled(p, 3 * MIB, 0));
    return 0;
}

static bool limit_memlock(rlim_t n)
{
    struct rlimit lim = {n, n};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2];

    memset(none, 0, sizeof(none));
    return setrlimit(RLIMIT_MEMLOCK, &lim) == 0 && syscall(SYS_capset, &head, none) == 0;
}

static int refusal_has_the_remedy(void)
{
    NEED(limit_memlock(65536));
    NEED(!open_at(TG_LEVEL_LOCKED, false, 64 * MIB));
    NEED(err.rc == TG_E_NOMEM && strstr(err.msg, "65536") != NULL);
    NEED(strstr(err.msg, "LimitMEMLOCK") != NULL && strstr(err.msg, "ulimit -l") != NULL);
    NEED(strstr(err.msg, "CAP_IPC_LOCK") != NULL && !tg_region_is_open());
    return 0;
}

/* A kernel that was not booted for it answers memfd_secret as this filter does. */
static bool forbid_memfd_secret(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 447, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = TG_ARRAY_LEN(code), .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int no_memfd_secret_has_its_remedy(void)
{
    NEED(forbid_memfd_secret());
    NEED(!open_at(TG_LEVEL_SECRET, false, 64 * MIB));
    NEED(err.rc == TG_E_UNSUPPORTED && strstr(err.msg, "secretmem.enable=1") != NULL);
    NEED(strstr(err.msg, "--protection locked") != NULL && !tg_region_is_open());
    return 0;
}

/* It settles for less, says so, and no longer does once it was told to hold a level. */
static int settling(void)
{
    uint8_t *p;

    NEED(limit_memlock(65536));
    NEED(open_at(TG_LEVEL_LOCKED, true, 64 * MIB));
    NEED(tg_region_level() == TG_LEVEL_NONE);
    p = tg_region_take(8 * MIB, 1);
    NEED(p != NULL && is_filled(p, 8 * MIB, 0));
    NEED(tg_region_hold(TG_LEVEL_LOCKED, &err) == TG_E_NOMEM);
    NEED(strstr(err.msg, "--protection locked") != NULL && strstr(err.msg, "LimitMEMLOCK") != NULL);
    NEED(tg_region_hold(TG_LEVEL_NONE, &err) == TG_OK);
    NEED(tg_region_take(8 * MIB, 1) != NULL);
    return 0;
}

static int growth_is_refused_below_the_level(void)
{
    struct tg_region_facts f;
    uint8_t *p;

    NEED(limit_memlock(4 * MIB));
    NEED(open_at(TG_LEVEL_LOCKED, true, 64 * MIB));
    NEED(tg_region_hold(TG_LEVEL_LOCKED, &err) == TG_OK);
    NEED(tg_region_take(16 * MIB, 1) == NULL);
    NEED(tg_region_why(16 * MIB, &err) == TG_E_NOMEM && strstr(err.msg, "16777216 bytes") != NULL);
    NEED(tg_region_level() == TG_LEVEL_LOCKED);
    p = tg_region_take(MIB, 1);
    NEED(p != NULL);
    tg_region_facts_get(&f);
    NEED(f.used == MIB && f.committed <= 4 * MIB);
    return 0;
}

/* Not the address of a variable: a sanitizer may keep those elsewhere. */
static void note_stack(void *arg)
{
    *(bool *)arg = tg_region_has(__builtin_frame_address(0));
}

static enum tg_rc note_worker(void *ctx, uint64_t i, unsigned worker, struct tg_err *e)
{
    (void)e;
    (void)i;
    if (worker > 0 && !tg_region_has(__builtin_frame_address(0)))
        __atomic_store_n((bool *)ctx, true, __ATOMIC_SEQ_CST);
    return TG_OK;
}

static int threads_at(enum tg_level level)
{
    struct tg_region_facts before, after;
    struct tg_thread *t = NULL;
    bool outside = false;

    if (!open_at(level, false, 256 * MIB))
        return SKIPPED;
    tg_region_facts_get(&before);
    for (int i = 0; i < 20; i++) {
        bool inside = false;

        NEED(tg_thread_start(note_stack, &inside, TG_THREAD_STACK, &t, &err) == TG_OK);
        tg_thread_join(t);
        NEED(inside);
    }
    NEED(tg_thread_run(4, 64, note_worker, &outside, &err) == TG_OK && !outside);
    tg_region_facts_get(&after);
    NEED(after.used == before.used);
    return 0;
}

static int threads_in_locked(void)
{
    return threads_at(TG_LEVEL_LOCKED);
}

static int threads_in_secret(void)
{
    return threads_at(TG_LEVEL_SECRET);
}

static int secrets_are_pieces(void)
{
    struct tg_region_facts f;
    struct tg_secret *s = NULL;

    NEED(open_at(TG_LEVEL_NONE, false, 64 * MIB));
    NEED(tg_secret_new(100000, &s, &err) == TG_OK);
    NEED(tg_region_has(tg_secret_data(s)) && tg_secret_size(s) == 100000);
    memset(tg_secret_data(s), 3, 100000);
    NEED(tg_secret_seal(s, &err) == TG_OK);
    tg_secret_free(s);
    tg_region_facts_get(&f);
    NEED(f.used == 0);
    NEED(tg_secret_new(10 * MIB, &s, &err) == TG_OK);
    memset(tg_secret_data(s), 3, 10 * MIB);
    NEED(tg_secret_seal(s, &err) == TG_OK);
    NEED(tg_secret_trim(s, 5000, &err) == TG_OK); /* and what follows is free again, and zero */
    tg_region_facts_get(&f);
    NEED(tg_secret_size(s) == 5000 && f.used < 64 * 1024);
    NEED(is_filled(tg_secret_data(s), 8192, 3));
    uint8_t *p = tg_region_take(9 * MIB, 1);
    NEED(p != NULL && is_filled(p, 9 * MIB, 0));
    tg_region_give(p);
    tg_secret_free(s);
    NEED(tg_secret_new(10 * MIB, &s, &err) == TG_OK);
    memset(tg_secret_data(s), 3, 10 * MIB);
    NEED(tg_secret_trim(s, 3 * PAGE, &err) == TG_OK);
    /* the rest of the last unit, behind the guard that moved up */
    NEED(is_filled(tg_secret_data(s) + 4 * PAGE, 2 * TG_REGION_UNIT - 5 * PAGE, 0));
    tg_secret_free(s);
    tg_region_facts_get(&f);
    NEED(f.used == 0);
    NEED(tg_secret_new(65 * MIB, &s, &err) == TG_E_NOMEM);
    return 0;
}

/* How many pages had to be made for p to be filled with ones. */
static long faults_of(uint8_t *p, size_t n)
{
    struct rusage before, after;

    (void)getrusage(RUSAGE_SELF, &before);
    memset(p, 1, n);
    (void)getrusage(RUSAGE_SELF, &after);
    return after.ru_minflt - before.ru_minflt;
}

/* A kernel that lets this process have no more threads answers so. */
static bool forbid_threads(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = TG_ARRAY_LEN(code), .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Until a hurry is over at level secret, what is given back stays usable, and large pieces come
 * with all their pages. */
static int hurry(void)
{
    struct tg_region_facts f;
    uint8_t *a, *b;
    size_t kept;

    if (!open_at(TG_LEVEL_SECRET, false, 256 * MIB))
        return SKIPPED;
    tg_region_hurry(4);
    a = tg_region_take(32 * MIB, 1);
    b = tg_region_take(32 * MIB + 1, 1);
    if (a == NULL || b == NULL)
        return SKIPPED; /* as much may not be locked here */
    NEED(faults_of(a, 32 * MIB) < 64 && faults_of(b, 32 * MIB) < 64); /* of 8,192 pages each */
    tg_region_give(a);
    tg_region_facts_get(&f);
    kept = f.committed;
    NEED(kept >= 64 * MIB && f.idle >= 28 * MIB);
    a = tg_region_take(30 * MIB, 1);
    tg_region_facts_get(&f);
    NEED(a != NULL && f.committed == kept && is_filled(a, 30 * MIB, 0));
    tg_region_give(a);
    tg_region_hurry(0);
    NEED(forbid_threads()); /* none is started from here on */
    a = tg_region_take(4 * MIB, 1);
    NEED(a != NULL);
    tg_region_give(a);
    tg_region_facts_get(&f);
    NEED(f.committed == kept); /* it waits for the calm */
    tg_region_calm();
    tg_region_facts_get(&f);
    NEED(f.committed <= kept - 20 * MIB && is_filled(b, 32 * MIB, 1));
    tg_region_give(b);
    tg_region_facts_get(&f);
    NEED(f.used == 0 && f.committed <= 16 * MIB);
    a = tg_region_take(60 * MIB, 1); /* the pieces have joined again */
    NEED(a != NULL && is_filled(a, 60 * MIB, 0));
    tg_region_give(a);
    a = tg_region_take(60 * MIB, 1);
    NEED(faults_of(a, 60 * MIB) >= 10000); /* and no longer come with their pages */
    return 0;
}

/* What is kept never makes a process larger than it would be without. */
static int hurry_costs_no_memory(void)
{
    struct tg_region_facts f;
    uint8_t *v[8];

    if (!open_at(TG_LEVEL_SECRET, false, 512 * MIB))
        return SKIPPED;
    tg_region_hurry(2);
    for (size_t i = 0; i < 8; i++) /* by turns large and small: holes that do not join */
        v[i] = tg_region_take((i % 2 == 0 ? 14 : 1) * MIB, 1);
    for (size_t i = 0; i < 8; i++)
        if (v[i] == NULL)
            return SKIPPED; /* as much may not be locked here */
    for (size_t i = 0; i < 8; i += 2)
        tg_region_give(v[i]);
    v[0] = tg_region_take(50 * MIB, 1); /* in none of the holes */
    tg_region_facts_get(&f);
    NEED(v[0] != NULL && f.peak <= 84 * MIB); /* 60 once in use, 54 now, and what is always kept */
    return 0;
}

/* What was kept is given up before a piece is refused. */
static int hurry_ends_where_memory_does(void)
{
    struct tg_region_facts f;
    uint8_t *a;

    if (!open_at(TG_LEVEL_SECRET, false, 256 * MIB))
        return SKIPPED;
    tg_region_hurry(1);
    a = tg_region_take(60 * MIB, 1);
    if (a == NULL || tg_region_take(1 * MIB, 1) == NULL)
        return SKIPPED; /* as much may not be locked here */
    tg_region_give(a);
    tg_region_facts_get(&f);
    NEED(f.committed >= 60 * MIB);
    NEED(forbid_memfd_secret());
    NEED(tg_region_take(128 * MIB, 1) == NULL); /* behind the other piece */
    tg_region_facts_get(&f);
    NEED(f.committed <= 4 * MIB && f.used == 1 * MIB);
    return 0;
}

static void calm(void *arg)
{
    (void)arg;
    tg_region_calm();
}

/* While what was kept goes back, others take and give. */
static int calm_beside_others(void)
{
    enum { N = 16, ROUNDS = 3000 };

    struct tg_region_facts f;
    struct tg_thread *t = NULL;
    uint8_t *v[N] = {NULL};
    uint32_t dice = 7;

    if (!open_at(TG_LEVEL_SECRET, false, 256 * MIB))
        return SKIPPED;
    tg_region_hurry(2);
    for (size_t i = 0; i < N; i++)
        v[i] = tg_region_take(3 * MIB, 1);
    if (v[N - 1] == NULL)
        return SKIPPED;
    for (size_t i = 0; i < N; i += 2) {
        tg_region_give(v[i]);
        v[i] = NULL;
    }
    tg_region_hurry(0);
    NEED(tg_thread_start(calm, NULL, TG_THREAD_STACK, &t, &err) == TG_OK);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t k;

        dice = dice * 1103515245U + 12345U;
        k = (dice >> 8) % N;
        if (v[k] != NULL) {
            tg_region_give(v[k]);
            v[k] = NULL;
            continue;
        }
        v[k] = tg_region_take(20000 + (dice >> 12) % 100000, 1);
        NEED(v[k] != NULL && is_filled(v[k], 20000, 0));
        v[k][0] = v[k][19999] = 1;
    }
    tg_thread_join(t);
    for (size_t i = 0; i < N; i++)
        tg_region_give(v[i]);
    tg_region_facts_get(&f);
    NEED(f.used == 0 && f.committed <= 16 * MIB);
    NEED(tg_region_take(48 * MIB, 1) != NULL);
    return 0;
}

#define CASE(name)                                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        run_case(name);                                                                            \
    }

CASE(nothing_before_open)
CASE(pieces)
CASE(random_pieces)
CASE(locked)
CASE(secret)
CASE(refusal_has_the_remedy)
CASE(no_memfd_secret_has_its_remedy)
CASE(settling)
CASE(growth_is_refused_below_the_level)
CASE(threads_in_locked)
CASE(threads_in_secret)
CASE(secrets_are_pieces)
CASE(hurry)
CASE(hurry_costs_no_memory)
CASE(calm_beside_others)
CASE(hurry_ends_where_memory_does)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_before_open),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_random_pieces),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_secret),
        cmocka_unit_test(test_refusal_has_the_remedy),
        cmocka_unit_test(test_no_memfd_secret_has_its_remedy),
        cmocka_unit_test(test_settling),
        cmocka_unit_test(test_growth_is_refused_below_the_level),
        cmocka_unit_test(test_threads_in_locked),
        cmocka_unit_test(test_threads_in_secret),
        cmocka_unit_test(test_secrets_are_pieces),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_hurry_costs_no_memory),
        cmocka_unit_test(test_calm_beside_others),
        cmocka_unit_test(test_hurry_ends_where_memory_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
