/* rtcore_sums4.h - the innermost loop of every matrix of tables: four rows of products added to four accumulators, exactly.
 *
 * A core may bring its own rtcore_sums4.c (csrc/<core>/), which sums in another order, never to another number: no sum
 * can overflow (SPEC.md 3), so addition is associative. Neighbours: rtcore_matrix_i16.c (calls it), rtcore/packing.py
 * (the layout of w).
 */
#ifndef RTCORE_SUMS4_H
#define RTCORE_SUMS4_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* acc[k] += sum over n columns of w[k][c] * x[c], k = 0..3.
 * w: i16 [columns/2][4 rows][2 columns], or i8 [columns/2][2 row pairs][2 columns][2 rows]; x: i16 [n]. */
void rtcore_sums4_w8_a32(const int8_t *w, const int16_t *x, int n, int32_t *acc);
void rtcore_sums4_w8_a64(const int8_t *w, const int16_t *x, int n, int64_t *acc);
void rtcore_sums4_w16_a32(const int16_t *w, const int16_t *x, int n, int32_t *acc);
void rtcore_sums4_w16_a64(const int16_t *w, const int16_t *x, int n, int64_t *acc);

#ifdef __cplusplus
}
#endif

#endif
