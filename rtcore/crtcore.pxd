# crtcore.pxd - the C headers as Cython sees them. Nothing here but declarations: structs are the C structs themselves,
# so a class that embeds one mirrors the firmware's by identity.
# Neighbours: csrc/rtcore.h, csrc/rtcore_fixed.h, csrc/rtcore_matrix_i16.h, host/rtcore_host.h.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t

cdef extern from "rtcore_host.h":
    long rtcore_host_saturated  # thread-local: values clipped by more than one LSB since it was last set to 0

cdef extern from "rtcore.h" nogil:
    enum:
        RTCORE_MAX_NEURONS
        RTCORE_SPEC_VERSION
        RTCORE_ROWS

    ctypedef struct rtcore_matrix_i16:
        const int8_t *w8
        const int16_t *w16
        const int32_t *bias32
        const int64_t *bias64
        const int16_t *mult
        const uint8_t *shift
        int nb_inputs
        int nb_rows
        const int32_t *stream
        int form
        int stride

    ctypedef struct rtcore_dense_i16:
        rtcore_matrix_i16 matrix
        int nb_inputs
        int nb_neurons
        int activation

    int rtcore_dense_i16_check(const rtcore_dense_i16 *layer)
    void rtcore_dense_i16_step(const rtcore_dense_i16 *layer, int16_t *output, const int16_t *input, int32_t *rows)

    ctypedef struct rtcore_window:
        int in_h
        int in_w
        int out_h
        int out_w
        int kernel_h
        int kernel_w
        int stride_h
        int stride_w
        int dilation_h
        int dilation_w
        int pad_h
        int pad_w

    ctypedef struct rtcore_conv_i16:
        rtcore_window window
        rtcore_matrix_i16 matrix
        int nb_inputs
        int nb_neurons
        int groups
        int activation

    int rtcore_conv_i16_check(const rtcore_conv_i16 *conv, int capacity)
    void rtcore_conv_i16_step(const rtcore_conv_i16 *conv, int16_t *output, const int16_t *input, int32_t *rows,
                              int16_t *scratch)

    ctypedef struct rtcore_depthwise_i16:
        rtcore_window window
        const int8_t *w8
        const int16_t *w16
        const int32_t *bias32
        const int64_t *bias64
        const int16_t *mult
        const uint8_t *shift
        int nb_inputs
        int nb_neurons
        int multiplier
        int activation

    int rtcore_depthwise_i16_check(const rtcore_depthwise_i16 *layer)
    void rtcore_depthwise_i16_step(const rtcore_depthwise_i16 *layer, int16_t *output, const int16_t *input)

    ctypedef struct rtcore_pool_i16:
        rtcore_window window
        const int32_t *mult
        int n
        int largest
        int count_pad
        int shift

    int rtcore_pool_i16_check(const rtcore_pool_i16 *pool)
    void rtcore_pool_i16_step(const rtcore_pool_i16 *pool, int16_t *output, const int16_t *input)

    ctypedef struct rtcore_gru_i16:
        rtcore_matrix_i16 input
        rtcore_matrix_i16 recurrent
        int nb_inputs
        int nb_neurons
        int activation
        int reset_after
        int gate_shift
        int candidate_shift
        int state_frac
        int gate_slope

    int rtcore_gru_i16_check(const rtcore_gru_i16 *gru, int capacity)
    void rtcore_gru_i16_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                             int32_t *rows)
    void rtcore_gru_i16_before_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                                    int32_t *rows, int16_t *scratch)

    ctypedef struct rtcore_lstm_i16:
        rtcore_matrix_i16 input
        rtcore_matrix_i16 recurrent
        rtcore_matrix_i16 projection
        const int16_t *peephole_weights
        const uint8_t *peephole_shift
        int nb_inputs
        int nb_neurons
        int nb_outputs
        int coupled
        int gate_shift
        int cell_frac
        int state_frac
        int gate_slope

    int rtcore_lstm_i16_check(const rtcore_lstm_i16 *lstm, int capacity)
    void rtcore_lstm_i16_step(const rtcore_lstm_i16 *lstm, int32_t *cell, int16_t *view, const int16_t *input,
                              int32_t *rows, int16_t *scratch)

    ctypedef struct rtcore_rnn_i16:
        rtcore_matrix_i16 input
        rtcore_matrix_i16 recurrent
        int nb_inputs
        int nb_neurons
        int activation
        int shift
        int state_frac

    int rtcore_rnn_i16_check(const rtcore_rnn_i16 *rnn, int capacity)
    void rtcore_rnn_i16_step(const rtcore_rnn_i16 *rnn, int16_t *view, const int16_t *input, int32_t *rows,
                             int16_t *scratch)

    void rtcore_state_i16_set(int32_t *wide, int16_t *view, const int16_t *values, int n)
    void rtcore_state_i16_view(int16_t *output, const int32_t *wide, int n)
    void rtcore_delay_i16(int16_t *view, const int16_t *input, int n, int frames)

    void rtcore_activation_i16(int16_t *output, const int16_t *input, int n, int activation, int shift)
    void rtcore_add_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n,
                        int shift_a, int shift_b, int sign_b, int shift)
    void rtcore_mul_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n,
                        int shift)
    void rtcore_affine_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                           const uint8_t *shift, int n)
    void rtcore_rescale_i16(int16_t *output, const int16_t *input, int n, int shift)
    void rtcore_table_i16(int16_t *output, const int16_t *input, int n, const int32_t *nodes, int step, int shift)
    void rtcore_clamp_i16(int16_t *output, const int16_t *input, int n, int low, int high)
    void rtcore_prelu_i16(int16_t *output, const int16_t *input, const int16_t *mult, const uint8_t *shift, int stride,
                          int n, int shift_positive)
    void rtcore_minmax_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n,
                           int shift_a, int shift_b, int largest, int shift)
    void rtcore_sqrt_i16(int16_t *output, const int16_t *input, int n, int shift)
    void rtcore_softmax_i16(int16_t *output, const int16_t *input, int n, int frac)
    void rtcore_log_softmax_i16(int16_t *output, const int16_t *input, int n, int frac, int shift)
    void rtcore_layernorm_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                              const uint8_t *shift, int n, int64_t epsilon)

    void rtcore_copy_i16(int16_t *output, const int16_t *input, int start, int n0, int n1, int n2, int n3, int s0,
                         int s1, int s2, int s3)
    void rtcore_fill_i16(int16_t *output, int n, int value)
    void rtcore_embedding_i16(int16_t *output, const int16_t *input, const int16_t *table, int n, int entries)

    ctypedef struct rtcore_dense_f32:
        const float *bias
        const float *input_weights
        int nb_inputs
        int nb_neurons
        int activation

    int rtcore_dense_f32_check(const rtcore_dense_f32 *layer)
    void rtcore_dense_f32_step(const rtcore_dense_f32 *layer, float *output, const float *input)

    ctypedef struct rtcore_gru_f32:
        const float *bias
        const float *input_weights
        const float *recurrent_weights
        int nb_inputs
        int nb_neurons
        int activation
        int reset_after

    int rtcore_gru_f32_check(const rtcore_gru_f32 *gru, int capacity)
    void rtcore_gru_f32_gated(const rtcore_gru_f32 *gru, float gate_slope, float *state, const float *input,
                              float *scratch)
    void rtcore_activation_f32(float *output, const float *input, int n, int activation)

cdef extern from "rtcore_fixed.h" nogil:
    enum:
        RTCORE_STATE_ONE
    int16_t rtcore_view(int32_t state)
    int32_t rtcore_sigma(int32_t a)
    int32_t rtcore_hard_sigma(int32_t a, int32_t slope)
    int32_t rtcore_tanh(int32_t a)
    int16_t rtcore_sigmoid_q15(int32_t a)
    int16_t rtcore_tanh_q15(int32_t a)

cdef extern from "rtcore_matrix_i16.h" nogil:
    int rtcore_matrix_i16_check(const rtcore_matrix_i16 *matrix)
    void rtcore_matrix_i16_sums4(const rtcore_matrix_i16 *matrix, int group, const int16_t *input, int64_t *sums)
    void rtcore_matrix_i16_rows(const rtcore_matrix_i16 *matrix, int group, int count, const int16_t *input,
                                int32_t *rows)
