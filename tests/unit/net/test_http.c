/* The pure parts: targets, problem details, ranges, entity tags, the guard. */
#include <stdio.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/http_client.h"
#include "net/http_guard.h"
#include "net/http_range.h"
#include "net/http_server.h"

static struct tg_err err;

/* --- targets --------------------------------------------------------------------------------- */

static void target_parts(void **state)
{
    struct tg_http_target t = TG_HTTP_TARGET_INIT;

    (void)state;
    assert_ok(tg_http_target_parse(tg_bytes_str("/api/v1/x%20y?b=%2F+1&&a&b=2&=v"), &t, &err));
    assert_string_equal(t.path, "/api/v1/x y");
    assert_string_equal(t.raw_query, "b=%2F+1&&a&b=2&=v");
    assert_int_equal(t.args_n, 4);
    assert_string_equal(tg_http_target_arg(&t, "b"), "/ 1");
    assert_string_equal(tg_http_target_arg(&t, "a"), "");
    assert_string_equal(tg_http_target_arg(&t, ""), "v");
    assert_null(tg_http_target_arg(&t, "c"));
    tg_http_target_done(&t);
    assert_null(t.path);
}

static void target_refusals(void **state)
{
    static const char *const bad[] = {
        "",      "x",    "*",    "/a//b", "//",      "/.",     "/..",    "/a/.",         "/a/../b",
        "/%",    "/%2",  "/%zz", "/%00",  "/%0a",    "/%7f",   "/a%2fb", "/%2e",         "/a b",
        "/\xc3", "/%c3", "/<",   "/#",    "/?a=%00", "/?a=%",  "/?%ff",  "/a\"",         "/\\",
        "/[",    "/|",   "/^",   "/`",    "/?{",     "/a\x7f", "/a\r\n", "/?a=\xc3\xa4",
    };
    struct tg_http_target t = TG_HTTP_TARGET_INIT;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        if (tg_http_target_parse(tg_bytes_str(bad[i]), &t, &err) != TG_E_FORMAT)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_null(t.mem);
    }
}

static void target_limits(void **state)
{
    struct tg_http_target t = TG_HTTP_TARGET_INIT;
    char text[TG_HTTP_TARGET_MAX + 2];

    (void)state;
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    text[0] = '/';
    assert_rc(tg_http_target_parse(tg_bytes_str(text), &t, &err), TG_E_LIMIT);
    text[TG_HTTP_TARGET_MAX] = '\0';
    assert_ok(tg_http_target_parse(tg_bytes_str(text), &t, &err));
    tg_http_target_done(&t);
    (void)snprintf(text, sizeof(text), "/?");
    for (int i = 0; i < TG_HTTP_ARGS_MAX; i++)
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "a&");
    assert_ok(tg_http_target_parse(tg_bytes_str(text), &t, &err));
    assert_int_equal(t.args_n, TG_HTTP_ARGS_MAX);
    tg_http_target_done(&t);
    (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "a");
    assert_rc(tg_http_target_parse(tg_bytes_str(text), &t, &err), TG_E_LIMIT);
}

static void encoding_comes_back(void **state)
{
    static const char text[] = "a/b c+d%&=?ä\"-._~";
    struct tg_buf b = TG_BUF_INIT(200);
    struct tg_http_target t = TG_HTTP_TARGET_INIT;

    (void)state;
    assert_ok(tg_buf_str(&b, "/?x="));
    assert_ok(tg_http_encode(&b, text));
    assert_string_equal(tg_buf_cstr(&b), "/?x=a%2Fb%20c%2Bd%25%26%3D%3F%C3%A4%22-._~");
    assert_ok(tg_http_target_parse(tg_buf_view(&b), &t, &err));
    assert_string_equal(tg_http_target_arg(&t, "x"), text);
    tg_http_target_done(&t);
    tg_buf_done(&b);
}

