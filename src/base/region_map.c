#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/region_internal.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447 /* one number on all architectures; the C library has no wrapper */
#endif

#define RESERVE_LEAST ((size_t)64 << 20)

static uint8_t *reserve_once(size_t n, size_t align)
{
    size_t more = n + align;
    uint8_t *at = mmap(NULL, more, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t skip;

    if (at == MAP_FAILED)
        return NULL;
    (void)madvise(at, more, MADV_DONTDUMP); /* or a core dump holds all these addresses, as zeros */
    skip = (align - (uintptr_t)at % align) % align;
    if (skip > 0)
        (void)munmap(at, skip);
    if (skip < align)
        (void)munmap(at + skip + n, align - skip);
    return at + skip;
}

uint8_t *tg_region_reserve(size_t max, size_t align, size_t *size)
{
    for (size_t n = max / TG_REGION_SEGMENT * TG_REGION_SEGMENT; n >= RESERVE_LEAST;
         n = n / 2 / TG_REGION_SEGMENT * TG_REGION_SEGMENT) {
        uint8_t *p = reserve_once(n, align);

        if (p == NULL)
            continue;
        *size = n;
        return p;
    }
    errno = ENOMEM;
    return NULL;
}

void *tg_region_table(size_t n)
{
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int tg_region_unmap(uint8_t *p, size_t n)
{
    void *at =
        mmap(p, n, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return errno;
    (void)madvise(p, n, MADV_DONTDUMP);
    (void)munlock(p, n); /* where all new memory is locked: these addresses hold none */
    return 0;
}

/* Memory of a memfd_secret can only be given back by closing the whole of it: so each segment is
 * one, and its descriptor is closed at once (the mapping keeps it). The kernel locks it and leaves
 * it out of core dumps by itself. */
static int map_secret(uint8_t *p)
{
    int fd = (int)syscall(SYS_memfd_secret, (unsigned)O_CLOEXEC);
    void *at = MAP_FAILED;
    int e;

    if (fd < 0)
        return errno;
    if (ftruncate(fd, (off_t)TG_REGION_SEGMENT) == 0)
        at = mmap(p, TG_REGION_SEGMENT, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, fd, 0);
    e = at == MAP_FAILED ? errno : 0;
    (void)close(fd);
    if (e == 0 && madvise(p, TG_REGION_SEGMENT, MADV_DONTFORK) != 0)
        e = errno;
    return e;
}

static int map_anonymous(uint8_t *p, size_t n, bool lock, bool huge)
{
    void *at = mmap(p, n, PROT_READ | PROT_WRITE,
                    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return errno;
    if (madvise(p, n, MADV_DONTDUMP) != 0 || madvise(p, n, MADV_WIPEONFORK) != 0)
        return errno;
    if (huge) /* a wish */
        (void)madvise(p, n, MADV_HUGEPAGE);
    /* mlock2 rather than mlock: sanitizers turn the latter into a no-op. On fault: what is not used
     * costs nothing. */
    return lock && mlock2(p, n, MLOCK_ONFAULT) != 0 ? errno : 0;
}

int tg_region_map(uint8_t *p, size_t n, enum tg_level level, bool huge)
{
    int e = 0;

    if (level == TG_LEVEL_SECRET)
        for (size_t at = 0; e == 0 && at < n; at += TG_REGION_SEGMENT)
            e = map_secret(p + at);
    else
        e = map_anonymous(p, n, level == TG_LEVEL_LOCKED, huge);
    if (e != 0)
        (void)tg_region_unmap(p, n);
    return e;
}

/* ---- words ---- */

enum tg_rc tg_region_remedy(enum tg_level level, int errnum, size_t need, struct tg_err *err)
{
    struct rlimit lim = {0, 0};

    if (level == TG_LEVEL_SECRET && (errnum == ENOSYS || errnum == ENODEV))
        return TG_FAIL(err, TG_E_UNSUPPORTED,
                       "this kernel offers no memfd_secret: boot with secretmem.enable=1 (Linux "
                       "5.14 or newer with CONFIG_SECRETMEM), or ask for less: --protection "
                       "locked");
    (void)getrlimit(RLIMIT_MEMLOCK, &lim);
    if (level != TG_LEVEL_NONE && lim.rlim_cur != RLIM_INFINITY &&
        (errnum == ENOMEM || errnum == EAGAIN || errnum == EPERM)) {
        tg_err_errno(err, TG_E_NOMEM, errnum,
                     "can't lock %zu bytes of memory (RLIMIT_MEMLOCK is %" PRIu64
                     " bytes); raise LimitMEMLOCK= in the service unit (infinity) or `ulimit -l` "
                     "(unlimited), or grant CAP_IPC_LOCK",
                     need, (uint64_t)lim.rlim_cur);
        return TG_E_NOMEM;
    }
    tg_err_errno(err, TG_E_NOMEM, errnum, "can't have %zu bytes of memory (protection: %s)", need,
                 tg_level_name(level));
    return TG_E_NOMEM;
}
