/* rtcore_dense_f32.c - y = activation(W x + b) in float32, columns in order from the bias.
 * Neighbours: rtcore_math_f32.h (sums and activations), rtcore_lineage.h (the same under the family's names). */
#include <stddef.h>

#include "rtcore.h"
#include "rtcore_math_f32.h"

void rtcore_dense_f32_step(const rtcore_dense_f32 *layer, float *output, const float *input) {
    const int n = layer->nb_neurons;
    for (int i = 0; i < n; i++) {
        output[i] = layer->bias[i];
    }
    rtcore_columns_f32(output, n, layer->input_weights, n, input, layer->nb_inputs);
    rtcore_activation_f32(output, output, n, layer->activation);
}

int rtcore_dense_f32_check(const rtcore_dense_f32 *layer) {
    if (layer->nb_inputs < 1 || layer->nb_neurons < 1) {
        return RTCORE_E_SHAPE;
    }
    if (layer->activation < RTCORE_ACTIVATION_LINEAR || layer->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (layer->bias == NULL || layer->input_weights == NULL) {
        return RTCORE_E_TABLE;
    }
    return RTCORE_OK;
}
