#include "tensor/num.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/half.h"

/* Every power of ten that a double holds exactly. */
static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static bool digit_at(struct tg_bytes in, size_t i)
{
    return i < in.n && in.p[i] >= '0' && in.p[i] <= '9';
}

/* Take digits from *i on into n; how many there were. */
static size_t take_digits(struct tg_bytes in, size_t *i, struct tg_num *n)
{
    size_t from = *i;

    for (; digit_at(in, *i) && *i <= TG_NUM_TEXT_MAX; (*i)++) {
        uint64_t d = (uint64_t)(in.p[*i] - '0');

        if (n->digits > (UINT64_MAX - d) / 10)
            n->exact = false;
        else
            n->digits = n->digits * 10 + d;
    }
    return *i - from;
}

static enum tg_rc take_exponent(struct tg_bytes in, size_t *i, struct tg_num *n)
{
    struct tg_num e = {.exact = true};
    bool minus = false;

    (*i)++;
    if (*i < in.n && (in.p[*i] == '+' || in.p[*i] == '-'))
        minus = in.p[(*i)++] == '-';
    if (take_digits(in, i, &e) == 0)
        return TG_E_FORMAT;
    if (!e.exact || e.digits > 1000)
        n->exact = false;
    else
        n->exp10 += minus ? -(int32_t)e.digits : (int32_t)e.digits;
    return TG_OK;
}

enum tg_rc tg_num_scan(struct tg_bytes in, struct tg_num *out)
{
    struct tg_num n = {.integer = true, .exact = true};
    size_t i = 0, first;

    if (in.n > 0 && in.p[0] == '-') {
        n.negative = true;
        i = 1;
    }
    first = i;
    if (take_digits(in, &i, &n) == 0 || (in.p[first] == '0' && i - first > 1))
        return TG_E_FORMAT;
    if (i < in.n && in.p[i] == '.') {
        size_t fraction;

        i++;
        n.integer = false;
        fraction = take_digits(in, &i, &n);
        if (fraction == 0)
            return TG_E_FORMAT;
        n.exp10 -= (int32_t)fraction;
    }
    if (i < in.n && (in.p[i] == 'e' || in.p[i] == 'E')) {
        n.integer = false;
        TG_TRY(take_exponent(in, &i, &n));
    }
    if (i > TG_NUM_TEXT_MAX)
        return TG_E_LIMIT;
    n.text = tg_bytes_sub(in, 0, i);
    *out = n;
    return TG_OK;
}

/* The C library rounds correctly; the program never leaves the C locale. */
static void copy_text(const struct tg_num *n, char out[TG_NUM_TEXT_MAX + 1])
{
    memcpy(out, n->text.p, n->text.n);
    out[n->text.n] = '\0';
}

/* One multiplication or division of two exactly held numbers is correctly rounded (Clinger). */
static bool fast_f64(const struct tg_num *n, double *out)
{
    double d;

    if (!n->exact || n->digits > (UINT64_C(1) << 53) || n->exp10 < -22 || n->exp10 > 22)
        return false;
    d = (double)n->digits;
    d = n->exp10 < 0 ? d / tens[-n->exp10] : d * tens[n->exp10];
    *out = n->negative ? -d : d;
    return true;
}

enum tg_rc tg_num_f64(const struct tg_num *n, double *out)
{
    char text[TG_NUM_TEXT_MAX + 1];
    double d;

    if (!fast_f64(n, &d)) {
        copy_text(n, text);
        d = strtod(text, NULL);
    }
    if (!isfinite(d))
        return TG_E_LIMIT;
    *out = d;
    return TG_OK;
}

/* Rounding a correctly rounded double once more is right unless the double stands exactly between
 * two floats, or the float would be subnormal or overflow. */
static bool narrowing_is_safe(double d)
{
    uint64_t bits;
    double a = fabs(d);

    memcpy(&bits, &d, sizeof(bits));
    return (bits & 0x1fffffffu) != 0x10000000u && a < (double)FLT_MAX &&
           (a == 0.0 || a >= (double)FLT_MIN);
}

enum tg_rc tg_num_f32(const struct tg_num *n, float *out)
{
    char text[TG_NUM_TEXT_MAX + 1];
    double d;
    float f;

    if (fast_f64(n, &d) && narrowing_is_safe(d)) {
        f = (float)d;
    } else {
        copy_text(n, text);
        f = strtof(text, NULL);
    }
    if (!isfinite(f))
        return TG_E_LIMIT;
    *out = f;
    return TG_OK;
}

enum tg_rc tg_num_f16(const struct tg_num *n, uint16_t *out)
{
    double d;
    uint16_t h;

    TG_TRY(tg_num_f64(n, &d));
    h = tg_half_from_f64(d);
    if ((h & 0x7c00u) == 0x7c00u)
        return TG_E_LIMIT;
    *out = h;
    return TG_OK;
}

enum tg_rc tg_num_u64(const struct tg_num *n, uint64_t max, uint64_t *out)
{
    if (!n->integer)
        return TG_E_FORMAT;
    if (!n->exact)
        return TG_E_LIMIT;
    if ((n->negative && n->digits != 0) || n->digits > max)
        return TG_E_LIMIT;
    *out = n->digits;
    return TG_OK;
}

enum tg_rc tg_num_i64(const struct tg_num *n, int64_t min, int64_t max, int64_t *out)
{
    uint64_t below = min == INT64_MIN ? UINT64_C(1) << 63 : (uint64_t)-min;

    if (!n->integer)
        return TG_E_FORMAT;
    if (!n->exact || n->digits > (n->negative ? below : (uint64_t)max))
        return TG_E_LIMIT;
    if (n->negative)
        *out = n->digits == UINT64_C(1) << 63 ? INT64_MIN : -(int64_t)n->digits;
    else
        *out = (int64_t)n->digits;
    return TG_OK;
}
