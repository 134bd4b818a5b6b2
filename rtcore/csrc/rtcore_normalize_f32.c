/* rtcore_normalize_f32.c - softmax, log-softmax and layer normalization of a vector in float32; sums in order.
 * Neighbours: rtcore_math_f32.h (exp, log, sqrt), rtcore_normalize_i16.c (the same in fixed point). */
#include "rtcore_f32.h"
#include "rtcore_math_f32.h"

static float largest(const float *x, int n) {
    float largest = x[0];
    for (int i = 1; i < n; i++) {
        largest = x[i] > largest || x[i] != x[i] ? x[i] : largest;
    }
    return largest;
}

void rtcore_softmax_f32(float *output, const float *input, int n) {
    const float top = largest(input, n);
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        output[i] = rtcore_exp_f32(input[i] - top);
        sum += output[i];
    }
    for (int i = 0; i < n; i++) {
        output[i] /= sum;
    }
}

void rtcore_log_softmax_f32(float *output, const float *input, int n) {
    const float top = largest(input, n);
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        sum += rtcore_exp_f32(input[i] - top);
    }
    const float log = rtcore_log_f32(sum);
    for (int i = 0; i < n; i++) {
        output[i] = (input[i] - top) - log;
    }
}

void rtcore_layernorm_f32(float *output, const float *input, const float *weight, const float *bias, int n,
                          float epsilon) {
    float mean = 0.0f, variance = 0.0f;
    for (int i = 0; i < n; i++) {
        mean += input[i];
    }
    mean /= (float)n;
    for (int i = 0; i < n; i++) {
        const float d = input[i] - mean;
        variance += d * d;
    }
    const float deviation = rtcore_sqrt_f32(variance / (float)n + epsilon);
    for (int i = 0; i < n; i++) {
        output[i] = (input[i] - mean) / deviation * weight[i] + bias[i];
    }
}
