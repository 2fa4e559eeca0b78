/* The database: changes, migrations, and what each aggregate promises. */
#include "../tg_cmocka.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "store/access.h"
#include "store/db.h"
#include "store/deploy.h"
#include "store/fleet.h"
#include "store/package.h"

struct fix {
    char dir[64], path[80];
    struct tg_store *store;
    struct tg_db *db;
    struct tg_arena *arena;
};

static int setup(void **state)
{
    struct fix *f = tg_calloc(1, sizeof(*f));
    struct tg_err err = TG_ERR_INIT;

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/tg-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/t.db", f->dir);
    assert_ok(tg_store_open(f->path, &f->store, &err));
    assert_ok(tg_store_connect(f->store, &f->db, &err));
    assert_ok(tg_arena_new(16 << 20, &f->arena));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;

    tg_db_close(f->db);
    tg_store_close(f->store);
    tg_arena_free(f->arena);
    assert_ok(tg_dir_remove(f->dir, &err));
    tg_free(f);
    return 0;
}

static const struct tg_page first_page = {NULL, 100};
static const struct tg_update_ends ends = {9, 10};

/* ---- changes ---- */

static void add_fleet(struct tg_db *db, const char *name)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_fleet_row row = {.name = name, .description = "", .created_at = 1};

    assert_ok(tg_db_begin(db, &err));
    assert_ok(tg_fleet_add(db, &row, &err));
    assert_ok(tg_db_commit(db, &err));
}

static void test_rollback_undoes(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    const struct tg_fleet_row row = {.name = "a", .description = "", .created_at = 1};
    struct tg_fleet_row got;

    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_fleet_add(f->db, &row, &err));
    assert_true(tg_db_changing(f->db));
    tg_db_rollback(f->db);
    assert_false(tg_db_changing(f->db));
    assert_rc(tg_fleet_get(f->db, "a", f->arena, &got, &err), TG_E_NOTFOUND);
    assert_string_equal(err.msg, "there is no such fleet");
}

static void test_changes_need_a_transaction(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    const struct tg_fleet_row row = {.name = "a", .description = "", .created_at = 1};

    assert_rc(tg_fleet_add(f->db, &row, &err), TG_E_INTERNAL);
    assert_rc(tg_db_commit(f->db, &err), TG_E_INTERNAL);
    assert_ok(tg_db_begin(f->db, &err));
    assert_rc(tg_db_begin(f->db, &err), TG_E_INTERNAL);
    tg_db_rollback(f->db);
}

static void test_readers_see_the_committed_state(void **state)
{
    struct fix *f = *state;
    TG_AUTO(tg_db_closep) struct tg_db *reader = NULL;
    struct tg_err err = TG_ERR_INIT;
    struct tg_fleet_row got;
    const struct tg_fleet_row row = {.name = "a", .description = "", .created_at = 1};

    assert_ok(tg_store_connect(f->store, &reader, &err));
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_fleet_add(f->db, &row, &err));
    assert_rc(tg_fleet_get(reader, "a", f->arena, &got, &err), TG_E_NOTFOUND);
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_fleet_get(reader, "a", f->arena, &got, &err));
}

#define WRITES 50

static void *write_many(void *arg)
{
    struct fix *f = arg;
    struct tg_db *db = NULL;
    struct tg_err err = TG_ERR_INIT;

    if (tg_store_connect(f->store, &db, &err) != TG_OK)
        return (void *)1;
    for (int i = 0; i < WRITES; i++) {
        TG_AUTO(tg_arena_freep) struct tg_arena *arena = NULL;
        struct tg_audit_row row = {.at = 1,
                                   .actor = "a",
                                   .name = "",
                                   .address = "",
                                   .action = "x",
                                   .target = "",
                                   .outcome = "ok",
                                   .detail = ""};
        if (tg_arena_new(1 << 20, &arena) != TG_OK || tg_db_begin(db, &err) != TG_OK ||
            tg_audit_last(db, arena, &row.seq, row.prev_hash, &err) != TG_OK)
            return (void *)1;
        row.seq++;
        if (tg_audit_insert(db, &row, &err) != TG_OK || tg_db_commit(db, &err) != TG_OK)
            return (void *)1;
    }
    tg_db_close(db);
    return NULL;
}

