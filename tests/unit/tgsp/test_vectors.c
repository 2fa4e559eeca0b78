/* The constructions against vectors computed by the independent reader, and the fixed packages. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/text.h"
#include "crypto/hash.h"
#include "crypto/keyfile.h"
#include "tgsp/construct_internal.h"
#include "tgsp/grant.h"

static const char *vector_path(const char *name)
{
    static char path[4096];
    const char *dir = getenv("TG_VECTORS");
    assert_non_null(dir);
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* `name = hex` lines. The value; fails when there is no such line. */
static struct tg_bytes vector(const char *name)
{
    static struct tg_buf text;
    static uint8_t slots[16][4096];
    static unsigned next;
    char key[128];
    if (!text.n)
        text = fx_read(vector_path("constructions.txt"));
    (void)snprintf(key, sizeof key, "\n%s = ", name);
    const char *at = strstr((const char *)text.data, key);
    if (!at)
        fail_msg("no vector %s", name);
    at += strlen(key);
    size_t n = strcspn(at, "\n") / 2;
    uint8_t *out = slots[next++ % 16];
    assert_true(n <= sizeof slots[0]);
    assert_int_equal(tg_hex_decode(tg_bytes_make(at, 2 * n), out, n), TG_OK);
    return tg_bytes_make(out, n);
}

static void same(const char *name, const void *got, size_t n)
{
    struct tg_bytes want = vector(name);
    assert_int_equal(want.n, n);
    if (!tg_mem_eq(want.p, got, n))
        fail_msg("%s differs", name);
}

static void take(const char *name, void *to, size_t n)
{
    struct tg_bytes v = vector(name);
    assert_int_equal(v.n, n);
    memcpy(to, v.p, n);
}

static const char *const aead_tags[] = {"chacha20_poly1305", "aes_256_gcm"};

static const char *tagged(const char *name, int aead)
{
    static char s[128];
    (void)snprintf(s, sizeof s, "%s.%s", name, aead_tags[aead]);
    return s;
}

static struct tg_tgsp_header header(int aead)
{
    struct tg_tgsp_header h = {.aead = (enum tg_aead)aead};
    take("input.package_id", h.package_id, sizeof h.package_id);
    take("input.payload_salt", h.payload_salt, sizeof h.payload_salt);
    take("input.manifest_sha256", h.manifest_sha256, 32);
    take("input.recipients_sha256", h.recipients_sha256, 32);
    return h;
}

static void test_payload_key_and_commitment(void **state)
{
    uint8_t file_key[32], out[32];
    (void)state;
    take("input.file_key", file_key, 32);
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        struct tg_tgsp_header h = header(a);
        assert_int_equal(tg_payload_key(&h, file_key, out), TG_OK);
        same(tagged("payload_key", a), out, 32);
        assert_int_equal(tg_key_commitment(&h, file_key, out), TG_OK);
        same("key_commitment", out, 32);
    }
}

static void test_wrapping(void **state)
{
    uint8_t file_key[32], ss[32], both[64], h32[32], kek[32], wrapped[48];
    struct tg_kem_ct ct;
    uint8_t pk_bytes[TG_KEM_PK_LEN];
    struct tg_bytes pk = TG_BYTES_OF(pk_bytes);
    (void)state;
    take("input.kem_public_key", pk_bytes, sizeof pk_bytes);
    take("input.file_key", file_key, 32);
    take("input.ss_x25519", both, 32);
    take("input.ss_mlkem768", both + 32, 32);
    take("input.x25519_epk", ct.epk, 32);
    take("input.mlkem768_ct", ct.ct, sizeof ct.ct);
    take("input.header_sha256", h32, 32);
    assert_int_equal(tg_sha256(TG_BYTES_OF(both), ss), TG_OK);
    same("hybrid_secret", ss, 32);
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        struct tg_tgsp_header h = header(a);
        struct tg_wrap r = tg_wrap_recipient(&h), g = tg_wrap_grant(&h, h32);
        assert_int_equal(tg_wrap_kek(&r, ss, &ct, pk, kek), TG_OK);
        same("recipient_kek", kek, 32);
        assert_int_equal(tg_wrap_seal_kek(&r, kek, file_key, wrapped), TG_OK);
        same(tagged("recipient_wrapped_key", a), wrapped, 48);
        assert_int_equal(tg_wrap_kek(&g, ss, &ct, pk, kek), TG_OK);
        same("grant_kek", kek, 32);
        assert_int_equal(tg_wrap_seal_kek(&g, kek, file_key, wrapped), TG_OK);
        same(tagged("grant_wrapped_key", a), wrapped, 48);
    }
}

