/* Sockets to listen on, and what a server refuses to start with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/file.h"
#include "fixture.h"

static struct tg_err err;

static void addresses_are_numeric(void **state)
{
    static const char *const bad[] = {"", "localhost", "127.0.0.1:80", "[::1]", "1.2.3", NULL};
    uint16_t port = 0;
    int fd = -1;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_listen_tcp(bad[i], 0, &fd, &port, &err), TG_E_USAGE);
    assert_int_equal(fd, -1);
    assert_rc(tg_listen_tcp("192.0.2.1", 0, &fd, &port, &err), TG_E_IO); /* not ours */
    assert_contains(err.msg, "192.0.2.1");
}

static void a_taken_port_is_said(void **state)
{
    uint16_t port = 0;
    int a = -1, b = -1;

    (void)state;
    assert_ok(tg_listen_tcp("127.0.0.1", 0, &a, &port, &err));
    assert_int_not_equal(port, 0);
    assert_rc(tg_listen_tcp("127.0.0.1", port, &b, NULL, &err), TG_E_IO);
    assert_contains(err.msg, "in use");
    assert_int_equal(b, -1);
    (void)close(a);
}

static void ipv6_too(void **state)
{
    uint16_t port = 0;
    int fd = -1;

    (void)state;
    if (access("/proc/net/if_inet6", R_OK) != 0 ||
        tg_listen_tcp("::1", 0, &fd, &port, &err) != TG_OK)
        skip(); /* a machine without IPv6 */
    assert_int_not_equal(port, 0);
    (void)close(fd);
}

static void unix_paths(void **state)
{
    char dir[] = "/tmp/tg-listen-XXXXXX", path[64], file[64], longest[200];
    struct tg_unix_opts o = {.path = path, .mode = 0600, .gid = -1};
    struct stat st;
    int a = -1, b = -1;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/s", dir);
    (void)snprintf(file, sizeof(file), "%s/f", dir);
    assert_ok(tg_listen_unix(&o, &a, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    /* Somebody listens: kept. Nobody does any more: replaced. */
    assert_rc(tg_listen_unix(&o, &b, &err), TG_E_EXISTS);
    assert_contains(err.msg, "another process listens");
    (void)close(a);
    o.gid = (int64_t)getgid();
    o.mode = 0660;
    assert_ok(tg_listen_unix(&o, &a, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    (void)close(a);
    /* Something else is there: never removed. */
    assert_ok(tg_file_write(file, tg_bytes_str("x"), 0600, false, &err));
    o.path = file;
    assert_rc(tg_listen_unix(&o, &b, &err), TG_E_EXISTS);
    assert_int_equal(stat(file, &st), 0);
    memset(longest, 'a', sizeof(longest));
    longest[108] = '\0';
    o.path = longest;
    assert_rc(tg_listen_unix(&o, &b, &err), TG_E_USAGE);
    o.path = "";
    assert_rc(tg_listen_unix(&o, &b, &err), TG_E_USAGE);
    o.path = "/tmp/tg-there-is-no-such-folder/s";
    assert_rc(tg_listen_unix(&o, &b, &err), TG_E_IO);
    assert_int_equal(b, -1);
    assert_ok(tg_dir_remove(dir, &err));
}

static enum tg_rc nothing(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                          struct tg_err *e)
{
    (void)arg;
    (void)req;
    (void)res;
    (void)e;
    return TG_OK;
}

static void tls_needs_its_files_to_belong_together(void **state)
{
    struct fx fx = {.file = -1};
    struct fx_cert a, b;
    struct tg_loop *loop = NULL;
    struct tg_http_server *s = NULL;
    struct tg_http_server_opts so = {.handler = nothing};
    struct tg_tls_opts tls;
    struct tg_http_listen_opts lo = {.address = "127.0.0.1", .tls = &tls};

    (void)state;
    fx_start(&fx);
    a = fx_server_cert(&fx, "a");
    b = fx_server_cert(&fx, "b");
    assert_ok(tg_loop_new(&loop, &err));
    assert_ok(tg_http_server_new(loop, &so, &s, &err));
    tls = (struct tg_tls_opts){tg_buf_view(&a.cert), tg_buf_view(&b.key), TG_BYTES_NONE};
    assert_rc(tg_http_server_listen(s, &lo, NULL, &err), TG_E_FORMAT);
    assert_contains(err.msg, "not the server certificate's");
    tls.key_pem = tg_bytes_str("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_rc(tg_http_server_listen(s, &lo, NULL, &err), TG_E_FORMAT);
    tls.key_pem = tg_buf_view(&a.key);
    tls.cert_pem = tg_bytes_str("x");
    assert_rc(tg_http_server_listen(s, &lo, NULL, &err), TG_E_FORMAT);
    tls.cert_pem = tg_buf_view(&a.cert);
    tls.client_ca = tg_bytes_str("x");
    assert_rc(tg_http_server_listen(s, &lo, NULL, &err), TG_E_FORMAT);
    assert_contains(err.msg, "client CA");
    assert_rc(tg_http_server_retls(s, &tls, &err), TG_E_FORMAT);
    tls.client_ca = tg_buf_view(&fx.ca_pem);
    assert_ok(tg_http_server_listen(s, &lo, NULL, &err));
    assert_rc(tg_http_server_listen_fd(s, 9999, &lo, &err), TG_E_IO);
    tg_http_server_free(s);
    tg_loop_free(loop);
    fx_cert_done(&a);
    fx_cert_done(&b);
    fx_stop(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_numeric),
        cmocka_unit_test(a_taken_port_is_said),
        cmocka_unit_test(ipv6_too),
        cmocka_unit_test(unix_paths),
        cmocka_unit_test(tls_needs_its_files_to_belong_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
