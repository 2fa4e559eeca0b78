/* What a device accepts: validity, constraints, rollback, grants, deployments. */
#include "fixture.h"

#include <string.h>

#include "base/mem.h"
#include "tgsp/grant.h"

static struct tg_buf
    pkg; /* valid FX_NOW-10 .. FX_NOW+10, fleets a and b, agent 1.2.3, sequence 7, floor 3 */
static struct tg_trust *trust;

static void edit(struct fx *f, struct tg_tgsp_build *b)
{
    static const char *fleets[] = {"a", "b"};
    (void)f;
    b->validity = (struct tg_tgsp_validity){FX_NOW - 10, FX_NOW + 10, true, true};
    b->constraints = (struct tg_tgsp_constraints){
        {fleets, 2},
        "1.2.3"
    };
    b->model.floor = 3;
}

static int setup(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    if (fx_setup(state) != 0)
        return -1;
    struct fx *f = *state;
    fx_mkdir(f, "p");
    fx_write(f, "p/a", "payload", 7);
    pkg = fx_build(f, "p", edit);
    trust = fx_trust(f->author);
    struct tg_trust_key k = {.pk = tg_sign_sk_pk(f->platform), .roles = TG_ROLE_PLATFORM};
    assert_ok(tg_trust_add(trust, &k, &err));
    return 0;
}

static int teardown(void **state)
{
    tg_buf_done(&pkg);
    tg_trust_free(trust);
    return fx_teardown(state);
}

static struct tg_tgsp *verified(const struct tg_src *src)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp *p = NULL;
    assert_ok(tg_tgsp_open(src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    return p;
}

static void test_times_and_constraints(void **state)
{
    static const struct {
        struct tg_tgsp_policy policy;
        enum tg_rc rc;
        const char *text;
    } rows[] = {
        {{.check_time = true, .now = FX_NOW},       TG_OK,         ""                               },
        {{.check_time = true, .now = FX_NOW - 10},  TG_OK,         ""                               },
        {{.check_time = true, .now = FX_NOW - 11},  TG_E_EXPIRED,  "valid only from"                },
        {{.check_time = true, .now = FX_NOW + 9},   TG_OK,         ""                               },
        {{.check_time = true, .now = FX_NOW + 10},  TG_E_EXPIRED,  "expired at 2026-02-02T02:40:10Z"},
        {{.check_time = false, .now = FX_NOW + 10}, TG_OK,         ""                               },
        {{.fleet = "b"},                            TG_OK,         ""                               },
        {{.fleet = "c"},                            TG_E_DENIED,   "fleet 'c'"                      },
        {{.fleet = ""},                             TG_E_DENIED,   "fleet"                          },
        {{.agent_version = "1.2.3"},                TG_OK,         ""                               },
        {{.agent_version = "1.10.0"},               TG_OK,         ""                               },
        {{.agent_version = "2.0.0"},                TG_OK,         ""                               },
        {{.agent_version = "1.2.2"},                TG_E_DENIED,   "needs agent 1.2.3"              },
        {{.agent_version = "0.9.9"},                TG_E_DENIED,   "needs agent"                    },
        {{.agent_version = "1.2"},                  TG_E_INTERNAL, "MAJOR.MINOR.PATCH"              },
    };
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&pkg);
    (void)state;
    tg_src_mem(&src, &view, "p.tgsp");
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        struct tg_err err = TG_ERR_INIT;
        TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = verified(&src);
        enum tg_rc rc = tg_tgsp_admit(p, &rows[i].policy, &err);
        if (rc != rows[i].rc || !strstr(err.msg, rows[i].text))
            fail_msg("row %zu: %s '%s'", i, tg_rc_name(rc), err.msg);
    }
}

static void h_of(uint8_t h[32], uint8_t c)
{
    memset(h, c, 32);
}

/* One step of a device's life: ask, and where it is accepted, run it. */
struct step {
    uint64_t sequence, floor;
    uint8_t h;
    bool deployment;
    uint64_t resets;
    enum tg_rc rc;
};

