/* Every wire document: filled by its own table, encoded, decoded, compared. And the small parts of
 * common.h. */
#include "../tg_cmocka.h"

#include <string.h>

#include "base/mem.h"
#include "wire/access.h"
#include "wire/deploy.h"
#include "wire/device.h"
#include "wire/fleet.h"
#include "wire/package.h"

#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* ---- fill a struct by its table ---- */

static void fill(const struct tg_jschema *s, void *out, bool all, struct tg_arena *arena);

static char *text_of(size_t n, struct tg_arena *arena)
{
    char *t = tg_arena_alloc(arena, n + 1, 1);

    assert_non_null(t);
    memset(t, 'a', n);
    return t;
}

static void fill_list(const struct tg_jfield *f, void *at, bool all, struct tg_arena *arena)
{
    struct tg_jlist *l = at;

    l->n = f->min != 0 ? (size_t)f->min : all && f->max != 0 ? 2 : 0;
    if (l->n > f->max)
        l->n = (size_t)f->max;
    if (f->type == TG_JT_STRS) {
        const char **v = tg_arena_alloc(arena, l->n + 1, sizeof(*v));
        assert_non_null(v);
        for (size_t i = 0; i < l->n; i++)
            v[i] = i == 0 ? "first" : "second";
        l->items = v;
        return;
    }
    l->items = tg_arena_alloc(arena, l->n + 1, f->sub.schema->size);
    assert_non_null(l->items);
    for (size_t i = 0; i < l->n; i++)
        fill(f->sub.schema, (uint8_t *)l->items + i * f->sub.schema->size, all, arena);
}

static void fill_field(const struct tg_jfield *f, uint8_t *at, bool all, struct tg_arena *arena)
{
    struct tg_bytes raw = tg_bytes_str("{\"x\":1}");
    const char *s;

    switch (f->type) {
    case TG_JT_STR:
        s = text_of(f->min != 0 ? (size_t)f->min : f->max > 3 ? 3 : (size_t)f->max, arena);
        memcpy(at, &s, sizeof(s));
        return;
    case TG_JT_U64:
        *(uint64_t *)(void *)at = f->max;
        return;
    case TG_JT_BOOL:
        *(bool *)at = true;
        return;
    case TG_JT_TIME:
        *(int64_t *)(void *)at = 1767225600;
        return;
    case TG_JT_FIXED:
    case TG_JT_HEX:
        memset(at, 0x5a, (size_t)f->max);
        return;
    case TG_JT_ENUM:
        *(int *)(void *)at = f->sub.names[1] != NULL ? 1 : 0;
        return;
    case TG_JT_OBJ:
        fill(f->sub.schema, at, all, arena);
        return;
    case TG_JT_OBJS:
    case TG_JT_STRS:
        fill_list(f, at, all, arena);
        return;
    case TG_JT_RAW:
        memcpy(at, &raw, sizeof(raw));
        return;
    case TG_JT_BYTES:
    case TG_JT_MAP:
        fail_msg("%s: fill this type, too", f->name);
    }
}

static void fill(const struct tg_jschema *s, void *out, bool all, struct tg_arena *arena)
{
    for (size_t i = 0; i < s->n; i++)
        if (all || s->fields[i].flags == TG_J_REQ)
            fill_field(&s->fields[i], (uint8_t *)out + s->fields[i].off, all, arena);
}

static void round_trip(const struct tg_wire_schema *w, bool all)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_buf first = TG_BUF_INIT(TG_WIRE_ANSWER_MAX), second = TG_BUF_INIT(TG_WIRE_ANSWER_MAX);
    struct tg_err err = TG_ERR_INIT;

    assert_ok(tg_arena_new(8 << 20, &arena));
    void *in = tg_arena_alloc(arena, 1, w->schema->size);
    void *out = tg_arena_alloc(arena, 1, w->schema->size);
    fill(w->schema, in, all, arena);
    print_message("# %s (%s)\n", w->name, all ? "everything" : "only what is required");
    assert_ok(tg_json_encode(w->schema, in, &first, &err));
    assert_ok(tg_json_decode(w->schema, tg_buf_view(&first), w->name, arena, out, &err));
    assert_ok(tg_json_encode(w->schema, out, &second, &err));
    assert_string_equal(tg_buf_cstr(&first), tg_buf_cstr(&second));
    /* Cut anywhere it is refused, never half read. */
    for (size_t n = 0; n < first.n && n < 2000; n++)
        assert_int_not_equal(
            tg_json_decode(w->schema, tg_bytes_make(first.data, n), w->name, arena, out, &err),
            TG_OK);
    tg_buf_done(&first);
    tg_buf_done(&second);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (size_t i = 0; i < tg_wire_schemas_n; i++) {
        round_trip(&tg_wire_schemas[i], true);
        round_trip(&tg_wire_schemas[i], false);
    }
}

