/* rtcore.h - the layers: const tables in, one frame at a time through.
 *
 * What a firmware includes. SPEC.md fixes every number computed here; the structs below only name the tables.
 * Neighbours: rtcore_fixed.h (the integer primitives), rtcore_<kind>_<dtype>.c (one kernel each),
 * rtcore_lineage.h (the same float layers under the names of the RNNoise/Opus family).
 *
 * Three kinds of memory, never mixed: layer structs and what they point to are const (flash); a recurrent layer's
 * state is the caller's arrays; scratch is the caller's and holds nothing between calls. A *_step() cannot fail and
 * validates nothing; *_check() validates a layer once, when it is loaded, on host and MCU alike.
 *
 * Activations are int16 with one power-of-two format per tensor: value = raw * 2^-frac. All of -32768..32767 is legal.
 */
#ifndef RTCORE_H
#define RTCORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTCORE_SPEC_VERSION 1 /* of SPEC.md: the numbers and the table format */

/* Widest layer a build accepts; it sizes the scratch of recurrent layers (2 bytes a neuron for i16, 12 for f32).
 * The generated header sets it from the model; define it yourself to share one scratch between nets. */
#ifndef RTCORE_MAX_NEURONS
#define RTCORE_MAX_NEURONS 256
#endif

/* Fails to compile when the constant expression is 0 (strict C99 has no _Static_assert). */
#define RTCORE_STATIC_ASSERT(name, condition) typedef char rtcore_assert_##name[(condition) ? 1 : -1]

RTCORE_STATIC_ASSERT(int_holds_32_bits, sizeof(int) >= 4);

/* Activation of a layer, or of a GRU's candidate. */
#define RTCORE_ACTIVATION_LINEAR 0
#define RTCORE_ACTIVATION_SIGMOID 1
#define RTCORE_ACTIVATION_TANH 2
#define RTCORE_ACTIVATION_RELU 3

/* What a *_check() returns: 0, or the first thing that is wrong. */
#define RTCORE_OK 0
#define RTCORE_E_SHAPE (-1)    /* a size below 1, or a matrix or a window that does not match */
#define RTCORE_E_CAPACITY (-2) /* nb_neurons, or a patch, above the capacity that the caller's scratch was sized for */
#define RTCORE_E_ACTIVATION (-3) /* not one of RTCORE_ACTIVATION_* */
#define RTCORE_E_TABLE (-4)      /* a table is missing, or two where there must be one */
#define RTCORE_E_SHIFT (-5)      /* a shift or a multiplier outside its range */
#define RTCORE_E_WEIGHT (-6)     /* -32768 among int16 weights (the range is symmetric: -32767..32767) */

/* ------------------------------------------------------------------------------------------------ fixed point -- */

/* Rows of weights with bias and requantization: out[r] = requantize(bias[r] + sum_c w[r][c] * x[c]).
 * nb_rows is padded to a multiple of 4 with zero rows; columns are padded to even with zeros.
 * Weights are packed in groups of 4 rows, by column pairs; a core's own kernels may need them aligned to 4 bytes.
 * Exactly one of w8/w16 and exactly one of bias32/bias64 is set; the bias' width is the accumulator's width. */
typedef struct {
    const int8_t *w8;      /* i8  [nb_rows/4][columns/2][2 row pairs][2 columns][2 rows], -128..127, flash */
    const int16_t *w16;    /* i16 [nb_rows/4][columns/2][4 rows][2 columns], -32767..32767, flash */
    const int32_t *bias32; /* i32 [nb_rows], at the accumulator's scale; the plan has proven that no sum leaves int32 */
    const int64_t *bias64; /* i64 [nb_rows], at the accumulator's scale */
    const int16_t *mult;   /* i16 [nb_rows], 1..32767: out = (acc * mult + half) >> shift; NULL: mult is 1 and the
                              half is already in the bias: out = acc >> shift */
    const uint8_t *shift;  /* u8  [nb_rows], 0..62 (0..31 for bias32 without mult) */
    int nb_inputs;         /* columns before padding, 1.. */
    int nb_rows;           /* rows after padding, 4, 8, .. */
    const int32_t *stream; /* all of the above as a core's own kernels read it, flash; the tables are then NULL.
                              NULL for portable kernels */
    int form;              /* of the stream: RTCORE_STREAM_*, a width and what else holds */
    int stride;            /* bytes of the stream from group to group of four rows */
} rtcore_matrix_i16;

/* Widths of a stream's weights and sums; BOUNDED: no input can saturate a row; ONE_LESS: some weights are listed behind
 * their groups (rtcore_stream_i16.c of the core says how it lies). */
