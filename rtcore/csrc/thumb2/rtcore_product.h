/* rtcore_product.h - requantization of a 32-bit sum by a multiplier for Cortex-M3, M4, M7, M33 and M55, in place of the portable one.
 *
 * LSRS leaves the bit that rounds in the carry. GNU C: gcc, clang. Neighbours: rtcore_wide.h (includes it).
 */
#ifndef RTCORE_PRODUCT_H
#define RTCORE_PRODUCT_H

/* acc * mult / 2^shift rounded half up, saturated to PRE. mult 1..32767, shift 0..62 */
static inline int32_t rtcore_requantize_product(int32_t acc, int16_t mult, int shift) {
    if (shift < 1 || shift > 31) {
        return rtcore_sat32(rtcore_rshift_round((int64_t)acc * mult, shift));
    }
    int32_t row, high, up;
    __asm__("smull %0, %1, %3, %4\n\t"
            "rsb %2, %5, #32\n\t"
            "lsrs %0, %0, %5\n\t"
            "lsl %2, %1, %2\n\t"
            "adcs %0, %0, %2\n\t"
            "asr %1, %1, %5\n\t"
            "adc %1, %1, #0"
            : "=&r"(row), "=&r"(high), "=&r"(up)
            : "r"(acc), "r"((int32_t)mult), "r"(shift)
            : "cc");
    if (high != rtcore_asr32(row, 31) || row == INT32_MIN) {
        return high < 0 ? -INT32_MAX : INT32_MAX;
    }
    return row;
}

#endif
