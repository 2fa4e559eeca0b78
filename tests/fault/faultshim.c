/* An LD_PRELOAD library that makes one call of a kind fail, in a program as it was built.
 *
 *     TG_FAULT=KIND:N:ERRNO     the N-th call of the kind fails with ERRNO (a number); N = 0: none
 * does TG_FAULT_COUNTS=FILE      at the end, "KIND CALLS" lines
 *
 * Kinds: alloc (by any library), own (allocations called for by the program itself), read, write,
 * mmap, mlock, fsync, rename, open, make (mkdir, ftruncate). What the C library calls within itself
 * is not seen. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { ALLOC, OWN, READ, WRITE, MMAP, MLOCK, FSYNC, RENAME, OPEN, MAKE, KINDS };

static const char *const names[KINDS] = {"alloc", "own",   "read",   "write", "mmap",
                                         "mlock", "fsync", "rename", "open",  "make"};
static _Atomic uint64_t calls[KINDS];
static enum kind fault_kind = KINDS;
static uint64_t fault_at;
static int fault_errno;
static const char *counts_path;
static bool ready; /* set before main, when there is one thread */
static uintptr_t program_from, program_to;

static int program_range(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        uintptr_t from = (uintptr_t)info->dlpi_addr + (uintptr_t)h->p_vaddr;
        if (h->p_type == PT_LOAD && (h->p_flags & PF_X) != 0) {
            program_from = from;
            program_to = from + (uintptr_t)h->p_memsz;
        }
    }
    return 1; /* the first is the program */
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("TG_FAULT");
    counts_path = getenv("TG_FAULT_COUNTS");
    (void)dl_iterate_phdr(program_range, NULL);
    for (int k = 0; text && k < KINDS; k++) {
        size_t n = strlen(names[k]);
        char *rest;
        if (strncmp(text, names[k], n) == 0 && text[n] == ':') {
            fault_kind = (enum kind)k;
            fault_at = strtoull(text + n + 1, &rest, 10);
            fault_errno = *rest == ':' ? (int)strtol(rest + 1, NULL, 10) : EIO;
        }
    }
    ready = true;
}

__attribute__((destructor)) static void end(void)
{
    char text[512];
    size_t n = 0;
    ready = false;
    if (!counts_path)
        return;
    for (int k = 0; k < KINDS; k++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %llu\n", names[k],
                              (unsigned long long)calls[k]);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, counts_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, text, n) != (long)n)
        abort();
}

/* Is this the call that fails? */
static bool fails(enum kind k)
{
    if (!ready || atomic_fetch_add(&calls[k], 1) + 1 != fault_at || k != fault_kind)
        return false;
    errno = fault_errno;
    return true;
}

static bool alloc_fails(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    bool own = at >= program_from && at < program_to && fails(OWN);
    return fails(ALLOC) || own;
}

/* ---- memory: glibc's own names for the functions behind ---- */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

/* ---- the system: straight to the kernel, by the calls that every architecture has ---- */

ssize_t read(int fd, void *p, size_t n)
{
    return fails(READ) ? -1 : syscall(SYS_read, fd, p, n);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t off)
{
    return fails(READ) ? -1 : syscall(SYS_pread64, fd, p, n, off);
}

ssize_t pread(int fd, void *p, size_t n, off_t off)
{
    return pread64(fd, p, n, off);
}

/* What goes to the terminal is not a file being written. */
ssize_t write(int fd, const void *p, size_t n)
{
    return fd > 2 && fails(WRITE) ? -1 : syscall(SYS_write, fd, p, n);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t off)
{
    return fails(WRITE) ? -1 : syscall(SYS_pwrite64, fd, p, n, off);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
    return pwrite64(fd, p, n, off);
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t off)
{
    return (void *)(fails(MMAP) ? -1 : syscall(SYS_mmap, at, n, prot, flags, fd, off));
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    return mmap64(at, n, prot, flags, fd, off);
}

int mlock(const void *p, size_t n)
{
    return fails(MLOCK) ? -1 : (int)syscall(SYS_mlock, p, n);
}

int mlock2(const void *p, size_t n, unsigned flags)
{
    return fails(MLOCK) ? -1 : (int)syscall(SYS_mlock2, p, n, flags);
}

int fsync(int fd)
{
    return fails(FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails(FSYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    return fails(RENAME) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    return fails(RENAME) ? -1 : (int)syscall(SYS_renameat2, a, from, b, to, flags);
}

int openat64(int dir, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    return fails(OPEN) ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    return openat64(AT_FDCWD, path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return fails(MAKE) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    return fails(MAKE) ? -1 : (int)syscall(SYS_mkdirat, dir, path, mode);
}

int ftruncate64(int fd, off64_t n)
{
    return fails(MAKE) ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}
