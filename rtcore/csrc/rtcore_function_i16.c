/* rtcore_function_i16.c - scalar functions of vectors (SPEC.md 6): by an interpolated table, piecewise linear, square root.
 * Neighbours: rtcore.h (the formats), rtcore_fixed.h (the primitives), rtcore_scalar.c (the root). */
#include <stddef.h>

#include "rtcore.h"
#include "rtcore_fixed.h"

int rtcore_table_i16_check(const int32_t *nodes, int step, int shift) {
    if (nodes == NULL) {
        return RTCORE_E_TABLE;
    }
    if (step < 1 || step > 8 || shift < 1 || shift > 30) {
        return RTCORE_E_SHIFT;
    }
    for (int i = 0; i <= 65536 >> step; i++) {
        if (nodes[i] > 1 << (30 - step) || nodes[i] < -(1 << (30 - step))) {
            return RTCORE_E_TABLE;
        }
    }
    return RTCORE_OK;
}

void rtcore_table_i16(int16_t *output, const int16_t *input, int n, const int32_t *nodes, int step, int shift) {
    const int32_t width = 1 << step;
    const int32_t half = 1 << (shift - 1);
    for (int i = 0; i < n; i++) {
        const int32_t u = input[i] + 32768;
        const int32_t *const node = nodes + (u >> step);
        const int32_t f = u & (width - 1);
        output[i] = rtcore_sat16(rtcore_asr32(node[0] * (width - f) + node[1] * f + half, shift));
    }
}

void rtcore_clamp_i16(int16_t *output, const int16_t *input, int n, int low, int high) {
    for (int i = 0; i < n; i++) {
        output[i] = (int16_t)(input[i] < low ? low : input[i] > high ? high : input[i]);
    }
}

void rtcore_prelu_i16(int16_t *output, const int16_t *input, const int16_t *mult, const uint8_t *shift, int stride,
                      int n, int shift_positive) {
    for (int i = 0; i < n; i++) {
        const int32_t x = input[i];
        output[i] = rtcore_sat16(x < 0 ? rtcore_rshift_round(x * mult[i * stride], shift[i * stride])
                                       : rtcore_rshift_round(x, shift_positive));
    }
}

void rtcore_minmax_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n,
                       int shift_a, int shift_b, int largest, int shift) {
    for (int i = 0; i < n; i++) {
        const int64_t x = rtcore_scale_up(a[i * stride_a], shift_a);
        const int64_t y = rtcore_scale_up(b[i * stride_b], shift_b);
        output[i] = rtcore_sat16(rtcore_rshift_round((x > y) == (largest != 0) ? x : y, shift));
    }
}

void rtcore_sqrt_i16(int16_t *output, const int16_t *input, int n, int shift) {
    for (int i = 0; i < n; i++) {
        const uint64_t v = (uint64_t)(input[i] < 0 ? 0 : input[i]) << shift;
        const uint64_t root = rtcore_isqrt(v);
        output[i] = rtcore_sat16((int64_t)(v > root * root + root ? root + 1 : root));
    }
}
