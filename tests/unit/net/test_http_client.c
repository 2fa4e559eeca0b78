/* Client and server over loopback TLS; and what openssl's own client sees of the server. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "fixture.h"

static struct fx fx;
static struct tg_err err;

static int start(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx_start(&fx);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fx_stop(&fx);
    if (fx.file >= 0)
        (void)close(fx.file);
    return 0;
}

/* GET target with this certificate; the code of the call, the body in out. */
static enum tg_rc get(const struct fx_cert *cert, const char *target, struct tg_http_answer *a)
{
    struct tg_http_client *c = fx_client(&fx, true, cert);
    struct tg_http_call call = {.target = target};
    enum tg_rc rc = tg_http_client_do(c, &call, a, &err);

    tg_http_client_free(c);
    return rc;
}

static void the_handler_sees_who_called(void **state)
{
    struct fx_cert dev = fx_device(&fx, NULL, "device-7", 30);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_x509_facts facts;
    char expected[256];

    (void)state;
    assert_ok(tg_x509_facts_pem(tg_buf_view(&dev.cert), &facts, &err));
    (void)snprintf(expected, sizeof(expected), "device-7 %s", facts.serial);
    assert_ok(get(&dev, "/peer", &a));
    assert_string_equal(tg_buf_cstr(&a.body), expected);
    assert_ok(get(NULL, "/peer", &a));
    assert_string_equal(tg_buf_cstr(&a.body), "nobody");
    tg_http_answer_done(&a);
    fx_cert_done(&dev);
}

static void bad_client_certificates_end_the_handshake(void **state)
{
    struct tg_x509_ca *stranger = NULL;
    struct fx_cert foreign, expired, own;
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;

    (void)state;
    assert_ok(tg_x509_ca_make("test CA", tg_clock_now() - 400 * TG_X509_DAY, 800, &stranger, &err));
    foreign = fx_device(&fx, stranger, "device-7", 30);
    own = (struct fx_cert){TG_BUF_INIT(65536), TG_BUF_SECRET(65536)};
    assert_ok(tg_x509_ca_cert_pem(stranger, &own.cert, &err)); /* self-made: its own issuer */
    assert_ok(tg_x509_ca_key_pem(stranger, &own.key, &err));
    expired = fx_device(&fx, NULL, "device-7", -1);
    assert_rc(get(&foreign, "/peer", &a), TG_E_AUTH);
    assert_rc(get(&own, "/peer", &a), TG_E_AUTH);
    assert_rc(get(&expired, "/peer", &a), TG_E_AUTH);
    assert_contains(err.msg, "expired");
    /* A server's certificate is not a client's, though the CA is right. */
    assert_rc(get(&fx.server, "/peer", &a), TG_E_AUTH);
    assert_int_equal(atomic_load(&fx.requests), 0);
    tg_http_answer_done(&a);
    tg_x509_ca_free(stranger);
    fx_cert_done(&foreign);
    fx_cert_done(&expired);
    fx_cert_done(&own);
}

static void a_server_of_another_ca_or_name_is_not_spoken_to(void **state)
{
    struct tg_x509_ca *stranger = NULL;
    struct tg_buf pem = TG_BUF_INIT(65536);
    struct tg_http_client *c = NULL;
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_http_call call = {.target = "/peer"};
    char url[64];
    struct tg_http_client_opts o = {.base_url = url};

    (void)state;
    assert_ok(tg_x509_ca_make("test CA", tg_clock_now(), 30, &stranger, &err));
    assert_ok(tg_x509_ca_cert_pem(stranger, &pem, &err));
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u", fx.tls);
    assert_rc(tg_http_client_new(&o, &c, &err), TG_E_USAGE); /* no CA given */
    o.ca_pem = tg_buf_view(&pem);
    assert_ok(tg_http_client_new(&o, &c, &err));
    assert_rc(tg_http_client_do(c, &call, &a, &err), TG_E_AUTH);
    tg_http_client_free(c);
    (void)snprintf(url, sizeof(url), "https://127.0.0.2:%u", fx.plain);
    o.ca_pem = tg_buf_view(&fx.ca_pem);
    assert_ok(tg_http_client_new(&o, &c, &err));
    assert_rc(tg_http_client_do(c, &call, &a, &err), TG_E_IO); /* nobody there */
    tg_http_client_free(c);
    assert_int_equal(atomic_load(&fx.requests), 0);
    tg_buf_done(&pem);
    tg_http_answer_done(&a);
    tg_x509_ca_free(stranger);
}

