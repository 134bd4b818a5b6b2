/* rtcore_product.h - requantization of a 32-bit sum by a multiplier, for compilers and cores that have long products.
 *
 * A core may bring its own rtcore_product.h (csrc/<core>/), which gives the same numbers. Neighbours: rtcore_wide.h (includes
 * it).
 */
#ifndef RTCORE_PRODUCT_H
#define RTCORE_PRODUCT_H

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

#endif
