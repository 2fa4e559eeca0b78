#include "failing.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

const struct kind_facts kinds[KINDS] = {
    [ALLOC] = {"allocation",                  CAN(TG_E_NOMEM),                0     },
    [ALLOC_ON] = {"allocation and all after it", CAN(TG_E_NOMEM),                0     },
    [READ] = {"read",                        CAN(TG_E_IO),                   EIO   },
    [WRITE] = {"write",                       0,                              ENOSPC}, /* of bakes only */
    [WRITE_KEPT] = {"write, kept",                 0,                              ENOSPC},
    [MMAP] = {"mmap",                        CAN(TG_E_NOMEM),                ENOMEM},
    [MLOCK] = {"mlock2",                      CAN(TG_E_NOMEM),                ENOMEM},
 /* writable: NOMEM; read-only, which needs none: IO */
    [MPROTECT] = {"mprotect",                    CAN(TG_E_NOMEM) | CAN(TG_E_IO), ENOMEM},
    [MADVISE] = {"madvise",                     CAN(TG_E_NOMEM),                EINVAL},
    [PIPE_READ] = {"read of the pipe",            0,                              EIO   },
    [THREAD] = {"pthread_create",              0,                              EAGAIN}, /* slower, or unbaked */
};

static _Atomic uint64_t calls[KINDS], fail_at[KINDS];
static _Atomic bool uncut; /* ftruncate fails */

static bool fails(enum kind k)
{
    if (++calls[k] != fail_at[k])
        return false;
    errno = kinds[k].errnum;
    return true;
}

void *__real_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_mlock2(const void *p, size_t n, unsigned flags);
int __wrap_mlock2(const void *p, size_t n, unsigned flags);
int __real_mprotect(void *p, size_t n, int prot);
int __wrap_mprotect(void *p, size_t n, int prot);
int __real_madvise(void *p, size_t n, int advice);
int __wrap_madvise(void *p, size_t n, int advice);
ssize_t __real_read(int fd, void *p, size_t n);
ssize_t __wrap_read(int fd, void *p, size_t n);
int __real_ftruncate64(int fd, off_t n);
int __wrap_ftruncate64(int fd, off_t n);
int __real_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*fn)(void *), void *arg);

void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    return fails(MMAP) ? MAP_FAILED : __real_mmap64(at, n, prot, flags, fd, off);
}

int __wrap_mlock2(const void *p, size_t n, unsigned flags)
{
    return fails(MLOCK) ? -1 : __real_mlock2(p, n, flags);
}

int __wrap_mprotect(void *p, size_t n, int prot)
{
    return fails(MPROTECT) ? -1 : __real_mprotect(p, n, prot);
}

int __wrap_madvise(void *p, size_t n, int advice)
{
    return fails(MADVISE) ? -1 : __real_madvise(p, n, advice);
}

ssize_t __wrap_read(int fd, void *p, size_t n)
{
    return fails(PIPE_READ) ? -1 : __real_read(fd, p, n);
}

int __wrap_ftruncate64(int fd, off_t n)
{
    errno = EIO;
    return uncut ? -1 : __real_ftruncate64(fd, n);
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    return fails(THREAD) ? EAGAIN : __real_pthread_create(id, a, fn, arg);
}

void arm(enum kind k, uint64_t i)
{
    calls[k] = 0;
    fail_at[k] = i;
    uncut = k == WRITE_KEPT && i != 0;
    if (k == ALLOC || k == ALLOC_ON)
        tg_mem_fault_set(i, k == ALLOC_ON);
    else if (k == READ)
        tg_io_fault_set(TG_IO_READ, i, EIO);
    else if (k == WRITE || k == WRITE_KEPT)
        tg_io_fault_set(TG_IO_WRITE, i, ENOSPC);
}

uint64_t counted(enum kind k)
{
    if (k == ALLOC || k == ALLOC_ON)
        return tg_mem_fault_count();
    if (k == READ)
        return tg_io_fault_count(TG_IO_READ);
    if (k == WRITE || k == WRITE_KEPT)
        return tg_io_fault_count(TG_IO_WRITE);
    return calls[k];
}