/* Fail each allocation in turn: the code says so, nothing leaks (the sanitized run would tell). */
static void memory_may_run_out_anywhere(void **state)
{
    struct tg_http_target t = TG_HTTP_TARGET_INIT;
    struct tg_http_client_opts o = {.base_url = "http://localhost", .bearer = "x"};
    struct tg_http_client *c = NULL;
    struct tg_loop *loop = NULL;
    struct tg_http_server_opts so = {.max_body = 1};
    struct tg_http_server *server = NULL;
    struct tg_http_listen_opts lo = {.address = "127.0.0.1"};
    unsigned failed = 0;

    (void)state;
    for (uint64_t i = 1; i < 20; i++) {
        enum tg_rc rc;

        tg_mem_fault_set(i, 0);
        rc = tg_http_target_parse(tg_bytes_str("/a?b=c"), &t, &err);
        if (rc == TG_OK)
            rc = tg_http_client_new(&o, &c, &err);
        if (rc == TG_OK)
            rc = tg_loop_new(&loop, &err);
        if (rc == TG_OK)
            rc = tg_http_server_new(loop, &so, &server, &err);
        if (rc == TG_OK)
            rc = tg_http_server_listen(server, &lo, NULL, &err);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM);
        failed += rc == TG_E_NOMEM;
        tg_http_target_done(&t);
        tg_http_client_free(c);
        tg_http_server_free(server);
        tg_loop_free(loop);
        c = NULL;
        server = NULL;
        loop = NULL;
    }
    assert_true(failed >= 5);
    assert_int_equal(err.rc, TG_E_NOMEM);
}

/* --- problems -------------------------------------------------------------------------------- */

static void problems_come_back(void **state)
{
    struct tg_buf b = TG_BUF_INIT(8192);
    struct tg_err e = TG_ERR_INIT;

    (void)state;
    for (int i = 1; i < TG_RC_COUNT; i++) {
        tg_err_set(&err, (enum tg_rc)i, "fleet \"%s\": no", "ä\n");
        tg_buf_clear(&b);
        assert_ok(tg_http_problem_encode(&err, 0, &b));
        assert_rc(tg_http_problem_decode(500, tg_buf_view(&b), &e), (enum tg_rc)i);
        assert_string_equal(e.msg, "fleet \"ä\n\": no");
    }
    tg_err_set(&err, TG_E_DENIED, "no");
    tg_buf_clear(&b);
    assert_ok(tg_http_problem_encode(&err, 0, &b));
    assert_string_equal(tg_buf_cstr(&b),
                        "{\"type\":\"about:blank\",\"title\":\"not allowed\",\"status\":403,"
                        "\"detail\":\"no\",\"code\":\"DENIED\"}");
    tg_buf_done(&b);
}

static void a_problem_of_broken_text_is_still_json(void **state)
{
    struct tg_buf b = TG_BUF_INIT(8192);
    struct tg_err e = TG_ERR_INIT;

    (void)state;
    tg_err_set(&err, TG_E_FORMAT, "bad \xff\xc3 byte");
    assert_ok(tg_http_problem_encode(&err, 0, &b));
    assert_rc(tg_http_problem_decode(400, tg_buf_view(&b), &e), TG_E_FORMAT);
    assert_string_equal(e.msg, "bad ?? byte");
    tg_buf_done(&b);
}

static void answers_without_details_still_say_something(void **state)
{
    static const struct {
        unsigned status;
        const char *body;
        enum tg_rc rc;
    } t[] = {
        {404, "<html>",                  TG_E_NOTFOUND},
        {401, "",                        TG_E_AUTH    },
        {429, "{}",                      TG_E_AGAIN   },
        {499, "",                        TG_E_FORMAT  },
        {599, "",                        TG_E_INTERNAL},
        {302, "",                        TG_E_INTERNAL},
        {403, "{\"code\":\"OK\"}",       TG_E_DENIED  },
        {403, "{\"code\":\"NOSUCH\"}",   TG_E_DENIED  },
        {403, "{\"code\":7}",            TG_E_DENIED  },
        {500, "{\"code\":\"ROLLBACK\"}", TG_E_ROLLBACK},
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++) {
        assert_rc(tg_http_problem_decode(t[i].status, tg_bytes_str(t[i].body), &err), t[i].rc);
        assert_contains(err.msg, "the server answered ");
    }
}

/* --- ranges ---------------------------------------------------------------------------------- */

