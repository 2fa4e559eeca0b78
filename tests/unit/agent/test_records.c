/* Records survive a round trip, a failed write, and refuse what they did not write. */
#include "../tg_cmocka.h"

#include <errno.h>
#include <string.h>

#include "agent/records.h"
#include "tmpdir.h"

static struct tg_held held(uint8_t n)
{
    struct tg_held h = {.set = true, .size = 1000U + n, .sequence = n, .floor = n / 2U};
    memset(h.h, n, sizeof h.h);
    memset(h.blob, n + 1, sizeof h.blob);
    TG_TEXT_SET(h.deployment_id, "0123456789abcdef0123456789abcdef");
    TG_TEXT_SET(h.model, "perception-net \"\xC3\xA9\"");
    TG_TEXT_SET(h.version, "1.2");
    return h;
}

static void test_missing_files(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    struct tg_settings set;
    struct tg_serving serving = {.current = {.set = true}};
    struct tg_journal journal = {.set = true};
    tmp_state(&s);
    assert_rc(tg_settings_load(&s, &set, &err), TG_E_NOTFOUND);
    assert_contains(err.msg, "not enrolled");
    assert_ok(tg_serving_load(&s, &serving, &err));
    assert_false(serving.current.set);
    assert_ok(tg_journal_load(&s, &journal, &err));
    assert_false(journal.set);
    tmp_state_done(&s);
}

/* Member by member: padding between members holds whatever it holds. */
static void assert_same_held(const struct tg_held *a, const struct tg_held *b)
{
    assert_int_equal(a->set, b->set);
    assert_memory_equal(a->h, b->h, sizeof a->h);
    assert_memory_equal(a->blob, b->blob, sizeof a->blob);
    assert_string_equal(a->deployment_id, b->deployment_id);
    assert_string_equal(a->model, b->model);
    assert_string_equal(a->version, b->version);
    assert_true(a->size == b->size && a->sequence == b->sequence && a->floor == b->floor);
}

static void assert_same_serving(const struct tg_serving *a, const struct tg_serving *b)
{
    assert_same_held(&a->current, &b->current);
    assert_same_held(&a->previous, &b->previous);
}

static void assert_same_journal(const struct tg_journal *a, const struct tg_journal *b)
{
    assert_int_equal(a->set, b->set);
    assert_int_equal(a->step, b->step);
    assert_same_held(&a->pkg, &b->pkg);
    assert_true(a->tries == b->tries);
    assert_string_equal(a->code, b->code);
    assert_string_equal(a->reason, b->reason);
}

static void assert_same_settings(const struct tg_settings *a, const struct tg_settings *b)
{
    assert_string_equal(a->server, b->server);
    assert_string_equal(a->fleet, b->fleet);
    assert_string_equal(a->device_id, b->device_id);
    assert_string_equal(a->worker, b->worker);
    assert_string_equal(a->worker_user, b->worker_user);
    assert_string_equal(a->protection, b->protection);
    assert_string_equal(a->predict_socket, b->predict_socket);
    assert_string_equal(a->socket_group, b->socket_group);
    assert_int_equal(a->tcp, b->tcp);
    assert_memory_equal(a->tcp_token_sha256, b->tcp_token_sha256, sizeof a->tcp_token_sha256);
    assert_true(a->tcp_port == b->tcp_port && a->check_in_s == b->check_in_s);
    assert_true(a->load_timeout_s == b->load_timeout_s && a->drain_timeout_s == b->drain_timeout_s);
    assert_true(a->worker_timeout_s == b->worker_timeout_s);
}

static void test_round_trips(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    tmp_state(&s);
    struct tg_settings set = {.protection = "secret",
                              .tcp = true,
                              .tcp_port = 8500,
                              .load_timeout_s = 7,
                              .drain_timeout_s = 3,
                              .worker_timeout_s = 11,
                              .check_in_s = 9},
                       set2;
    TG_TEXT_SET(set.server, "https://127.0.0.1:8444");
    TG_TEXT_SET(set.fleet, "robots");
    TG_TEXT_SET(set.device_id, "dev");
    TG_TEXT_SET(set.worker, "/usr/bin/tensorguard-moai");
    TG_TEXT_SET(set.predict_socket, "/run/x.sock");
    memset(set.tcp_token_sha256, 5, 32);
    assert_ok(tg_settings_save(&s, &set, &err));
    assert_ok(tg_settings_load(&s, &set2, &err));
    assert_same_settings(&set, &set2);
    struct tg_serving a = {.current = held(1), .previous = held(2)}, b;
    assert_ok(tg_serving_save(&s, &a, &err));
    assert_ok(tg_serving_load(&s, &b, &err));
    assert_same_serving(&a, &b);
    for (int step = 0; step < TG_STEPS; step++) {
        struct tg_journal j = {.set = true, .step = (enum tg_step)step, .pkg = held(3), .tries = 2},
                          k;
        TG_TEXT_SET(j.code, "AUTH");
        TG_TEXT_SET(j.reason, "because\nof \"this\"");
        assert_ok(tg_journal_save(&s, &j, &err));
        assert_ok(tg_journal_load(&s, &k, &err));
        assert_same_journal(&j, &k);
    }
    tmp_state_done(&s);
}

/* Each write, fsync or rename that fails leaves what was there before. */
static void test_failed_write_keeps_the_old(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;

    static const enum tg_io_op ops[] = {TG_IO_WRITE, TG_IO_SYNC, TG_IO_RENAME};

    tmp_state(&s);
    struct tg_serving a = {.current = held(1)}, b = {.current = held(9), .previous = held(1)}, got;
    assert_ok(tg_serving_save(&s, &a, &err));
    for (size_t i = 0; i < TG_ARRAY_LEN(ops); i++) {
        tg_io_fault_set(ops[i], 1, ENOSPC);
        assert_rc(tg_serving_save(&s, &b, &err), TG_E_IO);
        tg_io_fault_set(ops[i], 0, 0);
        assert_ok(tg_serving_load(&s, &got, &err));
        assert_same_serving(&a, &got);
    }
    tmp_state_done(&s);
}

static void test_damaged_files_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "{}",
                                      "{\"packages\":[1]}",
                                      "[]",
                                      "{\"packages\":[],\"packages\":[]}",
                                      "{\"packages\":[],\"more\":1}"};
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    struct tg_serving got;
    tmp_state(&s);
    for (size_t i = 0; i < TG_ARRAY_LEN(bad); i++) {
        tmp_write(&s, "serving.json", bad[i]);
        assert_rc(tg_serving_load(&s, &got, &err), TG_E_FORMAT);
        assert_contains(err.msg, "serving.json");
    }
    tmp_state_done(&s);
}

static void test_text_is_cut_between_characters(void **state)
{
    (void)state;
    char out[5];
    TG_TEXT_SET(out, "abc\xC3\xA9\xC3\xA9");
    assert_string_equal(out, "abc");
    TG_TEXT_SET(out, "ab\xC3\xA9");
    assert_string_equal(out, "ab\xC3\xA9");
    TG_TEXT_SET(out, NULL);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_failed_write_keeps_the_old),
        cmocka_unit_test(test_damaged_files_are_named),
        cmocka_unit_test(test_text_is_cut_between_characters),
    };
    return cmocka_run_group_tests_name("agent/records", tests, NULL, NULL);
}
