/* Bodies of the Open Inference Protocol. The first two bytes say which kind of body it is and how
 * much of it is JSON. What parses and can be written again parses to the same tensors. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/oip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void again(struct tg_oip *m)
{
    struct tg_buf out = TG_BUF_INIT(1 << 26);
    struct tg_err err = TG_ERR_INIT;
    struct tg_oip *back = NULL;
    size_t len = 0;
    bool binary;

    if (tg_oip_write(m, &out, &len, &binary, &err) == TG_OK) {
        if (tg_oip_parse(m->kind, tg_bytes_sub(tg_buf_view(&out), 0, len),
                         tg_bytes_sub(tg_buf_view(&out), len, out.n), &back, &err) != TG_OK ||
            back->n != m->n)
            abort();
        for (size_t i = 0; i < m->n; i++)
            if (!tg_bytes_eq(back->tensors[i].data, m->tensors[i].data) ||
                strcmp(back->tensors[i].name, m->tensors[i].name) != 0 ||
                !tg_shape_eq(&back->tensors[i].shape, &m->tensors[i].shape))
                abort();
    }
    tg_oip_free(back);
    tg_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tg_err err = TG_ERR_INIT;
    struct tg_oip *m = NULL;
    struct tg_bytes body = tg_bytes_make(data, n);
    size_t len;

    if (n < 2)
        return 0;
    body = tg_bytes_sub(body, 2, n - 2);
    len = data[1] == 0 ? body.n : body.n * data[1] / 255;
    if (tg_oip_parse((data[0] & 1) != 0 ? TG_OIP_REPLY : TG_OIP_REQUEST, tg_bytes_sub(body, 0, len),
                     tg_bytes_sub(body, len, body.n), &m, &err) != TG_OK)
        return 0;
    again(m);
    tg_oip_free(m);
    return 0;
}