static void test_writers_take_turns(void **state)
{
    struct fix *f = *state;
    pthread_t t[4];
    struct tg_err err = TG_ERR_INIT;
    uint64_t seq = 0;
    uint8_t hash[32];

    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, write_many, f), 0);
    for (size_t i = 0; i < TG_ARRAY_LEN(t); i++) {
        void *bad = NULL;
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
    }
    assert_ok(tg_audit_last(f->db, f->arena, &seq, hash, &err));
    assert_int_equal(seq, TG_ARRAY_LEN(t) * WRITES); /* no number twice, none lost */
}

/* ---- opening ---- */

static void test_opens_again(void **state)
{
    struct fix *f = *state;
    struct tg_store *again = NULL;
    struct tg_err err = TG_ERR_INIT;
    struct tg_fleet_row got;

    add_fleet(f->db, "kept");
    assert_ok(tg_store_open(f->path, &again, &err));
    tg_store_close(again);
    assert_ok(tg_fleet_get(f->db, "kept", f->arena, &got, &err));
}

static void test_refuses_what_it_does_not_know(void **state)
{
    struct fix *f = *state;
    struct tg_store *s = NULL;
    struct tg_err err = TG_ERR_INIT;
    char path[80];

    (void)snprintf(path, sizeof(path), "%s/junk", f->dir);
    assert_ok(tg_file_write(path,
                            tg_bytes_str("this is no database, but it is long enough to look "
                                         "at, and to be refused for what it is"),
                            0600, false, &err));
    assert_rc(tg_store_open(path, &s, &err), TG_E_FORMAT);
    assert_contains(err.msg, "not a database");
    (void)snprintf(path, sizeof(path), "%s/no/such/dir", f->dir);
    assert_rc(tg_store_open(path, &s, &err), TG_E_IO);
}

static void test_full_disk(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct rlimit was, tight = {.rlim_cur = 300000, .rlim_max = RLIM_INFINITY};
    enum tg_rc rc = TG_OK;
    int added = 0;
    int64_t n = 0;
    struct tg_token_row row = {.name = "x", .expires_at = 9};
    char id[33];
    static char big[4000];

    memset(big, 'n', sizeof(big) - 1);
    row.name = big;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    tight.rlim_max = was.rlim_max;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    for (int i = 0; i < 1000 && rc == TG_OK; i++) {
        (void)snprintf(id, sizeof(id), "%032d", i);
        row.id = id;
        memcpy(row.hash, id, 32);
        rc = tg_db_begin(f->db, &err);
        if (rc == TG_OK)
            rc = tg_token_add(f->db, &row, &err);
        if (rc == TG_OK)
            rc = tg_db_commit(f->db, &err);
        if (rc == TG_OK)
            added++;
        tg_db_rollback(f->db);
    }
    bool full = tg_db_full(f->db);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    (void)signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(rc, TG_E_IO);
    assert_true(full);
    assert_in_range(added, 1, 999);
    /* What was acknowledged is there, and nothing else; with room again it goes on. */
    assert_ok(tg_token_count(f->db, &n, &err));
    assert_int_equal(n, added);
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_token_add(f->db, &row, &err));
    assert_ok(tg_db_commit(f->db, &err));
}

/* ---- aggregates ---- */

static void test_tokens(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_token_row row = {.id = "t1", .name = "n", .role = 2, .hash = {1}, .expires_at = 100};
    struct tg_token_row got;
    struct tg_jlist rows;

    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_token_add(f->db, &row, &err));
    row.id = "t2";
    assert_rc(tg_token_add(f->db, &row, &err), TG_E_EXISTS); /* the same hash */
    row.hash[0] = 2;
    row.one_time = true;
    assert_ok(tg_token_add(f->db, &row, &err));
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_token_by_hash(f->db, row.hash, f->arena, &got, &err));
    assert_string_equal(got.id, "t2");
    assert_int_equal(got.role, 2);
    assert_true(got.one_time);
    assert_ok(tg_token_list(f->db, &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 1); /* one-time tokens are not listed */
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_token_end(f->db, "t2", 5, &err));
    assert_rc(tg_token_end(f->db, "t2", 6, &err), TG_E_NOTFOUND); /* only once */
    assert_ok(tg_db_commit(f->db, &err));
}

