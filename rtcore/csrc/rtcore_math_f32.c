/* rtcore_math_f32.c - exp, log, sqrt, sigmoid, tanh and matrix columns in float32, the same bits everywhere.
 *
 * The polynomials are minimax fits in relative error (3e-9 for exp, 5e-9 for tanh, 1e-9 for log, before rounding): what
 * is left is the rounding of the operations, tests/rtcore/test_f32.py and test_functions_f32.py sweep it.
 * Neighbours: rtcore_math_f32.h (the contract), rtcore.h (rtcore_activation_f32), rtcore_function_f32.c.
 */
#include "rtcore_math_f32.h"

#include <float.h>
#include <stddef.h>

#include "rtcore.h"

#ifdef __FAST_MATH__
#error "float kernels need IEEE arithmetic: build without -ffast-math"
#endif

RTCORE_STATIC_ASSERT(float_is_ieee_single, FLT_RADIX == 2 && FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128);
/* 16: operands of float and wider are not widened (ISO/IEC TS 18661-3) */
RTCORE_STATIC_ASSERT(float_is_not_widened, FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16);

#define LOG2_E 1.44269502f
#define LN2_HIGH 0.693359375f     /* 355/512: n * LN2_HIGH is exact */
#define LN2_LOW (-2.12194442e-4f) /* ln 2 - LN2_HIGH */

#define EXP_OVERFLOWS 89.0f    /* e^89 is above FLT_MAX */
#define EXP_VANISHES (-104.0f) /* e^-104 is below half of the least subnormal */
#define TANH_IS_ONE 10.0f      /* 1 - tanh(10) is below half an ulp of 1 */
#define TANH_SMALL 0.625f      /* below: an odd polynomial */

#define SMALL_EXPM1 0.346573591f /* half of ln 2: below, e^x - 1 would cancel */
#define ROOT_HALF 0x3f3504f3U    /* bits of sqrt(1/2) */

typedef union {
    uint32_t bits;
    float value;
} pattern;

static float value_of(uint32_t bits) {
    const pattern p = {bits};
    return p.value;
}

static uint32_t bits_of(float value) {
    pattern p;
    p.value = value;
    return p.bits;
}

/* 2^n, n -126..127 */
static float power_of_two(int n) { return value_of((uint32_t)(n + 127) << 23); }

/* e^r - 1, |r| at most half of ln 2 */
static float reduced_expm1(float r) {
    float p = 1.38145394e-3f;
    p = p * r + 8.36874545e-3f;
    p = p * r + 4.16683890e-2f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    return r + r * r * p;
}

float rtcore_exp_f32(float x) {
    if (x != x) {
        return x;
    }
    x = x > EXP_OVERFLOWS ? EXP_OVERFLOWS : x;
    x = x < EXP_VANISHES ? EXP_VANISHES : x;

    /* x = n ln 2 + r, |r| at most half of ln 2 */
    const int n = (int)(x * LOG2_E + (x < 0.0f ? -0.5f : 0.5f));
    const float r = (x - (float)n * LN2_HIGH) - (float)n * LN2_LOW;

    const float p = 1.0f + reduced_expm1(r);

    /* in two factors: 2^n alone may leave the range; only the last product rounds */
    const int half = n / 2;
    return p * power_of_two(half) * power_of_two(n - half);
}

float rtcore_expm1_f32(float x) {
    return x >= -SMALL_EXPM1 && x <= SMALL_EXPM1 ? reduced_expm1(x) : rtcore_exp_f32(x) - 1.0f;
}

/* ln(2^n (1 + f)), 1 + f between sqrt(1/2) and sqrt(2) */
static float reduced_log(float f, float n) {
    float p = 6.74769208e-2f;
    p = p * f - 0.116775051f;
    p = p * f + 0.118887089f;
    p = p * f - 0.124053426f;
    p = p * f + 0.142194510f;
    p = p * f - 0.166680053f;
    p = p * f + 0.200021237f;
    p = p * f - 0.250000089f;
    p = p * f + 0.333333135f;
    const float square = f * f;
    const float low = square * (f * p) - 0.5f * square + n * LN2_LOW;
    return n * LN2_HIGH + (f + low);
}

float rtcore_log_f32(float x) {
    if (!(x > 0.0f) || x > FLT_MAX) { /* NaN, infinity, and what has no logarithm */
        return x > 0.0f || x != x ? x : value_of(x < 0.0f ? 0x7fc00000U : 0xff800000U);
    }
    int n = 0;
    if (x < FLT_MIN) {
        x *= 8388608.0f;
        n = -23;
    }
    /* the exponent above sqrt(1/2); the significand below sqrt(2) */
    const uint32_t above = bits_of(x) - ROOT_HALF;
    n += (int)(above >> 23) - (above >> 31 ? 512 : 0);
    const float f = value_of((above & 0x7fffffU) + ROOT_HALF) - 1.0f;
    return reduced_log(f, (float)n);
}

