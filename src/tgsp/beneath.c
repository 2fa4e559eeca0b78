#include "tgsp/beneath_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "tgsp/format.h"

/* For kernels and sandboxes without openat2. */
int tg_open_beneath_walk(int dirfd, const char *path, int flags, mode_t mode)
{
    char name[TG_TGSP_SEGMENT_MAX + 1];
    TG_AUTO(tg_fd_closep) int at = -1;
    for (;;) {
        size_t n = strcspn(path, "/");
        if (n == 0 || n >= sizeof name) {
            errno = n ? ENAMETOOLONG : EINVAL;
            return -1;
        }
        memcpy(name, path, n);
        name[n] = '\0';
        if (strcmp(name, "..") == 0 || strcmp(name, ".") == 0) {
            errno = EXDEV;
            return -1;
        }
        if (path[n] == '\0')
            return openat(at < 0 ? dirfd : at, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
        int next = openat(at < 0 ? dirfd : at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return -1;
        tg_fd_close(at);
        at = next;
        path += n + 1;
    }
}

int tg_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned)(flags | O_CLOEXEC),
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return (int)fd;
    return tg_open_beneath_walk(dirfd, path, flags, mode);
}
