/* The vectors of tests/vectors/testkit (its README says what they hold): each is refused with the
 * class it names, and what comes out is what it says and nothing more. TG_TESTKIT   the file that
 * tests/reader/testkit.py unpack made test_tgsp_testkit print     one line per vector for the
 * comparison with the independent reader */
#include "fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/keyfile.h"
#include "tgsp/grant.h"

#define LINES_MAX 32
#define PARTS_MAX 8

struct line {
    char name[24], value[400];
};

struct part {
    char name[32];
    struct tg_bytes
        data; /* an allocation of its own, so that a sanitizer sees a read past its end */
};

struct vector {
    struct line lines[LINES_MAX];
    struct part parts[PARTS_MAX];
    size_t n_lines, n_parts;
};

/* What became of it. */
struct outcome {
    enum tg_rc rc;
    char released[2 * TG_SHA256_LEN + 1], chunks[2 * TG_SHA256_LEN + 1];
    struct tg_err err;
};

/* Everything that one vector needs, freed together. */
struct run {
    struct tg_trust *trust, *next;
    struct tg_kem_sk *key;
    struct tg_tgsp *package;
    struct tg_deployment *deployment;
    struct tg_rollback *record;
    struct tg_grant *grant;
    uint8_t *plain;
};

static void run_done(struct run *r)
{
    tg_free(r->plain);
    tg_grant_free(r->grant);
    tg_rollback_free(r->record);
    tg_deployment_free(r->deployment);
    tg_tgsp_free(r->package);
    tg_kem_sk_free(r->key);
    tg_trust_free(r->next);
    tg_trust_free(r->trust);
}

/* ---- reading vectors ------------------------------------------------------------------------ */

static void vector_done(struct vector *v)
{
    for (size_t i = 0; i < v->n_parts; i++)
        free((void *)(uintptr_t)v->parts[i].data.p);
}

static void copy(char *to, size_t cap, const char *from, size_t n)
{
    assert_true(n < cap);
    memcpy(to, from, n);
    to[n] = '\0';
}

static void part_add(struct vector *v, const char *value)
{
    struct part *p = &v->parts[v->n_parts++];
    uint64_t n;
    const char *space = strchr(value, ' ');
    assert_true(space && v->n_parts <= PARTS_MAX);
    copy(p->name, sizeof p->name, value, (size_t)(space - value));
    assert_int_equal(tg_parse_u64(space + 1, 1 << 24, &n), TG_OK);
    p->data.n = (size_t)n;
}

/* The vector at *at; *at is moved behind it. */
static void vector_read(const char **at, struct vector *v)
{
    memset(v, 0, sizeof *v);
    while (**at != '\n') {
        struct line *l = &v->lines[v->n_lines++];
        size_t n = strcspn(*at, "\n"), k = strcspn(*at, ":");
        assert_true(v->n_lines <= LINES_MAX && k + 2 <= n);
        copy(l->name, sizeof l->name, *at, k);
        copy(l->value, sizeof l->value, *at + k + 2, n - k - 2);
        if (strcmp(l->name, "part") == 0)
            part_add(v, l->value);
        *at += n + 1;
    }
    (*at)++;
    for (size_t i = 0; i < v->n_parts; i++) {
        struct part *p = &v->parts[i];
        uint8_t *copy = malloc(p->data.n ? p->data.n : 1);
        assert_non_null(copy);
        memcpy(copy, *at, p->data.n);
        p->data.p = copy;
        *at += p->data.n;
    }
}

static const char *value_of(const struct vector *v, const char *name)
{
    for (size_t i = 0; i < v->n_lines; i++)
        if (strcmp(v->lines[i].name, name) == 0)
            return v->lines[i].value;
    return NULL;
}

static const struct tg_bytes *part_of(const struct vector *v, const char *name)
{
    for (size_t i = 0; i < v->n_parts; i++)
        if (strcmp(v->parts[i].name, name) == 0)
            return &v->parts[i].data;
    return NULL;
}

static uint64_t number_of(const struct vector *v, const char *name, uint64_t other)
{
    const char *text = value_of(v, name);
    uint64_t n = other;
    if (text)
        assert_int_equal(tg_parse_u64(text, UINT64_MAX, &n), TG_OK);
    return n;
}

/* ---- running one ---------------------------------------------------------------------------- */

