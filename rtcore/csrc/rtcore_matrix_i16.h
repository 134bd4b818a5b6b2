/* rtcore_matrix_i16.h - the matrix-vector heart that dense and recurrent kernels share. Four rows at a time, so that a
 * kernel holds one block of rows and no array of sums. Neighbours: rtcore_dense_i16.c, rtcore_gru_i16.c. */
#ifndef RTCORE_MATRIX_I16_H
#define RTCORE_MATRIX_I16_H

#include "rtcore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* rows: i32 [4], the rows 4*group.. requantized (one rounding) and saturated to PRE. input: i16 [nb_inputs]. */
void rtcore_matrix_i16_rows4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int32_t *rows);

/* sums: i64 [4], the exact accumulators of the same rows before requantization: what the overflow proof is about. */
void rtcore_matrix_i16_sums4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int64_t *sums);

/* 0 or the first RTCORE_E_*. */
int rtcore_matrix_i16_check(const rtcore_matrix_i16 *matrix);

#ifdef __cplusplus
}
#endif

#endif
