/* rtcore_math_f32.c - exp, sigmoid, tanh and matrix columns in float32, the same bits everywhere.
 *
 * The polynomials are minimax fits in relative error (3e-9 for exp, 5e-9 for tanh, before rounding): what is left is
 * the rounding of the operations, tests/rtcore/test_f32.py sweeps it.
 * Neighbours: rtcore_math_f32.h (the contract), rtcore.h (rtcore_activation_f32).
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

/* 2^n, n -126..127 */
static float power_of_two(int n) {
    union {
        uint32_t bits;
        float value;
    } power;
    power.bits = (uint32_t)(n + 127) << 23;
    return power.value;
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

    float p = 1.38145394e-3f;
    p = p * r + 8.36874545e-3f;
    p = p * r + 4.16683890e-2f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = 1.0f + (r + r * r * p);

    /* in two factors: 2^n alone may leave the range; only the last product rounds */
    const int half = n / 2;
    return p * power_of_two(half) * power_of_two(n - half);
}

float rtcore_sigmoid_f32(float x) {
    const float e = rtcore_exp_f32(x < 0.0f ? x : -x); /* at most 1: the sum below cannot cancel */
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
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
