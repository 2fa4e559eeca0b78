/* What the TGSP harnesses share. */
#ifndef TG_FUZZ_TGSP_H
#define TG_FUZZ_TGSP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_ARENA ((size_t)256 << 20)

/* A promise that does not hold is a finding. */
#define FUZZ_NEED(x)                                                                               \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

/* Errors always say something, and nothing is both an error and silent. */
static inline void fuzz_refused(enum tg_rc rc, const struct tg_err *err)
{
    FUZZ_NEED(rc != TG_OK && rc != TG_E_INTERNAL && err->msg[0] != '\0');
}

#endif
