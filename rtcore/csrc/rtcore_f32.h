/* rtcore_f32.h - float32 layers beside the family's Dense and GRU (rtcore.h): LSTM, RNN, convolution, pooling,
 * normalizations and functions.
 *
 * Same manner as rtcore.h: const tables, the caller's state and scratch, a *_step() that cannot fail, a *_check() once.
 * Weights are column-major, [inputs][outputs], gates in torch's order; windows have their channels last. Sums start at
 * the bias and take their terms in order (SPEC.md 9). NaN in gives NaN out. No libm.
 * Neighbours: rtcore_math_f32.h (the primitives), rtcore_<family>_f32.c (one family each).
 */
#ifndef RTCORE_F32_H
#define RTCORE_F32_H

#include "rtcore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------------------- recurrent -- */

/* Long short-term memory: the forms of rtcore_lstm_i16. G is 4 gates, i f g o; coupled (f = 1 - i) 3, i g o. */
typedef struct {
    const float *bias;               /* f32 [GN] */
    const float *input_weights;      /* f32 [nb_inputs][GN] */
    const float *recurrent_weights;  /* f32 [nb_outputs][GN] */
    const float *projection_weights; /* f32 [N][nb_outputs]; NULL: there is none, nb_outputs is N */
    const float *peephole_weights;   /* f32 [(G - 1)N], i f o or i o; NULL: there are none */
    int nb_inputs;
    int nb_neurons; /* N */
    int nb_outputs;
    int coupled;      /* 1: f = 1 - i */
    float gate_slope; /* 0: i, f and o are sigmoids; else hard ones, slope * x + 1/2 within 0..1 */
} rtcore_lstm_f32;

/* capacity: neurons that the scratch has room for (4 floats each). */
int rtcore_lstm_f32_check(const rtcore_lstm_f32 *lstm, int capacity);
/* cell: f32 [N]; state: f32 [nb_outputs], the output; both read and replaced. scratch: f32 [4N]. */
void rtcore_lstm_f32_step(const rtcore_lstm_f32 *lstm, float *cell, float *state, const float *input, float *scratch);

/* h' = act(W x + R h + b) */
typedef struct {
    const float *bias;              /* f32 [N] */
    const float *input_weights;     /* f32 [nb_inputs][N] */
    const float *recurrent_weights; /* f32 [N][N] */
    int nb_inputs;
    int nb_neurons; /* N */
    int activation;
} rtcore_rnn_f32;

/* capacity: neurons that the scratch has room for (1 float each). */
int rtcore_rnn_f32_check(const rtcore_rnn_f32 *rnn, int capacity);
/* state: f32 [N], read and replaced: it is the output. scratch: f32 [N]. */
void rtcore_rnn_f32_step(const rtcore_rnn_f32 *rnn, float *state, const float *input, float *scratch);

/* ----------------------------------------------------------------------------------------------------- windows -- */

/* Where a kernel reads: output (y, x) begins at input (y * stride_y - pad_y, x * stride_x - pad_x) and takes every
 * dilation-th element. One axis: height 1, kernel_y 1. What lies outside of the input is padding. */
typedef struct {
    int height, width;         /* of the input */
    int out_height, out_width; /* their choice is the caller's: padding behind and ceil_mode are in it */
    int kernel_y, kernel_x;
    int stride_y, stride_x;
    int pad_y, pad_x; /* before the first element */
    int dilation_y, dilation_x;
} rtcore_window_f32;

/* Convolution (cross-correlation, as torch's); padding counts as zeros. */
typedef struct {
    const float *bias;    /* f32 [out_channels] */
    const float *weights; /* f32 [kernel_y][kernel_x][in_channels / groups][out_channels] */
    rtcore_window_f32 window;
    int in_channels;
    int out_channels;
    int groups; /* divides both */
    int activation;
} rtcore_conv_f32;

int rtcore_conv_f32_check(const rtcore_conv_f32 *conv);
/* output: f32 [out_height][out_width][out_channels]; input: f32 [height][width][in_channels]; they must not overlap. */
void rtcore_conv_f32_step(const rtcore_conv_f32 *conv, float *output, const float *input);
/* The same over a stream of frames, for a window of one axis and one output, without padding: width is what its kernel
 * spans. history: f32 [width][in_channels], the last frames, oldest first, zeros at first; input: f32 [in_channels]. */
void rtcore_conv_f32_stream(const rtcore_conv_f32 *conv, float *history, float *output, const float *input);

