/* JSON numbers (RFC 8259 §6) as tensor elements: strict grammar, correctly rounded, and fast for
 * the numbers that are common. A token is exactly what tg_num_scan measured. */
#ifndef TG_TENSOR_NUM_H
#define TG_TENSOR_NUM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TG_NUM_TEXT_MAX 512 /* longest accepted number */

struct tg_num {
    struct tg_bytes text;
    uint64_t digits; /* all digits as one integer, when `exact` */
    int32_t exp10;   /* value = ± digits * 10^exp10, when `exact` */
    bool negative;
    bool integer; /* neither fraction nor exponent was written */
    bool exact;   /* all digits fit in 64 bits, and the exponent is small */
};

/* Measure the number at the start of `in`.
 * @retval TG_E_FORMAT not a JSON number   @retval TG_E_LIMIT longer than TG_NUM_TEXT_MAX */
TG_RC tg_num_scan(struct tg_bytes in, struct tg_num *out);

/* @retval TG_E_LIMIT beyond the largest finite value */
TG_RC tg_num_f64(const struct tg_num *n, double *out);
TG_RC tg_num_f32(const struct tg_num *n, float *out);
TG_RC tg_num_f16(const struct tg_num *n, uint16_t *out);
/* @retval TG_E_FORMAT a fraction or exponent was written   @retval TG_E_LIMIT outside the range */
TG_RC tg_num_u64(const struct tg_num *n, uint64_t max, uint64_t *out);
TG_RC tg_num_i64(const struct tg_num *n, int64_t min, int64_t max, int64_t *out);

#endif
