#include <stdio.h>
#include <string.h>

#include "../tg_cmocka.h"
#include "codec/json.h"

static struct tg_err err;

enum colour { RED, GREEN };

struct inner {
    const char *path;
    uint64_t size;
};

struct doc {
    const char *name;
    uint64_t n;
    bool on;
    int64_t when;
    uint8_t id[3];
    uint8_t digest[2];
    struct tg_bytes blob;
    int colour;
    struct inner in;
    struct tg_jlist files; /* struct inner */
    struct tg_jlist tags;
    struct tg_jlist meta;
    struct tg_bytes raw;
    const char *note;
    bool has_limit;
    uint64_t limit;
};

static const char *const colours[] = {"red", "green", NULL};

static const struct tg_jfield inner_fields[] = {
    TG_J_STR(struct inner, path, 1, 8, TG_J_REQ),
    TG_J_U64(struct inner, size, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
static const struct tg_jschema inner_schema =
    TG_J_SCHEMA(struct inner, inner_fields, TG_J_REFUSE_UNKNOWN);

static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, name, 1, 16, TG_J_REQ),
    TG_J_U64(struct doc, n, 1, 100, TG_J_REQ),
    TG_J_BOOL(struct doc, on, TG_J_REQ),
    TG_J_TIME(struct doc, when, TG_J_REQ),
    TG_J_FIXED(struct doc, id, TG_J_REQ),
    TG_J_HEX(struct doc, digest, TG_J_REQ),
    TG_J_BYTES(struct doc, blob, 0, 8, TG_J_REQ),
    TG_J_ENUM(struct doc, colour, colours, TG_J_REQ),
    TG_J_OBJ(struct doc, in, &inner_schema, TG_J_REQ),
    TG_J_OBJS(struct doc, files, &inner_schema, 0, 3, TG_J_REQ),
    TG_J_STRS(struct doc, tags, 0, 3, TG_J_SKIP0),
    TG_J_MAP(struct doc, meta, 0, 2, TG_J_SKIP0),
    TG_J_RAW(struct doc, raw, 64, TG_J_OPT),
    TG_J_STR(struct doc, note, 0, 16, TG_J_OPT),
    {.name = "limit",
                                         .type = TG_JT_U64,
                                         .flags = TG_J_OPT,
                                         .off = offsetof(struct doc, limit),
                                         .has_off = offsetof(struct doc, has_limit),
                                         .max = 10,
                                         .sub = {NULL}},
};
static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_IGNORE_UNKNOWN);

struct skipped {
    const char *kept, *left_out;
};

static const struct tg_jfield skipped_fields[] = {
    TG_J_STR(struct skipped, kept, 0, 8, TG_J_OPT),
    TG_J_STR(struct skipped, left_out, 1, 8, TG_J_SKIP0),
};
static const struct tg_jschema skipped_schema =
    TG_J_SCHEMA(struct skipped, skipped_fields, TG_J_REFUSE_UNKNOWN);

static const char full[] =
    "{\"name\":\"r\\u00e9n\\u00e9\",\"n\":7,\"on\":true,\"when\":\"2026-01-31T12:00:00Z\",\"id\":"
    "\"AQID\","
    "\"digest\":\"beef\",\"blob\":\"_w\",\"colour\":\"green\",\"in\":{\"path\":\"a\",\"size\":0},"
    "\"files\":[{\"path\":\"x\",\"size\":9007199254740991},{\"path\":\"y\",\"size\":1}],"
    "\"tags\":[\"p\",\"q\"],\"meta\":{\"k\":\"v\"},\"raw\":{\"z\":[1,2]},\"limit\":0}";

static enum tg_rc decode(const char *text, struct tg_arena **arena, struct doc *d)
{
    assert_ok(tg_arena_new(1 << 16, arena));
    return tg_json_decode(&doc_schema, tg_bytes_str(text), "doc", *arena, d, &err);
}

