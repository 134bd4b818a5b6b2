/* rtcore_core.h - meeting and sigma for Cortex-M3, M4, M7, M33 and M55, in place of the portable one.
 *
 * Saturating additions and shifts, and chords in assembly. A saturated negative pre-activation is INT32_MIN here: nothing
 * that reads one tells it from -INT32_MAX, as magnitudes are clipped before they are used. GNU C: gcc, clang.
 * Neighbours: rtcore_fixed.h (includes it; the number domains), rtcore_dsp.h of the core, rtcore_sigma.c (the
 * table).
 */
#ifndef RTCORE_CORE_H
#define RTCORE_CORE_H

#include "rtcore_dsp.h"

/* Before functions that a core wants inlined, or with their registers to themselves. */
#define RTCORE_INLINE static inline __attribute__((always_inline))
#define RTCORE_OUTLINE __attribute__((noinline))

/* The two halves of a pre-activation meet: (a + b) * 2^shift, saturated. shift 0..31 */
RTCORE_INLINE int32_t rtcore_meet(int32_t a, int32_t b, int shift) {
    int32_t sum, up, back;
    __asm__(RTCORE_QADD("%0", "%1", "%2") : "=&r"(sum) : "r"(a), "r"(b) : "cc");
    if (shift == 0) {
        return sum;
    }
    __asm__("lsl %0, %2, %3\n\t"
            "asr %1, %0, %3\n\t"
            "cmp %1, %2\n\t"
            "itt ne\n\t"
            "mvnne %0, #0x80000000\n\t"
            "eorne %0, %0, %2, asr #31"
            : "=&r"(up), "=&r"(back)
            : "r"(sum), "r"(shift)
            : "cc");
    return up;
}

/* sigma(-|a| * 2^(16 - bits)): the magnitude up to 2^(bits + 10), then T[i] + (T[i+1] - T[i]) * f / 2^bits rounded half up, with
 * i and f what is above and below the lowest bits; left is 32 - bits. */
#define RTCORE_CHORD(a, bits, left)                                                                                    \
    int32_t y;                                                                                                         \
    const int32_t *node;                                                                                               \
    uint32_t t;                                                                                                        \
    __asm__("eor %2, %3, %3, asr #31\n\t"                                                                              \
            "usat %2, #(10 + " bits "), %2\n\t"                                                                        \
            "sub %2, %2, %3, asr #31\n\t"                                                                              \
            "lsr %0, %2, #" bits "\n\t"                                                                                \
            "add %1, %4, %0, lsl #2\n\t"                                                                               \
            "ldrd %0, %1, [%1]\n\t"                                                                                    \
            "lsl %2, %2, #" left "\n\t"                                                                                \
            "sub %1, %1, %0\n\t"                                                                                       \
            "lsr %2, %2, #1\n\t"                                                                                       \
            "lsl %1, %1, #1\n\t" RTCORE_SMMLAR("%0", "%1", "%2")                                                       \
            : "=&r"(y), "=&r"(node), "=&r"(t)                                                                          \
            : "r"(a), "r"(rtcore_sigma_table), "m"(rtcore_sigma_table)                                                 \
            : "cc");                                                                                                   \
    return y

/* GATE: sigma(-|a|) of a PRE. sigmoid(a) is the gate for a < 0 and 1 - gate for a >= 0. */
RTCORE_INLINE int32_t rtcore_sigma(int32_t a) { RTCORE_CHORD(a, "16", "16"); }

/* sigma(-2 |a|) of a PRE. */
RTCORE_INLINE int32_t rtcore_sigma_twice(int32_t a) { RTCORE_CHORD(a, "15", "17"); }

#endif
