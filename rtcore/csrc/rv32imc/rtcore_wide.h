/* rtcore_wide.h - shifts of 64-bit numbers in 32-bit halves, for RISC-V, which has long products (MULH) and no long shifts, in
 * place of the portable one.
 * Neighbours: rtcore_fixed.h (includes it; the number domains). */
#ifndef RTCORE_WIDE_H
#define RTCORE_WIDE_H

/* floor(acc / 2^shift), saturated to PRE: an accumulator with its rounding half included. shift 0..62, |acc| below 2^62 */
static inline int32_t rtcore_requantize(int64_t acc, int shift) {
    const int32_t high = (int32_t)rtcore_asr64(acc, 32);
    if (shift >= 32) {
        return rtcore_asr32(high, shift - 32);
    }
    const int32_t row = (int32_t)((uint32_t)acc >> shift | (uint32_t)high << 1 << (31 - shift));
    if (rtcore_asr32(high, shift) != rtcore_asr32(row, 31) || row == INT32_MIN) {
        RTCORE_ON_SATURATE();
        return high < 0 ? -INT32_MAX : INT32_MAX;
    }
    return row;
}

/* acc * mult / 2^shift rounded half up, saturated to PRE. mult 1..32767, shift 0..62 */
static inline int32_t rtcore_requantize_product(int32_t acc, int16_t mult, int shift) {
    const int64_t product = (int64_t)acc * mult;
    return shift > 47 ? 0
                      : rtcore_requantize(
                            product + (shift > 32 ? (int64_t)(1U << (shift - 33)) << 32 : 1U << shift >> 1), shift);
}

/* s * v / 2^32 rounded half up, s a GATE, v any int32 */
static inline int32_t rtcore_gate_mul(int32_t s, int32_t v) {
    return (int32_t)rtcore_asr64((int64_t)s * v + 2147483648LL, 32);
}

/* s * v, exact: s a GATE, |v| at most 2^30 */
static inline int64_t rtcore_gate_product(int32_t s, int32_t v) { return (int64_t)s * v; }

/* node - drop * f / 2^16 rounded half up; drop below 2^25, f below 2^16 */
static inline int32_t rtcore_interpolate(int32_t node, int32_t drop, uint32_t f) {
    return node + (int32_t)rtcore_asr64((int64_t)(-2 * drop) * (int32_t)(f << 15) + 2147483648LL, 32);
}

#endif
