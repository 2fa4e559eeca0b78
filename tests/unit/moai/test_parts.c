#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tg_cmocka.h"
#include "moai/control.h"
#include "moai/metrics.h"
#include "moai/service.h"

static struct tg_err err;

static void routes_are_those_of_the_protocol(void **state)
{
    static const struct {
        const char *path;
        enum tg_route route;
        const char *model, *version;
    } rows[] = {
        {"/v2",                                   TG_ROUTE_SERVER,      NULL,       NULL      },
        {"/v2/",                                  TG_ROUTE_SERVER,      NULL,       NULL      },
        {"/v2/health/live",                       TG_ROUTE_LIVE,        NULL,       NULL      },
        {"/v2/health/ready",                      TG_ROUTE_READY,       NULL,       NULL      },
        {"/metrics",                              TG_ROUTE_METRICS,     NULL,       NULL      },
        {"/v2/models/net",                        TG_ROUTE_MODEL,       "net",      NULL      },
        {"/v2/models/net/ready",                  TG_ROUTE_MODEL_READY, "net",      NULL      },
        {"/v2/models/net/infer",                  TG_ROUTE_MODEL_INFER, "net",      NULL      },
        {"/v2/models/net/versions/1",             TG_ROUTE_MODEL,       "net",      "1"       },
        {"/v2/models/net/versions/1/ready",       TG_ROUTE_MODEL_READY, "net",      "1"       },
        {"/v2/models/net/versions/1/infer",       TG_ROUTE_MODEL_INFER, "net",      "1"       },
        {"/v2/models/ready",                      TG_ROUTE_MODEL,       "ready",    NULL      },
        {"/v2/models/ready/ready",                TG_ROUTE_MODEL_READY, "ready",    NULL      },
        {"/v2/models/versions/versions/versions", TG_ROUTE_MODEL,       "versions", "versions"},
        {"/",                                     TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models",                            TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/",                           TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/net/",                       TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/net/versions",               TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/net/versions/",              TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/net/infer/x",                TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/models/net/train",                  TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v2/health",                            TG_ROUTE_NONE,        NULL,       NULL      },
        {"/v3",                                   TG_ROUTE_NONE,        NULL,       NULL      },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_route_match m = tg_route_parse(rows[i].path);

        if (m.route != rows[i].route)
            fail_msg("%s: route %d", rows[i].path, (int)m.route);
        if (rows[i].route == TG_ROUTE_NONE)
            continue;
        assert_int_equal(m.model.p != NULL, rows[i].model != NULL);
        assert_int_equal(m.version.p != NULL, rows[i].version != NULL);
        if (rows[i].model != NULL)
            assert_true(tg_bytes_eq(m.model, tg_bytes_str(rows[i].model)));
        if (rows[i].version != NULL)
            assert_true(tg_bytes_eq(m.version, tg_bytes_str(rows[i].version)));
    }
}

static void only_infer_takes_a_body(void **state)
{
    (void)state;
    assert_true(tg_service_limit(NULL, TG_HTTP_POST, "/v2/models/net/infer", NULL) > 0);
    assert_true(tg_service_limit(NULL, TG_HTTP_GET, "/v2/models/net/infer", NULL) == 0);
    assert_true(tg_service_limit(NULL, TG_HTTP_POST, "/v2/models/net", NULL) == 0);
    assert_true(tg_service_limit(NULL, TG_HTTP_POST, "/metrics", NULL) == 0);
}

#define LABELS "{model=\"a\\\"b\\\\c\\nd\",version=\"1\"} "

static void metrics_are_prometheus_text(void **state)
{
    static const char *const native[] = {
        "# TYPE tensorguard_native_call_success counter\n"
        "tensorguard_native_call_success" LABELS "71\n",
        "tensorguard_native_call_failure" LABELS "72\n",
        "# TYPE tensorguard_handover_count counter\ntensorguard_handover_count" LABELS "73\n",
        "tensorguard_handover_bytes" LABELS "74\n",
        "# TYPE tensorguard_native_clients gauge\ntensorguard_native_clients" LABELS "75\n",
        "tensorguard_handover_held_bytes" LABELS "76\n",
    };
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(65536);
    const struct tg_metrics m = {.success = 3,
                                 .infer_ns = 4500,
                                 .native_success = 71,
                                 .native_failure = 72,
                                 .handed = 73,
                                 .handed_bytes = 74};
    const struct tg_metrics_facts f = {
        .model = "a\"b\\c\nd",
        .version = "1",
        .ready = true,
        .native_clients = 75,
        .held_bytes = 76,
        .region = {.level = TG_LEVEL_LOCKED, .committed = 4096, .used = 100}
    };

    (void)state;
    assert_ok(tg_metrics_write(&m, &f, &b));
    assert_contains(tg_buf_cstr(&b),
                    "# TYPE tensorguard_inference_request_success counter\n"
                    "tensorguard_inference_request_success{model=\"a\\\"b\\\\c\\nd\","
                    "version=\"1\"} 3\n");
    assert_contains(tg_buf_cstr(&b), "tensorguard_inference_compute_infer_duration_us{model=");
    assert_contains(tg_buf_cstr(&b), "version=\"1\"} 4\n");
    for (size_t i = 0; i < TG_ARRAY_LEN(native); i++)
        assert_contains(tg_buf_cstr(&b), native[i]);
    assert_contains(tg_buf_cstr(&b), "# TYPE tensorguard_locked_bytes gauge\n");
    assert_contains(tg_buf_cstr(&b), "version=\"1\"} 4096\n");
    assert_contains(tg_buf_cstr(&b),
                    "tensorguard_memory_protection{model=\"a\\\"b\\\\c\\nd\",version=\"1\"} 1\n");
}

