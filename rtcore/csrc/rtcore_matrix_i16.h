/* rtcore_matrix_i16.h - the matrix-vector heart that dense and recurrent kernels share. Groups of four rows, so that a
 * kernel holds one block of rows and no array of sums.
 * Neighbours: rtcore_stream_i16.c (a core's own rows), rtcore_dense_i16.c, rtcore_gru_i16.c. */
#ifndef RTCORE_MATRIX_I16_H
#define RTCORE_MATRIX_I16_H

#include "rtcore.h"
#include "rtcore_fixed.h"

#ifdef __cplusplus
extern "C" {
#endif

/* rows: i32 [4 * count], the rows 4*group.. requantized (one rounding) and saturated to PRE. input: i16 [nb_inputs]. */
void rtcore_matrix_i16_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input, int32_t *rows);

/* The same of a matrix that is packed as tables: no stream. */
void rtcore_matrix_i16_tables_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input,
                                   int32_t *rows);

/* sums: i64 [4], the exact accumulators of the same rows before requantization: what the overflow proof is about. */
void rtcore_matrix_i16_sums4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int64_t *sums);

/* rows: i32 [4], sums requantized (one rounding) and saturated to PRE; shift and mult (or NULL): those of the four rows.
 * Without mult the rounding half is in the sums. */
void rtcore_requantize4_a32(const int32_t *sums, const int16_t *mult, const uint8_t *shift, int32_t *rows);
void rtcore_requantize4_a64(const int64_t *sums, const int16_t *mult, const uint8_t *shift, int32_t *rows);

/* Requantized rows to ACT: linear and ReLU in the output's format, sigmoid and tanh from PRE to Q0.15.
 * output: i16 [count]; rows: i32 [count] */
void rtcore_matrix_i16_activate(int16_t *output, const int32_t *rows, int count, int activation);

/* output: i16 [count], the first rows of a matrix, activated, as many a call as `rows` takes: i32 [count rounded up to 4, at
 * most RTCORE_ROWS]. */
static inline void rtcore_matrix_i16_neurons(const rtcore_matrix_i16 *matrix, int count, int activation,
                                             const int16_t *input, int32_t *rows, int16_t *output) {
    int group = 0;
    for (int left = count; left > 0; left -= RTCORE_ROWS) {
        const int some = left < RTCORE_ROWS ? left : RTCORE_ROWS;
        rtcore_matrix_i16_rows(matrix, group, (some + 3) / 4, input, rows);
        rtcore_matrix_i16_activate(output, rows, some, activation);
        output += RTCORE_ROWS;
        group += RTCORE_ROWS / 4;
    }
}

/* By how much the halves of an LSTM's gates go up where they meet: peepholes have done it already. */
static inline int rtcore_lstm_i16_shift(const rtcore_lstm_i16 *lstm) {
    return lstm->peephole_weights != 0 ? 0 : lstm->gate_shift;
}

/* 0 or the first RTCORE_E_*: whether this core reads the stream of a matrix that has one. */
int rtcore_matrix_i16_stream_check(const rtcore_matrix_i16 *matrix);

/* 0 or the first RTCORE_E_*. */
int rtcore_matrix_i16_check(const rtcore_matrix_i16 *matrix);

#ifdef __cplusplus
}
#endif

#endif
