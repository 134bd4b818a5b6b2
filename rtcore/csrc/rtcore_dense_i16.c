/* rtcore_dense_i16.c - y = activation(W x + b) in integers (SPEC.md 3, 4).
 * Neighbours: rtcore_matrix_i16.h (the rows and their activations). */
#include "rtcore_matrix_i16.h"

enum { GROUPS = 2 }; /* of four rows, at a time */

void rtcore_dense_i16_step(const rtcore_dense_i16 *layer, int16_t *output, const int16_t *input) {
    int32_t rows[4 * GROUPS];
    int group = 0;
    for (int left = layer->nb_neurons; left > 0; left -= 4 * GROUPS) {
        const int count = left < 4 * GROUPS ? left : 4 * GROUPS;
        rtcore_matrix_i16_rows(&layer->matrix, group, (count + 3) / 4, input, rows);
        rtcore_matrix_i16_activate(output, rows, count, layer->activation);
        output += 4 * GROUPS;
        group += GROUPS;
    }
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
