/* The platform's pure parts: routes, rate limits, sealing, the audit chain, the OpenAPI document.
 */
#include "../tg_cmocka.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "codec/json.h"
#include "platform/audit.h"
#include "platform/keys.h"
#include "platform/rate.h"
#include "platform/route.h"
#include "store/access.h"
#include "store/db.h"
#include "wire/common.h"

/* ---- routes ---- */

#define ID "0123456789abcdef0123456789abcdef"
#define H64 ID ID

static enum tg_rc find(unsigned listener, enum tg_http_method m, const char *path,
                       struct tg_route_found *out)
{
    static char into[512];
    const struct tg_route_query q = {listener, m, path};

    return tg_route_match(&q, into, out);
}

static void test_every_route_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < tg_routes_n; i++) {
        const struct tg_route *r = &tg_routes[i];
        char path[256] = "";
        for (const char *s = r->pattern; *s != '\0';) {
            size_t n = strlen(path);
            if (*s != '{') {
                (void)snprintf(path + n, sizeof(path) - n, "%c", *s++);
                continue;
            }
            size_t len = strcspn(s, "}") - 1;
            const char *values[] = {"7", ID, H64, "a-fleet"};
            const char *value = NULL;
            for (size_t v = 0; v < TG_ARRAY_LEN(values) && value == NULL; v++)
                if (tg_route_param_ok(s + 1, len, values[v]))
                    value = values[v];
            assert_non_null(value);
            (void)snprintf(path + n, sizeof(path) - n, "%s", value);
            s += len + 2;
        }
        struct tg_route_found found;
        unsigned listener =
            (r->listeners & TG_LISTEN_PEOPLE) != 0 ? TG_LISTEN_PEOPLE : TG_LISTEN_DEVICES;
        assert_int_equal(find(listener, r->method, path, &found), TG_OK);
        if (found.route != r)
            fail_msg("%s finds %s", path, found.route->pattern);
    }
}

static void test_route_refusals(void **state)
{
    struct tg_route_found f;

    (void)state;
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1/fleets/", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1/fleets/a/b", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1/fleets/..", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1/devices/xyz", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/api/v1/packages/" ID, &f),
                     TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_PUT, "/api/v1/uploads/" ID "/parts/01", &f),
                     TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_GET, "/a/b/c/d/e/f/g/h/i/j/k", &f),
                     TG_E_NOTFOUND);
    /* Each listener has its own routes. */
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_POST, "/device/v1/checkin", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_DEVICES, TG_HTTP_GET, "/api/v1/devices", &f), TG_E_NOTFOUND);
    assert_int_equal(find(TG_LISTEN_DEVICES, TG_HTTP_GET, "/healthz", &f), TG_OK);
    /* Another method: said which. */
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_DELETE, "/api/v1/fleets", &f),
                     TG_E_UNSUPPORTED);
    assert_int_equal(f.allow, 1U << TG_HTTP_GET | 1U << TG_HTTP_POST);
    assert_int_equal(find(TG_LISTEN_PEOPLE, TG_HTTP_HEAD, "/api/v1/fleets", &f), TG_OK);
    assert_int_equal(f.route->method, TG_HTTP_GET);
}

/* Reads that hand something over which was not this caller's before. */
static bool hands_over(const struct tg_route *r)
{
    return strcmp(r->pattern, "/api/v1/blobs/{blob}") == 0 ||
           strcmp(r->pattern, "/device/v1/packages/{package}/grant") == 0;
}

static void test_route_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < tg_routes_n; i++) {
        const struct tg_route *r = &tg_routes[i];
        bool changes = r->method != TG_HTTP_GET;
        bool is_checkin = strcmp(r->pattern, "/device/v1/checkin") == 0;
        if ((changes || hands_over(r)) != (r->action != NULL) && !is_checkin)
            fail_msg("%s: who changes something or hands it over has an audit action", r->pattern);
        if (r->method == TG_HTTP_GET && r->body_max != 0)
            fail_msg("%s: takes a body", r->pattern);
        assert_true(r->body_max <= TG_WIRE_PART_MAX);
        bool device = strncmp(r->pattern, "/device/", 8) == 0;
        if (device && r->roles != TG_MAY_DEVICE && strcmp(r->pattern, "/device/v1/enrol") != 0)
            fail_msg("%s: open to more than devices", r->pattern);
        if (!device && changes && r->roles == TG_MAY_ALL &&
            strcmp(r->pattern, "/api/v1/login") != 0)
            fail_msg("%s: open to everyone", r->pattern);
        if (changes && !device && (r->roles & TG_MAY(VIEWER)) != 0)
            fail_msg("%s: a viewer may change something", r->pattern);
    }
}

