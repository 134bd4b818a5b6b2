/* rtcore_function_f32.c - scalar functions of float32 vectors.
 *
 * Each is composed of the primitives of rtcore_math_f32.h so that nothing cancels where its accuracy is promised; the
 * polynomials here are minimax fits to below 2e-8, what is left is rounding (tests/rtcore/test_functions_f32.py).
 * Neighbours: rtcore_f32.h (the contract), rtcore_math_f32.c.
 */
#include "rtcore_f32.h"
#include "rtcore_math_f32.h"

#define SINE_LIMIT 6000.0f /* n * (the two higher parts of pi/2) is exact below */
#define TAIL 0.9375f       /* from here on erf is 1 - erfc */
#define TAIL_IS_ZERO 11.0f /* e^-(11^2) underflows */

static float magnitude(float x) { return x < 0.0f ? -x : x; }

static float within(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

/* sin(x + quarters * pi/2) */
static float sine(float x, int quarters) {
    if (!(magnitude(x) <= SINE_LIMIT)) {
        return x != x ? x : rtcore_log_f32(-1.0f);
    }
    /* x = n pi/2 + r, |r| at most half of it and a little; pi/2 in three parts */
    const int n = (int)(x * 0.636619772f + (x < 0.0f ? -0.5f : 0.5f));
    const float m = (float)n;
    const float r = ((x - m * 1.5703125f) - m * 4.837512969970703e-4f) - m * 7.54979e-8f;
    const float square = r * r;
    float y;
    if ((unsigned)(n + quarters) & 1U) {
        y = (1.0f - 0.5f * square) +
            square * square * ((2.44383045e-5f * square - 1.38873665e-3f) * square + 4.16666456e-2f);
    } else {
        y = r + r * square * ((-1.95171699e-4f * square + 8.33217707e-3f) * square - 0.166666552f);
    }
    return (unsigned)(n + quarters) & 2U ? -y : y;
}

static float arc_tangent(float x) {
    const float a = magnitude(x);
    float base = 0.0f, t = a;
    if (a > 2.41421356f) { /* tan(3 pi/8) */
        base = 1.57079633f;
        t = -1.0f / a;
    } else if (a > 0.414213562f) { /* tan(pi/8) */
        base = 0.785398163f;
        t = (a - 1.0f) / (a + 1.0f);
    }
    const float square = t * t;
    float p = -6.08114824e-2f;
    p = p * square + 0.105951361f;
    p = p * square - 0.142437384f;
    p = p * square + 0.199984834f;
    p = p * square - 0.333333164f;
    const float y = base + (t + t * square * p);
    return x < 0.0f ? -y : y;
}

/* erf(x), |x| below TAIL */
static float middle_erf(float x) {
    const float square = x * x;
    float p = 8.29661003e-5f;
    p = p * square - 8.12580634e-4f;
    p = p * square + 5.19960001e-3f;
    p = p * square - 2.68588513e-2f;
    p = p * square + 0.112836860f;
    p = p * square - 0.376126319f;
    p = p * square + 0.128379166f;
    return x + x * p;
}

/* e^(-scale x^2) e^(a^2) erfc(a), a from TAIL (and a little less) on; scale is a power of two */
static float tail(float x, float scale, float a) {
    if (a > TAIL_IS_ZERO) {
        return 0.0f;
    }
    const float t = (a - 4.0f) / (a + 4.0f);
    float p = 5.13555389e-3f;
    p = p * t - 1.67388581e-2f;
    p = p * t + 3.70199084e-2f;
    p = p * t - 6.61816299e-2f;
    p = p * t + 9.37739909e-2f;
    p = p * t - 0.101056777f;
    p = p * t + 6.80932030e-2f;
    p = p * t + 1.53804375e-2f;
    p = p * t - 0.139621019f;
    p = p * t + 1.23299515f;
    /* x^2 and what its rounding cuts off, from halves of x whose products are exact */
    const float split = 4097.0f * x, high = split - (split - x), low = x - high, square = x * x;
    const float rest = ((high * high - square) + 2.0f * high * low) + low * low;
    return rtcore_exp_f32(-scale * square) * (1.0f - scale * rest) * (p / (1.0f + 2.0f * a));
}

static float error_function(float x) {
    const float a = magnitude(x);
    if (!(a >= TAIL)) {
        return middle_erf(x);
    }
    const float y = 1.0f - tail(a, 1.0f, a);
    return x < 0.0f ? -y : y;
}

static float gelu(float x) {
    const float a = magnitude(x) * 0.707106781f;
    if (!(a >= TAIL)) {
        return 0.5f * x * (1.0f + middle_erf(x * 0.707106781f));
    }
    const float out = 0.5f * x * tail(magnitude(x), 0.5f, a);
    return x < 0.0f ? out : x - out;
}

static float mish(float x) {
    const float e = rtcore_exp_f32(-magnitude(x));
    const float p = x < 0.0f ? e * (e + 2.0f) : 1.0f + 2.0f * e;
    return x * (p / (p + (x < 0.0f ? 2.0f : 2.0f * e * e)));
}

/* ln(1 + e^x) */
static float soft_plus(float x) {
    const float y = rtcore_log1p_f32(rtcore_exp_f32(-magnitude(x)));
    return x > 0.0f ? x + y : y;
}

static float apply(float x, int function, float a, float b, float c) {
    switch (function) {
    case RTCORE_FUNCTION_EXP:
        return rtcore_exp_f32(x);
    case RTCORE_FUNCTION_EXPM1:
        return rtcore_expm1_f32(x);
    case RTCORE_FUNCTION_LOG:
        return rtcore_log_f32(x);
    case RTCORE_FUNCTION_LOG1P:
        return rtcore_log1p_f32(x);
    case RTCORE_FUNCTION_SQRT:
        return rtcore_sqrt_f32(x);
    case RTCORE_FUNCTION_RSQRT:
        return 1.0f / rtcore_sqrt_f32(x);
    case RTCORE_FUNCTION_RECIPROCAL:
        return 1.0f / x;
    case RTCORE_FUNCTION_SIN:
        return sine(x, 0);
    case RTCORE_FUNCTION_COS:
        return sine(x, 1);
    case RTCORE_FUNCTION_ATAN:
        return arc_tangent(x);
    case RTCORE_FUNCTION_ERF:
        return error_function(x);
    case RTCORE_FUNCTION_SOFTPLUS:
        return a * x > b ? x : soft_plus(a * x) / a;
    case RTCORE_FUNCTION_LOG_SIGMOID:
        return -soft_plus(-x);
    case RTCORE_FUNCTION_SOFTSIGN:
        return x / (1.0f + magnitude(x));
    case RTCORE_FUNCTION_SILU:
        return x * rtcore_sigmoid_f32(x);
    case RTCORE_FUNCTION_MISH:
        return mish(x);
    case RTCORE_FUNCTION_ELU:
        return x > 0.0f ? b * x : b * (a * rtcore_expm1_f32(c * x));
    case RTCORE_FUNCTION_GELU:
        return gelu(x);
    case RTCORE_FUNCTION_GELU_TANH:
        return x * rtcore_sigmoid_f32(1.59576912f * (x + 0.044715f * x * x * x));
    case RTCORE_FUNCTION_HARD_SIGMOID:
        return within(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    default: /* RTCORE_FUNCTION_HARD_SWISH */
        return x * (within(x + 3.0f, 0.0f, 6.0f) / 6.0f);
    }
}

void rtcore_function_f32(float *output, const float *input, int n, int function, float a, float b, float c) {
    for (int i = 0; i < n; i++) {
        output[i] = apply(input[i], function, a, b, c);
    }
}

void rtcore_affine_f32(float *output, const float *input, const float *scale, const float *offset, int n) {
    for (int i = 0; i < n; i++) {
        output[i] = scale[i] * input[i] + offset[i];
    }
}

void rtcore_prelu_f32(float *output, const float *input, const float *slope, int stride, int n) {
    for (int i = 0; i < n; i++) {
        output[i] = input[i] < 0.0f ? slope[i * stride] * input[i] : input[i];
    }
}

void rtcore_clamp_f32(float *output, const float *input, int n, float low, float high) {
    for (int i = 0; i < n; i++) {
        output[i] = within(input[i], low, high);
    }
}
