/* Golden outputs (docs/spec/golden.md): a package may carry inputs and the outputs that its
 * author's framework gave for them; the worker is healthy only if it gives the same. */
#ifndef TG_MOAI_GOLDEN_H
#define TG_MOAI_GOLDEN_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "moai/session.h"
#include "tgsp/format.h"

#define TG_GOLDEN_PATH "golden/golden.json"
#define TG_GOLDEN_MAX 65536 /* bytes of golden.json */
#define TG_GOLDEN_CASES_MAX 64

/* A package's plaintext in memory. */
struct tg_model_files {
    const struct tg_tgsp_manifest *manifest;
    struct tg_bytes plain; /* the whole payload, or NULL bytes: only what `only` has is here */
    const struct tg_bytes *only; /* of each file of the manifest; p is NULL for those not here */
};

/* One file's bytes. @retval TG_E_NOTFOUND (no text in err: the caller knows what it was for) */
TG_RC tg_model_file(const struct tg_model_files *f, const char *path, struct tg_bytes *out);

/* Type and shape must be equal. Floats: |got - want| <= atol + rtol * |want|, element by element;
 * an infinity matches only itself, NaN matches NaN. Everything else must be equal. what: for err.
 * @retval TG_E_STATE differs; err says where and by how much, not the values */
TG_RC tg_golden_compare(const char *what, const struct tg_oip_tensor *got,
                        const struct tg_oip_tensor *want, double rtol, double atol,
                        struct tg_err *err);

/* Run every case. *cases: how many there were (0: the package has none).
 * @retval TG_E_STATE an output differs  @retval TG_E_FORMAT  @retval TG_E_NOTFOUND a file that
 * golden.json names */
TG_RC tg_golden_check(struct tg_session *s, const struct tg_model_files *files, uint64_t *cases,
                      struct tg_err *err);

#endif