static void live(const struct step *steps, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_rollback *r = NULL;
    assert_ok(tg_rollback_new(&r));
    for (size_t i = 0; i < n; i++) {
        uint8_t h[32];
        h_of(h, steps[i].h);
        struct tg_rollback_query q = {"m", steps[i].sequence, steps[i].floor,
                                      h,   steps[i].resets,   steps[i].deployment};
        enum tg_rc rc = tg_rollback_decide(r, &q, &err);
        if (rc != steps[i].rc)
            fail_msg("step %zu: %s %s", i, tg_rc_name(rc), err.msg);
        if (rc == TG_OK)
            assert_ok(tg_rollback_accept(r, &q, &err));
        /* every step survives being written down and read again */
        TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_ROLLBACK_MAX);
        struct tg_rollback *back = NULL;
        assert_ok(tg_rollback_encode(r, &b, &err));
        assert_ok(tg_rollback_decode(tg_buf_view(&b), "rollback.json", &back, &err));
        tg_rollback_free(r);
        r = back;
    }
    tg_rollback_free(r);
}

static void test_rollback_lives(void **state)
{
    (void)state;
    static const struct step up_and_back[] = {
        {10, 0, 'A', false, 0, TG_OK        },
        {10, 0, 'A', false, 0, TG_OK        }, /* a restart */
        {20, 0, 'B', false, 0, TG_OK        },
        {10, 0, 'A', false, 0, TG_OK        }, /* back to what served just before */
        {10, 0, 'A', false, 0, TG_OK        }, /* a restart of that */
        {20, 0, 'B', false, 0, TG_OK        }, /* K again */
        {15, 0, 'C', false, 0, TG_E_ROLLBACK}, /* below K, never served */
        {20, 0, 'D', false, 0, TG_E_ROLLBACK}, /* K with another H */
        {20, 0, 'D', true,  0, TG_OK        }, /* that, by deployment */
        {15, 0, 'C', true,  0, TG_OK        },
        {15, 0, 'C', false, 0, TG_OK        }, /* a restart, without the deployment */
        {10, 0, 'A', false, 0, TG_E_ROLLBACK}, /* no longer the one just before */
        {30, 0, 'E', false, 0, TG_OK        },
    };
    static const struct step floors[] = {
        {10, 0,  'A', false, 0, TG_OK        },
        {20, 20, 'B', false, 0, TG_OK        },
        {10, 0,  'A', false, 0, TG_E_ROLLBACK}, /* served just before, but below F */
        {10, 0,  'A', true,  0, TG_E_ROLLBACK}, /* no deployment opens a way below F */
        {25, 0,  'C', false, 0, TG_OK        }, /* a lower floor does not lower F */
        {19, 0,  'D', true,  0, TG_E_ROLLBACK},
        {20, 0,  'E', true,  0, TG_OK        },
        {1,  0,  'F', false, 1, TG_OK        }, /* the trust store reset the name */
        {1,  0,  'F', false, 1, TG_OK        },
        {0,  0,  'G', false, 1, TG_E_ROLLBACK},
    };
    live(up_and_back, TG_ARRAY_LEN(up_and_back));
    live(floors, TG_ARRAY_LEN(floors));
}

static void test_rollback_record(void **state)
{
    static const char *bad[] = {
        "",
        "{}",
        "[]",
        "{\"tgsp_rollback\":\"1.0\"}",
        "{\"tgsp_rollback\":\"1.0\",\"models\":[],\"x\":1}",
        "{\"tgsp_rollback\":\"1.0\",\"models\":[{\"model\":\"m\"}]}",
        "{\"tgsp_rollback\":\"1.0\",\"models\":[]}x",
    };
    struct tg_err err = TG_ERR_INIT;
    struct tg_rollback *r = NULL;
    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        assert_rc(tg_rollback_decode(tg_bytes_str(bad[i]), "rollback.json", &r, &err), TG_E_FORMAT);
        assert_contains(err.msg, "rollback.json: ");
        assert_null(r);
    }
    assert_rc(tg_rollback_decode(tg_bytes_str("{\"tgsp_rollback\":\"2.0\",\"models\":[]}"), "r", &r,
                                 &err),
              TG_E_UNSUPPORTED);
}

static struct tg_deployment *deployment(struct fx *f, const struct tg_deployment_fields *d,
                                        const struct tg_sign_sk *by)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_deployment *out = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    (void)f;
    assert_ok(tg_deployment_make(d, by, &b, &err));
    assert_ok(tg_deployment_decode(tg_buf_view(&b), "d.tgdeploy", &out, &err));
    return out;
}