static void one_connection_serves_many_calls(void **state)
{
    struct tg_http_client *c = fx_client(&fx, true, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;

    static const enum tg_http_method order[] = {TG_HTTP_GET,    TG_HTTP_POST, TG_HTTP_HEAD,
                                                TG_HTTP_DELETE, TG_HTTP_PUT,  TG_HTTP_PATCH,
                                                TG_HTTP_GET,    TG_HTTP_HEAD, TG_HTTP_GET};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(order); i++) {
        bool body =
            order[i] == TG_HTTP_POST || order[i] == TG_HTTP_PUT || order[i] == TG_HTTP_PATCH;
        struct tg_http_call call = {.method = order[i], .target = body ? "/echo" : "/x"};

        if (body)
            call.body = tg_bytes_str("abc");
        assert_ok(tg_http_client_do(c, &call, &a, &err));
        assert_int_equal(a.status, 200);
        assert_int_equal(a.connection_reused, i > 0);
        if (order[i] == TG_HTTP_HEAD)
            assert_int_equal(a.body.n, 0);
        else
            assert_contains(tg_buf_cstr(&a.body), body ? "abc" : "/x|");
    }
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

static void problems_become_errors(void **state)
{
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;

    (void)state;
    assert_ok(get(NULL, "/fail", &a));
    assert_int_equal(a.status, 409);
    assert_string_equal(a.type, "application/problem+json");
    assert_rc(tg_http_answer_check(&a, &err), TG_E_EXISTS);
    assert_string_equal(err.msg, "fleet \"ä\"b\": already there");
    assert_ok(get(NULL, "/nothing", &a));
    assert_int_equal(a.status, 204);
    assert_ok(tg_http_answer_check(&a, &err));
    tg_http_answer_done(&a);
}

struct sunk {
    char text[64];
    size_t n;
    enum tg_rc say;
};

static enum tg_rc sink(void *arg, struct tg_bytes piece, struct tg_err *e)
{
    struct sunk *s = arg;

    if (s->say != TG_OK)
        return TG_FAIL(e, s->say, "the sink is full");
    assert_true(s->n + piece.n < sizeof(s->text));
    memcpy(s->text + s->n, piece.p, piece.n);
    s->n += piece.n;
    s->text[s->n] = '\0';
    return TG_OK;
}

static void ranges_reach_the_sink(void **state)
{
    char path[] = "/tmp/tg-net-client-XXXXXX";
    struct tg_http_client *c = fx_client(&fx, true, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct sunk s = {.n = 0};
    struct tg_http_call call = {.target = "/file",
                                .range_off = 4,
                                .range_len = 3,
                                .if_range = "\"tag-1\"",
                                .sink = sink,
                                .sink_arg = &s};

    (void)state;
    fx.file = mkstemp(path);
    (void)unlink(path);
    fx.file_size = 10;
    assert_int_equal(pwrite(fx.file, "0123456789", 10, 0), 10);
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 206);
    assert_string_equal(a.etag, "\"tag-1\"");
    assert_true(a.has_range && a.range_off == 4 && a.range_len == 3 && a.range_size == 10);
    assert_string_equal(s.text, "456");
    call.range_off = 8;
    call.range_len = 100; /* the rest, if that is less */
    s.n = 0;
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_string_equal(s.text, "89");
    call.if_range = "\"other\"";
    s.n = 0;
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 200);
    assert_string_equal(s.text, "0123456789");
    call.range_off = 10;
    call.if_range = NULL;
    s.n = 0;
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 416);
    assert_int_equal(s.n, 0); /* not to the sink */
    assert_rc(tg_http_answer_check(&a, &err), TG_E_FORMAT);
    call.range_off = 0;
    s.say = TG_E_IO;
    assert_rc(tg_http_client_do(c, &call, &a, &err), TG_E_IO);
    assert_string_equal(err.msg, "the sink is full");
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

