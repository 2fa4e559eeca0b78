/* Writes the fixed packages and documents of tests/vectors/packages (see its README):
 *     make_packages DIR
 * Keys, package ids, salts and file keys come from a counter, so a package is the same each time;
 * the documents' ML-DSA signatures are hedged, so those files differ from run to run. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "crypto/keyfile.h"
#include "fixture.h"
#include "tgsp/deployment.h"
#include "tgsp/grant.h"

static void save(const char *dir, const char *name, const struct tg_buf *b)
{
    struct tg_err err = TG_ERR_INIT;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(tg_file_write(path, tg_buf_view(b), 0644, true, &err));
}

static void keys(const struct fx *f, const char *dir)
{
    struct tg_buf b = TG_BUF_INIT(TG_KEYFILE_MAX);
    assert_int_equal(tg_sign_pk_to_pem(tg_sign_sk_pk(f->author), &b), TG_OK);
    save(dir, "author.pub", &b);
    tg_buf_clear(&b);
    assert_int_equal(tg_sign_pk_to_pem(tg_sign_sk_pk(f->author2), &b), TG_OK);
    save(dir, "author2.pub", &b);
    tg_buf_clear(&b);
    assert_int_equal(tg_sign_pk_to_pem(tg_sign_sk_pk(f->platform), &b), TG_OK);
    save(dir, "platform.pub", &b);
    tg_buf_clear(&b);
    assert_int_equal(tg_kem_pk_to_pem(tg_kem_sk_pk(f->device), &b), TG_OK);
    save(dir, "device.pub", &b);
    tg_buf_clear(&b);
    assert_int_equal(tg_kem_sk_to_pem(f->device, TG_BYTES_NONE, &b), TG_OK);
    save(dir, "device.priv", &b);
    tg_buf_clear(&b);
    assert_int_equal(tg_kem_sk_to_pem(f->other, TG_BYTES_NONE, &b), TG_OK);
    save(dir, "other.priv", &b);
    tg_buf_done(&b);
}

static struct tg_buf package(struct fx *f, const struct tg_tgsp_inputs *in, enum tg_aead aead)
{
    struct tg_err err = TG_ERR_INIT;
    struct fx_rng seed;
    struct tg_rng rng = fx_rng_init(&seed, tg_aead_name(aead));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    static struct tg_jpair meta[] = {
        {"licence", "none" },
        {"größe", "klein"}
    };
    static const char *fleets[] = {"fleet-a", "fleet-b"};
    b.model = (struct tg_tgsp_model){
        .name = "vector",
        .version = "1.0",
        .sequence = 1000,
        .floor = 900,
        .format = TG_MODEL_OTHER,
        .metadata = {meta, 2}
    };
    b.validity = (struct tg_tgsp_validity){FX_NOW - 86400, FX_NOW + 86400, true, true};
    b.constraints = (struct tg_tgsp_constraints){
        {fleets, 2},
        "0.1.0"
    };
    b.provenance = tg_bytes_str("{\"tool\":\"make_packages\"}");
    b.aead = aead;
    b.rng = &rng;
    b.deterministic_signature = true;
    b.chunk_size = TG_TGSP_CHUNK_MIN;
    b.no_inputs_digest = false;
    assert_ok(tg_tgsp_build(&b, fx_path(f, "v.tgsp"), true, NULL, &err));
    return fx_read(fx_path(f, "v.tgsp"));
}

/* As little as a package can be and still hold something: the fuzzers' seed. */
static struct tg_buf tiny_package(struct fx *f)
{
    struct tg_err err = TG_ERR_INIT;
    struct fx_rng seed;
    struct tg_rng rng = fx_rng_init(&seed, "tiny");
    struct tg_tgsp_inputs *in = NULL;
    fx_mkdir(f, "tiny");
    fx_write(f, "tiny/a", "hello", 5);
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "tiny"), &in, &err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    b.rng = &rng;
    b.deterministic_signature = true;
    assert_ok(tg_tgsp_build(&b, fx_path(f, "t.tgsp"), true, NULL, &err));
    tg_tgsp_inputs_free(in);
    return fx_read(fx_path(f, "t.tgsp"));
}

static void documents(struct fx *f, const struct tg_buf *pkg, const char *dir)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_bytes view = tg_buf_view(pkg);
    struct tg_src src;
    struct tg_tgsp *p = NULL;
    struct tg_trust *trust = fx_trust(f->author);
    struct tg_tgsp_policy policy = {.check_time = false};
    struct tg_buf b = TG_BUF_INIT(TG_TRUST_MAX);
    tg_src_mem(&src, &view, "v.tgsp");
    assert_ok(tg_tgsp_open(&src, &p, &err));
    assert_ok(tg_tgsp_verify(p, trust, &err));
    assert_ok(tg_tgsp_admit(p, &policy, &err));
    assert_ok(tg_tgsp_unwrap(p, f->device, &err));
    struct tg_grant_spec spec = {tg_kem_sk_pk(f->other), f->author, FX_NOW, FX_NOW - 60,
                                 FX_NOW + 3600,          NULL};
    assert_ok(tg_grant_make(p, &spec, &b, &err));
    save(dir, "other.tgrant", &b);
    tg_buf_clear(&b);
    struct tg_deployment_fields d = {.deployment_id = "d-1",
                                     .fleet = "fleet-a",
                                     .device = "dev-1",
                                     .allow_rollback = true,
                                     .issued_at = FX_NOW,
                                     .not_after = FX_NOW + 3600};
    memcpy(d.header_sha256, tg_tgsp_h(p), TG_TGSP_H_LEN);
    assert_ok(tg_deployment_make(&d, f->platform, &b, &err));
    save(dir, "deployment.tgdeploy", &b);
    tg_buf_clear(&b);
    struct tg_trust_key platform = {
        .pk = tg_sign_sk_pk(f->platform), .label = "platform", .roles = TG_ROLE_PLATFORM};
    assert_ok(tg_trust_add(trust, &platform, &err));
    const struct tg_sign_sk *by[] = {f->author};
    assert_ok(tg_trust_save(trust, 2, FX_NOW, by, 1, &b, &err));
    save(dir, "store.tgtrust", &b);
    tg_buf_done(&b);
    tg_tgsp_free(p);
    tg_trust_free(trust);
}

int main(int argc, char **argv)
{
    struct tg_err err = TG_ERR_INIT;
    void *state = NULL;
    struct tg_tgsp_inputs *in = NULL;
    uint8_t big[70000];
    if (argc != 2 || fx_setup(&state) != 0)
        return 1;
    struct fx *f = state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 7 + i / 251);
    fx_mkdir(f, "in");
    fx_mkdir(f, "in/ordner");
    fx_write(f, "in/README", "two files and an empty one\n", 27);
    fx_write(f, "in/empty", "", 0);
    fx_write(f, "in/ordner/gewichte-\xc3\xa4.bin", big, sizeof big);
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, "in"), &in, &err));
    struct tg_buf chacha = package(f, in, TG_AEAD_CHACHA20_POLY1305);
    struct tg_buf gcm = package(f, in, TG_AEAD_AES_256_GCM);
    struct tg_buf tiny = tiny_package(f);
    save(argv[1], "tiny.tgsp", &tiny);
    tg_buf_done(&tiny);
    save(argv[1], "chacha20-poly1305.tgsp", &chacha);
    save(argv[1], "aes-256-gcm.tgsp", &gcm);
    keys(f, argv[1]);
    documents(f, &chacha, argv[1]);
    tg_buf_done(&chacha);
    tg_buf_done(&gcm);
    tg_tgsp_inputs_free(in);
    return fx_teardown(&state);
}