#define RTCORE_STREAM_W16_A64 1
#define RTCORE_STREAM_W8_A32 2
#define RTCORE_STREAM_BOUNDED 16
#define RTCORE_STREAM_ONE_LESS 32

/* `rows` of a *_step() is the part of its scratch that takes rows of its matrices: the caller's, so that no stack need hold
 * them. This is the most that any layer asks for. */
#define RTCORE_ROWS 32

/* y = activation(W x + b). Linear and ReLU leave in the format that the matrix requantizes to; sigmoid and tanh take
 * Q22 pre-activations from the matrix and leave in Q0.15. */
typedef struct {
    rtcore_matrix_i16 matrix; /* nb_rows = nb_neurons rounded up to 4 */
    int nb_inputs;
    int nb_neurons;
    int activation;
} rtcore_dense_i16;

int rtcore_dense_i16_check(const rtcore_dense_i16 *layer);
/* output: i16 [nb_neurons]; input: i16 [nb_inputs]; they must not overlap. rows: i32 [nb_neurons rounded up to 4, at most
 * RTCORE_ROWS]. */
void rtcore_dense_i16_step(const rtcore_dense_i16 *layer, int16_t *output, const int16_t *input, int32_t *rows);

/* How a kernel of kernel_h x kernel_w taps moves over an input of [in_h][in_w][channels], row-major, and gives an output
 * of [out_h][out_w][channels]. Tap (k, l) of output (i, j) reads input (i * stride_h - pad_h + k * dilation_h,
 * j * stride_w - pad_w + l * dilation_w); what it reads beyond the input is padding. In one dimension in_h, out_h and
 * kernel_h are 1. Every size is at most 2^24. */
typedef struct {
    int in_h;
    int in_w;
    int out_h; /* the padding after the input follows from it */
    int out_w;
    int kernel_h;
    int kernel_w;
    int stride_h;
    int stride_w;
    int dilation_h;
    int dilation_w;
    int pad_h; /* padding before the first row, 0.. */
    int pad_w;
} rtcore_window;

/* Convolution with zero padding: at every position y = activation(W patch + b), formats as rtcore_dense_i16's. Output
 * channel o of group g = o / (nb_neurons / groups) reads input channels g * nb_inputs / groups.. */
typedef struct {
    rtcore_window window;
    rtcore_matrix_i16 matrix; /* each group's nb_neurons / groups rows, rounded up to 4, of kernel_h * kernel_w *
                                 nb_inputs / groups columns: tap by tap, the group's channels innermost */
    int nb_inputs;            /* channels in */
    int nb_neurons;           /* channels out */
    int groups;               /* divides both */
    int activation;
} rtcore_conv_i16;

/* capacity: number of elements of the scratch that steps will be given. */
int rtcore_conv_i16_check(const rtcore_conv_i16 *conv, int capacity);
/* output: i16 [out_h][out_w][nb_neurons]; input: i16 [in_h][in_w][nb_inputs]; they must not overlap. rows: i32
 * [nb_neurons / groups rounded up to 4, at most RTCORE_ROWS]; scratch: i16 [kernel_h * kernel_w * nb_inputs / groups], which
 * may be NULL where every patch lies in one piece within the input. */
void rtcore_conv_i16_step(const rtcore_conv_i16 *conv, int16_t *output, const int16_t *input, int32_t *rows,
                          int16_t *scratch);

/* Convolution of each input channel alone, zero padding: output channel o reads input channel o / multiplier. Tables as
 * those of rtcore_matrix_i16, rows rounded up to 4, but weights packed tap by tap. */
typedef struct {
    rtcore_window window;
    const int8_t *w8;      /* i8  [rows/4][kernel_h * kernel_w][4 rows], -128..127, flash */
    const int16_t *w16;    /* i16, the same, -32767..32767, flash */
    const int32_t *bias32; /* i32 [rows] */
    const int64_t *bias64; /* i64 [rows] */
    const int16_t *mult;   /* i16 [rows], 1..32767, or NULL as in rtcore_matrix_i16 */
    const uint8_t *shift;  /* u8  [rows], 0..62 (0..31 for bias32 without mult) */
    int nb_inputs;         /* channels in */
    int nb_neurons;        /* channels out: nb_inputs * multiplier */
    int multiplier;
    int activation;
    const int32_t *stream; /* the tables as a core's own kernel reads them, flash, or NULL, as in rtcore_matrix_i16 */
    int form;              /* of the stream: RTCORE_STREAM_BOUNDED and one of RTCORE_STREAM_W* */
    int stride;            /* bytes of the stream from four channels to the next four */
} rtcore_depthwise_i16;