static void ranges(void **state)
{
    static const struct {
        const char *header;
        uint64_t size;
        enum tg_range_kind kind;
        uint64_t off, len;
    } t[] = {
        {NULL,                           10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=0-0",                    10,                TG_RANGE_PART, 0,                 1 },
        {"bytes=0-9",                    10,                TG_RANGE_PART, 0,                 10},
        {"bytes=0-99",                   10,                TG_RANGE_PART, 0,                 10},
        {"bytes=9-",                     10,                TG_RANGE_PART, 9,                 1 },
        {"BYTES=3-4 ",                   10,                TG_RANGE_PART, 3,                 2 },
        {"bytes=007-8",                  10,                TG_RANGE_PART, 7,                 2 },
        {"bytes=10-",                    10,                TG_RANGE_BAD,  0,                 0 },
        {"bytes=10-20",                  10,                TG_RANGE_BAD,  0,                 0 },
        {"bytes=0-",                     0,                 TG_RANGE_BAD,  0,                 0 },
        {"bytes=-1",                     10,                TG_RANGE_PART, 9,                 1 },
        {"bytes=-99",                    10,                TG_RANGE_PART, 0,                 10},
        {"bytes=-0",                     10,                TG_RANGE_BAD,  0,                 0 },
        {"bytes=-1",                     0,                 TG_RANGE_BAD,  0,                 0 },
        {"bytes=4-3",                    10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=",                       10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=-",                      10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=a-b",                    10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=1-2,4-5",                10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=1 -2",                   10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=--2",                    10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=1-2-",                   10,                TG_RANGE_NONE, 0,                 10},
        {"lines=1-2",                    10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=9999999999999999999-",   10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=0-9999999999999999999",  10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=1-18446744073709551616", 10,                TG_RANGE_NONE, 0,                 10},
        {"bytes=4398046511104-",         UINT64_C(1) << 43, TG_RANGE_PART, UINT64_C(1) << 42,
         UINT64_C(1) << 42                                                                      },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++) {
        struct tg_range r = tg_range_parse(t[i].header, t[i].size);

        if (r.kind != t[i].kind || r.off != t[i].off || r.len != t[i].len)
            fail_msg("%s of %llu", t[i].header, (unsigned long long)t[i].size);
    }
}

static void if_range_wants_the_same_strong_tag(void **state)
{
    (void)state;
    assert_int_equal(tg_range_decide("bytes=1-2", NULL, "\"a\"", 10).kind, TG_RANGE_PART);
    assert_int_equal(tg_range_decide("bytes=1-2", "\"a\"", "\"a\"", 10).kind, TG_RANGE_PART);
    assert_int_equal(tg_range_decide("bytes=1-2", "\"b\"", "\"a\"", 10).kind, TG_RANGE_NONE);
    assert_int_equal(tg_range_decide("bytes=1-2", "W/\"a\"", "W/\"a\"", 10).kind, TG_RANGE_NONE);
    assert_int_equal(tg_range_decide("bytes=1-2", "Sat, 1 Jan 2022 00:00:00 GMT", "\"a\"", 10).kind,
                     TG_RANGE_NONE);
    assert_int_equal(tg_range_decide(NULL, "\"a\"", "\"a\"", 10).kind, TG_RANGE_NONE);
    assert_int_equal(tg_range_decide("bytes=10-", "\"a\"", "\"a\"", 10).kind, TG_RANGE_BAD);
}

static void content_ranges_come_back(void **state)
{
    static const char *const bad[] = {
        "bytes 0-1/*", "bytes */10", "bytes 2-1/10", "bytes 0-10/10", "bytes 0-1",
        "bytes=0-1/2", "",           "bytes 0-1/2 "};
    char text[TG_RANGE_TEXT];
    struct tg_range r = {TG_RANGE_PART, 3, 4};
    uint64_t off = 7, len = 7, size = 7;

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_content_range_parse(bad[i], &off, &len, &size), TG_E_FORMAT);
    assert_true(off == 7 && len == 7 && size == 7);
    tg_range_format_content(&r, 10, text);
    assert_string_equal(text, "bytes 3-6/10");
    assert_ok(tg_content_range_parse(text, &off, &len, &size));
    assert_true(off == 3 && len == 4 && size == 10);
    r.kind = TG_RANGE_BAD;
    tg_range_format_content(&r, 10, text);
    assert_string_equal(text, "bytes */10");
    tg_range_format_request(5, 1, text);
    assert_string_equal(text, "bytes=5-5");
}

static void entity_tags(void **state)
{
    char tag[TG_ETAG_MAX], longest[TG_ETAG_MAX];

    (void)state;
    assert_ok(tg_etag_make("a1", tag));
    assert_string_equal(tag, "\"a1\"");
    assert_true(tg_etag_ok("\"\""));
    assert_false(tg_etag_ok("a"));
    assert_false(tg_etag_ok("W/\"a\""));
    assert_false(tg_etag_ok("\"a\"b"));
    assert_rc(tg_etag_make("a\"b", tag), TG_E_FORMAT);
    assert_rc(tg_etag_make("a b", tag), TG_E_FORMAT);
    memset(longest, 'a', sizeof(longest));
    longest[TG_ETAG_MAX - 2] = '\0';
    assert_rc(tg_etag_make(longest, tag), TG_E_FORMAT);
    longest[TG_ETAG_MAX - 3] = '\0';
    assert_ok(tg_etag_make(longest, tag));
    assert_true(tg_etag_ok(tag));
    assert_true(tg_etag_in("*", "\"a\""));
    assert_true(tg_etag_in("\"x\", \"a\"", "\"a\""));
    assert_true(tg_etag_in("W/\"a\"", "\"a\""));
    assert_false(tg_etag_in_strong("W/\"a\"", "\"a\""));
    assert_true(tg_etag_in_strong("W/\"a\",\"a\"", "\"a\""));
    assert_false(tg_etag_in("\"ab\"", "\"a\""));
    assert_false(tg_etag_in("a", "\"a\""));
    assert_false(tg_etag_in("\"x\" \"a\"", "\"a\""));
    assert_false(tg_etag_in("", "\"a\""));
    assert_false(tg_etag_in(NULL, "\"a\""));
}

/* --- the guard ------------------------------------------------------------------------------- */

static void the_guard_reads_a_head(void **state)
{
    struct tg_http_head head;
    const char *why = NULL;

    (void)state;
    assert_int_equal(
        tg_http_guard_check(
            tg_bytes_str("PUT /a?b HTTP/1.1\r\nHOST:h\r\ncontent-length:  042\t\r\n\r\n"), 64,
            &head, &why),
        0);
    assert_int_equal(head.method, TG_HTTP_PUT);
    assert_true(head.body == 42);
    assert_true(tg_bytes_eq(head.target, tg_bytes_str("/a?b")));
}

/* Whatever single byte is changed, cut or doubled, a head either is refused or still means the
 * same. */
static void no_single_change_smuggles_a_length(void **state)
{
    static const char good[] = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 42\r\nX: y\r\n\r\n";
    size_t n = sizeof(good) - 1;
    char text[sizeof(good) + 1];
    const char *why;

    (void)state;
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 256; c++) {
            struct tg_http_head head = {0};

            memcpy(text, good, n);
            text[i] = (char)c;
            if (tg_http_guard_check(tg_bytes_make(text, n), 64, &head, &why) != 0)
                continue;
            /* A length other than 42 only where a digit of it was changed, none only where its name
             * was. */
            if (head.body != 42 && (i < 27 || i > 44))
                fail_msg("byte %zu changed to %d: length %llu", i, c,
                         (unsigned long long)head.body);
        }
    for (size_t i = 0; i < n; i++) {
        struct tg_http_head head = {0};

        assert_int_not_equal(tg_http_guard_check(tg_bytes_make(good, i), 64, &head, &why), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(target_parts),
        cmocka_unit_test(target_refusals),
        cmocka_unit_test(target_limits),
        cmocka_unit_test(encoding_comes_back),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(problems_come_back),
        cmocka_unit_test(a_problem_of_broken_text_is_still_json),
        cmocka_unit_test(answers_without_details_still_say_something),
        cmocka_unit_test(ranges),
        cmocka_unit_test(if_range_wants_the_same_strong_tag),
        cmocka_unit_test(content_ranges_come_back),
        cmocka_unit_test(entity_tags),
        cmocka_unit_test(the_guard_reads_a_head),
        cmocka_unit_test(no_single_change_smuggles_a_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