static void commands_are_read_strictly(void **state)
{
    enum tg_control_command c = TG_CONTROL_COMMANDS;

    (void)state;
    assert_ok(tg_control_decode(tg_bytes_str("{\"command\":\"serve\"}"), &c, &err));
    assert_int_equal(c, TG_CONTROL_SERVE);
    assert_ok(tg_control_decode(tg_bytes_str("{\"command\":\"drain\"}"), &c, &err));
    assert_int_equal(c, TG_CONTROL_DRAIN);
    assert_ok(tg_control_decode(tg_bytes_str("{\"command\":\"ping\"}"), &c, &err));
    assert_int_equal(c, TG_CONTROL_PING);
    assert_rc(tg_control_decode(tg_bytes_str("{\"command\":\"run\"}"), &c, &err), TG_E_FORMAT);
    assert_rc(tg_control_decode(tg_bytes_str("{}"), &c, &err), TG_E_FORMAT);
    assert_rc(tg_control_decode(tg_bytes_str("{\"command\":\"serve\",\"x\":1}"), &c, &err),
              TG_E_FORMAT);
    assert_rc(tg_control_decode(tg_bytes_str("serve"), &c, &err), TG_E_FORMAT);
}

static void messages_keep_their_bounds(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX + 1);
    static char big[TG_CONTROL_MAX + 1];
    int pair[2], size = 4 * TG_CONTROL_MAX;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    assert_rc(tg_control_recv(pair[1], &b, &err), TG_E_AGAIN);
    assert_ok(tg_control_send(pair[0], tg_bytes_str("one"), &err));
    assert_ok(tg_control_send(pair[0], tg_bytes_str("two"), &err));
    assert_ok(tg_control_recv(pair[1], &b, &err));
    assert_string_equal(tg_buf_cstr(&b), "one");
    assert_int_equal(send(pair[0], big, sizeof(big), 0), sizeof(big));
    assert_ok(tg_control_recv(pair[1], &b, &err));
    assert_rc(tg_control_recv(pair[1], &b, &err), TG_E_LIMIT);
    close(pair[0]);
    assert_rc(tg_control_recv(pair[1], &b, &err), TG_E_CLOSED);
    assert_rc(tg_control_send(pair[1], tg_bytes_str("x"), &err), TG_E_CLOSED);
    close(pair[1]);
}

/* A failure's text may quote a package and be cut in the middle of a character. */
static void any_reason_can_be_told(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_CONTROL_MAX);
    struct tg_err why = TG_ERR_INIT;

    (void)state;
    why.rc = TG_E_AUTH;
    memset(why.msg, 'x', sizeof(why.msg) - 1);
    why.msg[sizeof(why.msg) - 2] = (char)0xc3;
    assert_ok(tg_control_encode_failed(&why, &b, &err));
    assert_contains(tg_buf_cstr(&b), "\"code\":\"AUTH\"");
    tg_buf_clear(&b);
    strcpy(why.msg, "a \"quoted\"\n\xc3\xa9 name");
    assert_ok(tg_control_encode_failed(&why, &b, &err));
    assert_contains(tg_buf_cstr(&b), "a \\\"quoted\\\"\\n");
}

/* ---- which file is run ---- */

static enum tg_rc pick(int format, const char *named, const char *const *paths, const char **got)
{
    struct tg_tgsp_file files[8];
    struct tg_jpair pair = {"model_file", named};
    struct tg_tgsp_manifest m = {.model = {.format = format}};
    const struct tg_tgsp_file *out = NULL;

    memset(files, 0, sizeof(files));
    for (; paths[m.files.n] != NULL; m.files.n++)
        files[m.files.n].path = paths[m.files.n];
    m.files.items = files;
    if (named != NULL)
        m.model.metadata = (struct tg_jlist){&pair, 1};
    TG_TRY(tg_model_pick(&m, &out, &err));
    *got = out->path;
    return TG_OK;
}

static void the_model_file_is_found_by_rules(void **state)
{
    static const char *const one[] = {"a/Net.ONNX", "golden/other.onnx", "labels.txt", NULL};
    static const char *const two[] = {"a.onnx", "model.onnx", NULL};
    static const char *const unclear[] = {"a.onnx", "b.onnx", NULL};
    static const char *const none[] = {"labels.txt", NULL};
    const char *got = "";

    (void)state;
    assert_ok(pick(TG_MODEL_ONNX, NULL, one, &got));
    assert_string_equal(got, "a/Net.ONNX");
    assert_ok(pick(TG_MODEL_ONNX, NULL, two, &got));
    assert_string_equal(got, "model.onnx");
    assert_ok(pick(TG_MODEL_ONNX, "b.onnx", unclear, &got));
    assert_string_equal(got, "b.onnx");
    assert_rc(pick(TG_MODEL_ONNX, NULL, unclear, &got), TG_E_FORMAT);
    assert_contains(err.msg, "2 .onnx files");
    assert_rc(pick(TG_MODEL_ONNX, NULL, none, &got), TG_E_FORMAT);
    assert_rc(pick(TG_MODEL_ONNX, "c.onnx", unclear, &got), TG_E_FORMAT);
    assert_contains(err.msg, "c.onnx");
    assert_rc(pick(TG_MODEL_PYTORCH, NULL, two, &got), TG_E_UNSUPPORTED);
    assert_contains(err.msg, "'pytorch'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_are_those_of_the_protocol),
        cmocka_unit_test(only_infer_takes_a_body),
        cmocka_unit_test(metrics_are_prometheus_text),
        cmocka_unit_test(commands_are_read_strictly),
        cmocka_unit_test(messages_keep_their_bounds),
        cmocka_unit_test(any_reason_can_be_told),
        cmocka_unit_test(the_model_file_is_found_by_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