int rtcore_depthwise_i16_check(const rtcore_depthwise_i16 *layer);
/* output: i16 [out_h][out_w][nb_neurons]; input: i16 [in_h][in_w][nb_inputs]; they must not overlap. */
void rtcore_depthwise_i16_step(const rtcore_depthwise_i16 *layer, int16_t *output, const int16_t *input);

/* Gated recurrent unit, the wide recurrence of SPEC.md 5. Rows of both matrices come in groups of 4 units, gate by
 * gate: group 3b is update (z), 3b+1 candidate (h), 3b+2 reset (r) of units 4b..4b+3.
 * z, r requantize to Q(22 - gate_shift); the candidate's two sums to Q(22 - candidate_shift) for sigmoid and tanh,
 * to Q(state_frac + 15 - candidate_shift) for linear and ReLU. */
typedef struct {
    rtcore_matrix_i16 input;     /* Wx: 3 * round_up(nb_neurons, 4) rows of nb_inputs */
    rtcore_matrix_i16 recurrent; /* Rh: as many rows of nb_neurons */
    int nb_inputs;
    int nb_neurons;
    int activation;      /* of the candidate */
    int reset_after;     /* 1: h~ = act(Wx + r o (R h + b)), as torch; 0: h~ = act(Wx + R (r o h) + b) */
    int gate_shift;      /* 0..22 */
    int candidate_shift; /* 0..31 */
    int state_frac;      /* frac of the int16 view, -16..30; at most 15 for sigmoid and tanh; the state has 15 more */
    int gate_slope;      /* 0: z and r are sigmoids; else hard ones, 1/2 + slope * a within 0..1: Q30, 2^21..2^30 */
} rtcore_gru_i16;

/* capacity: number of elements of the scratch that steps will be given. */
int rtcore_gru_i16_check(const rtcore_gru_i16 *gru, int capacity);
/* state: i32 [nb_neurons], Q(state_frac + 15), -2^30..2^30; view: i16 [nb_neurons], Q(state_frac), the state rounded:
 * this is the layer's output, and what the next step's matrices read. rows: i32 [24]; input: i16
 * [nb_inputs], not overlapping the others. For reset_after 1. */
void rtcore_gru_i16_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input, int32_t *rows);
/* The same for reset_after 0. rows: i32 [16]; scratch: i16 [nb_neurons]. */
void rtcore_gru_i16_before_step(const rtcore_gru_i16 *gru, int32_t *state, int16_t *view, const int16_t *input,
                                int32_t *rows, int16_t *scratch);

/* Long short-term memory, SPEC.md 5. Rows of input and recurrent come in groups of 4 units, gate by gate: group 4b is
 * input (i), 4b+1 forget (f), 4b+2 candidate (g), 4b+3 output (o) of units 4b..4b+3, all requantized to
 * Q(22 - gate_shift). Coupled gates (f = 1 - i) have no rows of f: three groups, i g o. projection.nb_rows 0: there is
 * none, nb_outputs is nb_neurons. */
typedef struct {
    rtcore_matrix_i16 input;         /* Wx: 4 (coupled: 3) * round_up(nb_neurons, 4) rows of nb_inputs */
    rtcore_matrix_i16 recurrent;     /* Rh: as many rows of nb_outputs */
    rtcore_matrix_i16 projection;    /* nb_outputs rounded up to 4 rows of nb_neurons, Q0.15 to Q(state_frac) */
    const int16_t *peephole_weights; /* i16 [3 (coupled: 2)][nb_neurons], i f o, -32767..32767; NULL: no peepholes */
    const uint8_t *peephole_shift;   /* u8  [the same], 0..46: cell * weight >> shift is in Q22 */
    int nb_inputs;
    int nb_neurons;
    int nb_outputs; /* of the view */
    int coupled;    /* 1: f = 1 - i */
    int gate_shift; /* 0..22 */
    int cell_frac;  /* frac of the cell's int16 view, -16..15; the cell has 15 more */
    int state_frac; /* frac of the view, 0..15; with a projection -16..30 */
    int gate_slope; /* of i, f and o, as in rtcore_gru_i16 */
} rtcore_lstm_i16;

/* capacity: number of elements of the scratch that steps will be given. */
int rtcore_lstm_i16_check(const rtcore_lstm_i16 *lstm, int capacity);
/* cell: i32 [nb_neurons], Q(cell_frac + 15), -2^30..2^30. view: i16 [nb_outputs], Q(state_frac): the layer's output, and
 * what the next step's matrices read. rows: i32 [32]; scratch: i16 [nb_neurons]. input: i16 [nb_inputs], not
 * overlapping the others. */
