/* rtcore_wide.h - products and shifts of 64 bits, for compilers and cores that have them.
 *
 * A core may bring its own rtcore_wide.h (csrc/<core>/), which gives the same numbers in 32-bit halves. Neighbours:
 * rtcore_fixed.h (includes it; the number domains).
 */
#ifndef RTCORE_WIDE_H
#define RTCORE_WIDE_H

/* floor(acc / 2^shift), saturated to PRE: an accumulator with its rounding half included. shift 0..62 */
static inline int32_t rtcore_requantize(int64_t acc, int shift) { return rtcore_sat32(rtcore_asr64(acc, shift)); }

/* acc * mult / 2^shift rounded half up, saturated to PRE. mult 1..32767, shift 0..62. The usual shifts take the row from two
 * words: a shift of 64 bits by a variable is long where it is no instruction. */
static inline int32_t rtcore_requantize_product(int32_t acc, int16_t mult, int shift) {
    const int64_t product = (int64_t)acc * mult;
    if (shift < 1 || shift > 31) {
        return rtcore_sat32(rtcore_rshift_round(product, shift));
    }
    const int64_t rounded = product + (int64_t)(1U << (shift - 1));
    const int32_t high = (int32_t)rtcore_asr64(rounded, 32);
    const int32_t row = (int32_t)(((uint32_t)rounded >> shift) + ((uint32_t)high << (32 - shift)));
    if (rtcore_asr32(high, shift) != rtcore_asr32(row, 31) || row == INT32_MIN) {
        RTCORE_ON_SATURATE();
        return high < 0 ? -INT32_MAX : INT32_MAX;
    }
    return row;
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
