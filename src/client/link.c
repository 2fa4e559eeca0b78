/* One connection to one worker. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "client/client_internal.h"
#include "native/channel.h"

enum tg_rc tg_link_open(const char *path, struct tg_link **out, struct tg_err *err)
{
    TG_AUTO(tg_link_dropp) struct tg_link *l = tg_calloc(1, sizeof(*l));
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (l == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    l->holders = 1;
    memcpy(at.sun_path, path, strlen(path) + 1);
    l->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->sock < 0)
        return TG_FAIL_ERRNO(err, TG_E_IO, "%s: socket", path);
    if (connect(l->sock, (const struct sockaddr *)&at, sizeof(at)) != 0)
        return TG_FAIL_ERRNO(err, errno == EAGAIN ? TG_E_AGAIN : TG_E_IO, "%s", path);
    *out = tg_steal(&l);
    return TG_OK;
}

void tg_link_drop(struct tg_link *l)
{
    if (l == NULL || --l->holders > 0)
        return;
    if (l->map != NULL)
        (void)munmap(l->map, (size_t)l->layout.map_size);
    tg_fd_close(l->sock);
    tg_free(l);
}

enum tg_rc tg_link_send(struct tg_link *l, union tg_native_msg *m, struct tg_err *err)
{
    enum tg_rc rc = tg_channel_send(l->sock, tg_native_seal(m), -1, err);

    if (rc == TG_E_CLOSED)
        l->dead = true;
    return rc;
}

/* Sleep until something comes or `until` (monotonic). */
static bool readable(const struct tg_link *l, uint64_t until)
{
    struct pollfd p = {.fd = l->sock, .events = POLLIN};
    uint64_t now = tg_clock_mono_ns();
    uint64_t ms = now >= until ? 0 : (until - now + 999999) / 1000000;

    return poll(&p, 1, ms > 60000 ? 60000 : (int)ms) > 0;
}

static enum tg_rc refused(const struct tg_native_refused *r, struct tg_err *err)
{
    return TG_FAIL(err, (enum tg_rc)r->code, "%s", r->reason);
}

enum tg_rc tg_link_receive(struct tg_link *l, enum tg_native_type want, uint64_t wait_ns,
                           union tg_native_msg *m, int *fd, struct tg_err *err)
{
    TG_AUTO(tg_freep) uint8_t *raw = tg_alloc(TG_NATIVE_MSG_MAX);
    TG_AUTO(tg_fd_closep) int came = -1;
    uint64_t until = tg_clock_mono_ns() + wait_ns;
    size_t n = 0;
    enum tg_rc rc;

    if (raw == NULL)
        return TG_FAIL(err, TG_E_NOMEM, "out of memory");
    while ((rc = tg_channel_recv(l->sock, raw, TG_NATIVE_MSG_MAX, &n, &came, err)) == TG_E_AGAIN) {
        if (tg_clock_mono_ns() >= until)
            break;
        (void)readable(l, until);
    }
    if (rc == TG_E_AGAIN && wait_ns > 0)
        return TG_FAIL(err, TG_E_TIMEOUT, "the worker gives no answer");
    if (rc != TG_OK && rc != TG_E_AGAIN)
        l->dead = true;
    TG_TRY(rc);
    TG_TRY(tg_native_parse(tg_bytes_make(raw, n), TG_NATIVE_WORKER, m, err));
    if (m->head.type == TG_NATIVE_REFUSED)
        return refused(&m->refused, err);
    if (m->head.type != (uint32_t)want || (fd == NULL) != (came < 0))
        return TG_FAIL(err, TG_E_FORMAT, "the worker's answer is not one to what was asked");
    if (fd != NULL) {
        *fd = came;
        came = -1;
    }
    return TG_OK;
}

/* It must be what the worker says it is: a file whose size can't change under us. */
static enum tg_rc check_map(int fd, uint64_t size, struct tg_err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != size || seals < 0 ||
        (seals & F_SEAL_SHRINK) == 0)
        return TG_FAIL(err, TG_E_FORMAT, "the shared memory is not as it should be");
    return TG_OK;
}

enum tg_rc tg_link_map(struct tg_link *l, const struct tg_options *o, uint64_t size, int fd,
                       struct tg_err *err)
{
    TG_AUTO(tg_fd_closep) int own = fd;
    void *p;

    if (size != l->layout.map_size)
        return TG_FAIL(err, TG_E_FORMAT, "the shared memory has another size than was asked for");
    TG_TRY(check_map(own, size, err));
    /* Every page now, so that none comes as a surprise to a loop later. */
    p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, own, 0);
    if (p == MAP_FAILED)
        return TG_FAIL_ERRNO(err, TG_E_NOMEM, "can't map %llu bytes of shared memory",
                             (unsigned long long)size);
    l->map = p;
    l->shared = p;
    (void)madvise(p, (size_t)size, MADV_DONTFORK);
    if (o->no_lock == 0)
        (void)mlock(p, (size_t)size); /* as far as this user may: a wish, not a promise */
    return TG_OK;
}

bool tg_link_alive(struct tg_link *l)
{
    struct pollfd p = {.fd = l->sock, .events = 0};

    if (!l->dead && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0)
        l->dead = true;
    return !l->dead;
}
