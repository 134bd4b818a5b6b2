/* rtcore_core.h - meeting and sigma for Cortex-M0 and M0+, in place of the portable one: inline, for compilers that optimise
 * for size, and with the one check that an addition without overflow needs. GNU C: gcc, clang.
 *
 * A saturated negative pre-activation may be INT32_MIN here: nothing that reads one tells it from -INT32_MAX, as magnitudes are
 * clipped before they are used. Neighbours: rtcore_fixed.h (includes it; the number domains), rtcore_sigma.c (the table).
 */
#ifndef RTCORE_CORE_H
#define RTCORE_CORE_H

/* Before functions that a core wants inlined, or with their registers to themselves. */
#define RTCORE_INLINE static inline __attribute__((always_inline))
#define RTCORE_OUTLINE __attribute__((noinline))

/* The two halves of a pre-activation meet: (a + b) * 2^shift, saturated. shift 0..31 */
RTCORE_INLINE int32_t rtcore_meet(int32_t a, int32_t b, int shift) {
    const int32_t limit = INT32_MAX >> shift;
    int32_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return sum < 0 ? INT32_MAX : -INT32_MAX;
    }
    return shift == 0 ? sum : sum > limit ? INT32_MAX : sum < -limit ? -INT32_MAX : sum * (int32_t)(1U << shift);
}

/* sigma(-|a| * 2^(16 - bits)): T[i] + (T[i+1] - T[i]) * f / 2^bits rounded half up, with i and f what is above and below the
 * lowest bits of |a|; from 16 on the last node, which is also where the last chord ends. */
RTCORE_INLINE int32_t rtcore_chord(int32_t a, int bits) {
    const uint32_t size = a < 0 ? 0U - (uint32_t)a : (uint32_t)a;
    const uint32_t t = size >> (10 + bits) != 0 ? (1U << (10 + bits)) - 1U : size;
    const int32_t *const node = rtcore_sigma_table + (t >> bits);
    return rtcore_interpolate(node[0], node[0] - node[1], (uint16_t)(t << (16 - bits)));
}

/* GATE: sigma(-|a|) of a PRE. sigmoid(a) is the gate for a < 0 and 1 - gate for a >= 0. */
RTCORE_INLINE int32_t rtcore_sigma(int32_t a) { return rtcore_chord(a, 16); }

/* sigma(-2 |a|) of a PRE. */
RTCORE_INLINE int32_t rtcore_sigma_twice(int32_t a) { return rtcore_chord(a, 15); }

#endif
