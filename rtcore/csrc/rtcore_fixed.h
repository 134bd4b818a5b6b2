/* rtcore_fixed.h - the named primitives that all int16 arithmetic goes through, and sigmoid and tanh.
 *
 * Number domains (SPEC.md 2-5):
 *   ACT   int16, Q(frac) of its tensor          activations, inputs, outputs, the view of a state
 *   ACC   int32 or int64, Q of matrix row       exact sums; proven not to overflow
 *   PRE   int32, Q22, never INT32_MIN           pre-activations of sigmoid and tanh: +-512
 *   GATE  int32 0..2^31-1, Q0.32                sigma(-|a|), the smaller of z and 1 - z; of a hard gate likewise
 *   STATE int32 -2^30..2^30, Q(frac + 15)       recurrent state
 *
 * Rounding is half up everywhere: floor(x + 1/2). Every shift of a negative number is written so that C99 defines it
 * (compilers see one instruction). Neighbours: rtcore_wide.h and rtcore_core.h (those that a core may do in its
 * own way), rtcore_sigma.c (the table), rtcore_scalar.c (roots, powers, logarithms), rtcore_matrix_i16.h, the *_i16.c kernels.
 */
#ifndef RTCORE_FIXED_H
#define RTCORE_FIXED_H

#include <stdint.h>

/* Called when a value is clipped by more than one LSB. A host build counts; nothing may change a number here. */
#ifndef RTCORE_ON_SATURATE
#define RTCORE_ON_SATURATE() ((void)0)
#endif

#define RTCORE_PRE_FRAC 22          /* fractional bits of PRE */
#define RTCORE_STATE_EXTRA 15       /* fractional bits that STATE has beyond its ACT view */
#define RTCORE_STATE_ONE 1073741824 /* 2^30: the state at the end of the view's range */

/* floor(v / 2^shift), shift 0..31 */
static inline int32_t rtcore_asr32(int32_t v, int shift) { return v < 0 ? ~(~v >> shift) : v >> shift; }

/* floor(v / 2^shift), shift 0..63 */
static inline int64_t rtcore_asr64(int64_t v, int shift) { return v < 0 ? ~(~v >> shift) : v >> shift; }

/* The same, shift 0..31, from two words: short where a shift of 64 bits by a variable is no instruction. */
static inline int64_t rtcore_asr64_short(int64_t v, int shift) {
    const int32_t high = (int32_t)rtcore_asr64(v, 32);
    const uint32_t low = ((uint32_t)v >> shift) + ((uint32_t)high << 1 << (31 - shift));
    return rtcore_asr32(high, shift) * 4294967296LL + low;
}

/* v / 2^shift rounded half up, shift 0..62; |v| + 2^61 must fit int64 */
static inline int64_t rtcore_rshift_round(int64_t v, int shift) {
    return shift > 0 ? rtcore_asr64(v + ((int64_t)1 << (shift - 1)), shift) : v;
}

/* v / 2^shift rounded half up, shift 0..31; |v| at most 2^30 */
static inline int32_t rtcore_round32(int32_t v, int shift) {
    return shift > 0 ? rtcore_asr32(v + (1 << (shift - 1)), shift) : v;
}

/* to ACT: -32768..32767 */
static inline int16_t rtcore_sat16(int64_t v) {
    if (v > 32767) {
        if (v > 32768) {
            RTCORE_ON_SATURATE();
        }
        return 32767;
    }
    if (v < -32768) {
        RTCORE_ON_SATURATE();
        return -32768;
    }
    return (int16_t)v;
}

/* to PRE: -(2^31-1)..2^31-1 */
static inline int32_t rtcore_sat32(int64_t v) {
    if (v > INT32_MAX) {
        RTCORE_ON_SATURATE();
        return INT32_MAX;
    }
    if (v < -INT32_MAX) {
        RTCORE_ON_SATURATE();
        return -INT32_MAX;
    }
    return (int32_t)v;
}