/* The document says of a route what the table says, and lists who may in the table's order. */
static void check_roles(const struct tg_route *r, json_t *said)
{
    size_t n = 0;

    for (unsigned i = 0; i < TG_ACCESS_COUNT; i++)
        if ((r->roles & 1U << i) != 0)
            assert_string_equal(json_string_value(json_array_get(said, n++)), tg_access_names[i]);
    if ((r->roles & TG_MAY_DEVICE) != 0)
        assert_string_equal(json_string_value(json_array_get(said, n++)), "device");
    assert_int_equal(json_array_size(said), n);
}

static void check_body(const char *what, json_t *content)
{
    static const char prefix[] = "#/components/schemas/";
    json_t *json = json_object_get(content, "application/json");
    const char *ref = NULL;

    assert_int_equal(json_object_size(content), 1);
    if (strcmp(what, "bytes") == 0) {
        assert_non_null(json_object_get(content, "application/octet-stream"));
    } else if (strcmp(what, "text") == 0) {
        assert_non_null(json_object_get(content, "text/plain"));
    } else {
        assert_non_null(json);
        if (json_unpack(json, "{s:{s:s}}", "schema", "$ref", &ref) == 0)
            assert_string_equal(ref + strlen(prefix), what);
        else
            assert_string_equal(what, "document");
    }
}

static void check_security(const struct tg_route *r, json_t *said)
{
    json_t *only = json_array_get(said, 0);

    assert_int_equal(json_array_size(said), 1);
    if (r->roles == TG_MAY_ALL)
        assert_int_equal(json_object_size(only), 0);
    else
        assert_non_null(json_object_get(only, (r->roles & TG_MAY_DEVICE) != 0 ? "deviceCertificate"
                                                                              : "bearer"));
}

static void check_operation(const struct tg_route *r, json_t *op)
{
    const char *action = json_string_value(json_object_get(op, "x-audit-action"));
    json_t *responses = json_object_get(op, "responses");
    char status[16];

    if (r->action == NULL)
        assert_null(action);
    else
        assert_string_equal(action, r->action);
    check_roles(r, json_object_get(op, "x-roles"));
    check_security(r, json_object_get(op, "security"));
    assert_string_equal(json_string_value(json_object_get(op, "x-listener")),
                        (r->listeners & TG_LISTEN_PEOPLE) != 0 ? "people" : "devices");
    assert_true(json_integer_value(json_object_get(op, "x-max-body")) == (json_int_t)r->body_max);
    (void)snprintf(status, sizeof(status), "%u", r->status);
    assert_int_equal(json_object_size(responses), 2); /* the good one, and problems */
    assert_non_null(json_object_get(responses, "default"));
    json_t *good = json_object_get(responses, status);
    assert_non_null(good);
    assert_true((json_object_get(good, "content") != NULL) == (r->out != NULL));
    if (r->out != NULL)
        check_body(r->out, json_object_get(good, "content"));
    json_t *body = json_object_get(op, "requestBody");
    assert_true((body != NULL) == (r->in != NULL));
    if (r->in != NULL)
        check_body(r->in, json_object_get(body, "content"));
}