static void if_none_match_saves_the_body(void **state)
{
    struct tg_http_client *c = fx_client(&fx, false, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_http_call call = {.target = "/file", .if_none_match = "\"tag-1\""};

    (void)state;
    fx.file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 304);
    assert_ok(tg_http_answer_check(&a, &err));
    call.if_none_match = NULL;
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 200);
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

static enum tg_rc tick(void *arg)
{
    return ++*(int *)arg > 3 ? TG_E_AGAIN : TG_OK;
}

static void answers_are_bounded_and_calls_can_be_stopped(void **state)
{
    char path[] = "/tmp/tg-net-client-XXXXXX";
    struct tg_http_client *c = fx_client(&fx, false, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_http_call call = {.target = "/file", .max_body = 1000};
    int ticks = 0;

    (void)state;
    fx.file = mkstemp(path);
    (void)unlink(path);
    fx.file_size = UINT64_C(1) << 28;
    assert_int_equal(ftruncate(fx.file, (off_t)fx.file_size), 0);
    assert_rc(tg_http_client_do(c, &call, &a, &err), TG_E_LIMIT);
    assert_contains(err.msg, "larger than 1000 bytes");
    call.max_body = 1 << 29;
    call.tick = tick;
    call.tick_arg = &ticks;
    assert_rc(tg_http_client_do(c, &call, &a, &err), TG_E_AGAIN);
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

static void a_bearer_token_is_sent_and_never_shown(void **state)
{
    static const char *const bad[] = {"", "a b", "a\r\nX: y", "\xc3\xa4"};
    struct tg_http_client *c = fx_client(&fx, false, NULL);

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_http_client_bearer(c, bad[i]), TG_E_FORMAT);
    assert_ok(tg_http_client_bearer(c, "s3cret"));
    tg_http_client_free(c);
}

static void urls_have_one_form(void **state)
{
    static const char *const bad[] = {"",           "ftp://h",    "https://",   "https://h/x",
                                      "h:1",        "http://u@h", "http://h?x", "http://h#",
                                      "http://a b", "file:///etc"};
    struct tg_http_client *c = NULL;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        struct tg_http_client_opts o = {.base_url = bad[i], .system_ca = true};

        assert_rc(tg_http_client_new(&o, &c, &err), TG_E_USAGE);
    }
}

static void nothing_goes_to_another_machine_in_the_clear(void **state)
{
    static const char *const far[] = {
        "http://h",       "http://10.0.0.1:80", "http://127.evil.org", "http://localhost.org",
        "http://[::2]:1", "http://127.0.0.1x"};
    static const char *const near[] = {"http://127.0.0.1:80", "http://localhost",
                                       "http://localhost:1", "http://[::1]:80", "http://127.8.9.1"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(far); i++) {
        struct tg_http_client *c = NULL;
        struct tg_http_client_opts o = {.base_url = far[i], .bearer = "secret"};

        assert_rc(tg_http_client_new(&o, &c, &err), TG_E_USAGE);
        assert_non_null(strstr(err.msg, "https://"));
    }
    for (size_t i = 0; i < TG_ARRAY_LEN(near); i++) {
        struct tg_http_client *c = NULL;
        struct tg_http_client_opts o = {.base_url = near[i], .bearer = "secret"};

        assert_ok(tg_http_client_new(&o, &c, &err));
        tg_http_client_free(c);
        o.ca_file = "ca.pem"; /* who names a CA believes in TLS */
        c = NULL;
        assert_rc(tg_http_client_new(&o, &c, &err), TG_E_USAGE);
    }
}

static void the_environment_chooses_no_proxy(void **state)
{
    struct tg_http_client *c;
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_http_call call = {.target = "/x"};

    (void)state;
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
    assert_int_equal(setenv("all_proxy", "http://127.0.0.1:1", 1), 0);
    c = fx_client(&fx, false, NULL);
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 200);
    tg_http_answer_done(&a);
    tg_http_client_free(c);
    (void)unsetenv("http_proxy");
    (void)unsetenv("all_proxy");
}

/* --- what others see ------------------------------------------------------------------------- */

