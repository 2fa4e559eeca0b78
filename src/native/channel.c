#include "native/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
};

static enum tg_rc broke(struct tg_err *err)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
        return TG_FAIL(err, TG_E_AGAIN, "native socket: not ready");
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
        return TG_FAIL(err, TG_E_CLOSED, "native socket: the other side is gone");
    return TG_FAIL_ERRNO(err, TG_E_IO, "native socket");
}

enum tg_rc tg_channel_send(int sock, struct tg_bytes bytes, int fd, struct tg_err *err)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    union control c;
    ssize_t n;

    if (fd >= 0) {
        memset(&c, 0, sizeof(c));
        m.msg_control = c.room;
        m.msg_controllen = sizeof(c.room);
        c.align.cmsg_level = SOL_SOCKET;
        c.align.cmsg_type = SCM_RIGHTS;
        c.align.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&c.align), &fd, sizeof(fd));
    }
    do
        n = sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? broke(err) : TG_OK;
}

/* The descriptor that came along; -1 where there is none. */
static int take_fd(const struct msghdr *m, const union control *c)
{
    int fd = -1;

    if (m->msg_controllen >= CMSG_LEN(sizeof(int)) && c->align.cmsg_level == SOL_SOCKET &&
        c->align.cmsg_type == SCM_RIGHTS && c->align.cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(&c->align), sizeof(fd));
    return fd;
}

enum tg_rc tg_channel_recv(int sock, void *at, size_t cap, size_t *n, int *fd, struct tg_err *err)
{
    struct iovec part = {.iov_base = at, .iov_len = cap};
    union control c;
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = c.room,
                       .msg_controllen = fd != NULL ? sizeof(c.room) : 0};
    ssize_t got;
    int came;

    memset(&c, 0, sizeof(c));
    do
        got = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return broke(err);
    came = take_fd(&m, &c);
    if (got == 0 || (m.msg_flags & (MSG_TRUNC | (fd != NULL ? MSG_CTRUNC : 0))) != 0) {
        if (came >= 0)
            (void)close(came);
        return got == 0 ? TG_FAIL(err, TG_E_CLOSED, "native socket: the other side is gone")
                        : TG_FAIL(err, TG_E_FORMAT, "native socket: a message too long");
    }
    *n = (size_t)got;
    if (fd != NULL)
        *fd = came;
    return TG_OK;
}