static const struct tg_route *route_of(const char *method, const char *pattern)
{
    enum tg_http_method m;
    char upper[16];
    size_t n = strlen(method);

    assert_true(n < sizeof(upper));
    for (size_t i = 0; i <= n; i++)
        upper[i] = (char)(method[i] >= 'a' && method[i] <= 'z' ? method[i] - 'a' + 'A' : method[i]);
    assert_int_equal(tg_http_method_parse(tg_bytes_str(upper), &m), TG_OK);
    for (size_t i = 0; i < tg_routes_n; i++)
        if (tg_routes[i].method == m && strcmp(tg_routes[i].pattern, pattern) == 0)
            return &tg_routes[i];
    return NULL;
}

/* Both ways: each operation of the document is a route and says the same, and as many as there are
 * routes (no two alike) are in it. */
static void test_openapi(void **state)
{
    struct tg_buf out = TG_BUF_INIT(1 << 20);
    struct tg_err err = TG_ERR_INIT;
    bool seen[256] = {false};
    size_t n = 0;
    const char *path, *method;
    json_t *ops, *op;

    (void)state;
    assert_true(tg_routes_n <= TG_ARRAY_LEN(seen));
    assert_ok(tg_openapi_make(&out, &err)); /* checks that it is strict JSON */
    json_t *doc = json_loadb((const char *)out.data, out.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    json_object_foreach(json_object_get(doc, "paths"), path, ops)
    {
        json_object_foreach(ops, method, op)
        {
            const struct tg_route *r = route_of(method, path);
            if (r == NULL) {
                fail_msg("%s %s is in the document, and no route", method, path);
                break; /* not reached; the compiler does not know */
            }
            check_operation(r, op);
            assert_false(seen[r - tg_routes]);
            seen[r - tg_routes] = true;
            n++;
        }
    }
    for (size_t i = 0; i < tg_routes_n; i++)
        if (!seen[i])
            fail_msg("%s is a route, and not in the document", tg_routes[i].pattern);
    assert_int_equal(n, tg_routes_n);
    json_decref(doc);
    tg_buf_done(&out);
}

/* ---- rates ---- */

static void test_rate(void **state)
{
    struct tg_rate *r = NULL;
    const struct tg_rate_limit limit = {10, 5};
    uint64_t now = 1000000000;
    uint32_t retry;

    (void)state;
    assert_int_equal(tg_rate_new(&r), TG_OK);
    for (int i = 0; i < 5; i++)
        assert_true(tg_rate_take(r, "a", &limit, now, &retry));
    assert_false(tg_rate_take(r, "a", &limit, now, &retry));
    assert_true(tg_rate_take(r, "b", &limit, now, &retry)); /* someone else's bucket */
    now += 100000000;                                       /* a tenth of a second: one more */
    assert_true(tg_rate_take(r, "a", &limit, now, &retry));
    assert_false(tg_rate_take(r, "a", &limit, now, &retry));
    now += UINT64_C(3600000000000) * 10; /* never more than the burst */
    for (int i = 0; i < 5; i++)
        assert_true(tg_rate_take(r, "a", &limit, now, &retry));
    assert_false(tg_rate_take(r, "a", &limit, now, &retry));
    /* Many callers share fixed memory. */
    for (int i = 0; i < 100000; i++) {
        char who[32];
        (void)snprintf(who, sizeof(who), "n%d", i);
        assert_true(tg_rate_take(r, who, &limit, now + (uint64_t)i, &retry));
    }
    tg_rate_free(r);
}

/* ---- sealing ---- */

static void test_seal(void **state)
{
    struct tg_kem_sk *sk = NULL, *other = NULL;
    struct tg_buf sealed = TG_BUF_INIT(8192), out = TG_BUF_SECRET(8192);

    (void)state;
    assert_int_equal(tg_kem_sk_generate(NULL, &sk), TG_OK);
    assert_int_equal(tg_kem_sk_generate(NULL, &other), TG_OK);
    assert_int_equal(tg_seal(tg_kem_sk_pk(sk), "a", tg_bytes_str("secret"), &sealed), TG_OK);
    assert_int_equal(tg_seal_open(sk, "a", tg_buf_view(&sealed), &out), TG_OK);
    assert_string_equal(tg_buf_cstr(&out), "secret");
    tg_buf_clear(&out);
    assert_int_not_equal(tg_seal_open(sk, "b", tg_buf_view(&sealed), &out), TG_OK);
    assert_int_not_equal(tg_seal_open(other, "a", tg_buf_view(&sealed), &out), TG_OK);
    for (size_t n = 0; n < sealed.n; n += 7)
        assert_int_not_equal(tg_seal_open(sk, "a", tg_bytes_make(sealed.data, n), &out), TG_OK);
    for (size_t i = 0; i < sealed.n; i += 11) {
        sealed.data[i] ^= 1;
        assert_int_not_equal(tg_seal_open(sk, "a", tg_buf_view(&sealed), &out), TG_OK);
        sealed.data[i] ^= 1;
    }
    assert_int_equal(out.n, 0);
    tg_buf_done(&sealed);
    tg_buf_done(&out);
    tg_kem_sk_free(sk);
    tg_kem_sk_free(other);
}

static void test_keys(void **state)
{
    char dir[] = "/tmp/tg-keys-XXXXXX";
    struct tg_err err = TG_ERR_INIT;
    struct tg_keys *k = NULL;
    uint8_t vault[16], platform[16];

    (void)state;
    assert_non_null(mkdtemp(dir));
    TG_AUTO(tg_freep) char *pass = tg_path_join(dir, "pass");
    TG_AUTO(tg_freep) char *wrong = tg_path_join(dir, "wrong");
    assert_ok(tg_file_write(pass, tg_bytes_str("correct horse\n"), 0600, true, &err));
    assert_ok(tg_file_write(wrong, tg_bytes_str("wrong horse\n"), 0600, true, &err));
    struct tg_keys_opts o = {.data_dir = dir, .passphrase_file = pass, .now = 1767225600};
    assert_ok(tg_keys_open(&o, &k, &err));
    assert_true(k->made);
    assert_false(k->own_key_file);
    memcpy(vault, tg_kem_pk_id(tg_kem_sk_pk(k->vault)), 16);
    memcpy(platform, tg_sign_pk_id(tg_sign_sk_pk(k->platform)), 16);
    tg_keys_close(k);
    k = NULL;
    assert_ok(tg_keys_open(&o, &k, &err)); /* the same keys again */
    assert_false(k->made);
    assert_memory_equal(vault, tg_kem_pk_id(tg_kem_sk_pk(k->vault)), 16);
    assert_memory_equal(platform, tg_sign_pk_id(tg_sign_sk_pk(k->platform)), 16);
    tg_keys_close(k);
    k = NULL;
    o.passphrase_file = wrong;
    assert_rc(tg_keys_open(&o, &k, &err), TG_E_AUTH);
    assert_null(k);
    assert_ok(tg_dir_remove(dir, &err));
}

/* Whichever file of the first start can't be put in place: it says so, and the next start finishes.
 */
static void test_keys_first_start_cut_off(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    enum tg_rc rc = TG_E_IO;
    unsigned failures = 0;

    (void)state;
    for (uint64_t nth = 1; rc != TG_OK; nth += 2) { /* scrypt is slow by design: every other one */
        char dir[] = "/tmp/tg-keys-XXXXXX";
        struct tg_keys *k = NULL;
        assert_non_null(mkdtemp(dir));
        const struct tg_keys_opts o = {.data_dir = dir, .now = 1767225600};
        tg_io_fault_set(TG_IO_RENAME, nth, EIO);
        rc = tg_keys_open(&o, &k, &err);
        tg_io_fault_set(TG_IO_RENAME, 0, 0);
        if (rc != TG_OK) {
            assert_int_equal(rc, TG_E_IO);
            assert_null(k);
            failures++;
            assert_ok(tg_keys_open(&o, &k, &err));
        }
        /* What it has now belongs together. */
        struct tg_tls_pair pair = TG_TLS_PAIR_INIT;
        const char *name = "localhost";
        const struct tg_opt_list names = {&name, 1};
        assert_ok(tg_keys_server_cert(k, &names, o.now, &pair, &err));
        assert_ok(tg_x509_verify(tg_buf_view(&pair.cert), tg_buf_view(&k->server_ca_pem),
                                 TG_X509_SERVER, o.now, &err));
        tg_tls_pair_done(&pair);
        tg_keys_close(k);
        assert_ok(tg_dir_remove(dir, &err));
    }
    assert_in_range(failures, 4, 10);
}

/* ---- the audit chain ---- */

static struct tg_audit_row sample(uint8_t h[32])
{
    return (struct tg_audit_row){.seq = 7,
                                 .at = 1767225600,
                                 .actor = "token:x",
                                 .name = "n",
                                 .address = "127.0.0.1:1",
                                 .action = "package.accept",
                                 .target = "upload:y",
                                 .package = tg_bytes_make(h, 32),
                                 .outcome = "ok",
                                 .detail = "d",
                                 .prev_hash = {3}};
}

static void test_audit_hash_covers_every_field(void **state)
{
    uint8_t h[32] = {1}, h2[32] = {2}, base[32], other[32];
    struct tg_audit_row rows[12];

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++)
        rows[i] = sample(h);
    rows[0].seq = 8;
    rows[1].at++;
    rows[2].actor = "token:z";
    rows[3].name = "m";
    rows[4].address = "";
    rows[5].action = "x";
    rows[6].target = "";
    rows[7].package = TG_BYTES_OF(h2);
    rows[8].outcome = "refused";
    rows[9].detail = "";
    rows[10].prev_hash[31] = 1;
    rows[11].actor = "token:xn"; /* bytes can't move from one field to the next */
    rows[11].name = "";
    const struct tg_audit_row first = sample(h);
    assert_int_equal(tg_audit_hash(&first, base), TG_OK);
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        assert_int_equal(tg_audit_hash(&rows[i], other), TG_OK);
        assert_memory_not_equal(base, other, 32);
    }
}

