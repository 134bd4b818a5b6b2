# crtcore_f32.pxd - csrc/rtcore_f32.h as Cython sees it: declarations alone. Neighbours: crtcore.pxd, the *_f32.pyx classes.

cdef extern from "rtcore_f32.h" nogil:
    enum:
        RTCORE_FUNCTIONS
        RTCORE_POOL_AVERAGE
        RTCORE_POOL_AVERAGE_OF_IN
        RTCORE_POOL_MAX

    ctypedef struct rtcore_lstm_f32:
        const float *bias
        const float *input_weights
        const float *recurrent_weights
        const float *projection_weights
        const float *peephole_weights
        int nb_inputs
        int nb_neurons
        int nb_outputs
        int coupled
        float gate_slope

    int rtcore_lstm_f32_check(const rtcore_lstm_f32 *lstm, int capacity)
    void rtcore_lstm_f32_step(const rtcore_lstm_f32 *lstm, float *cell, float *state, const float *input,
                              float *scratch)

    ctypedef struct rtcore_rnn_f32:
        const float *bias
        const float *input_weights
        const float *recurrent_weights
        int nb_inputs
        int nb_neurons
        int activation

    int rtcore_rnn_f32_check(const rtcore_rnn_f32 *rnn, int capacity)
    void rtcore_rnn_f32_step(const rtcore_rnn_f32 *rnn, float *state, const float *input, float *scratch)

    ctypedef struct rtcore_window_f32:
        int height, width
        int out_height, out_width
        int kernel_y, kernel_x
        int stride_y, stride_x
        int pad_y, pad_x
        int dilation_y, dilation_x

    ctypedef struct rtcore_conv_f32:
        const float *bias
        const float *weights
        rtcore_window_f32 window
        int in_channels
        int out_channels
        int groups
        int activation

    int rtcore_conv_f32_check(const rtcore_conv_f32 *conv)
    void rtcore_conv_f32_step(const rtcore_conv_f32 *conv, float *output, const float *input)
    void rtcore_conv_f32_stream(const rtcore_conv_f32 *conv, float *history, float *output, const float *input)

    ctypedef struct rtcore_pool_f32:
        rtcore_window_f32 window
        int channels
        int kind

    int rtcore_pool_f32_check(const rtcore_pool_f32 *pool)
    void rtcore_pool_f32_step(const rtcore_pool_f32 *pool, float *output, const float *input)

    void rtcore_softmax_f32(float *output, const float *input, int n)
    void rtcore_log_softmax_f32(float *output, const float *input, int n)
    void rtcore_layernorm_f32(float *output, const float *input, const float *weight, const float *bias, int n,
                              float epsilon)
    void rtcore_affine_f32(float *output, const float *input, const float *scale, const float *offset, int n)
    void rtcore_prelu_f32(float *output, const float *input, const float *slope, int stride, int n)
    void rtcore_clamp_f32(float *output, const float *input, int n, float low, float high)
    void rtcore_function_f32(float *output, const float *input, int n, int function, float a, float b, float c)
