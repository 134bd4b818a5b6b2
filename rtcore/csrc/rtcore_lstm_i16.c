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
#include "rtcore_units4.h"

enum {
    INPUT,
    FORGET,
    CANDIDATE,
    OUTPUT,
    GATES
}; /* groups of rows of each block of four units; FORGET unless coupled */

enum { HIDDEN_FRAC = 15 }; /* of what a projection reads */

/* gate(f) * c + gate(i) * tanh(g): two exact products, rounded together once. The second has 15 - cell_frac
 * fractional bits more than the first; what lies below the first's is cut off by the floor in either order. */
RTCORE_INLINE int32_t next_cell(int32_t i, int32_t f, int32_t g, int32_t c, int slope, int cell_frac) {
    const int64_t kept = rtcore_gated_product(f, slope, c);
    const int64_t added = rtcore_asr64_short(rtcore_gated_product(i, slope, rtcore_tanh(g)), 15 - cell_frac);
    const int64_t next = rtcore_asr64(kept + added + 2147483648LL, 32);
    if (next > RTCORE_STATE_ONE || next < -RTCORE_STATE_ONE) {
        RTCORE_ON_SATURATE();
        return next > 0 ? RTCORE_STATE_ONE : -RTCORE_STATE_ONE;
    }
    return (int32_t)next;
}

/* The cell as PRE, saturated: tanh is 1 there, nothing is lost. */
RTCORE_INLINE int32_t cell_pre(int32_t c, int cell_frac) {
    const int up = RTCORE_PRE_FRAC - RTCORE_STATE_EXTRA - cell_frac;
    if (up <= 0) {
        return rtcore_round32(c, -up);
    }
    const int32_t limit = INT32_MAX >> up;
    if (c > limit || c < -limit) {
        return c > 0 ? INT32_MAX : -INT32_MAX;
    }
    return c * (int32_t)(1 << up);
}

/* What a unit gives out in ACT: gate(o) * tanh(cell), rounded once; bits below the product's upper word are below the
 * rounding. frac 0..15 */
RTCORE_INLINE int16_t hidden_of(int32_t o, int32_t c, int slope, int cell_frac, int frac) {
    const int64_t product = rtcore_gated_product(o, slope, rtcore_tanh(cell_pre(c, cell_frac)));
    return rtcore_sat16(rtcore_round32((int32_t)rtcore_asr64(product, 32), 30 - frac));
}

/* Where a block of units that begins at `first` ends. */
static int end_of(const rtcore_lstm_i16 *lstm, int first) {
    return lstm->nb_neurons - first < 4 ? lstm->nb_neurons : first + 4;
}

/* The halves of a gate that sees its cells meet, with shift and peephole: what is left to meet is nothing, and no shift.
 * |weight * cell| is below 2^45 and the halves together are below 2^54, so that the sum is exact before it saturates.
 * gate: of those that see cells, and rows begin with its own. */
RTCORE_OUTLINE static void see(const rtcore_lstm_i16 *lstm, int first, const int32_t *cell, int32_t *rows, int gate) {
    for (const int end = end_of(lstm, first); first < end; first++) {
        const int peephole = gate * lstm->nb_neurons + first;
        const int64_t product = (int64_t)lstm->peephole_weights[peephole] * cell[first];
        rows[0] = rtcore_sat32(rtcore_scale_up((int64_t)rows[0] + rows[4 * GATES], lstm->gate_shift) +
                               rtcore_rshift_round(product, lstm->peephole_shift[peephole]));
        rows[4 * GATES] = 0;
        rows++;
    }
}

/* 1 - sigmoid(a) = sigmoid(-a); some cores saturate to INT32_MIN */
RTCORE_INLINE int32_t opposite(int32_t a) { return a == INT32_MIN ? INT32_MAX : -a; }