/* Memory that runs out anywhere is NOMEM, without a leak (the sanitizers look) and with the output
 * untouched. */
static void test_no_memory(void **state)
{
    static const char text[] =
        "{\"now\":\"2026-01-01T00:00:00Z\",\"next_poll_s\":5,\"deployments\":[{\"deployment_id\":"
        "\"0123456789abcdef0123456789abcdef\",\"package\":\"" HASH "\",\"blob_sha256\":\"" HASH
        "\",\"blob_size\":9,\"grant\":true,\"update_state\":\"offered\",\"seq\":0,"
        "\"document\":{\"deployment\":\"x\"}}]}";
    struct tg_wire_directions out;
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = TG_E_NOMEM;
    unsigned failures = 0;

    (void)state;
    for (uint64_t nth = 1; rc != TG_OK; nth++) {
        TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
        memset(&out, 0x5a, sizeof(out));
        tg_mem_fault_set(nth, 0);
        rc = tg_arena_new(1 << 20, &arena);
        if (rc == TG_OK)
            rc = tg_json_decode(&tg_wire_directions, tg_bytes_str(text), "body", arena, &out, &err);
        tg_mem_fault_set(0, 0);
        if (rc == TG_OK)
            break;
        assert_int_equal(rc, TG_E_NOMEM);
        assert_int_equal(out.next_poll_s, UINT64_C(0x5a5a5a5a5a5a5a5a));
        failures++;
    }
    assert_in_range(failures, 2, 1000);
    assert_int_equal(out.deployments.n, 1);
}

static void test_schemas_are_listed(void **state)
{
    (void)state;
    /* Whatever a listed schema nests is listed, too, so that the OpenAPI document can name it. */
    for (size_t i = 0; i < tg_wire_schemas_n; i++) {
        const struct tg_jschema *s = tg_wire_schemas[i].schema;
        for (size_t j = 0; j < s->n; j++) {
            bool found = s->fields[j].type != TG_JT_OBJ && s->fields[j].type != TG_JT_OBJS;
            for (size_t k = 0; !found && k < tg_wire_schemas_n; k++)
                found = tg_wire_schemas[k].schema == s->fields[j].sub.schema;
            if (!found)
                fail_msg("%s.%s", tg_wire_schemas[i].name, s->fields[j].name);
        }
    }
}

static void test_requests_of_people_refuse_typing_errors(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_wire_fleet_new fleet;
    struct tg_wire_deployment_new deployment;
    struct tg_err err = TG_ERR_INIT;
    const char *typo = "{\"name\":\"a\",\"descripton\":\"x\"}";
    const char *role = "{\"package\":\"00\"}";

    (void)state;
    assert_ok(tg_arena_new(1 << 20, &arena));
    assert_rc(tg_json_decode(&tg_wire_fleet_new, tg_bytes_str(typo), "body", arena, &fleet, &err),
              TG_E_FORMAT);
    assert_contains(err.msg, "descripton");
    assert_rc(tg_json_decode(&tg_wire_deployment_new, tg_bytes_str(role), "body", arena,
                             &deployment, &err),
              TG_E_FORMAT);
    assert_contains(err.msg, "package");
}

static void test_role_can_not_be_left_out(void **state)
{
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    struct tg_wire_token_new in;
    struct tg_err err = TG_ERR_INIT;

    (void)state;
    assert_ok(tg_arena_new(1 << 20, &arena));
    /* A missing role would read as the first of its enum: the administrator. */
    assert_rc(tg_json_decode(&tg_wire_token_new, tg_bytes_str("{\"name\":\"a\"}"), "body", arena,
                             &in, &err),
              TG_E_FORMAT);
    assert_contains(err.msg, "role");
}

/* ---- problems ---- */

static void test_problem_table(void **state)
{
    (void)state;
    for (int i = 0; i < TG_PROBLEM_COUNT; i++) {
        const struct tg_problem_row *a = tg_problem_row((enum tg_problem)i);
        assert_non_null(a->slug);
        assert_non_null(a->title);
        assert_in_range(a->status, 400, 599);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(a->slug, tg_problem_row((enum tg_problem)j)->slug);
    }
    for (int rc = TG_E_NOMEM; rc < TG_RC_COUNT; rc++)
        assert_true(tg_problem_of_rc((enum tg_rc)rc) < TG_PROBLEM_COUNT);
    assert_int_equal(tg_problem_of_rc(TG_E_NOTFOUND), TG_PROBLEM_NOT_FOUND);
}

