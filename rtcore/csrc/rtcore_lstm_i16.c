/* rtcore_lstm_i16.c - long short-term memory with a 32-bit cell, with or without a projection (SPEC.md 5).
 *
 * Pre-activations meet in int32, gates are Q0.32, the cell has 15 bits below int16 and takes one rounding a step. Units go
 * four at a time: no array of sums is kept. Cells are updated in place; what they give out waits in the scratch, as the
 * matrices still read the old view.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_fixed.h (sigma, tanh, rounding), rtcore_state_i16.c (its states).
 */
#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"

enum { INPUT, FORGET, CANDIDATE, OUTPUT, GATES }; /* groups of rows of each block of four units */

enum { HIDDEN_FRAC = 15 }; /* of what a projection reads */

/* sigmoid(f) * c + sigmoid(i) * tanh(g): two exact products, rounded together once. The second has 15 - cell_frac
 * fractional bits more than the first; what lies below the first's is cut off by the floor in either order. */
static int32_t next_cell(int32_t i, int32_t f, int32_t g, int32_t c, int cell_frac) {
    const int64_t kept = rtcore_sigmoid_product(f, c);
    const int64_t added = rtcore_asr64(rtcore_sigmoid_product(i, rtcore_tanh(g)), 15 - cell_frac);
    const int64_t next = rtcore_asr64(kept + added + 2147483648LL, 32);
    if (next > RTCORE_STATE_ONE || next < -RTCORE_STATE_ONE) {
        RTCORE_ON_SATURATE();
        return next > 0 ? RTCORE_STATE_ONE : -RTCORE_STATE_ONE;
    }
    return (int32_t)next;
}

/* The cell as PRE, saturated: tanh is 1 there, nothing is lost. */
static int32_t cell_pre(int32_t c, int cell_frac) {
    const int up = RTCORE_PRE_FRAC - RTCORE_STATE_EXTRA - cell_frac;
    if (up <= 0) {
        return (int32_t)rtcore_rshift_round(c, -up);
    }
    const int32_t limit = INT32_MAX >> up;
    if (c > limit || c < -limit) {
        return c > 0 ? INT32_MAX : -INT32_MAX;
    }
    return c * (int32_t)(1 << up);
}

static void units(const rtcore_lstm_i16 *lstm, int first, int count, int32_t *cell, const int16_t *view,
                  const int16_t *input, int16_t *hidden) {
    const int group = GATES * (first / 4);
    const int frac = lstm->projection.nb_rows > 0 ? HIDDEN_FRAC : lstm->state_frac;
    int32_t i[4], f[4], g[4];
    rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + INPUT, input, view, lstm->gate_shift, i);
    rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + FORGET, input, view, lstm->gate_shift, f);
    rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + CANDIDATE, input, view, lstm->gate_shift, g);
    for (int k = 0; k < count; k++) {
        cell[first + k] = next_cell(i[k], f[k], g[k], cell[first + k], lstm->cell_frac);
    }
    rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + OUTPUT, input, view, lstm->gate_shift, i);
    for (int k = 0; k < count; k++) {
        const int32_t squashed = rtcore_tanh(cell_pre(cell[first + k], lstm->cell_frac));
        hidden[first + k] = rtcore_sat16(rtcore_rshift_round(rtcore_sigmoid_product(i[k], squashed), 62 - frac));
    }
}

void rtcore_lstm_i16_step(const rtcore_lstm_i16 *lstm, int32_t *cell, int16_t *view, const int16_t *input,
                          int16_t *scratch) {
    const int n = lstm->nb_neurons;
    for (int first = 0; first < n; first += 4) {
        units(lstm, first, n - first < 4 ? n - first : 4, cell, view, input, scratch);
    }
    if (lstm->projection.nb_rows == 0) {
        for (int i = 0; i < n; i++) {
            view[i] = scratch[i];
        }
        return;
    }
    for (int first = 0; first < lstm->nb_outputs; first += 4) {
        int32_t rows[4];
        rtcore_matrix_i16_rows(&lstm->projection, first / 4, 1, scratch, rows);
        for (int k = 0; k < 4 && first + k < lstm->nb_outputs; k++) {
            view[first + k] = rtcore_sat16(rows[k]);
        }
    }
}

int rtcore_lstm_i16_check(const rtcore_lstm_i16 *lstm, int capacity) {
    const int rows = GATES * ((lstm->nb_neurons + 3) / 4 * 4);
    const int projected = lstm->projection.nb_rows > 0;
    if (lstm->nb_neurons < 1 || lstm->nb_outputs < 1 || lstm->nb_inputs != lstm->input.nb_inputs ||
        lstm->nb_outputs != lstm->recurrent.nb_inputs || lstm->input.nb_rows != rows ||
        lstm->recurrent.nb_rows != rows) {
        return RTCORE_E_SHAPE;
    }
    if (projected ? lstm->projection.nb_inputs != lstm->nb_neurons ||
                        lstm->projection.nb_rows != (lstm->nb_outputs + 3) / 4 * 4
                  : lstm->nb_outputs != lstm->nb_neurons || lstm->projection.nb_rows != 0) {
        return RTCORE_E_SHAPE;
    }
    if (lstm->nb_neurons > capacity) {
        return RTCORE_E_CAPACITY;
    }
    if (lstm->gate_shift < 0 || lstm->gate_shift > RTCORE_PRE_FRAC || lstm->cell_frac < -16 || lstm->cell_frac > 15 ||
        lstm->state_frac < (projected ? -16 : 0) || lstm->state_frac > (projected ? 30 : 15)) {
        return RTCORE_E_SHIFT;
    }
    int error = rtcore_matrix_i16_check(&lstm->input);
    if (error == RTCORE_OK) {
        error = rtcore_matrix_i16_check(&lstm->recurrent);
    }
    if (error == RTCORE_OK && projected) {
        error = rtcore_matrix_i16_check(&lstm->projection);
    }
    return error;
}