static void every_type_decodes(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    const struct inner *files;
    struct doc d;

    (void)state;
    assert_ok(decode(full, &arena, &d));
    assert_string_equal(d.name, "r\xc3\xa9n\xc3\xa9");
    assert_true(d.n == 7 && d.on && d.when == 1769860800);
    assert_memory_equal(d.id, "\1\2\3", 3);
    assert_memory_equal(d.digest, "\xbe\xef", 2);
    assert_true(d.blob.n == 1 && d.blob.p[0] == 0xff);
    assert_int_equal(d.colour, GREEN);
    assert_string_equal(d.in.path, "a");
    files = d.files.items;
    assert_int_equal(d.files.n, 2);
    assert_true(files[0].size == TG_JSON_INT_MAX);
    assert_string_equal(((const char **)d.tags.items)[1], "q");
    assert_string_equal(((const struct tg_jpair *)d.meta.items)[0].value, "v");
    assert_true(tg_bytes_eq(d.raw, tg_bytes_str("{\"z\":[1,2]}")));
    assert_null(d.note);
    assert_true(d.has_limit && d.limit == 0);
}

static void what_was_decoded_encodes_to_the_same(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    TG_AUTO(tg_arena_freep) struct tg_arena *arena2 = NULL;
    struct tg_buf out = TG_BUF_INIT(4096), again = TG_BUF_INIT(4096);
    struct doc d;

    (void)state;
    assert_ok(decode(full, &arena, &d));
    assert_ok(tg_json_encode(&doc_schema, &d, &out, &err));
    assert_ok(decode(tg_buf_cstr(&out), &arena2, &d));
    assert_ok(tg_json_encode(&doc_schema, &d, &again, &err));
    assert_string_equal(tg_buf_cstr(&out), tg_buf_cstr(&again));
    tg_buf_done(&out);
    tg_buf_done(&again);
}

/* Replace the first `from` in the full document by `to`, expect a refusal that says `says`. */
static void refuse(const char *from, const char *to, const char *says)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct doc d, before;
    char text[4096];
    const char *at = strstr(full, from);

    assert_non_null(at);
    (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - full), full, to, at + strlen(from));
    memset(&d, 0x77, sizeof(d));
    before = d;
    assert_rc(decode(text, &arena, &d), TG_E_FORMAT);
    assert_contains(err.msg, says);
    assert_memory_equal(&d, &before, sizeof(d));
}

