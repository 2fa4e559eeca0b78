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
#include "codec/text.h"

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

/* n bytes of zero as base64url. */
static inline void fuzz_zeros(struct tg_buf *out, size_t n)
{
    for (size_t i = 0; i < tg_b64url_len(n); i++)
        FUZZ_NEED(tg_buf_u8(out, 'A') == TG_OK);
}

/* A signed document. An input "=DOCUMENT" stands for the envelope around it, so that a mutation
 * reaches what would otherwise lie behind base64; `made` owns that one. */
static inline struct tg_bytes fuzz_document(const char *member, const uint8_t *data, size_t n,
                                            struct tg_buf *made)
{
    if (n == 0 || data[0] != '=')
        return tg_bytes_make(data, n);
    FUZZ_NEED(tg_buf_str(made, "{\"") == TG_OK && tg_buf_str(made, member) == TG_OK &&
              tg_buf_str(made, "\":\"") == TG_OK &&
              tg_b64url_encode(tg_bytes_make(data + 1, n - 1), made) == TG_OK &&
              tg_buf_str(made, "\",\"signatures\":[{\"key_id\":\"") == TG_OK);
    fuzz_zeros(made, 16);
    FUZZ_NEED(tg_buf_str(made, "\",\"sig_classic\":\"") == TG_OK);
    fuzz_zeros(made, 64);
    FUZZ_NEED(tg_buf_str(made, "\",\"sig_pqc\":\"") == TG_OK);
    fuzz_zeros(made, 3309);
    FUZZ_NEED(tg_buf_str(made, "\"}]}") == TG_OK);
    return tg_buf_view(made);
}

#endif
