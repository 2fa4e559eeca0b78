#include <stdlib.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "tensor/oip.h"

static struct tg_err err;

static enum tg_rc parse_with(const char *json, const void *bin, size_t n, struct tg_oip **m)
{
    *m = NULL;
    return tg_oip_parse(TG_OIP_REQUEST, tg_bytes_str(json), tg_bytes_make(bin, n), m, &err);
}

static enum tg_rc parse(const char *json, struct tg_oip **m)
{
    return parse_with(json, "", 0, m);
}

static const char one[] = "{\"id\":\"a\\u00e9\",\"inputs\":[{\"name\":\"x\",\"shape\":[2,2],"
                          "\"datatype\":\"FP32\",\"data\":[1,2.5,-3e0,0.1]}]}";

static void a_plain_request(void **state)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;
    static const float want[] = {1.0f, 2.5f, -3.0f, 0.1f};

    (void)state;
    assert_ok(parse(one, &m));
    assert_true(m->has_id);
    assert_string_equal(m->id, "a\xc3\xa9");
    assert_int_equal(m->n, 1);
    assert_string_equal(m->tensors[0].name, "x");
    assert_int_equal(m->tensors[0].data.n, sizeof(want));
    assert_memory_equal(m->tensors[0].data.p, want, sizeof(want));
    assert_int_equal(m->n_wanted, 0);
}

/* Members in any order, nested data, unknown members and parameters skipped, white space. */
static void liberal_where_the_protocol_is(void **state)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;

    (void)state;
    assert_ok(
        parse(" { \"x\" : [{\"deep\":[1,null,true,\"s\\n\"]},{}],\"outputs\":[{\"name\":\"a\","
              "\"parameters\":{\"binary_data\":false,\"classification\":3}},{\"name\":\"b\"}],"
              "\"inputs\":[{\"data\":[[[1,2,3]],[[4,5,6]]],\"parameters\":{\"p\":1.5e3},"
              "\"datatype\":\"INT8\",\"name\":\"x\",\"shape\":[2,1,3]}],"
              "\"parameters\":{\"sequence_id\":7,\"binary_data_output\":true}}\r\n",
              &m));
    assert_memory_equal(m->tensors[0].data.p, "\1\2\3\4\5\6", 6);
    assert_int_equal(m->n_wanted, 2);
    assert_false(m->wanted[0].binary);
    assert_true(m->wanted[1].binary);
    assert_true(m->binary_outputs);
}

static void every_type_in_json(void **state)
{
    static const struct {
        const char *type, *data;
        size_t n;
        const char *bytes;
    } rows[] = {
        {"BOOL",   "true,false",             2,  "\1\0"                                  },
        {"UINT8",  "255,0",                  2,  "\xff\0"                                },
        {"UINT16", "65535,1",                4,  "\xff\xff\1\0"                          },
        {"UINT32", "4294967295,1",           8,  "\xff\xff\xff\xff\1\0\0\0"              },
        {"UINT64", "18446744073709551615,1", 16,
         "\xff\xff\xff\xff\xff\xff\xff\xff\1\0\0\0\0\0\0\0"                              },
        {"INT8",   "-128,127",               2,  "\x80\x7f"                              },
        {"INT16",  "-32768,-1",              4,  "\0\x80\xff\xff"                        },
        {"INT32",  "-2147483648,2",          8,  "\0\0\0\x80\2\0\0\0"                    },
        {"INT64",  "-9223372036854775808,2", 16, "\0\0\0\0\0\0\0\x80\2\0\0\0\0\0\0\0"    },
        {"FP16",   "1,-2",                   4,  "\x00\x3c\x00\xc0"                      },
        {"FP32",   "1,-2",                   8,  "\0\0\x80\x3f\0\0\0\xc0"                },
        {"FP64",   "1,-2",                   16, "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0"},
        {"BYTES",  "\"a\\u0062\",\"\"",      10, "\2\0\0\0ab\0\0\0\0"                    },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;
        TG_AUTO(tg_buf_done) struct tg_buf j = TG_BUF_INIT(4096);

        assert_ok(tg_buf_printf(&j,
                                "{\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"%s\","
                                "\"data\":[%s]}]}",
                                rows[i].type, rows[i].data));
        assert_ok(parse(tg_buf_cstr(&j), &m));
        assert_int_equal(m->tensors[0].data.n, rows[i].n);
        assert_memory_equal(m->tensors[0].data.p, rows[i].bytes, rows[i].n);
    }
}

