/* rtcore_units4.h - gates, activations and views of four units at once for Cortex-M55, a unit in each lane of a vector.
 *
 * The numbers are those of rtcore_fixed.h, rtcore_core.h and the kernels that ask. Products round as they do there
 * (VRMULH: (a b + 2^31) >> 32); exact ones are kept as their high and low words. A saturated negative pre-activation is
 * INT32_MIN here: nothing that reads one tells it from -INT32_MAX. Of fewer than four units the last lanes are computed
 * and not stored.
 * Neighbours: rtcore_sigma.c (the table), rtcore_matrix_i16.h (the rows).
 */
#ifndef RTCORE_UNITS4_H
#define RTCORE_UNITS4_H

#include <arm_mve.h>

#include "rtcore_matrix_i16.h"

/* Before functions of a whole block: out of line, so that only they keep vectors on the stack, and none need be asked. */
#define RTCORE_VECTORS static __attribute__((noinline, unused))

/* sigma(-t), t 0..2^31-1, a PRE or twice one: two nodes for every lane, and the chord between them */
static inline int32x4_t rtcore_chord4(int32x4_t t) {
    const uint32x4_t near = vminq_u32(vreinterpretq_u32_s32(t), vdupq_n_u32((1U << 26) - 1U));
    const uint32x4_t node = vshrq_n_u32(near, 16);
    const int32x4_t f = vreinterpretq_s32_u32(vshllbq_n_u16(vreinterpretq_u16_u32(near), 15));
    const int32x4_t from = vldrwq_gather_shifted_offset_s32(rtcore_sigma_table, node);
    const int32x4_t to = vldrwq_gather_shifted_offset_s32(rtcore_sigma_table + 1, node);
    return vaddq_s32(from, vqrdmulhq_s32(vsubq_s32(to, from), f));
}

/* GATE: sigma(-|a|) of a PRE */
static inline int32x4_t rtcore_sigma4(int32x4_t a) { return rtcore_chord4(vqabsq_s32(a)); }

/* tanh(|a|) of a PRE in Q30 */
static inline int32x4_t rtcore_tanh4_magnitude(int32x4_t a) {
    const int32x4_t s = rtcore_chord4(vqshlq_n_s32(vqabsq_s32(a), 1));
    return vsubq_s32(vdupq_n_s32(RTCORE_STATE_ONE), vrshrq_n_s32(s, 1));
}

/* y with the sign of a */
static inline int32x4_t rtcore_signed4(int32x4_t y, int32x4_t a) { return vnegq_m_s32(y, y, vcmpltq_n_s32(a, 0)); }

/* tanh of a PRE in Q30 */
static inline int32x4_t rtcore_tanh4(int32x4_t a) { return rtcore_signed4(rtcore_tanh4_magnitude(a), a); }

/* s for a < 0, one - s for a >= 0: a sigmoid, from sigma rounded to the format in which `one` is 1 */
static inline int32x4_t rtcore_sigmoid4(int32x4_t s, int32x4_t a, int32_t one) {
    return vsubq_m_s32(s, vdupq_n_s32(one), s, vcmpgeq_n_s32(a, 0));
}

/* Where two pre-activations meet: (a + b) * 2^shift, saturated */
static inline int32x4_t rtcore_meet4(const int32_t *a, const int32_t *b, int shift) {
    return vqshlq_r_s32(vqaddq_s32(vld1q_s32(a), vld1q_s32(b)), shift);
}

/* sigmoid(a) * v, rounded once */
static inline int32x4_t rtcore_gated4(int32x4_t a, int32x4_t v) {
    const int32x4_t part = vrmulhq_s32(rtcore_sigma4(a), v);
    return vsubq_m_s32(part, v, part, vcmpgeq_n_s32(a, 0));
}

/* sigmoid(a) * v, exact: 32 more fractional bits than v, |v| <= 2^30 */
typedef struct {
    int32x4_t high, low; /* floor(product / 2^32), and the 32 bits below */
} rtcore_product4;

static inline rtcore_product4 rtcore_sigmoid_product4(int32x4_t a, int32x4_t v) {
    const mve_pred16_t rest = vcmpgeq_n_s32(a, 0); /* v * 2^32 - sigma * v */
    const int32x4_t sigma = rtcore_sigma4(a), s = vnegq_m_s32(sigma, sigma, rest), high = vmulhq_s32(s, v);
    const rtcore_product4 product = {vaddq_m_s32(high, high, v, rest), vmulq_s32(s, v)};
    return product;
}

