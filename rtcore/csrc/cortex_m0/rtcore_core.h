/* rtcore_core.h - meeting and sigma for Cortex-M0 and M0+, in place of the portable one.
 *
 * Inline, as compilers that optimise for size would not; additions and chords in assembly. A saturated negative pre-activation
 * may be INT32_MIN here: nothing that reads one tells it from -INT32_MAX, as magnitudes are clipped before they are used.
 * GNU C: gcc, clang. Neighbours: rtcore_fixed.h (includes it; the number domains), rtcore_wide.h (products), rtcore_sigma.c
 * (the table).
 */
#ifndef RTCORE_CORE_H
#define RTCORE_CORE_H

/* Before functions that a core wants inlined, or with their registers to themselves. */
#define RTCORE_INLINE static inline __attribute__((always_inline))
#define RTCORE_OUTLINE __attribute__((noinline))

/* The two halves of a pre-activation meet: (a + b) * 2^shift, saturated. shift 0..31 */
RTCORE_INLINE int32_t rtcore_meet(int32_t a, int32_t b, int shift) {
    int32_t sum;
    __asm__(".syntax unified\n\t"
            "adds %0, %1, %2\n\t"
            "bvc 1f\n\t"
            "asrs %0, %0, #31\n\t"
            "lsrs %0, %0, #1\n\t"
            "bne 1f\n\t"
            "movs %0, #1\n\t"
            "lsls %0, %0, #31\n\t"
            "1:"
            : "=&l"(sum)
            : "l"(a), "l"(b)
            : "cc");
    const int32_t limit = INT32_MAX >> shift;
    return shift == 0 ? sum : sum > limit ? INT32_MAX : sum < -limit ? -INT32_MAX : sum * (int32_t)(1U << shift);
}

/* sigma(-|a| * 2^(16 - bits)): T[i] + (T[i+1] - T[i]) * f / 2^bits rounded half up, with i and f what is above and below the
 * lowest bits of |a|; from 16 on the last node, which is also where the last chord ends. The difference goes in two halves, and
 * rounding is the carry that a shift leaves. lowest: f of |a| in %3. */
#define RTCORE_CHORD(a, bits, lowest)                                                                                  \
    int32_t y, high, low;                                                                                              \
    uint32_t f;                                                                                                        \
    __asm__(".syntax unified\n\t"                                                                                      \
            "asrs %0, %4, #31\n\t"                                                                                     \
            "adds %3, %4, %0\n\t"                                                                                      \
            "eors %3, %0\n\t"                                                                                          \
            "lsrs %0, %3, #(10 + " bits ")\n\t"                                                                        \
            "beq 1f\n\t"                                                                                               \
            "movs %3, #1\n\t"                                                                                          \
            "lsls %3, %3, #(10 + " bits ")\n\t"                                                                        \
            "subs %3, #1\n\t"                                                                                          \
            "1: lsrs %1, %3, #" bits "\n\t"                                                                            \
            "lsls %1, %1, #2\n\t"                                                                                      \
            "adds %1, %1, %5\n\t"                                                                                      \
            "ldr %0, [%1]\n\t"                                                                                         \
            "ldr %1, [%1, #4]\n\t" lowest "subs %1, %1, %0\n\t"                                                        \
            "uxth %2, %1\n\t"                                                                                          \
            "asrs %1, %1, #16\n\t"                                                                                     \
            "muls %2, %3, %2\n\t"                                                                                      \
            "muls %1, %3, %1\n\t"                                                                                      \
            "lsrs %2, %2, #16\n\t"                                                                                     \
            "adcs %1, %2\n\t"                                                                                          \
            "adds %0, %0, %1"                                                                                          \
            : "=&l"(y), "=&l"(high), "=&l"(low), "=&l"(f)                                                              \
            : "l"(a), "l"(rtcore_sigma_table)                                                                          \
            : "cc");                                                                                                   \
    return y

/* GATE: sigma(-|a|) of a PRE. sigmoid(a) is the gate for a < 0 and 1 - gate for a >= 0. */
RTCORE_INLINE int32_t rtcore_sigma(int32_t a) { RTCORE_CHORD(a, "16", "uxth %3, %3\n\t"); }

/* sigma(-2 |a|) of a PRE. */
RTCORE_INLINE int32_t rtcore_sigma_twice(int32_t a) {
    RTCORE_CHORD(a, "15", "lsls %3, %3, #17\n\tlsrs %3, %3, #16\n\t");
}

#endif
