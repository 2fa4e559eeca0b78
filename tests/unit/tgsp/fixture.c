#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "crypto/hash.h"

static enum tg_rc rng_fill(void *ctx, uint8_t *out, size_t n)
{
    struct fx_rng *r = ctx;
    while (n) {
        uint8_t block[40], md[32];
        memcpy(block, r->seed, 32);
        tg_put_be64(block + 32, r->counter++);
        assert_int_equal(tg_sha256(TG_BYTES_OF(block), md), TG_OK);
        size_t take = n < 32 ? n : 32;
        memcpy(out, md, take);
        out += take;
        n -= take;
    }
    return TG_OK;
}

struct tg_rng fx_rng_init(struct fx_rng *r, const char *label)
{
    assert_int_equal(tg_sha256(tg_bytes_str(label), r->seed), TG_OK);
    r->counter = 0;
    return (struct tg_rng){rng_fill, r};
}

int fx_setup(void **state)
{
    struct fx *f = calloc(1, sizeof *f);
    struct fx_rng seed;
    struct tg_rng rng = fx_rng_init(&seed, "keys of the tests");
    assert_non_null(f);
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(f->dir, sizeof f->dir, "%.40s/tg-tgsp-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(tg_sign_sk_generate(&rng, &f->author), TG_OK);
    assert_int_equal(tg_sign_sk_generate(&rng, &f->author2), TG_OK);
    assert_int_equal(tg_sign_sk_generate(&rng, &f->stranger), TG_OK);
    assert_int_equal(tg_sign_sk_generate(&rng, &f->platform), TG_OK);
    assert_int_equal(tg_kem_sk_generate(&rng, &f->device), TG_OK);
    assert_int_equal(tg_kem_sk_generate(&rng, &f->other), TG_OK);
    *state = f;
    return 0;
}

int fx_teardown(void **state)
{
    struct fx *f = *state;
    tg_sign_sk_free(f->author);
    tg_sign_sk_free(f->author2);
    tg_sign_sk_free(f->stranger);
    tg_sign_sk_free(f->platform);
    tg_kem_sk_free(f->device);
    tg_kem_sk_free(f->other);
    assert_int_equal(tg_dir_remove(f->dir, NULL), TG_OK);
    free(f);
    return 0;
}

const char *fx_path(const struct fx *f, const char *name)
{
    static char slots[8][2048];
    static unsigned next;
    char *s = slots[next++ % 8];
    (void)snprintf(s, sizeof slots[0], "%s/%s", f->dir, name);
    return s;
}

void fx_mkdir(const struct fx *f, const char *name)
{
    struct tg_err err = TG_ERR_INIT;
    assert_ok(tg_dir_make(fx_path(f, name), 0700, &err));
}

/* Without fsync: thousands of small files are made here. */
void fx_write(const struct fx *f, const char *name, const void *p, size_t n)
{
    FILE *out = fopen(fx_path(f, name), "wb");
    assert_non_null(out);
    assert_int_equal(n ? fwrite(p, 1, n, out) : 0, n);
    assert_int_equal(fclose(out), 0);
}

struct tg_buf fx_read(const char *path)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_buf b = TG_BUF_INIT((size_t)64 << 20);
    assert_ok(tg_file_read(path, &b, &err));
    return b;
}

struct tg_tgsp_build fx_build_spec(struct fx *f, const struct tg_tgsp_inputs *in)
{
    static const struct tg_kem_pk *recipients[1];
    recipients[0] = tg_kem_sk_pk(f->device);
    return (struct tg_tgsp_build){
        .inputs = in,
        .model = {.name = "m", .version = "1", .sequence = 7, .format = TG_MODEL_OTHER},
        .recipients = recipients,
        .n_recipients = 1,
        .signer = f->author,
        .aead = TG_AEAD_CHACHA20_POLY1305,
        .created_at = FX_NOW,
        .no_inputs_digest = true,
        .threads = 2,
    };
}

struct tg_buf fx_build(struct fx *f, const char *inputs,
                       void (*edit)(struct fx *f, struct tg_tgsp_build *b))
{
    struct tg_err err = TG_ERR_INIT;
    TG_AUTO(tg_tgsp_inputs_freep) struct tg_tgsp_inputs *in = NULL;
    char name[32];
    assert_ok(tg_tgsp_inputs_scan(fx_path(f, inputs), &in, &err));
    struct tg_tgsp_build b = fx_build_spec(f, in);
    if (edit)
        edit(f, &b);
    (void)snprintf(name, sizeof name, "built-%u.tgsp", f->count++);
    const char *path = fx_path(f, name);
    assert_ok(tg_tgsp_build(&b, path, false, NULL, &err));
    struct tg_buf bytes = fx_read(path);
    assert_int_equal(unlink(path), 0);
    return bytes;
}

struct tg_trust *fx_trust_roles(const struct tg_sign_sk *sk, unsigned roles)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_trust *t = NULL;
    struct tg_trust_key key = {.pk = tg_sign_sk_pk(sk), .roles = roles};
    assert_ok(tg_trust_new(&t));
    assert_ok(tg_trust_add(t, &key, &err));
    return t;
}

struct tg_trust *fx_trust(const struct tg_sign_sk *sk)
{
    return fx_trust_roles(sk, TG_ROLE_AUTHOR | TG_ROLE_GRANTER);
}

enum tg_rc fx_open_all(struct tg_bytes pkg, const struct tg_trust *trust,
                       const struct tg_kem_sk *sk, struct tg_buf *plain, struct tg_err *err)
{
    struct tg_src src;
    struct tg_tgsp_policy policy = {.check_time = true, .now = FX_NOW};
    struct tg_tgsp_run run = {.threads = 1};
    TG_AUTO(tg_tgsp_freep) struct tg_tgsp *p = NULL;
    TG_AUTO(tg_freep) uint8_t *own = NULL;
    tg_src_mem(&src, &pkg, "test.tgsp");
    TG_TRY(tg_tgsp_open(&src, &p, err));
    TG_TRY(tg_tgsp_verify(p, trust, err));
    TG_TRY(tg_tgsp_admit(p, &policy, err));
    TG_TRY(tg_tgsp_unwrap(p, sk, err));
    size_t n = (size_t)tg_tgsp_header_get(p)->payload_plain_len;
    own = tg_alloc(n);
    if (!own)
        return TG_FAIL(err, TG_E_NOMEM, "test: out of memory");
    TG_TRY(tg_tgsp_read_all(p, own, &run, err));
    return plain ? tg_buf_append(plain, own, n) : TG_OK;
}
