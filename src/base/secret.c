#include "base/secret.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "base/region.h"

struct tg_secret {
    uint8_t *map;    /* guard page, data, guard page */
    size_t map_size; /* all of it */
    uint8_t *data;
    bool region;   /* map is a piece of the protected region */
    size_t size;   /* as asked */
    size_t locked; /* rounded up to pages */
};

static enum tg_rc lock_refused(struct tg_err *err, size_t need, int errnum)
{
    struct rlimit lim = {0, 0};

    (void)getrlimit(RLIMIT_MEMLOCK, &lim);
    tg_err_errno(err, TG_E_NOMEM, errnum,
                 "can't lock %zu bytes of memory (RLIMIT_MEMLOCK is %" PRIu64
                 " bytes); raise LimitMEMLOCK= in the service unit or `ulimit -l`, or grant "
                 "CAP_IPC_LOCK",
                 need, (uint64_t)lim.rlim_cur);
    return TG_E_NOMEM;
}

/* The protected region does all this by itself. Where it could not be locked (and its process
 * goes on nevertheless), this piece is, if it fits into the limit. */
static enum tg_rc take_piece(struct tg_secret *s, size_t page, struct tg_err *err)
{
    s->map = tg_region_take(s->map_size, page);
    if (s->map == NULL)
        return tg_region_why(s->map_size, err);
    s->region = true;
    s->data = s->map + page;
    if (mprotect(s->map, page, PROT_NONE) != 0 ||
        mprotect(s->data + s->locked, page, PROT_NONE) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't protect %zu bytes of memory", s->locked);
    if (tg_region_level() == TG_LEVEL_NONE)
        (void)mlock2(s->data, s->locked, 0);
    return TG_OK;
}

static enum tg_rc map_fresh(struct tg_secret *s, size_t page, struct tg_err *err)
{
    s->map = mmap(NULL, s->map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't map %zu bytes of memory", s->map_size);
    }
    s->data = s->map + page;
    if (mprotect(s->data, s->locked, PROT_READ | PROT_WRITE) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't make %zu bytes of memory writable", s->locked);
    /* Before anything is written there: out of core dumps, and zero in a forked child. */
    if (madvise(s->data, s->locked, MADV_DONTDUMP) != 0 ||
        madvise(s->data, s->locked, MADV_WIPEONFORK) != 0)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't protect %zu bytes of memory", s->locked);
    /* mlock2 rather than mlock: sanitizers turn the latter into a no-op. */
    if (mlock2(s->data, s->locked, 0) != 0)
        return lock_refused(err, s->locked, errno);
    return TG_OK;
}

enum tg_rc tg_secret_new(size_t n, struct tg_secret **out, struct tg_err *err)
{
    TG_AUTO(tg_secret_freep) struct tg_secret *s = NULL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t rounded;

    if (n == 0 || !tg_add_size(n, page - 1, &rounded))
        return TG_FAIL(err, TG_E_LIMIT, "can't map %zu bytes of locked memory", n);
    s = tg_calloc(1, sizeof(*s));
    if (s == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    s->size = n;
    s->locked = rounded / page * page;
    if (!tg_add_size(s->locked, 2 * page, &s->map_size))
        return TG_FAIL(err, TG_E_LIMIT, "can't map %zu bytes of locked memory", n);
    TG_TRY(tg_region_is_open() ? take_piece(s, page, err) : map_fresh(s, page, err));
    *out = tg_steal(&s);
    return TG_OK;
}

uint8_t *tg_secret_data(struct tg_secret *s)
{
    return s->data;
}

size_t tg_secret_size(const struct tg_secret *s)
{
    return s->size;
}

enum tg_rc tg_secret_seal(struct tg_secret *s, struct tg_err *err)
{
    if (mprotect(s->data, s->locked, PROT_READ) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make locked memory read-only");
    return TG_OK;
}

enum tg_rc tg_secret_trim(struct tg_secret *s, size_t keep, struct tg_err *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t left;
    uint8_t *end;

    if (keep == 0 || keep >= s->locked || !tg_add_size(keep, page - 1, &left))
        return TG_OK;
    left = left / page * page;
    end = s->data + left;
    if (left == s->locked)
        return TG_OK;
    if (mprotect(end, s->locked - left + (s->region ? page : 0), PROT_READ | PROT_WRITE) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "can't make locked memory writable");
    if (s->region) {
        s->map_size = left + 2 * page;
        tg_wipe(end, page); /* the guard moves up; what lies above it, cutting overwrites */
        tg_region_cut(s->map, s->map_size);
        (void)mprotect(end, page, PROT_NONE);
    } else {
        tg_wipe(end, s->locked - left);
        (void)syscall(SYS_munlock, end, s->locked - left); /* see mlock2 above */
        (void)madvise(end, s->locked - left, MADV_DONTNEED);
        (void)mprotect(end, s->locked - left, PROT_NONE); /* all of it is guard now */
    }
    s->locked = left;
    s->size = keep;
    return TG_OK;
}

void tg_secret_free(struct tg_secret *s)
{
    if (s == NULL)
        return;
    if (s->map != NULL && s->region) {
        if (mprotect(s->map, s->map_size, PROT_READ | PROT_WRITE) == 0)
            tg_region_give(s->map);
    } else if (s->map != NULL) {
        /* A sealed region must become writable to be wiped. The kernel gives no page back before
         * the wipe: they are locked. */
        if (s->data != NULL && mprotect(s->data, s->locked, PROT_READ | PROT_WRITE) == 0)
            tg_wipe(s->data, s->locked);
        (void)munmap(s->map, s->map_size);
    }
    tg_free(s);
}
