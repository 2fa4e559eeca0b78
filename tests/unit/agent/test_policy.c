/* What the agent refuses by itself, on real packages, deployments and trust stores: forged,
 * foreign, expired, older, below the floor; and what a stolen platform's key cannot do. */
#include "../tg_cmocka.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/policy.h"
#include "crypto/hash.h"
#include "crypto/keyfile.h"
#include "tgsp/build.h"
#include "tgsp/grant.h"
#include "tgsp/package.h"
#include "tmpdir.h"

#define NOW INT64_C(1800000000)

static struct tg_state st;
static struct tg_settings set;
static struct tg_sign_sk *author, *platform, *stranger;
static struct tg_kem_sk *kem, *device; /* the recipient of packages; of grants */
static char input[TG_STATE_PATH_MAX];

static void save_trust(struct tg_trust *t, uint64_t version, struct tg_sign_sk *signer,
                       const char *name)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text = TG_BUF_INIT(TG_TRUST_MAX);
    const struct tg_sign_sk *signers[] = {signer};
    assert_ok(tg_trust_save(t, version, NOW, signers, signer ? 1 : 0, &text, &err));
    assert_ok(tg_state_path(&st, path, &err, "%s", name));
    assert_ok(tg_file_write(path, tg_buf_view(&text), 0600, true, &err));
    tg_buf_done(&text);
}

static void add(struct tg_trust *t, const struct tg_sign_sk *sk, unsigned roles)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_trust_key k = {.pk = tg_sign_sk_pk(sk), .label = "k", .roles = roles};
    assert_ok(tg_trust_add(t, &k, &err));
}

static int set_up(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    tmp_state(&st);
    memset(&set, 0, sizeof set);
    TG_TEXT_SET(set.fleet, "robots");
    TG_TEXT_SET(set.device_id, "device-1");
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    assert_ok(tg_trust_new(&t));
    add(t, author, TG_ROLE_AUTHOR | TG_ROLE_GRANTER);
    add(t, platform, TG_ROLE_PLATFORM | TG_ROLE_GRANTER);
    save_trust(t, 1, NULL, "trust.tgtrust");
    assert_ok(tg_state_path(&st, input, &err, "input"));
    assert_ok(tg_dir_make(input, 0700, &err));
    tmp_write(&st, "input/model.onnx", "not much of a model");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tmp_state_done(&st);
    return 0;
}

struct pack {
    struct tg_sign_sk *signer; /* NULL: the author */
    const char *model;
    uint64_t sequence, floor;
    const char *fleet, *min_agent;
    int64_t not_after;
};

/* Build a package at packages/H.tgsp and describe it as a directive would. */
static struct tg_held build(const struct pack *p)
{
    struct tg_err err = TG_ERR_INIT;
    char tmp[TG_STATE_PATH_MAX], path[TG_STATE_PATH_MAX];
    struct tg_tgsp_built built;
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    const struct tg_kem_pk *to = tg_kem_sk_pk(kem);
    const char *fleets[] = {p->fleet};
    assert_ok(tg_tgsp_inputs_scan(input, &in, &err));
    struct tg_tgsp_build b = {
        .inputs = in,
        .model = {.name = p->model ? p->model : "net",
                  .version = "1",
                  .sequence = p->sequence,
                  .floor = p->floor,
                  .format = TG_MODEL_OTHER},
        .validity = {.not_after = p->not_after,                   .has_not_after = p->not_after != 0                                                       },
        .constraints = {.fleets = {.items = fleets, .n = p->fleet ? 1 : 0},
                  .min_agent = p->min_agent},
        .recipients = &to,
        .n_recipients = 1,
        .signer = p->signer ? p->signer : author,
        .created_at = NOW,
        .threads = 1
    };
    assert_ok(tg_state_path(&st, tmp, &err, "built.tgsp"));
    assert_ok(tg_tgsp_build(&b, tmp, true, &built, &err));
    struct tg_held h = {.set = true, .size = built.size};
    memcpy(h.h, built.h, 32);
    TG_TEXT_SET(h.deployment_id, "dep-1");
    tg_state_package(&st, h.h, path);
    assert_int_equal(rename(tmp, path), 0);
    return h;
}

