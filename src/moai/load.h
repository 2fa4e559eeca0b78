/* From descriptors to a model that answers: verify, decrypt into locked memory, load, check.
 * The order is that of docs/spec/tgsp-1.0.md §7. */
#ifndef TG_MOAI_LOAD_H
#define TG_MOAI_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "moai/bake.h"
#include "moai/named.h"
#include "moai/session.h"
#include "tgsp/format.h"

enum tg_load_state { TG_LOAD_VERIFYING, TG_LOAD_DECRYPTING, TG_LOAD_LOADING, TG_LOAD_CHECKING };

const char *tg_load_state_name(enum tg_load_state s);

struct tg_load_opts {
    int package, trust, key, rollback;
    int grant, deployment; /* -1: none */
    int arrival; /* the package is still being downloaded: its arrival page (tgsp/arrival.h); -1:
                    it is complete */
    const char *fleet, *device_id;
    int64_t now; /* Unix seconds */
    unsigned threads;
    struct tg_ort *ort;
    /* The sealed bake of an earlier start to read, and an empty file for a new one; -1: none. */
    int bake_in, bake_out;
    struct tg_bake_pipe *pipe; /* for baking; NULL: the model is run as it is. Closed. */
    /* Told before each step; anything but TG_OK ends the load. */
    enum tg_rc (*state)(void *arg, enum tg_load_state s, struct tg_err *err);
    /* Ask for bytes of the package once more (see tgsp/follow.h); from any thread. */
    enum tg_rc (*again)(void *arg, uint64_t off, uint64_t n, struct tg_err *err);
    void *arg;
    /* Files may be handed over: the package stays open, to be decrypted from again, and one that
     * can't be run is held rather than refused. Its descriptor must then outlive the model. */
    bool keep_files;
};

/* A loaded model. */
struct tg_model {
    /* The package's plaintext, read-only: only while something is used from it, else NULL. */
    struct tg_secret *region;
    struct tg_secret *spent;    /* the same once nothing is used from it: for tg_model_settle */
    bool from_bake;             /* it came from the sealed bake */
    struct tg_session *session; /* NULL: held, not run */
    struct tg_named named;      /* what the session takes by name */
    /* With keep_files: verified and unwrapped, for tg_tgsp_read. No plaintext of it stays. */
    struct tg_tgsp *package;
    struct tg_follow *follow; /* what it is read through, where it came while it was loaded */
    char name[TG_TGSP_NAME_MAX + 1];
    char version[TG_TGSP_VERSION_MAX + 1];
    uint64_t sequence, floor;
    uint8_t h[TG_TGSP_H_LEN];
    uint64_t golden_cases;
    uint64_t load_ns;
};

/* The file to run (tensor/onnx.h, tg_onnx_pick). Pure. @retval TG_E_UNSUPPORTED another format
 * @retval TG_E_FORMAT none, or several */
TG_RC tg_model_pick(const struct tg_tgsp_manifest *m, const struct tg_tgsp_file **out,
                    struct tg_err *err);

/* The codes of tgsp/package.h; TG_E_NOMEM when memory can't be locked (err says how much is needed,
 * the limit, and the remedy); those of tg_session_new and tg_golden_check. */
TG_RC tg_model_load(const struct tg_load_opts *opts, struct tg_model **out, struct tg_err *err);
/* Overwrite and give back what only loading needed, the end of a tg_region_hurry included. It takes
 * longer the larger the package is: once, in any thread, beside the first predictions. */
void tg_model_settle(struct tg_model *m);
void tg_model_free(struct tg_model *m); /* wipes the region */
TG_DEFINE_AUTO(struct tg_model, tg_model_freep, tg_model_free);

#endif
