/* rtcore_elementwise_i16.c - operations on vectors without a matrix (SPEC.md 6): exact, one rounding, saturate.
 * Neighbours: rtcore.h (the formats), rtcore_fixed.h (the primitives). */
#include "rtcore.h"
#include "rtcore_fixed.h"

/* ACT to PRE */
static int32_t to_pre(int16_t x, int shift) {
    return rtcore_sat32(shift >= 0 ? rtcore_scale_up(x, shift) : rtcore_rshift_round(x, -shift));
}

void rtcore_activation_i16(int16_t *output, const int16_t *input, int n, int activation, int shift) {
    for (int i = 0; i < n; i++) {
        switch (activation) {
        case RTCORE_ACTIVATION_SIGMOID:
            output[i] = rtcore_sigmoid_q15(to_pre(input[i], shift));
            break;
        case RTCORE_ACTIVATION_TANH:
            output[i] = rtcore_tanh_q15(to_pre(input[i], shift));
            break;
        case RTCORE_ACTIVATION_RELU:
            output[i] = input[i] < 0 ? 0 : input[i];
            break;
        default:
            output[i] = input[i];
            break;
        }
    }
}

void rtcore_add_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n, int shift_a,
                    int shift_b, int sign_b, int shift) {
    for (int i = 0; i < n; i++) {
        const int64_t sum =
            rtcore_scale_up(a[i * stride_a], shift_a) + rtcore_scale_up(b[i * stride_b] * sign_b, shift_b);
        output[i] = rtcore_sat16(rtcore_rshift_round(sum, shift));
    }
}

void rtcore_mul_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n, int shift) {
    for (int i = 0; i < n; i++) {
        const int32_t product = (int32_t)a[i * stride_a] * b[i * stride_b];
        output[i] = rtcore_sat16(rtcore_rshift_round(product, shift));
    }
}

void rtcore_affine_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                       const uint8_t *shift, int n) {
    for (int i = 0; i < n; i++) {
        const int32_t product = (int32_t)input[i] * mult[i];
        output[i] = rtcore_sat16(rtcore_rshift_round(product + bias[i], shift[i]));
    }
}

void rtcore_rescale_i16(int16_t *output, const int16_t *input, int n, int shift) {
    const int down = shift < 17 ? shift : 17; /* from 17 on nothing is left of an int16 */
    const int32_t half = down > 0 ? 1 << (down - 1) : 0;
    for (int i = 0; i < n; i++) {
        output[i] = (int16_t)rtcore_asr32(input[i] + half, down);
    }
}