static enum tg_rc admit(struct tg_held *h, struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    tg_state_package(&st, h->h, path);
    return tg_policy_admit(&st, &set, path, h, NOW, err);
}

static struct tg_buf deployment(const struct tg_deployment_fields *f, const struct tg_sign_sk *by)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    assert_ok(tg_deployment_make(f, by, &text, &err));
    return text;
}

static struct tg_deployment_fields fields(const struct tg_held *h)
{
    struct tg_deployment_fields f = {.deployment_id = h->deployment_id,
                                     .fleet = "robots",
                                     .issued_at = NOW - 10,
                                     .not_after = NOW + 1000};
    memcpy(f.header_sha256, h->h, 32);
    return f;
}

/* Put a deployment that allows going back beside the package. */
static void allow_rollback(const struct tg_held *h, const struct tg_sign_sk *by)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_deployment_fields f = fields(h);
    f.allow_rollback = true;
    struct tg_buf text = deployment(&f, by);
    tg_state_deployment(&st, h->h, path);
    assert_ok(tg_file_write(path, tg_buf_view(&text), 0600, true, &err));
    tg_buf_done(&text);
}

/* ---- deployments ---- */

static void check(const struct tg_deployment_fields *f, const struct tg_sign_sk *by,
                  const struct tg_held *h, enum tg_rc expected)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf text = deployment(f, by);
    assert_rc(tg_policy_deployment(&st, &set, tg_buf_view(&text), h, NOW, &err), expected);
    tg_buf_done(&text);
}

static void test_deployments(void **state)
{
    (void)state;
    struct tg_held h = build(&(struct pack){.sequence = 5});
    struct tg_deployment_fields f = fields(&h);
    check(&f, platform, &h, TG_OK);
    f.device = "device-1";
    check(&f, platform, &h, TG_OK);
    f.device = "device-2";
    check(&f, platform, &h, TG_E_DENIED);
    f = fields(&h);
    f.fleet = "other";
    check(&f, platform, &h, TG_E_DENIED);
    f = fields(&h);
    f.not_after = NOW;
    check(&f, platform, &h, TG_E_EXPIRED);
    f = fields(&h);
    f.issued_at = NOW + 3600;
    f.not_after = NOW + 7200;
    check(&f, platform, &h, TG_E_EXPIRED);
    f = fields(&h);
    f.header_sha256[0] ^= 1;
    check(&f, platform, &h, TG_E_AUTH);
    f = fields(&h);
    f.deployment_id = "dep-2";
    check(&f, platform, &h, TG_E_AUTH);
    f = fields(&h);
    check(&f, stranger, &h, TG_E_AUTH);
    check(&f, author, &h, TG_E_DENIED); /* authors don't deploy */
}

/* ---- packages ---- */

static void test_admits_what_is_right_and_reads_it(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_held h = build(&(struct pack){
        .sequence = 5, .floor = 3, .fleet = "robots", .min_agent = "0.0.1", .not_after = NOW + 1});
    assert_ok(admit(&h, &err));
    assert_string_equal(h.model, "net");
    assert_string_equal(h.version, "1");
    assert_int_equal(h.sequence, 5);
    assert_int_equal(h.floor, 3);
}

static void test_refuses_what_is_not_for_this_device(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_held h = build(&(struct pack){.sequence = 5, .fleet = "ships"});
    assert_rc(admit(&h, &err), TG_E_DENIED);
    h = build(&(struct pack){.sequence = 5, .min_agent = "99.0.0"});
    assert_rc(admit(&h, &err), TG_E_DENIED);
    h = build(&(struct pack){.sequence = 5, .not_after = NOW});
    assert_rc(admit(&h, &err), TG_E_EXPIRED);
    h = build(&(struct pack){.sequence = 5, .signer = stranger});
    assert_rc(admit(&h, &err), TG_E_AUTH);
    h = build(&(struct pack){.sequence = 5, .signer = platform});
    assert_rc(admit(&h, &err), TG_E_DENIED); /* the platform is no author */
    struct tg_held other = build(&(struct pack){.sequence = 6});
    char path[TG_STATE_PATH_MAX];
    tg_state_package(&st, other.h, path);
    assert_rc(tg_policy_admit(&st, &set, path, &h, NOW, &err), TG_E_AUTH); /* another H */
}

