/* The device's certificate: when it is renewed, and what is said of it when the platform does not
 * take it. */
#include "../tg_cmocka.h"

#include <string.h>

#include "agent/identity.h"
#include "crypto/x509.h"
#include "tmpdir.h"

#define DAY INT64_C(86400)
#define NOW INT64_C(1790000000)

static void test_when_it_is_renewed(void **state)
{
    static const struct {
        int64_t from, until;
        unsigned percent;
        int64_t at;
    } rows[] = {
        {0,   30 * DAY,       TG_RENEW_PERCENT, 15 * DAY      },
        {NOW, NOW + 30 * DAY, TG_RENEW_PERCENT, NOW + 15 * DAY},
        {NOW, NOW + 30 * DAY, 0,                NOW           },
        {NOW, NOW + 30 * DAY, 10,               NOW + 3 * DAY },
        {NOW, NOW + 30 * DAY, 90,               NOW + 27 * DAY},
        {NOW, NOW + 100,      99,               NOW + 99      },
        {NOW, NOW,            50,               NOW           },
    };

    (void)state;
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++)
        assert_int_equal(tg_identity_renew_at(rows[i].from, rows[i].until, rows[i].percent),
                         rows[i].at);
    for (unsigned p = 1; p < 100; p++) { /* the more, the later; never after it is over */
        int64_t at = tg_identity_renew_at(NOW, NOW + 30 * DAY, p);
        assert_true(at > tg_identity_renew_at(NOW, NOW + 30 * DAY, p - 1));
        assert_true(at < NOW + 30 * DAY);
    }
}

/* A certificate for this folder's key, as the platform issues them. */
static void store(const struct tg_state *s, int64_t now)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_x509_ca_freep) struct tg_x509_ca *ca = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf csr = TG_BUF_INIT(TG_X509_PEM_MAX);
    TG_AUTO(tg_buf_done) struct tg_buf pem = TG_BUF_INIT(TG_X509_PEM_MAX);
    const struct tg_x509_device_opts opts = {"a-device", now, TG_X509_DEVICE_DAYS};

    assert_ok(tg_x509_ca_make("CA", now, 3650, &ca, &err));
    assert_ok(tg_identity_key(s, &err));
    assert_ok(tg_identity_csr(s, "a-device", &csr, &err));
    assert_ok(tg_x509_issue_device(ca, tg_buf_view(&csr), &opts, &pem, &err));
    assert_ok(tg_identity_store(s, tg_buf_view(&pem), &err));
}

static void test_a_certificate_of_the_platform_is_renewed_at_half_its_life(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    int64_t from = 0, until = 0, at;

    (void)state;
    tmp_state(&s);
    store(&s, NOW);
    assert_ok(tg_identity_times(&s, &from, &until, &err));
    at = tg_identity_renew_at(from, until, TG_RENEW_PERCENT);
    assert_int_equal(until, NOW + 30 * DAY);
    assert_in_range(at - NOW, 15 * DAY - DAY / 2, 15 * DAY); /* it holds from a little before */
    tmp_state_done(&s);
}

/* What a call to the platform failed with, and what is made of it. */
static void test_what_is_said_when_the_platform_does_not_take_it(void **state)
{
    static const struct {
        enum tg_rc rc;
        int64_t now;
        bool refused;
        enum tg_rc said;
        const char *words;
    } rows[] = {
        {TG_E_CLOSED, NOW + 31 * DAY, false, TG_E_EXPIRED, "expired at 2026-"                       },
        {TG_E_AUTH,   NOW + 30 * DAY, true,  TG_E_EXPIRED, "enroll --again"                         },
        {TG_E_AUTH,   NOW + DAY,      true,  TG_E_AUTH,    "does not take this device's certificate"},
        {TG_E_AUTH,   NOW + DAY,      true,  TG_E_AUTH,    "enroll --again"                         },
    };
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;

    (void)state;
    tmp_state(&s);
    tg_err_set(&err, TG_E_CLOSED, "the line broke"); /* no certificate at all: nothing to add */
    assert_int_equal(tg_identity_explain(&s, NOW, false, &err), TG_E_CLOSED);
    store(&s, NOW);
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        tg_err_set(&err, rows[i].rc, "the line broke");
        assert_int_equal(tg_identity_explain(&s, rows[i].now, rows[i].refused, &err), rows[i].said);
        assert_contains(err.msg, rows[i].words);
        assert_contains(err.msg, "the line broke");
    }
    tg_err_set(&err, TG_E_CLOSED, "the line broke");
    assert_int_equal(tg_identity_explain(&s, NOW + DAY, false, &err), TG_E_CLOSED);
    assert_string_equal(err.msg, "the line broke");
    tmp_state_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when_it_is_renewed),
        cmocka_unit_test(test_a_certificate_of_the_platform_is_renewed_at_half_its_life),
        cmocka_unit_test(test_what_is_said_when_the_platform_does_not_take_it),
    };
    return cmocka_run_group_tests_name("agent/identity", tests, NULL, NULL);
}
