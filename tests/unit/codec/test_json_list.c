/* Long lists are decoded entry by entry; the answer is the one of the ordinary way, whatever the
 * text. The ordinary way is had by writing the list's name with an escape, which hides it. */
#include "../tg_cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"

struct entry {
    const char *name;
    uint64_t size;
};

struct doc {
    uint64_t before;
    struct tg_jlist items;
    const char *after;
};

static const struct tg_jfield entry_fields[] = {
    TG_J_STR(struct entry, name, 0, 64, TG_J_REQ),
    TG_J_U64(struct entry, size, 0, TG_JSON_INT_MAX, TG_J_SKIP0),
};
static const struct tg_jschema entry_schema =
    TG_J_SCHEMA(struct entry, entry_fields, TG_J_IGNORE_UNKNOWN);
static const struct tg_jfield doc_fields[] = {
    TG_J_U64(struct doc, before, 0, 9, TG_J_REQ),
    TG_J_OBJS(struct doc, items, &entry_schema, 0, 2000, TG_J_REQ),
    TG_J_STR(struct doc, after, 0, 64, TG_J_REQ),
};
static const struct tg_jschema doc_schema =
    TG_J_SCHEMA(struct doc, doc_fields, TG_J_REFUSE_UNKNOWN);

#define PLAIN "\"items\""
#define HIDDEN "\"\\u0069tems\""
#define TEXT_MAX 200000

/* head: up to the list's name; body: from behind it. */
struct text {
    char head[256], body[TEXT_MAX];
};

static struct text make(size_t n)
{
    static struct text t;
    (void)snprintf(t.head, sizeof t.head, "{ \"before\": 7, ");
    size_t at = (size_t)snprintf(t.body, sizeof t.body, " : [ ");
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(
            t.body + at, sizeof t.body - at,
            "%s{ \"name\": \"n\\\"%zu ] , \xC3\xA4\",\n\"size\":%zu, \"x\": [1, {\"y\":[]}] }",
            i ? " , " : "", i, i * 3);
    (void)snprintf(t.body + at, sizeof t.body - at, " ] , \"after\": \"items\" }");
    return t;
}

static enum tg_rc decode(const struct text *t, const char *name, struct tg_arena *arena,
                         struct doc *out, struct tg_err *err)
{
    char *all = tg_asprintf("%s%s%s", t->head, name, t->body);
    enum tg_rc rc = tg_json_decode(&doc_schema, tg_bytes_str(all), "doc", arena, out, err);
    tg_free(all);
    return rc;
}

/* Both ways alike; the code. */
static enum tg_rc both(const struct text *t)
{
    struct tg_err one = TG_ERR_INIT, two = TG_ERR_INIT;
    struct doc a = {0}, b = {0};
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    assert_int_equal(tg_arena_new(16 << 20, &arena), TG_OK);
    enum tg_rc rc = decode(t, PLAIN, arena, &a, &one);
    if (rc != decode(t, HIDDEN, arena, &b, &two))
        fail_msg("%d '%s', but the ordinary way says '%s'\n%s%s", (int)rc, one.msg, two.msg,
                 t->head, t->body);
    if (rc != TG_OK)
        return rc;
    assert_int_equal(a.before, b.before);
    assert_string_equal(a.after, b.after);
    assert_int_equal(a.items.n, b.items.n);
    for (size_t i = 0; i < a.items.n; i++) {
        const struct entry *x = (const struct entry *)a.items.items + i;
        const struct entry *y = (const struct entry *)b.items.items + i;
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->size, y->size);
    }
    return TG_OK;
}

static void test_lengths(void **state)
{
    static const size_t lengths[] = {0, 1, 255, 256, 257, 1000, 2000};
    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(lengths); i++) {
        struct text t = make(lengths[i]);
        assert_int_equal(both(&t), TG_OK);
    }
    struct text t = make(2001);
    assert_int_equal(both(&t), TG_E_FORMAT);
}