void rtcore_lstm_i16_step(const rtcore_lstm_i16 *lstm, int32_t *cell, int16_t *view, const int16_t *input,
                          int32_t *rows, int16_t *scratch);

/* h' = act(W x + b + R h + b'), act tanh or ReLU. Both matrices requantize to Q(22 - shift) for tanh, to
 * Q(state_frac + 15 - shift) for ReLU. */
typedef struct {
    rtcore_matrix_i16 input;     /* Wx: nb_neurons rounded up to 4 rows of nb_inputs */
    rtcore_matrix_i16 recurrent; /* Rh: as many rows of nb_neurons */
    int nb_inputs;
    int nb_neurons;
    int activation;
    int shift;      /* 0..31 */
    int state_frac; /* frac of the view, -16..30; at most 15 for tanh */
} rtcore_rnn_i16;

/* capacity: number of elements of the scratch that steps will be given. */
int rtcore_rnn_i16_check(const rtcore_rnn_i16 *rnn, int capacity);
/* view: i16 [nb_neurons], Q(state_frac): state and output. rows: i32 [8]; scratch: i16 [nb_neurons]. input:
 * i16 [nb_inputs], not overlapping the others. */
void rtcore_rnn_i16_step(const rtcore_rnn_i16 *rnn, int16_t *view, const int16_t *input, int32_t *rows,
                         int16_t *scratch);

/* A part of a recurrent state from its int16 view (values, i16 [n]; NULL for zeros): wide (i32 [n], 15 bits more), the
 * kept view (i16 [n]), or both; what is NULL is not set. */
void rtcore_state_i16_set(int32_t *wide, int16_t *view, const int16_t *values, int n);
/* The int16 view of a part that is kept as i32 [n] alone. */
void rtcore_state_i16_view(int16_t *output, const int32_t *wide, int n);
/* The last `frames` inputs: view i16 [frames][n], oldest first, drops the first row and appends input, i16 [n], which
 * must not overlap it. */
void rtcore_delay_i16(int16_t *view, const int16_t *input, int n, int frames);

/* Elementwise operations on vectors of n; every sum is exact and rounded once, then saturated. Shifts are in SPEC.md 6.
 * stride 0 repeats a single element. Output may be one of the inputs. */
/* x: Q(22 - shift), shift -8..38 -> sigmoid or tanh in Q0.15; linear and ReLU keep the format, shift unused. */
void rtcore_activation_i16(int16_t *output, const int16_t *input, int n, int activation, int shift);
/* a * 2^shift_a + sign_b * b * 2^shift_b, then >> shift; shifts 0..46, sign_b 1 or -1. */
void rtcore_add_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n, int shift_a,
                    int shift_b, int sign_b, int shift);
/* a * b >> shift, shift 0..62. */
void rtcore_mul_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n, int shift);
/* (x * mult + bias) >> shift, element by element; mult i16 [n], bias i64 [n] (|bias| < 2^61), shift u8 [n] 0..62. */
void rtcore_affine_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                       const uint8_t *shift, int n);
/* x >> shift, shift 0..46; 0 copies. */
void rtcore_rescale_i16(int16_t *output, const int16_t *input, int n, int shift);

/* Scalar functions of vectors of n. Output may be the input. */
/* Any function of one format, as a table: i32 [65536 / 2^step + 1] nodes, step 1..8, |node| <= 2^(30 - step), flash; node k
 * belongs to x = -32768 + k * 2^step. Linear in between, >> shift (1..30). */
int rtcore_table_i16_check(const int32_t *nodes, int step, int shift);
void rtcore_table_i16(int16_t *output, const int16_t *input, int n, const int32_t *nodes, int step, int shift);
/* x within low..high, which are ACT. */
void rtcore_clamp_i16(int16_t *output, const int16_t *input, int n, int low, int high);
/* x >> shift_positive for x >= 0, x * mult >> shift else; mult i16 and shift u8 (0..62), [n], or with stride 0 [1]. */
void rtcore_prelu_i16(int16_t *output, const int16_t *input, const int16_t *mult, const uint8_t *shift, int stride,
                      int n, int shift_positive);
/* The larger (largest 1) or smaller (0) of a * 2^shift_a and b * 2^shift_b, then >> shift; shifts 0..46. */
void rtcore_minmax_i16(int16_t *output, const int16_t *a, int stride_a, const int16_t *b, int stride_b, int n,
                       int shift_a, int shift_b, int largest, int shift);
/* sqrt(x * 2^shift) to nearest, shift 0..31; 0 for x < 0. */
void rtcore_sqrt_i16(int16_t *output, const int16_t *input, int n, int shift);

