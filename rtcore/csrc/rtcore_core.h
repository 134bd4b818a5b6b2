/* rtcore_core.h - where pre-activations meet, and sigma: what a core may do in its own way.
 *
 * A core may bring its own rtcore_core.h (csrc/<core>/), which gives the same numbers. Neighbours: rtcore_fixed.h
 * (includes it; the number domains), rtcore_sigma.c (the table).
 */
#ifndef RTCORE_CORE_H
#define RTCORE_CORE_H

/* Before functions that a core wants inlined, or with their registers to themselves. */
#if defined(__GNUC__)
#define RTCORE_INLINE static inline __attribute__((always_inline))
#define RTCORE_OUTLINE __attribute__((noinline))
#else
#define RTCORE_INLINE static inline
#define RTCORE_OUTLINE
#endif

/* The two halves of a pre-activation meet: (a + b) * 2^shift, saturated to PRE. shift 0..31 */
static inline int32_t rtcore_meet(int32_t a, int32_t b, int shift) {
    const int32_t limit = INT32_MAX >> shift;
    const int64_t sum = (int64_t)a + b;
    const int32_t near = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
    if (sum > limit || sum < -limit) {
        RTCORE_ON_SATURATE();
    }
    return near > limit ? INT32_MAX : near < -limit ? -INT32_MAX : near * (int32_t)(1U << shift);
}

/* sigma(-t), t a PRE or twice one: the chord from node to node, T[i] + (T[i+1] - T[i]) * f / 2^16 rounded half up. From
 * 16 on it is the last node, which is also where the last chord ends. */
static inline int32_t rtcore_chord(uint32_t t) {
    const uint32_t near = t < (1U << 26) ? t : (1U << 26) - 1U;
    const int32_t *const node = rtcore_sigma_table + (near >> 16);
    return rtcore_interpolate(node[0], node[0] - node[1], near & 65535U);
}

/* |a| of a PRE */
static inline uint32_t rtcore_magnitude(int32_t a) { return (uint32_t)(a < 0 ? -a : a); }

/* GATE: sigma(-|a|) of a PRE. sigmoid(a) is the gate for a < 0 and 1 - gate for a >= 0. */
static inline int32_t rtcore_sigma(int32_t a) { return rtcore_chord(rtcore_magnitude(a)); }

/* sigma(-2 |a|) of a PRE. */
static inline int32_t rtcore_sigma_twice(int32_t a) { return rtcore_chord(2U * rtcore_magnitude(a)); }

#endif
