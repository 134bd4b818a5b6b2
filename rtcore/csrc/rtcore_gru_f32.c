/* rtcore_gru_f32.c - the gated recurrent unit in float32, gates z, r, h in this order.
 *
 *   z  = sigmoid(Wz x + Rz h + bz)      r = sigmoid(Wr x + Rr h + br)      h' = z h + (1 - z) h~
 *   h~ = act(Wh x + Rh (r o h) + bh)              reset_after 0
 *   h~ = act(Wh x + r o (Rh h + ch) + bh)         reset_after 1; its z and r add the recurrent bias c, too
 *
 * Every sum starts at the bias and takes the input's columns, then the state's, in order. Of hard gates, sigmoid is
 * slope * x + 1/2 within 0..1.
 * Neighbours: rtcore_math_f32.h (the sums and the activations), rtcore_lineage.h (the same under the family's names).
 */
#include <stddef.h>

#include "rtcore.h"
#include "rtcore_math_f32.h"

void rtcore_gru_f32_gated(const rtcore_gru_f32 *gru, float gate_slope, float *state, const float *input,
                          float *scratch) {
    const int n = gru->nb_neurons, m = gru->nb_inputs, stride = 3 * n;
    const float *const w = gru->input_weights, *const recurrent = gru->recurrent_weights;
    float *const z = scratch, *const r = scratch + n, *const h = scratch + 2 * n;

    /* update and reset gates: z and r are neighbours, in the scratch as in the tables */
    for (int i = 0; i < 2 * n; i++) {
        z[i] = gru->reset_after ? gru->bias[i] + gru->bias[stride + i] : gru->bias[i];
    }
    rtcore_columns_f32(z, 2 * n, w, stride, input, m);
    rtcore_columns_f32(z, 2 * n, recurrent, stride, state, n);
    for (int i = 0; i < 2 * n; i++) {
        z[i] = rtcore_gate_f32(z[i], gate_slope);
    }

    /* candidate */
    if (gru->reset_after) {
        for (int i = 0; i < n; i++) {
            h[i] = gru->bias[stride + 2 * n + i];
        }
        rtcore_columns_f32(h, n, recurrent + 2 * n, stride, state, n);
        for (int i = 0; i < n; i++) {
            h[i] = gru->bias[2 * n + i] + h[i] * r[i];
        }
        rtcore_columns_f32(h, n, w + 2 * n, stride, input, m);
    } else {
        for (int i = 0; i < n; i++) {
            r[i] = state[i] * r[i];
            h[i] = gru->bias[2 * n + i];
        }
        rtcore_columns_f32(h, n, w + 2 * n, stride, input, m);
        rtcore_columns_f32(h, n, recurrent + 2 * n, stride, r, n);
    }
    rtcore_activation_f32(h, h, n, gru->activation);

    for (int i = 0; i < n; i++) {
        state[i] = z[i] * state[i] + (1.0f - z[i]) * h[i];
    }
}

void rtcore_gru_f32_step(const rtcore_gru_f32 *gru, float *state, const float *input, float *scratch) {
    rtcore_gru_f32_gated(gru, 0.0f, state, input, scratch);
}

/* capacity: neurons; the scratch of a step holds three floats for each */
int rtcore_gru_f32_check(const rtcore_gru_f32 *gru, int capacity) {
    if (gru->nb_inputs < 1 || gru->nb_neurons < 1) {
        return RTCORE_E_SHAPE;
    }
    if (gru->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (gru->activation < RTCORE_ACTIVATION_LINEAR || gru->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (gru->bias == NULL || gru->input_weights == NULL || gru->recurrent_weights == NULL) {
        return RTCORE_E_TABLE;
    }
    return RTCORE_OK;
}
