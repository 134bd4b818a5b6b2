/* rtcore_gru_i16.c - the gated recurrent unit with a wide recurrence (SPEC.md 5).
 *
 * Pre-activations meet in int32, gates are Q0.32 with the smaller of z and 1 - z held exactly, the state is 32 bits and
 * the matrices read its rounded top 16. Units go four at a time: no array of sums is kept. The state is updated in place
 * while the matrices still read the old view; the view follows when all units are done.
 * Neighbours: rtcore_matrix_i16.h (the rows), rtcore_fixed.h (sigma, tanh, rounding), rtcore_state_i16.c (its state).
 */
#include "rtcore_fixed.h"
#include "rtcore_matrix_i16.h"
#include "rtcore_units4.h"

enum { UPDATE, CANDIDATE, RESET, GATES }; /* groups of rows of each block of four units */

/* gate(a) * v, rounded once; slope: of a hard gate, or 0 */
RTCORE_INLINE int32_t gated(int32_t a, int32_t slope, int32_t v) {
    const int32_t part = rtcore_gate_mul(rtcore_gate(a, slope), v);
    return a < 0 ? part : v - part;
}

/* view of gate(a) * state, rounded once */
static int16_t gated_view(int32_t a, int32_t slope, int32_t state) {
    return rtcore_sat16(rtcore_rshift_round(rtcore_gated_product(a, slope, state), 32 + RTCORE_STATE_EXTRA));
}

/* Other candidates than tanh, in STATE format, one short of the ends so that a difference of two fits int32. */
RTCORE_OUTLINE static int32_t other_candidate(int activation, int state_frac, int32_t a) {
    if (activation == RTCORE_ACTIVATION_SIGMOID) {
        const int32_t s = (int32_t)(((uint32_t)rtcore_sigma(a) + 2U) / 4U);
        return rtcore_round32(a < 0 ? s : RTCORE_STATE_ONE - s, 15 - state_frac);
    }
    const int32_t n = activation == RTCORE_ACTIVATION_RELU && a < 0 ? 0 : a;
    if (n >= RTCORE_STATE_ONE || n <= -RTCORE_STATE_ONE) {
        RTCORE_ON_SATURATE();
        return n > 0 ? RTCORE_STATE_ONE - 1 : 1 - RTCORE_STATE_ONE;
    }
    return n;
}

RTCORE_INLINE int32_t candidate(int activation, int state_frac, int32_t a) {
    return activation == RTCORE_ACTIVATION_TANH ? rtcore_round32(rtcore_tanh(a), 15 - state_frac)
                                                : other_candidate(activation, state_frac, a);
}

/* h' = z h + (1 - z) n as base + small * (other - base): small is min(z, 1 - z), exact; one rounding. */
RTCORE_INLINE int32_t update(int32_t a, int32_t slope, int32_t h, int32_t n) {
    const int32_t small = rtcore_gate(a, slope);
    return a < 0 ? n + rtcore_gate_mul(small, h - n) : h + rtcore_gate_mul(small, n - h);
}

/* One to four units: their pre-activations meet, their states move on. rows: i32 [2][3][4], of the input and of the
 * recurrent matrix, z h r; the reset gate multiplies R h + b. usual: of the form that most nets have, for which a compiler
 * drops what looks at the form. */
RTCORE_INLINE void units_after(const rtcore_gru_i16 *gru, int usual, int count, int32_t *state, const int32_t *rows) {
    do {
        const int gate_shift = usual ? 0 : gru->gate_shift, candidate_shift = usual ? 0 : gru->candidate_shift;
        const int slope = usual ? 0 : gru->gate_slope, frac = usual ? 15 : gru->state_frac;
        const int activation = usual ? RTCORE_ACTIVATION_TANH : gru->activation;
        const int32_t reset = rtcore_meet(rows[4 * RESET], rows[4 * (GATES + RESET)], gate_shift);
        const int32_t reread = gated(reset, slope, rows[4 * (GATES + CANDIDATE)]);
        const int32_t a = rtcore_meet(rows[4 * CANDIDATE], reread, candidate_shift);
        const int32_t z = rtcore_meet(rows[4 * UPDATE], rows[4 * (GATES + UPDATE)], gate_shift);
        *state = update(z, slope, *state, candidate(activation, frac, a));
        rows++;
        state++;
    } while (--count > 0);
}