/* floor(acc / 2^shift), saturated to PRE: an accumulator with its rounding half included. shift 0..62, |acc| below 2^62. The row
 * comes from two words: a shift of 64 bits by a variable is long where it is no instruction. */
static inline int32_t rtcore_requantize(int64_t acc, int shift) {
    const int32_t high = (int32_t)rtcore_asr64(acc, 32);
    if (shift >= 32) {
        return rtcore_asr32(high, shift - 32);
    }
    const int32_t row = (int32_t)(((uint32_t)acc >> shift) + ((uint32_t)high << 1 << (31 - shift)));
    if (rtcore_asr32(high, shift) != rtcore_asr32(row, 31) || row == INT32_MIN) {
        RTCORE_ON_SATURATE();
        return high < 0 ? -INT32_MAX : INT32_MAX;
    }
    return row;
}

/* STATE to its ACT view */
static inline int16_t rtcore_view(int32_t state) {
    const int32_t v = rtcore_asr32(state + (1 << (RTCORE_STATE_EXTRA - 1)), RTCORE_STATE_EXTRA);
    return (int16_t)(v > 32767 ? 32767 : v < -32768 ? -32768 : v); /* by one LSB at most */
}

/* v * 2^shift, shift 0..46; the product must fit int64 */
static inline int64_t rtcore_scale_up(int64_t v, int shift) { return v * (int64_t)((uint64_t)1 << shift); }

/* Nodes of sigma(-t), t = i / 64, in Q0.32 (rtcore_sigma.c); the last one twice, so that every node has a next one */
#define RTCORE_SIGMA_NODES 1026
extern const int32_t rtcore_sigma_table[RTCORE_SIGMA_NODES];

#include "rtcore_wide.h"

#include "rtcore_core.h"

/* GATE of a hard sigmoid, 1/2 + slope * a within 0..1: 1/2 - slope * |a|, not below 0. slope: Q30, 2^21..2^30. */
int32_t rtcore_hard_sigma(int32_t a, int32_t slope);

/* GATE of a recurrent layer: of the hard sigmoid of this slope, or with slope 0 of the sigmoid. */
static inline int32_t rtcore_gate(int32_t a, int32_t slope) {
    return slope == 0 ? rtcore_sigma(a) : rtcore_hard_sigma(a, slope);
}

/* Whether a layer's slope is one: where |a| ends, every hard gate is 0. */
static inline int rtcore_is_gate_slope(int32_t slope) { return slope == 0 || (slope >= 1 << 21 && slope <= 1 << 30); }

/* The gate's value * v, exact: 32 more fractional bits than v, |v| <= 2^30 */
static inline int64_t rtcore_gated_product(int32_t a, int32_t slope, int32_t v) {
    const int64_t part = rtcore_gate_product(rtcore_gate(a, slope), v);
    return a < 0 ? part : v * 4294967296LL - part;
}

/* tanh of a PRE in Q30: -(2^30-1)..2^30-1, odd */
static inline int32_t rtcore_tanh(int32_t a) {
    const uint32_t s = (uint32_t)rtcore_sigma_twice(a);
    const int32_t y = RTCORE_STATE_ONE - (int32_t)((s + 1U) >> 1);
    return a < 0 ? -y : y;
}

/* sigmoid and tanh of a PRE as ACT in Q0.15: 0..32767, and -32767..32767 */
int16_t rtcore_sigmoid_q15(int32_t a);
int16_t rtcore_tanh_q15(int32_t a);

/* floor(sqrt(v)), v below 2^62 */
uint32_t rtcore_isqrt(uint64_t v);

/* floor(2^60 / d), d 2^30..2^31-1: 2^29+..2^30 */
uint32_t rtcore_reciprocal(uint32_t d);

/* 2^(-u / 2^24) in Q30: 0..2^30 */
uint32_t rtcore_exp2_minus(uint64_t u);

/* log2(d / 2^30) in Q30, d 2^30..2^31-1 */
uint32_t rtcore_log2(uint32_t d);

#endif