#define T(rest) "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\"," rest "}]}"
#define TI(type, data)                                                                             \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"" type "\",\"data\":[" data "]}]}"

static const struct {
    const char *json;
    enum tg_rc rc;
    const char *why;
} bad[] = {
    {"",                                                                            TG_E_FORMAT, "expected an object"},
    {"[]",                                                                          TG_E_FORMAT, "expected an object"},
    {"{}",                                                                          TG_E_FORMAT, "'inputs' is required"},
    {"{\"inputs\":{}}",                                                             TG_E_FORMAT, "must be an array"},
    {"{\"inputs\":[]} x",                                                           TG_E_FORMAT, "text after"},
    {"{\"inputs\":[],\"inputs\":[]}",                                               TG_E_FORMAT, "twice"},
    {"{\"inputs\":[1]}",                                                            TG_E_FORMAT, "expected an object"},
    {"{\"id\":5,\"inputs\":[]}",                                                    TG_E_FORMAT, "id must be a string"},
    {"{\"id\":\"\\ud800\",\"inputs\":[]}",                                          TG_E_FORMAT, "id must be a string"},
    {"{\"id\":\"\\u0000\",\"inputs\":[]}",                                          TG_E_FORMAT, "id must be a string"},
    {"{\"id\":\"\xff\",\"inputs\":[]}",                                             TG_E_FORMAT, "id must be a string"},
    {T("\"shape\":[2],\"data\":[1,2],\"data\":[1,2]"),                              TG_E_FORMAT, "twice"},
    {T("\"data\":[1,2]"),                                                           TG_E_FORMAT, "inputs[0]: name, datatype and shape"},
    {T("\"shape\":[2]"),                                                            TG_E_FORMAT, "either data or"},
    {T("\"shape\":[2],\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}"),     TG_E_FORMAT,
     "either data or"},
    {T("\"shape\":[2],\"parameters\":{\"binary_data_size\":8}"),                    TG_E_FORMAT, "0 bytes are left"},
    {T("\"shape\":[2],\"parameters\":{\"binary_data_size\":-8}"),                   TG_E_FORMAT, "whole number"},
    {T("\"shape\":[2],\"parameters\":{\"binary_data_size\":99999999999999999999}"), TG_E_FORMAT,
     "whole number"},
    {T("\"shape\":[2],\"data\":[1]"),                                               TG_E_FORMAT, "2 elements"},
    {T("\"shape\":[2],\"data\":[1,2,3]"),                                           TG_E_FORMAT, "2 elements"},
    {T("\"shape\":[2],\"data\":[]"),                                                TG_E_FORMAT, "2 elements"},
    {T("\"shape\":[2],\"data\":[1,2,]"),                                            TG_E_FORMAT, "not a JSON value"},
    {T("\"shape\":[2],\"data\":[[1,2]]"),                                           TG_E_FORMAT, "data[0]"},
    {T("\"shape\":[2,2],\"data\":[[1,2],[3]]"),                                     TG_E_FORMAT, "4 elements"},
    {T("\"shape\":[2,2],\"data\":[[1,2],[3,4,5]]"),                                 TG_E_FORMAT, "4 elements"},
    {T("\"shape\":[2,2],\"data\":[1,2,[3,4]]"),                                     TG_E_FORMAT, "data[2]"},
    {T("\"shape\":[2,2],\"data\":[[1,2],3,4]"),                                     TG_E_FORMAT, "4 elements"},
    {T("\"shape\":[2],\"data\":5"),                                                 TG_E_FORMAT, "data must be an array"},
    {T("\"shape\":[-1],\"data\":[]"),                                               TG_E_FORMAT, "whole number"},
    {T("\"shape\":[1.5],\"data\":[]"),                                              TG_E_FORMAT, "whole number"},
    {T("\"shape\":2,\"data\":[1,2]"),                                               TG_E_FORMAT, "array of sizes"},
    {T("\"shape\":[4294967296,4294967296,4294967296],\"data\":[1]"),                TG_E_LIMIT,  "too many"},
    {T("\"shape\":[100000000],\"data\":[1]"),                                       TG_E_FORMAT, "100000000 elements"},
    {T("\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"data\":[1]"),               TG_E_LIMIT,  "16 dimensions"},
    {T("\"shape\":[2],\"data\":[NaN,1]"),                                           TG_E_FORMAT, "not a JSON value"},
    {T("\"shape\":[2],\"data\":[Infinity,1]"),                                      TG_E_FORMAT, "not a JSON value"},
    {T("\"shape\":[2],\"data\":[1e39,1]"),                                          TG_E_LIMIT,  "data[0]: outside the range of FP32"},
    {T("\"shape\":[2],\"data\":[1,null]"),                                          TG_E_FORMAT, "data[1]"},
    {T("\"shape\":[2],\"data\":[1,\"2\"]"),                                         TG_E_FORMAT, "data[1]"},
    {T("\"shape\":[2],\"data\":[1,true]"),                                          TG_E_FORMAT, "data[1]"},
    {TI("BF16",                                                                     "1,2"),      TG_E_FORMAT,"datatype: unknown"},
    {TI("fp32",                                                                             "1,2"),                                                                                TG_E_FORMAT,"datatype: unknown"},
    {TI("INT8",                                                          "1,128"),                                                                     TG_E_LIMIT,                                                                "data[1]: outside the range of INT8"},
    {TI("INT8",                                                                   "1,2.0"),TG_E_FORMAT,"data[1]"},
    {TI("UINT8",   "-1,2"),                              TG_E_LIMIT,                                                                                                               "data[0]"},
    {TI("BOOL",                                                                    "1,0"),                                                                      TG_E_FORMAT,"not true or false"},
    {TI("BYTES",                                                                             "1,\"a\""),                                                                                TG_E_FORMAT,"not a JSON string"},
    {"{\"inputs\":[{\"name\":\"x\",\"shape\":[0],\"datatype\":\"FP32\",\"data\":[]},"
     "{\"name\":\"x\",\"shape\":[0],\"datatype\":\"FP32\",\"data\":[]}]}",                                                          TG_E_FORMAT,                                                                     "same name"                             },
    {"{\"inputs\":[],\"outputs\":[{\"name\":\"x\"},{\"name\":\"x\"}]}",                                                                  TG_E_FORMAT,"same name"},
    {"{\"inputs\":[],\"outputs\":[{}]}",         TG_E_FORMAT,"name is required"},
    {"{\"inputs\":[],\"outputs\":[\"x\"]}", TG_E_FORMAT,                       "expected an object"},
    {"{\"inputs\":[],\"parameters\":{\"binary_data_output\":1}}",                                                          TG_E_FORMAT,                                                                                                               "true or false"                                                                                                                                                                                                       },
    {"{\"inputs\":[],\"parameters\":5}",                                                                  TG_E_FORMAT,                                   "expected an object"},
};

