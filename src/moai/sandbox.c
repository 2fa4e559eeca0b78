#include "moai/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/region.h"

static bool kept(const int *keep, size_t n, unsigned fd)
{
    for (size_t i = 0; i < n; i++)
        if (keep[i] >= 0 && (unsigned)keep[i] == fd)
            return true;
    return false;
}

enum tg_rc tg_sandbox_close_fds(const int *keep, size_t n, struct tg_err *err)
{
    unsigned first = 3, last = 2;

    for (size_t i = 0; i < n; i++)
        if (keep[i] >= 0 && (unsigned)keep[i] > last)
            last = (unsigned)keep[i];
    for (; first <= last; first++)
        if (!kept(keep, n, first))
            (void)close((int)first);
    if (syscall(SYS_close_range, last + 1, ~0U, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't close inherited descriptors");
    return TG_OK;
}

/* As much as may be had: a process that may (root) takes everything, any other its hard limit. */
enum tg_rc tg_sandbox_raise_memlock(struct tg_err *err)
{
    struct rlimit lim = {RLIM_INFINITY, RLIM_INFINITY};

    if (setrlimit(RLIMIT_MEMLOCK, &lim) == 0)
        return TG_OK;
    if (getrlimit(RLIMIT_MEMLOCK, &lim) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't read RLIMIT_MEMLOCK");
    lim.rlim_cur = lim.rlim_max;
    if (setrlimit(RLIMIT_MEMLOCK, &lim) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't raise RLIMIT_MEMLOCK to its hard limit");
    return TG_OK;
}

enum tg_rc tg_sandbox_begin(struct tg_err *err)
{
    const struct rlimit none = {0, 0};

    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't forbid core dumps");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make the process undumpable");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't set no_new_privs");
    return tg_sandbox_raise_memlock(err);
}

#define CAP_BIT(cap) (1u << (cap))

/* Capabilities become exactly `low` (all of the second word is dropped). Raw calls: the C library
 * has no wrapper. They act on this thread alone, which is why the worker drops its user before it
 * makes any other. */
static enum tg_rc set_caps(uint32_t low, struct tg_err *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {
        {.effective = low, .permitted = low},
        { 0,               0,                0}
    };

    if (syscall(SYS_capset, &head, data) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't give up capabilities");
    return TG_OK;
}

/* What must stay: CAP_IPC_LOCK, if we have it and the limit is not already out of the way. */
static enum tg_rc caps_to_keep(uint32_t *low, struct tg_err *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {
        {0, 0, 0},
        {0, 0, 0}
    };
    struct rlimit lim = {0, 0};

    if (syscall(SYS_capget, &head, data) != 0 || getrlimit(RLIMIT_MEMLOCK, &lim) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't read capabilities or limits");
    *low = lim.rlim_cur == RLIM_INFINITY ? 0 : data[0].permitted & CAP_BIT(CAP_IPC_LOCK);
    return TG_OK;
}

static bool hex_number(const char *text, size_t *at, uintptr_t *out)
{
    static const char digits[] = "0123456789abcdef";
    uintptr_t v = 0;
    const char *d;

    for (; text[*at] != '\0' && (d = strchr(digits, text[*at])) != NULL; (*at)++)
        v = v << 4 | (uintptr_t)(d - digits);
    *out = v;
    return text[*at] == '-' || text[*at] == ' ';
}

/* One line of /proc/self/maps: "from-to rw-p ...". */
static bool writable_range(const char *line, uintptr_t *from, uintptr_t *to)
{
    size_t at = 0;

    if (!hex_number(line, &at, from) || line[at++] != '-' || !hex_number(line, &at, to))
        return false;
    return line[at] == ' ' && line[at + 1] != '\0' && line[at + 2] == 'w';
}

/* What is there already: data of programs and libraries, the first stack. The region locks itself,
 * and the addresses that it only reserves must not count. */
static bool lock_present(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    bool ok = f != NULL;

    while (ok && fgets(line, sizeof(line), f) != NULL) {
        uintptr_t from, to;
        void *p;

        if (!writable_range(line, &from, &to))
            continue;
        memcpy(&p, &from, sizeof(p));
        if (!tg_region_has(p))
            ok = mlock2(p, to - from, MLOCK_ONFAULT) == 0;
    }
    if (f != NULL)
        (void)fclose(f);
    return ok;
}

bool tg_sandbox_lock_all(void)
{
    struct tg_err err;
    struct rlimit lim = {0, 0};
    uint32_t low = 0;

    if (getrlimit(RLIMIT_MEMLOCK, &lim) != 0 || caps_to_keep(&low, &err) != TG_OK)
        return false;
    if (lim.rlim_cur != RLIM_INFINITY && (low & CAP_BIT(CAP_IPC_LOCK)) == 0)
        return false;
    return mlockall(MCL_FUTURE | MCL_ONFAULT) == 0 && lock_present();
}

static enum tg_rc become(const char *user, struct tg_err *err)
{
    struct passwd pw, *found = NULL;
    char buf[4096];
    int e = getpwnam_r(user, &pw, buf, sizeof(buf), &found);

    if (found == NULL) {
        errno = e;
        return e != 0
                   ? TG_FAIL_ERRNO(err, TG_E_IO, "--user %s", user)
                   : TG_FAIL(err, TG_E_NOTFOUND, "--user %s: no such user on this machine", user);
    }
    if (pw.pw_uid == 0)
        return TG_FAIL(err, TG_E_DENIED, "--user %s is root: a worker must not be", user);
    if (geteuid() == pw.pw_uid && getuid() == pw.pw_uid)
        return TG_OK;
    if (geteuid() != 0)
        return TG_FAIL(err, TG_E_DENIED, "--user %s: only root can change users (this is uid %u)",
                       user, (unsigned)geteuid());
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || setgroups(0, NULL) != 0 ||
        setresgid(pw.pw_gid, pw.pw_gid, pw.pw_gid) != 0 ||
        setresuid(pw.pw_uid, pw.pw_uid, pw.pw_uid) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't become user %s", user);
    return TG_OK;
}

enum tg_rc tg_sandbox_drop_user(const char *user, struct tg_err *err)
{
    uint32_t low = 0;

    TG_TRY(caps_to_keep(&low, err));
    if (user != NULL)
        TG_TRY(become(user, err));
    TG_TRY(set_caps(low, err));
    if (user != NULL && (setuid(0) == 0 || getuid() == 0 || geteuid() == 0))
        return TG_FAIL(err, TG_E_IO, "could become root again after becoming %s", user);
    /* A change of user resets this. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make the process undumpable");
    return TG_OK;
}
