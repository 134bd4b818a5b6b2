/* rtcore_sums4.c - exact sums of four rows for Cortex-M55: a row in each lane of a vector, two columns at a time.
 *
 * For matrices that no stream holds. The products of two columns fit int32 (|w| <= 32767); 64-bit sums are kept as the sum
 * of their upper and the sum of their lower halves, n up to 2^17. Neighbours: rtcore_sums4.h (the layout of w).
 */
#include "rtcore_sums4.h"

#include <arm_mve.h>

/* [4 rows][2 columns] of a pair of columns, as int16 */
static inline int16x8_t weights_w16(const int16_t *w) { return vld1q_s16(w); }

static inline int16x8_t weights_w8(const int8_t *w) {
    static const uint16_t columns_of_rows[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    return vldrbq_gather_offset_s16(w, vld1q_u16(columns_of_rows));
}

/* The products of a pair of columns, both together; of the last one of an odd number where `columns` is 1 */
static inline int32x4_t products(int16x8_t w, const int16_t *x, int columns) {
    static const uint16_t both[8] = {0, 1, 0, 1, 0, 1, 0, 1}, one[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    const int16x8_t pairs = vldrhq_gather_shifted_offset_s16(x, vld1q_u16(columns > 1 ? both : one));
    const int32x4_t left = vmullbq_int_s16(w, pairs);
    return columns > 1 ? vaddq_s32(left, vmulltq_int_s16(w, pairs)) : left;
}

/* high, low: sums of the upper and of the lower halves of products */
static inline void add_halves(int64_t *acc, int32x4_t high, uint32x4_t low) {
    int32_t upper[4];
    uint32_t lower[4];
    vst1q_s32(upper, high);
    vst1q_u32(lower, low);
    for (int k = 0; k < 4; k++) {
        acc[k] += (int64_t)upper[k] * 65536 + lower[k];
    }
}

#define RTCORE_SUMS4_A32(name, weight, weights)                                                                        \
    void name(const weight *w, const int16_t *x, int n, int32_t *acc) {                                                \
        int32x4_t sum = vld1q_s32(acc);                                                                                \
        for (int pairs = n / 2; pairs > 0; pairs--, w += 8, x += 2) {                                                  \
            sum = vaddq_s32(sum, products(weights(w), x, 2));                                                          \
        }                                                                                                              \
        if (n & 1) {                                                                                                   \
            sum = vaddq_s32(sum, products(weights(w), x, 1));                                                          \
        }                                                                                                              \
        vst1q_s32(acc, sum);                                                                                           \
    }

#define RTCORE_SUMS4_A64(name, weight, weights)                                                                        \
    void name(const weight *w, const int16_t *x, int n, int64_t *acc) {                                                \
        const int32x4_t odd = n & 1 ? products(weights(w + 8 * (n / 2)), x + n - 1, 1) : vdupq_n_s32(0);               \
        int32x4_t high = vshrq_n_s32(odd, 16);                                                                         \
        uint32x4_t low = vmovlbq_u16(vreinterpretq_u16_s32(odd));                                                      \
        for (int pairs = n / 2; pairs > 0; pairs--, w += 8, x += 2) {                                                  \
            const int32x4_t p = products(weights(w), x, 2);                                                            \
            high = vaddq_s32(high, vshrq_n_s32(p, 16));                                                                \
            low = vaddq_u32(low, vmovlbq_u16(vreinterpretq_u16_s32(p)));                                               \
        }                                                                                                              \
        add_halves(acc, high, low);                                                                                    \
    }

RTCORE_SUMS4_A32(rtcore_sums4_w8_a32, int8_t, weights_w8)
RTCORE_SUMS4_A64(rtcore_sums4_w8_a64, int8_t, weights_w8)
RTCORE_SUMS4_A32(rtcore_sums4_w16_a32, int16_t, weights_w16)
RTCORE_SUMS4_A64(rtcore_sums4_w16_a64, int16_t, weights_w16)

int rtcore_sums4_takes(const void *w) {
    (void)w;
    return 1;
}
