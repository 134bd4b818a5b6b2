/* rtcore_lstm_f32.c - long short-term memory in float32, gates i, f, g, o in this order.
 *
 *   i = sigmoid(Wi x + Ri h + bi + pi c)   f = sigmoid(Wf x + Rf h + bf + pf c), coupled: sigmoid(-(its i's argument))
 *   c' = f c + i tanh(Wg x + Rg h + bg)    o = sigmoid(Wo x + Ro h + bo + po c')    h' = o tanh(c'), or P (o tanh(c'))
 *
 * Every sum starts at the bias and takes the input's columns, then the state's, in order, then the peephole. Of hard
 * gates, sigmoid is slope * x + 1/2 within 0..1.
 * Neighbours: rtcore_math_f32.h (the sums and the activations), rtcore_lstm_i16.c (the same layer in fixed point).
 */
#include <stddef.h>

#include "rtcore_f32.h"
#include "rtcore_math_f32.h"

static int gates_of(const rtcore_lstm_f32 *lstm) { return lstm->coupled ? 3 : 4; }

void rtcore_lstm_f32_step(const rtcore_lstm_f32 *lstm, float *cell, float *state, const float *input, float *scratch) {
    const int n = lstm->nb_neurons, outputs = lstm->nb_outputs, rows = gates_of(lstm) * n;
    const float *const peephole = lstm->peephole_weights;
    const float slope = lstm->gate_slope;
    for (int k = 0; k < rows; k++) {
        scratch[k] = lstm->bias[k];
    }
    rtcore_columns_f32(scratch, rows, lstm->input_weights, rows, input, lstm->nb_inputs);
    rtcore_columns_f32(scratch, rows, lstm->recurrent_weights, rows, state, outputs);

    /* what a unit gives out takes the place of its i */
    for (int k = 0; k < n; k++) {
        float i = scratch[k], o = scratch[rows - n + k];
        i = peephole != NULL ? i + peephole[k] * cell[k] : i;
        float f = -i;
        if (!lstm->coupled) {
            f = scratch[n + k];
            f = peephole != NULL ? f + peephole[n + k] * cell[k] : f;
        }
        const float g = rtcore_tanh_f32(scratch[rows - 2 * n + k]);
        cell[k] = rtcore_gate_f32(f, slope) * cell[k] + rtcore_gate_f32(i, slope) * g;
        o = peephole != NULL ? o + peephole[rows - 2 * n + k] * cell[k] : o;
        scratch[k] = rtcore_gate_f32(o, slope) * rtcore_tanh_f32(cell[k]);
    }
    const float *const projection = lstm->projection_weights;
    for (int k = 0; k < outputs; k++) {
        state[k] = projection != NULL ? projection[k] * scratch[0] : scratch[k];
    }
    if (projection != NULL) {
        rtcore_columns_f32(state, outputs, projection + outputs, outputs, scratch + 1, n - 1);
    }
}

int rtcore_lstm_f32_check(const rtcore_lstm_f32 *lstm, int capacity) {
    if (lstm->nb_inputs < 1 || lstm->nb_neurons < 1 || lstm->nb_outputs < 1 || lstm->coupled < 0 || lstm->coupled > 1 ||
        (lstm->projection_weights == NULL && lstm->nb_outputs != lstm->nb_neurons)) {
        return RTCORE_E_SHAPE;
    }
    if (lstm->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (lstm->bias == NULL || lstm->input_weights == NULL || lstm->recurrent_weights == NULL) {
        return RTCORE_E_TABLE;
    }
    if (!(lstm->gate_slope >= 0.0f)) {
        return RTCORE_E_SHIFT;
    }
    return RTCORE_OK;
}
