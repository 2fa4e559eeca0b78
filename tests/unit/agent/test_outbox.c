/* The queue of reports: durable, in order, numbers that only rise. */
#include "../tg_cmocka.h"

#include <errno.h>
#include <string.h>

#include "agent/outbox.h"
#include "tmpdir.h"

static struct tg_outbox_item item(const char *deployment, enum tg_update_state st)
{
    struct tg_outbox_item i = {.state = st};
    TG_TEXT_SET(i.deployment_id, deployment);
    return i;
}

static void add(const struct tg_state *s, struct tg_outbox *o, const char *d,
                enum tg_update_state st)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_outbox_item i = item(d, st);
    assert_ok(tg_outbox_add(s, o, &i, &err));
}

static void test_survives_a_restart(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o, again;
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    assert_null(tg_outbox_first(&o));
    add(&s, &o, "d1", TG_UPDATE_DOWNLOADING);
    add(&s, &o, "d1", TG_UPDATE_RUNNING);
    assert_ok(tg_outbox_load(&s, &again, &err));
    assert_memory_equal(&o, &again, sizeof o);
    assert_int_equal(tg_outbox_first(&again)->seq, 1);
    assert_ok(tg_outbox_drop(&s, &again, 1, &err));
    assert_ok(tg_outbox_drop(&s, &again, 1, &err)); /* twice is fine */
    assert_ok(tg_outbox_load(&s, &o, &err));
    assert_int_equal(tg_outbox_first(&o)->seq, 2);
    assert_int_equal(o.n, 1);
    tmp_state_done(&s);
}

static void test_numbers_never_come_twice(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o;
    uint64_t last = 0;
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    for (int i = 0; i < 20; i++) {
        add(&s, &o, "d", TG_UPDATE_FAILED);
        assert_true(tg_outbox_first(&o)->seq > last);
        last = tg_outbox_first(&o)->seq;
        assert_ok(tg_outbox_drop(&s, &o, last, &err));
        assert_ok(tg_outbox_load(&s, &o, &err)); /* empty, and still it remembers */
        assert_int_equal(o.last_seq, last);
    }
    tmp_state_done(&s);
}

static void test_goes_on_above_the_platform(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o;
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    add(&s, &o, "d1", TG_UPDATE_DOWNLOADING);
    add(&s, &o, "d1", TG_UPDATE_RUNNING);
    assert_ok(tg_outbox_raise(&s, &o, 100, &err));
    assert_int_equal(o.items[0].seq, 101);
    assert_int_equal(o.items[1].seq, 102);
    assert_ok(tg_outbox_raise(&s, &o, 50, &err));
    assert_int_equal(o.last_seq, 102);
    assert_rc(tg_outbox_raise(&s, &o, UINT64_MAX, &err), TG_E_LIMIT);
    assert_int_equal(o.last_seq, 102);
    tmp_state_done(&s);
}

static void test_full_queue_keeps_the_last_word(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o;
    char name[32];
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    add(&s, &o, "first", TG_UPDATE_DOWNLOADING);
    add(&s, &o, "first", TG_UPDATE_FAILED);
    for (int i = 0; i < TG_OUTBOX_MAX - 1; i++) {
        (void)snprintf(name, sizeof name, "d%d", i);
        add(&s, &o, name, TG_UPDATE_RUNNING);
    }
    assert_int_equal(o.n, TG_OUTBOX_MAX);
    assert_string_equal(o.items[0].deployment_id, "first");
    assert_int_equal(o.items[0].state, TG_UPDATE_FAILED);
    tmp_state_done(&s);
}

static void test_same_state_is_said_once(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o;
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    add(&s, &o, "d1", TG_UPDATE_DOWNLOADING);
    add(&s, &o, "d1", TG_UPDATE_FAILED);
    add(&s, &o, "d1", TG_UPDATE_DOWNLOADING);
    assert_int_equal(o.n, 2);
    assert_int_equal(o.items[0].state, TG_UPDATE_FAILED);
    assert_int_equal(o.items[1].state, TG_UPDATE_DOWNLOADING);
    assert_int_equal(o.items[1].seq, 3);
    tmp_state_done(&s);
}

static void test_failed_write_changes_nothing(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_state s;
    static struct tg_outbox o, before;
    tmp_state(&s);
    assert_ok(tg_outbox_load(&s, &o, &err));
    add(&s, &o, "d1", TG_UPDATE_DOWNLOADING);
    memcpy(&before, &o, sizeof o);
    struct tg_outbox_item i = item("d1", TG_UPDATE_RUNNING);
    tg_io_fault_set(TG_IO_SYNC, 1, EIO);
    assert_rc(tg_outbox_add(&s, &o, &i, &err), TG_E_IO);
    tg_io_fault_set(TG_IO_SYNC, 0, 0);
    assert_memory_equal(&before, &o, sizeof o);
    assert_ok(tg_outbox_load(&s, &o, &err));
    assert_memory_equal(&before, &o, sizeof o);
    tmp_state_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_survives_a_restart),
        cmocka_unit_test(test_numbers_never_come_twice),
        cmocka_unit_test(test_goes_on_above_the_platform),
        cmocka_unit_test(test_full_queue_keeps_the_last_word),
        cmocka_unit_test(test_same_state_is_said_once),
        cmocka_unit_test(test_failed_write_changes_nothing),
    };
    return cmocka_run_group_tests_name("agent/outbox", tests, NULL, NULL);
}