float rtcore_log1p_f32(float x) { return x > -0.29f && x < 0.41f ? reduced_log(x, 0.0f) : rtcore_log_f32(1.0f + x); }

float rtcore_sqrt_f32(float x) {
    if (!(x > 0.0f) || x > FLT_MAX) { /* NaN, infinity, zeros, and what has no root */
        return x < 0.0f ? value_of(0x7fc00000U) : x;
    }
    int exponent = -150;
    if (x < FLT_MIN) {
        x *= 16777216.0f;
        exponent -= 24;
    }
    exponent += (int)(bits_of(x) >> 23);
    /* x = square * 2^exponent, exponent even, the root of square in 2^23 .. 2^24 - 1, found digit by digit */
    uint64_t square = (uint64_t)((bits_of(x) & 0x7fffffU) | 0x800000U) << 23;
    exponent -= 23;
    if (exponent & 1) {
        square <<= 1;
        exponent -= 1;
    }
    uint64_t root = 0;
    for (uint64_t digit = (uint64_t)1 << 46; digit != 0; digit >>= 2) {
        const uint64_t trial = root + digit;
        root >>= 1;
        if (square >= trial) {
            square -= trial;
            root += digit;
        }
    }
    const uint32_t nearest = (uint32_t)(root + (square > root)); /* what is left says on which side of 1/2 */
    return (float)nearest * power_of_two(exponent / 2);
}

float rtcore_sigmoid_f32(float x) {
    const float e = rtcore_exp_f32(x < 0.0f ? x : -x); /* at most 1: the sum below cannot cancel */
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

float rtcore_gate_f32(float x, float slope) {
    if (slope == 0.0f) {
        return rtcore_sigmoid_f32(x);
    }
    const float y = slope * x + 0.5f;
    return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
}

float rtcore_tanh_f32(float x) {
    const float a = x < 0.0f ? -x : x;
    if (a >= TANH_SMALL) {
        const float e = rtcore_exp_f32(-2.0f * (a > TANH_IS_ONE ? TANH_IS_ONE : a));
        const float y = 1.0f - 2.0f * e / (1.0f + e);
        return x < 0.0f ? -y : y;
    }
    const float square = x * x; /* of a small x, or NaN */
    float p = -5.70498640e-3f;
    p = p * square + 2.06390861e-2f;
    p = p * square - 5.37397154e-2f;
    p = p * square + 0.133314416f;
    p = p * square - 0.333332807f;
    return x + x * (square * p);
}

/* rtcore_columns_f32 for `rows` rows, a constant of at most 8, whose sums stay in registers */
static inline void rows_columns(float *sums, int rows, const float *weights, int stride, const float *x,
                                int nb_columns) {
    float block[8];
    for (int k = 0; k < rows; k++) {
        block[k] = sums[k];
    }
    for (int j = 0; j < nb_columns; j++) {
        const float *const column = weights + (ptrdiff_t)j * stride;
        for (int k = 0; k < rows; k++) {
            block[k] += column[k] * x[j];
        }
    }
    for (int k = 0; k < rows; k++) {
        sums[k] = block[k];
    }
}

void rtcore_columns_f32(float *sums, int nb_rows, const float *weights, int stride, const float *x, int nb_columns) {
    int row = 0;
    for (; row + 8 <= nb_rows; row += 8) {
        rows_columns(sums + row, 8, weights + row, stride, x, nb_columns);
    }
    for (; row + 4 <= nb_rows; row += 4) {
        rows_columns(sums + row, 4, weights + row, stride, x, nb_columns);
    }
    for (; row < nb_rows; row++) {
        rows_columns(sums + row, 1, weights + row, stride, x, nb_columns);
    }
}

void rtcore_activation_f32(float *output, const float *input, int n, int activation) {
    for (int i = 0; i < n; i++) {
        switch (activation) {
        case RTCORE_ACTIVATION_SIGMOID:
            output[i] = rtcore_sigmoid_f32(input[i]);
            break;
        case RTCORE_ACTIVATION_TANH:
            output[i] = rtcore_tanh_f32(input[i]);
            break;
        case RTCORE_ACTIVATION_RELU:
            output[i] = input[i] < 0.0f ? 0.0f : input[i];
            break;
        default:
            output[i] = input[i];
            break;
        }
    }
}