/* What "openssl s_client ARGS" says about the server. */
static char *s_client(const char *extra)
{
    struct tg_buf out = TG_BUF_INIT(1 << 20);
    char path[64], target[64], command[1024], piece[4096];
    const char *openssl = getenv("TG_OPENSSL");
    FILE *p;
    size_t n;

    (void)snprintf(path, sizeof(path), "/tmp/tg-net-ca-%d.pem", (int)getpid());
    (void)snprintf(target, sizeof(target), "127.0.0.1:%u", fx.tls);
    assert_ok(tg_file_write(path, tg_buf_view(&fx.ca_pem), 0600, true, &err));
    (void)snprintf(command, sizeof(command),
                   "printf 'GET /x HTTP/1.1\\r\\nHost: h\\r\\nConnection: close\\r\\n\\r\\n' | "
                   "%s s_client -connect %s -CAfile %s -verify_return_error -ign_eof %s 2>&1",
                   openssl != NULL && *openssl != '\0' ? openssl : "openssl", target, path, extra);
    p = popen(command, "r");
    assert_non_null(p);
    while ((n = fread(piece, 1, sizeof(piece), p)) > 0)
        assert_ok(tg_buf_append(&out, piece, n));
    (void)pclose(p);
    (void)unlink(path);
    assert_ok(tg_buf_append(&out, "", 1));
    return (char *)tg_buf_take(&out, &n);
}

static void openssl_agrees_on_version_and_group(void **state)
{
    static const struct {
        const char *extra, *says;
    } t[] = {
        {"",                              "X25519MLKEM768"                           },
 /* The client guesses X25519 but knows the hybrid: it is asked again. */
        {"-groups X25519:X25519MLKEM768", "Negotiated TLS1.3 group: X25519MLKEM768\n"},
        {"-groups X25519",                "X25519"                                   },
        {"-groups P-256",                 "secp256r1"                                },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++) {
        char *text = s_client(t[i].extra);

        assert_contains(text, "TLSv1.3");
        assert_contains(text, t[i].says);
        assert_contains(text, "Verify return code: 0 (ok)");
        assert_contains(text, "HTTP/1.1 200 OK");
        assert_contains(text, "Acceptable client certificate CA names");
        assert_null(strstr(text, "New Session Ticket"));
        tg_free(text);
    }
}

static void a_new_certificate_serves_new_connections(void **state)
{
    struct tg_http_client *kept = fx_client(&fx, true, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_http_call call = {.target = "/x"};
    struct fx_cert next = fx_server_cert(&fx, "renewed server");
    char *text;

    (void)state;
    assert_ok(tg_http_client_do(kept, &call, &a, &err));
    fx_retls(&fx, &next);
    assert_ok(tg_http_client_do(kept, &call, &a, &err));
    assert_true(a.connection_reused);
    text = s_client("");
    assert_contains(text, "subject=CN=renewed server");
    assert_contains(text, "HTTP/1.1 200 OK");
    tg_free(text);
    tg_http_answer_done(&a);
    tg_http_client_free(kept);
    fx_cert_done(&next);
}

static void older_versions_are_refused(void **state)
{
    char *text = s_client("-tls1_2");

    (void)state;
    assert_contains(text, "alert protocol version");
    assert_null(strstr(text, "HTTP/1.1 200"));
    tg_free(text);
}

static void plain_text_on_the_tls_port_gets_nothing(void **state)
{
    int fd = fx_connect(fx.tls);
    bool closed;
    char *a;

    (void)state;
    fx_send(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    a = fx_recv(fd, 2000, &closed);
    assert_true(closed);
    assert_null(strstr(a, "HTTP/1.1"));
    tg_free(a);
    (void)close(fd);
    assert_int_equal(atomic_load(&fx.requests), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_handler_sees_who_called),
        TEST(bad_client_certificates_end_the_handshake),
        TEST(a_server_of_another_ca_or_name_is_not_spoken_to),
        TEST(one_connection_serves_many_calls),
        TEST(problems_become_errors),
        TEST(ranges_reach_the_sink),
        TEST(if_none_match_saves_the_body),
        TEST(answers_are_bounded_and_calls_can_be_stopped),
        TEST(a_bearer_token_is_sent_and_never_shown),
        TEST(urls_have_one_form),
        TEST(nothing_goes_to_another_machine_in_the_clear),
        TEST(the_environment_chooses_no_proxy),
        TEST(openssl_agrees_on_version_and_group),
        TEST(a_new_certificate_serves_new_connections),
        TEST(older_versions_are_refused),
        TEST(plain_text_on_the_tls_port_gets_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