static struct tg_deployment_fields fields_of(const struct tg_tgsp *p)
{
    struct tg_deployment_fields d = {.deployment_id = "d1",
                                     .fleet = "a",
                                     .allow_rollback = true,
                                     .issued_at = FX_NOW,
                                     .not_after = FX_NOW + 100};
    memcpy(d.header_sha256, tg_tgsp_h(p), 32);
    return d;
}

static void test_deployments(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = verified(&src);
    struct tg_deployment_fields d = fields_of(p);
    TG_AUTO(tg_deployment_freep) struct tg_deployment *ok = deployment(f, &d, f->platform);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW, "a", NULL, &err), TG_OK);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW, "a", "dev", &err), TG_OK);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW, "b", "dev", &err), TG_E_DENIED);
    assert_false(tg_deployment_verified(ok));
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW - 300, "a", NULL, &err), TG_OK);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW - 301, "a", NULL, &err), TG_E_EXPIRED);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW + 99, "a", NULL, &err), TG_OK);
    assert_rc(tg_deployment_verify(ok, trust, FX_NOW + 100, "a", NULL, &err), TG_E_EXPIRED);
    d.device = "dev";
    TG_AUTO(tg_deployment_freep) struct tg_deployment *one = deployment(f, &d, f->platform);
    assert_rc(tg_deployment_verify(one, trust, FX_NOW, "a", "dev", &err), TG_OK);
    assert_rc(tg_deployment_verify(one, trust, FX_NOW, "a", "dev2", &err), TG_E_DENIED);
    assert_rc(tg_deployment_verify(one, trust, FX_NOW, "a", NULL, &err), TG_E_DENIED);
    TG_AUTO(tg_deployment_freep) struct tg_deployment *author = deployment(f, &d, f->author);
    assert_rc(tg_deployment_verify(author, trust, FX_NOW, "a", "dev", &err), TG_E_DENIED);
    assert_contains(err.msg, "role 'platform'");
    TG_AUTO(tg_deployment_freep) struct tg_deployment *stranger = deployment(f, &d, f->stranger);
    assert_rc(tg_deployment_verify(stranger, trust, FX_NOW, "a", "dev", &err), TG_E_AUTH);
}

/* The record says sequence 9 ran: only a verified deployment of this very package, with
 * allow_rollback. */
static void test_rollback_by_deployment(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&pkg);
    uint8_t newer[32] = {9};
    TG_AUTO(tg_rollback_freep) struct tg_rollback *record = NULL;
    struct tg_rollback_query ran = {"m", 9, 0, newer, 0, false};
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = verified(&src);
    assert_ok(tg_rollback_new(&record));
    assert_ok(tg_rollback_accept(record, &ran, &err));
    struct tg_tgsp_policy policy = {.record = record, .trust = trust};
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_ROLLBACK);
    assert_contains(err.msg, "p.tgsp: rollback: sequence 7");
    struct tg_deployment_fields d = fields_of(p);
    TG_AUTO(tg_deployment_freep) struct tg_deployment *dep = deployment(f, &d, f->platform);
    policy.deployment = dep;
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_STATE); /* not verified yet */
    assert_ok(tg_deployment_verify(dep, trust, FX_NOW, "a", NULL, &err));
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_OK);
    d.allow_rollback = false;
    TG_AUTO(tg_deployment_freep) struct tg_deployment *plain = deployment(f, &d, f->platform);
    assert_ok(tg_deployment_verify(plain, trust, FX_NOW, "a", NULL, &err));
    policy.deployment = plain;
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_ROLLBACK);
    d = fields_of(p);
    d.header_sha256[0] ^= 1;
    TG_AUTO(tg_deployment_freep) struct tg_deployment *other = deployment(f, &d, f->platform);
    assert_ok(tg_deployment_verify(other, trust, FX_NOW, "a", NULL, &err));
    policy.deployment = other;
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_DENIED);
    assert_contains(err.msg, "another package");
    /* a floor above it: nothing helps */
    ran.floor = 8;
    assert_ok(tg_rollback_accept(record, &ran, &err));
    policy.deployment = dep;
    assert_rc(tg_tgsp_admit(p, &policy, &err), TG_E_ROLLBACK);
    assert_contains(err.msg, "below the floor 8");
}

/* ---- grants
 * ---------------------------------------------------------------------------------------- */

static struct tg_tgsp *admitted(const struct tg_src *src)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_tgsp *p = verified(src);
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    return p;
}

