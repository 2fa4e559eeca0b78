/* Certificates as PEM and DER: what is read keeps to its limits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/x509.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct tg_x509_facts *f)
{
    size_t serial = strlen(f->serial);

    if (serial < 2 || serial > 40 || serial % 2 != 0 || !tg_utf8_ok(tg_bytes_str(f->cn)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_bytes in = tg_bytes_make(data, n);
    struct tg_x509_facts f;
    struct tg_err err = TG_ERR_INIT;
    struct tg_x509_key *key = NULL;

    if (tg_x509_facts_pem(in, &f, &err) == TG_OK)
        check(&f);
    if (tg_x509_facts_der(in, &f, &err) == TG_OK)
        check(&f);
    if (tg_x509_verify(in, in, TG_X509_CLIENT, 1800000000, &err) == TG_OK && n == 0)
        abort();
    if (tg_x509_key_from_pem(in, &key, &err) == TG_OK)
        tg_x509_key_free(key);
    return 0;
}