static void test_enrolment_is_used_once(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    const struct tg_enrolment_row row = {
        .id = "e", .fleet = "a", .hash = {7}, .expires_at = 10, .note = ""};
    const struct tg_enrolment_row orphan = {
        .id = "o", .fleet = "nowhere", .hash = {8}, .expires_at = 10, .note = ""};

    add_fleet(f->db, "a");
    assert_ok(tg_db_begin(f->db, &err));
    assert_rc(tg_enrolment_add(f->db, &orphan, &err), TG_E_STATE); /* no such fleet */
    assert_ok(tg_enrolment_add(f->db, &row, &err));
    assert_ok(tg_enrolment_use(f->db, "e", "d1", 3, &err));
    assert_rc(tg_enrolment_use(f->db, "e", "d2", 4, &err), TG_E_NOTFOUND);
    assert_rc(tg_enrolment_delete(f->db, "e", &err), TG_E_NOTFOUND); /* a used one is history */
    assert_ok(tg_db_commit(f->db, &err));
}

static void add_device(struct tg_db *db, const char *id, const char *fleet)
{
    struct tg_err err = TG_ERR_INIT;
    uint8_t key[TG_KEM_KEY_BYTES] = {1};
    char serial[40];
    struct tg_device_row row = {.id = id,
                                .name = id,
                                .fleet = fleet,
                                .enrolled_at = 1,
                                .kem_public_key = TG_BYTES_OF(key),
                                .agent_version = "1",
                                .status = "",
                                .reason = ""};
    memcpy(row.kem_key_id, id, strlen(id) < 16 ? strlen(id) : 16);
    (void)snprintf(serial, sizeof(serial), "ab%s", id);
    const struct tg_certificate_row cert = {.serial = serial, .device = id, .not_after = 50};

    assert_ok(tg_db_begin(db, &err));
    assert_ok(tg_device_add(db, &row, &err));
    assert_ok(tg_certificate_add(db, &cert, &err));
    assert_ok(tg_update_for_new_device(db, id, fleet, 2, &err));
    assert_ok(tg_db_commit(db, &err));
}

