/* rtcore_math_f32.h - the named primitives of all float32 arithmetic: exp, log, sqrt, sigmoid, tanh, matrix columns.
 *
 * No libm: only + - * /, comparisons, and conversions that stay in range, in an order that the source fixes. So bits
 * are the same on every IEEE machine that rounds each operation on its own (build with -ffp-contract=off, without
 * -ffast-math, without x87). Accuracy, relative: sigmoid and tanh 3e-7 wherever the result is a normal number; below
 * 1.2e-38 sigmoid underflows gradually to 0. NaN in gives NaN out, infinities give the limits.
 * Neighbours: the kernels rtcore_<family>_f32.c, rtcore_lineage_int8.c; rtcore.h has the vector form.
 */
#ifndef RTCORE_MATH_F32_H
#define RTCORE_MATH_F32_H

#ifdef __cplusplus
extern "C" {
#endif

/* e^x, 1.2e-7 relative; infinity above 88.72, gradual underflow below -87.33, 0 below -103.98 */
float rtcore_exp_f32(float x);

/* e^x - 1, 5e-7 relative; x itself where |x| is small */
float rtcore_expm1_f32(float x);

/* ln x, 2e-7 relative; -infinity at 0, NaN below */
float rtcore_log_f32(float x);

/* ln(1 + x), 4e-7 relative; x itself where |x| is small */
float rtcore_log1p_f32(float x);

/* Correctly rounded; NaN below 0 */
float rtcore_sqrt_f32(float x);

/* 1 / (1 + e^-x), right in relative terms at both ends */
float rtcore_sigmoid_f32(float x);

/* A recurrent layer's gate: sigmoid(x) for slope 0, else the hard sigmoid slope * x + 1/2 within 0..1 */
float rtcore_gate_f32(float x, float slope);

/* Odd, but tanh(-0) is +0; x itself where |x| is small */
float rtcore_tanh_f32(float x);

/* sums: f32 [nb_rows], each plus sum_j weights[j][row] * x[j], j upwards, one rounding per product and per sum.
 * weights: f32 [nb_columns][stride], the first nb_rows of each column; x: f32 [nb_columns], not overlapping sums. */
void rtcore_columns_f32(float *sums, int nb_rows, const float *weights, int stride, const float *x, int nb_columns);

#ifdef __cplusplus
}
#endif

#endif