static void test_ids_and_messages(void **state)
{
    uint8_t md[32];
    uint8_t h32[32], id[16];
    TG_AUTO(tg_buf_done) struct tg_buf b = TG_BUF_INIT(8192);
    (void)state;
    /* The keys of the vectors are random bytes, not usable keys: hash them by hand. */
    assert_int_equal(tg_buf_str(&b, "TGSP-1.0 kem key"), TG_OK);
    assert_int_equal(tg_buf_bytes(&b, vector("input.kem_public_key")), TG_OK);
    assert_int_equal(tg_sha256(tg_buf_view(&b), md), TG_OK);
    same("kem_key_id", md, 16);
    tg_buf_clear(&b);
    assert_int_equal(tg_buf_str(&b, "TGSP-1.0 signing key"), TG_OK);
    assert_int_equal(tg_buf_bytes(&b, vector("input.signing_public_key")), TG_OK);
    assert_int_equal(tg_sha256(tg_buf_view(&b), md), TG_OK);
    same("signing_key_id", md, 16);
    take("signing_key_id", id, 16);
    take("input.header_sha256", h32, 32);
    struct tg_signed_message m = tg_signed_message_make(TG_LABEL_PACKAGE, id, h32);
    same("package_message", m.bytes, m.n);
    assert_int_equal(tg_sha256(vector("input.document"), md), TG_OK);
    m = tg_signed_message_make(TG_LABEL_GRANT, id, md);
    same("grant_message", m.bytes, m.n);
    m = tg_signed_message_make(TG_LABEL_DEPLOYMENT, id, md);
    same("deployment_message", m.bytes, m.n);
}

/* The first n bytes of SHA-256(label || 0) || SHA-256(label || 1) ... */
static void counter_bytes(const char *label, uint8_t *out, size_t n)
{
    for (uint32_t i = 0; n; i++) {
        uint8_t in[64], md[32];
        size_t len = strlen(label);
        memcpy(in, label, len);
        tg_put_be32(in + len, i);
        assert_int_equal(tg_sha256(tg_bytes_make(in, len + 4), md), TG_OK);
        size_t take_n = n < 32 ? n : 32;
        memcpy(out, md, take_n);
        out += take_n;
        n -= take_n;
    }
}

static void test_chunks(void **state)
{
    uint8_t key[32], nonce[12], plain[100], out[116], md[32];
    (void)state;
    counter_bytes("chunk", plain, sizeof plain);
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        struct tg_aead_ctx *ctx = NULL;
        take(tagged("payload_key", a), key, 32);
        assert_int_equal(tg_aead_new((enum tg_aead)a, key, &ctx), TG_OK);
        tg_chunk_nonce(0, true, nonce);
        assert_int_equal(tg_aead_seal(ctx, nonce, TG_BYTES_NONE, TG_BYTES_NONE, out), TG_OK);
        same(tagged("chunk_empty_last", a), out, 16);
        tg_chunk_nonce(5, false, nonce);
        assert_int_equal(tg_aead_seal(ctx, nonce, TG_BYTES_NONE, TG_BYTES_OF(plain), out), TG_OK);
        same(tagged("chunk_5_not_last", a), out, 116);
        tg_aead_free(ctx);
    }

    static const struct {
        const char *name;
        size_t n;
    } rows[] = {
        {"chunk_digest.empty",        0    },
        {"chunk_digest.one_piece",    32768},
        {"chunk_digest.three_pieces", 66536}
    };
    struct tg_chunk_hasher hasher;
    assert_int_equal(tg_chunk_hasher_init(&hasher), TG_OK);
    for (size_t i = 0; i < TG_ARRAY_LEN(rows); i++) {
        uint8_t *sealed = malloc(rows[i].n + 16);
        counter_bytes("ciphertext", sealed, rows[i].n);
        counter_bytes("tag", sealed + rows[i].n, 16);
        assert_int_equal(tg_chunk_digest(&hasher, tg_bytes_make(sealed, rows[i].n + 16), md),
                         TG_OK);
        same(rows[i].name, md, 32);
        free(sealed);
    }
    tg_chunk_hasher_done(&hasher);
}

static struct tg_kem_sk *vector_key(const char *name)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_kem_sk *sk = NULL;
    TG_AUTO(tg_buf_done) struct tg_buf pem = fx_read(vector_path(name));
    assert_ok(tg_kem_sk_from_pem(tg_buf_view(&pem), name, TG_BYTES_NONE, &sk, &err));
    return sk;
}

