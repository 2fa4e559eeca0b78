/* Whose signatures count, for what, and who may change that. */
#include "fixture.h"

#include <string.h>

#include "base/mem.h"
#include "codec/text.h"

static struct tg_buf saved(const struct tg_trust *t, uint64_t version,
                           const struct tg_sign_sk *const *by, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf b = TG_BUF_INIT(TG_TRUST_MAX);
    assert_ok(tg_trust_save(t, version, FX_NOW, by, n, &b, &err));
    return b;
}

static struct tg_trust *loaded(const struct tg_buf *b)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_trust *t = NULL;
    assert_ok(tg_trust_load(tg_buf_view(b), "t.tgtrust", &t, &err));
    return t;
}

static void add(struct tg_trust *t, const struct tg_sign_sk *sk, unsigned roles, const char *model)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_trust_key k = {.pk = tg_sign_sk_pk(sk),
                             .label = "a key",
                             .roles = roles,
                             .models = &model,
                             .n_models = model ? 1 : 0};
    assert_ok(tg_trust_add(t, &k, &err));
}

static void test_round_trip(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = fx_trust(f->author);
    add(t, f->author2, TG_ROLE_AUTHOR, "only-this");
    add(t, f->platform, TG_ROLE_PLATFORM, NULL);
    assert_ok(tg_trust_threshold_set(t, "m", 2, &err));
    assert_ok(tg_trust_threshold_set(t, NULL, 3, &err));
    assert_ok(tg_trust_change_threshold_set(t, 2, &err));
    assert_ok(tg_trust_reset_model(t, "old", &err));
    assert_ok(tg_trust_reset_model(t, "old", &err));
    const struct tg_sign_sk *by[] = {f->author};
    TG_AUTO(tg_buf_done) struct tg_buf text = saved(t, 9, by, 1);
    TG_AUTO(tg_trust_freep) struct tg_trust *b = loaded(&text);
    assert_int_equal(tg_trust_version(b), 9);
    assert_int_equal(tg_trust_issued_at(b), FX_NOW);
    assert_int_equal(tg_trust_count(b), 3);
    assert_int_equal(tg_trust_threshold(b, "m"), 2);
    assert_int_equal(tg_trust_threshold(b, "else"), 3);
    assert_int_equal(tg_trust_change_threshold(b), 2);
    assert_int_equal(tg_trust_reset_count(b, "old"), 2);
    assert_int_equal(tg_trust_reset_count(b, "m"), 0);
    struct tg_trust_key k;
    assert_true(tg_trust_find(b, tg_sign_pk_id(tg_sign_sk_pk(f->author2)), &k));
    assert_string_equal(k.label, "a key");
    assert_int_equal(k.roles, TG_ROLE_AUTHOR);
    assert_true(tg_trust_may_sign(&k, "only-this"));
    assert_false(tg_trust_may_sign(&k, "m"));
    assert_true(tg_trust_find(b, tg_sign_pk_id(tg_sign_sk_pk(f->platform)), &k));
    assert_false(tg_trust_may_sign(&k, "m"));
    assert_false(tg_trust_find(b, tg_sign_pk_id(tg_sign_sk_pk(f->stranger)), &k));
    assert_ok(tg_trust_remove(b, tg_sign_pk_id(tg_sign_sk_pk(f->author2)), &err));
    assert_int_equal(tg_trust_count(b), 2);
    assert_rc(tg_trust_remove(b, tg_sign_pk_id(tg_sign_sk_pk(f->author2)), &err), TG_E_NOTFOUND);
}

static void test_add_refuses(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *t = fx_trust(f->author);
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *mixed = NULL;
    struct tg_trust_key k = {.pk = tg_sign_sk_pk(f->author), .roles = TG_ROLE_AUTHOR};
    assert_rc(tg_trust_add(t, &k, &err), TG_E_EXISTS);
    /* the author's Ed25519 half under another ML-DSA half: one person must not count twice */
    uint8_t raw[TG_SIGN_PK_LEN];
    memcpy(raw, tg_sign_pk_raw(tg_sign_sk_pk(f->stranger)).p, sizeof raw);
    memcpy(raw, tg_sign_pk_raw(tg_sign_sk_pk(f->author)).p, TG_SIGN_ED25519_LEN);
    assert_int_equal(tg_sign_pk_new(TG_BYTES_OF(raw), &mixed), TG_OK);
    k.pk = mixed;
    assert_rc(tg_trust_add(t, &k, &err), TG_E_EXISTS);
    k.pk = tg_sign_sk_pk(f->author2);
    k.roles = 0;
    assert_rc(tg_trust_add(t, &k, &err), TG_E_USAGE);
    k.roles = 8;
    assert_rc(tg_trust_add(t, &k, &err), TG_E_USAGE);
    const char *model = "m";
    k = (struct tg_trust_key){.pk = tg_sign_sk_pk(f->author2),
                              .roles = TG_ROLE_PLATFORM,
                              .models = &model,
                              .n_models = 1};
    assert_rc(tg_trust_add(t, &k, &err), TG_E_USAGE);
    assert_rc(tg_trust_threshold_set(t, "m", 0, &err), TG_E_USAGE);
    assert_rc(tg_trust_threshold_set(t, "m", 17, &err), TG_E_USAGE);
    assert_rc(tg_trust_threshold_set(t, "", 1, &err), TG_E_USAGE);
}

