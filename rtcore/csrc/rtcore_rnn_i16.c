/* rtcore_rnn_i16.c - the plain recurrent layer, tanh or ReLU (SPEC.md 5).
 *
 * The two sums meet in int32; the new view is rounded once from the activation, waits in the scratch while the matrices
 * still read the old one, and is all the state there is.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_fixed.h (tanh, rounding), rtcore_state_i16.c (its states).
 */
#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"
#include "rtcore_units4.h"

static int16_t activated(const rtcore_rnn_i16 *rnn, int32_t a) {
    if (rnn->activation == RTCORE_ACTIVATION_TANH) {
        return rtcore_sat16(rtcore_rshift_round(rtcore_tanh(a), 30 - rnn->state_frac));
    }
    return rtcore_sat16(rtcore_rshift_round(a > 0 ? a : 0, RTCORE_STATE_EXTRA));
}

/* What one to four units come to. rows: i32 [2][4], of the input and of the recurrent matrix */
RTCORE_OUTLINE static void units_of(const rtcore_rnn_i16 *rnn, int count, const int32_t *rows, int16_t *output) {
    do {
        *output++ = activated(rnn, rtcore_meet(rows[0], rows[4], rnn->shift));
        rows++;
    } while (--count > 0);
}

void rtcore_rnn_i16_step(const rtcore_rnn_i16 *rnn, int16_t *view, const int16_t *input, int32_t *rows,
                         int16_t *scratch) {
    const int n = rnn->nb_neurons;
    for (int first = 0; first < n; first += 4) {
        const int count = n - first < 4 ? n - first : 4;
        rtcore_matrix_i16_rows(&rnn->input, first / 4, 1, input, rows);
        rtcore_matrix_i16_rows(&rnn->recurrent, first / 4, 1, view, rows + 4);
        if (!rtcore_units4_rnn(rnn, count, rows, scratch + first)) {
            units_of(rnn, count, rows, scratch + first);
        }
    }
    for (int i = 0; i < n; i++) {
        view[i] = scratch[i];
    }
}

int rtcore_rnn_i16_check(const rtcore_rnn_i16 *rnn, int capacity) {
    const int rows = (rnn->nb_neurons + 3) / 4 * 4;
    const int bounded = rnn->activation == RTCORE_ACTIVATION_TANH;
    if (rnn->nb_neurons < 1 || rnn->nb_inputs != rnn->input.nb_inputs || rnn->nb_neurons != rnn->recurrent.nb_inputs ||
        rnn->input.nb_rows != rows || rnn->recurrent.nb_rows != rows) {
        return RTCORE_E_SHAPE;
    }
    if (rnn->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (!bounded && rnn->activation != RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (rnn->shift < 0 || rnn->shift > 31 || rnn->state_frac < -16 || rnn->state_frac > (bounded ? 15 : 30)) {
        return RTCORE_E_SHIFT;
    }
    const int error = rtcore_matrix_i16_check(&rnn->input);
    return error != RTCORE_OK ? error : rtcore_matrix_i16_check(&rnn->recurrent);
}