static void wrong_values_are_named_with_their_path(void **state)
{
    static const char *const rows[][3] = {
        {"\"n\":7",        "\"n\":0",                           "doc.n: 0 is not in 1 to 100"      },
        {"\"n\":7",        "\"n\":\"7\"",                       "doc.n: must be an integer"        },
        {"\"n\":7",        "\"n\":7.0",                         "without sign"                     },
        {"\"n\":7",        "\"n\":-7",                          "without sign"                     },
        {"\"n\":7",        "\"n\":7e0",                         "without sign"                     },
        {"\"n\":7",        "\"n\":007",                         "leading zero"                     },
        {"\"n\":7",        "\"n\":9007199254740992",            "above 2^53-1"                     },
        {"\"n\":7",        "\"n\":99999999999999999999999999",  "above 2^53-1"                     },
        {"\"n\":7",        "\"n\":null",                        "doc.n"                            },
        {"\"n\":7,",       "",                                  "doc.n: is missing"                },
        {"\"on\":true",    "\"on\":1",                          "doc.on"                           },
        {"\"name\":\"r",   "\"name\":\"0123456789abcdef",       "doc.name: string of"              },
        {"12:00:00Z",      "12:00:00",                          "doc.when"                         },
        {"\"AQID\"",       "\"AQIDBA\"",                        "doc.id: must be 3 bytes"          },
        {"\"AQID\"",       "\"AQI=\"",                          "doc.id"                           },
        {"beef",           "BEEF",                              "doc.digest"                       },
        {"\"_w\"",         "\"_x\"",                            "doc.blob"                         },
        {"\"_w\"",         "\"AAAAAAAAAAAA\"",                  "doc.blob"                         },
        {"green",          "blue",                              "doc.colour: 'blue'"               },
        {"\"path\":\"y\"", "\"path\":\"\"",                     "doc.files[1].path"                },
        {"\"path\":\"a\"", "\"path\":\"a\",\"more\":1",         "doc.in.more: is not a known field"},
        {"[\"p\",\"q\"]",  "[\"p\",3]",                         "doc.tags[1]"                      },
        {"[\"p\",\"q\"]",  "[\"p\",\"q\",\"r\",\"s\"]",         "doc.tags: 4 entries"              },
        {"{\"k\":\"v\"}",  "{\"k\":1}",                         "doc.meta.k"                       },
        {"{\"name\"",      "[{\"name\"",                        "doc"                              },
        {"\"on\":true",    "\"on\":true,\"on\":true",           "duplicate"                        },
        {"\"on\":true",    "\"on\":true,\"o\\u006e\":true",     "duplicate"                        },
        {"\"p\"",          "\"\\u0000\"",                       "doc"                              },
        {"\"p\"",          "\"\\ud800\"",                       "doc"                              },
        {"\"p\"",          "\"\xed\xa0\x80\"",                  "doc"                              },
        {"\"p\"",          "\"\xff\"",                          "doc"                              },
        {"{\"z\":[1,2]}",  "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "deeper than 16"                   },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++)
        refuse(rows[i][0], rows[i][1], rows[i][2]);
}

static void texts_that_are_not_one_object_are_refused(void **state)
{
    static const char *const bad[] = {
        "",      " ",        "[]",     "1",    "\"a\"",          "null",
        "{} {}", "{}x",      "{",      "{\"a", "\xef\xbb\xbf{}", "{,}",
        "{a:1}", "{\"a\":}", "{'a':1}"};

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        assert_rc(tg_json_check(tg_bytes_str(bad[i]), "text", &err), TG_E_FORMAT);
    assert_rc(tg_json_check(tg_bytes_make("{}\0", 3), "text", &err), TG_E_FORMAT);
    assert_ok(tg_json_check(tg_bytes_str(" {\"a\":[{}, \"\\\"[[\"]}\n"), "text", &err));
}

/* Small on disk, huge in memory. */
static void a_bomb_of_values_is_stopped_before_the_parser(void **state)
{
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(8 << 20);

    (void)state;
    assert_int_equal(tg_buf_str(&b, "{\"a\":[0"), TG_OK);
    for (unsigned i = 4; i < TG_JSON_MARKS_MAX; i++)
        assert_int_equal(tg_buf_str(&b, ",0"), TG_OK);
    size_t most = b.n;
    assert_int_equal(tg_buf_str(&b, ",\",,,,\"]}"), TG_OK); /* those inside a string do not count */
    assert_int_equal(tg_json_check(tg_buf_view(&b), "bomb", &err), TG_OK);
    b.n = most;
    assert_int_equal(tg_buf_str(&b, ",0,0]}"), TG_OK);
    assert_int_equal(tg_json_check(tg_buf_view(&b), "bomb", &err), TG_E_FORMAT);
    assert_non_null(strstr(err.msg, "more values than a document may have"));
}

static void a_depth_bomb_is_stopped_before_the_parser(void **state)
{
    static char bomb[1 << 20];

    (void)state;
    memset(bomb, '[', sizeof(bomb));
    assert_rc(tg_json_check(TG_BYTES_OF(bomb), "bomb", &err), TG_E_FORMAT);
    assert_contains(err.msg, "offset 16");
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < strlen(full); n++) {
        TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
        struct doc d;

        assert_ok(tg_arena_new(1 << 16, &arena));
        assert_rc(tg_json_decode(&doc_schema, tg_bytes_make(full, n), "doc", arena, &d, &err),
                  TG_E_FORMAT);
    }
}

static void a_full_arena_or_failed_allocation_is_said(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct doc d;

    (void)state;
    assert_ok(tg_arena_new(128, &arena));
    assert_rc(tg_json_decode(&doc_schema, tg_bytes_str(full), "doc", arena, &d, &err), TG_E_NOMEM);
    for (uint64_t nth = 1; nth < 6; nth++) {
        struct tg_arena *a = NULL;
        enum tg_rc rc;

        tg_mem_fault_set(nth, 0);
        rc = tg_arena_new(1 << 16, &a);
        if (rc == TG_OK)
            rc = tg_json_decode(&doc_schema, tg_bytes_str(full), "doc", a, &d, &err);
        if (tg_mem_fault_count() >= nth)
            assert_rc(rc, TG_E_NOMEM);
        tg_mem_fault_set(0, 0);
        tg_arena_free(a);
    }
}

static void encoding_checks_its_own_limits(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_buf out = TG_BUF_INIT(4096), tiny = TG_BUF_INIT(10);
    struct doc d;

    (void)state;
    assert_ok(decode(full, &arena, &d));
    assert_rc(tg_json_encode(&doc_schema, &d, &tiny, &err), TG_E_LIMIT);
    assert_int_equal(tiny.n, 0);
    d.name = "\xff";
    assert_rc(tg_json_encode(&doc_schema, &d, &out, &err), TG_E_FORMAT);
    assert_contains(err.msg, "name");
    d.name = NULL;
    assert_rc(tg_json_encode(&doc_schema, &d, &out, &err), TG_E_FORMAT);
    d.name = "n";
    d.n = 101;
    assert_rc(tg_json_encode(&doc_schema, &d, &out, &err), TG_E_FORMAT);
    d.n = 1;
    d.colour = 2;
    assert_rc(tg_json_encode(&doc_schema, &d, &out, &err), TG_E_FORMAT);
    assert_int_equal(out.n, 0);
    tg_buf_done(&out);
    tg_buf_done(&tiny);
}

static void strings_are_escaped(void **state)
{
    struct tg_buf out = TG_BUF_INIT(100);

    (void)state;
    assert_ok(tg_json_quote(&out, tg_bytes_make("a\"\\\n\x01\x7f\xc3\xa9/", 9)));
    assert_string_equal(tg_buf_cstr(&out), "\"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9/\"");
    tg_buf_done(&out);
}

static void paths_are_found(void **state)
{
    bool yes = false;

    (void)state;
    assert_ok(tg_json_has_path(tg_bytes_str(full), "in.path", &yes, &err));
    assert_true(yes);
    assert_ok(tg_json_has_path(tg_bytes_str(full), "in.nothing", &yes, &err));
    assert_false(yes);
    assert_ok(tg_json_has_path(tg_bytes_str(full), "n.path", &yes, &err));
    assert_false(yes);
}

static void pretty_is_the_same_value(void **state)
{
    struct tg_buf out = TG_BUF_INIT(4096);

    (void)state;
    assert_ok(tg_json_pretty(tg_bytes_str("{\"a\":[1.5,-2]}"), &out, &err));
    assert_string_equal(tg_buf_cstr(&out), "{\n  \"a\": [\n    1.5,\n    -2\n  ]\n}");
    tg_buf_done(&out);
}

static void empty_text_is_left_out_where_the_field_says_so(void **state)
{
    const struct skipped empty = {"", ""}, none = {NULL, NULL}, some = {"a", "b"};
    struct tg_buf out = TG_BUF_INIT(256);

    (void)state;
    assert_ok(tg_json_encode(&skipped_schema, &empty, &out, &err));
    assert_string_equal(tg_buf_cstr(&out), "{\"kept\":\"\"}");
    tg_buf_clear(&out);
    assert_ok(tg_json_encode(&skipped_schema, &none, &out, &err));
    assert_string_equal(tg_buf_cstr(&out), "{}");
    tg_buf_clear(&out);
    assert_ok(tg_json_encode(&skipped_schema, &some, &out, &err));
    assert_string_equal(tg_buf_cstr(&out), "{\"kept\":\"a\",\"left_out\":\"b\"}");
    tg_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_decodes),
        cmocka_unit_test(what_was_decoded_encodes_to_the_same),
        cmocka_unit_test(wrong_values_are_named_with_their_path),
        cmocka_unit_test(texts_that_are_not_one_object_are_refused),
        cmocka_unit_test(a_depth_bomb_is_stopped_before_the_parser),
        cmocka_unit_test(a_bomb_of_values_is_stopped_before_the_parser),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_full_arena_or_failed_allocation_is_said),
        cmocka_unit_test(encoding_checks_its_own_limits),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(paths_are_found),
        cmocka_unit_test(pretty_is_the_same_value),
        cmocka_unit_test(empty_text_is_left_out_where_the_field_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
