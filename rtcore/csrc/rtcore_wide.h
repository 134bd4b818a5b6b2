/* rtcore_wide.h - products and shifts of 64 bits, for compilers and cores that have them.
 *
 * A core may bring its own rtcore_wide.h (csrc/<core>/), which gives the same numbers in 32-bit halves. Neighbours:
 * rtcore_fixed.h (includes it; the number domains), rtcore_product.h.
 */
#ifndef RTCORE_WIDE_H
#define RTCORE_WIDE_H

#include "rtcore_product.h"

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
