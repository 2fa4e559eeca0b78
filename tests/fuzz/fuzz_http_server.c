/* The whole server: bytes from a client, in pieces, over a Unix socket without a name. The first
 * byte says how long the pieces are. Whatever comes, the handler is only called with what
 * net/http_server.h promises, and the connection ends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/http_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define LIMIT 300

static struct tg_loop *loop;
static struct tg_http_server *server;
static struct sockaddr_un name = {.sun_family = AF_UNIX};
static socklen_t name_n = sizeof(name);

static void check(int ok)
{
    if (!ok)
        abort();
}

static enum tg_rc handler(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                          struct tg_err *err)
{
    (void)arg;
    (void)err;
    check(req->target->path[0] == '/' && req->body.n <= LIMIT);
    check(tg_http_req_header(req, "host") != NULL &&
          tg_http_req_header(req, "transfer-encoding") == NULL);
    for (size_t i = 0; i < req->headers_n; i++)
        check(strpbrk(req->headers[i].value, "\r\n") == NULL);
    return tg_http_res_body(res, "text/plain", req->body);
}

static uint64_t limit(void *arg, enum tg_http_method method, const char *path, void *listener)
{
    (void)arg;
    (void)method;
    (void)listener;
    return strcmp(path, "/") == 0 ? LIMIT : 10;
}

static void start(void)
{
    struct tg_http_server_opts o = {.handler = handler, .limit = limit, .max_head = 2048};
    struct tg_http_listen_opts l = {.max_connections = 4};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    /* Binding only the family makes the kernel choose a name in the abstract namespace: no file. */
    check(fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0 &&
          getsockname(fd, (struct sockaddr *)&name, &name_n) == 0 && listen(fd, 4) == 0);
    check(tg_loop_new(&loop, NULL) == TG_OK &&
          tg_http_server_new(loop, &o, &server, NULL) == TG_OK &&
          tg_http_server_listen_fd(server, fd, &l, NULL) == TG_OK);
}

static void turn(unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        check(tg_loop_turn(loop, 0, NULL) == TG_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char sink[4096];
    size_t piece;
    int fd;

    if (n < 1 || n > 4096)
        return 0;
    if (server == NULL)
        start();
    piece = data[0] == 0 ? n : data[0];
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&name, name_n) == 0);
    turn(1);
    for (size_t at = 1; at < n; at += piece) {
        size_t k = n - at < piece ? n - at : piece;

        if (send(fd, data + at, k, MSG_NOSIGNAL) != (ssize_t)k)
            break;
        turn(1);
        while (recv(fd, sink, sizeof(sink), 0) > 0)
            continue;
    }
    turn(2);
    (void)close(fd);
    for (int i = 0; i < 100 && tg_http_server_connections(server) > 0; i++)
        turn(1);
    check(tg_http_server_connections(server) == 0);
    return 0;
}