static void test_problem_to_err(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    const char *body = "{\"type\":\"urn:tensorguard:problem:exists\",\"title\":\"Already there\","
                       "\"status\":409,\"detail\":\"a fleet\",\"code\":\"EXISTS\"}";

    (void)state;
    assert_int_equal(tg_wire_problem_to_err(409, tg_bytes_str(body), &err), TG_E_EXISTS);
    assert_string_equal(err.msg, "Already there: a fleet (HTTP 409)");
    assert_int_equal(tg_wire_problem_to_err(404, tg_bytes_str("<html>"), &err), TG_E_NOTFOUND);
    assert_int_equal(tg_wire_problem_to_err(502, TG_BYTES_NONE, &err), TG_E_AGAIN);
    assert_contains(err.msg, "502");
}

/* ---- Content-Digest ---- */

static void test_digest(void **state)
{
    /* SHA-256 of the empty string, FIPS 180-4. */
    static const uint8_t empty[32] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14,
                                      0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
                                      0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
                                      0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};
    static const char text[] = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    static const char *const bad[] = {
        "",
        "sha-256=:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=:", /* base64url */
        "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU:",  /* no padding */
        "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:", /* unused bits set */
        "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF==:", /* 31 bytes */
        "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",  /* not closed */
        "sha-512=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    };
    char out[TG_WIRE_DIGEST_TEXT];
    uint8_t got[32];

    (void)state;
    tg_wire_digest_format(empty, out);
    assert_string_equal(out, text);
    assert_int_equal(tg_wire_digest_parse(text, got), TG_OK);
    assert_memory_equal(got, empty, 32);
    assert_int_equal(
        tg_wire_digest_parse(
            "unixsum=:AA==:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", got),
        TG_OK);
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++)
        if (tg_wire_digest_parse(bad[i], got) == TG_OK)
            fail_msg("accepted %s", bad[i]);
    assert_int_equal(tg_wire_digest_parse(NULL, got), TG_E_UNSUPPORTED);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(tg_wire_name_ok("Fleet-1.a_b"));
    assert_false(tg_wire_name_ok(""));
    assert_false(tg_wire_name_ok(NULL));
    assert_false(tg_wire_name_ok(".."));
    assert_false(tg_wire_name_ok("-a"));
    assert_false(tg_wire_name_ok("a/b"));
    assert_false(tg_wire_name_ok("a b"));
    assert_false(tg_wire_name_ok(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")); /* 65 */
    assert_true(tg_wire_id_ok("0123456789abcdef0123456789abcdef"));
    assert_false(tg_wire_id_ok("0123456789abcdef0123456789abcdeF"));
    assert_false(tg_wire_id_ok("0123456789abcdef0123456789abcde"));
}

static void test_update_states(void **state)
{
    (void)state;
    for (int s = 0; s < TG_UPDATE_COUNT; s++) {
        enum tg_update_state st = (enum tg_update_state)s;
        assert_non_null(tg_update_state_names[s]);
        /* Over is over; what was not offered can't be reported; nobody reports the platform's own
         * states. */
        assert_false(tg_update_may_follow(TG_UPDATE_SUPERSEDED, st));
        assert_false(tg_update_may_follow(TG_UPDATE_CANCELLED, st));
        assert_false(tg_update_may_follow(TG_UPDATE_PENDING, st));
        assert_false(tg_update_may_follow(st, TG_UPDATE_PENDING));
        assert_false(tg_update_may_follow(st, TG_UPDATE_OFFERED));
        assert_false(tg_update_may_follow(st, TG_UPDATE_SUPERSEDED));
        assert_false(tg_update_may_follow(st, TG_UPDATE_CANCELLED));
    }
    assert_null(tg_update_state_names[TG_UPDATE_COUNT]);
    assert_true(tg_update_may_follow(TG_UPDATE_OFFERED, TG_UPDATE_RUNNING));
    assert_true(tg_update_may_follow(TG_UPDATE_RUNNING, TG_UPDATE_ROLLED_BACK));
    assert_true(tg_update_may_follow(TG_UPDATE_FAILED, TG_UPDATE_DOWNLOADING));
    assert_true(tg_update_may_follow(TG_UPDATE_DOWNLOADING, TG_UPDATE_DOWNLOADING));
    assert_false(tg_update_may_follow(TG_UPDATE_RUNNING, TG_UPDATE_DOWNLOADING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_schemas_are_listed),
        cmocka_unit_test(test_requests_of_people_refuse_typing_errors),
        cmocka_unit_test(test_role_can_not_be_left_out),
        cmocka_unit_test(test_problem_table),
        cmocka_unit_test(test_problem_to_err),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_update_states),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
