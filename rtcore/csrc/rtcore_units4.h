/* rtcore_units4.h - gates, activations and views of four units at once, for cores that have vectors.
 *
 * This is for those that have none: every function answers 0, and its caller goes on unit by unit. A core may bring its
 * own rtcore_units4.h (csrc/<core>/), which gives the same numbers and answers 1 where it has done the work.
 * Neighbours: rtcore_matrix_i16.c; rtcore_gru_i16.c, rtcore_lstm_i16.c, rtcore_rnn_i16.c (ask, where gates are sigmoids).
 */
#ifndef RTCORE_UNITS4_H
#define RTCORE_UNITS4_H

#include "rtcore_matrix_i16.h"

/* output: i16 [count], rtcore_matrix_i16_activate of rows: i32 [count rounded up to 4] */
static inline int rtcore_units4_activate(const int32_t *rows, int count, int activation, int16_t *output) {
    (void)rows, (void)count, (void)activation, (void)output;
    return 0;
}

/* view: i16 [n], rtcore_view of state: i32 [n] */
static inline int rtcore_units4_view(const int32_t *state, int n, int16_t *view) {
    (void)state, (void)n, (void)view;
    return 0;
}

/* A GRU's reset_after: states of at most four units move on. state: i32 [count]; rows: i32 [2][3][4], of the input and of
 * the recurrent matrix, z h r */
static inline int rtcore_units4_gru(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    (void)gru, (void)count, (void)state, (void)rows;
    return 0;
}

/* A GRU that resets before: states of at most four units as the candidate's matrix reads them. rows: i32 [2][4], of the
 * input and of the recurrent matrix; reset: i16 [count] */
static inline int rtcore_units4_gru_reset(const rtcore_gru_i16 *gru, int count, const int32_t *state,
                                          const int32_t *rows, int16_t *reset) {
    (void)gru, (void)count, (void)state, (void)rows, (void)reset;
    return 0;
}

/* The same: states move on. rows: i32 [2][2][4], of the input and of the recurrent matrix, z h */
static inline int rtcore_units4_gru_before(const rtcore_gru_i16 *gru, int count, int32_t *state, const int32_t *rows) {
    (void)gru, (void)count, (void)state, (void)rows;
    return 0;
}

/* An LSTM: the cells of at most four units from the first.. on move on. rows: i32 [2][4][4], of the input and of the recurrent
 * matrix, i f g o, or coupled i g o */
static inline int rtcore_units4_cells(const rtcore_lstm_i16 *lstm, int first, int32_t *cell, const int32_t *rows) {
    (void)lstm, (void)first, (void)cell, (void)rows;
    return 0;
}

/* The same: what they give out. */
static inline int rtcore_units4_outputs(const rtcore_lstm_i16 *lstm, int first, const int32_t *cell,
                                        const int32_t *rows, int16_t *hidden) {
    (void)lstm, (void)first, (void)cell, (void)rows, (void)hidden;
    return 0;
}

/* An RNN, tanh or ReLU: what at most four units come to, output: i16 [count]. rows: i32 [2][4], of the input and of the
 * recurrent matrix */
static inline int rtcore_units4_rnn(const rtcore_rnn_i16 *rnn, int count, const int32_t *rows, int16_t *output) {
    (void)rnn, (void)count, (void)rows, (void)output;
    return 0;
}

#endif
