/* rtcore_rnn_f32.c - the plain recurrent layer in float32: h' = act(W x + R h + b), the input's columns first.
 * Neighbours: rtcore_math_f32.h (the sums and the activations). */
#include <stddef.h>

#include "rtcore_f32.h"
#include "rtcore_math_f32.h"

void rtcore_rnn_f32_step(const rtcore_rnn_f32 *rnn, float *state, const float *input, float *scratch) {
    const int n = rnn->nb_neurons;
    for (int k = 0; k < n; k++) {
        scratch[k] = rnn->bias[k];
    }
    rtcore_columns_f32(scratch, n, rnn->input_weights, n, input, rnn->nb_inputs);
    rtcore_columns_f32(scratch, n, rnn->recurrent_weights, n, state, n);
    rtcore_activation_f32(state, scratch, n, rnn->activation);
}

int rtcore_rnn_f32_check(const rtcore_rnn_f32 *rnn, int capacity) {
    if (rnn->nb_inputs < 1 || rnn->nb_neurons < 1) {
        return RTCORE_E_SHAPE;
    }
    if (rnn->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (rnn->activation < RTCORE_ACTIVATION_LINEAR || rnn->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (rnn->bias == NULL || rnn->input_weights == NULL || rnn->recurrent_weights == NULL) {
        return RTCORE_E_TABLE;
    }
    return RTCORE_OK;
}
