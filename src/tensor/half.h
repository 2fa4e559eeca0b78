/* IEEE 754 binary16, as float: exact one way, round to nearest even the other. */
#ifndef TG_TENSOR_HALF_H
#define TG_TENSOR_HALF_H

#include <stdint.h>

float tg_half_to_f32(uint16_t h);
/* From double, so that a decimal number is rounded once. Overflow gives infinity, NaN stays NaN. */
uint16_t tg_half_from_f64(double d);

#endif