static void test_sequence_and_floor(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_held v5 = build(&(struct pack){.sequence = 5});
    struct tg_held v7 = build(&(struct pack){.sequence = 7, .floor = 4});
    struct tg_held v9 = build(&(struct pack){.sequence = 9, .floor = 4});
    struct tg_held v3 = build(&(struct pack){.sequence = 3});
    struct tg_held v6 = build(&(struct pack){.sequence = 6});
    struct tg_held twin = build(&(struct pack){.sequence = 9});
    struct tg_held elsewhere = build(&(struct pack){.sequence = 1, .model = "other-net"});
    struct tg_held *const run[] = {&v5, &v7, &v9};
    for (size_t i = 0; i < TG_ARRAY_LEN(run); i++) {
        assert_ok(admit(run[i], &err));
        assert_ok(tg_policy_accept(&st, run[i], &err));
        assert_ok(tg_policy_accept(&st, run[i], &err)); /* a restart: nothing moves */
        assert_ok(admit(run[i], &err));
    }
    assert_ok(admit(&v7, &err));                  /* served just before */
    assert_rc(admit(&v6, &err), TG_E_ROLLBACK);   /* older */
    assert_rc(admit(&twin, &err), TG_E_ROLLBACK); /* same number, other bytes */
    assert_rc(admit(&v3, &err), TG_E_ROLLBACK);   /* below the floor */
    assert_ok(admit(&elsewhere, &err));           /* another name counts by itself */
    allow_rollback(&v6, platform);
    assert_ok(admit(&v6, &err)); /* the platform may send a device back ... */
    allow_rollback(&v3, platform);
    assert_rc(admit(&v3, &err), TG_E_ROLLBACK); /* ... but nobody may, below the floor */
    assert_contains(err.msg, "floor");
    allow_rollback(&twin, stranger);
    assert_rc(admit(&twin, &err), TG_E_ROLLBACK);
}

/* Sent back with permission, it must start again after a restart, when the permission may have
 * expired. */
static void test_what_was_rolled_back_to_runs_on(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_held v5 = build(&(struct pack){.sequence = 5});
    struct tg_held v7 = build(&(struct pack){.sequence = 7});
    struct tg_held v9 = build(&(struct pack){.sequence = 9});
    assert_ok(admit(&v7, &err));
    assert_ok(tg_policy_accept(&st, &v7, &err));
    assert_ok(admit(&v9, &err));
    assert_ok(tg_policy_accept(&st, &v9, &err));
    allow_rollback(&v5, platform);
    assert_ok(admit(&v5, &err));
    assert_ok(tg_policy_accept(&st, &v5, &err));
    tg_state_deployment(&st, v5.h, path);
    assert_int_equal(unlink(path), 0);
    assert_ok(admit(&v5, &err));
    assert_ok(admit(&v9, &err)); /* and forward again */
    assert_rc(admit(&v7, &err), TG_E_ROLLBACK);
}

static void test_record_that_cannot_be_read_stops_everything(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_held h = build(&(struct pack){.sequence = 5});
    tmp_write(&st, "rollback.json", "{}");
    assert_rc(admit(&h, &err), TG_E_FORMAT);
    assert_contains(err.msg, "rollback.json");
}

/* ---- grants ---- */

