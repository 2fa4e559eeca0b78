/* The server against raw sockets: what a client may say, and what becomes of one that doesn't
 * behave. */
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "base/clock.h"
#include "base/mem.h"
#include "fixture.h"

static struct fx fx;

static int start(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx_start(&fx);
    return 0;
}

static int start_plain(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx.opts.plain_errors = true;
    fx_start(&fx);
    return 0;
}

static int start_impatient(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx.opts.head_timeout_ms = 600;
    fx.opts.idle_timeout_ms = 1200;
    fx.opts.send_timeout_ms = 1500;
    fx.opts.body_grace_ms = 300;
    fx_start(&fx);
    return 0;
}

static int start_brisk(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx.opts.head_timeout_ms = 1200;
    fx.opts.send_timeout_ms = 1000;
    fx_start(&fx);
    return 0;
}

static int start_narrow(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    fx.file = -1;
    fx.max_connections = 2;
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

static void expect(const char *request, const char *status, const char *text)
{
    char *a = fx_raw(&fx, request);

    assert_contains(a, status);
    if (text != NULL)
        assert_contains(a, text);
    tg_free(a);
}

static void decodes_path_and_query(void **state)
{
    (void)state;
    expect("GET /a%20b/%C3%A4?x=1&y=a+b%26c&z HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK",
           "/a b/ä|x=1&y=a+b%26c&z|x=1|y=a b&c|z=|127.0.0.1:");
    expect("GET / HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 200 OK", "/||127");
}

static void every_method_arrives(void **state)
{
    (void)state;
    expect("DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "X-Method: DELETE");
    expect("PATCH /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "200 OK",
           "\r\n\r\nabc");
    expect("PUT /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "200 OK",
           "\r\n\r\nabc");
    expect("POST /nothing HTTP/1.1\r\nHost: h\r\n\r\n", "204 No Content", NULL);
}

static void head_has_the_length_but_no_body(void **state)
{
    char *a = fx_raw(&fx, "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\nGET /y HTTP/1.1\r\nHost: h\r\n\r\n");
    char *end = strstr(a, "\r\n\r\n");

    (void)state;
    assert_contains(a, "200 OK");
    assert_contains(a, "Content-Length: ");
    assert_non_null(end);
    assert_int_equal(strncmp(end + 4, "HTTP/1.1 200", 12), 0);
    tg_free(a);
}

static void ambiguous_requests_are_refused_and_the_connection_ends(void **state)
{
    static const struct {
        const char *request, *status, *text;
    } t[] = {
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
         "400",                                                                                        "more than one Content-Length"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: "
         "chunked\r\n\r\nabc",                                                         "411", "send Content-Length"         },
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",       "411",
         NULL                                                                                                                        },
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",                     "400", "not a number"                },
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",                   "400", NULL                          },
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",      "400",
         NULL                                                                                                                        },
        {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",                           "400", "takes no body"               },
        {"GET / HTTP/1.1\r\n\r\n",                                                              "400", "Host is missing"             },
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",                                        "400", "more than one Host"          },
        {"GET / HTTP/1.0\r\nHost: a\r\n\r\n",                                                   "505", "only HTTP/1.1"               },
        {"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",                                           "400", "must begin with '/'"         },
        {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",                                                  "400", NULL                          },
        {"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",                                     "400", "folded"                      },
        {"GET / HTTP/1.1\r\nHost : h\r\n\r\n",                                                  "400", "not a token"                 },
        {"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",                                             "400", "CR LF"                       },
        {"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",                                             "400", "CR LF"                       },
        {"GET / HTTP/1.1\r\nHost: h\r\nX: \x01\r\n\r\n",                                        "400", "control character"           },
        {"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",                                               "400", NULL                          },
        {"BREW / HTTP/1.1\r\nHost: h\r\n\r\n",                                                  "501", NULL                          },
        {"GET /a%00b HTTP/1.1\r\nHost: h\r\n\r\n",                                              "400", "escape"                      },
        {"GET /a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n",                                              "400", "escape"                      },
        {"GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n",                                             "400", "dot segment"                 },
        {"GET /a/%2e%2e/b HTTP/1.1\r\nHost: h\r\n\r\n",                                         "400", "dot segment"                 },
        {"GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n",                                                "400", "UTF-8"                       },
        {"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nContent-Length: 3\r\n\r\n",        "417",
         NULL                                                                                                                        },
        {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",                                   "400", NULL                          },
        {"hello\r\n\r\n",                                                                       "400", NULL                          },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++) {
        char *a = fx_raw(&fx, t[i].request);

        if (strstr(a, t[i].status) == NULL || (t[i].text != NULL && strstr(a, t[i].text) == NULL) ||
            strstr(a, "application/problem+json") == NULL)
            fail_msg("request %zu (%s): answer \"%s\"", i, t[i].request, a);
        tg_free(a);
    }
}

static void nul_bytes_are_refused(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n";
    int fd = fx_connect(fx.plain);
    bool closed;
    char *a;

    (void)state;
    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    a = fx_recv(fd, 300, &closed);
    assert_contains(a, "HTTP/1.1 400");
    tg_free(a);
    (void)close(fd);
}

static void a_refusal_keeps_its_place_among_the_answers(void **state)
{
    int fd = fx_connect(fx.plain);
    bool closed = false;
    char *a, *one, *ok, *bad;

    (void)state;
    assert_true(fd >= 0);
    fx_send(fd, "GET /one HTTP/1.1\r\nHost: h\r\n\r\n"
                "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok"
                "GET /bad HTTP/1.0\r\n\r\nGET /never HTTP/1.1\r\nHost: h\r\n\r\n");
    a = fx_recv(fd, 5000, &closed); /* until the server ends it, however slow the machine is */
    (void)close(fd);
    one = strstr(a, "/one|");
    ok = strstr(a, "\r\n\r\nok");
    bad = strstr(a, "HTTP/1.1 505"); /* not a port that holds these digits */
    if (!closed || one == NULL || ok == NULL || ok < one || bad == NULL || bad < ok)
        fail_msg("closed %d, answers \"%s\"", closed, a);
    assert_null(strstr(a, "/never|"));
    tg_free(a);
}

static void refusals_have_the_form_asked_for(void **state)
{
    static const struct {
        const char *request, *status, *body;
    } rows[] = {
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", " 411 ", "send"   },
        {"GET / HTTP/1.1\r\n\r\n",                                               " 400 ", "Host is"},
        {"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",                                 " 400 ", "escape" },
        {"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",                                 " 400 ", "escape" },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        char *a = fx_raw(&fx, rows[i].request);
        const char *body = strstr(a, "\r\n\r\n");
        assert_contains(a, rows[i].status);
        assert_contains(a, "Content-Type: application/json\r\n");
        assert_non_null(body);
        assert_int_equal(strncmp(body, "\r\n\r\n{\"error\":\"", 14), 0);
        assert_contains(body, rows[i].body);
        assert_null(strstr(a, "about:blank"));
        tg_free(a);
    }
}

static void heads_have_a_limit(void **state)
{
    char *big = tg_alloc(40000);
    char *many = tg_alloc(40000);
    size_t n;

    (void)state;
    memset(big, 'a', 39999);
    big[39999] = '\0';
    (void)memcpy(big, "GET / HTTP/1.1\r\nHost: h\r\nX: ", 28);
    expect(big, "431", "head is too long");
    n = (size_t)snprintf(many, 40000, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 65; i++)
        n += (size_t)snprintf(many + n, 40000 - n, "X%d: y\r\n", i);
    (void)snprintf(many + n, 40000 - n, "\r\n");
    expect(many, "431", "too many headers");
    tg_free(big);
    tg_free(many);
}

static void an_oversized_body_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    expect("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n", "413",
           "body: 65537 bytes, at most 65536 are taken here");
    expect("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n", "413", "at most 0");
    expect(
        "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n",
        "413", NULL);
    expect("POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
           "100 Continue", NULL);
    assert_int_equal(atomic_load(&fx.requests), 0);
}

static void a_client_that_sends_anyway_still_reads_why(void **state)
{
    char *piece = tg_calloc(1, 1 << 20);
    int fd = fx_connect(fx.plain);
    bool closed;
    char *a;

    (void)state;
    memset(piece, 'x', (1 << 20) - 1);
    fx_send(fd, "PUT /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n");
    for (int i = 0; i < 9; i++)
        fx_send(fd, piece);
    a = fx_recv(fd, 500, &closed);
    assert_contains(a, "413");
    tg_free(a);
    (void)close(fd);
    tg_free(piece);
}

static void head_and_body_may_come_byte_by_byte(void **state)
{
    static const char request[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: "
                                  "4\r\n\r\nabcdGET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    int fd = fx_connect(fx.plain);
    bool closed;
    char *a;

    (void)state;
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        assert_int_equal(send(fd, request + i, 1, 0), 1);
        tg_clock_sleep_ms(1);
    }
    a = fx_recv(fd, 300, &closed);
    assert_contains(a, "\r\n\r\nabcd");
    assert_contains(a, "/next|");
    assert_false(closed);
    tg_free(a);
    (void)close(fd);
}

static void eight_mebibytes_arrive_whole(void **state)
{
    size_t n = 8 << 20;
    struct tg_http_client *c = fx_client(&fx, false, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_err err = TG_ERR_INIT;
    uint8_t *p = tg_alloc(n);
    struct tg_http_call call = {.method = TG_HTTP_PUT, .target = "/upload", .max_body = 9 << 20};

    (void)state;
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 31 + (i >> 13));
    call.body = tg_bytes_make(p, n);
    for (int i = 0; i < 2; i++) {
        assert_ok(tg_http_client_do(c, &call, &a, &err));
        assert_int_equal(a.status, 200);
        assert_true(tg_bytes_eq(tg_buf_view(&a.body), call.body));
    }
    tg_http_answer_done(&a);
    tg_http_client_free(c);
    tg_free(p);
}

/* --- time ------------------------------------------------------------------------------------ */

static void expect_end(int fd, int ms, const char *text)
{
    bool closed;
    char *a = fx_recv(fd, ms, &closed);

    assert_true(closed);
    if (text == NULL)
        assert_string_equal(a, "");
    else
        assert_contains(a, text);
    tg_free(a);
    (void)close(fd);
}

/* Who began a request hears why it ends; there is nothing to say to the others. */
static void slow_and_silent_clients_are_let_go(void **state)
{
    int silent = fx_connect(fx.plain), half_head = fx_connect(fx.plain),
        second = fx_connect(fx.plain), no_handshake = fx_connect(fx.tls);
    bool closed;
    char *a;

    (void)state;
    fx_send(half_head, "GET / HTTP/1.1\r\nHo");
    fx_send(second, "GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET /second HT");
    a = fx_recv(half_head, 4000, &closed);
    assert_true(closed);
    assert_int_equal(strncmp(a, "HTTP/1.1 408 Request Timeout\r\n", 30), 0);
    assert_contains(a, "Content-Type: application/problem+json");
    assert_contains(a, "\"status\":408");
    assert_contains(a, "\"code\":\"TIMEOUT\"");
    assert_contains(a, "send all of it within 600 ms");
    assert_contains(a, "Connection: close");
    tg_free(a);
    (void)close(half_head);
    a = fx_recv(second, 4000, &closed);
    assert_true(closed);
    assert_contains(a, "/first|");
    assert_contains(strstr(a, "/first|"), "HTTP/1.1 408");
    tg_free(a);
    (void)close(second);
    expect_end(no_handshake, 3000, NULL);
    expect_end(silent, 4000, NULL);
    assert_int_equal(atomic_load(&fx.requests), 1);
    assert_int_equal(tg_http_server_connections(fx.http), 0);
}

/* A client that shut down its sending side: no part of a request is kept waiting for, and a whole
 * one is answered or not (http_server.h), but the connection ends, and the next client is served.
 */
static void half_closed_clients_are_let_go(void **state)
{
    static const char *const pieces[] = {
        "",
        "GET / HTTP/1.1\r\nHo",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
    };
    bool closed;
    char *a;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(pieces); i++) {
        int fd = fx_connect(fx.plain);
        fx_send(fd, pieces[i]);
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        expect("GET /other HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "/other|");
        expect_end(fd, 5000, NULL);
    }
    int fd = fx_connect(fx.plain);
    fx_send(fd, "GET /whole HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect("GET /other HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "/other|");
    a = fx_recv(fd, 5000, &closed);
    assert_true(closed);
    if (a[0] != '\0')
        assert_contains(a, "/whole|");
    tg_free(a);
    (void)close(fd);
    for (int i = 0; i < 100 && tg_http_server_connections(fx.http) > 0; i++)
        tg_clock_sleep_ms(20);
    assert_int_equal(tg_http_server_connections(fx.http), 0);
}

/* One byte at a time until it closes; all that came back. */
static char *trickle(int fd, const char *request)
{
    struct tg_buf all = TG_BUF_INIT(1 << 20);
    bool closed = false;
    size_t n;

    fx_send(fd, request);
    for (int sent = 0; sent < 300 && !closed; sent++) {
        char *a;

        fx_send(fd, "x");
        a = fx_recv(fd, 40, &closed);
        assert_int_equal(tg_buf_str(&all, a), TG_OK);
        tg_free(a);
    }
    assert_true(closed);
    assert_int_equal(tg_buf_append(&all, "", 1), TG_OK);
    return (char *)tg_buf_take(&all, &n);
}

static void a_body_that_trickles_is_let_go(void **state)
{
    static const char *const requests[] = {
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n",
        "PUT /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(requests); i++) {
        int fd = fx_connect(fx.plain);
        char *a = trickle(fd, requests[i]);

        assert_int_equal(strncmp(a, "HTTP/1.1 408 Request Timeout\r\n", 30), 0);
        assert_contains(a, "Content-Type: application/problem+json");
        assert_contains(a, "\"code\":\"TIMEOUT\"");
        assert_contains(a, "the body comes too slowly");
        assert_null(strstr(a + 1, "HTTP/1.1 "));
        tg_free(a);
        (void)close(fd);
    }
    assert_int_equal(atomic_load(&fx.requests), 0); /* no handler ever saw the padding */
}

/* A handler that keeps the loop for longer than any timeout: neither its own client nor another one
 * that was slow through no fault of its own is let go. */
static void a_long_handler_is_nobody_elses_fault(void **state)
{
    int half = fx_connect(fx.plain), stall = fx_connect(fx.plain);
    bool closed;
    char *a;

    (void)state;
    fx_send(half, "GET /half HTTP/1.1\r\nHo");
    tg_clock_sleep_ms(50);
    fx_send(stall, "GET /stall HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    a = fx_recv(stall, 5000, &closed);
    assert_contains(a, "/stall|");
    tg_free(a);
    tg_clock_sleep_ms(50);
    fx_send(half, "st: h\r\n\r\n");
    a = fx_recv(half, 1000, &closed);
    assert_contains(a, "/half|");
    tg_free(a);
    (void)close(half);
    (void)close(stall);
}

static int sparse_file(uint64_t size)
{
    char path[] = "/tmp/tg-net-file-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    (void)unlink(path);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void a_client_that_takes_nothing_is_let_go(void **state)
{
    int fd;
    bool closed;
    char *a;

    (void)state;
    fx.file_size = UINT64_C(1) << 30;
    fx.file = sparse_file(fx.file_size);
    fd = fx_connect(fx.plain);
    fx_send(fd, "GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 60 && tg_http_server_connections(fx.http) == 0; i++)
        tg_clock_sleep_ms(50);
    for (int i = 0; i < 80 && tg_http_server_connections(fx.http) > 0; i++)
        tg_clock_sleep_ms(50);
    assert_int_equal(tg_http_server_connections(fx.http), 0);
    a = fx_recv(fd, 500, &closed);
    assert_true(closed);
    tg_free(a);
    (void)close(fd);
}

static void a_full_listener_makes_others_wait(void **state)
{
    int a = fx_connect(fx.plain), b = fx_connect(fx.plain), c = fx_connect(fx.plain);
    bool closed;
    char *text;

    (void)state;
    fx_send(a, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    fx_send(b, "GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    fx_send(c, "GET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    text = fx_recv(b, 200, &closed);
    assert_contains(text, "/b|");
    tg_free(text);
    text = fx_recv(c, 200, &closed);
    assert_string_equal(text, "");
    tg_free(text);
    (void)close(a);
    text = fx_recv(c, 500, &closed);
    assert_contains(text, "/c|");
    tg_free(text);
    (void)close(b);
    (void)close(c);
}

/* --- files ----------------------------------------------------------------------------------- */

static void ranges_and_conditions_of_a_file(void **state)
{
    (void)state;
    fx.file_size = 10;
    fx.file = sparse_file(0);
    assert_int_equal(pwrite(fx.file, "0123456789", 10, 0), 10);
    expect("GET /file HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "\r\n\r\n0123456789");
    expect("GET /file HTTP/1.1\r\nHost: h\r\n\r\n", "Accept-Ranges: bytes", "ETag: \"tag-1\"");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\n\r\n", "206 Partial Content",
           "\r\n\r\n234");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\n\r\n", "Content-Length: 3",
           "Content-Range: bytes 2-4/10");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=-3\r\n\r\n", "206", "\r\n\r\n789");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=8-\r\n\r\n", "206", "\r\n\r\n89");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=10-\r\n\r\n", "416",
           "Content-Range: bytes */10");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\nIf-Range: \"tag-1\"\r\n\r\n",
           "206", NULL);
    expect("GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\nIf-Range: \"old\"\r\n\r\n",
           "200 OK", "\r\n\r\n0123456789");
    expect("GET /file HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"x\", W/\"tag-1\"\r\n\r\n", "304",
           "ETag: \"tag-1\"");
    expect("HEAD /file HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "Content-Length: 10");
}

static void a_file_that_shrank_breaks_the_connection(void **state)
{
    int fd;
    bool closed;
    char *a;

    (void)state;
    fx.file_size = 1 << 20;
    fx.file = sparse_file(1 << 19);
    fd = fx_connect(fx.plain);
    fx_send(fd, "GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
    a = fx_recv(fd, 1000, &closed);
    assert_true(closed);
    assert_contains(a, "Content-Length: 1048576");
    tg_free(a);
    (void)close(fd);
}

/* AddressSanitizer keeps 256 MiB of what was freed: then the bound only says "not the whole file".
 */
#if defined(__SANITIZE_ADDRESS__)
static const uint64_t resident_max_kib = 512 * 1024;
#else
static const uint64_t resident_max_kib = 16 * 1024;
#endif

static uint64_t resident_kib(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "VmHWM: %" SCNu64, &kib) == 1)
            break;
    (void)fclose(f);
    return kib;
}

struct counter {
    uint64_t n;
};

static enum tg_rc count(void *arg, struct tg_bytes piece, struct tg_err *err)
{
    struct counter *c = arg;

    (void)err;
    c->n += piece.n;
    return TG_OK;
}

/* Valgrind's own memory and its TLS without vector instructions: a sixteenth has to do. */
static bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

static void a_gibibyte_streams_in_little_memory(void **state)
{
    struct tg_http_client *c = fx_client(&fx, true, NULL);
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_err err = TG_ERR_INIT;
    struct counter got = {0};
    struct tg_http_call call = {.target = "/file", .sink = count, .sink_arg = &got};
    uint64_t before;

    (void)state;
    fx.file_size = UINT64_C(1) << (under_valgrind() ? 26 : 30);
    fx.file = sparse_file(fx.file_size);
    before = resident_kib();
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_int_equal(a.status, 200);
    assert_true(got.n == fx.file_size);
    assert_true(under_valgrind() || resident_kib() - before < resident_max_kib);
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

static void a_client_that_leaves_midway_costs_nothing(void **state)
{
    (void)state;
    fx.file_size = UINT64_C(1) << 30;
    fx.file = sparse_file(fx.file_size);
    for (int i = 0; i < 20; i++) {
        int fd = fx_connect(fx.plain);
        char piece[4096];

        fx_send(fd, "GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_true(recv(fd, piece, sizeof(piece), 0) > 0);
        (void)close(fd);
    }
    for (int i = 0; i < 60 && tg_http_server_connections(fx.http) > 0; i++)
        tg_clock_sleep_ms(50);
    assert_int_equal(tg_http_server_connections(fx.http), 0);
}

/* --- the end --------------------------------------------------------------------------------- */

static void wait_drained(int expected)
{
    for (int i = 0; i < 100 && atomic_load(&fx.drained) == 0; i++)
        tg_clock_sleep_ms(20);
    assert_int_equal(atomic_load(&fx.drained), expected);
}

static void drain_answers_what_is_in_flight(void **state)
{
    int slow = fx_connect(fx.plain), kept = fx_connect(fx.plain), idle = fx_connect(fx.plain);
    bool closed;
    char *a;

    (void)state;
    fx_send(kept, "GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
    a = fx_recv(kept, 200, &closed);
    assert_contains(a, "/first|");
    tg_free(a);
    fx_send(slow, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    tg_clock_sleep_ms(50);
    fx_drain(&fx, 600, 5000);
    fx_send(kept, "GET /second HTTP/1.1\r\nHost: h\r\n\r\n");
    a = fx_recv(slow, 2000, &closed);
    assert_contains(a, "/slow|");
    assert_true(closed);
    tg_free(a);
    a = fx_recv(kept, 2000, &closed);
    assert_contains(a, "/second|");
    assert_contains(a, "Connection: close");
    assert_true(closed);
    tg_free(a);
    a = fx_recv(idle, 2000, &closed);
    assert_true(closed);
    tg_free(a);
    wait_drained(1);
    assert_int_equal(fx_connect(fx.plain), -1);
    (void)close(slow);
    (void)close(kept);
    (void)close(idle);
}

static void drain_has_a_deadline(void **state)
{
    int fd = fx_connect(fx.plain);

    (void)state;
    fx_send(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    tg_clock_sleep_ms(50);
    fx_drain(&fx, 100, 400);
    wait_drained(2);
    (void)close(fd);
}

static void drain_without_connections_is_done_at_once(void **state)
{
    (void)state;
    fx_drain(&fx, 100, 400);
    wait_drained(1);
}

static void unix_socket_has_its_mode_and_serves(void **state)
{
    struct stat st;
    struct tg_http_client *c = NULL;
    struct tg_http_client_opts o = {.base_url = "http://localhost", .unix_socket = fx.unix_path};
    struct tg_http_answer a = TG_HTTP_ANSWER_INIT;
    struct tg_err err = TG_ERR_INIT;
    struct tg_unix_opts u = {.path = fx.unix_path, .mode = 0600, .gid = -1};
    struct tg_http_call call = {.target = "/x"};
    int fd = -1;

    (void)state;
    assert_int_equal(stat(fx.unix_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_ok(tg_http_client_new(&o, &c, &err));
    assert_ok(tg_http_client_do(c, &call, &a, &err));
    assert_string_equal(tg_buf_cstr(&a.body), "/x||unix");
    assert_rc(tg_listen_unix(&u, &fd, &err), TG_E_EXISTS);
    tg_http_answer_done(&a);
    tg_http_client_free(c);
}

/* What Nagle's algorithm and delayed acknowledgements make of an answer in two writes: 40 ms. */
static void answers_do_not_wait_for_acknowledgements(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    int fd = -1, on = 0, peer, conn;
    socklen_t n = sizeof(on);
    uint16_t port = 0;

    (void)state;
    assert_ok(tg_listen_tcp("127.0.0.1", 0, &fd, &port, &err));
    peer = fx_connect(port);
    conn = accept(fd, NULL, NULL);
    assert_true(conn >= 0);
    assert_int_equal(getsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &on, &n), 0);
    assert_int_not_equal(on, 0);
    (void)close(conn);
    (void)close(peer);
    (void)close(fd);
}

static enum tg_rc hello(void *arg, const struct tg_http_req *req, struct tg_http_res *res,
                        struct tg_err *err)
{
    (void)req;
    (void)err;
    return tg_http_res_body(res, "text/plain", tg_bytes_str(arg));
}

struct inherited {
    struct tg_loop *loop;
    struct tg_http_server *http;
};

static struct inherited inherit(int fd, bool paused, char *name)
{
    struct tg_http_server_opts o = {.handler = hello, .arg = name};
    struct tg_http_listen_opts l = {.paused = paused};
    struct tg_err err = TG_ERR_INIT;
    struct inherited in = {NULL, NULL};

    assert_ok(tg_loop_new(&in.loop, &err));
    assert_ok(tg_http_server_new(in.loop, &o, &in.http, &err));
    assert_ok(tg_http_server_listen_fd(in.http, dup(fd), &l, &err));
    return in;
}

static void spin(struct inherited *in, int turns)
{
    struct tg_err err = TG_ERR_INIT;

    for (int i = 0; i < turns; i++)
        assert_ok(tg_loop_turn(in->loop, 5, &err));
}

/* As the agent swaps workers: two servers on one socket, the second told to wait. */
static void a_socket_passes_from_one_server_to_the_next(void **state)
{
    struct tg_http_drain_opts d = {.idle_ms = 10, .deadline_ms = 1000};
    char first[] = "first", second[] = "second";
    struct tg_err err = TG_ERR_INIT;
    struct inherited a, b;
    uint16_t port = 0;
    int fd = -1, c;
    bool closed;
    char *text;

    (void)state;
    assert_ok(tg_listen_tcp("127.0.0.1", 0, &fd, &port, &err));
    a = inherit(fd, false, first);
    b = inherit(fd, true, second);
    c = fx_connect(port);
    fx_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    spin(&b, 10);
    assert_int_equal(tg_http_server_connections(b.http), 0); /* paused */
    spin(&a, 10);
    text = fx_recv(c, 100, &closed);
    assert_contains(text, "first");
    tg_free(text);
    (void)close(c);
    tg_http_server_resume(b.http);
    tg_http_server_drain(a.http, &d);
    spin(&a, 30);
    assert_int_equal(tg_http_server_connections(a.http), 0);
    c = fx_connect(port);
    fx_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    spin(&a, 10);
    spin(&b, 10);
    text = fx_recv(c, 100, &closed);
    assert_contains(text, "second");
    tg_free(text);
    (void)close(c);
    (void)close(fd);
    tg_http_server_free(a.http);
    tg_http_server_free(b.http);
    tg_loop_free(a.loop);
    tg_loop_free(b.loop);
}

#define TEST(f, setup) cmocka_unit_test_setup_teardown(f, setup, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(decodes_path_and_query, start),
        TEST(every_method_arrives, start),
        TEST(head_has_the_length_but_no_body, start),
        TEST(ambiguous_requests_are_refused_and_the_connection_ends, start),
        TEST(nul_bytes_are_refused, start),
        TEST(a_refusal_keeps_its_place_among_the_answers, start),
        TEST(refusals_have_the_form_asked_for, start_plain),
        TEST(heads_have_a_limit, start),
        TEST(an_oversized_body_is_refused_before_it_is_sent, start),
        TEST(a_client_that_sends_anyway_still_reads_why, start),
        TEST(head_and_body_may_come_byte_by_byte, start),
        TEST(eight_mebibytes_arrive_whole, start),
        TEST(slow_and_silent_clients_are_let_go, start_impatient),
        TEST(half_closed_clients_are_let_go, start),
        TEST(a_body_that_trickles_is_let_go, start_impatient),
        TEST(a_long_handler_is_nobody_elses_fault, start_brisk),
        TEST(a_client_that_takes_nothing_is_let_go, start_impatient),
        TEST(a_full_listener_makes_others_wait, start_narrow),
        TEST(ranges_and_conditions_of_a_file, start),
        TEST(a_file_that_shrank_breaks_the_connection, start),
        TEST(a_gibibyte_streams_in_little_memory, start),
        TEST(a_client_that_leaves_midway_costs_nothing, start),
        TEST(drain_answers_what_is_in_flight, start),
        TEST(drain_has_a_deadline, start),
        TEST(drain_without_connections_is_done_at_once, start),
        TEST(unix_socket_has_its_mode_and_serves, start),
        cmocka_unit_test(answers_do_not_wait_for_acknowledgements),
        cmocka_unit_test(a_socket_passes_from_one_server_to_the_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