static void test_audit_chain(void **state)
{
    char dir[] = "/tmp/tg-audit-XXXXXX";
    struct tg_err err = TG_ERR_INIT;
    struct tg_store *store = NULL;
    struct tg_db *db = NULL;
    TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
    uint8_t h[32] = {1};
    struct tg_wire_audit_check check;
    char text[256];

    (void)state;
    assert_non_null(mkdtemp(dir));
    TG_AUTO(tg_freep) char *path = tg_path_join(dir, "db");
    assert_ok(tg_store_open(path, &store, &err));
    assert_ok(tg_store_connect(store, &db, &err));
    assert_ok(tg_arena_new(16 << 20, &arena));
    assert_ok(tg_audit_verify(db, &check, text, sizeof(text), &err));
    assert_true(check.ok);
    assert_int_equal(check.entries, 0);
    for (int i = 0; i < 1500; i++) { /* more than one batch */
        struct tg_audit_row row = sample(h);
        if (i % 500 == 0)
            assert_ok(tg_db_begin(db, &err));
        assert_ok(tg_audit_append(db, arena, &row, &err));
        if (i % 500 == 499)
            assert_ok(tg_db_commit(db, &err));
    }
    assert_ok(tg_audit_verify(db, &check, text, sizeof(text), &err));
    assert_true(check.ok);
    assert_int_equal(check.entries, 1500);
    /* A forged row at the end, with a hash of its own but not following. */
    struct tg_audit_row row = sample(h);
    row.seq = 1501;
    assert_int_equal(tg_audit_hash(&row, row.hash), TG_OK);
    assert_ok(tg_db_begin(db, &err));
    assert_ok(tg_audit_insert(db, &row, &err));
    assert_ok(tg_db_commit(db, &err));
    assert_ok(tg_audit_verify(db, &check, text, sizeof(text), &err));
    assert_false(check.ok);
    assert_int_equal(check.first_bad, 1501);
    assert_contains(check.detail, "does not follow");
    tg_db_close(db);
    tg_store_close(store);
    assert_ok(tg_dir_remove(dir, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_is_found),
        cmocka_unit_test(test_route_refusals),
        cmocka_unit_test(test_route_table_is_sound),
        cmocka_unit_test(test_openapi),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_seal),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_keys_first_start_cut_off),
        cmocka_unit_test(test_audit_hash_covers_every_field),
        cmocka_unit_test(test_audit_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