static void test_devices(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_device_row got;
    struct tg_certificate_row cert;
    struct tg_jlist rows;
    uint8_t h[32] = {9};
    const struct tg_device_beat newer = {"d1", 20, "2", true, "locked", TG_BYTES_OF(h), "fine"};
    const struct tg_device_beat older = {"d1", 10, "1", false, "none", TG_BYTES_NONE, "old news"};

    add_fleet(f->db, "a");
    add_fleet(f->db, "b");
    add_device(f->db, "d1", "a");
    add_device(f->db, "d2", "b");
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_device_beat(f->db, &newer, &err));
    assert_ok(tg_device_beat(f->db, &older, &err)); /* comes late, changes nothing */
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_device_get(f->db, "d1", f->arena, &got, &err));
    assert_int_equal(got.last_seen, 20);
    assert_string_equal(got.status, "fine");
    assert_string_equal(got.protection, "locked");
    assert_memory_equal(got.running.p, h, 32);
    assert_string_equal(got.serial, "abd1");
    assert_ok(tg_certificate_get(f->db, "abd2", f->arena, &cert, &err));
    assert_string_equal(cert.fleet, "b");
    assert_int_equal(cert.state, 0);
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_device_revoke(f->db, "d2", "lost", &err));
    assert_rc(tg_device_revoke(f->db, "d2", "again", &err), TG_E_NOTFOUND);
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_certificate_get(f->db, "abd2", f->arena, &cert, &err));
    assert_int_equal(cert.state, 1);
    assert_ok(tg_device_list(f->db, "b", &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 1);
    assert_ok(tg_device_list_active(f->db, "b", &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 0);
    assert_ok(tg_device_list(f->db, NULL, &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 2);
}

static void missing(struct fix *f, const struct tg_upload_row *up, const char *expected)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_jlist rows;
    char text[256] = "";

    assert_ok(tg_part_missing(f->db, up, 10, f->arena, &rows, &err));
    for (size_t i = 0; i < rows.n; i++) {
        const struct tg_part_range_row *r = &((const struct tg_part_range_row *)rows.items)[i];
        size_t n = strlen(text);
        (void)snprintf(text + n, sizeof(text) - n, "%d-%d ", (int)r->first, (int)r->last);
    }
    assert_string_equal(text, expected);
}

static void test_upload_parts(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    const struct tg_upload_row up = {
        .id = "u", .owner = "t", .size = 10, .part_size = 1, .parts = 10, .expires_at = 100};
    static const uint64_t order[] = {4, 0, 9, 5, 1};
    struct tg_upload_row got;
    int64_t n;

    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_upload_add(f->db, &up, &err));
    missing(f, &up, "0-9 ");
    for (size_t i = 0; i < TG_ARRAY_LEN(order); i++) {
        const struct tg_part_row part = {.part = order[i], .sha256 = {(uint8_t)i}};
        assert_ok(tg_part_add(f->db, "u", &part, &err));
        assert_rc(tg_part_add(f->db, "u", &part, &err), TG_E_EXISTS);
    }
    missing(f, &up, "2-3 6-8 ");
    assert_ok(tg_upload_get(f->db, "u", f->arena, &got, &err));
    assert_int_equal(got.received, 5);
    assert_ok(tg_upload_open_count(f->db, "t", &n, &err));
    assert_int_equal(n, 1);
    const uint8_t h[32] = {3};
    assert_ok(tg_upload_done(f->db, "u", h, &err));
    assert_rc(tg_upload_done(f->db, "u", h, &err), TG_E_NOTFOUND);
    assert_ok(tg_upload_open_count(f->db, "t", &n, &err));
    assert_int_equal(n, 0);
    assert_ok(tg_db_commit(f->db, &err));
}

static void add_package(struct tg_db *db, uint8_t tag, bool vault)
{
    struct tg_err err = TG_ERR_INIT;
    const struct tg_package_row row = {.h = {tag},
                                       .blob_sha256 = {tag},
                                       .blob_size = 5,
                                       .model = "m",
                                       .version = "1",
                                       .format = "onnx",
                                       .fleets = "{\"v\":[]}",
                                       .signers = "{\"v\":[]}",
                                       .recipients = 1,
                                       .vault = vault,
                                       .uploaded_by = "x"};

    assert_ok(tg_db_begin(db, &err));
    assert_ok(tg_package_add(db, &row, &err));
    assert_ok(tg_db_commit(db, &err));
}

static void deploy(struct tg_db *db, const char *id, uint8_t tag, const char *fleet,
                   const char *device)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_deployment_row row = {.id = id,
                                    .h = {tag},
                                    .fleet = fleet,
                                    .device = device,
                                    .created_by = "x",
                                    .document = tg_bytes_str("{}")};

    assert_ok(tg_db_begin(db, &err));
    assert_ok(tg_deployment_add(db, &row, &err));
    assert_ok(tg_update_fan_out(db, &row, &ends, 5, &err));
    assert_ok(tg_db_commit(db, &err));
}

static const char *directive_of(struct fix *f, const char *device)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_directive_row row;
    uint8_t kem[16] = {0};
    const struct tg_directive_query q = {device, kem, ends};

    memcpy(kem, device, strlen(device));
    enum tg_rc rc = tg_directive_get(f->db, &q, f->arena, &row, &err);
    if (rc == TG_E_NOTFOUND)
        return "none";
    assert_ok(rc);
    return row.deployment;
}