static int is_usual(const rtcore_gru_i16 *gru) {
    return gru->activation == RTCORE_ACTIVATION_TANH && gru->state_frac == 15 &&
           (gru->gate_shift | gru->candidate_shift | gru->gate_slope) == 0;
}

RTCORE_OUTLINE static void usual_units(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    units_after(gru, 1, count, state, rows);
}

RTCORE_OUTLINE static void other_units(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    units_after(gru, 0, count, state, rows);
}

static void view_of(const rtcore_gru_i16 *gru, const int32_t *state, int16_t *view) {
    if (rtcore_units4_view(state, gru->nb_neurons, view)) {
        return;
    }
    for (int i = 0; i < gru->nb_neurons; i++) {
        view[i] = rtcore_view(state[i]);
    }
}

void rtcore_gru_i16_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                         int32_t *rows) {
    const int usual = is_usual(gru);
    int32_t *units = state;
    int group = 0;
    for (int left = gru->nb_neurons; left > 0; left -= 4) {
        rtcore_matrix_i16_rows(&gru->input, group, GATES, input, rows);
        rtcore_matrix_i16_rows(&gru->recurrent, group, GATES, view, rows + 4 * GATES);
        if (gru->gate_slope == 0 && rtcore_units4_gru(gru, left < 4 ? left : 4, units, rows)) {
            /* a core's own way */
        } else if (usual) {
            usual_units(gru, left < 4 ? left : 4, units, rows);
        } else {
            other_units(gru, left < 4 ? left : 4, units, rows);
        }
        group += GATES;
        units += 4;
    }
    view_of(gru, state, view);
}

/* One to four states as the candidate's matrix reads them. rows: i32 [2][4] of the reset gate */
RTCORE_OUTLINE static void units_reset(const rtcore_gru_i16 *gru, int count, const int32_t *state, const int32_t *rows,
                                       int16_t *reset) {
    do {
        const int32_t a = rtcore_meet(rows[0], rows[4], gru->gate_shift);
        *reset++ = gated_view(a, gru->gate_slope, *state++);
        rows++;
    } while (--count > 0);
}

/* One to four states move on. rows: i32 [2][2][4], of the input and of the recurrent matrix, z h */
RTCORE_OUTLINE static void units_before(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    do {
        const int32_t z = rtcore_meet(rows[0], rows[8], gru->gate_shift);
        const int32_t a = rtcore_meet(rows[4], rows[12], gru->candidate_shift);
        *state = update(z, gru->gate_slope, *state, candidate(gru->activation, gru->state_frac, a));
        rows++;
        state++;
    } while (--count > 0);
}

void rtcore_gru_i16_before_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                                int32_t *rows, int16_t *scratch) {
    const int32_t *reset = state;
    int16_t *to = scratch;
    int group = RESET;
    for (int left = gru->nb_neurons; left > 0; left -= 4) {
        rtcore_matrix_i16_rows(&gru->input, group, 1, input, rows);
        rtcore_matrix_i16_rows(&gru->recurrent, group, 1, view, rows + 4);
        if (gru->gate_slope != 0 || !rtcore_units4_gru_reset(gru, left < 4 ? left : 4, reset, rows, to)) {
            units_reset(gru, left < 4 ? left : 4, reset, rows, to);
        }
        group += GATES;
        reset += 4;
        to += 4;
    }
    int32_t *units = state;
    group = UPDATE;
    for (int left = gru->nb_neurons; left > 0; left -= 4) {
        rtcore_matrix_i16_rows(&gru->input, group, 2, input, rows);
        rtcore_matrix_i16_rows(&gru->recurrent, group, 1, view, rows + 8);
        rtcore_matrix_i16_rows(&gru->recurrent, group + CANDIDATE - UPDATE, 1, scratch, rows + 12);
        if (gru->gate_slope != 0 || !rtcore_units4_gru_before(gru, left < 4 ? left : 4, units, rows)) {
            units_before(gru, left < 4 ? left : 4, units, rows);
        }
        group += GATES;
        units += 4;
    }
    view_of(gru, state, view);
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
        gru->candidate_shift > 31 || gru->state_frac < -16 || gru->state_frac > (bounded ? 15 : 30) ||
        !rtcore_is_gate_slope(gru->gate_slope)) {
        return RTCORE_E_SHIFT;
    }
    const int error = rtcore_matrix_i16_check(&gru->input);
    return error != RTCORE_OK ? error : rtcore_matrix_i16_check(&gru->recurrent);
}
