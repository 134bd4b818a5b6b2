/* rtcore_lineage_int8.c - dense and GRU on the int8 tables of RNNoise 0.1, in float32.
 *
 * Sums are formed of the raw int8 values, from the bias, columns in order, and scaled by 1/256 (exact) before the
 * activation. The reset gate multiplies the state before the recurrent product.
 * Neighbours: rtcore_lineage.h (structs and the family's names), rtcore_math_f32.h (the activations).
 */
#ifndef RTCORE_LINEAGE_INT8
#define RTCORE_LINEAGE_INT8
#endif
#include "rtcore_lineage.h"
#include "rtcore_math_f32.h"

/* RTCORE_ACTIVATION_* of this generation's ACTIVATION_*; checked layers have no other */
static int by_name(int activation) {
    switch (activation) {
    case ACTIVATION_TANH:
        return RTCORE_ACTIVATION_TANH;
    case ACTIVATION_SIGMOID:
        return RTCORE_ACTIVATION_SIGMOID;
    default:
        return RTCORE_ACTIVATION_RELU;
    }
}

/* sum + weights . x: weights i8 [n][stride], the first of each column */
static float add_products(float sum, const rnn_weight *weights, int stride, const float *x, int n) {
    for (int j = 0; j < n; j++) {
        sum += (float)weights[(ptrdiff_t)j * stride] * x[j];
    }
    return sum;
}

void rtcore_lineage_int8_dense_step(const rtcore_lineage_int8_dense *layer, float *output, const float *input) {
    const int n = layer->nb_neurons;
    for (int i = 0; i < n; i++) {
        output[i] = WEIGHTS_SCALE * add_products(layer->bias[i], layer->input_weights + i, n, input, layer->nb_inputs);
    }
    rtcore_activation_f32(output, output, n, by_name(layer->activation));
}

/* pre: f32 [nb_rows], pre-activations of the rows from `first`; recurrent products with h, f32 [N] */
static void pre_activations(const rtcore_lineage_int8_gru *gru, float *pre, int first, int nb_rows, const float *input,
                            const float *h) {
    const int n = gru->nb_neurons, stride = 3 * n;
    for (int i = 0; i < nb_rows; i++) {
        const int row = first + i;
        const float sum = add_products(gru->bias[row], gru->input_weights + row, stride, input, gru->nb_inputs);
        pre[i] = WEIGHTS_SCALE * add_products(sum, gru->recurrent_weights + row, stride, h, n);
    }
}

void rtcore_lineage_int8_gru_step(const rtcore_lineage_int8_gru *gru, float *state, const float *input,
                                  float *scratch) {
    const int n = gru->nb_neurons;
    float *const z = scratch, *const r = scratch + n, *const h = scratch + 2 * n;

    pre_activations(gru, z, 0, 2 * n, input, state);
    rtcore_activation_f32(z, z, 2 * n, RTCORE_ACTIVATION_SIGMOID);
    for (int i = 0; i < n; i++) {
        r[i] = state[i] * r[i];
    }
    pre_activations(gru, h, 2 * n, n, input, r);
    rtcore_activation_f32(h, h, n, by_name(gru->activation));
    for (int i = 0; i < n; i++) {
        state[i] = z[i] * state[i] + (1.0f - z[i]) * h[i];
    }
}

static int wrong_activation(int activation) { return activation < ACTIVATION_TANH || activation > ACTIVATION_RELU; }

int rtcore_lineage_int8_dense_check(const rtcore_lineage_int8_dense *layer) {
    if (layer->nb_inputs < 1 || layer->nb_neurons < 1) {
        return RTCORE_E_SHAPE;
    }
    if (wrong_activation(layer->activation)) {
        return RTCORE_E_ACTIVATION;
    }
    return layer->bias == NULL || layer->input_weights == NULL ? RTCORE_E_TABLE : RTCORE_OK;
}

int rtcore_lineage_int8_gru_check(const rtcore_lineage_int8_gru *gru, int capacity) {
    if (gru->nb_inputs < 1 || gru->nb_neurons < 1) {
        return RTCORE_E_SHAPE;
    }
    if (gru->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (wrong_activation(gru->activation)) {
        return RTCORE_E_ACTIVATION;
    }
    if (gru->bias == NULL || gru->input_weights == NULL || gru->recurrent_weights == NULL) {
        return RTCORE_E_TABLE;
    }
    return RTCORE_OK;
}
