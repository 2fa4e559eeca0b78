/* Keys, a folder and packages for the tests of src/tgsp. */
#ifndef TG_TESTS_TGSP_FIXTURE_H
#define TG_TESTS_TGSP_FIXTURE_H

#include "../tg_cmocka.h"
#include "base/bytes.h"
#include "crypto/kem.h"
#include "crypto/sign.h"
#include "tgsp/build.h"
#include "tgsp/package.h"
#include "tgsp/trust.h"

#define FX_NOW INT64_C(1770000000) /* 2026-02-02T02:40:00Z */

struct fx {
    char dir[64];
    struct tg_sign_sk *author, *author2, *stranger, *platform;
    struct tg_kem_sk *device, *other;
    unsigned count; /* packages made */
};

/* cmocka group fixtures. */
int fx_setup(void **state);
int fx_teardown(void **state);

/* A generator that gives the same bytes for the same label. */
struct fx_rng {
    uint8_t seed[32];
    uint64_t counter;
};

struct tg_rng fx_rng_init(struct fx_rng *r, const char *label);

/* dir/name; in static storage of a few slots. */
const char *fx_path(const struct fx *f, const char *name);
void fx_write(const struct fx *f, const char *name, const void *p, size_t n);
void fx_mkdir(const struct fx *f, const char *name);
/* A whole file; free with tg_buf_done. */
struct tg_buf fx_read(const char *path);

/* Defaults: author signs, for device, model "m", sequence 7, version "1", no inputs digest. */
struct tg_tgsp_build fx_build_spec(struct fx *f, const struct tg_tgsp_inputs *in);
/* Build from the folder f->dir/name with the spec's changes made by `edit` (may be NULL); the
 * bytes. */
struct tg_buf fx_build(struct fx *f, const char *inputs,
                       void (*edit)(struct fx *f, struct tg_tgsp_build *b));

/* Trusts the key as author and granter for all models. */
struct tg_trust *fx_trust(const struct tg_sign_sk *sk);
struct tg_trust *fx_trust_roles(const struct tg_sign_sk *sk, unsigned roles);

/* Everything up to the plaintext: OK, or the first failure. plain may be NULL. */
enum tg_rc fx_open_all(struct tg_bytes pkg, const struct tg_trust *trust,
                       const struct tg_kem_sk *sk, struct tg_buf *plain, struct tg_err *err);

#endif
