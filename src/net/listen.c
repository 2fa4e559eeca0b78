#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "net/http_server.h"

#define BACKLOG 512

union address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

static TG_RC address_parse(const char *text, uint16_t port, union address *out, socklen_t *n,
                           struct tg_err *err)
{
    *out = (union address){.in6 = {0}};
    if (text != NULL && inet_pton(AF_INET, text, &out->in.sin_addr) == 1) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(port);
        *n = sizeof(out->in);
        return TG_OK;
    }
    if (text != NULL && inet_pton(AF_INET6, text, &out->in6.sin6_addr) == 1) {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(port);
        *n = sizeof(out->in6);
        return TG_OK;
    }
    return TG_FAIL(err, TG_E_USAGE, "listen address %s: not a numeric IPv4 or IPv6 address",
                   text != NULL ? text : "(none)");
}

static uint16_t bound_port(int fd)
{
    union address a = {.in6 = {0}};
    socklen_t n = sizeof(a);

    if (getsockname(fd, &a.sa, &n) != 0)
        return 0;
    return ntohs(a.sa.sa_family == AF_INET6 ? a.in6.sin6_port : a.in.sin_port);
}

TG_RC tg_listen_tcp(const char *address, uint16_t port, int *fd_out, uint16_t *port_out,
                    struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = -1;
    union address a;
    socklen_t n;
    int one = 1;

    TG_TRY(address_parse(address, port, &a, &n, err));
    fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "listen on %s: no socket", address);
    /* A restarted server need not wait for the old one's TIME_WAIT connections; and no answer waits
     * for the acknowledgement of its own head (accepted sockets inherit TCP_NODELAY). */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        bind(fd, &a.sa, n) != 0 || listen(fd, BACKLOG) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "listen on %s port %u", address, port);
    if (port_out != NULL)
        *port_out = bound_port(fd);
    *fd_out = fd;
    fd = -1;
    return TG_OK;
}

/* Make room at path: only a socket that nobody listens on is removed. */
static TG_RC stale_remove(const char *path, const union address *a, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = -1;
    struct stat st;

    if (lstat(path, &st) != 0) {
        if (errno == ENOENT)
            return TG_OK;
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s", path);
    }
    if (!S_ISSOCK(st.st_mode))
        return TG_FAIL(err, TG_E_EXISTS, "socket %s: something else is there", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s", path);
    if (connect(fd, &a->sa, sizeof(a->un)) == 0 || errno == EAGAIN)
        return TG_FAIL(err, TG_E_EXISTS, "socket %s: another process listens there", path);
    if (errno != ECONNREFUSED)
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s", path);
    if (unlink(path) != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s: the stale one cannot be removed", path);
    return TG_OK;
}

TG_RC tg_listen_unix(const struct tg_unix_opts *o, int *fd_out, struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int fd = -1;
    union address a = {.un = {.sun_family = AF_UNIX}};
    int bound;
    mode_t mask;

    if (o->path == NULL || o->path[0] == '\0' || strlen(o->path) >= sizeof(a.un.sun_path))
        return TG_FAIL(err, TG_E_USAGE, "socket path: expected 1 to %zu bytes",
                       sizeof(a.un.sun_path) - 1);
    (void)snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s", o->path);
    TG_TRY(stale_remove(o->path, &a, err));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s", o->path);
    /* Closed to all until owner and mode are right: there is no moment at which it is too open. */
    mask = umask(0777);
    bound = bind(fd, &a.sa, sizeof(a.un));
    (void)umask(mask);
    if (bound != 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s", o->path);
    if ((o->gid >= 0 && chown(o->path, (uid_t)-1, (gid_t)o->gid) != 0) ||
        chmod(o->path, (mode_t)o->mode) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;

        (void)unlink(o->path);
        errno = saved;
        return TG_FAIL_ERRNO(err, TG_E_IO, "socket %s: mode or group cannot be set", o->path);
    }
    *fd_out = fd;
    fd = -1;
    return TG_OK;
}
