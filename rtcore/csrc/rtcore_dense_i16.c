/* rtcore_dense_i16.c - y = activation(W x + b) in integers (SPEC.md 3, 4).
 * Neighbours: rtcore_matrix_i16.h (the rows and their activations). */
#include "rtcore_matrix_i16.h"
#include "rtcore_units4.h"

enum { GROUPS = 3 }; /* of four rows, at a time */

void rtcore_dense_i16_step(const rtcore_dense_i16 *layer, int16_t *output, const int16_t *input) {
    const int n = layer->nb_neurons;
    for (int first = 0; first < n; first += 4 * GROUPS) {
        int32_t rows[4 * GROUPS];
        const int count = n - first < 4 * GROUPS ? n - first : 4 * GROUPS;
        rtcore_matrix_i16_rows(&layer->matrix, first / 4, (count + 3) / 4, input, rows);
        if (rtcore_units4_activate(rows, count, layer->activation, output + first)) {
            continue;
        }
        for (int k = 0; k < count; k++) {
            output[first + k] = rtcore_matrix_i16_activate(rows[k], layer->activation);
        }
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
