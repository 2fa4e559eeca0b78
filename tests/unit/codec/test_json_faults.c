/* Each allocation of jansson fails once: what was written, or "out of memory". It once lost a byte
 * of a string, or a digit, and said nothing. */
#include "../tg_cmocka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"

static unsigned long calls, fail_at;

static void *get(size_t n)
{
    return ++calls == fail_at ? NULL : malloc(n);
}

struct item {
    const char *s;
    uint64_t n;
};

struct doc {
    const char *name, *text;
    uint64_t number;
    struct tg_jlist items;
};

static const struct tg_jfield item_fields[] = {
    TG_J_STR(struct item, s, 1, 200, TG_J_REQ),
    TG_J_U64(struct item, n, 0, TG_JSON_INT_MAX, TG_J_REQ),
};
static const struct tg_jschema item_schema =
    TG_J_SCHEMA(struct item, item_fields, TG_J_REFUSE_UNKNOWN);
static const struct tg_jfield doc_fields[] = {
    TG_J_STR(struct doc, name, 1, 200, TG_J_REQ),
    TG_J_STR(struct doc, text, 1, 200, TG_J_REQ),
    TG_J_U64(struct doc, number, 0, TG_JSON_INT_MAX, TG_J_REQ),
    TG_J_OBJS(struct doc, items, &item_schema, 1, 1000, TG_J_REQ),
};
static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_REFUSE_UNKNOWN);

#define NAME "a name that is longer than the buffer in which it is gathered"
#define TEXT "caf\xc3\xa9 \xf0\x9f\x98\x80 \"\n" NAME NAME
#define NUMBER 9007199254740991U

static void right(const struct doc *d, size_t items)
{
    const struct item *v = d->items.items;
    assert_string_equal(d->name, NAME);
    assert_string_equal(d->text, TEXT);
    assert_true(d->number == NUMBER);
    assert_int_equal(d->items.n, items);
    for (size_t i = 0; i < items; i++) {
        assert_string_equal(v[i].s, NAME);
        assert_true(v[i].n == NUMBER - i);
    }
}

static void sweep(size_t items, unsigned long step)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = TG_BUF_INIT(1 << 20);
    struct tg_err err = TG_ERR_INIT;
    unsigned long n = 1, refused = 0;
    assert_ok(tg_buf_str(&text, "{\"number\":9007199254740991,\"items\":["));
    for (size_t i = 0; i < items; i++) {
        TG_AUTO(tg_freep)
        char *one = tg_asprintf("%s{\"s\":\"" NAME "\",\"n\":%llu}", i ? "," : "",
                                (unsigned long long)NUMBER - i);
        assert_ok(tg_buf_str(&text, one));
    }
    assert_ok(tg_buf_str(&text, "],\"text\":\"caf\\u00e9 \\ud83d\\ude00 \\\"\\n" NAME NAME
                                "\",\"name\":\"" NAME "\"}"));
    for (fail_at = 0; fail_at <= n; fail_at += fail_at == 0 ? 1 : step) {
        TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
        struct doc d;
        assert_ok(tg_arena_new(1 << 20, &arena));
        calls = 0;
        enum tg_rc rc = tg_json_decode(&doc_schema, tg_buf_view(&text), "doc", arena, &d, &err);
        if (fail_at == 0)
            n = calls;
        if (rc == TG_OK)
            right(&d, items);
        else if (rc != TG_E_NOMEM || fail_at == 0)
            fail_msg("%lu of %lu: %s", fail_at, n, err.msg);
        refused += rc != TG_OK;
    }
    fail_at = 0;
    print_message("# %lu allocations, %lu refused\n", n, refused);
    assert_true(n > 20 && refused > 0);
}

static void test_short(void **state)
{
    (void)state;
    sweep(3, 1);
}

/* Decoded entry by entry. */
static void test_long_list(void **state)
{
    (void)state;
    sweep(300, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_long_list),
    };
    json_set_alloc_funcs(get, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