#define RTCORE_POOL_MAX 0           /* padding is never the largest */
#define RTCORE_POOL_AVERAGE 1       /* over the kernel's elements, padding of pad_y, pad_x on both sides included */
#define RTCORE_POOL_AVERAGE_OF_IN 2 /* over the elements of the input */

typedef struct {
    rtcore_window_f32 window; /* every kernel takes an element of the input; an average has no dilation */
    int channels;
    int kind; /* RTCORE_POOL_* */
} rtcore_pool_f32;

int rtcore_pool_f32_check(const rtcore_pool_f32 *pool);
/* output: f32 [out_height][out_width][channels]; input: f32 [height][width][channels]; they must not overlap. */
void rtcore_pool_f32_step(const rtcore_pool_f32 *pool, float *output, const float *input);

/* ---------------------------------------------------------------------------------- vectors; output may be input -- */

/* Over a vector of n: exp(x - ln(sum of exp(x))), and x - ln(sum of exp(x)). */
void rtcore_softmax_f32(float *output, const float *input, int n);
void rtcore_log_softmax_f32(float *output, const float *input, int n);
/* (x - mean) / sqrt(variance + epsilon) * weight + bias; weight, bias: f32 [n] */
void rtcore_layernorm_f32(float *output, const float *input, const float *weight, const float *bias, int n,
                          float epsilon);

/* scale * x + offset; f32 [n] each */
void rtcore_affine_f32(float *output, const float *input, const float *scale, const float *offset, int n);
/* x for x >= 0, slope * x else; slope: f32 [n], or with stride 0 [1]. abs has slope -1. */
void rtcore_prelu_f32(float *output, const float *input, const float *slope, int stride, int n);
/* x within low..high */
void rtcore_clamp_f32(float *output, const float *input, int n, float low, float high);

/* y = f(x), element by element; a, b, c are the function's constants, unused where none are named. Accuracy, relative to
 * y unless said otherwise; outside of its domain a function gives NaN or, at its end, infinity. */
#define RTCORE_FUNCTION_EXP 0           /* 1.2e-7 */
#define RTCORE_FUNCTION_EXPM1 1         /* 5e-7 */
#define RTCORE_FUNCTION_LOG 2           /* 2e-7 */
#define RTCORE_FUNCTION_LOG1P 3         /* 4e-7 */
#define RTCORE_FUNCTION_SQRT 4          /* correctly rounded */
#define RTCORE_FUNCTION_RSQRT 5         /* 1.2e-7 */
#define RTCORE_FUNCTION_RECIPROCAL 6    /* correctly rounded */
#define RTCORE_FUNCTION_SIN 7           /* |x| <= 6000, NaN beyond; 1.5e-7 absolute */
#define RTCORE_FUNCTION_COS 8           /* the same */
#define RTCORE_FUNCTION_ATAN 9          /* 3e-7 */
#define RTCORE_FUNCTION_ERF 10          /* 3e-7 */
#define RTCORE_FUNCTION_SOFTPLUS 11     /* ln(1 + e^(a x)) / a, x where a x > b; 5e-7 */
#define RTCORE_FUNCTION_LOG_SIGMOID 12  /* 5e-7 */
#define RTCORE_FUNCTION_SOFTSIGN 13     /* x / (1 + |x|); 2e-7 */
#define RTCORE_FUNCTION_SILU 14         /* x sigmoid(x); 4e-7 */
#define RTCORE_FUNCTION_MISH 15         /* x tanh(ln(1 + e^x)); 6e-7 */
#define RTCORE_FUNCTION_ELU 16          /* b x for x > 0, a b (e^(c x) - 1) else (SELU, CELU too); 7e-7 */
#define RTCORE_FUNCTION_GELU 17         /* x Phi(x); 7e-7 */
#define RTCORE_FUNCTION_GELU_TANH 18    /* its tanh form; 3e-7 of |x| */
#define RTCORE_FUNCTION_HARD_SIGMOID 19 /* x / 6 + 1/2 within 0..1; 2e-7 absolute */
#define RTCORE_FUNCTION_HARD_SWISH 20   /* x hard_sigmoid(x); 2e-7 of |x| */
#define RTCORE_FUNCTIONS 21             /* their number */

void rtcore_function_f32(float *output, const float *input, int n, int function, float a, float b, float c);

#ifdef __cplusplus
}
#endif

#endif