/* Whatever one character becomes, is lost or is put in. */
static void test_one_character(void **state)
{
    static const char with[] = "[]{},:\"\\ 0n\n\t";
    struct text good = make(300), t;
    size_t n = strlen(good.body), refused = 0, tried = 0;
    (void)state;
    /* the beginning, a stretch in the middle, and the end, each place; three kinds of change */
    for (size_t i = 0; i < n; i += i < 60 || i + 60 > n ? 1 : 397)
        for (size_t k = 0; k < 2 * sizeof with - 1; k++, tried++) {
            t = good;
            if (k + 1 < sizeof with)
                t.body[i] = with[k];
            else if (k + 1 < 2 * sizeof with - 1)
                memmove(t.body + i + 1, t.body + i, n - i + 1),
                    t.body[i] = with[k + 1 - sizeof with];
            else
                memmove(t.body + i, t.body + i + 1, n - i);
            refused += both(&t) != TG_OK;
        }
    print_message("# %zu of %zu refused\n", refused, tried);
    assert_true(tried > 2500 && refused > tried / 2 && refused < tried);
}

/* Where an entry by itself is fine, but the list or the document is not. */
static void test_what_only_the_whole_shows(void **state)
{
    static const char *const tails[] = {
        " ] , \"after\": \"x\", \"items\": [] }",
        " ] , \"after\": \"x\", \"\\u0069tems\": [] }",
        " ] , \"after\": \"x\", \"more\": 1 }",
        " ] , \"after\": \"x\" } }",
        " ] , \"after\": \"x\" } x",
        " , ] , \"after\": \"x\" }",
        " ,, {} ] , \"after\": \"x\" }",
        " {} ] , \"after\": \"x\" }",
        " , 5 ] , \"after\": \"x\" }",
        " , \"a\" ] , \"after\": \"x\" }",
        " , {\"name\":\"a\",\"name\":\"b\"} ] , \"after\": \"x\" }",
        " , {\"size\":1} ] , \"after\": \"x\" }",
        " , null ] , \"after\": \"x\" }",
        " } , \"after\": \"x\" }",
        " ] ] , \"after\": \"x\" }",
        " ] , \"after\": 1 }",
        " ] , \"after\": \"x\"",
        " , {\"name\":\"\xff\"} ] , \"after\": \"x\" }",
        " , {\"name\":\"a\"} , ",
        " , [ ] ] , \"after\": \"x\" }",
    };
    struct text good = make(300), t;
    char *end = strstr(good.body, " ] , \"after\"");
    (void)state;
    assert_non_null(end);
    for (size_t i = 0; i < TG_ARRAY_LEN(tails); i++) {
        t = good;
        (void)snprintf(t.body + (end - good.body), 200, "%s", tails[i]);
        if (both(&t) != TG_E_FORMAT)
            fail_msg("taken: %s", tails[i]);
    }
    /* a second list of the name before the true one: in another object, and as a value */
    t = good;
    (void)snprintf(t.head, sizeof t.head,
                   "{ \"before\": 7, \"after\": \"items\", \"o\": {\"items\": [1,2]}, ");
    assert_int_equal(both(&t), TG_E_FORMAT); /* 'after' twice */
    t = good;
    (void)snprintf(t.head, sizeof t.head, "[{ \"before\": 7, ");
    assert_int_equal(both(&t), TG_E_FORMAT);
}

static void test_allocation_faults(void **state)
{
    struct text t = make(300);
    struct tg_err err = TG_ERR_INIT;
    struct doc out = {0};
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    (void)state;
    assert_int_equal(tg_arena_new(16 << 20, &arena), TG_OK);
    uint64_t before = tg_mem_fault_count();
    assert_int_equal(decode(&t, PLAIN, arena, &out, &err), TG_OK);
    uint64_t n = tg_mem_fault_count() - before;
    char *all = tg_asprintf("%s%s%s", t.head, PLAIN, t.body);
    assert_true(n > 2);
    for (uint64_t i = 1; i < n; i++) {
        TG_AUTO(tg_arena_freep) struct tg_arena *fresh = NULL;
        assert_int_equal(tg_arena_new(16 << 20, &fresh), TG_OK);
        tg_mem_fault_set(i, 0);
        enum tg_rc rc = tg_json_decode(&doc_schema, tg_bytes_str(all), "doc", fresh, &out, &err);
        tg_mem_fault_set(0, 0);
        assert_true(rc == TG_OK || rc == TG_E_NOMEM);
    }
    tg_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_one_character),
        cmocka_unit_test(test_what_only_the_whole_shows),
        cmocka_unit_test(test_allocation_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
