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
    enum tg_level protection;
    unsigned threads; /* 0: all processors */
    bool json;
};

/* Prints what was found at each stage.
 * @retval TG_E_STATE weights were found where none may be (the output says at which stage)
 * others: those of tg_model_load, tg_protect_require, tg_scan_plant */
TG_RC tg_verify_memory(const struct tg_verify_memory_opts *opts, struct tg_err *err);

#endif
