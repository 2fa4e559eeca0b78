/* fstat and its kin for the whole process: by the system call of that name.
 *
 * The C library (glibc 2.33 to 2.38) asks newfstatat with AT_EMPTY_PATH instead. That flag does not
 * make the kernel ignore a path which is not empty, a seccomp list cannot see the path, and
 * Landlock does not govern looking at a file: who owns the worker would learn of any file whether
 * it is there, its size and its times. So that call is not on the lists (sandbox_seccomp.c), and
 * whoever asks for a descriptor's facts comes by here. stdio, inside the C library, does not; it is
 * told that there is no such call and takes its usual buffer. */
#undef _FILE_OFFSET_BITS /* both names, by themselves */
#define _LARGEFILE64_SOURCE
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One structure under both names, and the kernel's: only 32-bit machines tell them apart. */
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "a 64-bit machine");

/* What programs called that were linked with glibc before 2.33, as ONNX Runtime's own build is. */
int __fxstat(int version, int fd, struct stat *st);
int __fxstat64(int version, int fd, struct stat64 *st);

#ifndef TG_SANITIZED /* no list there, and the sanitizers look at what is read */

int fstat(int fd, struct stat *st)
{
    return (int)syscall(SYS_fstat, fd, st);
}

int fstat64(int fd, struct stat64 *st)
{
    return (int)syscall(SYS_fstat, fd, st);
}

int __fxstat(int version, int fd, struct stat *st)
{
    (void)version;
    return fstat(fd, st);
}

int __fxstat64(int version, int fd, struct stat64 *st)
{
    (void)version;
    return fstat64(fd, st);
}

#endif
