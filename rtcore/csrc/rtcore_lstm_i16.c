/* rtcore_lstm_i16.c - long short-term memory with a 32-bit cell (SPEC.md 5): with or without a projection, peepholes, and
 * forget gates that are coupled to the input gates.
 *
 * Pre-activations meet in int32, gates are Q0.32, the cell has 15 bits below int16 and takes one rounding a step. Units go
 * four at a time: no array of sums is kept. Cells are updated in place; what they give out waits in the scratch, as the
 * matrices still read the old view.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_fixed.h (sigma, tanh, rounding), rtcore_state_i16.c (its states).
 */
#include <stddef.h>

#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"

enum {
    INPUT,
    FORGET,
    CANDIDATE,
    OUTPUT,
    GATES
}; /* groups of rows of each block of four units; FORGET unless coupled */

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

/* The pre-activations of a gate that sees its four cells: |weight * cell| is below 2^45 and the two halves together are
 * below 2^54, so that the sum is exact before it saturates. peephole: the gate's row of the weights. */
static void look(const rtcore_lstm_i16 *lstm, int peephole, int group, int first, int count, const int32_t *cell,
                 const int16_t *view, const int16_t *input, int32_t *rows) {
    int32_t other[4];
    rtcore_matrix_i16_rows(&lstm->input, group, 1, input, rows);
    rtcore_matrix_i16_rows(&lstm->recurrent, group, 1, view, other);
    for (int k = 0; k < count; k++) {
        const int unit = peephole * lstm->nb_neurons + first + k;
        const int64_t product = (int64_t)lstm->peephole_weights[unit] * cell[first + k];
        rows[k] = rtcore_sat32(rtcore_scale_up((int64_t)rows[k] + other[k], lstm->gate_shift) +
                               rtcore_rshift_round(product, lstm->peephole_shift[unit]));
    }
}

static void units(const rtcore_lstm_i16 *lstm, int first, int count, int32_t *cell, const int16_t *view,
                  const int16_t *input, int16_t *hidden) {
    const int sees = lstm->peephole_weights != NULL, coupled = lstm->coupled, shift = lstm->gate_shift;
    const int group = (GATES - coupled) * (first / 4);
    const int frac = lstm->projection.nb_rows > 0 ? HIDDEN_FRAC : lstm->state_frac;
    int32_t i[4], f[4], g[4];
    if (sees) {
        look(lstm, INPUT, group + INPUT, first, count, cell, view, input, i);
    } else {
        rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + INPUT, input, view, shift, i);
    }
    if (coupled) {
        for (int k = 0; k < count; k++) { /* 1 - sigmoid(a) = sigmoid(-a), of a core's INT32_MIN too */
            f[k] = rtcore_sat32(-(int64_t)i[k]);
        }
    } else if (sees) {
        look(lstm, FORGET, group + FORGET, first, count, cell, view, input, f);
    } else {
        rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + FORGET, input, view, shift, f);
    }
    rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + CANDIDATE - coupled, input, view, shift, g);
    for (int k = 0; k < count; k++) {
        cell[first + k] = next_cell(i[k], f[k], g[k], cell[first + k], lstm->cell_frac);
    }
    if (sees) {
        look(lstm, FORGET + 1 - coupled, group + OUTPUT - coupled, first, count, cell, view, input, i);
    } else {
        rtcore_matrix_i16_meet4(&lstm->input, &lstm->recurrent, group + OUTPUT - coupled, input, view, shift, i);
    }
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

static int check_peepholes(const rtcore_lstm_i16 *lstm) {
    if ((lstm->peephole_weights == NULL) != (lstm->peephole_shift == NULL)) {
        return RTCORE_E_TABLE;
    }
    const int n = lstm->peephole_weights != NULL ? (GATES - 1 - lstm->coupled) * lstm->nb_neurons : 0;
    for (int i = 0; i < n; i++) {
        if (lstm->peephole_shift[i] > 46) {
            return RTCORE_E_SHIFT;
        }
        if (lstm->peephole_weights[i] < -32767) {
            return RTCORE_E_WEIGHT;
        }
    }
    return RTCORE_OK;
}

int rtcore_lstm_i16_check(const rtcore_lstm_i16 *lstm, int capacity) {
    const int rows = (GATES - (lstm->coupled != 0)) * ((lstm->nb_neurons + 3) / 4 * 4);
    const int projected = lstm->projection.nb_rows > 0;
    if (lstm->coupled < 0 || lstm->coupled > 1 || lstm->nb_neurons < 1 || lstm->nb_outputs < 1 ||
        lstm->nb_inputs != lstm->input.nb_inputs || lstm->nb_outputs != lstm->recurrent.nb_inputs ||
        lstm->input.nb_rows != rows || lstm->recurrent.nb_rows != rows) {
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
    if (error == RTCORE_OK) {
        error = check_peepholes(lstm);
    }
    return error;
}