static void test_newest_deployment_wins(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_jlist rows;

    add_fleet(f->db, "a");
    add_device(f->db, "d1", "a");
    add_device(f->db, "d2", "a");
    add_package(f->db, 1, true);
    add_package(f->db, 2, true);
    deploy(f->db, "p1", 1, "a", NULL);
    assert_string_equal(directive_of(f, "d1"), "p1");
    deploy(f->db, "p2", 2, "a", "d1"); /* for one device of it */
    assert_string_equal(directive_of(f, "d1"), "p2");
    assert_string_equal(directive_of(f, "d2"), "p1");
    add_device(f->db, "d3", "a"); /* enrols later */
    assert_string_equal(directive_of(f, "d3"), "p1");
    deploy(f->db, "p3", 2, "a", NULL);
    assert_string_equal(directive_of(f, "d1"), "p3");
    assert_string_equal(directive_of(f, "d3"), "p3");
    assert_ok(tg_deployment_counts(f->db, "p1", f->arena, &rows, &err));
    assert_int_equal(rows.n, 1); /* all superseded */
    assert_int_equal(((const struct tg_state_count_row *)rows.items)[0].state, ends.superseded);
    assert_int_equal(((const struct tg_state_count_row *)rows.items)[0].n, 3);
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_deployment_cancel(f->db, "p3", &err));
    assert_rc(tg_deployment_cancel(f->db, "p3", &err), TG_E_NOTFOUND);
    assert_ok(tg_update_end_deployment(f->db, "p3", &ends, 6, &err));
    assert_ok(tg_db_commit(f->db, &err));
    assert_string_equal(directive_of(f, "d1"), "none"); /* what was superseded stays so */
    add_device(f->db, "d4", "a");
    assert_string_equal(directive_of(f, "d4"), "p1"); /* the newest that is active */
}

static void test_updates_compare_and_set(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_update_row was = {.deployment = "p", .device = "d1", .state = 0, .seq = 0};
    const struct tg_update_row is = {
        .state = 1, .seq = 4, .code = "", .reason = "r", .updated_at = 9};
    bool yes = true;
    const uint8_t h[32] = {1};
    struct tg_update_row got;

    add_fleet(f->db, "a");
    add_device(f->db, "d1", "a");
    add_package(f->db, 1, true);
    deploy(f->db, "p", 1, "a", NULL);
    assert_ok(tg_update_concerns(f->db, "d1", h, &ends, &yes, &err));
    assert_false(yes); /* not offered yet */
    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_update_set(f->db, &was, &is, &err));
    assert_rc(tg_update_set(f->db, &was, &is, &err), TG_E_NOTFOUND); /* it moved on */
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_update_concerns(f->db, "d1", h, &ends, &yes, &err));
    assert_true(yes);
    assert_ok(tg_update_get(f->db, "p", "d1", f->arena, &got, &err));
    assert_int_equal(got.seq, 4);
    assert_string_equal(got.reason, "r");
}

/* An update's state in one step, whether the device says that it runs, and the report's number. */
static void say(struct fix *f, const char *deployment, int state, bool ran)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_update_row was, is;

    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_update_get(f->db, deployment, "d1", f->arena, &was, &err));
    is = was;
    is.state = state;
    is.ran = ran;
    is.seq++;
    assert_ok(tg_update_set(f->db, &was, &is, &err));
    assert_ok(tg_db_commit(f->db, &err));
}

static void cancel(struct fix *f, const char *deployment)
{
    struct tg_err err = TG_ERR_INIT;

    assert_ok(tg_db_begin(f->db, &err));
    assert_ok(tg_deployment_cancel(f->db, deployment, &err));
    assert_ok(tg_update_end_deployment(f->db, deployment, &ends, 6, &err));
    assert_ok(tg_db_commit(f->db, &err));
}

static const char *ran_on(struct fix *f, const char *device)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_directive_row row;
    uint8_t kem[16] = {0};
    const struct tg_directive_query q = {device, kem, ends};

    enum tg_rc rc = tg_update_ran(f->db, &q, f->arena, &row, &err);
    if (rc == TG_E_NOTFOUND)
        return "none";
    assert_ok(rc);
    return row.deployment;
}

