/* rtcore_normalize_i16.c - operations over a whole vector (SPEC.md 6): softmax, log-softmax, layer normalization.
 * Neighbours: rtcore.h (the formats), rtcore_scalar.c (roots, powers, logarithms). */
#include "rtcore.h"
#include "rtcore_fixed.h"

#define LOG2E 1549082005 /* log2(e) in Q30 */
#define LN2 11629080     /* ln(2) in Q24 */

/* exp(-t / 2^frac) in Q30 */
static uint32_t exp_minus(int32_t t, int frac) {
    const uint64_t product = (uint64_t)t * LOG2E;
    return rtcore_exp2_minus(frac >= -6 ? product >> (frac + 6) : product << (-6 - frac));
}

/* The largest element; *sum: sum of exp(x - largest) in Q(30 - *exponent), 2^30..2^31-1. */
static int32_t exp_sum(const int16_t *input, int n, int frac, uint32_t *sum, int *exponent) {
    int32_t largest = input[0];
    uint64_t total = 0;
    for (int i = 1; i < n; i++) {
        largest = input[i] > largest ? input[i] : largest;
    }
    for (int i = 0; i < n; i++) {
        total += exp_minus(largest - input[i], frac);
    }
    for (*exponent = 0; total >> 31 != 0; (*exponent)++) {
        total >>= 1;
    }
    *sum = (uint32_t)total;
    return largest;
}

void rtcore_softmax_i16(int16_t *output, const int16_t *input, int n, int frac) {
    uint32_t sum;
    int exponent;
    const int32_t largest = exp_sum(input, n, frac, &sum, &exponent);
    const uint32_t scale = rtcore_reciprocal(sum);
    for (int i = 0; i < n; i++) {
        const uint64_t product = (uint64_t)exp_minus(largest - input[i], frac) * scale;
        output[i] = rtcore_sat16(rtcore_rshift_round((int64_t)product, 45 + exponent));
    }
}

void rtcore_log_softmax_i16(int16_t *output, const int16_t *input, int n, int frac, int shift) {
    uint32_t sum;
    int exponent;
    const int32_t largest = exp_sum(input, n, frac, &sum, &exponent);
    const int64_t log2 = rtcore_scale_up(exponent, 30) + rtcore_log2(sum);
    const int64_t log = rtcore_rshift_round(log2 * LN2, 24);
    for (int i = 0; i < n; i++) {
        const int64_t y = rtcore_scale_up(input[i] - largest, 30 - frac) - log;
        output[i] = rtcore_sat16(rtcore_rshift_round(y, shift));
    }
}

void rtcore_layernorm_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                          const uint8_t *shift, int n, int64_t epsilon) {
    int64_t sum = 0;
    int64_t squares = 0;
    int up = 0;
    for (int i = 0; i < n; i++) {
        sum += input[i];
        squares += (int32_t)input[i] * input[i];
    }
    uint64_t variance = (uint64_t)(n * squares - sum * sum + epsilon); /* n^2 times that of x */
    while (variance >> 60 == 0) {
        variance <<= 2;
        up++;
    }
    const int64_t scale = rtcore_reciprocal(rtcore_isqrt(variance));
    for (int i = 0; i < n; i++) {
        const int64_t deviation = rtcore_rshift_round(rtcore_scale_up((int64_t)n * input[i] - sum, up), 9);
        const int64_t z = rtcore_rshift_round(deviation * scale, 31); /* Q20 */
        output[i] = rtcore_sat16(rtcore_rshift_round(z * mult[i] + bias[i], shift[i]));
    }
}