static void bad_bodies_are_refused_with_the_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;
        enum tg_rc rc = parse(bad[i].json, &m);

        if (rc != bad[i].rc || strstr(err.msg, bad[i].why) == NULL)
            fail_msg("%s: %s: %s", bad[i].json, tg_rc_name(rc), err.msg);
        assert_null(m);
    }
}

static void depth_bombs_are_refused(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf j = TG_BUF_INIT(1 << 20);
    TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;

    (void)state;
    assert_ok(tg_buf_str(&j, "{\"x\":"));
    for (int i = 0; i < 100000; i++)
        assert_ok(tg_buf_u8(&j, '['));
    assert_rc(parse(tg_buf_cstr(&j), &m), TG_E_LIMIT);
    assert_contains(err.msg, "too deep");
}

static void cut_anywhere_is_an_error(void **state)
{
    (void)state;
    for (size_t n = 0; n + 1 < sizeof(one); n++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;
        uint8_t *cut = malloc(n + 1);

        memcpy(cut, one, n);
        assert_rc(tg_oip_parse(TG_OIP_REQUEST, tg_bytes_make(cut, n), TG_BYTES_NONE, &m, &err),
                  TG_E_FORMAT);
        free(cut);
    }
}

static void binary_data_follows_the_json(void **state)
{
    static const char json[] =
        "{\"inputs\":[{\"name\":\"a\",\"shape\":[2],\"datatype\":\"UINT8\",\"parameters\":"
        "{\"binary_data_size\":2}},{\"name\":\"j\",\"shape\":[1],\"datatype\":\"UINT8\",\"data\":["
        "9]},"
        "{\"name\":\"s\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":"
        "{\"binary_data_size\":9}}]}";
    static const char bin[] = "\7\x8\1\0\0\0z\0\0\0\0";
    TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;

    (void)state;
    assert_ok(parse_with(json, bin, 11, &m));
    assert_memory_equal(m->tensors[0].data.p, "\7\x8", 2);
    assert_memory_equal(m->tensors[1].data.p, "\x9", 1);
    assert_int_equal(m->tensors[2].data.n, 9);
    tg_oip_freep(&m);
    assert_rc(parse_with(json, bin, 10, &m), TG_E_FORMAT);
    assert_contains(err.msg, "inputs[2]");
    assert_rc(parse_with(json, bin, sizeof(bin), &m), TG_E_FORMAT);
    assert_contains(err.msg, "belong to no tensor");
    assert_rc(parse_with(json, "\7\x8\1\0\0\0z\1\0\0\0", 11, &m), TG_E_FORMAT);
    assert_contains(err.msg, "string 1 of 2");
}

