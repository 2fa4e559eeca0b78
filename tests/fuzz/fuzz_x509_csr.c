/* Certification requests from devices, as the platform takes them: what is issued is what the CA
 * wants. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/x509.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tg_x509_ca *ca; /* made once: a key pair per input would be all we measure */
    struct tg_x509_device_opts o = {.device_id = "dev-1", .now = 1800000000, .days = 30};
    struct tg_buf cert = TG_BUF_INIT(65536);
    struct tg_x509_facts f;
    struct tg_err err = TG_ERR_INIT;

    if (ca == NULL && tg_x509_ca_make("fuzz CA", o.now, 3650, &ca, &err) != TG_OK)
        abort();
    if (tg_x509_issue_device(ca, tg_bytes_make(data, n), &o, &cert, &err) == TG_OK) {
        if (tg_x509_facts_pem(tg_buf_view(&cert), &f, &err) != TG_OK ||
            strcmp(f.cn, "dev-1") != 0 || f.is_ca)
            abort();
    } else if (cert.n != 0) {
        abort();
    }
    tg_buf_done(&cert);
    return 0;
}