static struct tg_buf key_file(const char *name, const char *ending)
{
    char path[4096];
    const char *dir = getenv("TG_VECTORS");
    assert_non_null(dir);
    (void)snprintf(path, sizeof path, "%s/testkit/keys/%s.%s", dir, name, ending);
    return fx_read(path);
}

/* "author author,granter" */
static enum tg_rc trust_line(struct tg_trust *t, const char *value, struct tg_err *err)
{
    char name[64];
    const char *roles = strchr(value, ' ');
    assert_non_null(roles);
    copy(name, sizeof name, value, (size_t)(roles - value));
    TG_AUTO(tg_buf_done) struct tg_buf pem = key_file(name, "pub");
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *pk = NULL;
    TG_TRY(tg_sign_pk_from_pem(tg_buf_view(&pem), name, &pk, err));
    struct tg_trust_key key = {.pk = pk};
    key.roles |= strstr(roles, "author") ? TG_ROLE_AUTHOR : 0;
    key.roles |= strstr(roles, "granter") ? TG_ROLE_GRANTER : 0;
    key.roles |= strstr(roles, "platform") ? TG_ROLE_PLATFORM : 0;
    return tg_trust_add(t, &key, err);
}

static enum tg_rc trust_make(const struct vector *v, struct run *r, struct tg_err *err)
{
    const struct tg_bytes *store = part_of(v, "trust-store"),
                          *next = part_of(v, "next-trust-store");
    if (!store) {
        TG_TRY(tg_trust_new(&r->trust));
        for (size_t i = 0; i < v->n_lines; i++)
            if (strcmp(v->lines[i].name, "trust") == 0)
                TG_TRY(trust_line(r->trust, v->lines[i].value, err));
        return tg_trust_threshold_set(r->trust, NULL, number_of(v, "threshold", 1), err);
    }
    TG_TRY(tg_trust_load(*store, "store", &r->trust, err));
    if (!next)
        return TG_OK;
    TG_TRY(tg_trust_load(*next, "next store", &r->next, err));
    TG_TRY(tg_trust_succeeds(r->trust, r->next, err));
    tg_trust_free(r->trust);
    r->trust = tg_steal(&r->next);
    return TG_OK;
}

static enum tg_rc admit(const struct vector *v, struct run *r, int64_t now, struct tg_err *err)
{
    const struct tg_bytes *deployment = part_of(v, "deployment"),
                          *record = part_of(v, "rollback-record");
    struct tg_tgsp_policy policy = {.check_time = true,
                                    .now = now,
                                    .fleet = value_of(v, "fleet"),
                                    .agent_version = value_of(v, "agent"),
                                    .trust = r->trust};
    if (deployment) {
        TG_TRY(tg_deployment_decode(*deployment, "deployment", &r->deployment, err));
        TG_TRY(tg_deployment_verify(r->deployment, r->trust, now, policy.fleet,
                                    value_of(v, "device"), err));
        policy.deployment = r->deployment;
    }
    if (record) {
        TG_TRY(tg_rollback_decode(*record, "record", &r->record, err));
        policy.record = r->record;
    }
    return tg_tgsp_admit(r->package, &policy, err);
}

static enum tg_rc unwrap(const struct vector *v, struct run *r, int64_t now, struct tg_err *err)
{
    const struct tg_bytes *grant = part_of(v, "grant");
    TG_AUTO(tg_buf_done) struct tg_buf pem = key_file(value_of(v, "key"), "priv");
    TG_TRY(tg_kem_sk_from_pem(tg_buf_view(&pem), "key", TG_BYTES_NONE, &r->key, err));
    if (!grant)
        return tg_tgsp_unwrap(r->package, r->key, err);
    TG_TRY(tg_grant_decode(*grant, "grant", &r->grant, err));
    return tg_tgsp_unwrap_grant(r->package, r->grant, r->trust, now, r->key, err);
}

static void hex_of(const void *p, size_t n, char out[2 * TG_SHA256_LEN + 1])
{
    uint8_t md[TG_SHA256_LEN];
    assert_int_equal(tg_sha256(tg_bytes_make(p, n), md), TG_OK);
    tg_hex_encode(TG_BYTES_OF(md), out);
}