/* Operations over a vector of n, 1..32768. Output may be the input. */
/* x: Q(frac), -16..30 -> exp(x - ln(sum of exp(x))) in Q0.15. */
void rtcore_softmax_i16(int16_t *output, const int16_t *input, int n, int frac);
/* x: Q(frac) -> x - ln(sum of exp(x)), from Q30 >> shift, 0..46. */
void rtcore_log_softmax_i16(int16_t *output, const int16_t *input, int n, int frac, int shift);
/* z = (x - mean) / sqrt(variance + epsilon / n^2) in Q20, then (z * mult + bias) >> shift; mult i16 [n], bias i64 [n]
 * (|bias| < 2^61), shift u8 [n] 0..62; epsilon 1..2^61 in squares of x's LSB. */
void rtcore_layernorm_i16(int16_t *output, const int16_t *input, const int16_t *mult, const int64_t *bias,
                          const uint8_t *shift, int n, int64_t epsilon);

/* Largest value or average of windows, channel by channel; at most 65535 taps. */
typedef struct {
    rtcore_window window;
    const int32_t
        *mult;     /* i32 [kernel_h * kernel_w + 1], 0..: y = (sum * mult[count] + half) >> shift; NULL for largest */
    int n;         /* channels */
    int largest;   /* 1: the largest of the taps inside the input, at least one; 0: their average */
    int count_pad; /* of an average, taps counted: 0 inside the input, 1 inside input and padding, as wide after it */
    int shift;     /* of an average, 1..62 */
} rtcore_pool_i16;

int rtcore_pool_i16_check(const rtcore_pool_i16 *pool);
/* output: i16 [out_h][out_w][n]; input: i16 [in_h][in_w][n]; they must not overlap. */
void rtcore_pool_i16_step(const rtcore_pool_i16 *pool, int16_t *output, const int16_t *input);

/* Copies and constants; output and input must not overlap. */
/* output: i16 [n0][n1][n2][n3]; element (i0, i1, i2, i3) is input[start + i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3]. Strides
 * may be 0 or negative; every index must lie within the input. */
void rtcore_copy_i16(int16_t *output, const int16_t *input, int start, int n0, int n1, int n2, int n3, int s0, int s1,
                     int s2, int s3);
/* output: i16 [n], every element `value`, which is ACT. */
void rtcore_fill_i16(int16_t *output, int n, int value);
/* output: i16 [n], row input[0] of the table, i16 [entries][n]; an index outside it is clipped to it, and counted. */
void rtcore_embedding_i16(int16_t *output, const int16_t *input, const int16_t *table, int n, int entries);

/* ---------------------------------------------------------------------------------------------------- float32 -- */

/* Fields, order, layout and gate order of the RNNoise/Opus family: its table initialisers compile unchanged. */
typedef struct {
    const float *bias;          /* f32 [nb_neurons] */
    const float *input_weights; /* f32 [nb_inputs][nb_neurons]: column-major, stride nb_neurons */
    int nb_inputs;
    int nb_neurons;
    int activation;
} rtcore_dense_f32;

typedef struct {
    const float *bias;              /* f32 [3N], z r h; [6N] with reset_after: input's, then recurrent's */
    const float *input_weights;     /* f32 [nb_inputs][3N] */
    const float *recurrent_weights; /* f32 [N][3N] */
    int nb_inputs;
    int nb_neurons; /* N */
    int activation; /* of the candidate */
    int reset_after;
} rtcore_gru_f32;

int rtcore_dense_f32_check(const rtcore_dense_f32 *layer);
void rtcore_dense_f32_step(const rtcore_dense_f32 *layer, float *output, const float *input);

/* capacity: neurons that the scratch has room for (3 floats each). */
int rtcore_gru_f32_check(const rtcore_gru_f32 *gru, int capacity);
/* state: f32 [N], read and replaced: it is the output. scratch: f32 [3N]. h' = z h + (1 - z) h~. */
void rtcore_gru_f32_step(const rtcore_gru_f32 *gru, float *state, const float *input, float *scratch);
/* The same with gates of a slope: slope * x + 1/2 within 0..1 (1/6 in Keras 3, 0.2 in ONNX); 0 for sigmoids. It is no
 * member of the struct, whose fields are the family's. */
void rtcore_gru_f32_gated(const rtcore_gru_f32 *gru, float gate_slope, float *state, const float *input,
                          float *scratch);

void rtcore_activation_f32(float *output, const float *input, int n, int activation);

#ifdef __cplusplus
}
#endif

#endif
