#include "tensor/half.h"

#include <math.h>
#include <string.h>

float tg_half_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = (h >> 10) & 0x1fu;
    uint32_t man = h & 0x3ffu;
    uint32_t bits;
    float f;

    if (exp == 0) {
        f = ldexpf((float)man, -24); /* zero and subnormals */
        return sign != 0 ? -f : f;
    }
    if (exp == 31)
        bits = sign | 0x7f800000u | (man << 13);
    else
        bits = sign | ((exp + 112) << 23) | (man << 13);
    memcpy(&f, &bits, sizeof(f));
    return f;
}

uint16_t tg_half_from_f64(double d)
{
    uint16_t sign = signbit(d) ? 0x8000u : 0;
    double a = fabs(d);
    double scaled;
    int e;

    if (isnan(d))
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 65520.0) /* halfway between the largest half and the next step */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 6.103515625e-05) /* below 2^-14: subnormal, in steps of 2^-24 */
        return (uint16_t)(sign | (uint16_t)nearbyint(ldexp(a, 24)));
    (void)frexp(a, &e);                   /* a = m * 2^e, m in [0.5, 1) */
    scaled = nearbyint(ldexp(a, 11 - e)); /* in [1024, 2048]; 2048 carries into the exponent */
    return (uint16_t)(sign | (uint16_t)(((unsigned)(e + 13) << 10) + (unsigned)scaled));
}
