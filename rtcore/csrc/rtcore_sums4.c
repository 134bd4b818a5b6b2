/* rtcore_sums4.c - exact sums of four rows in portable C. Neighbours: rtcore_sums4.h. */
#include "rtcore_sums4.h"

/* Two columns at a time: a pair of int16 products fits int32 (|w| <= 32767), so that a 64-bit accumulator costs one
 * widening per pair. a..h: where in the block of 8 weights the two columns of each row are. */
#define RTCORE_SUMS4(name, weight, accumulator, a, b, c, d, e, f, g, h)                                                \
    void name(const weight *w, const int16_t *x, int n, accumulator *acc) {                                            \
        accumulator a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];                                                \
        const int16_t *const end = x + (n & ~1);                                                                       \
        while (x != end) {                                                                                             \
            const int32_t x0 = x[0], x1 = x[1];                                                                        \
            a0 += w[a] * x0 + w[b] * x1;                                                                               \
            a1 += w[c] * x0 + w[d] * x1;                                                                               \
            a2 += w[e] * x0 + w[f] * x1;                                                                               \
            a3 += w[g] * x0 + w[h] * x1;                                                                               \
            w += 8;                                                                                                    \
            x += 2;                                                                                                    \
        }                                                                                                              \
        if (n & 1) {                                                                                                   \
            const int32_t x0 = x[0];                                                                                   \
            a0 += w[a] * x0;                                                                                           \
            a1 += w[c] * x0;                                                                                           \
            a2 += w[e] * x0;                                                                                           \
            a3 += w[g] * x0;                                                                                           \
        }                                                                                                              \
        acc[0] = a0;                                                                                                   \
        acc[1] = a1;                                                                                                   \
        acc[2] = a2;                                                                                                   \
        acc[3] = a3;                                                                                                   \
    }

RTCORE_SUMS4(rtcore_sums4_w8_a32, int8_t, int32_t, 0, 2, 1, 3, 4, 6, 5, 7)
RTCORE_SUMS4(rtcore_sums4_w8_a64, int8_t, int64_t, 0, 2, 1, 3, 4, 6, 5, 7)
RTCORE_SUMS4(rtcore_sums4_w16_a32, int16_t, int32_t, 0, 1, 2, 3, 4, 5, 6, 7)
RTCORE_SUMS4(rtcore_sums4_w16_a64, int16_t, int64_t, 0, 1, 2, 3, 4, 5, 6, 7)