/* Put a grant of the package in the place of the kept one, or beside it. */
static void put_grant(const struct tg_held *h, bool later, int64_t from, int64_t to)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_src src;
    struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_grant_spec spec = {.recipient = tg_kem_sk_pk(device),
                                 .signer = author,
                                 .issued_at = from,
                                 .not_before = from,
                                 .not_after = to};
    tg_state_package(&st, h->h, path);
    int fd = open(path, O_RDONLY);
    assert_ok(tg_src_fd(&src, fd, "package", &err));
    assert_ok(tg_policy_trust_load(&st, &t, &err));
    assert_ok(tg_tgsp_open(&src, &p, &err));
    assert_ok(tg_tgsp_verify(p, t, &err));
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_ok(tg_tgsp_unwrap(p, kem, &err));
    assert_ok(tg_grant_make(p, &spec, &text, &err));
    if (later)
        tg_state_grant_new(&st, h->h, path);
    else
        tg_state_grant(&st, h->h, path);
    assert_ok(tg_file_write(path, tg_buf_view(&text), 0600, true, &err));
    tg_buf_done(&text);
    (void)close(fd);
}

static void copy_grant(const struct tg_held *from, const struct tg_held *to)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_buf text = TG_BUF_INIT(TG_TGSP_DOC_MAX);
    tg_state_grant(&st, from->h, path);
    assert_ok(tg_file_read(path, &text, &err));
    tg_state_grant(&st, to->h, path);
    assert_ok(tg_file_write(path, tg_buf_view(&text), 0600, true, &err));
    tg_buf_done(&text);
}

static bool lacks(const struct tg_held *h, struct tg_err *err)
{
    return tg_policy_grant_lacks(&st, &set, h, NOW, err);
}

/* The key of this device; that of the package's recipient is another one. */
static void put_kem_pub(const struct tg_kem_sk *sk)
{
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_buf pem = TG_BUF_INIT(TG_KEYFILE_MAX);
    assert_ok(tg_state_path(&st, path, &err, "kem.pub"));
    assert_ok(tg_kem_pk_to_pem(tg_kem_sk_pk(sk), &pem));
    assert_ok(tg_file_write(path, tg_buf_view(&pem), 0600, true, &err));
    tg_buf_done(&pem);
}

/* Only when nothing but the kept grant keeps the package from running. */
static void test_grants_that_do_not_do(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    put_kem_pub(device);
    struct tg_held h = build(&(struct pack){.sequence = 5});
    assert_true(lacks(&h, &err)); /* it has none */
    assert_int_equal(err.rc, TG_E_NOTFOUND);
    assert_contains(err.msg, "there is none on this device");
    assert_rc(tg_policy_grant_kept(&st, &h, false, NOW, &err), TG_E_NOTFOUND);
    put_grant(&h, false, NOW - 10, NOW + 1);
    assert_ok(tg_policy_grant_kept(&st, &h, false, NOW, &err));
    assert_false(lacks(&h, &err));
    put_grant(&h, false, NOW - 10, NOW);
    assert_rc(tg_policy_grant_kept(&st, &h, false, NOW, &err), TG_E_EXPIRED);
    assert_true(lacks(&h, &err));
    assert_int_equal(err.rc, TG_E_EXPIRED);
    assert_contains(err.msg, "expired at");
    put_grant(&h, false, NOW + 1, NOW + 10); /* a clock that was not set yet */
    assert_true(lacks(&h, &err));
    assert_contains(err.msg, "valid only from");
    assert_true(tg_policy_grant_wanted(&st, &set, &h, NOW, &err));
    put_grant(&h, true, NOW - 10, NOW);
    assert_true(tg_policy_grant_wanted(&st, &set, &h, NOW, &err));
    put_grant(&h, true, NOW - 10, NOW + 10);
    assert_false(tg_policy_grant_wanted(&st, &set, &h, NOW, &err));
    assert_ok(tg_policy_grant_kept(&st, &h, true, NOW, &err));
    assert_true(lacks(&h, &err)); /* whether the later one opens it is another matter */

    struct tg_held other = build(&(struct pack){.sequence = 6});
    copy_grant(&h, &other);
    assert_rc(tg_policy_grant_kept(&st, &other, false, NOW, &err), TG_E_DENIED);
    assert_true(lacks(&other, &err));
    assert_contains(err.msg, "another package");
    tg_state_grant(&st, other.h, path);
    assert_ok(tg_file_write(path, tg_bytes_str("{"), 0600, true, &err)); /* damaged */
    assert_true(lacks(&other, &err));
    assert_int_equal(err.rc, TG_E_FORMAT);
}

