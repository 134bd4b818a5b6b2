/* plain_loop.c - a matrix times a vector as one writes it first: row by row, a weight and an input at a time.
 * What rtcore's kernels are held against (benches/plain_loop.py); no part of a firmware. */
#include <stdint.h>

static int32_t row(int64_t sum) { return sum > INT32_MAX ? INT32_MAX : sum < -INT32_MAX ? -INT32_MAX : (int32_t)sum; }

/* Exact sums of int16 weights; y: i32 [rows], sums >> shift */
void plain_w16(const int16_t *w, const int64_t *bias, const int16_t *x, int32_t *y, int rows, int columns, int shift) {
    for (int r = 0; r < rows; r++) {
        int64_t sum = bias[r];
        for (int c = 0; c < columns; c++) {
            sum += w[c] * x[c];
        }
        w += columns;
        y[r] = row(sum >> shift);
    }
}

/* Sums of int8 weights, which fit 32 bits; y: i32 [rows], sums * mult >> shift */
void plain_w8(const int8_t *w, const int32_t *bias, const int16_t *x, int32_t *y, int rows, int columns, int mult,
              int shift) {
    for (int r = 0; r < rows; r++) {
        int32_t sum = bias[r];
        for (int c = 0; c < columns; c++) {
            sum += w[c] * x[c];
        }
        w += columns;
        y[r] = row((int64_t)sum * mult >> shift);
    }
}

/* Room for the largest matrix of the frame. */
int16_t plain_weights[288 * 114];
int64_t plain_bias[288];
int16_t plain_x[114];
int32_t plain_y[288];