/* The cells of a block move on. rows: i32 [2][GATES][4], of the input and of the recurrent matrix */
RTCORE_OUTLINE static void cells_of(const rtcore_lstm_i16 *lstm, int first, int32_t *cell, const int32_t *rows) {
    const int32_t *const end = cell + end_of(lstm, first);
    for (cell += first; cell < end; cell++) {
        const int shift = rtcore_lstm_i16_shift(lstm);
        const int32_t *const candidate = rows + 4 * (CANDIDATE - lstm->coupled);
        const int32_t i = rtcore_meet(rows[0], rows[4 * GATES], shift);
        const int32_t f =
            lstm->coupled ? opposite(i) : rtcore_meet(rows[4 * FORGET], rows[4 * (GATES + FORGET)], shift);
        const int32_t g = rtcore_meet(candidate[0], candidate[4 * GATES], lstm->gate_shift);
        *cell = next_cell(i, f, g, *cell, lstm->gate_slope, lstm->cell_frac);
        rows++;
    }
}

/* What they give out. */
RTCORE_OUTLINE static void outputs_of(const rtcore_lstm_i16 *lstm, int first, const int32_t *cell, const int32_t *rows,
                                      int16_t *hidden) {
    const int frac = lstm->projection.nb_rows > 0 ? HIDDEN_FRAC : lstm->state_frac;
    const int shift = rtcore_lstm_i16_shift(lstm);
    rows += 4 * (OUTPUT - lstm->coupled);
    for (const int end = end_of(lstm, first); first < end; first++) {
        const int32_t o = rtcore_meet(rows[0], rows[4 * GATES], shift);
        hidden[first] = hidden_of(o, cell[first], lstm->gate_slope, lstm->cell_frac, frac);
        rows++;
    }
}

/* A block of units moves on. */
static void units_of(const rtcore_lstm_i16 *lstm, int first, int32_t *cell, int32_t *rows, int16_t *hidden) {
    if (lstm->peephole_weights != NULL) {
        see(lstm, first, cell, rows, INPUT);
        if (!lstm->coupled) {
            see(lstm, first, cell, rows + 4 * FORGET, FORGET);
        }
    }
    if (lstm->gate_slope != 0 || !rtcore_units4_cells(lstm, first, cell, rows)) {
        cells_of(lstm, first, cell, rows);
    }
    if (lstm->peephole_weights != NULL) {
        const int output = OUTPUT - lstm->coupled;
        see(lstm, first, cell, rows + 4 * output, output - 1);
    }
    if (lstm->gate_slope != 0 || !rtcore_units4_outputs(lstm, first, cell, rows, hidden)) {
        outputs_of(lstm, first, cell, rows, hidden);
    }
}

/* What all units give out becomes the view, by the projection where there is one. */
RTCORE_OUTLINE static void view_of(const rtcore_lstm_i16 *lstm, int16_t *view, const int16_t *hidden, int32_t *rows) {
    if (lstm->projection.nb_rows > 0) {
        rtcore_matrix_i16_neurons(&lstm->projection, lstm->nb_outputs, RTCORE_ACTIVATION_LINEAR, hidden, rows, view);
        return;
    }
    for (int i = 0; i < lstm->nb_neurons; i++) {
        view[i] = hidden[i];
    }
}

void rtcore_lstm_i16_step(const rtcore_lstm_i16 *lstm, int32_t *cell, int16_t *view, const int16_t *input,
                          int32_t *rows, int16_t *scratch) {
    int group = 0;
    for (int first = 0; first < lstm->nb_neurons; first += 4) {
        const int gates = GATES - lstm->coupled;
        rtcore_matrix_i16_rows(&lstm->input, group, gates, input, rows);
        rtcore_matrix_i16_rows(&lstm->recurrent, group, gates, view, rows + 4 * GATES);
        group += gates;
        units_of(lstm, first, cell, rows, scratch);
    }
    view_of(lstm, view, scratch, rows);
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
        lstm->state_frac < (projected ? -16 : 0) || lstm->state_frac > (projected ? 30 : 15) ||
        !rtcore_is_gate_slope(lstm->gate_slope)) {
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