/* To ACT, saturated, at output: i16 [count], or its first four */
static inline void rtcore_store4(int16_t *output, int32x4_t v, int count) {
    const int16x8_t narrow = vqmovnbq_s32(vreinterpretq_s16_s32(v), v); /* into the lower halves of the lanes */
    vstrhq_p_s32(output, vreinterpretq_s32_s16(narrow), vctp32q((uint32_t)count));
}

static inline int rtcore_units4_activate(const int32_t *rows, int count, int activation, int16_t *output) {
    for (; count > 0; count -= 4, rows += 4, output += 4) {
        const int32x4_t a = vld1q_s32(rows);
        int32x4_t y = a;
        if (activation == RTCORE_ACTIVATION_SIGMOID) {
            y = rtcore_sigmoid4(vrshrq_n_s32(rtcore_sigma4(a), 17), a, 32768);
        } else if (activation == RTCORE_ACTIVATION_TANH) {
            const int32x4_t rounded = vrshrq_n_s32(rtcore_tanh4_magnitude(a), 15);
            y = rtcore_signed4(vminq_s32(rounded, vdupq_n_s32(32767)), a); /* odd */
        } else if (activation == RTCORE_ACTIVATION_RELU) {
            y = vmaxq_s32(a, vdupq_n_s32(0));
        }
        rtcore_store4(output, y, count);
    }
    return 1;
}

static inline int rtcore_units4_view(const int32_t *state, int n, int16_t *view) {
    for (; n > 0; n -= 4, state += 4, view += 4) {
        const int32x4_t wide = vldrwq_z_s32(state, vctp32q((uint32_t)n));
        rtcore_store4(view, vrshrq_n_s32(wide, RTCORE_STATE_EXTRA), n);
    }
    return 1;
}

/* A GRU's candidate in STATE format, one short of the ends so that a difference of two fits int32 */
static inline int32x4_t rtcore_candidate4(int activation, int state_frac, int32x4_t a) {
    if (activation == RTCORE_ACTIVATION_TANH) {
        return vrshlq_n_s32(rtcore_tanh4(a), state_frac - 15);
    }
    if (activation == RTCORE_ACTIVATION_SIGMOID) {
        const int32x4_t s = vrshrq_n_s32(rtcore_sigma4(a), 2);
        return vrshlq_n_s32(rtcore_sigmoid4(s, a, RTCORE_STATE_ONE), state_frac - 15);
    }
    const int32_t low = activation == RTCORE_ACTIVATION_RELU ? 0 : 1 - RTCORE_STATE_ONE;
    return vminq_s32(vmaxq_s32(a, vdupq_n_s32(low)), vdupq_n_s32(RTCORE_STATE_ONE - 1));
}

/* h' = z h + (1 - z) n as base + small * (other - base): small is min(z, 1 - z), exact; one rounding. */
static inline void rtcore_update4(int32_t *state, int count, int32x4_t a, int32x4_t n) {
    const mve_pred16_t units = vctp32q((uint32_t)count), small_z = vcmpltq_n_s32(a, 0);
    const int32x4_t h = vldrwq_z_s32(state, units);
    const int32x4_t base = vpselq_s32(n, h, small_z), other = vpselq_s32(h, n, small_z);
    const int32x4_t step = vrmulhq_s32(rtcore_sigma4(a), vsubq_s32(other, base));
    vstrwq_p_s32(state, vaddq_s32(base, step), units);
}

RTCORE_VECTORS int rtcore_units4_gru(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    const int32_t *const recurrent = rows + 12;
    const int32x4_t reset = rtcore_meet4(rows + 8, recurrent + 8, gru->gate_shift);
    const int32x4_t reread = rtcore_gated4(reset, vld1q_s32(recurrent + 4));
    const int32x4_t a = vqshlq_r_s32(vqaddq_s32(vld1q_s32(rows + 4), reread), gru->candidate_shift);
    const int32x4_t z = rtcore_meet4(rows, recurrent, gru->gate_shift);
    rtcore_update4(state, count, z, rtcore_candidate4(gru->activation, gru->state_frac, a));
    return 1;
}

RTCORE_VECTORS int rtcore_units4_gru_reset(const rtcore_gru_i16 *gru, int count, const int32_t *state,
                                           const int32_t *rows, int16_t *reset) {
    const int32x4_t h = vldrwq_z_s32(state, vctp32q((uint32_t)count));
    const rtcore_product4 product = rtcore_sigmoid_product4(rtcore_meet4(rows, rows + 4, gru->gate_shift), h);
    rtcore_store4(reset, vrshrq_n_s32(product.high, RTCORE_STATE_EXTRA), count);
    return 1;
}

