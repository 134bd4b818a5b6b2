/* rtcore_wide.h - products and shifts of 64-bit numbers in 32-bit halves, for cores without long shifts or long products, in
 * place of the portable one.
 * Neighbours: rtcore_fixed.h (includes it; the number domains). */
#ifndef RTCORE_WIDE_H
#define RTCORE_WIDE_H

/* acc * mult / 2^shift rounded half up, saturated to PRE. mult 1..32767, shift 0..62. Two products: the upper half's may go
 * up by 16 - shift bits, and where that could leave 2^30 the sum of both is looked at before it does. */
static inline int32_t rtcore_requantize_product(int32_t acc, int16_t mult, int shift) {
    const int32_t upper = rtcore_asr32(acc, 16) * mult;
    const uint32_t lower = ((uint32_t)acc & 65535U) * (uint32_t)mult;
    if (shift > 16) {
        return shift > 47 ? 0 : rtcore_asr32(upper + (1 << (shift - 17)) + (int32_t)(lower >> 16), shift - 16);
    }
    const int32_t limit = 1 << 14 << shift;
    if (shift > 0 && upper < limit && upper > -limit) {
        return upper * (1 << (16 - shift)) + (int32_t)((lower + (1U << (shift - 1))) >> shift);
    }
    const int up = 16 - shift;
    const int32_t most = INT32_MAX >> up, whole = upper + (int32_t)(lower >> 16);     /* the product / 2^16 */
    const int32_t rest = (int32_t)(((lower & 65535U) + (1U << shift >> 1)) >> shift); /* 0..2^up */
    if (whole > most || (whole == most && rest == 1 << up)) {
        return INT32_MAX;
    }
    if (whole < -most - 1 || (whole == -most - 1 && rest == 0)) {
        return -INT32_MAX;
    }
    return (int32_t)((uint32_t)whole << up) + rest;
}

/* s becomes the high word of s * v, s a GATE: four products of signed halves, of which the middle two and what is below them
 * stay within int32. carry: "adcs" to round half up, "adds" not to. GNU C: gcc, clang. */
#define RTCORE_HIGH_PRODUCT(s, v, carry)                                                                               \
    int32_t s_low, v_low, middle;                                                                                      \
    __asm__(".syntax unified\n\t"                                                                                      \
            "movs %2, #0\n\t"                                                                                          \
            "sxth %0, %3\n\t"                                                                                          \
            "sxth %1, %4\n\t"                                                                                          \
            "asrs %3, %3, #16\n\t"                                                                                     \
            "adcs %3, %2\n\t"                                                                                          \
            "asrs %4, %4, #16\n\t"                                                                                     \
            "adcs %4, %2\n\t"                                                                                          \
            "movs %2, %0\n\t"                                                                                          \
            "muls %2, %1, %2\n\t"                                                                                      \
            "muls %0, %4, %0\n\t"                                                                                      \
            "muls %1, %3, %1\n\t"                                                                                      \
            "muls %3, %4, %3\n\t"                                                                                      \
            "asrs %2, %2, #16\n\t"                                                                                     \
            "adds %2, %2, %0\n\t"                                                                                      \
            "adds %2, %2, %1\n\t"                                                                                      \
            "asrs %2, %2, #16\n\t" carry " %3, %2"                                                                     \
            : "=&l"(s_low), "=&l"(v_low), "=&l"(middle), "+&l"(s), "+&l"(v)                                            \
            :                                                                                                          \
            : "cc")

/* s * v / 2^32 rounded half up, s a GATE, v any int32 */
static inline int32_t rtcore_gate_mul(int32_t s, int32_t v) {
    RTCORE_HIGH_PRODUCT(s, v, "adcs");
    return s;
}

/* s * v, exact: s a GATE, |v| at most 2^30 */
static inline int64_t rtcore_gate_product(int32_t s, int32_t v) {
    const uint32_t low = (uint32_t)s * (uint32_t)v;
    RTCORE_HIGH_PRODUCT(s, v, "adds");
    return (int64_t)((uint64_t)(uint32_t)s << 32 | low);
}

#endif
