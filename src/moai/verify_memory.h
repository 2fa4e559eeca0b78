/* `tensorguard-moai --verify-memory`: load a model as the worker does, and search the whole process
 * for its weights at each stage of its life. */
#ifndef TG_MOAI_VERIFY_MEMORY_H
#define TG_MOAI_VERIFY_MEMORY_H

#include <stdbool.h>

#include "base/err.h"
#include "base/region.h"

struct tg_verify_memory_opts {
    const char *package, *next; /* paths; next: the version that is swapped in, NULL: the same */
    const char *trust, *key;
    const char *fleet, *device_id;
    const char *const *handover; /* files of the package to hand over, as a worker may */
    size_t n_handover;           /* ≤ TG_HANDOVER_BURST */
    enum tg_level protection;
    unsigned threads; /* 0: all processors */
    bool json;        /* one object: {"stages": [...]}, and in it why it ended early, if it did */
    bool *answered;   /* set once some of that is on stdout */
};

/* Prints what was found at each stage, and what is handed over.
 * @retval TG_E_STATE weights were found where none may be (the output says at which stage)
 * @retval TG_E_NOTFOUND the package has no such file to hand over
 * others: those of tg_model_load, tg_protect_require, tg_scan_plant, tg_handover_take */
TG_RC tg_verify_memory(const struct tg_verify_memory_opts *opts, struct tg_err *err);

#endif