static void binary_sizes_must_fit_the_shape(void **state)
{
    TG_AUTO(tg_oip_freep) struct tg_oip *m = NULL;

    (void)state;
    assert_rc(parse_with(T("\"shape\":[2],\"parameters\":{\"binary_data_size\":4}"), "abcd", 4, &m),
              TG_E_FORMAT);
    assert_contains(err.msg, "FP32 [2] takes 8");
}

/* Writing and reading are inverse, in both forms, for replies as for requests. */
static void round_trip(void **state)
{
    static const float f[] = {0.1f, -1e-30f, 3.4028234e38f};
    static const uint8_t s[] = "\3\0\0\0a\"b\0\0\0\0\1\0\0\0z";

    (void)state;
    for (int binary = 0; binary < 2; binary++) {
        TG_AUTO(tg_oip_freep) struct tg_oip *m = tg_oip_new(TG_OIP_REPLY);
        TG_AUTO(tg_oip_freep) struct tg_oip *back = NULL;
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
        size_t len = 0;
        bool has = false;

        strcpy(m->model_name, "net");
        strcpy(m->model_version, "1");
        m->n = 2;
        m->tensors[0] = (struct tg_oip_tensor){
            .name = "y\"",
            .dtype = TG_DT_FP32,
            .shape = {{1, 3}, 2},
            .data = TG_BYTES_OF(f),
            .binary = binary != 0
        };
        m->tensors[1] = (struct tg_oip_tensor){
            .name = "s",
            .dtype = TG_DT_BYTES,
            .shape = {{3}, 1 },
            .data = {s,   16},
            .binary = binary != 0
        };
        assert_ok(tg_oip_write(m, &b, &len, &has, &err));
        assert_int_equal(has, binary);
        assert_int_equal(b.n - len, binary != 0 ? 28 : 0);
        assert_ok(tg_oip_parse(TG_OIP_REPLY, tg_bytes_sub(tg_buf_view(&b), 0, len),
                               tg_bytes_sub(tg_buf_view(&b), len, b.n), &back, &err));
        assert_string_equal(back->model_name, "net");
        assert_string_equal(back->tensors[0].name, "y\"");
        assert_memory_equal(back->tensors[0].data.p, f, sizeof(f));
        assert_memory_equal(back->tensors[1].data.p, s, 16);
    }
}

static void json_replies_cannot_carry_nan(void **state)
{
    static const float f[] = {0x1p127f * 4.0f};
    TG_AUTO(tg_oip_freep) struct tg_oip *m = tg_oip_new(TG_OIP_REPLY);
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(4096);
    size_t len;
    bool has;

    (void)state;
    m->n = 1;
    m->tensors[0] = (struct tg_oip_tensor){
        .name = "y", .dtype = TG_DT_FP32, .shape = {{1}, 1},
                .data = TG_BYTES_OF(f)
    };
    assert_rc(tg_oip_write(m, &b, &len, &has, &err), TG_E_UNSUPPORTED);
    assert_contains(err.msg, "binary_data");
}

/* Fail every allocation in turn: the right code, nothing leaked (a sanitizer build sees it). */
static void out_of_memory_everywhere(void **state)
{
    enum tg_rc rc = TG_E_NOMEM;

    (void)state;
    for (uint64_t i = 1; rc != TG_OK; i++) {
        struct tg_oip *m = NULL;

        assert_true(i < 100);
        tg_mem_fault_set(i, 0);
        rc = parse(one, &m);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM);
        tg_oip_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request),
        cmocka_unit_test(liberal_where_the_protocol_is),
        cmocka_unit_test(every_type_in_json),
        cmocka_unit_test(bad_bodies_are_refused_with_the_place),
        cmocka_unit_test(depth_bombs_are_refused),
        cmocka_unit_test(cut_anywhere_is_an_error),
        cmocka_unit_test(binary_data_follows_the_json),
        cmocka_unit_test(binary_sizes_must_fit_the_shape),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(json_replies_cannot_carry_nan),
        cmocka_unit_test(out_of_memory_everywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