RTCORE_VECTORS int rtcore_units4_gru_before(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    const int32x4_t a = rtcore_meet4(rows + 4, rows + 12, gru->candidate_shift);
    const int32x4_t n = rtcore_candidate4(gru->activation, gru->state_frac, a);
    rtcore_update4(state, count, rtcore_meet4(rows, rows + 8, gru->gate_shift), n);
    return 1;
}

/* sigmoid(f) * c + sigmoid(i) * tanh(g): two exact products, the second with 15 - cell_frac fractional bits more, rounded
 * together once: half the sum of the low words, and its rounding, carry into the high ones. What the second one reads is read
 * when the first is done, so that few vectors wait on the stack. */
RTCORE_VECTORS int rtcore_units4_cells(const rtcore_lstm_i16 *lstm, int first, int32_t *cell, const int32_t *rows) {
    const int shift = rtcore_lstm_i16_shift(lstm), finer = 15 - lstm->cell_frac;
    const mve_pred16_t some = vctp32q((uint32_t)(lstm->nb_neurons - first));
    const int32_t *const forget = rows + 4 * (1 - lstm->coupled), *const g = forget + 4;
    int32x4_t f = rtcore_meet4(forget, forget + 16, shift);
    if (lstm->coupled) {
        f = vqnegq_s32(f);
    }
    rtcore_product4 kept = rtcore_sigmoid_product4(f, vldrwq_z_s32(cell + first, some));
    __asm__ volatile("" : "+w"(kept.high), "+w"(kept.low) : : "memory");
    int32x4_t candidate = rtcore_tanh4(rtcore_meet4(g, g + 16, lstm->gate_shift));
    __asm__ volatile("" : "+w"(candidate) : : "memory");
    const rtcore_product4 added = rtcore_sigmoid_product4(rtcore_meet4(rows, rows + 16, shift), candidate);
    const uint32x4_t low = vorrq_u32(vshlq_r_u32(vreinterpretq_u32_s32(added.low), -finer),
                                     vshlq_r_u32(vreinterpretq_u32_s32(added.high), 32 - finer));
    const uint32x4_t carry = vrshrq_n_u32(vhaddq_u32(vreinterpretq_u32_s32(kept.low), low), 31);
    const int32x4_t high = vqaddq_s32(kept.high, vshlq_r_s32(added.high, -finer));
    const int32x4_t next = vqaddq_s32(high, vreinterpretq_s32_u32(carry));
    vstrwq_p_s32(cell + first,
                 vmaxq_s32(vminq_s32(next, vdupq_n_s32(RTCORE_STATE_ONE)), vdupq_n_s32(-RTCORE_STATE_ONE)), some);
    return 1;
}

RTCORE_VECTORS int rtcore_units4_outputs(const rtcore_lstm_i16 *lstm, int first, const int32_t *cell,
                                         const int32_t *rows, int16_t *hidden) {
    const int frac = lstm->projection.nb_rows > 0 ? 15 : lstm->state_frac;
    const int left = lstm->nb_neurons - first;
    const int32x4_t c = vldrwq_z_s32(cell + first, vctp32q((uint32_t)left));
    const int32x4_t squashed = rtcore_tanh4(vqrshlq_n_s32(c, RTCORE_PRE_FRAC - RTCORE_STATE_EXTRA - lstm->cell_frac));
    rows += 4 * (3 - lstm->coupled);
    const rtcore_product4 out =
        rtcore_sigmoid_product4(rtcore_meet4(rows, rows + 16, rtcore_lstm_i16_shift(lstm)), squashed);
    rtcore_store4(hidden + first, vrshlq_n_s32(out.high, frac - 30), left);
    return 1;
}

RTCORE_VECTORS int rtcore_units4_rnn(const rtcore_rnn_i16 *rnn, int count, const int32_t *rows, int16_t *output) {
    const int32x4_t pre = rtcore_meet4(rows, rows + 4, rnn->shift);
    if (rnn->activation == RTCORE_ACTIVATION_TANH) {
        rtcore_store4(output, vrshlq_n_s32(rtcore_tanh4(pre), rnn->state_frac - 30), count);
    } else {
        rtcore_store4(output, vrshrq_n_s32(vmaxq_s32(pre, vdupq_n_s32(0)), RTCORE_STATE_EXTRA), count);
    }
    return 1;
}

#endif