/* What is wrong with the package itself, or cannot be told, is not laid on its grant. */
static void test_grants_that_are_not_all(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    char path[TG_STATE_PATH_MAX];
    struct tg_held h = build(&(struct pack){.sequence = 5});
    put_kem_pub(kem); /* the package has a block for it */
    assert_false(lacks(&h, &err));
    put_kem_pub(device);
    assert_true(lacks(&h, &err));
    assert_ok(tg_state_path(&st, path, &err, "kem.pub"));
    assert_int_equal(unlink(path), 0);
    assert_false(lacks(&h, &err));
    put_kem_pub(device);
    struct tg_held over = build(&(struct pack){.sequence = 7, .not_after = NOW});
    put_grant(&over, false, NOW - 10, NOW);
    assert_false(lacks(&over, &err)); /* the package has expired, too */
    tg_state_package(&st, h.h, path);
    assert_int_equal(truncate(path, 100), 0);
    assert_false(lacks(&h, &err));
}

/* ---- trust stores ---- */

static enum tg_rc replace(struct tg_err *err)
{
    char path[TG_STATE_PATH_MAX];
    uint64_t version = 0;
    assert_int_equal(tg_state_path(&st, path, err, "next.tgtrust"), TG_OK);
    return tg_policy_trust_replace(&st, path, &version, err);
}

static void test_newer_trust_store(void **state)
{
    (void)state;
    struct tg_err err = TG_ERR_INIT;
    struct tg_held h = build(&(struct pack){.sequence = 5});
    TG_AUTO(tg_trust_freep) struct tg_trust *t = NULL;
    assert_ok(tg_trust_new(&t));
    add(t, stranger, TG_ROLE_AUTHOR);
    add(t, platform, TG_ROLE_PLATFORM);
    save_trust(t, 2, platform, "next.tgtrust");
    assert_rc(replace(&err), TG_E_DENIED); /* a stolen platform cannot add an author */
    save_trust(t, 2, stranger, "next.tgtrust");
    assert_rc(replace(&err), TG_E_DENIED);
    save_trust(t, 1, author, "next.tgtrust");
    assert_rc(replace(&err), TG_E_ROLLBACK);
    assert_ok(tg_policy_still_trusted(&st, &h, &err));
    save_trust(t, 2, author, "next.tgtrust");
    assert_ok(replace(&err));
    assert_rc(replace(&err), TG_E_ROLLBACK); /* not twice */
    assert_rc(tg_policy_still_trusted(&st, &h, &err), TG_E_AUTH);
    assert_rc(admit(&h, &err), TG_E_AUTH); /* the removed author's package loads no more */
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    if (tg_sign_sk_generate(NULL, &author) != TG_OK ||
        tg_sign_sk_generate(NULL, &platform) != TG_OK ||
        tg_sign_sk_generate(NULL, &stranger) != TG_OK || tg_kem_sk_generate(NULL, &kem) != TG_OK ||
        tg_kem_sk_generate(NULL, &device) != TG_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        T(test_deployments),
        T(test_admits_what_is_right_and_reads_it),
        T(test_refuses_what_is_not_for_this_device),
        T(test_sequence_and_floor),
        T(test_what_was_rolled_back_to_runs_on),
        T(test_record_that_cannot_be_read_stops_everything),
        T(test_grants_that_do_not_do),
        T(test_grants_that_are_not_all),
        T(test_newer_trust_store),
    };
    int failed = cmocka_run_group_tests_name("agent/policy", tests, NULL, NULL);
    tg_sign_sk_free(author);
    tg_sign_sk_free(platform);
    tg_sign_sk_free(stranger);
    tg_kem_sk_free(kem);
    tg_kem_sk_free(device);
    return failed;
}