/* Whatever took an update's place, until that has run itself; and nothing that was called off. */
static void test_what_ran_last(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_update_row got;

    add_fleet(f->db, "a");
    add_device(f->db, "d1", "a");
    add_device(f->db, "d2", "a");
    for (uint8_t tag = 1; tag <= 3; tag++)
        add_package(f->db, tag, true);
    deploy(f->db, "p1", 1, "a", NULL);
    assert_string_equal(ran_on(f, "d1"), "none");
    say(f, "p1", 6, true);
    deploy(f->db, "p2", 2, "a", NULL);
    assert_ok(tg_update_get(f->db, "p1", "d1", f->arena, &got, &err));
    assert_int_equal(got.state, ends.superseded);
    assert_int_equal(got.ended_from, 6);
    assert_true(got.ran);
    assert_string_equal(ran_on(f, "d1"), "p1");
    assert_string_equal(ran_on(f, "d2"), "none");
    say(f, "p2", 6, true);
    assert_string_equal(ran_on(f, "d1"), "p2");
    say(f, "p2", 8, false); /* it went back */
    assert_string_equal(ran_on(f, "d1"), "p1");
    say(f, "p2", 6, true);
    deploy(f->db, "p3", 3, "a", NULL);
    assert_string_equal(ran_on(f, "d1"), "p2");
    cancel(f, "p3"); /* of another package */
    assert_string_equal(ran_on(f, "d1"), "p2");
    deploy(f->db, "p4", 2, "a", NULL);
    cancel(f, "p4"); /* of the same one: withdrawn, though p2 itself was not */
    assert_string_equal(ran_on(f, "d1"), "none");
    deploy(f->db, "p5", 1, "a", NULL);
    say(f, "p5", 6, true);
    assert_string_equal(ran_on(f, "d1"), "p5");
    deploy(f->db, "p6", 3, "a", NULL);
    cancel(f, "p5"); /* after it was superseded */
    assert_string_equal(ran_on(f, "d1"), "none");
}

static void test_audit_by_package(void **state)
{
    struct fix *f = *state;
    struct tg_err err = TG_ERR_INIT;
    uint8_t h[32] = {1};
    struct tg_audit_row row = {.at = 1,
                               .actor = "a",
                               .name = "",
                               .address = "",
                               .action = "x",
                               .target = "",
                               .outcome = "ok",
                               .detail = ""};
    struct tg_audit_filter filter = {.package = TG_BYTES_OF(h)};
    const struct tg_page after = {"2", 100}, wrong = {"two", 100};
    struct tg_jlist rows;

    assert_ok(tg_db_begin(f->db, &err));
    for (row.seq = 1; row.seq <= 5; row.seq++) {
        row.package = row.seq % 2 == 1 ? TG_BYTES_OF(h) : TG_BYTES_NONE;
        assert_ok(tg_audit_insert(f->db, &row, &err));
    }
    row.seq = 5;
    assert_rc(tg_audit_insert(f->db, &row, &err), TG_E_EXISTS);
    assert_ok(tg_db_commit(f->db, &err));
    assert_ok(tg_audit_list(f->db, &filter, &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 3);
    assert_ok(tg_audit_list(f->db, &filter, &after, f->arena, &rows, &err));
    assert_int_equal(rows.n, 2);
    filter.package = TG_BYTES_NONE;
    filter.action = "y";
    assert_ok(tg_audit_list(f->db, &filter, &first_page, f->arena, &rows, &err));
    assert_int_equal(rows.n, 0);
    assert_rc(tg_audit_list(f->db, &filter, &wrong, f->arena, &rows, &err), TG_E_USAGE);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_rollback_undoes),
        T(test_changes_need_a_transaction),
        T(test_readers_see_the_committed_state),
        T(test_writers_take_turns),
        T(test_opens_again),
        T(test_refuses_what_it_does_not_know),
        T(test_full_disk),
        T(test_tokens),
        T(test_enrolment_is_used_once),
        T(test_devices),
        T(test_upload_parts),
        T(test_newest_deployment_wins),
        T(test_updates_compare_and_set),
        T(test_what_ran_last),
        T(test_audit_by_package),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