/* next, signed by the keys given, against cur. */
static enum tg_rc succession(const struct tg_trust *cur, const struct tg_trust *next,
                             uint64_t version, const struct tg_sign_sk *const *by, size_t n,
                             struct tg_err *err)
{
    TG_AUTO(tg_buf_done) struct tg_buf text = saved(next, version, by, n);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = loaded(&text);
    return tg_trust_succeeds(cur, t, err);
}

static void test_succession(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *made = fx_trust(f->author);
    add(made, f->author2, TG_ROLE_AUTHOR, NULL);
    add(made, f->platform, TG_ROLE_PLATFORM, NULL);
    TG_AUTO(tg_buf_done) struct tg_buf text = saved(made, 5, NULL, 0);
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = loaded(&text);
    const struct tg_sign_sk *author[] = {f->author}, *platform[] = {f->platform},
                            *stranger[] = {f->stranger}, *both[] = {f->author, f->author2};
    assert_rc(succession(cur, made, 6, author, 1, &err), TG_OK);
    assert_rc(succession(cur, made, 5, author, 1, &err), TG_E_ROLLBACK);
    assert_rc(succession(cur, made, 4, author, 1, &err), TG_E_ROLLBACK);
    assert_rc(succession(cur, made, 6, NULL, 0, &err), TG_E_DENIED);
    assert_rc(succession(cur, made, 6, platform, 1, &err), TG_E_DENIED);
    assert_rc(succession(cur, made, 6, stranger, 1, &err), TG_E_DENIED);
    assert_contains(err.msg, "0 of 1");
    assert_ok(tg_trust_change_threshold_set(cur, 2, &err));
    assert_rc(succession(cur, made, 6, author, 1, &err), TG_E_DENIED);
    assert_rc(succession(cur, made, 6, both, 2, &err), TG_OK);
    /* a stranger adds itself to the new store and signs it: only the old store counts */
    TG_AUTO(tg_trust_freep) struct tg_trust *evil = fx_trust(f->stranger);
    assert_rc(succession(cur, evil, 7, stranger, 1, &err), TG_E_DENIED);
}

/* An author limited to one model name must not change the store. */
static void test_limited_author_cannot_change(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = fx_trust(f->author);
    add(cur, f->author2, TG_ROLE_AUTHOR, "m");
    TG_AUTO(tg_trust_freep) struct tg_trust *next = fx_trust(f->author2);
    const struct tg_sign_sk *limited[] = {f->author2};
    assert_rc(succession(cur, next, 2, limited, 1, &err), TG_E_DENIED);
}

static void test_cosign(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = fx_trust(f->author);
    add(cur, f->author2, TG_ROLE_AUTHOR, NULL);
    assert_ok(tg_trust_change_threshold_set(cur, 2, &err));
    const struct tg_sign_sk *author[] = {f->author};
    TG_AUTO(tg_buf_done) struct tg_buf one = saved(cur, 2, author, 1);
    TG_AUTO(tg_buf_done) struct tg_buf two = TG_BUF_INIT(TG_TRUST_MAX);
    assert_ok(tg_trust_cosign(tg_buf_view(&one), "t", f->author2, &two, &err));
    TG_AUTO(tg_trust_freep) struct tg_trust *next = loaded(&two);
    assert_ok(tg_trust_succeeds(cur, next, &err));
    TG_AUTO(tg_buf_done) struct tg_buf again = TG_BUF_INIT(TG_TRUST_MAX);
    assert_rc(tg_trust_cosign(tg_buf_view(&two), "t", f->author2, &again, &err), TG_E_EXISTS);
}

/* Any change of one character in a signed store: refused, or no longer vouched for. */
static void test_damaged_store(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_trust_freep) struct tg_trust *cur = fx_trust(f->author);
    const struct tg_sign_sk *author[] = {f->author};
    TG_AUTO(tg_buf_done) struct tg_buf b = saved(cur, 2, author, 1);
    for (size_t i = 0; i < b.n; i += 3) {
        TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
        b.data[i] ^= 1;
        enum tg_rc rc = tg_trust_load(tg_buf_view(&b), "t", &t, &err);
        if (rc == TG_OK)
            rc = tg_trust_succeeds(cur, t, &err);
        if (rc != TG_E_FORMAT && rc != TG_E_AUTH && rc != TG_E_DENIED && rc != TG_E_UNSUPPORTED)
            fail_msg("byte %zu: %s %s", i, tg_rc_name(rc), err.msg);
        b.data[i] ^= 1;
    }
}