/* What a reader of single chunks gives out: those that pass by themselves, in order. */
static void single_chunks(struct run *r, uint64_t len, char out[2 * TG_SHA256_LEN + 1])
{
    uint64_t size = tg_tgsp_header_get(r->package)->chunk_size, used = 0;
    uint8_t *all = tg_calloc(1, (size_t)len + 1);
    assert_non_null(all);
    for (uint64_t at = 0; at < len; at += size) {
        struct tg_err err = TG_ERR_INIT;
        size_t n = (size_t)(len - at < size ? len - at : size);
        if (tg_tgsp_read(r->package, at, all + used, n, 0, &err) == TG_OK)
            used += n;
        else
            for (size_t k = 0; k < n; k++) /* not a byte of a refused chunk */
                assert_int_equal(all[used + k], 0);
    }
    hex_of(all, (size_t)used, out);
    tg_free(all);
}

static enum tg_rc steps(const struct vector *v, struct run *r, struct outcome *o)
{
    struct tg_src src;
    struct tg_tgsp_run how = {.threads = 2};
    int64_t now = (int64_t)number_of(v, "now", 0);
    TG_TRY(trust_make(v, r, &o->err));
    tg_src_mem(&src, part_of(v, "package"), "vector");
    TG_TRY(tg_tgsp_open(&src, &r->package, &o->err));
    TG_TRY(tg_tgsp_verify(r->package, r->trust, &o->err));
    TG_TRY(admit(v, r, now, &o->err));
    TG_TRY(unwrap(v, r, now, &o->err));
    uint64_t n = tg_tgsp_header_get(r->package)->payload_plain_len;
    if (value_of(v, "chunks-released"))
        single_chunks(r, n, o->chunks);
    r->plain = tg_calloc(1, (size_t)n + 1);
    assert_non_null(r->plain);
    enum tg_rc rc = tg_tgsp_read_all(r->package, r->plain, &how, &o->err);
    if (rc == TG_OK)
        hex_of(r->plain, (size_t)n, o->released);
    else
        for (uint64_t i = 0; i < n; i++) /* nothing stays where a caller could look */
            assert_int_equal(r->plain[i], 0);
    return rc;
}

static void vector_run(const struct vector *v, struct outcome *o)
{
    TG_AUTO(run_done) struct run r = {0};
    memset(o, 0, sizeof *o);
    hex_of("", 0, o->released);
    o->rc = steps(v, &r, o);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static const char *kit(size_t *n)
{
    static struct tg_buf text;
    const char *path = getenv("TG_TESTKIT");
    assert_non_null(path);
    if (!text.n)
        text = fx_read(path);
    *n = text.n;
    return (const char *)text.data;
}

static void check(const struct vector *v)
{
    struct outcome o;
    const char *name = value_of(v, "vector"), *names = value_of(v, "names"),
               *chunks = value_of(v, "chunks-released");
    vector_run(v, &o);
    if (strcmp(o.rc == TG_OK ? "OK" : tg_rc_name(o.rc), value_of(v, "expect")) != 0)
        fail_msg("%s (%s): %s: %s", name, value_of(v, "comment"), tg_rc_name(o.rc), o.err.msg);
    if (tg_rc_exit(o.rc) != (int)number_of(v, "exit", 99))
        fail_msg("%s: exit status %d", name, tg_rc_exit(o.rc));
    if (strcmp(o.released, value_of(v, "released")) != 0)
        fail_msg("%s: released %s", name, o.released);
    if (chunks && strcmp(o.chunks, chunks) != 0)
        fail_msg("%s: single chunks released %s", name, o.chunks);
    if (names && !strstr(o.err.msg, names))
        fail_msg("%s: \"%s\" does not name '%s'", name, o.err.msg, names);
}

static void test_every_vector(void **state)
{
    size_t n, count = 0;
    (void)state;
    for (const char *at = kit(&n), *end = at + n; at < end; count++) {
        struct vector v;
        vector_read(&at, &v);
        check(&v);
        vector_done(&v);
    }
    assert_true(count >= 200);
}

static int print_all(void)
{
    size_t n;
    for (const char *at = kit(&n), *end = at + n; at < end;) {
        struct vector v;
        struct outcome o;
        vector_read(&at, &v);
        vector_run(&v, &o);
        (void)printf("%s %s %s %s\n", value_of(&v, "vector"),
                     o.rc == TG_OK ? "OK" : tg_rc_name(o.rc), o.released,
                     value_of(&v, "chunks-released") ? o.chunks : "-");
        vector_done(&v);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_vector)};
    if (argc > 1 && strcmp(argv[1], "print") == 0)
        return print_all();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
