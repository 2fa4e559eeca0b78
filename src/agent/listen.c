#include "agent/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"

#define BACKLOG 128

TG_RC tg_group_find(const char *name, gid_t *gid, struct tg_err *err)
{
    struct group g, *found = NULL;
    char buf[16384];
    int e = getgrnam_r(name, &g, buf, sizeof buf, &found);
    if (e) {
        errno = e;
        return TG_FAIL_ERRNO(err, TG_E_IO, "group '%s'", name);
    }
    if (!found)
        return TG_FAIL(err, TG_E_NOTFOUND, "group '%s': no such group on this machine", name);
    *gid = g.gr_gid;
    return TG_OK;
}

static TG_RC clear_path(const char *path, struct tg_err *err)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        if (errno == ENOENT)
            return TG_OK;
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    }
    if (!S_ISSOCK(st.st_mode))
        return TG_FAIL(err, TG_E_EXISTS, "%s: is there already and is no socket", path);
    if (unlink(path) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: cannot replace the old socket", path);
    return TG_OK;
}

static TG_RC listen_unix(const char *path, const char *group, int type, int *fd, struct tg_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return TG_FAIL(err, TG_E_LIMIT, "%s: a socket's path has at most %zu bytes", path,
                       sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    gid_t gid = (gid_t)-1;
    if (group && *group)
        TG_TRY(tg_group_find(group, &gid, err));
    TG_TRY(clear_path(path, err));
    TG_AUTO(tg_fd_closep) int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: socket", path);
    mode_t old = umask(0777); /* nobody connects before mode and group are right */
    int bound = bind(s, (const struct sockaddr *)&a, sizeof a);
    int e = errno;
    (void)umask(old);
    errno = e;
    if (bound != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: cannot listen there", path);
    if (gid != (gid_t)-1 && chown(path, (uid_t)-1, gid) != 0)
        return TG_FAIL_ERRNO(err, TG_E_DENIED, "%s: cannot give it to group '%s'", path, group);
    if (chmod(path, 0660) != 0 || listen(s, BACKLOG) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s", path);
    *fd = s;
    s = -1;
    return TG_OK;
}

TG_RC tg_listen_unix(const char *path, const char *group, int *fd, struct tg_err *err)
{
    return listen_unix(path, group, SOCK_STREAM, fd, err);
}

TG_RC tg_listen_native(const char *path, const char *group, int *fd, struct tg_err *err)
{
    return listen_unix(path, group, SOCK_SEQPACKET, fd, err);
}

TG_RC tg_listen_loopback(uint16_t port, int *fd, uint16_t *port_out, struct tg_err *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    TG_AUTO(tg_fd_closep) int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "127.0.0.1:%u: socket", port);
    socklen_t n = sizeof a;
    if (bind(s, (const struct sockaddr *)&a, sizeof a) != 0 || listen(s, BACKLOG) != 0 ||
        getsockname(s, (struct sockaddr *)&a, &n) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "127.0.0.1:%u: cannot listen there", port);
    *port_out = ntohs(a.sin_port);
    *fd = s;
    s = -1;
    return TG_OK;
}

TG_RC tg_memfd(const char *name, const void *p, size_t n, int *fd, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int f = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (f < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: memfd", name);
    TG_TRY(tg_fd_pwrite(f, name, p, n, 0, err));
    if (fcntl(f, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: seal", name);
    *fd = f;
    f = -1;
    return TG_OK;
}
