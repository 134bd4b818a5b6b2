/* rtcore_gru_i16.c - the gated recurrent unit with a wide recurrence (SPEC.md 5).
 *
 * Pre-activations meet in int32, gates are Q0.32 with the smaller of z and 1 - z held exactly, the state is 32 bits and
 * the matrices read its rounded top 16. Units go four at a time: no array of sums is kept. The state is updated in place
 * while the matrices still read the old view; the view follows when all units are done.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_fixed.h (sigma, tanh, rounding), rtcore_state_i16.c (its state).
 */
#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"

enum { UPDATE, RESET, CANDIDATE, GATES }; /* groups of rows of each block of four units */

/* sigmoid(a) * v, rounded once */
static int32_t gated(int32_t a, int32_t v) {
    const int32_t part = rtcore_gate_mul(rtcore_sigma(a), v);
    return a < 0 ? part : v - part;
}

/* view of sigmoid(a) * state, rounded once */
static int16_t gated_view(int32_t a, int32_t state) {
    return rtcore_sat16(rtcore_rshift_round(rtcore_sigmoid_product(a, state), 32 + RTCORE_STATE_EXTRA));
}

/* Candidate in STATE format, one short of the ends so that a difference of two fits int32. */
static int32_t candidate(const rtcore_gru_i16 *gru, int32_t a) {
    int32_t n;
    switch (gru->activation) {
    case RTCORE_ACTIVATION_TANH:
        n = rtcore_tanh(a);
        break;
    case RTCORE_ACTIVATION_SIGMOID:
        n = (rtcore_sigma(a) + 2) / 4;
        n = a < 0 ? n : RTCORE_STATE_ONE - n;
        break;
    default:
        n = gru->activation == RTCORE_ACTIVATION_RELU && a < 0 ? 0 : a;
        if (n >= RTCORE_STATE_ONE || n <= -RTCORE_STATE_ONE) {
            RTCORE_ON_SATURATE();
            return n > 0 ? RTCORE_STATE_ONE - 1 : 1 - RTCORE_STATE_ONE;
        }
        return n;
    }
    return (int32_t)rtcore_rshift_round(n, 15 - gru->state_frac);
}

/* h' = z h + (1 - z) n as base + small * (other - base): small is min(z, 1 - z), exact; one rounding. */
static int32_t update(int32_t a, int32_t h, int32_t n) {
    const int32_t small = rtcore_sigma(a);
    return a < 0 ? n + rtcore_gate_mul(small, h - n) : h + rtcore_gate_mul(small, n - h);
}

/* Pre-activations of one gate for the four units of a block. */
static void gate_rows(const rtcore_gru_i16 *gru, int group, const int16_t *input, const int16_t *view, int shift,
                      int32_t *rows) {
    rtcore_matrix_i16_meet4(&gru->input, &gru->recurrent, group, input, view, shift, rows);
}

/* reset_after: the reset gate multiplies R h + b. */
static void candidate_rows_after(const rtcore_gru_i16 *gru, int block, const int16_t *input, const int16_t *view,
                                 int32_t *rows) {
    int32_t reset[4], recurrent[4];
    gate_rows(gru, GATES * block + RESET, input, view, gru->gate_shift, reset);
    rtcore_matrix_i16_rows4(&gru->input, GATES * block + CANDIDATE, input, rows);
    rtcore_matrix_i16_rows4(&gru->recurrent, GATES * block + CANDIDATE, view, recurrent);
    for (int k = 0; k < 4; k++) {
        rows[k] = rtcore_meet(rows[k], gated(reset[k], recurrent[k]), gru->candidate_shift);
    }
}

/* not reset_after: the reset gate multiplies the state before R reads it. */
static void reset_view(const rtcore_gru_i16 *gru, const int32_t *state, const int16_t *view, const int16_t *input,
                       int16_t *scratch) {
    for (int first = 0; first < gru->nb_neurons; first += 4) {
        int32_t reset[4];
        gate_rows(gru, GATES * (first / 4) + RESET, input, view, gru->gate_shift, reset);
        for (int k = 0; k < 4 && first + k < gru->nb_neurons; k++) {
            scratch[first + k] = gated_view(reset[k], state[first + k]);
        }
    }
}

void rtcore_gru_i16_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                         int16_t *scratch) {
    const int n = gru->nb_neurons;
    if (!gru->reset_after) {
        reset_view(gru, state, view, input, scratch);
    }
    for (int first = 0; first < n; first += 4) {
        const int block = first / 4;
        int32_t z[4], a[4];
        gate_rows(gru, GATES * block + UPDATE, input, view, gru->gate_shift, z);
        if (gru->reset_after) {
            candidate_rows_after(gru, block, input, view, a);
        } else {
            gate_rows(gru, GATES * block + CANDIDATE, input, scratch, gru->candidate_shift, a);
        }
        for (int k = 0; k < 4 && first + k < n; k++) {
            state[first + k] = update(z[k], state[first + k], candidate(gru, a[k]));
        }
    }
    for (int i = 0; i < n; i++) {
        view[i] = rtcore_view(state[i]);
    }
}

int rtcore_gru_i16_check(const rtcore_gru_i16 *gru, int capacity) {
    const int rows = GATES * ((gru->nb_neurons + 3) / 4 * 4);
    const int bounded = gru->activation == RTCORE_ACTIVATION_SIGMOID || gru->activation == RTCORE_ACTIVATION_TANH;
    if (gru->nb_neurons < 1 || gru->nb_inputs != gru->input.nb_inputs || gru->nb_neurons != gru->recurrent.nb_inputs ||
        gru->input.nb_rows != rows || gru->recurrent.nb_rows != rows) {
        return RTCORE_E_SHAPE;
    }
    if (!gru->reset_after && gru->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (gru->activation < RTCORE_ACTIVATION_LINEAR || gru->activation > RTCORE_ACTIVATION_RELU) {
        return RTCORE_E_ACTIVATION;
    }
    if (gru->gate_shift < 0 || gru->gate_shift > RTCORE_PRE_FRAC || gru->candidate_shift < 0 ||
        gru->candidate_shift > 31 || gru->state_frac < -16 || gru->state_frac > (bounded ? 15 : 30)) {
        return RTCORE_E_SHIFT;
    }
    const int error = rtcore_matrix_i16_check(&gru->input);
    return error != RTCORE_OK ? error : rtcore_matrix_i16_check(&gru->recurrent);
}
