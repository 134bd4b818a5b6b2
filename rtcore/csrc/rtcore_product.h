/* rtcore_product.h - requantization of a 32-bit sum by a multiplier, for compilers and cores that have long products.
 *
 * A core may bring its own rtcore_product.h (csrc/<core>/), which gives the same numbers. Neighbours: rtcore_wide.h (includes
 * it).
 */
#ifndef RTCORE_PRODUCT_H
#define RTCORE_PRODUCT_H

/* acc * mult / 2^shift rounded half up, saturated to PRE. mult 1..32767, shift 0..62; the usual shifts take the short way */
static inline int32_t rtcore_requantize_product(int32_t acc, int16_t mult, int shift) {
    const int64_t product = (int64_t)acc * mult;
    return shift < 1 || shift > 31 ? rtcore_sat32(rtcore_rshift_round(product, shift))
                                   : rtcore_requantize(product + (int64_t)(1U << (shift - 1)), shift);
}

#endif