static struct tg_buf grant_text(struct fx *f, const struct tg_src *src, const struct tg_sign_sk *by)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf b = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = admitted(src);
    struct tg_grant_spec spec = {tg_kem_sk_pk(f->other), by, FX_NOW, FX_NOW, FX_NOW + 50, NULL};
    assert_rc(tg_grant_make(p, &spec, &b, &err), TG_E_STATE);
    assert_ok(tg_tgsp_unwrap(p, f->device, &err));
    assert_ok(tg_grant_make(p, &spec, &b, &err));
    spec.not_after = spec.not_before;
    TG_AUTO(tg_buf_done) struct tg_buf none = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    assert_rc(tg_grant_make(p, &spec, &none, &err), TG_E_USAGE);
    return b;
}

static enum tg_rc use(struct tg_bytes text, const struct tg_src *src, const struct tg_kem_sk *sk,
                      int64_t now, struct tg_err *err)
{
    TG_AUTO(tg_grant_freep) struct tg_grant *g = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = admitted(src);
    char out[7];
    TG_TRY(tg_grant_decode(text, "g.tgrant", &g, err));
    TG_TRY(tg_tgsp_unwrap_grant(p, g, trust, now, sk, err));
    TG_TRY(tg_tgsp_read(p, 0, out, 7, 0, err));
    assert_memory_equal(out, "payload", 7);
    return TG_OK;
}

static void test_grants(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src, src2;
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_buf_done) struct tg_buf g = grant_text(f, &src, f->author);
    assert_rc(use(tg_buf_view(&g), &src, f->other, FX_NOW, &err), TG_OK);
    assert_rc(use(tg_buf_view(&g), &src, f->other, FX_NOW + 49, &err), TG_OK);
    assert_rc(use(tg_buf_view(&g), &src, f->other, FX_NOW + 50, &err), TG_E_EXPIRED);
    assert_rc(use(tg_buf_view(&g), &src, f->other, FX_NOW - 1, &err), TG_E_EXPIRED);
    assert_rc(use(tg_buf_view(&g), &src, f->device, FX_NOW, &err), TG_E_NOTFORKEY);
    TG_AUTO(tg_buf_done) struct tg_buf by_stranger = grant_text(f, &src, f->stranger);
    assert_rc(use(tg_buf_view(&by_stranger), &src, f->other, FX_NOW, &err), TG_E_AUTH);
    TG_AUTO(tg_buf_done) struct tg_buf by_platform = grant_text(f, &src, f->platform);
    assert_rc(use(tg_buf_view(&by_platform), &src, f->other, FX_NOW, &err), TG_E_DENIED);
    assert_contains(err.msg, "role 'granter'");
    /* the same grant beside another build of the same model */
    TG_AUTO(tg_buf_done) struct tg_buf pkg2 = fx_build(f, "p", edit);
    struct tg_bytes view2 = tg_buf_view(&pkg2);
    tg_src_mem(&src2, &view2, "p2.tgsp");
    assert_rc(use(tg_buf_view(&g), &src2, f->other, FX_NOW, &err), TG_E_DENIED);
    assert_contains(err.msg, "another package");
}

/* Each character of the grant changed: it never opens. Every third bit pattern keeps this quick. */
static void test_damaged_grant(void **state)
{
    struct fx *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "p.tgsp");
    TG_AUTO(tg_buf_done) struct tg_buf g = grant_text(f, &src, f->author);
    for (size_t i = 0; i < g.n; i++) {
        g.data[i] ^= (uint8_t)(1u << (i % 7));
        enum tg_rc rc = use(tg_buf_view(&g), &src, f->other, FX_NOW, &err);
        if (rc != TG_E_FORMAT && rc != TG_E_AUTH && rc != TG_E_UNSUPPORTED)
            fail_msg("byte %zu: %s %s", i, tg_rc_name(rc), err.msg);
        g.data[i] ^= (uint8_t)(1u << (i % 7));
    }
    for (size_t n = 0; n < g.n; n += 41)
        assert_rc(use(tg_bytes_make(g.data, n), &src, f->other, FX_NOW, &err), TG_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_and_constraints),  cmocka_unit_test(test_rollback_lives),
        cmocka_unit_test(test_rollback_record),        cmocka_unit_test(test_deployments),
        cmocka_unit_test(test_rollback_by_deployment), cmocka_unit_test(test_grants),
        cmocka_unit_test(test_damaged_grant),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
