/* Any bytes as a worker's message to the agent: a worker that was taken over can say what it likes,
 * and must not be able to call itself healthy with a package it was not given. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t other[32] = {1};
    struct tg_err err = TG_ERR_INIT;
    struct tg_worker w = TG_WORKER_INIT, before;

    memcpy(w.pkg.h, other, sizeof(other));
    before = w;
    enum tg_rc rc = tg_worker_take(&w, tg_bytes_make(data, size), 1, &err);
    before.heard_ms = w.heard_ms; /* it is counted all the same */
    before.allowance = w.allowance;
    if (rc != TG_OK && !tg_mem_eq(&w, &before, sizeof(w)))
        abort(); /* a refused message changes nothing else */
    if (w.phase == TG_WK_HEALTHY && !tg_mem_eq(w.pkg.h, other, sizeof(other)))
        abort();
    if (memchr(w.reason, 0, sizeof(w.reason)) == NULL ||
        memchr(w.pkg.model, 0, sizeof(w.pkg.model)) == NULL)
        abort();
    return 0;
}