static void test_packages_open(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_sign_pk_freep) struct tg_sign_pk *author = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *device = vector_key("packages/device.priv");
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    (void)state;
    assert_ok(tg_sign_pk_load_file(vector_path("packages/author.pub"), &author, &err));
    struct tg_trust_key key = {.pk = author, .roles = TG_ROLE_AUTHOR};
    assert_ok(tg_trust_new(&trust));
    assert_ok(tg_trust_add(trust, &key, &err));
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        char name[64];
        (void)snprintf(name, sizeof name, "packages/%s.tgsp", tg_aead_name((enum tg_aead)a));
        TG_AUTO(tg_buf_done) struct tg_buf pkg = fx_read(vector_path(name));
        TG_AUTO(tg_buf_done) struct tg_buf plain = TG_BUF_INIT(1 << 20);
        assert_ok(fx_open_all(tg_buf_view(&pkg), trust, device, &plain, &err));
        assert_non_null(strstr((const char *)plain.data + 4096, "two files and an empty one"));
    }
}

static void test_store_and_documents(void **state)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_src src;
    struct tg_tgsp_policy policy = {.check_time = true, .now = FX_NOW, .fleet = "fleet-a"};
    TG_AUTO(tg_trust_freep) struct tg_trust *trust = NULL;
    TG_AUTO(tg_grant_freep) struct tg_grant *grant = NULL;
    TG_AUTO(tg_deployment_freep) struct tg_deployment *dep = NULL;
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_kem_sk_freep) struct tg_kem_sk *other = vector_key("packages/other.priv");
    TG_AUTO(tg_buf_done) struct tg_buf store = fx_read(vector_path("packages/store.tgtrust"));
    TG_AUTO(tg_buf_done) struct tg_buf gtext = fx_read(vector_path("packages/other.tgrant"));
    TG_AUTO(tg_buf_done) struct tg_buf dtext = fx_read(vector_path("packages/deployment.tgdeploy"));
    TG_AUTO(tg_buf_done)
    struct tg_buf pkg = fx_read(vector_path("packages/chacha20-poly1305.tgsp"));
    (void)state;
    assert_ok(tg_trust_load(tg_buf_view(&store), "store.tgtrust", &trust, &err));
    assert_ok(tg_grant_decode(tg_buf_view(&gtext), "other.tgrant", &grant, &err));
    assert_ok(tg_deployment_decode(tg_buf_view(&dtext), "d", &dep, &err));
    assert_ok(tg_deployment_verify(dep, trust, FX_NOW, "fleet-a", "dev-1", &err));
    policy.deployment = dep;
    struct tg_bytes view = tg_buf_view(&pkg);
    tg_src_mem(&src, &view, "v.tgsp");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_rc(tg_tgsp_unwrap(p, other, &err), TG_E_NOTFORKEY);
    assert_ok(tg_tgsp_unwrap_grant(p, grant, trust, FX_NOW, other, &err));
    uint8_t start[3];
    assert_ok(tg_tgsp_read(p, 4096, start, 3, 0, &err));
    assert_memory_equal(start, "two", 3);
}

/* The writer's bytes are part of what is fixed. */
static void test_writer_is_stable(void **state)
{
    char cmd[8192];
    const char *maker = getenv("TG_MAKE_PACKAGES");
    struct fx *f = *state;
    assert_non_null(maker);
    (void)snprintf(cmd, sizeof cmd, "'%s' '%s'", maker, f->dir);
    assert_int_equal(system(cmd), 0);
    for (int a = 0; a < TG_AEAD_COUNT; a++) {
        char name[80];
        (void)snprintf(name, sizeof name, "packages/%s.tgsp", tg_aead_name((enum tg_aead)a));
        TG_AUTO(tg_buf_done) struct tg_buf want = fx_read(vector_path(name));
        TG_AUTO(tg_buf_done) struct tg_buf got = fx_read(fx_path(f, name + strlen("packages/")));
        assert_true(tg_bytes_eq(tg_buf_view(&want), tg_buf_view(&got)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_payload_key_and_commitment),
        cmocka_unit_test(test_wrapping),
        cmocka_unit_test(test_ids_and_messages),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_packages_open),
        cmocka_unit_test(test_store_and_documents),
        cmocka_unit_test(test_writer_is_stable),
    };
    return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