static enum tg_rc load_body(const char *body, struct tg_err *err)
{
    struct tg_trust *t = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_TRUST_MAX);
    assert_int_equal(tg_buf_str(&b, "{\"trust\":\""), TG_OK);
    assert_int_equal(tg_b64url_encode(tg_bytes_str(body), &b), TG_OK);
    assert_int_equal(tg_buf_str(&b, "\",\"signatures\":[]}"), TG_OK);
    enum tg_rc rc = tg_trust_load(tg_buf_view(&b), "t.tgtrust", &t, err);
    tg_trust_free(t);
    return rc;
}

#define HEAD                                                                                       \
    "\"tgsp_trust\":\"1.0\",\"version\":1,\"issued_at\":\"2026-01-01T00:00:00Z\",\"keys\":[],"
#define TAIL                                                                                       \
    "\"default_threshold\":1,\"change_threshold\":1,\"thresholds\":[],\"resets\":[],\"crit\":[]"

static void test_bodies(void **state)
{
    static const struct {
        const char *body;
        enum tg_rc rc;
        const char *text;
    } rows[] = {
        {"{" HEAD TAIL "}",                                                         TG_OK,            ""                 },
        {"{" HEAD TAIL ",\"later\":1}",                                             TG_OK,            ""                 },
        {"{\"tgsp_trust\":\"2.0\",\"version\":1,\"issued_at\":\"2026-01-01T00:00:00Z\",\"keys\":[]"
         "," TAIL "}",
         TG_E_UNSUPPORTED,                                                                            "tgsp_trust"       },
        {"{" HEAD "\"default_threshold\":0,\"change_threshold\":1,\"thresholds\":[],\"resets\":[],"
         "\"crit\":[]}",                                                   TG_E_FORMAT,      "default_threshold"},
        {"{" HEAD "\"default_threshold\":1,\"change_threshold\":1,\"thresholds\":[{\"model\":\"m\","
         "\"signatures\":1},"
         "{\"model\":\"m\",\"signatures\":2}],\"resets\":[],\"crit\":[]}", TG_E_FORMAT,      "stands twice"     },
        {"{" HEAD "\"default_threshold\":1,\"change_threshold\":1,\"thresholds\":[{\"model\":\"m\","
         "\"signatures\":1,"
         "\"x\":1}],\"resets\":[],\"crit\":[]}",                           TG_E_FORMAT,      "not a known field"},
        {"{" HEAD "\"default_threshold\":1,\"change_threshold\":1,\"thresholds\":[],\"resets\":[],"
         "\"crit\":[\"trust.later\"],\"later\":1}",                        TG_E_UNSUPPORTED, "trust.later"      },
        {"{" HEAD TAIL ",\"version\":2}",                                           TG_E_FORMAT,      "trust"            },
        {"[]",                                                                      TG_E_FORMAT,      "trust"            },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_err err = TG_ERR_INIT;
        enum tg_rc rc = load_body(rows[i].body, &err);
        if (rc != rows[i].rc || !strstr(err.msg, rows[i].text))
            fail_msg("row %zu: %s '%s'", i, tg_rc_name(rc), err.msg);
    }
}

/* Roles, model names and thresholds on a package. */
static void test_packages(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    fx_mkdir(f, "t");
    fx_write(f, "t/a", "x", 1);
    TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_build(f, "t", NULL);
    TG_AUTO(tg_trust_freep)
    struct tg_trust *granter = fx_trust_roles(f->author, TG_ROLE_GRANTER | TG_ROLE_PLATFORM);
    assert_rc(fx_open_all(tg_buf_view(&pkg), granter, f->device, NULL, &err), TG_E_DENIED);
    assert_contains(err.msg, "role 'author'");
    TG_AUTO(tg_trust_freep) struct tg_trust *limited = NULL;
    assert_ok(tg_trust_new(&limited));
    add(limited, f->author, TG_ROLE_AUTHOR, "another-model");
    assert_rc(fx_open_all(tg_buf_view(&pkg), limited, f->device, NULL, &err), TG_E_DENIED);
    assert_contains(err.msg, "not allowed to sign packages named 'm'");
    TG_AUTO(tg_trust_freep) struct tg_trust *named = NULL;
    assert_ok(tg_trust_new(&named));
    add(named, f->author, TG_ROLE_AUTHOR, "m");
    assert_ok(fx_open_all(tg_buf_view(&pkg), named, f->device, NULL, &err));
    assert_ok(tg_trust_threshold_set(named, "m", 2, &err));
    assert_rc(fx_open_all(tg_buf_view(&pkg), named, f->device, NULL, &err), TG_E_DENIED);
    assert_contains(err.msg, "1 of 2");
    TG_AUTO(tg_trust_freep) struct tg_trust *empty = NULL;
    assert_ok(tg_trust_new(&empty));
    assert_rc(fx_open_all(tg_buf_view(&pkg), empty, f->device, NULL, &err), TG_E_AUTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_add_refuses),
        cmocka_unit_test(test_succession), cmocka_unit_test(test_limited_author_cannot_change),
        cmocka_unit_test(test_cosign),     cmocka_unit_test(test_damaged_store),
        cmocka_unit_test(test_bodies),     cmocka_unit_test(test_packages),
    };
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
