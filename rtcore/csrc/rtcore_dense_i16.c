/* rtcore_dense_i16.c - y = activation(W x + b) in integers (SPEC.md 3, 4).
 * Neighbours: rtcore_matrix_i16.h (the rows and their activations). */
#include "rtcore_matrix_i16.h"

void rtcore_dense_i16_step(const rtcore_dense_i16 *layer, int16_t *output, const int16_t *input, int32_t *rows) {
    rtcore_matrix_i16_neurons(&layer->matrix, layer->nb_neurons, layer->activation, input, rows, output);
}

int rtcore_dense_i16_check(const rtcore_dense_i16 *layer) {
    if (layer->nb_neurons < 1 || layer->nb_inputs != layer->matrix.nb_inputs ||
        layer->matrix.nb_rows != (layer->nb_neurons + 3) / 4 * 4) {
        return RTCORE_E_SHAPE;
    }
    if (layer->activation < RTCORE_ACTIVATION_LINEAR || layer->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    return rtcore_matrix_i16_check(&layer->matrix);
}
